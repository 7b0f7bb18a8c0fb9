"""CURVATURE and PARAMETERS of 10c, 10d, 10e and 12a, against dense matrices by torch.func."""

import dataclasses

import h5py
import numpy as np
import pytest
import torch
from torch.func import functional_call, jacrev

from applesandoranges.app.keys import parse_config
from applesandoranges.app.log import read_log
from applesandoranges.measurement.recorded_hessian import (
    RecordedHessianConfig,
    load_recorded_hessian,
)
from applesandoranges.problems.parameters import trainable
from applesandoranges.results.collect import read_logs
from skerch.decompositions import block_krylov, seigh
from tests.conftest import ANALYSE, MEASURE, run
from tests.scripts.test_12a import SCRIPT as EXHAUSTIVE

NEXT = "10e_next_krylov_block.py"
#: The last layer of mnist_mini.
LAST, NAMES, DIM = "11", ["11.weight", "11.bias"], 210


@pytest.fixture
def pipeline(trained, tmp_path):
    """The training with a run directory of its own; stores of ``DIM``."""
    trained.copy_training(tmp_path / "output" / trained.run_dir.name)
    return dataclasses.replace(trained, root=tmp_path, dim=DIM, outer=10, inner=40)


def recorded(pipeline, **changes):
    return load_recorded_hessian(
        parse_config(RecordedHessianConfig, pipeline.recorded_words(**changes))
    )


def dense(pipeline, curvature="hessian", names=NAMES):
    """Return a dense curvature of some parameters in float64, ``[D, D]``."""
    problem = recorded(pipeline).problem
    X, y = (torch.cat(part) for part in zip(*problem.hessian_data("train", 20), strict=True))
    net, X = problem.net.double(), X.double()
    own = {name: p.detach() for name, p in trainable(net).items()}
    shapes = [own[name].shape for name in names]
    at = torch.cat([own[name].flatten() for name in names])

    def outputs(vector):
        parts = vector.split([shape.numel() for shape in shapes])
        chosen = {n: p.reshape(s) for n, p, s in zip(names, parts, shapes, strict=True)}
        return functional_call(net, own | chosen, (X,))

    if curvature == "hessian":
        return torch.func.hessian(lambda v: problem.criterion(outputs(v), y))(at)
    J, p = jacrev(outputs)(at), outputs(at).softmax(1)
    H_L = torch.diag_embed(p) - p[:, :, None] * p[:, None]
    return torch.einsum("nci,ncd,ndj->ij", J, H_L, J) / len(y)


def quantities(pipeline):
    bodies = read_log(pipeline.logs(ANALYSE)[-1]).bodies("RESULT")
    return {name: value for body in bodies for name, value in body.items()}


@pytest.mark.parametrize("curvature", ["hessian", "ggn", "fisher"])
def test_chosen_parameters_through_10c_and_10d(pipeline, curvature):
    words, store = {"PARAMETERS": LAST, "CURVATURE": curvature}, pipeline.lay_out()
    assert pipeline.measure(store, **words) == 0
    assert pipeline.analyse(store, EIGENVECTORS=2, **words) == 0
    H = dense(pipeline, curvature)
    expected = seigh(H, 10, 40, pipeline.seed)
    found = quantities(pipeline)
    # Products are in single precision, and the core of so few columns amplifies that by 1e3.
    atol = 2e-3 * float(expected.S.abs().max())
    np.testing.assert_allclose(found["core_S"], expected.S, rtol=0, atol=atol)
    assert found["num_selected_params"] == DIM
    assert max(found["largest_absparams"]) < DIM
    body = read_log(pipeline.logs(MEASURE)[-1]).first("GLOBALS")
    assert (body["parameters"], body["parameter_names"]) == (LAST, NAMES)
    assert body.get("curvature", "hessian") == curvature
    (result,) = read_logs(str(pipeline.run_dir)).results
    assert result.dim == DIM
    assert LAST in result.label
    with h5py.File(next(pipeline.run_dir.glob("*__eigenvectors__*"))) as file:
        assert file["data"].shape == (DIM, 2)


def test_measurements_of_one_curvature_are_never_taken_for_those_of_another(pipeline, capsys):
    store, chosen = pipeline.lay_out(), {"PARAMETERS": LAST}
    assert pipeline.measure(store, CURVATURE="ggn", **chosen) == 0
    assert pipeline.analyse(store, **chosen) == 1
    assert "curvature: expected none, found 'ggn'" in capsys.readouterr().err
    assert pipeline.analyse(store, CURVATURE="ggn", PARAMETERS="*") == 2
    assert pipeline.analyse(store, CURVATURE="ggn", PARAMETERS="11.*") == 1
    assert "parameters: expected '11.*', found '11'" in capsys.readouterr().err
    # All are measured again.
    assert pipeline.measure(store, **chosen) == 0
    done = [e for e in read_log(pipeline.logs(MEASURE)[-1]).events if "successful" in e.text]
    assert len(done) == pipeline.inner
    assert pipeline.analyse(store, CURVATURE="ggn", **chosen) == 1
    assert "curvature: expected 'ggn', found none" in capsys.readouterr().err


def test_the_hessian_of_all_parameters_has_the_provenance_of_before(trained):
    found = recorded(trained)
    store = trained.lay_out("as_before")
    assert trained.measure(store, MEASUREMENT_IDXS=[0]) == 0
    with h5py.File(store / "leftouter_0000000000.h5") as file:
        text = file.attrs["provenance"]
    assert "curvature" not in text
    assert "parameter" not in text
    assert found.dim == trained.dim


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"PARAMETERS": LAST}, "expected shape (210, 6)"),
        ({"PARAMETERS": LAST}, "D is 210 here (PARAMETERS=11)"),
        ({"PARAMETERS": "conv*"}, "PARAMETERS: 'conv*' matches none of the parameters 1.weight"),
        ({"PARAMETERS": "11,-11.*"}, "no parameters are left"),
        ({"CURVATURE": "hesian"}, "unknown CURVATURE 'hesian'; the nearest valid one is hessian"),
    ],
)
def test_wrong_choices_are_one_line(trained, capsys, words, message):
    store = trained.root / "of_all"
    store = store if store.exists() else trained.lay_out("of_all")
    assert trained.measure(store, **words) == 2
    (line,) = [s for s in capsys.readouterr().err.splitlines() if "10c_" in s]
    assert message in line


def test_rounds_of_a_fisher_matrix(pipeline):
    rounds = {"RECOVERY": "krylov", "NUM_ROUNDS": 2, "BLOCK_SIZE": 6}
    words = rounds | {"PARAMETERS": LAST, "CURVATURE": "fisher"}
    store = dataclasses.replace(pipeline, outer=6, inner=0).lay_out()
    sizes = {"NUM_OUTER": 6, "NUM_INNER": 12, "MEASUREMENT_IDXS": list(range(6))}
    assert pipeline.measure(store, **words, **sizes) == 0
    assert run(NEXT, *pipeline.recorded_words(**words, MEASUREMENTS_DIR=store, ROUND=0)) == 0
    assert pipeline.measure(store, ROUND=1, **words, **sizes) == 0
    no_inner = {"INNER_VIRTUAL": None, "INNER_MONOLITHIC": None, "NUM_OUTER": 6}
    assert pipeline.analyse(store, **words, **no_inner) == 0
    expected = block_krylov(dense(pipeline, "fisher"), 6, 2, 6, pipeline.seed + 1)
    np.testing.assert_allclose(quantities(pipeline)["core_S"], expected.S, rtol=1e-3)


@pytest.mark.parametrize("curvature", ["hessian", "ggn"])
def test_12a_of_chosen_parameters(pipeline, curvature):
    words = {
        "OBS_DATASETS": pipeline.datasets, "RANDOM_SEED": pipeline.seed, "RECORD_STEPS": "[0]",
        "OUTPUT_DIR": pipeline.root / "12a", "MAX_STEPS": 0, "NUM_HESSIAN_DATAPOINTS": 20,
        "NUM_OUTER": 10, "NUM_INNER": 40, "NUM_A_POSTERIORI": 3, "DEVICE": "cpu",
        "WITH_TEST_HESSIAN": False, "PARAMETERS": LAST, "CURVATURE": curvature,
    }  # fmt: skip
    assert run(EXHAUSTIVE, *(f"{name}={value}" for name, value in words.items())) == 0
    (result,) = read_logs(str(pipeline.root / "12a")).results
    expected = torch.linalg.eigvalsh(dense(pipeline, curvature))
    expected = expected[expected.abs().argsort(descending=True)]
    np.testing.assert_allclose(result.array("H_eigvals"), expected, rtol=0, atol=1e-6)
    assert result.dim == DIM
