"""10a, 10c, 10d and 13a, run in this process on real digits."""

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest
import torch

from applesandoranges.analysis.overlap import largest_parameters, mask_curve
from applesandoranges.app.log import read_log
from applesandoranges.measurement.recorded_hessian import (
    RecordedHessianConfig,
    load_recorded_hessian,
)
from applesandoranges.measurement.seigh import sketch_matrices
from applesandoranges.problems.parameters import parameter_vector
from applesandoranges.problems.problem import build_problem
from applesandoranges.results.collect import read_logs
from applesandoranges.training.params_file import IncrementalHDF5
from skerch.decompositions import seigh
from tests.conftest import ANALYSE, TRAIN, Pipeline, run
from tests.published_core import published_core

DRAW = "13a_plot_overlap.py"


def snapshot(directory):
    return {p: p.read_bytes() for p in Path(directory).rglob("*") if p.is_file()}


def load(pipeline, step=0, test=False):
    return load_recorded_hessian(
        RecordedHessianConfig(
            str(pipeline.datasets), str(pipeline.params), str(pipeline.log), step, test,
            DEVICE="cpu",
        )
    )  # fmt: skip


def quantities(log):
    return {k: v for body in read_log(log).bodies("RESULT") for k, v in body.items()}


@pytest.fixture(scope="module")
def analysed(trained):
    store = trained.lay_out("analysed")
    assert trained.measure(store) == 0
    assert trained.analyse(store) == 0
    return trained.logs(ANALYSE)[-1]


# ---------------------------------------------------------------------------------- 10a


def test_log_has_the_documented_lines(trained):
    log = read_log(trained.log)
    headers = [event.header for event in log.events]
    assert headers == [
        "CONFIG", "GLOBALS", "EVAL ROUND", "HDF5", "TRAINING BATCH", "HDF5", "TRAINING BATCH",
        "FINAL EVALUATION", "INFO",
    ]  # fmt: skip
    assert {
        "run_dir", "batch_size", "num_epochs", "max_steps", "steps_per_epoch", "opt_name",
        "opt_hpars", "sched_name", "sched_hpars", "param_shapes", "num_params", "H_train_idxs",
        "H_test_idxs", "record_steps",
    } <= log.first("GLOBALS").keys()  # fmt: skip
    assert log.first("GLOBALS")["num_params"] == 7030
    evaluation = {
        f"{part}_{what}" for part in ("train", "xv", "test") for what in ("loss", "acc")
    } | {"epoch", "global_step"}
    assert log.first("EVAL ROUND").keys() == evaluation
    assert log.first("FINAL EVALUATION").keys() == evaluation
    assert log.first("HDF5").keys() == {"global_step", "matrix", "split", "status", "sha256"}
    assert log.first("TRAINING BATCH").keys() == {
        "global_step", "epoch", "batch_loss", "H_train_loss", "H_test_loss", "lr",
    }  # fmt: skip


def test_run_directory_and_files_have_the_documented_names(trained):
    stamp = trained.run_dir.name.partition("__")[0]
    assert trained.run_dir.name == f"{stamp}__mnist_mini__12345"
    assert trained.log.name == f"{stamp}[10a_gather_params_grads.py].log"
    assert trained.params.name == f"{trained.run_dir.name}__params.h5"


def test_recorded_parameters_are_those_of_plain_sgd(trained):
    """Two updates by hand, from the same initialisation and order of the data."""
    problem = build_problem("mnist_mini", trained.datasets, 12345, 500)
    net = problem.net
    first = parameter_vector(net).clone()
    for (X, y), _ in zip(problem.train_loader(0), range(2), strict=False):
        net.zero_grad()
        torch.nn.functional.cross_entropy(net(X), y).backward()
        with torch.no_grad():
            for p in net.parameters():
                p -= 0.3 * p.grad
    recorded = IncrementalHDF5(trained.params)
    torch.testing.assert_close(recorded.find(step=0).data[:, 0], first, rtol=0, atol=0)
    torch.testing.assert_close(
        recorded.find(step=2).data[:, 0], parameter_vector(net), rtol=1e-5, atol=1e-7
    )


def test_gradients_are_stored_when_asked(tmp_path, digits):
    pipeline = Pipeline(tmp_path, digits, 6, 12, record=(0,), extra=["STORE_GRADS=true"])
    assert pipeline.train() == 0
    recorded = load(pipeline)
    X, y = (
        torch.cat(part) for part in zip(*recorded.problem.hessian_data("train", 20), strict=True)
    )
    loss = torch.nn.functional.cross_entropy(recorded.problem.net(X), y)
    expected = torch.cat(
        [g.flatten() for g in torch.autograd.grad(loss, list(recorded.problem.net.parameters()))]
    )
    (path,) = pipeline.run_dir.glob("*__gradients_train.h5")
    torch.testing.assert_close(
        IncrementalHDF5(path).find(step=0).data[:, 0], expected, rtol=1e-5, atol=1e-7
    )
    assert list(pipeline.run_dir.glob("*__gradients_test.h5"))


def test_the_state_after_the_last_update_can_be_recorded(tmp_path, digits):
    settings = tmp_path / "short.yaml"
    settings.write_text(
        "mnist_mini: {batch_size: 1000, num_epochs: 1, SGD: {opt_hpars: {lr: 0.1}}}"
    )
    pipeline = Pipeline(tmp_path, digits, 6, 12, record=(0, 3), extra=[f"TUNING_CONF={settings}"])
    assert pipeline.train() == 0
    log = read_log(pipeline.log)
    assert log.first("GLOBALS")["steps_per_epoch"] == 3
    assert [body["global_step"] for body in log.bodies("TRAINING BATCH")] == [0, 3]
    assert log.first("FINAL EVALUATION")["global_step"] == 3


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["RECORD_STEPS=[0,9]"], "beyond|must be some of 0 ... 4"),
        (["RECORD_STEPS=[-1]"], "must be some of"),
        (["RECORD_STEPS=[]"], "must be some of"),
        (["NUM_HESSIAN_DATAPOINTS=15"], "multiple of 10"),
        (["NUM_HESSIAN_DATAPOINTS=50000"], "at most"),
        (["NUM_HESSIAN_DATAPOINTS=0"], "multiple of 10"),
        (["PROBLEM=mnist_maxi"], "nearest valid one is mnist_mini"),
        (["PROBLEM=vit"], "one of your own is a path that ends in .py"),
        (["OPTIMIZER=SDG"], "nearest valid one is SGD"),
        (["TUNING_CONF=no.yaml"], "no.yaml: no such settings file"),
        (["OBS_DATASETS=nowhere"], "SOURCE=download.*SOURCE=embedded"),
        (["DEVICE=tpu9"], "DEVICE=tpu9 is not available"),
        (["RANDOM_SEED=-1"], "RANDOM_SEED must lie in"),
        (["MAX_STEPS=-2"], "MAX_STEPS must be at least 0"),
        (["OUTDIR_SUFFIX=a/b"], "OUTDIR_SUFFIX"),
        (["STEPS=4"], "unknown key 'STEPS'"),
        (["RECORD_STEPS=None"], "key RECORD_STEPS"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_10a_refuses_and_leaves_nothing(tmp_path, digits, capsys, words, message):
    import re

    given = {
        "OBS_DATASETS": str(digits), "RANDOM_SEED": "1", "OUTPUT_DIR": str(tmp_path / "out"),
        "RECORD_STEPS": "[0]", "MAX_STEPS": "4", "NUM_HESSIAN_DATAPOINTS": "20",
    }  # fmt: skip
    given |= dict(word.split("=", 1) for word in words)
    assert run(TRAIN, *(f"{k}={v}" for k, v in given.items())) == 2
    line = capsys.readouterr().err.splitlines()[0]
    assert re.search(message, line)
    assert not (tmp_path / "out").exists()


# ---------------------------------------------------------------------------------- 10c


def test_measurements_are_dense_products(trained):
    store = trained.lay_out("dense")
    assert trained.measure(store, MEASUREMENT_IDXS=[7, 2], TEST_HESSIAN=1) == 0
    recorded = load(trained, test=True)
    Phi, Psi = sketch_matrices(recorded, 12)
    expected = recorded.operator @ Psi.rows([2]).T
    with h5py.File(store / "leftouter_0000000002.h5") as file:
        np.testing.assert_allclose(file["data"][:], expected[:, 0], rtol=1e-4, atol=1e-7)
        assert file["flags"].asstr()[0] == "measured"
        assert json.loads(file.attrs["provenance"])["split"] == "test"
    with h5py.File(store / "inner_0000000002.h5") as file:
        np.testing.assert_allclose(file["data"][:], Phi @ expected[:, 0], rtol=1e-4, atol=1e-7)
    with h5py.File(store / "inner_0000000003.h5") as file:
        assert file["flags"].asstr()[0] == "initialized"


def test_rerun_measures_only_what_is_missing_and_says_so(trained, capsys):
    store = trained.lay_out("rerun")
    assert trained.measure(store, MEASUREMENT_IDXS=[0, 1, 2]) == 0
    capsys.readouterr()
    assert trained.measure(store, MEASUREMENT_IDXS=[1, 2, 3]) == 0
    out = capsys.readouterr().out
    assert "2 measurements are done already" in out
    assert "1 measured, indices 3 ... 3" in out
    before = snapshot(store)
    assert trained.measure(store, MEASUREMENT_IDXS=[0, 1, 2, 3]) == 0
    assert "Nothing to measure: all requested measurements are done" in capsys.readouterr().out
    assert snapshot(store) == before


def test_store_of_another_hessian_is_measured_again(trained, capsys):
    store = trained.lay_out("recycled")
    assert trained.measure(store, STEP=2) == 0
    capsys.readouterr()
    assert trained.measure(store, STEP=0, MEASUREMENT_IDXS=[0, 1]) == 0
    assert "2 measured, indices 0 ... 1" in capsys.readouterr().out
    assert trained.analyse(store, STEP=0) == 1
    err = capsys.readouterr().err
    assert "10 of 12 measurements cannot be used: 2-11 (of another Hessian" in err
    assert "step: expected 0, found 2" in err


@pytest.mark.parametrize(
    ("changes", "status", "message"),
    [
        ({"STEP": 1}, 2, "step 1 was not recorded; there are [0, 2]"),
        ({"MEASUREMENT_IDXS": [12]}, 2, "must be some of 0 ... 11, got [12]"),
        ({"MEASUREMENT_IDXS": [-1, 3]}, 2, "must be some of 0 ... 11, got [-1]"),
        ({"MEASUREMENT_IDXS": []}, 2, "must be some of 0 ... 11, got none"),
        ({"NUM_INNER": 5, "MEASUREMENT_IDXS": [0]}, 2, "outer=6, inner=5"),
        ({"NUM_OUTER": 8000, "NUM_INNER": 9000}, 2, "inner <= 7030"),
        ({"NUM_OUTER": 7}, 2, "expected shape (7030, 7) and dtype float32"),
        (
            {"NUM_OUTER": 7},
            2,
            "create_hdf5_layout --hdf5dir NEW_DIRECTORY --dtype float32 --shape "
            "7030,7030 --outer 7 --inner 12 --sym makes a store that fits",
        ),
        ({"NUM_INNER": 13}, 2, "expected shape (13, 13) and dtype float32"),
        ({"MEASUREMENTS_DIR": "nowhere"}, 2, "no such store; python -m skerch create_hdf5_layout"),
        ({"OBS_DATASETS": "nowhere"}, 2, "SOURCE=embedded"),
        ({"PARAMS_PATH": "nowhere.h5"}, 2, "nowhere.h5: no such params file"),
        ({"TRAINING_LOGPATH": "nowhere.log"}, 2, "nowhere.log: cannot be read"),
        ({"SUCCESS_FLAG": "initialized"}, 2, "SUCCESS_FLAG cannot be 'initialized'"),
        ({"MEMORY_BUDGET_GB": 1e-6}, 2, "MEMORY_BUDGET_GB: one measurement of 7030 parameters"),
        ({"MEMORY_BUDGET_GB": -1}, 2, "MEMORY_BUDGET_GB must be a positive number"),
        ({"VECTORS_PER_PRODUCT": 0}, 2, "VECTORS_PER_PRODUCT must be at least 1, got 0"),
        ({"HVP_ENGINE": "grph"}, 2, "unknown HVP_ENGINE 'grph'; the nearest valid one is graph"),
        ({"STEP": None}, 2, "missing key STEP"),
        ({"NUM_INER": 3}, 2, "unknown key 'NUM_INER'; the nearest valid one is NUM_INNER"),
    ],
    ids=lambda value: str(value)[:40] if isinstance(value, dict) else "",
)
def test_10c_refuses_and_changes_nothing(trained, tmp_path, capsys, changes, status, message):
    store = trained.root / "refusals"
    if not store.exists():
        trained.lay_out("refusals")
    before = snapshot(trained.root)
    assert trained.measure(store, **changes) == status
    assert message in capsys.readouterr().err.splitlines()[0]
    assert snapshot(trained.root) == before


def test_log_and_params_of_different_runs_are_refused(trained, tmp_path, digits, capsys):
    other = Pipeline(tmp_path, digits, 6, 12, record=(0,))
    assert other.train() == 0
    assert trained.measure(trained.root, PARAMS_PATH=other.params) == 2
    assert "are of different runs" in capsys.readouterr().err


def test_other_data_than_those_of_the_training_are_refused(trained, tmp_path, capsys):
    from applesandoranges.problems.sources import write_synthetic

    write_synthetic("MNIST", tmp_path, 5000, 1000)
    assert trained.measure(trained.root, OBS_DATASETS=tmp_path) == 2
    assert "not the data of the training" in capsys.readouterr().err


def test_store_of_another_dtype_is_refused(trained, capsys):
    from skerch.__main__ import main as skerch

    store = trained.root / "float64"
    words = f"--shape 7030,7030 --dtype float64 --outer 6 --inner 12 --sym --hdf5dir {store}"
    assert skerch(["create_hdf5_layout", *words.split()]) == 0
    assert trained.measure(store) == 2
    assert "and dtype float32, found" in capsys.readouterr().err


def test_nan_is_refused_with_step_and_index(trained, capsys, monkeypatch):
    store = trained.lay_out("nan")
    module = __import__("applesandoranges.measurement.recorded_hessian", fromlist=["make_hessian"])
    true_hessian = module.make_hessian

    class Poisoned:
        def __init__(self, op):
            self.op, self.shape = op, op.shape
            self.plan, self.make_plan = op.plan, op.make_plan

        def __matmul__(self, X):
            result = self.op @ X
            result[3, -1] = float("nan")
            return result

    monkeypatch.setattr(
        module, "make_hessian", lambda *args, **keys: Poisoned(true_hessian(*args, **keys))
    )
    before = snapshot(store)
    assert trained.measure(store, STEP=2, MEASUREMENT_IDXS=[4, 5]) == 1
    assert "step 2, train: symmetry: the product is NaN or infinite" in capsys.readouterr().err
    words = {"STEP": 2, "MEASUREMENT_IDXS": [4, 5], "CHECK_OPERATOR": False}
    assert trained.measure(store, **words) == 1
    err = capsys.readouterr().err
    assert "step 2, train: the operator's product is NaN or infinite for measurements [5]" in err
    assert "from mini-batch 0 (of 500 data points)" in err
    assert snapshot(store) == before


# ---------------------------------------------------------------------------------- 10d


def test_10d_gives_the_in_memory_decomposition(trained, analysed):
    recorded = load(trained)
    expected = seigh(recorded.operator, 6, 12, seed=12346, dtype=torch.float32)
    found = quantities(analysed)
    np.testing.assert_allclose(found["core_S"], expected.S, rtol=1e-4)
    V, order = expected.vectors(), largest_parameters(recorded.params, 6)
    np.testing.assert_allclose(found["frob_Qtop^2"], mask_curve(V[order]), rtol=1e-3, atol=1e-8)
    by_magnitude = sorted(range(recorded.dim), key=lambda i: -abs(float(recorded.params[i])))
    assert found["largest_absparams"] == by_magnitude[:6]
    np.testing.assert_allclose(
        found["largest_absparams_magnitudes"], recorded.params[by_magnitude[:6]].abs()
    )


@pytest.mark.parametrize("budget", [None, 0.004], ids=["ample-memory", "row-blocks"])
def test_one_triangle_gives_the_core_of_the_original(trained, budget):
    """As the original does it, from the measurements that lie in the store."""
    pipeline = replace(trained, outer=30, inner=60)
    store = pipeline.lay_out(f"one_triangle_{budget}")
    assert pipeline.measure(store, STEP=2) == 0
    words = {"SYMMETRIZE_CORE": False, "WITH_A_POSTERIORI": False, "MEMORY_BUDGET_GB": budget}
    assert pipeline.analyse(store, STEP=2, **words) == 0
    found = quantities(pipeline.logs(ANALYSE)[-1])

    recorded = load(trained, step=2)
    Phi, Psi = (S.rows(range(60), torch.float64) for S in sketch_matrices(recorded, 60))
    with h5py.File(store / "leftouter_MERGED.h5") as Y, h5py.File(store / "inner_MERGED.h5") as W:
        sketch = [torch.from_numpy(file["data"][:]).double() for file in (Y, W)]
    S, V = published_core(*sketch, Phi, Psi, pivoting=True)
    plain, _ = published_core(*sketch, Phi, Psi, pivoting=False)
    order = recorded.params.abs().argsort(descending=True, stable=True)[:30]
    curve = V[order].square().cumsum(0).cumsum(1).diagonal()
    scale = float(S.abs().max())
    # Psi is applied to the stored float32 in float32, else all is float64.
    np.testing.assert_allclose(found["core_S"], S, rtol=0, atol=2e-6 * scale)
    np.testing.assert_allclose(found["frob_Qtop^2"], curve, rtol=0, atol=1e-5 * float(curve[-1]))
    assert float((S - plain).abs().max()) > 1e-2 * scale


def test_10d_logs_all_documented_quantities(analysed):
    bodies = read_log(analysed).bodies("RESULT")
    assert all(body["step"] == 0 and body["H_test"] is False for body in bodies)
    assert [body["K"] for body in bodies if "num_a_posteriori" in body] == [6, 3, 1]
    assert [body["K"] for body in bodies if "layers_mask" in body] == [6, 3, 1]
    names = {name for body in bodies for name in body}
    assert {
        "core_S", "Frob(H)^2", "Frob(H_K)^2", "Frob(H-H_K)^2", "Frob(H_3)^2", "Frob(H-H_6)^2",
        "P(err<=0.75x)", "P(err<=0.5x)", "P(err<=0.25x)", "P(err>=2x)", "P(err>=1.5x)",
        "scree_lower", "scree_upper", "frob_Qtop^2", "largest_absparams", "frob_Qbest^2",
        "frob_Qrandom^2",
    } <= names  # fmt: skip
    assert analysed.name.endswith("[10d_core_and_analysis.py]__step=0__test=False.log")


def test_a_scree_needs_two_products(trained):
    """One product has no spread, from which its bounds are made."""
    store = trained.lay_out("one product")
    assert trained.measure(store) == 0
    assert trained.analyse(store, NUM_A_POSTERIORI=1) == 0
    names = {name for body in read_log(trained.logs(ANALYSE)[-1]).bodies("RESULT") for name in body}
    assert "Frob(H-H_K)^2" in names
    assert "scree_lower" not in names


def test_10d_keeps_eigenvectors_and_compares_them_with_other_steps(trained):
    store = trained.lay_out("vectors")
    found = {}
    for step in (0, 2):
        assert trained.measure(store, STEP=step) == 0
        assert trained.analyse(store, STEP=step, EIGENVECTORS=4, WITH_A_POSTERIORI=0) == 0
        log = read_log(trained.logs(ANALYSE)[-1])
        (kept,) = (b for b in log.bodies("RESULT") if "eigenvectors_path" in b)
        with h5py.File(kept["eigenvectors_path"]) as file:
            found[step] = file["data"][:].astype(float)
        operator = load(trained, step).operator
        expected = seigh(operator, 6, 12, seed=12346, dtype=torch.float32).vectors(4).numpy()
        np.testing.assert_allclose(np.abs((found[step] * expected).sum(0)), 1, atol=1e-4)
    (between,) = (b for b in log.bodies("RESULT") if b.get("angles_with") == "eigenspace")
    assert between["other_step"] == 0
    expected = [np.linalg.norm(found[0][:, :k].T @ found[2][:, :k]) ** 2 for k in range(1, 5)]
    np.testing.assert_allclose(between["frob_VtV^2"], expected, rtol=1e-4)


def test_10d_refuses_a_copy_of_eigenvectors_of_another_step(trained, capsys):
    """Before it does anything; the copy says that it is of its step, and has no checksum."""
    store = trained.lay_out("copied vectors")
    words = {"EIGENVECTORS": 2, "WITH_A_POSTERIORI": 0}
    assert trained.measure(store, STEP=2) == 0
    assert trained.analyse(store, STEP=2, **words) == 0
    (path,) = trained.run_dir.glob("*__eigenvectors__step=2__test=False.h5")
    with h5py.File(path) as file:
        made_by = json.loads(file.attrs["recovery"])
    assert (made_by["recovery"], made_by["num_inner"]) == ("seigh", 12)
    elsewhere = path.with_name(path.name.replace("step=2", "step=0"))
    shutil.copy(path, elsewhere)
    with h5py.File(elsewhere, "r+") as file:
        facts = json.loads(file.attrs["provenance"]) | {"step": 0}
        file.attrs["provenance"] = json.dumps(facts)
        del file.attrs["recovery"], file.attrs["crc32_facts"]
    before = snapshot(trained.root)
    assert trained.analyse(store, STEP=2, **words) == 1
    assert "params_sha256: expected" in capsys.readouterr().err
    assert snapshot(trained.root) == before
    elsewhere.unlink()
    path.unlink()


def test_10d_refuses_a_negative_number_of_eigenvectors(trained, capsys):
    store = trained.lay_out("negative")
    assert trained.analyse(store, EIGENVECTORS=-1) == 2
    assert "EIGENVECTORS must be at least 0" in capsys.readouterr().err


def test_10d_can_be_run_again_and_without_subfiles(trained, capsys):
    store = trained.lay_out("again")
    assert trained.measure(store, STEP=2) == 0
    assert trained.analyse(store, STEP=2, DELETE_MERGED_SUBFILES=1) == 0
    assert {p.name for p in store.iterdir()} == {
        "inner_ALL.h5", "leftouter_ALL.h5", "inner_MERGED.h5", "leftouter_MERGED.h5",
    }  # fmt: skip
    first = quantities(trained.logs(ANALYSE)[-1])
    capsys.readouterr()
    assert trained.analyse(store, STEP=2) == 0
    assert "were merged before" in capsys.readouterr().out
    assert quantities(trained.logs(ANALYSE)[-1])["core_S"] == first["core_S"]


@pytest.mark.parametrize(
    ("changes", "status", "message"),
    [
        ({}, 1, "12 of 12 measurements cannot be used: 0-11 (not measured)"),
        ({"STEP": 5}, 2, "step 5 was not recorded"),
        ({"INNER_VIRTUAL": "no.h5"}, 2, "no.h5: no such virtual file"),
        ({"NUM_A_POSTERIORI": 0}, 2, "NUM_A_POSTERIORI must be at least 1, got 0"),
        ({"NUM_RANDOM_MASKS": -1}, 2, "NUM_RANDOM_MASKS must be at least 0, got -1"),
        ({"WITH_A_POSTERIORI": "perhaps"}, 2, "key WITH_A_POSTERIORI: expected bool"),
    ],
    ids=lambda value: str(value)[:40] if isinstance(value, dict) else "",
)
def test_10d_refuses_and_changes_nothing(trained, capsys, changes, status, message):
    store = trained.root / "unmeasured"
    if not store.exists():
        trained.lay_out("unmeasured")
    before = snapshot(trained.root)
    assert trained.analyse(store, **changes) == status
    assert message in capsys.readouterr().err.splitlines()[0]
    assert snapshot(trained.root) == before


def test_10d_never_overwrites_other_files(trained, analysed, capsys):
    store = trained.root / "analysed"
    before = trained.params.read_bytes()
    assert trained.analyse(store, OUTER_MONOLITHIC=trained.params) == 2
    assert "it is left alone" in capsys.readouterr().err
    assert trained.params.read_bytes() == before


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"OUTER_MONOLITHIC": "leftouter_0000000001.h5"}, "it is left alone"),
        ({"OUTER_MONOLITHIC": "inner_MERGED.h5"}, "are the same file; expected two"),
    ],
    ids=["a measurement", "the same twice"],
)
def test_10d_merges_into_two_files_that_are_no_measurements(
    trained, analysed, capsys, files, message
):
    store = trained.root / "analysed"
    before = {path: path.read_bytes() for path in store.iterdir()}
    words = {name: store / file for name, file in files.items()}
    assert trained.analyse(store, **words) == 2
    assert message in capsys.readouterr().err
    assert {path: path.read_bytes() for path in store.iterdir()} == before


@pytest.mark.parametrize(
    "jobs",
    [
        [("0-12", 12)],
        [("0-5", 2), ("5-12", 3)],
        [("11-12", 1), ("0-4", 4), ("4-11", 64)],
    ],
    ids=["one job", "two jobs", "three jobs out of order"],
)
def test_any_split_and_block_size_gives_the_same(trained, analysed, jobs, tmp_path):
    store = trained.lay_out(f"split{len(jobs)}")
    for span, block in jobs:
        idxs = list(range(*map(int, span.split("-"))))
        assert trained.measure(store, MEASUREMENT_IDXS=idxs, VECTORS_PER_PRODUCT=block) == 0
    assert trained.analyse(store) == 0
    expected, found = quantities(analysed), quantities(trained.logs(ANALYSE)[-1])
    np.testing.assert_allclose(found["core_S"], expected["core_S"], rtol=1e-4)
    np.testing.assert_allclose(found["frob_Qtop^2"], expected["frob_Qtop^2"], rtol=1e-4, atol=1e-9)


# ---------------------------------------------------------------------------------- 13a


def test_13a_draws_and_prints(analysed, tmp_path, capsys):
    words = [f"LOGS={analysed}", f"OUTPUT_DIR={tmp_path / 'f'}"]
    assert run(DRAW, *words) == 0
    out, err = capsys.readouterr()
    assert "chance k/D" in out
    assert "not drawn: training (no log has evaluations of a training)" in err
    pngs = {p.stem: p for p in (tmp_path / "f").glob("*.png")}
    assert set(pngs) == {
        "overview", "overlap_over_k", "overlap_over_steps", "errors", "masks", "run_times",
        "ratio_over_k", "ratio_over_steps", "grassmannian_along_training", "layers",
    }  # fmt: skip
    assert {p.stem for p in (tmp_path / "f").glob("*.pdf")} == set(pngs)
    assert pngs["overview"].read_bytes().startswith(b"\x89PNG")
    table = pd.read_csv(tmp_path / "f" / "overview_overlap.csv")
    assert table["overlap"].tolist() == pytest.approx(
        [c / (k + 1) for k, c in enumerate(quantities(analysed)["frob_Qtop^2"])]
    )
    before = snapshot(tmp_path)
    assert run(DRAW, *words) == 2
    assert "exists already; OVERWRITE=true" in capsys.readouterr().err
    assert snapshot(tmp_path) == before
    assert run(DRAW, *words, "OVERWRITE=true", "FIGURES=[masks]") == 0


def test_13a_draws_training_and_measurements(trained, analysed, tmp_path):
    words = [f"LOGS={trained.run_dir}", f"OUTPUT_DIR={tmp_path / 'f'}"]
    assert run(DRAW, *words, "FIGURES=[training,run_times]") == 0
    times = pd.read_csv(tmp_path / "f" / "run_times_seconds.csv")
    assert {"one measurement", "Orthogonalising", "Solving the core"} <= set(times["stage"])
    assert (times["seconds"] >= 0).all()
    evaluations = pd.read_csv(tmp_path / "f" / "training_evaluations.csv")
    assert evaluations["global_step"].tolist() == [0, 3]


def test_13a_says_that_all_stages_are_shorter_than_the_resolution_of_logs(
    analysed, tmp_path, capsys
):
    log = tmp_path / "fast.log"
    lines = [json.loads(line)[1] for line in analysed.read_text().splitlines()]
    log.write_text("\n".join(json.dumps(["2026-01-31_12:34:56.789", line]) for line in lines))
    words = [f"LOGS={log}", f"OUTPUT_DIR={tmp_path / 'f'}", "FIGURES=[run_times]"]
    assert run(DRAW, *words) == 2
    assert "no stage takes longer than 0.001 s" in capsys.readouterr().err
    assert not (tmp_path / "f").exists()


def test_13a_takes_no_warning_for_a_stage(analysed, tmp_path):
    lines = analysed.read_text().splitlines()
    stamp = json.loads(lines[3])[0]
    lines.insert(4, json.dumps([stamp, ["WARNING", ["doubts of any length: " + 200 * "x", {}]]]))
    log = tmp_path / "warned.log"
    log.write_text("\n".join(lines))
    assert run(DRAW, f"LOGS={log}", f"OUTPUT_DIR={tmp_path / 'f'}", "FIGURES=[run_times]") == 0
    stages = pd.read_csv(tmp_path / "f" / "run_times_seconds.csv")["stage"]
    assert "Solving the core" in set(stages)
    assert not stages.str.startswith("doubts").any()


def test_13a_draws_what_is_there_and_names_what_is_not(analysed, tmp_path, capsys):
    cut = tmp_path / "cut.log"
    text = analysed.read_text()
    cut.write_text(text[: text.rindex("RESULT") + 40])
    words = [f"OUTPUT_DIR={tmp_path / 'f'}", "FIGURES=overview"]
    assert run(DRAW, f"LOGS={cut}", *words) == 2  # an analysis that did not end does not count
    assert f"{cut}: the analysis of step 0, train did not end" in capsys.readouterr().err
    assert run(DRAW, f"LOGS={cut}{os.pathsep}{analysed}", *words) == 0
    assert f"{cut}: the analysis of step 0, train did not end" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("content", "message"),
    [("", "not a log of these scripts (it is empty)"), ("hello", "not a log of these scripts"),
     ('["2024-03-21_02:09:31.164", ["GLOBALS", {"num_params": 3}]]', "has no result, evaluation")],
    ids=["empty", "foreign", "no results"],
)  # fmt: skip
def test_13a_names_a_file_that_is_no_log(tmp_path, capsys, content, message):
    path = tmp_path / "x.log"
    path.write_text(content)
    assert run(DRAW, f"LOGS={path}", f"OUTPUT_DIR={tmp_path / 'f'}") == 2
    err = capsys.readouterr().err
    assert str(path) in err
    assert message in err
    assert not (tmp_path / "f").exists()


def test_overlap_table_has_overlap_chance_and_ratio(analysed):
    logs = read_logs(str(analysed))
    (result,), curve = logs.results, quantities(analysed)["frob_Qtop^2"]
    table = result.overlap_table()
    assert not logs.left_out
    assert table["overlap"].tolist() == pytest.approx([c / (k + 1) for k, c in enumerate(curve)])
    assert table["chance"].tolist() == pytest.approx([k / 7030 for k in range(1, 7)])
    assert table["ratio"].tolist() == pytest.approx((table["overlap"] / table["chance"]).tolist())
