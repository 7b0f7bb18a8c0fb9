"""Recoveries against an exact answer that is known in closed form."""

import pytest
import torch

from applesandoranges.analysis.comparing import COMPARED_ROUNDS, candidates, compare_recoveries
from applesandoranges.analysis.exact import exact_eigh, frobenius_errors
from skerch.decompositions import seigh
from skerch.utils import gaussian_noise

pytestmark = pytest.mark.numerical

D, K, PRODUCTS = 80, 8, 20


@pytest.fixture(scope="module")
def exact():
    """A symmetric matrix with eigenvalues of both signs that fall off geometrically."""
    Q = torch.linalg.qr(gaussian_noise((D, D), 0)).Q
    S = 0.8 ** torch.arange(D, dtype=torch.float64) * (-1.0) ** torch.arange(D)
    return exact_eigh((Q * S) @ Q.T, K)


def compare(exact):
    H = exact.H.float()
    return list(compare_recoveries(H, exact, PRODUCTS, 3, "cpu", 16, 10**9))


def test_methods_and_products(exact):
    found = [(b["recovery"], b["num_rounds"], b["num_products"]) for b in compare(exact)]
    assert found[:6] == [
        ("seigh", 1, 20), ("hmt", 2, 20), ("nystrom", 1, 20), ("krylov", 2, 20), ("krylov", 4, 20),
        ("krylov", 10, 20),
    ]  # fmt: skip
    assert [num for *_, num in found[6:]] == [30, 30, 30, 30, 28, 30, 40, 40, 40, 40, 40, 40]


def test_more_rounds_are_more_accurate_and_none_beats_the_best(exact):
    first = compare(exact)[:6]
    best = (0.64 ** torch.arange(K, D)).sum().sqrt() / (0.64 ** torch.arange(D)).sum().sqrt()
    for body in first:
        assert body["best_rel_frob_error"] == pytest.approx(float(best), rel=1e-6)
        assert body["rel_frob_error"] >= body["best_rel_frob_error"] - 1e-6
    errors = [body["rel_frob_error"] for body in first if body["recovery"] != "nystrom"]
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] == pytest.approx(float(best), rel=1e-3)
    assert first[-1]["half_alignment"] == pytest.approx(1, abs=1e-5)
    assert first[-1]["half_eigval_error"] < 1e-5


def test_frobenius_errors_are_those_of_dense_matrices(exact):
    sketch = seigh(exact.H, K, 2 * K, 5)
    found, best = frobenius_errors(exact, sketch)
    V, norm = sketch.vectors(), exact.H.norm()
    dense = [(exact.H - (V[:, :k] * sketch.S[:k]) @ V[:, :k].T).norm() / norm for k in (1, 4, K)]
    exactly = [(exact.H - (exact.V[:, :k] * exact.S[:k]) @ exact.V[:, :k].T).norm() / norm
               for k in (1, 4, K)]  # fmt: skip
    torch.testing.assert_close(found[[0, 3, K - 1]], torch.stack(dense), rtol=1e-9, atol=0)
    torch.testing.assert_close(best[[0, 3, K - 1]], torch.stack(exactly), rtol=1e-9, atol=0)


@pytest.mark.parametrize(
    ("rank", "names"), [(10, {"seigh", "hmt", "nystrom", "krylov"}), (11, {"nystrom", "krylov"})]
)
def test_a_sketch_needs_twice_as_many_products_as_pairs(exact, rank, names):
    found = list(candidates(exact.H, rank, PRODUCTS, 3, "cpu", 16, 10**9))
    assert {candidate.name for candidate in found} == names
    assert [c.num_rounds for c in found if c.name == "krylov"] == list(COMPARED_ROUNDS)


def test_half_of_the_pairs_are_the_leading_half(exact):
    """Errors of the leading half alone count: the others of these are far larger."""
    for body, candidate in zip(
        compare(exact), candidates(exact.H.float(), K, PRODUCTS, 3, "cpu", 16, 10**9), strict=False
    ):
        S = candidate.solve().truncated(K).S
        true = exact.of_same_sign(S)
        errors = ((S - true).abs() / true.abs())[: K // 2]
        assert body["half_eigval_error"] == pytest.approx(float(errors.median()), rel=1e-3)
