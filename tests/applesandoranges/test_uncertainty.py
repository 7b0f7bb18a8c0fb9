"""Ends of the overlap: closed forms, and how often they hold the exact one."""

from functools import partial

import numpy as np
import pytest
import torch

from applesandoranges.analysis.overlap import mask_curve
from applesandoranges.analysis.uncertainty import (
    EIGENVALUE_FACTOR,
    EIGENVALUE_LEAST,
    STEPPED,
    Steps,
    _ends_of_step,
    _errors_of_coarser,
    _windowed,
    angle_bound,
    ends_of_coarser,
    errors_by_step,
    groups_of,
    overlap_band,
    rotation_range,
    stepped_curve,
)
from benchmarks.coverage import MASKS, RECOVERIES, SPECTRA, Draw, cover
from skerch.core.row_blocks import RowBlocks
from skerch.decompositions import block_krylov, hmt, seigh
from skerch.results import Eigh
from skerch.synthmat import SynthMat
from skerch.utils import gaussian_noise

pytestmark = pytest.mark.numerical

D, N = 60, 10
F64 = torch.float64


def orthonormal(rows, columns, seed):
    return torch.linalg.qr(gaussian_noise((rows, columns), seed)).Q


def exact_pairs(seed, dim=D, n=N):
    """Return a matrix, and its first pairs as a recovery without residuals."""
    S = torch.linspace(3, 0.1, dim, dtype=F64) * (-1.0) ** torch.arange(dim)
    V = orthonormal(dim, dim, seed)
    eye = torch.eye(n, dtype=F64)
    return (V * S) @ V.T, Eigh(S[:n], eye, RowBlocks(V[:, :n].clone()), eye)


# ------------------------------------------------------------------------------ rotations


@pytest.fixture
def cluster():
    """Rows of vectors of which the fourth to the eighth have the same eigenvalue."""
    S = torch.tensor([9, 8, 7, 5, 5, 5, 5, 5, 3, 2], dtype=F64)
    return S, orthonormal(D, N, 4)[:N]


def rotated(rows, rotation):
    result = rows.clone()
    result[:, 3:8] = rows[:, 3:8] @ rotation
    return result


def test_all_rotations_of_a_cluster_are_in_range(cluster):
    S, rows = cluster
    below, above = rotation_range(rows, S, near=1e-6)
    curve = mask_curve(rows).numpy()
    assert not below[[0, 1, 2, 7, 8, 9]].any()
    assert not above[[0, 1, 2, 7, 8, 9]].any()
    for seed in range(200):
        other = mask_curve(rotated(rows, orthonormal(5, 5, seed))).numpy()
        assert (other >= curve - below - 1e-12).all()
        assert (other <= curve + above + 1e-12).all()


@pytest.mark.parametrize("k", range(4, 8))
@pytest.mark.parametrize("end", ["below", "above"])
def test_the_ends_are_reached(cluster, k, end):
    S, rows = cluster
    below, above = rotation_range(rows, S, near=1e-6)
    rotation = torch.linalg.svd(rows[:k, 3:8]).Vh.T  # by descending share in the mask
    rotation = rotation.flip(1) if end == "below" else rotation
    reached = float(mask_curve(rotated(rows, rotation))[k - 1] - mask_curve(rows)[k - 1])
    assert reached == pytest.approx(above[k - 1] if end == "above" else -below[k - 1], abs=1e-12)


# ------------------------------------------------------------------------------ a step


@pytest.mark.parametrize(("n", "num"), [(1, 30), (3, 30), (10, 4), (100, 30), (1500, 30)])
def test_groups_are_all_vectors_in_their_order(n, num):
    groups = groups_of(n, num)
    assert [i for group in groups for i in group] == list(range(n))
    assert 1 <= len(groups) <= min(10, num)


def test_a_step_does_not_move_exact_vectors():
    H, eigh = exact_pairs(seed=1)
    rows = eigh.vector_rows(mask := torch.arange(N))
    band = overlap_band(eigh, mask, rows, H.float(), num=20, seed=3, vectors=7)
    torch.testing.assert_close(band.curve, mask_curve(rows))
    assert (band.eigenvalue_errors <= 2.001 * EIGENVALUE_LEAST).all()
    below, above = rotation_range(rows, eigh.S, STEPPED.near)
    least = STEPPED.least * band.curve.numpy()
    np.testing.assert_allclose(band.curve - band.lowest, np.hypot(least, below), rtol=1e-3)
    np.testing.assert_allclose(band.highest - band.curve, np.hypot(least, above), rtol=1e-3)
    assert band.num_products == 20


def test_stepped_curve_is_the_share_of_the_stepped_groups():
    """With unit combinations, all of them: the Frobenius norms of the groups themselves."""
    H, _ = exact_pairs(seed=2)
    V, S = orthonormal(D, N, 8), torch.linspace(2, 1, N, dtype=F64)
    X, Y = V * S, H @ V
    groups = [range(3), range(3, N)]
    group = torch.tensor([0] * 3 + [1] * (N - 3))
    norms = [part.square().sum(0) for part in (X, Y)]
    steps = Steps(groups, group, X[:N], Y[:N], *norms, (X * Y).sum(0))
    found = stepped_curve(V[:N], steps)
    for k in range(1, N + 1):
        expected = 0
        for g in groups:
            at = slice(g.start, g.stop)
            gain = Y[:k, at].norm() ** 2 / Y[:, at].norm() ** 2
            gain /= X[:k, at].norm() ** 2 / X[:, at].norm() ** 2
            expected += gain * V[:k, g.start : min(k, g.stop)].norm() ** 2
        assert float(found[k - 1]) == pytest.approx(float(expected), rel=1e-12)


def test_many_products_in_few_steps_are_those_in_one():
    H, eigh = exact_pairs(seed=5)
    eigh = Eigh(eigh.S * 1.1, eigh.U, eigh.Y, eigh.factor)
    rows = eigh.vector_rows(mask := torch.arange(N))
    bands = [
        overlap_band(eigh, mask, rows, H.float(), num=24, seed=3, vectors=v) for v in (1, 5, 24)
    ]
    for band in bands[1:]:
        torch.testing.assert_close(band.lowest, bands[0].lowest, rtol=1e-4, atol=1e-6)
        torch.testing.assert_close(band.highest, bands[0].highest, rtol=1e-4, atol=1e-6)


def test_eigenvalues_that_are_too_large_by_a_tenth():
    H, eigh = exact_pairs(seed=5)
    eigh = Eigh(eigh.S * 1.1, eigh.U, eigh.Y, eigh.factor)
    rows = eigh.vector_rows(mask := torch.arange(N))
    band = overlap_band(eigh, mask, rows, H.float(), num=20, seed=3, vectors=20)
    assert (band.eigenvalue_errors >= 0.1 / 1.1).all()


def test_errors_of_eigenvalues_are_those_of_their_group_or_of_the_next():
    """Both groups of three; the larger half of each has its own error, the rest the larger one."""
    groups = [range(0, 3), range(3, 6)]
    rows, ones = torch.zeros(6, 2, dtype=F64), torch.ones(2, dtype=F64)
    products = torch.tensor([0.9, 0.7], dtype=F64)  # of one, and as much of the norms
    steps = Steps(groups, torch.arange(2), rows, rows, ones, products.square(), products)
    first, second = (EIGENVALUE_FACTOR * part + EIGENVALUE_LEAST for part in (0.1, 0.3))
    expected = [first, first, second, second, second, 2 * second]
    assert errors_by_step(steps).tolist() == pytest.approx(expected)


def test_eigenvalues_that_are_right_on_average_show_by_the_norm():
    """``x^T y = ||x||^2``, but y is twice as long: the pairs are far from exact."""
    rows, one = torch.zeros(2, 1, dtype=F64), torch.ones(1, dtype=F64)
    steps = Steps([range(0, 2)], torch.zeros(1, dtype=torch.long), rows, rows, one, 4 * one, one)
    error = EIGENVALUE_FACTOR + EIGENVALUE_LEAST
    assert errors_by_step(steps).tolist() == pytest.approx([error, 2 * error])


def test_errors_of_eigenvalues_from_a_coarser_recovery():
    """Magnitudes count; the largest change of two to each side, more towards the last pair."""
    S = torch.tensor([8.0, -4.0, 2.0, 1.0, 1.0, -1.0, 1.0], dtype=F64)
    coarser = torch.tensor([8.0, 3.6, -2.0, 1.0, 1.0, -0.8], dtype=F64)
    change = np.array([0.1, 0.1, 0.1, 0.2, 0.2, 0.2, 0.2])
    growth = 1 + 0.6 * (np.arange(1, 8) / 7) ** 4
    np.testing.assert_allclose(_errors_of_coarser(S, coarser), change * growth)


def test_eigenvalues_that_are_too_small_show_by_the_product():
    """``x^T y`` is twice ``||x||^2``, and y is 1.1 times as long: the product tells more."""
    rows, one = torch.zeros(2, 1, dtype=F64), torch.ones(1, dtype=F64)
    groups = torch.zeros(1, dtype=torch.long)
    steps = Steps([range(0, 2)], groups, rows, rows, one, 1.21 * one, 2 * one)
    error = EIGENVALUE_FACTOR + EIGENVALUE_LEAST
    assert errors_by_step(steps).tolist() == pytest.approx([error, 2 * error])


def test_a_window_reaches_as_far_to_both_sides():
    """Two to each side at first, then a fifth of k; as far as there are values."""
    values = np.arange(20.0)
    highest = _windowed(values, 0.2, np.max)
    lowest = _windowed(values, 0.2, np.min)
    assert highest.tolist() == [min(i + max(2, (i + 1) // 5), 19) for i in range(20)]
    assert lowest.tolist() == [max(i - max(2, (i + 1) // 5), 0) for i in range(20)]


def test_ends_of_a_coarser_curve_grow_towards_the_last_pair():
    """The coarser recovery has a tenth less for every k, so this one may lack as much again."""
    curve = np.arange(1.0, 101.0)
    down, up = ends_of_coarser(curve, 0.9 * curve[:80])
    growth = 1 + 0.6 * (np.arange(1, 101) / 100) ** 4
    np.testing.assert_allclose(up, 0.1 * growth + 2e-4)
    np.testing.assert_allclose(down, 0.05 * growth + 2e-4)
    assert up[-1] > 1.5 * up[0]


@pytest.mark.parametrize("change", [0.1, -0.1])
def test_ends_of_a_step_lie_further_where_it_went(change):
    """A step that changes every k alike by a tenth: 14 % and more beyond, 4 % to the other side."""
    curve = np.arange(1.0, 101.0)
    down, up = _ends_of_step(curve, (1 + change) * curve, STEPPED)
    beyond, before = (up, down) if change > 0 else (down, up)
    growth = 0.04 * (np.arange(1, 101) / 100) ** 4
    np.testing.assert_allclose(beyond, 0.14 + growth + 0.03)
    np.testing.assert_allclose(before, np.full(100, 0.04 + 0.03))


def test_without_products_there_is_no_band_of_a_sketch():
    H, eigh = exact_pairs(seed=1)
    rows = eigh.vector_rows(mask := torch.arange(N))
    assert overlap_band(eigh, mask, rows, H, num=0, seed=3, vectors=7) is None


def test_one_product_is_enough_for_a_band():
    H, eigh = exact_pairs(seed=1)
    rows = eigh.vector_rows(mask := torch.arange(N))
    band = overlap_band(eigh, mask, rows, H.float(), num=1, seed=3, vectors=7)
    assert (band.method, band.num_products) == ("subspace iteration", 1)


def test_a_krylov_recovery_needs_no_products():
    op = SynthMat.exp_decay((D, D), 4, 0.2, seed=3, psd=False)
    eigh = block_krylov(op, N, 4, 5, seed=2)
    rows = eigh.vector_rows(mask := torch.arange(N))
    band = overlap_band(eigh, mask, rows, None, num=0, seed=3, vectors=7)
    assert (band.method, band.num_products) == ("fewer columns", 0)
    assert (band.lowest <= band.curve).all()
    assert (band.curve <= band.highest).all()


def test_exact_krylov_pairs_are_known_exactly():
    """Of an invariant basis: residuals are round-off, and there are no more eigenvalues."""
    V, S = orthonormal(D, 6, 3), torch.linspace(3, 1, 6, dtype=F64)
    eigh = block_krylov((V * S) @ V.T, N, 4, 4, seed=2)
    rows = eigh.vector_rows(mask := torch.arange(len(eigh.S)))
    band = overlap_band(eigh, mask, rows, None, num=0, seed=3, vectors=7)
    assert len(eigh.S) == 6
    torch.testing.assert_close(band.lowest, band.curve)
    torch.testing.assert_close(band.highest, band.curve)


def test_a_basis_of_as_many_columns_as_pairs_does_not_say_that_there_are_no_more():
    op = SynthMat.exp_decay((D, D), 4, 0.2, seed=3, psd=False)
    found = hmt(op, N, seed=2)
    assert found.diagnostics["numerical_rank"] == found.diagnostics["basis_columns"] == N
    assert np.isinf(angle_bound(found)[-1])


def test_angle_bound_holds_whatever_the_perturbation():
    """Pairs of a perturbed matrix, with their residuals for the true one."""
    for seed in range(20):
        H, _ = exact_pairs(seed)
        E = 1e-3 * gaussian_noise((D, D), seed + 100)
        S, V = torch.linalg.eigh(H + E + E.T)
        order = S.abs().argsort(descending=True)[:N]
        S, V = S[order], V[:, order]
        norms = (H @ V - V * S).norm(dim=0)
        eye = torch.eye(N, dtype=F64)
        bound = angle_bound(Eigh(S, eye, RowBlocks(V), eye, residual_norms=norms))
        exact = mask_curve(exact_pairs(seed)[1].vectors()[:N]).numpy()
        assert (np.abs(mask_curve(V[:N]).numpy() - exact) <= bound).all()
        assert np.isfinite(bound).any()


@pytest.mark.parametrize("recover", [seigh, hmt], ids=["seigh", "hmt"])
def test_a_parameter_without_influence_is_no_reason_for_nan(recover):
    """The largest parameter has a zero row of the Hessian: the curve begins with zero."""
    H, _ = exact_pairs(seed=5)
    H[0], H[:, 0] = 0, 0
    eigh = seigh(H, N, 2 * N, 1) if recover is seigh else hmt(H, N, 1)
    rows = eigh.vector_rows(mask := torch.arange(N))
    rows[0] = 0
    band = overlap_band(eigh, mask, rows, H.float(), num=20, seed=3, vectors=7)
    for values in (band.lowest, band.highest, band.errors, band.eigenvalue_errors):
        assert torch.isfinite(values).all()


@pytest.mark.parametrize(
    ("rounds", "block", "left"), [(4, 5, 3), (3, 10, 2), (10, 2, 8), (20, 1, 15)]
)
def test_coarser_is_the_recovery_with_fewer_rounds(rounds, block, left):
    op = SynthMat.exp_decay((D, D), 4, 0.2, seed=3, psd=False)
    found = block_krylov(op, N, rounds, block, seed=2).coarser
    expected = block_krylov(op, N, left, block, seed=2)
    torch.testing.assert_close(found.S, expected.S)
    overlaps = (found.vectors().T @ expected.vectors()).abs().diagonal()
    torch.testing.assert_close(overlaps, torch.ones_like(overlaps))


def test_one_pass_has_nothing_coarser():
    op = SynthMat.exp_decay((D, D), 4, 0.2, seed=3, psd=False)
    assert hmt(op, N, seed=2).coarser is None
    assert seigh(op, N, 2 * N, seed=2).coarser is None
    assert block_krylov(op, N, 2, N, seed=2).coarser is None  # but for the random start


# ------------------------------------------------------------------------------ coverage


#: How many times the error half of the distance of the ends may be, in the median, at these draws.
#: Krylov's ends have a least distance, which is far above its error.
WIDEST = {"SEIGH": 2.0, "HMT": 2.5, "Nystrom": 3.0}


@pytest.mark.parametrize("name", RECOVERIES)
def test_the_ends_hold_the_exact_overlap(name):
    """A draw of each spectrum and mask; ``python -m benchmarks overlap_coverage`` has hundreds."""
    found = [
        cover(draw := Draw.make(spectrum, dim=600, n=48, seed=77), mask, RECOVERIES[name](draw))
        for spectrum in SPECTRA
        for mask in MASKS
    ]
    assert np.mean([one.inside.mean() for one in found]) > 0.9
    assert not any(one.wrong_and_readable for one in found)
    half_width, error = (
        np.median(np.concatenate([getattr(one, what) for one in found]))
        for what in ("half_width", "error")
    )
    assert half_width <= WIDEST.get(name, np.inf) * error


@pytest.mark.parametrize("recover", [hmt, partial(block_krylov, num_rounds=2, block_size=48)])
def test_the_ends_hold_after_a_hostile_start(recover):
    """One that is orthogonal to all that is wanted: the verdict says what such a recovery is."""
    found = []
    for spectrum in SPECTRA:
        draw = Draw.make(spectrum, dim=600, n=48, seed=78)
        S, V = torch.linalg.eigh(draw.H)
        hostile = V[:, S.abs().argsort(descending=True)[48:96]]
        eigh = recover(draw.H, 48, seed=1, start=hostile)
        found += [cover(draw, mask, eigh) for mask in MASKS]
    assert not any(one.wrong_and_readable for one in found)
    assert not any(one.trusted for one in found)
