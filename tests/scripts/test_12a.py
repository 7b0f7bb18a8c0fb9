"""12a: refusals, and a run on a network small enough to be exact in a moment."""

import numpy as np
import pytest
import torch
from torch import nn

from applesandoranges.app.log import read_log
from applesandoranges.figures import FIGURES
from applesandoranges.problems.registry import PROBLEMS
from applesandoranges.results.collect import read_logs
from tests.conftest import run

SCRIPT = "12a_mnist_mini_exhaustive_test.py"


@pytest.fixture
def tiny(monkeypatch):
    """mnist_mini with a network of 280 parameters, so that the exact Hessian takes no time."""

    def network():
        return nn.Sequential(
            nn.AvgPool2d(4), nn.Flatten(), nn.Linear(16, 10), nn.Tanh(), nn.Linear(10, 10)
        )

    import dataclasses

    spec = dataclasses.replace(PROBLEMS["mnist_mini"], network=network, num_params=280)
    monkeypatch.setitem(PROBLEMS, "mnist_mini", spec)


def words(digits, tmp_path, *more):
    given = {
        "OBS_DATASETS": str(digits), "RANDOM_SEED": "5", "OUTPUT_DIR": str(tmp_path / "out"),
        "RECORD_STEPS": "[0,3]", "MAX_STEPS": "16001", "NUM_HESSIAN_DATAPOINTS": "20",
        "NUM_OUTER": "40", "NUM_INNER": "80", "NUM_A_POSTERIORI": "5", "DEVICE": "cpu",
    }  # fmt: skip
    given |= dict(word.split("=", 1) for word in more)
    return [f"{k}={v}" for k, v in given.items()]


def test_log_has_exact_and_sketched_results_for_both_splits(tiny, digits, tmp_path):
    assert run(SCRIPT, *words(digits, tmp_path, "COMPARE_RECOVERIES=true")) == 0
    (path,) = (tmp_path / "out").glob("*/*.log")
    log = read_log(path)
    assert {"H_TRAIN RESULT", "H_TEST RESULT", "EVAL ROUND", "GLOBALS"} <= {
        event.header for event in log.events
    }
    logs = read_logs(str(path))
    assert [(r.split, r.step) for r in logs.results] == [
        ("train", 0), ("train", 3), ("test", 0), ("test", 3),
    ]  # fmt: skip
    for result in logs.results:
        assert {
            "core_S", "H_eigvals", "eigval_errors", "eigvec_resnorm", "frob_Qtop^2",
            "H_frob_Qtop^2", "frob_Qbest^2", "H_frob_Qbest^2", "scree_lower",
        } <= result.quantities.keys()  # fmt: skip
        assert len(result.quantities["H_eigvals"]) == 280
        magnitudes = np.abs(result.array("H_eigvals"))
        assert (np.diff(magnitudes) <= 1e-12).all()
        assert [body["K"] for body in result.exact] == [40, 20, 2]
        assert all(body["best_rel_frob_error"] <= body["rel_frob_error"] for body in result.exact)
        assert {body["recovery"] for body in result.recoveries} == {
            "seigh", "hmt", "nystrom", "krylov",
        }  # fmt: skip
        assert (result.array("H_frob_Qbest^2") >= result.array("H_frob_Qtop^2") - 1e-9).all()
        # The mask's angles say what its curve says.
        (angles,) = (b["principal_angles"] for b in result.angles if b["angles_with"] == "mask")
        for k in (40, 20, 2):
            captured = np.square(np.cos(angles[str(k)])).sum()
            assert captured == pytest.approx(result.array("frob_Qtop^2")[k - 1], rel=1e-9)
        others = [b["other_step"] for b in result.angles if b["angles_with"] == "eigenspace"]
        assert others == ([0] if result.step else [])


def test_12a_draws_its_figures(tiny, digits, tmp_path):
    assert run(SCRIPT, *words(digits, tmp_path)) == 0
    out = f"OUTPUT_DIR={tmp_path / 'f'}"
    assert run("13a_plot_overlap.py", f"LOGS={tmp_path / 'out'}", out, "K=[2,40]") == 0
    assert {path.stem for path in (tmp_path / "f").glob("*.png")} == set(FIGURES) - {"recoveries"}


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["WITH_TRAIN_HESSIAN=0", "WITH_TEST_HESSIAN=false"], "both switched off"),
        (["NUM_OUTER=81"], "outer=81, inner=80"),
        (["NUM_INNER=9999"], "inner <= 7030"),
        (["MEMORY_BUDGET_GB=0.5"], "the exact Hessian of 7030 parameters needs 1.38 GB"),
        (["PROBLEM=cifar10det_3c3d"], "the exact Hessian of 895210 parameters needs"),
        (["PROBLEM=mnist_mni"], "nearest valid one is mnist_mini"),
        (["PROBLEM=mnist_vae"], "its loss draws random numbers"),
        (["RECORD_STEPS=[301]"], "must be some of 0 ... 300"),
        (["OPTIMIZER=LBFGS"], "unknown optimizer 'LBFGS'"),
        (["STORE_GRADS=1"], "unknown key 'STORE_GRADS'"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_12a_refuses_and_leaves_nothing(digits, tmp_path, capsys, more, message):
    assert run(SCRIPT, *words(digits, tmp_path, *more)) == 2
    assert message in capsys.readouterr().err.splitlines()[0]
    assert not (tmp_path / "out").exists()


def test_exact_eigh_orders_by_magnitude():
    from applesandoranges.analysis.exact import exact_eigh

    Q = torch.linalg.qr(torch.randn(6, 6, dtype=torch.float64)).Q
    S = torch.tensor([1.0, -5, 3, 0.5, -2, 4], dtype=torch.float64)
    exact = exact_eigh((Q * S) @ Q.T, 3)
    torch.testing.assert_close(
        exact.S, torch.tensor([-5, 4, 3, -2, 1, 0.5], dtype=torch.float64), rtol=0, atol=1e-12
    )
    torch.testing.assert_close(
        (exact.V.T @ Q[:, [1, 5, 2]]).abs(), torch.eye(3, dtype=torch.float64), rtol=0, atol=1e-12
    )
