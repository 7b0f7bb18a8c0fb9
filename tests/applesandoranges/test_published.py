"""What can be met of the published results on the embedded digits: all of step 0.

The embedded digits begin with the very 500 digits of the published training Hessian, and the
weights of step 0 depend on the seed alone.
"""

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.sparse.linalg import LinearOperator, eigsh

from applesandoranges.hessian import make_hessian, parameter_vector
from applesandoranges.overlap import largest_parameters, mask_curves
from applesandoranges.problems import build_problem
from applesandoranges.published import SETTINGS, TABLES, TOLERANCES, worst
from applesandoranges.training import hessian_loss
from skerch.decompositions import seigh

OUTER, INNER, SEED = (SETTINGS[name] for name in ("NUM_OUTER", "NUM_INNER", "RANDOM_SEED"))


def table(name):
    rows = pd.read_csv(TABLES / f"mnist_mini_{name}.csv")
    return rows[rows["step" if "step" in rows else "global_step"] == 0]


@pytest.fixture(scope="module")
def problem(digits):
    return build_problem("mnist_mini", digits, SEED, 500, torch.device("cpu"))


@pytest.fixture(scope="module")
def operator(problem):
    return make_hessian(problem.net, problem.criterion, problem.hessian_data("train", 500), 500)


@pytest.fixture(scope="module")
def sketch(operator):
    return seigh(
        operator, OUTER, INNER, SEED, torch.float32, symmetrize=SETTINGS["SYMMETRIZE_CORE"]
    )


def test_loss_of_step_zero(problem):
    (published,) = table("recorded_steps")["H_train_loss"]
    assert hessian_loss(problem, "train", 500) == pytest.approx(published, abs=1e-6)


@pytest.mark.slow
@pytest.mark.xdist_group("published")
def test_largest_true_eigenvalues_of_step_zero(operator):
    def multiply(v):
        return (operator @ torch.from_numpy(v.astype(np.float32).ravel())).double().numpy()

    published = table("spectrum")[["rank", "true_eigval_by_desc_magnitude"]][:20].to_numpy()
    linop = LinearOperator((7030, 7030), matvec=multiply, dtype=np.float64)
    rng = np.random.default_rng(0)
    found = eigsh(linop, k=25, which="LM", v0=rng.standard_normal(7030), tol=1e-6)[0]
    ours = found[np.abs(found).argsort()[::-1]][:20]
    np.testing.assert_allclose(ours, published[:, 1], rtol=TOLERANCES["eigenvalue"])


@pytest.mark.slow
@pytest.mark.xdist_group("published")
def test_sketched_eigenvalues_of_step_zero(sketch):
    rows = table("spectrum")
    ours, published = sketch.S.abs().numpy()[rows["rank"] - 1], rows["core_S"].abs()
    allowed = TOLERANCES["sketched eigenvalue"] * published.max()
    np.testing.assert_allclose(ours, published, rtol=0, atol=allowed)


@pytest.mark.slow
@pytest.mark.xdist_group("published")
def test_overlap_of_step_zero(problem, sketch):
    rows = table("overlap")
    order = largest_parameters(parameter_vector(problem.net), OUTER)
    ours = mask_curves(sketch, [order])[0].numpy()[rows["k"] - 1] / rows["k"]
    np.testing.assert_allclose(ours, rows["overlap"], rtol=0, atol=TOLERANCES["overlap"])


def test_worst_counts_a_missing_number_as_farthest():
    rows = pd.DataFrame(
        {
            "quantity": "loss", "name": ["a", "a", "b", "b"], "step": "each", "at": [0, 1, 0, 1],
            "difference": [1.0, np.nan, 0.1, 0.2], "allowed": 0.5,
        }
    )  # fmt: skip
    found = worst(rows)
    assert found["at"].tolist() == [1, 1]
    assert found["count"].tolist() == [2, 2]
    assert found["met"].tolist() == [False, True]
