"""Overlap curves against explicit loops over dense matrices."""

from fractions import Fraction

import pytest
import torch

from applesandoranges.analysis.overlap import (
    best_mask_curve,
    largest_parameters,
    mask_curve,
    mask_curves,
    random_masks,
)
from applesandoranges.subspaces.chance import chance_level, chance_variance
from skerch.decompositions import seigh
from skerch.synthmat import SynthMat
from skerch.utils import gaussian_noise

D, N = 40, 12


@pytest.fixture(scope="module", params=[None, 20_000], ids=["one block", "24-row blocks"])
def eigh(request):
    op = SynthMat.exp_decay((D, D), 4, 0.2, seed=3, psd=False)
    return seigh(op, N, 2 * N, seed=1, memory_budget=request.param)


def direct(V, order, k):
    return float(V[order[:k], :k].square().sum())


@pytest.mark.parametrize("k", range(1, N + 1))
def test_mask_curves_are_the_definition(eigh, k):
    V = eigh.vectors()
    masks = random_masks(D, N, 3, seed=5)
    for mask, curve in zip(masks, mask_curves(eigh, masks), strict=True):
        assert float(curve[k - 1]) == pytest.approx(direct(V, mask, k), abs=1e-12)
        assert float(mask_curve(V[mask])[k - 1]) == pytest.approx(direct(V, mask, k), abs=1e-12)


@pytest.mark.parametrize("k", range(1, N + 1))
def test_best_mask_takes_the_longest_rows_for_each_k(eigh, k):
    V = eigh.vectors()
    order = V[:, :k].square().sum(1).argsort(descending=True)
    assert float(best_mask_curve(eigh)[k - 1]) == pytest.approx(direct(V, order, k), abs=1e-12)


def test_overlap_with_the_whole_space_is_one():
    V = torch.linalg.qr(gaussian_noise((D, D), 0)).Q
    assert float(mask_curve(V)[-1] / D) == pytest.approx(1, abs=1e-12)


def test_largest_parameters_by_magnitude_ties_by_index():
    params = torch.tensor([0.5, -3.0, 2.0, 3.0, -0.1])
    assert largest_parameters(params, 4).tolist() == [1, 3, 2, 0]


def test_random_masks_are_nested_distinct_and_reproducible():
    masks = random_masks(D, N, 4, seed=9)
    assert all(len(set(mask.tolist())) == N for mask in masks)
    assert len({tuple(mask.tolist()) for mask in masks}) == 4
    assert all(
        torch.equal(a[:5], b) for a, b in zip(masks, random_masks(D, 5, 4, seed=9), strict=True)
    )


@pytest.mark.parametrize("k", [1, 5, 20])
def test_mean_and_variance_of_chance_are_those_of_haar_subspaces(k):
    """4,000 random subspaces: the mean within 4 standard errors, the variance within 10 %."""
    num = 4000
    Q = torch.linalg.qr(gaussian_noise((num, D, k), 17)).Q
    overlaps = Q[:, :k].square().sum((1, 2)) / k
    variance = float(chance_variance(k, D))
    assert abs(float(overlaps.mean() - chance_level(k, D))) < 4 * (variance / num) ** 0.5
    assert float(overlaps.var()) == pytest.approx(variance, rel=0.1)


@pytest.mark.parametrize("dim", [7030, 65_536, 895_210, 11_689_512, 10**9])
@pytest.mark.parametrize("k", [1, 1500])
def test_variance_of_chance_in_exact_arithmetic(k, dim):
    """Integers of Python have no largest one."""
    exact = Fraction(2 * (dim - k) ** 2, dim**2 * (dim - 1) * (dim + 2))
    assert float(chance_variance(k, dim)) == pytest.approx(float(exact), rel=1e-12)
    several = chance_variance(torch.tensor([k, 2 * k]), dim)
    assert float(several[0]) == pytest.approx(float(exact), rel=1e-12)
