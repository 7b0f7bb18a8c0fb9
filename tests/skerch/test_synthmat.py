from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from skerch.synthmat import SynthMat
from skerch.utils import InputError

pytestmark = pytest.mark.numerical

CASES = json.loads((Path(__file__).parents[1] / "vectors" / "synthmat.json").read_text())
IDS = [
    f"{c['family']}-{'x'.join(map(str, c['kwargs']['shape']))}-psd={c['kwargs'].get('psd')}"
    for c in CASES
]

#: family: (function, tail of the singular values that follow the leading ones).
DECAYS = {
    "exp": (SynthMat.exp_decay, lambda i, decay: 10.0 ** (-decay * i)),
    "poly": (SynthMat.poly_decay, lambda i, decay: (i + 1.0) ** (-decay)),
}
#: The tails are computed in float32 and only then converted, as in the reference.
SPECTRUM_TOLERANCE = 1e-6


@pytest.mark.parametrize("case", CASES, ids=IDS)
class TestReferenceNumbers:
    @pytest.fixture
    def matrix(self, case):
        return getattr(SynthMat, case["family"])(**case["kwargs"])

    def test_shape_and_dtype(self, case, matrix):
        assert list(matrix.shape) == case["kwargs"]["shape"]
        assert matrix.dtype == torch.float64

    def test_first_row(self, case, matrix, assert_close):
        assert_close(matrix[0], case["first_row"], tol=1e-12)

    def test_singular_values(self, case, matrix, assert_close):
        assert_close(np.linalg.svd(matrix.numpy())[1], case["singular_values"], tol=1e-12)

    def test_frobenius_norm(self, case, matrix):
        assert float(matrix.norm()) == pytest.approx(case["frobenius"], rel=1e-12)


@pytest.mark.parametrize(("make", "tail"), DECAYS.values(), ids=DECAYS)
class TestDecays:
    @pytest.mark.parametrize(
        ("shape", "symmetric"),
        [((20, 20), True), ((20, 20), False), ((24, 16), False), ((16, 24), False)],
        ids=["symmetric", "square", "tall", "wide"],
    )
    @pytest.mark.parametrize("rank", [0, 1, 5, 16])
    def test_singular_values(self, make, tail, shape, symmetric, rank, assert_close):
        A = make(shape, rank, 0.4, symmetric=symmetric, seed=3)
        expected = np.ones(min(shape))
        expected[rank:] = tail(np.arange(1, min(shape) - rank + 1), 0.4)
        assert A.shape == shape
        assert_close(np.linalg.svd(A.numpy())[1], expected, tol=SPECTRUM_TOLERANCE)

    def test_signs_of_an_indefinite_tail(self, make, tail, assert_close):
        uniform = torch.rand(15, generator=torch.Generator().manual_seed(4))
        signs = np.where(uniform.numpy() > 0.5, 1, -1)
        assert set(signs) == {-1, 1}
        A = make((20, 20), 5, 0.2, seed=3, psd=False)
        expected = np.concatenate([np.ones(5), signs * tail(np.arange(1, 16), 0.2)])
        found = np.linalg.eigvalsh(A.numpy())
        assert_close(found, np.sort(expected), tol=SPECTRUM_TOLERANCE)

    def test_symmetric_positive_semidefinite(self, make, tail, assert_close):
        A = make((20, 20), 5, 0.2, seed=3)
        assert_close(A, A.T)
        assert float(np.linalg.eigvalsh(A.numpy())[0]) > -1e-12

    def test_seeds(self, make, tail):
        assert torch.equal(make(seed=3), make(seed=3))
        assert float((make(seed=3) - make(seed=4)).norm()) > 0.1

    def test_single_precision(self, make, tail, assert_close):
        A = make((20, 20), 5, 0.2, seed=3, dtype=torch.float32)
        expected = np.ones(20)
        expected[5:] = tail(np.arange(1, 16), 0.2)
        assert A.dtype == torch.float32
        assert_close(np.linalg.svd(A.numpy())[1], expected)

    @pytest.mark.parametrize(
        ("kwargs", "match"),
        [
            ({"shape": (4, 5)}, "square, got shape 4,5"),
            ({"shape": (4, 4), "rank": 5}, r"\[0, 4\], got 5"),
            ({"shape": (4, 4), "rank": -1}, r"\[0, 4\], got -1"),
        ],
        ids=["symmetric-rectangle", "rank-too-large", "rank-negative"],
    )
    def test_impossible_requests_raise(self, make, tail, kwargs, match):
        with pytest.raises(InputError, match=match):
            make(**{"rank": 2, **kwargs})


class TestLowRankNoise:
    def test_formula(self, assert_close):
        generator = torch.Generator().manual_seed(8)
        G = torch.randn(12, 12, generator=generator, dtype=torch.float64).numpy()
        expected = np.diag([1.0] * 3 + [0.0] * 9) + 0.5 / 12 * G @ G.T
        assert_close(SynthMat.lowrank_noise((12, 12), 3, 0.5, seed=8), expected)

    def test_without_noise(self):
        A = SynthMat.lowrank_noise((6, 6), 2, 0.0, seed=8)
        assert torch.equal(A, torch.diag(torch.tensor([1.0, 1, 0, 0, 0, 0], dtype=torch.float64)))

    @pytest.mark.parametrize(
        ("shape", "rank", "match"),
        [
            ((4, 5), 2, "square, got shape 4,5"),
            ((4, 4), 5, r"\[0, 4\], got 5"),
            ((4, 4), -1, r"\[0, 4\], got -1"),
        ],
        ids=["rectangle", "rank-too-large", "rank-negative"],
    )
    def test_impossible_requests_raise(self, shape, rank, match):
        with pytest.raises(InputError, match=match):
            SynthMat.lowrank_noise(shape, rank)


@pytest.mark.parametrize("make", [SynthMat.exp_decay, SynthMat.poly_decay])
def test_matrices_are_square_unless_told_otherwise(make):
    assert make(rank=5).shape == (100, 100)


@pytest.mark.parametrize("family", [SynthMat.lowrank_noise, SynthMat.exp_decay])
def test_matrices_are_square_where_nothing_is_said(family):
    assert family().shape == (100, 100)


@pytest.mark.parametrize("make", [SynthMat.lowrank_noise, SynthMat.exp_decay, SynthMat.poly_decay])
def test_ten_leading_values_where_nothing_is_said(make):
    S = torch.linalg.svdvals(make())
    assert int((S > 0.99).sum()) == 10
