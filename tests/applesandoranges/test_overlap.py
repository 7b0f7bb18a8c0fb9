"""Overlap curves against explicit loops over dense matrices."""

from fractions import Fraction

import numpy as np
import pytest
import torch

from applesandoranges.analysis.overlap import (
    all_masks,
    largest_parameters,
    mask_curve,
    mask_curves,
    random_masks,
)
from applesandoranges.subspaces.chance import chance_level, chance_variance
from skerch.core.row_blocks import RowBlocks
from skerch.decompositions import seigh
from skerch.results import Eigh
from skerch.synthmat import SynthMat
from skerch.utils import gaussian_noise

pytestmark = pytest.mark.numerical

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
    assert float(all_masks(eigh).best[k - 1]) == pytest.approx(direct(V, order, k), abs=1e-12)


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


def localised_vectors(dim, n, seed):
    """Return orthonormal vectors that live on few coordinates, as those of networks do, as Eigh."""
    scales = torch.exp(1.5 * gaussian_noise((dim, 1), seed))
    V = torch.linalg.qr(scales * gaussian_noise((dim, n), seed + 1)).Q
    eye = torch.eye(n, dtype=torch.float64)
    return Eigh(torch.ones(n), eye, RowBlocks(V), eye)


def curves_of_random_masks(eigh, num):
    """Return ``num`` curves of random masks, by :func:`mask_curve`."""
    V, n = eigh.vectors(), len(eigh.S)
    masks = random_masks(len(V), n, num, seed=3)
    return torch.stack([mask_curve(V[mask]) for mask in masks])


def test_mean_and_variance_of_all_masks_of_two():
    """All pairs of coordinates are few enough to try them."""
    V = torch.linalg.qr(gaussian_noise((D, N), 8)).Q
    leverage = V[:, :2].square().sum(1)
    pairs = torch.combinations(leverage, 2).sum(1)
    eye = torch.eye(N, dtype=torch.float64)
    found = all_masks(Eigh(torch.ones(N), eye, RowBlocks(V), eye))
    assert float(found.mean[1]) == pytest.approx(float(pairs.mean()), rel=1e-12)
    assert float(found.std[1]) == pytest.approx(float(pairs.std(correction=0)), rel=1e-10)


def test_the_band_of_random_masks_holds_95_percent_of_them():
    """At any rank together; the Haar band holds far fewer, as the vectors are localised."""
    eigh = localised_vectors(1000, 60, seed=2)
    every, curves = all_masks(eigh), curves_of_random_masks(eigh, 1000)
    z = every.z_scores(curves).abs()
    assert 0.93 < float((z < 2).double().mean()) < 0.97
    k = torch.arange(1, 61)
    haar = k * chance_variance(k, 1000).sqrt()
    assert float(((curves - every.mean).abs() < 2 * haar).double().mean()) < 0.6


@pytest.mark.parametrize("size", [0.0, 1e-6, 0.1])
def test_orthogonality_is_that_of_the_eigenvectors(size):
    """With eight random vectors it is a norm up to about a quarter."""
    V = torch.linalg.qr(gaussian_noise((200, 30), 1)).Q
    V += size * gaussian_noise((200, 30), 2) / 200**0.5
    eye = torch.eye(30, dtype=torch.float64)
    found = all_masks(Eigh(torch.ones(30), eye, RowBlocks(V), eye)).orthogonality
    assert found == pytest.approx(float((V.T @ V - eye).norm()), rel=0.25, abs=1e-13)


@pytest.mark.slow
@pytest.mark.xdist_group("exact")
def test_the_band_of_random_masks_holds_95_percent_for_an_exact_hessian(exact_mnist_mini):
    eigh = exact_mnist_mini[1].as_eigh()
    every, curves = all_masks(eigh), curves_of_random_masks(eigh, 1000)
    inside = (every.z_scores(curves).abs() < 2).double()
    assert 0.93 < float(inside.mean()) < 0.97
    np.testing.assert_allclose(curves.std(0)[9:], every.std[9:], rtol=0.1)
