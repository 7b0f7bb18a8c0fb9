from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.stats import chi2

from skerch.a_posteriori import (
    APosterioriError,
    a_posteriori_error,
    a_posteriori_error_bounds,
    confidence_interval,
    eigenvalues_to_compare,
    gaussian_test_vectors,
    scree_bounds,
    truncation_errors,
)
from skerch.decompositions import seigh
from skerch.linops import DiagonalLinOp
from skerch.synthmat import SynthMat
from skerch.utils import InputError

pytestmark = pytest.mark.numerical

VECTORS = json.loads((Path(__file__).parents[1] / "vectors" / "a_posteriori.json").read_text())
F64 = torch.float64

#: Diagonals of two operators and of their difference, and how many vectors estimate their norms.
DIAGONALS = {
    "A": (_A := torch.linspace(-2, 3, 12, dtype=F64)),
    "B": (_B := torch.linspace(1, 0, 12, dtype=F64)),
    "difference": _A - _B,
}
MANY = 20_000
SPECTRA = {
    "exponential": 10.0 ** -(torch.arange(300, dtype=F64) / 20),
    "polynomial": 1 / (1 + torch.arange(300, dtype=F64)),
    "one outlier": torch.cat([torch.ones(1, dtype=F64), torch.full((299,), 1e-3, dtype=F64)]),
    "flat": torch.ones(300, dtype=F64),
}


@pytest.fixture(scope="module")
def reference_pair():
    """The matrices M1 and M2 that the reference numbers name."""
    return SynthMat.exp_decay((30, 30), 5, 0.1, seed=3), SynthMat.exp_decay(
        (30, 30), 5, 0.5, seed=3
    )


@pytest.fixture(scope="module")
def diagonal_errors():
    A, B = DiagonalLinOp(DIAGONALS["A"]), DiagonalLinOp(DIAGONALS["B"])
    return a_posteriori_error(A, B, MANY, seed=5)


@pytest.fixture(scope="module")
def sketched():
    """An operator, its sketched eigendecomposition of rank 10, and test vectors."""
    H = SynthMat.exp_decay((40, 40), 4, 0.2, seed=6, psd=False)
    G = torch.randn(40, 7, generator=torch.Generator().manual_seed(1), dtype=F64)
    return H, seigh(H, 10, 20, seed=2), G


class TestReferenceNumbers:
    @pytest.fixture
    def errors(self, reference_pair):
        return a_posteriori_error(*reference_pair, VECTORS["num_measurements"], VECTORS["seed"])

    @pytest.mark.parametrize("name", ["frob1_sq", "frob2_sq", "diff_sq"])
    def test_estimates(self, errors, name, assert_close):
        assert_close(getattr(errors, name), VECTORS[name], tol=1e-8)

    def test_means(self, errors, assert_close):
        assert_close(torch.tensor(errors.means, dtype=F64), VECTORS["means"], tol=1e-8)

    @pytest.mark.parametrize("case", VECTORS["bounds"])
    def test_bounds(self, case):
        num, error = (float(part.split("=")[1]) for part in case.split(","))
        found = a_posteriori_error_bounds(int(num), error)
        assert found == pytest.approx(VECTORS["bounds"][case], abs=1e-8)

    def test_a_share_of_an_interval_is_at_most_one(self):
        """Of an estimate that may be too small, the upper bound alone could be more than all."""
        S = torch.tensor([2.0, 1.0])
        lower, upper = scree_bounds(S, frob_sq=(4.0, 10.0), error_sq=(0.0, 0.0))
        assert (lower.tolist(), upper.tolist()) == ([0.5, pytest.approx(0.1)], [1.0, 0.25])
        assert scree_bounds(S, frob_sq=4.0, error_sq=0.0)[1].tolist() == [1.25, 0.25]

    def test_scree(self, assert_close):
        S = torch.tensor(VECTORS["scree_eigenvalues"], dtype=F64)
        lower, upper = scree_bounds(S, VECTORS["means"][0], VECTORS["means"][2])
        assert_close(lower, VECTORS["scree_lower"], tol=1e-8)
        assert_close(upper, VECTORS["scree_upper"], tol=1e-8)


class TestEstimator:
    @pytest.fixture(params=DIAGONALS)
    def closed_form(self, request):
        """Index of the estimate, its mean ``sum d^2`` and its standard error.

        For ``diag(d)``: ``Var sum d_i^2 g_i^2 = 2 sum d_i^4``.
        """
        index, d = list(DIAGONALS).index(request.param), DIAGONALS[request.param].numpy()
        return index, (d**2).sum(), math.sqrt(2 * (d**4).sum() / MANY)

    def test_unbiased(self, diagonal_errors, closed_form):
        index, mean, standard_error = closed_form
        assert abs(diagonal_errors.means[index] - mean) < 4 * standard_error

    def test_standard_errors(self, diagonal_errors, closed_form):
        index, _, standard_error = closed_form
        assert diagonal_errors.standard_errors[index] == pytest.approx(standard_error, rel=0.05)

    def test_frobenius_norm_of_a_rectangle(self, gaussian):
        A = gaussian(7, 9)
        errors = a_posteriori_error(A, 0 * A, 4000, seed=5)
        gram = (A.T @ A).numpy()
        spread = math.sqrt(2 * np.trace(gram @ gram) / 4000)
        assert abs(errors.means[0] - np.trace(gram)) < 4 * spread
        assert torch.equal(errors.frob2_sq, torch.zeros(4000, dtype=F64))
        assert torch.equal(errors.diff_sq, errors.frob1_sq)

    def test_equal_operators_do_not_differ(self, gaussian):
        A = gaussian(7, 9)
        assert float(a_posteriori_error(A, A, 3, seed=5).diff_sq.max()) == 0

    def test_against_products_one_by_one(self, gaussian, assert_close):
        A, B = gaussian(7, 9), gaussian(7, 9, seed=1)
        draw = torch.Generator()
        g = torch.randn(9, generator=draw.manual_seed(5 + 2), dtype=F64)
        found = a_posteriori_error(A, B, 4, seed=5)
        assert_close(found.frob1_sq[2], (A @ g).square().sum())
        assert_close(found.frob2_sq[2], (B @ g).square().sum())
        assert_close(found.diff_sq[2], ((A - B) @ g).square().sum())

    def test_one_vector_has_no_standard_error(self, gaussian):
        A = gaussian(7, 9)
        found = a_posteriori_error(A, A + 1, 1, seed=5).standard_errors
        assert all(math.isnan(x) for x in found)

    def test_different_shapes_raise(self):
        with pytest.raises(InputError, match=r"\(3, 4\) and \(4, 3\)"):
            a_posteriori_error(torch.ones(3, 4), torch.ones(4, 3), 2, seed=0)


class TestTestVectors:
    @pytest.mark.parametrize("dtype", [torch.float32, F64], ids=str)
    def test_each_depends_on_its_own_seed_alone(self, dtype):
        found = gaussian_test_vectors(11, 5, 20, dtype)
        alone = torch.randn(11, generator=torch.Generator().manual_seed(23), dtype=dtype)
        assert found.shape == (11, 5)
        assert torch.equal(found[:, 3], alone)

    def test_none_raise(self):
        with pytest.raises(InputError, match="at least one vector, got 0"):
            gaussian_test_vectors(11, 0, 20, F64)


class TestTruncationErrors:
    @pytest.mark.parametrize("k", [1, 5, 10])
    def test_against_dense_truncations(self, sketched, k, assert_close):
        H, eigh, G = sketched
        V = eigh.vectors(k)
        Hk = V @ torch.diag(eigh.S[:k]) @ V.T
        found = truncation_errors(eigh, G, H @ G, [k])[k]
        assert_close(found.frob1_sq, (H @ G).square().sum(0))
        assert_close(found.frob2_sq, (Hk @ G).square().sum(0))
        assert_close(found.diff_sq, ((H - Hk) @ G).square().sum(0))

    def test_all_ranks_at_once(self, sketched, assert_close):
        H, eigh, G = sketched
        together = truncation_errors(eigh, G, H @ G, range(1, 11))
        alone = truncation_errors(eigh, G, H @ G, [4])[4]
        assert list(together) == list(range(1, 11))
        assert_close(together[4].diff_sq, alone.diff_sq)

    def test_an_exact_approximation_has_no_error(self, mixed_sign):
        H = mixed_sign(30, [3.0, -2.0, 1.0])
        G = torch.randn(30, 5, generator=torch.Generator().manual_seed(1), dtype=F64)
        found = truncation_errors(seigh(H, 8, 16, seed=0), G, H @ G, [3])[3]
        assert float(found.diff_sq.min()) >= 0
        assert float(found.diff_sq.max()) < 1e-12

    @pytest.mark.parametrize("k", [-1, 0, 11])
    def test_impossible_ranks_raise(self, sketched, k):
        H, eigh, G = sketched
        with pytest.raises(InputError, match=rf"\[1, 10\], got \[{k}\]"):
            truncation_errors(eigh, G, H @ G, [3, k])


class TestErrorBounds:
    @pytest.mark.parametrize("complex_data", [False, True], ids=["real", "complex"])
    @pytest.mark.parametrize("error", [0.05, 0.5, 0.9, 1])
    @pytest.mark.parametrize("num", [1, 10, 100])
    def test_they_bound_the_exact_probabilities(self, num, error, complex_data):
        # For a matrix of rank one the estimate is chi-squared, the widest distribution of all.
        freedom = 2 * num if complex_data else num
        low, high = a_posteriori_error_bounds(num, error, complex_data).values()
        assert chi2.cdf(freedom * (1 - error), freedom) <= low <= 1
        assert chi2.sf(freedom * (1 + error), freedom) <= high <= 1

    def test_complex_data_count_twice(self):
        expected = a_posteriori_error_bounds(20, 0.4)
        assert a_posteriori_error_bounds(10, 0.4, complex_data=True) == pytest.approx(expected)

    def test_keys_name_the_factors(self):
        assert list(a_posteriori_error_bounds(3, 0.1)) == ["P(err<=0.9x)", "P(err>=1.1x)"]

    @pytest.mark.parametrize(
        ("num", "error", "match"),
        [(0, 0.5, "got 0"), (3, 0, "got 0"), (3, -0.1, "got -0.1"), (3, 1.5, "got 1.5")],
        ids=["no-vectors", "no-error", "negative-error", "error-above-one"],
    )
    def test_impossible_requests_raise(self, num, error, match):
        with pytest.raises(InputError, match=match):
            a_posteriori_error_bounds(num, error)


class TestScreeBounds:
    def test_closed_form(self, assert_close):
        S = torch.tensor([3.0, -2.0, 1.0], dtype=F64)
        lower, upper = scree_bounds(S, frob_sq=20.0, error_sq=4.0)
        tails = np.array([math.sqrt(14), math.sqrt(5), 1])
        assert_close(lower, tails**2 / 20)
        assert_close(upper, (tails + 2) ** 2 / 20)

    def test_an_exact_approximation_is_bounded_by_the_truth(self, assert_close):
        S = torch.tensor([3.0, -2.0, 1.0], dtype=F64)
        lower, upper = scree_bounds(S, frob_sq=14.0, error_sq=0.0)
        assert_close(lower, [1, 5 / 14, 1 / 14])
        assert_close(upper, [1, 5 / 14, 1 / 14])

    @pytest.mark.parametrize("seed", [0, 1, 2])
    def test_upper_bound_holds_by_mirsky(self, seed):
        H = SynthMat.poly_decay((40, 40), 4, 0.8, seed=6, psd=False)
        eigh = seigh(H, 10, 20, seed)
        V = eigh.vectors()
        true = np.sort(np.linalg.eigvalsh(H.numpy()) ** 2)[::-1]
        tails = true[::-1].cumsum()[::-1] / true.sum()
        error_sq = float((H - (V * eigh.S) @ V.T).square().sum())
        _, upper = scree_bounds(eigh.S, float(true.sum()), error_sq)
        assert (tails[:10] <= upper.numpy()).all()

    @pytest.mark.parametrize("frob_sq", [0.0, -1.0])
    def test_impossible_norms_raise(self, frob_sq):
        with pytest.raises(InputError, match="positive squared norm"):
            scree_bounds(torch.ones(3), frob_sq, 1.0)


class TestIntervals:
    @pytest.fixture(params=SPECTRA)
    def scree(self, request):
        """How often bounds of exact leading values hold for all ranks, by mean and by interval.

        1,000 estimates from 30 vectors each; beyond the leading 20 values is the error.
        """
        S, draws, num, k = SPECTRA[request.param], 1000, 30, 20
        squares = torch.randn(draws, num, len(S), generator=torch.Generator().manual_seed(4))
        squares = squares.double().square() * S.square()
        true = S.square().flip(0).cumsum(0).flip(0)[:k] / S.square().sum()
        held = {"mean": 0, "interval": 0}
        for draw in squares:
            errors = APosterioriError(draw.sum(1), draw[:, :k].sum(1), draw[:, k:].sum(1))
            means = errors.means[0], errors.means[2]
            intervals = errors.intervals(0.975)[0], errors.intervals(0.975)[2]
            for name, (frob_sq, error_sq) in {"mean": means, "interval": intervals}.items():
                lower, upper = scree_bounds(S[:k], frob_sq, error_sq)
                held[name] += bool(((lower <= true) & (true <= upper + 1e-9)).all())
        return request.param, {name: count / draws for name, count in held.items()}

    def test_scree_bounds_hold_as_often_as_they_say(self, scree):
        name, held = scree
        assert held["interval"] >= 0.95
        if name == "one outlier":
            assert held["mean"] < 0.1

    def test_interval_in_closed_form(self):
        """Student's t for 4 degrees of freedom at 97.5 % is 2.776."""
        low, high = confidence_interval(2.0, 0.1, 5, 0.95)
        assert high == pytest.approx(2 * math.exp(2.7764451 * 0.05))
        assert low * high == pytest.approx(4)

    def test_intervals_of_an_estimate_are_those_of_its_means(self):
        """Of three estimates each: Student's t for 2 degrees of freedom at 95 % is 2.920."""
        norms = (torch.tensor([value, 2.0, 3.0], dtype=F64) for value in (1.0, 4.0, 7.0))
        found = APosterioriError(*norms).intervals(0.9)
        expected = [(2, (1 / 3) ** 0.5), (3, (1 / 3) ** 0.5), (4, (7 / 3) ** 0.5)]
        for (low, high), (mean, error) in zip(found, expected, strict=True):
            assert high == pytest.approx(mean * math.exp(2.9199856 * error / mean))
            assert low == pytest.approx(mean**2 / high)

    def test_interval_of_zeros(self):
        assert confidence_interval(0.0, 0.0, 5, 0.95) == (0, 0)

    @pytest.mark.parametrize("level", [0, 1, -0.5, 95, math.nan])
    def test_a_level_lies_between_0_and_1(self, level):
        with pytest.raises(InputError, match=f"a level between 0 and 1, got {level}"):
            confidence_interval(2.0, 0.1, 5, level)

    def test_one_vector_is_too_few(self):
        with pytest.raises(InputError, match="at least 2 estimates, got 1"):
            confidence_interval(1.0, math.nan, 1, 0.95)


@pytest.mark.parametrize(
    ("found", "exact", "expected"),
    [
        ([3, 2, 1], [3, 2, 1, 0.5], [3, 2, 1]),
        ([2.9, -3.1, 1], [3, -3, 1, -0.5], [3, -3, 1]),  # the order of magnitudes is exchanged
        ([-2.0, -1.9], [2.0, -2.0, -1.9, 1], [-2.0, -1.9]),  # 2 was missed: nothing is off by 4
        ([2.0, -1.0, -0.5], [2.0, -1.0, 0.5], [2.0, -1.0, 0]),  # no second negative one
        ([1.0, 0.0], [1.0, -1.0], [1.0, 0]),
        ([0.4, -0.3, 0.1], [0.5, -0.25, 0.125], [0.5, -0.25, 0.125]),  # small ones, too
    ],
    ids=str,
)
def test_eigenvalues_are_compared_within_their_sign(found, exact, expected):
    found, exact = (torch.tensor(numbers, dtype=F64) for numbers in (found, exact))
    matched = eigenvalues_to_compare(found, exact)
    assert matched.tolist() == expected
