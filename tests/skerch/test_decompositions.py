from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from skerch.decompositions import block_krylov, hmt, nystrom, seigh, ssvd
from skerch.linops import CompositeLinOp, SymmetricLinOp, adjoint_mismatch
from skerch.synthmat import SynthMat
from skerch.utils import InputError, NumericalError, gaussian_noise

pytestmark = pytest.mark.numerical

VECTORS = json.loads((Path(__file__).parents[1] / "vectors" / "decompositions.json").read_text())
F64 = torch.float64


def dense(eigh):
    V = eigh.vectors()
    return (V * eigh.S) @ V.T


class Counting:
    """An operator that records the widths of the blocks it is multiplied with."""

    def __init__(self, A):
        self.A, self.shape, self.dtype = A, A.shape, A.dtype
        self.left, self.right = [], []

    def __matmul__(self, X):
        self.left.append(X.shape[1])
        return self.A @ X

    def __rmatmul__(self, X):
        self.right.append(X.shape[0])
        return X @ self.A


class TestSeighReference:
    CASE = VECTORS["seigh"]

    @pytest.fixture
    def H(self):
        return SynthMat.exp_decay((60, 60), 6, 0.15, seed=21, psd=False)

    @pytest.fixture
    def solve(self, H):
        def call(symmetrize):
            sizes = self.CASE["outer"], self.CASE["inner"]
            return seigh(H, *sizes, self.CASE["seed"], symmetrize=symmetrize)

        return call

    def test_the_matrix_is_the_one_named(self, H, assert_close):
        found = np.linalg.eigvalsh(H.numpy())
        top = found[np.argsort(-np.abs(found))][:15]
        expected = np.array(self.CASE["true_eigenvalues_top15"])
        assert_close(top[6:], expected[6:])
        assert_close(top[:6], np.ones(6))

    @pytest.mark.parametrize(
        ("symmetrize", "name"),
        [
            (True, "eigenvalues_symmetrised_core"),
            (False, "eigenvalues_lower_triangle_core"),
        ],
        ids=["symmetrised", "lower-triangle"],
    )
    def test_eigenvalues(self, solve, symmetrize, name, assert_close):
        assert_close(solve(symmetrize).S, self.CASE[name], tol=1e-8)

    def test_residual_of_the_lower_triangle(self, H, solve):
        residual = float((H - dense(solve(symmetrize=False))).norm())
        assert residual == pytest.approx(self.CASE["residual_frobenius"], abs=1e-8)

    def test_symmetrising_lowers_the_residual(self, H, solve):
        residual = float((H - dense(solve(symmetrize=True))).norm())
        assert residual < 0.97 * self.CASE["residual_frobenius"]

    def test_asymmetry(self, solve):
        found = solve(symmetrize=True).diagnostics["core_asymmetry"]
        assert found == pytest.approx(self.CASE["core_asymmetry"], abs=1e-8)

    @pytest.mark.parametrize("symmetrize", [True, False], ids=["symmetrised", "lower-triangle"])
    def test_projector(self, solve, symmetrize, assert_close):
        found = solve(symmetrize).vectors().square().sum(1)
        assert_close(found, self.CASE["projector_QQt_diag"], tol=1e-8)


class TestSeighAgainstDense:
    @pytest.mark.parametrize("symmetrize", [True, False], ids=["symmetrised", "lower-triangle"])
    @pytest.mark.parametrize("seed", [0, 5])
    @pytest.mark.parametrize(
        ("outer", "inner"), [(15, 30), (10, 10), (1, 2), (40, 40)], ids=lambda x: str(x)
    )
    def test_dense_formulas(self, outer, inner, seed, symmetrize, dense_seigh, assert_close):
        H = SynthMat.poly_decay((40, 40), 4, 1.0, seed=2, psd=False)
        found = seigh(H, outer, inner, seed, symmetrize=symmetrize)
        expected = dense_seigh(H, outer, inner, seed, symmetrize)
        assert found.shape == (40, 40)
        assert found.S.shape == (outer,)
        # Square least-squares problems have the condition of a random square matrix.
        assert_close(dense(found), expected, tol=1e-10 if inner > outer else 1e-8)

    def test_all_measurements_are_exact(self, assert_close):
        H = SynthMat.poly_decay((40, 40), 4, 1.0, seed=2, psd=False)
        assert_close(dense(seigh(H, 40, 40, seed=0)), H, tol=1e-9)

    @pytest.mark.parametrize("seed", range(4))
    @pytest.mark.parametrize(
        "eigenvalues",
        [[5.0, -4.0, 3.0, -2.0, 1.0, -0.5], [-1.0], [1.0, 1.0, -1.0], [1e3, -1.0, 1e-3]],
        ids=["mixed", "one-negative", "equal-magnitude", "six-decades"],
    )
    def test_low_rank_is_recovered(self, eigenvalues, seed, mixed_sign, assert_close):
        H = mixed_sign(70, eigenvalues, seed)
        found = seigh(H, 10, 20, seed)
        assert_close(dense(found), H, tol=1e-10)
        assert_close(found.S[: len(eigenvalues)].abs(), np.abs(eigenvalues), tol=1e-10)
        assert_close(found.S.sort().values.sum(), sum(eigenvalues), tol=1e-10)
        assert float(found.S[len(eigenvalues) :].abs().sum()) < 1e-10 * max(map(abs, eigenvalues))

    @pytest.mark.parametrize("seed", range(4))
    def test_rank_equal_to_the_number_of_outer_measurements(self, seed, mixed_sign, assert_close):
        eigenvalues = [4.0, -3.0, 2.0, -1.0]
        H = mixed_sign(70, eigenvalues, seed)
        found = seigh(H, 4, 8, seed)
        assert_close(dense(found), H, tol=1e-10)
        assert_close(found.S, eigenvalues, tol=1e-10)

    @pytest.mark.parametrize("seed", range(6))
    @pytest.mark.parametrize(
        "make",
        [
            lambda: SynthMat.exp_decay((60, 60), 6, 0.15, seed=21, psd=False),
            lambda: SynthMat.poly_decay((60, 60), 6, 1.0, seed=21, psd=False),
            lambda: SynthMat.lowrank_noise((60, 60), 6, 1e-2, seed=21),
        ],
        ids=["exp", "poly", "noise"],
    )
    def test_the_symmetrised_core_is_no_worse(self, make, seed):
        H = make()
        symmetrised, triangle = (
            float((H - dense(seigh(H, 15, 30, seed, symmetrize=s))).norm()) for s in (True, False)
        )
        assert symmetrised <= triangle

    @pytest.mark.parametrize("symmetrize", [True, False], ids=["symmetrised", "lower-triangle"])
    def test_orthonormal_vectors_by_descending_magnitude(self, symmetrize, assert_close):
        H = SynthMat.exp_decay((60, 60), 6, 0.2, seed=21, psd=False)
        found = seigh(H, 20, 40, 3, symmetrize=symmetrize)
        V = found.vectors()
        assert_close(V.T @ V, torch.eye(20, dtype=F64), tol=1e-10)
        assert (found.S.abs().diff() <= 0).all()
        assert (found.S < 0).any()


class TestSeighInterface:
    @pytest.fixture
    def H(self):
        return SynthMat.exp_decay((50, 50), 5, 0.2, seed=4, psd=False)

    @pytest.mark.parametrize("batch_size", [1, 7, 64])
    def test_batch_sizes_do_not_matter(self, H, batch_size, assert_close):
        expected, found = seigh(H, 12, 30, 1), seigh(H, 12, 30, 1, batch_size=batch_size)
        assert_close(found.S, expected.S, tol=1e-12)
        assert_close(found.vectors(), expected.vectors(), tol=1e-10)

    @pytest.mark.parametrize(
        ("batch_size", "widths"),
        [(1, [1] * 30), (7, [7, 7, 7, 7, 2]), (30, [30]), (64, [30])],
        ids=["one", "seven", "all", "more"],
    )
    def test_products_are_made_in_blocks_and_only_once(self, H, batch_size, widths):
        op = Counting(H)
        seigh(op, 12, 30, 1, batch_size=batch_size)
        assert op.left == widths
        assert op.right == []

    @pytest.mark.parametrize("budget", [18_000, 20_000, 40_000])
    def test_memory_budgets_do_not_matter(self, H, budget, assert_close):
        found = seigh(H, 12, 30, 1, memory_budget=budget)
        expected = seigh(H, 12, 30, 1)
        assert_close(found.S, expected.S, tol=1e-12)
        assert_close(found.vectors(), expected.vectors(), tol=1e-10)

    def test_a_budget_that_holds_nothing_names_what_is_needed(self, H):
        message = "12 outer and 30 inner .* need 16.84 KB.* is 10 KB; about 5 outer ones"
        with pytest.raises(InputError, match=message):
            seigh(H, 12, 30, 1, memory_budget=10_000)

    def test_the_global_generator_does_not_matter(self, H, assert_close):
        before = torch.manual_seed(3).get_state()
        first = seigh(H, 12, 30, 1)
        assert torch.equal(torch.get_rng_state(), before)
        torch.manual_seed(4)
        assert_close(seigh(H, 12, 30, 1).S, first.S, tol=1e-12)

    def test_single_precision_operators(self, H, assert_close):
        found, expected = seigh(H.float(), 12, 30, 1, dtype=torch.float32), seigh(H, 12, 30, 1)
        assert found.S.dtype == F64
        assert_close(found.S, expected.S, tol=1e-5)
        assert_close(dense(found), dense(expected), tol=1e-5)

    def test_operators_of_any_kind(self, H, assert_close):
        half = torch.linalg.qr(H).Q
        op = CompositeLinOp(half, torch.diag(torch.arange(50.0, dtype=F64)), half.T)
        expected = seigh((half * torch.arange(50.0, dtype=F64)) @ half.T, 12, 30, 1)
        assert_close(seigh(op, 12, 30, 1).S, expected.S, tol=1e-10)

    def test_the_result_is_an_operator(self, H, assert_close, gaussian):
        found, X = seigh(H, 12, 30, 1), gaussian(50, 3)
        assert adjoint_mismatch(SymmetricLinOp(found)) < 1e-13
        assert_close(found @ X, dense(found) @ X)


class TestSsvdReference:
    CASE = VECTORS["ssvd"]

    @pytest.fixture
    def A(self):
        return SynthMat.exp_decay((50, 40), 6, 0.2, symmetric=False, seed=21)

    @pytest.fixture
    def found(self, A):
        return ssvd(A, self.CASE["outer"], self.CASE["inner"], self.CASE["seed"])

    def test_the_matrix_is_the_one_named(self, A, assert_close):
        found = np.linalg.svd(A.numpy())[1][:12]
        assert_close(found, self.CASE["true_singular_values_top12"])

    def test_singular_values(self, found, assert_close):
        assert_close(found.S, self.CASE["singular_values"], tol=1e-8)

    def test_residual(self, A, found):
        residual = float((A - found.to_dense()).norm())
        assert residual == pytest.approx(self.CASE["residual_frobenius"], abs=1e-8)


class TestSsvdAgainstDense:
    @pytest.mark.parametrize(
        "shape", [(50, 40), (40, 50), (45, 45)], ids=["tall", "wide", "square"]
    )
    def test_dense_formulas(self, shape, gaussian, dense_ssrft, assert_close):
        H, W = shape
        A = gaussian(H, W).numpy()
        left_outer, right_outer = dense_ssrft((8, H), 3).numpy(), dense_ssrft((8, W), 4).numpy()
        Phi, Psi = dense_ssrft((20, H), 5).numpy(), dense_ssrft((20, W), 6).numpy()
        P = np.linalg.qr(A @ right_outer.T)[0]
        Q = np.linalg.qr((left_outer @ A).T)[0]
        core = np.linalg.pinv(Phi @ P) @ (Phi @ A @ Psi.T) @ np.linalg.pinv(Psi @ Q).T
        found = ssvd(torch.as_tensor(A), 8, 20, seed=3)
        assert_close(found.to_dense(), P @ core @ Q.T, tol=1e-10)
        assert_close(found.S, np.linalg.svd(core)[1], tol=1e-10)

    @pytest.mark.parametrize("seed", range(3))
    def test_low_rank_is_recovered(self, seed, gaussian, assert_close):
        A = gaussian(60, 4) @ gaussian(4, 50, seed=1)
        found = ssvd(A, 9, 18, seed)
        assert_close(found.to_dense(), A, tol=1e-10)
        assert_close(found.S[:4], np.linalg.svd(A.numpy())[1][:4], tol=1e-10)

    @pytest.mark.parametrize("k", [1, 5, 8])
    def test_truncated(self, k, gaussian, assert_close):
        found = ssvd(gaussian(50, 40), 8, 20, seed=3)
        U, S, Vh = np.linalg.svd(found.to_dense().numpy())
        truncated = found.truncated(k)
        assert_close(truncated.to_dense(), (U[:, :k] * S[:k]) @ Vh[:k], tol=1e-10)
        assert truncated.S.shape == (k,)

    def test_orthonormal_bases(self, gaussian, assert_close):
        found = ssvd(gaussian(50, 40), 8, 20, seed=3)
        left, right = found.Q_left @ found.U, found.Vh @ found.Q_right.T
        assert_close(left.T @ left, torch.eye(8, dtype=F64), tol=1e-10)
        assert_close(right @ right.T, torch.eye(8, dtype=F64), tol=1e-10)

    def test_number_of_products(self, gaussian):
        op = Counting(gaussian(50, 40))
        ssvd(op, 8, 20, seed=3)
        assert sum(op.left) == 8 + 20
        assert sum(op.right) == 8

    @pytest.mark.parametrize(
        ("batch_size", "budget"), [(1, None), (7, None), (64, 20_000), (64, 40_000)]
    )
    def test_blocks_and_budgets_do_not_matter(self, batch_size, budget, gaussian, assert_close):
        A = gaussian(50, 40)
        found = ssvd(A, 8, 20, 3, batch_size=batch_size, memory_budget=budget)
        assert_close(found.to_dense(), ssvd(A, 8, 20, 3).to_dense(), tol=1e-10)

    def test_small_budgets_make_small_blocks(self, gaussian):
        op = Counting(gaussian(50, 40))
        ssvd(op, 8, 20, 3, memory_budget=20_000)
        assert max(op.left + op.right) < 8

    def test_a_budget_that_holds_nothing_names_what_is_needed(self, gaussian):
        with pytest.raises(InputError, match=r"8 outer and 20 inner .* 50 x 40 .* is 5 KB"):
            ssvd(gaussian(50, 40), 8, 20, 3, memory_budget=5_000)

    def test_single_precision_operators(self, gaussian, assert_close):
        A = SynthMat.exp_decay((50, 40), 6, 0.2, symmetric=False, seed=21)
        found, expected = ssvd(A.float(), 8, 20, 3, dtype=torch.float32), ssvd(A, 8, 20, 3)
        assert_close(found.S.double(), expected.S, tol=1e-4)


SIZES = [
    ((10, 10), 6, 5, "outer=6, inner=5"),
    ((10, 10), 5, 11, "outer=5, inner=11"),
    ((10, 10), 0, 5, "outer=0, inner=5"),
    ((10, 10), -2, 5, "outer=-2, inner=5"),
]
SIZE_IDS = ["outer>inner", "inner>D", "no-outer", "negative-outer"]


@pytest.mark.parametrize("solve", [seigh, ssvd], ids=["seigh", "ssvd"])
class TestBothRaise:
    @pytest.mark.parametrize(("shape", "outer", "inner", "match"), SIZES, ids=SIZE_IDS)
    def test_impossible_sizes(self, solve, shape, outer, inner, match):
        with pytest.raises(InputError, match=match):
            solve(torch.ones(shape, dtype=F64), outer, inner, 0)

    def test_zero(self, solve):
        with pytest.raises(NumericalError, match="all zero"):
            solve(torch.zeros(20, 20, dtype=F64), 5, 10, 0)

    @pytest.mark.parametrize("bad", [np.nan, np.inf], ids=str)
    def test_not_finite(self, solve, bad):
        A = torch.eye(20, dtype=F64)
        A[3, 4] = bad
        with pytest.raises(NumericalError, match="NaN or infinite"):
            solve(A, 5, 10, 0)

    @pytest.mark.parametrize("batch_size", [-1, 0])
    def test_no_blocks(self, solve, batch_size):
        with pytest.raises(InputError, match=f"at least 1, got {batch_size}"):
            solve(torch.eye(10, dtype=F64), 2, 4, 0, batch_size=batch_size)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("rank", [1, 10])
def test_seigh_of_low_rank_returns_that_rank(rank, dtype, caplog):
    """It returned 60 pairs, of which 50 were round-off."""
    U = torch.linalg.qr(gaussian_noise((500, rank), 3)).Q
    S = torch.linspace(1, 0.1, rank, dtype=torch.float64) * (-1) ** torch.arange(rank)
    op = ((U * S) @ U.T).to(dtype)
    found = seigh(op, 60, 120, seed=1, dtype=dtype)
    assert len(found.S) == found.diagnostics["numerical_rank"] == rank
    assert f"numerical rank {rank}: fewer than the 60 pairs" in caplog.text
    tolerance = 1e-5 if dtype == torch.float32 else 1e-12
    torch.testing.assert_close(found.S, S, rtol=tolerance, atol=tolerance)


def test_seigh_of_a_rectangle_raises():
    with pytest.raises(InputError, match=r"square operator, got shape \(10, 9\)"):
        seigh(torch.ones(10, 9, dtype=F64), 2, 4, 0)


def test_ssvd_is_limited_by_the_smaller_side():
    with pytest.raises(InputError, match="inner <= 9"):
        ssvd(torch.ones(10, 9, dtype=F64), 2, 10, 0)


RECOVERIES = {
    "seigh": lambda H, **seed: seigh(H, 5, 10, **seed),
    "ssvd": lambda H, **seed: ssvd(H, 5, 10, **seed),
    "hmt": lambda H, **seed: hmt(H, 10, **seed),
    "nystrom": lambda H, **seed: nystrom(H, 5, num_products=15, **seed),
    "block_krylov": lambda H, **seed: block_krylov(H, 5, num_rounds=2, **seed),
}


@pytest.mark.parametrize("recover", RECOVERIES.values(), ids=RECOVERIES)
def test_without_a_seed_it_is_zero(recover):
    """Numbers that were published without a seed can be had again."""
    H = SynthMat.exp_decay((60, 60), 6, 0.15, seed=21)
    S = recover(H).S
    torch.testing.assert_close(S, recover(H, seed=0).S, rtol=0, atol=1e-9)
    assert (S - recover(H, seed=1).S).abs().max() > 1e-3
