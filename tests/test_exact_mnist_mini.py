"""The sketch against the exact eigendecomposition of a real Hessian (mnist_mini, D = 7,030)."""

import pytest
import torch
from torch.func import functional_call, grad, jvp

from applesandoranges.analysis.exact import exact_results
from applesandoranges.analysis.overlap import largest_parameters, mask_curves
from skerch.decompositions import seigh

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("exact")]

OUTER, INNER = 355, 710


@pytest.fixture(scope="module")
def comparison(exact_mnist_mini):
    recorded, exact = exact_mnist_mini
    sketch = seigh(recorded.operator, OUTER, INNER, 12346, torch.float32)
    bodies = list(exact_results(exact, sketch))
    return sketch, {body["K"]: body for body in bodies if "K" in body}


def test_frobenius_error_is_about_the_expected_one(comparison):
    _, by_rank = comparison
    assert by_rank[OUTER]["rel_frob_error"] == pytest.approx(0.14, abs=0.015)
    assert by_rank[OUTER]["best_rel_frob_error"] == pytest.approx(0.06, abs=0.005)


def test_top_ten_eigenvalues(comparison, exact_mnist_mini):
    _, exact = exact_mnist_mini
    sketch, _ = comparison
    errors = (sketch.S[:10] - exact.S[:10]).abs() / exact.S[:10].abs()
    assert float(errors.median()) < 0.01


def test_overlap_at_half_rank(comparison, exact_mnist_mini):
    recorded, exact = exact_mnist_mini
    sketch, _ = comparison
    order, k = largest_parameters(recorded.params, OUTER), 178
    found, true = (
        float(mask_curves(eigh, [order])[0][k - 1] / k) for eigh in (sketch, exact.as_eigh())
    )
    assert abs(found - true) < 0.005
    assert true > k / 7030  # the overlap is above chance, so the comparison says something


def test_symmetrised_core_is_better_than_one_triangle(comparison, exact_mnist_mini):
    recorded, exact = exact_mnist_mini
    triangle = seigh(recorded.operator, OUTER, INNER, 12346, torch.float32, symmetrize=False)
    errors = {body["K"]: body for body in exact_results(exact, triangle) if "K" in body}
    _, by_rank = comparison
    assert by_rank[OUTER]["rel_frob_error"] < errors[OUTER]["rel_frob_error"]


def test_exact_eigenvalues_agree_with_torch_func_hessian_in_float64(exact_mnist_mini):
    """The top of the spectrum, from an independent float64 Hessian applied by torch.func."""
    recorded, exact = exact_mnist_mini
    net, batches = recorded.problem.net, recorded.problem.hessian_data("train", 500)
    names, shapes = zip(*((n, p.shape) for n, p in net.named_parameters()), strict=True)
    X, y = (torch.cat(part) for part in zip(*batches, strict=True))

    def loss(vector):
        parts = vector.split([shape.numel() for shape in shapes])
        values = {n: p.reshape(s) for n, p, s in zip(names, parts, shapes, strict=True)}
        return torch.nn.functional.cross_entropy(functional_call(net, values, (X.double(),)), y)

    k = 10
    V = exact.V[:, :k]
    HV = torch.stack([jvp(grad(loss), (recorded.params.double(),), (v,))[1] for v in V.T], dim=1)
    torch.testing.assert_close((V * HV).sum(0), exact.S[:k], rtol=1e-4, atol=0)
    residuals = (HV - V * exact.S[:k]).norm(dim=0)
    assert float((residuals / exact.S[:k].abs()).max()) < 1e-3
