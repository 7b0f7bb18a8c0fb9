"""The words of the published logs in those of 10a, 10c and 12a; logs of earlier versions."""

import dataclasses
import json
import re

import numpy as np
import pytest
import torch
from torch import nn

from applesandoranges.app import events
from applesandoranges.app.log import JsonLog, read_log
from applesandoranges.cluster.progress import begun_indices
from applesandoranges.problems.datasets import DATASETS
from applesandoranges.problems.registry import PROBLEMS
from applesandoranges.problems.sources import write_synthetic
from applesandoranges.training.params_file import IncrementalHDF5
from skerch.store.layout import create_hdf5_layout
from tests.conftest import ANALYSE, MEASURE, TRAIN, Pipeline, run
from tests.scripts.test_10a_resume import stop_after

EVALUATIONS = ("EVAL ROUND", "FINAL EVALUATION")


@pytest.fixture
def pipeline(tmp_path, digits):
    """``pipeline(*words)``: a training that has not begun, in a directory of its own."""

    def make(*words, record=(0, 2), name="run"):
        return Pipeline(tmp_path / name, digits, 6, 12, record=record, extra=list(words))

    return make


def texts(log, text):
    return [event.body for event in read_log(log).events if event.text == text]


# ---------------------------------------------------------------------------------- 10a


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ([], [("batch_parameters", "batch")]),
        (
            ["STORE_GRADS=true"],
            [("batch_parameters", "batch"), ("train_gradient", "train"), ("test_gradient", "test")],
        ),
    ],
    ids=["parameters", "and gradients"],
)
def test_hdf5_lines(pipeline, words, expected):
    training = pipeline(*words, record=(0,))
    assert training.train() == 0
    bodies = read_log(training.log).bodies("HDF5")
    assert [len(body.pop("sha256")) for body in bodies] == [64] * len(expected)
    assert bodies == [
        {"global_step": 0, "matrix": matrix, "split": split, "status": "saved"}
        for matrix, split in expected
    ]


def test_no_schedule_is_null(trained):
    body = read_log(trained.log).first("GLOBALS")
    assert (body["sched_name"], body["sched_hpars"]) == (None, None)


@pytest.mark.parametrize(
    ("last_step", "epochs", "expected"),
    # Three steps per epoch. Published: 8002 updates of 156 per epoch end in epoch "53", of 312 in
    # "27", though the last update was in epochs 52 and 26; all 5000 of 50 epochs end in "50".
    [(4, 4, {"epoch": 3, "global_step": 5}), (6, 2, {"epoch": 2, "global_step": 6})],
    ids=["stopped", "all epochs"],
)
def test_epoch_of_the_final_evaluation(pipeline, tmp_path, last_step, epochs, expected):
    settings = tmp_path / "s.yaml"
    settings.write_text(
        f"mnist_mini: {{batch_size: 1000, num_epochs: {epochs}, SGD: {{opt_hpars: {{lr: 0.1}}}}}}"
    )
    training = pipeline(f"TUNING_CONF={settings}", record=(0, last_step))
    assert training.train() == 0
    body = read_log(training.log).first("FINAL EVALUATION")
    assert {name: body[name] for name in expected} == expected


# ---------------------------------------------------------------------------------- WITH_EVAL


def headers(pipeline):
    return {event.header for event in read_log(pipeline.log).events}


def recorded(pipeline):
    file = IncrementalHDF5(pipeline.params)
    return [file.find(step=step).data for step in pipeline.record]


def test_without_evaluations_the_training_is_the_same(pipeline):
    runs = pipeline(record=(0, 3)), pipeline("WITH_EVAL=false", record=(0, 3), name="without")
    assert [training.train() for training in runs] == [0, 0]
    assert headers(runs[0]) - headers(runs[1]) == set(EVALUATIONS)
    torch.testing.assert_close(recorded(runs[1]), recorded(runs[0]), rtol=0, atol=0)
    losses = [read_log(training.log).bodies("TRAINING BATCH") for training in runs]
    assert losses[0] == losses[1]


def test_random_augmentation_is_the_same_without_evaluations(tmp_path):
    write_synthetic("CIFAR10", tmp_path / "datasets", 100, 20)
    runs = [
        Pipeline(
            tmp_path / str(with_eval), tmp_path / "datasets", 6, 12,
            extra=["PROBLEM=cifar10_3c3d", f"WITH_EVAL={with_eval}",
                   f"TUNING_CONF={small_settings(tmp_path)}"],
        )
        for with_eval in (True, False)
    ]  # fmt: skip
    assert [training.train() for training in runs] == [0, 0]
    torch.testing.assert_close(recorded(runs[1]), recorded(runs[0]), rtol=0, atol=0)


def small_settings(directory):
    path = directory / "small.yaml"
    path.write_text("cifar10_3c3d: {batch_size: 16, num_epochs: 2, SGD: {opt_hpars: {lr: 0.02}}}")
    return path


@pytest.mark.parametrize(("first", "then"), [("true", "false"), ("false", "true")])
def test_a_training_may_go_on_with_or_without_evaluations(pipeline, monkeypatch, first, then):
    training = pipeline(f"WITH_EVAL={first}")
    with monkeypatch.context() as patch:
        stop_after(patch, 2)
        assert training.train() == 130
    training.extra = [f"RESUME={training.run_dir}", f"WITH_EVAL={then}"]
    assert training.train() == 0
    assert ("FINAL EVALUATION" in headers(training)) == (then == "true")
    assert ("EVAL ROUND" in headers(training)) == (first == "true")


def test_12a_without_evaluations(tmp_path, digits, monkeypatch):
    def network():  # its exact decomposition takes no time
        return nn.Sequential(nn.AvgPool2d(4), nn.Flatten(), nn.Linear(16, 10))

    spec = dataclasses.replace(PROBLEMS["mnist_mini"], network=network, num_params=170)
    monkeypatch.setitem(PROBLEMS, "mnist_mini", spec)
    words = {
        "OBS_DATASETS": digits, "OUTPUT_DIR": tmp_path / "out", "RANDOM_SEED": 1,
        "RECORD_STEPS": "[0]", "MAX_STEPS": 0, "NUM_HESSIAN_DATAPOINTS": 10, "NUM_OUTER": 4,
        "NUM_INNER": 8, "WITH_TEST_HESSIAN": False, "WITH_A_POSTERIORI": False, "DEVICE": "cpu",
        "WITH_EVAL": False,
    }  # fmt: skip
    assert run("12a_mnist_mini_exhaustive_test.py", *(f"{k}={v}" for k, v in words.items())) == 0
    (log,) = (tmp_path / "out").rglob("*.log")
    found = {event.header for event in read_log(log).events}
    assert {"H_TRAIN RESULT", "TRAINING BATCH"} <= found
    assert not found & set(EVALUATIONS)
    assert texts(log, events.TEST_MATRICES) == [{"seed_phi": 1, "seed_psi": 2}]


# ---------------------------------------------------------------------------------- earlier logs


def as_earlier_versions_wrote_it(path):
    """Rewrite a log of 10a in the words of earlier versions."""
    lines = []
    for line in path.read_text().splitlines():
        stamp, (header, body) = json.loads(line)
        if header == "CONFIG":
            del body["WITH_EVAL"]
        elif header == "GLOBALS":
            del body["num_valid"]
            body["sched_hpars"] = {}
        elif header == "HDF5":
            words = {
                "batch_parameters": {"matrix": "params", "split": None},
                "train_gradient": {"matrix": "gradients_train", "split": "train"},
                "test_gradient": {"matrix": "gradients_test", "split": "test"},
            }
            body |= {"status": "stored"} | words[body["matrix"]]
        lines.append(json.dumps([stamp, [header, body]]))
    path.write_text("\n".join(lines) + "\n")


@pytest.mark.parametrize("num_checkpoints", [1, 2, 3])
def test_a_training_that_an_earlier_version_began_goes_on(pipeline, monkeypatch, num_checkpoints):
    undisturbed, training = (pipeline("STORE_GRADS=true", name=name) for name in ("a", "b"))
    assert undisturbed.train() == 0
    with monkeypatch.context() as patch:
        stop_after(patch, num_checkpoints)
        assert training.train() == 130
    as_earlier_versions_wrote_it(training.log)
    training.extra.append(f"RESUME={training.run_dir}")
    assert training.train() == 0
    torch.testing.assert_close(recorded(training), recorded(undisturbed), rtol=0, atol=0)
    # One line for each step and matrix, in whatever words.
    bodies = read_log(training.log).bodies("HDF5")
    assert sorted(body["global_step"] for body in bodies) == [0, 0, 0, 2, 2, 2]
    for header in (*EVALUATIONS, "TRAINING BATCH"):
        expected = read_log(undisturbed.log).bodies(header)
        assert read_log(training.log).bodies(header) == expected


def test_another_number_of_validation_points_is_refused(pipeline, monkeypatch, capsys):
    """As of an ImageNet training by an earlier version, whose batches may be as many by chance."""
    training = pipeline()
    with monkeypatch.context() as patch:
        stop_after(patch, 2)
        assert training.train() == 130
    as_earlier_versions_wrote_it(training.log)
    training.extra.append(f"RESUME={training.run_dir}")
    spec = dataclasses.replace(DATASETS["MNIST"], num_valid=10_100)
    monkeypatch.setitem(DATASETS, "MNIST", spec)
    capsys.readouterr()
    assert training.train() == 2
    # 4000 digits of 60000: a fifteenth of 10000, and of 10100.
    line = capsys.readouterr().err.splitlines()[0]
    assert "is of another training: num_valid was 667, now 673" in line


def test_the_finished_log_of_an_earlier_version_is_measured(pipeline):
    training = pipeline()
    assert training.train() == 0
    as_earlier_versions_wrote_it(training.log)
    assert training.measure(training.lay_out(), MEASUREMENT_IDXS=[0]) == 0


# ---------------------------------------------------------------------------------- 10c


@pytest.fixture(scope="module")
def measured(trained):
    """Log of the measurements 5, 6 and 9 of twelve, of which six have an outer one."""
    store, before = trained.lay_out("words"), set(trained.logs(MEASURE))
    assert trained.measure(store, MEASUREMENT_IDXS=[9, 5, 6], STEP=2, TEST_HESSIAN=1) == 0
    (log,) = set(trained.logs(MEASURE)) - before
    return log


def test_name_of_the_log(measured):
    name = r"\d{4}(_\d\d){5}\.\d{3}\[10c_hessian_hdf5_measurements\.py\]__idxs=<5\.\.\.9>\.log"
    assert re.fullmatch(name, measured.name)


def test_lines_of_measurements(measured):
    where = {"step": 2, "H_test": True}
    assert texts(measured, "Performing measurement") == [
        where | {"idx": idx, "meas_idx": idx} for idx in (5, 6, 9)
    ]
    assert texts(measured, "Measurement successful!") == [
        where | {"idx": idx, "meas_idx": idx, "with_outer": outer}
        for idx, outer in ((5, True), (6, False), (9, False))
    ]


def test_globals_of_measurements(measured, trained):
    body = read_log(measured).first("GLOBALS")
    training = read_log(trained.log).first("GLOBALS")
    expected = {
        "run_dir": str(trained.run_dir), "problem": "mnist_mini", "batch_size": 500,
        "record_steps": [0, 2], "num_hessian_datapoints": 20, "random_seed": 12345,
        "li_seed": 12346, "ri_seed": 12347, "H_train_idxs": training["H_train_idxs"],
        "H_test_idxs": training["H_test_idxs"], "num_params": 7030,
        "step_to_h5": {"0": 0, "2": 1},
    }  # fmt: skip
    assert {name: body.get(name) for name in expected} == expected
    ours = {"num_outer": 6, "num_inner": 12, "step": 2, "split": "test", "seed_psi": 12347}
    assert {name: body[name] for name in ours} == ours


def test_logs_say_the_seeds_of_test_matrices(measured, trained, capsys):
    """12a draws others: its seeds are one less."""
    seeds = {"seed_phi": trained.seed + 1, "seed_psi": trained.seed + 2}
    assert texts(measured, events.TEST_MATRICES) == [seeds]
    store, before = trained.lay_out("seeds"), set(trained.logs(ANALYSE))
    assert trained.measure(store) == 0
    assert trained.analyse(store) == 0
    (log,) = set(trained.logs(ANALYSE)) - before
    assert texts(log, events.TEST_MATRICES) == [seeds]
    assert "12a draws others than 10c and 10d" in capsys.readouterr().out


@pytest.mark.parametrize("script", [TRAIN, "12a_mnist_mini_exhaustive_test.py"])
def test_the_help_of_the_seed_says_so(capsys, script):
    assert run(script, "--help") == 0
    words = " ".join(capsys.readouterr().out.split())
    assert "test matrices of 12a are others" in words


def test_every_product_of_a_round_is_kept(trained):
    store = trained.root / "rounds of words"
    create_hdf5_layout(store, (7030, 7030), np.dtype("f4"), 6, 0, symmetric=True)
    before = set(trained.logs(MEASURE))
    keys = {"RECOVERY": "krylov", "NUM_ROUNDS": 2, "BLOCK_SIZE": 6, "MEASUREMENT_IDXS": [5]}
    assert trained.measure(store, **keys) == 0
    (log,) = set(trained.logs(MEASURE)) - before
    (body,) = texts(log, "Measurement successful!")
    assert body["with_outer"]
    assert "li_seed" not in read_log(log).first("GLOBALS")
    assert texts(log, events.TEST_MATRICES) == [{"seed_psi": trained.seed + 2}]


@pytest.mark.parametrize(
    ("body", "expected"),
    [({"idx": 3}, 3), ({"idx": 0, "meas_idx": 3}, 3)],
    ids=["earlier", "position in the job, and index"],
)
def test_progress_reads_earlier_and_published_lines(tmp_path, body, expected):
    with JsonLog(tmp_path / "10c.log") as log:
        log("INFO", ["Performing measurement", {"step": 2, "H_test": True} | body])
    assert begun_indices([read_log(tmp_path / "10c.log")]) == {(2, "test"): {expected}}


# ---------------------------------------------------------------------------------- problems


@pytest.mark.parametrize("script", [TRAIN, "20a_curvlinops_checks.py"])
def test_a_problem_that_is_none_here_is_refused_with_the_reason(tmp_path, capsys, script):
    words = [f"OBS_DATASETS={tmp_path}", "PROBLEM=mnist_vae", "NUM_HESSIAN_DATAPOINTS=10"]
    words += ["RECORD_STEPS=[0]"] if script == TRAIN else []
    assert run(script, *words) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "problem 'mnist_vae': its loss draws random numbers, and so its Hessian" in line
