"""All recoveries at 710 products against the exact Hessian of mnist_mini (D = 7,030), step 300."""

import pytest
import torch

from applesandoranges.analysis.exact import exact_results
from applesandoranges.analysis.overlap import largest_parameters, mask_curves
from skerch.decompositions import block_krylov, hmt, nystrom, seigh

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("exact")]

RANK, PRODUCTS, SEED, F32 = 355, 710, 12346, torch.float32

#: Recovery, error at rank 355 as a multiple of the best one, alignment of the top 178, products.
TABLE = {
    "seigh": (lambda op: seigh(op, RANK, PRODUCTS, SEED, F32), 2.35, 0.75, 710),
    "hmt": (lambda op: hmt(op, RANK, SEED, F32), 1.99, 0.81, 710),
    "nystrom": (lambda op: nystrom(op, RANK, SEED, PRODUCTS, F32), 1.66, 0.864, 710),
    "krylov-4x178": (lambda op: block_krylov(op, RANK, 4, 178, SEED, F32), 1.13, 0.978, 712),
    "krylov-10x71": (lambda op: block_krylov(op, RANK, 10, 71, SEED, F32), 1.01, 1.000, 710),
}


#: The same of block Krylov from the top vectors of step 250: rounds, columns, how many of them.
TRACKED = {
    "2x355": (2, 355, 355, 1.13, 0.985),
    "4x178": (4, 178, 178, 1.05, 0.998),
    "2x178": (2, 178, 178, 1.64, 0.878),
}


@pytest.fixture(scope="module")
def recovered(exact_mnist_mini):
    """``recovered(name)``: the eigendecomposition and its results by rank, computed once each."""
    recorded, exact = exact_mnist_mini
    done = {}

    def recover(name):
        if name not in done:
            eigh = TABLE[name][0](recorded.operator)
            bodies = exact_results(exact, eigh)
            done[name] = eigh, {body["K"]: body for body in bodies if "K" in body}
        return done[name]

    return recover


@pytest.mark.parametrize("name", TABLE)
def test_the_table_is_reproduced(recovered, name):
    _, times_best, alignment, products = TABLE[name]
    eigh, by_rank = recovered(name)
    assert eigh.num_products == products
    best = by_rank[RANK]["best_rel_frob_error"]
    assert by_rank[RANK]["rel_frob_error"] / best == pytest.approx(times_best, rel=0.1)
    found = by_rank[178]["subspace_alignment"]
    assert 1 - found == pytest.approx(1 - alignment, rel=0.15, abs=0.01)


@pytest.mark.parametrize(
    ("name", "times_best", "alignment"),
    [("krylov-4x178", 1.15, 0.97), ("krylov-10x71", 1.02, 0.999)],
    ids=["4-rounds", "10-rounds"],
)
def test_block_krylov_is_close_to_the_best(recovered, name, times_best, alignment):
    _, by_rank = recovered(name)
    best = by_rank[RANK]["best_rel_frob_error"]
    assert best == pytest.approx(0.061, rel=0.15)
    assert by_rank[RANK]["rel_frob_error"] <= times_best * best
    assert by_rank[178]["subspace_alignment"] >= alignment


def test_ten_rounds_give_the_top_half_of_the_eigenvalues(recovered, exact_mnist_mini):
    _, exact = exact_mnist_mini
    eigh, _ = recovered("krylov-10x71")
    torch.testing.assert_close(eigh.S[:178], exact.S[:178], rtol=1e-3, atol=0)


def test_ten_rounds_give_the_overlap(recovered, exact_mnist_mini):
    recorded, exact = exact_mnist_mini
    eigh, _ = recovered("krylov-10x71")
    order, k = largest_parameters(recorded.params, RANK), 178
    found, true = (float(mask_curves(e, [order])[0][k - 1] / k) for e in (eigh, exact.as_eigh()))
    assert abs(found - true) < 0.0005


@pytest.mark.parametrize("name", ["hmt", "krylov-4x178", "krylov-10x71"])
def test_residual_norms_are_the_true_ones(recovered, exact_mnist_mini, name):
    _, exact = exact_mnist_mini
    eigh, _ = recovered(name)
    V = eigh.vectors()
    true = (exact.H @ V - V * eigh.S).norm(dim=0)
    # The operator computes in single precision.
    torch.testing.assert_close(eigh.residual_norms, true, rtol=1e-3, atol=1e-5 * float(exact.S[0]))


@pytest.mark.parametrize("name", ["hmt", "krylov-4x178", "krylov-10x71"])
def test_eigenvectors_are_orthonormal_to_double_precision(recovered, name):
    V = recovered(name)[0].vectors()
    assert float((V.T @ V - torch.eye(RANK, dtype=torch.float64)).abs().max()) < 1e-12


def test_one_pass_that_keeps_all_products(recovered):
    _, by_rank = recovered("nystrom")
    best = by_rank[RANK]["best_rel_frob_error"]
    assert by_rank[RANK]["rel_frob_error"] <= 1.65 * best
    assert by_rank[178]["subspace_alignment"] >= 0.86


@pytest.fixture(scope="module")
def tracked(exact_mnist_mini, before_mnist_mini):
    """``tracked(name)``: error as a multiple of the best one, and alignment of the top half."""
    recorded, exact = exact_mnist_mini

    def recover(name):
        rounds, columns, known, *_ = TRACKED[name]
        start = before_mnist_mini[:, :known]
        rank = min(RANK, rounds * columns)
        eigh = block_krylov(recorded.operator, rank, rounds, columns, SEED, F32, start=start)
        assert eigh.num_products == rounds * columns
        by_rank = {body["K"]: body for body in exact_results(exact, eigh) if "K" in body}
        whole = by_rank[RANK]
        ratio = whole["rel_frob_error"] / whole["best_rel_frob_error"]
        return ratio, by_rank[178]["subspace_alignment"]

    return recover


@pytest.mark.parametrize("name", TRACKED)
def test_the_table_of_warm_starts(tracked, name):
    times_best, alignment = tracked(name)
    assert times_best == pytest.approx(TRACKED[name][3], rel=0.1)
    assert 1 - alignment == pytest.approx(1 - TRACKED[name][4], rel=0.15, abs=0.01)


def test_two_tracked_rounds(tracked):
    times_best, alignment = tracked("2x355")
    assert times_best <= 1.2
    assert alignment >= 0.97
