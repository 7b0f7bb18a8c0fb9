from __future__ import annotations

import re
from dataclasses import replace

import h5py
import numpy as np
import pytest
import scipy.linalg
import torch

from skerch.a_priori import check_sizes
from skerch.core.orthogonal import (
    MIN_DIRECTION,
    cholesky_qr,
    householder_basis,
    orthogonalize,
    tsqr,
)
from skerch.core.row_blocks import RowBlocks
from skerch.core.sketch import (
    apply_ssrft_to_columns,
    budget_beside_core,
    core_pinv_solve,
    solve_core_seigh,
    solve_core_ssvd,
)
from skerch.linops import SymmetricLinOp, adjoint_mismatch
from skerch.results import Eigh, truncate_core
from skerch.ssrft import SSRFT, work_bytes
from skerch.store.layout import create_hdf5_layout
from skerch.utils import InputError, NumericalError, gaussian_noise
from tests.published_core import published_core

pytestmark = pytest.mark.numerical

F32, F64 = torch.float32, torch.float64
D, N = 300, 16
#: Share of the measurements that rank decisions may drop: a few roundings of the stored dtype.
OUTSIDE = {F32: 5e-6, F64: 1e-12}
DTYPES = pytest.mark.parametrize("dtype", [F32, F64], ids=["f32", "f64"])
SKETCHED = pytest.mark.parametrize("sketched", [True, False], ids=["sketch", "no-sketch"])


def budget_of(rows, columns=N):
    """Bytes in which blocks of ``rows`` rows fit."""
    return RowBlocks.WORKING_COPIES * 8 * columns * rows


def basis(Y, factor):
    return torch.as_tensor(Y, dtype=F64) @ factor.T


def orthonormality(Q):
    return float((Q.T @ Q - torch.eye(Q.shape[1], dtype=F64)).norm())


def missed(Q, Y):
    """The part of ``Y`` outside the range of ``Q``, relative to ``Y``."""
    Y = Y.double()
    return float((Y - Q @ (Q.T @ Y)).norm() / Y.norm())


@pytest.fixture
def decaying(gaussian):
    """``decaying(decades, dtype)``: columns that fall by so many powers of ten."""

    def make(decades, dtype=F64):
        return (gaussian(D, N) * torch.logspace(0, -decades, N, dtype=F64)).to(dtype)

    return make


@pytest.fixture
def sketch_of(dense_ssrft):
    """``sketch_of(Y)``: ``Phi Y`` with twice as many rows as columns, in the dtype of ``Y``."""
    return lambda Y: (dense_ssrft((2 * Y.shape[1], len(Y)), 3) @ Y.double()).to(Y.dtype)


def make_deficient(kind, gaussian):
    """Return ``Y`` of rank ``N - 3``."""
    Y = gaussian(D, N)
    if kind == "duplicated-columns":
        Y[:, 5:8] = Y[:, :3]
    elif kind == "zero-columns":
        Y[:, [0, 4, 15]] = 0
    elif kind == "sums-of-columns":
        Y[:, -3:] = Y[:, :-3] @ gaussian(N - 3, 3, seed=1)
    return Y


DEFICIENT = pytest.mark.parametrize(
    "kind", ["duplicated-columns", "zero-columns", "sums-of-columns"]
)


class TestOrthogonalize:
    @DTYPES
    @SKETCHED
    @pytest.mark.parametrize("decades", [0, 4, 7, 10])
    def test_orthonormal_whatever_the_decay(self, decades, dtype, sketched, decaying, sketch_of):
        Y = decaying(decades, dtype)
        factor = orthogonalize(RowBlocks(Y), sketch_of(Y) if sketched else None)
        Q = basis(Y, factor)
        assert orthonormality(Q) < 1e-10
        assert missed(Q, Y) < OUTSIDE[dtype]

    @DTYPES
    @pytest.mark.parametrize("decades", [0, 4, 7, 10])
    def test_the_sketch_keeps_every_column(self, decades, dtype, decaying, sketch_of):
        Y = decaying(decades, dtype)
        factor = orthogonalize(RowBlocks(Y), sketch_of(Y))
        Q = basis(Y, factor)
        assert (factor.method, factor.T.shape) == ("cholesky_qr", (N, N))
        # Column by column, so that the small ones count as much as the large ones.
        assert missed(Q, Y.double() / Y.double().norm(dim=0)) < 1e-12
        assert factor.condition < 100

    @pytest.mark.parametrize("decades", [4, 7, 10])
    def test_rotated_decay_loses_no_more_than_its_condition(
        self, decades, decaying, orthonormal, sketch_of
    ):
        # Q = Y T is evaluated in float64, hence off by about cond(Y) eps: no T does better.
        Y = decaying(decades) @ orthonormal(N, N, seed=2)
        factor = orthogonalize(RowBlocks(Y), sketch_of(Y))
        assert orthonormality(basis(Y, factor)) < 100 * 2.0**-52 * 10.0**decades

    def test_it_is_the_triangular_factor_of_qr(self, gaussian, sketch_of, assert_close):
        Y = gaussian(D, N)
        R = np.linalg.qr(Y.numpy())[1]
        T = orthogonalize(RowBlocks(Y), sketch_of(Y)).T
        assert_close(T.abs(), np.abs(np.linalg.inv(R)), tol=1e-12)
        assert float(T.tril(-1).abs().max()) < 1e-15

    @DTYPES
    @SKETCHED
    @DEFICIENT
    def test_rank_deficiency(self, kind, sketched, dtype, gaussian, sketch_of, caplog):
        Y = make_deficient(kind, gaussian).to(dtype)
        factor = orthogonalize(RowBlocks(Y), sketch_of(Y) if sketched else None)
        Q = basis(Y, factor)
        assert missed(Q, Y) < OUTSIDE[dtype]
        if (kind, dtype, sketched) == ("sums-of-columns", F32, True):
            # Full rank by the roundings to float32, of condition 1e8, which times eps is allowed.
            assert (factor.method, Q.shape) == ("cholesky_qr", (D, N))
            assert orthonormality(Q) < 1e-7
        else:
            assert (factor.method, Q.shape) == ("tsqr", (D, N - 3))
            assert orthonormality(Q) < 1e-10
            assert "numerical rank 13 of 16" in caplog.text

    @pytest.mark.parametrize("seed", range(30))
    @pytest.mark.parametrize("decades", [0.2, 0.3, 0.4, 0.6, 1.0])
    def test_tsqr_is_orthonormal_however_fast_the_decay(self, decades, seed):
        """In float64: ``10^(-0.4 i)`` gave 0.34 when the basis was orthogonalised only once."""
        n = 40
        condition = min(10.0 ** (decades * (n - 1)), 1 / MIN_DIRECTION)
        U, V = (torch.linalg.qr(gaussian_noise((m, n), seed + m)).Q for m in (300, n))
        Y = (U * 10.0 ** (-decades * torch.arange(n, dtype=F64))) @ V.T
        Q = basis(Y, tsqr(RowBlocks(Y)))
        # Over 30 seeds, kernels and threads at most a fifth of that.
        assert orthonormality(Q) < n**0.5 * torch.finfo(F64).eps * condition
        # What was dropped is what the docstring says: nothing larger than 1e-11, relatively.
        outside = Y - Q @ torch.linalg.lstsq(Q, Y).solution
        assert float(outside.norm()) < 1e-10 * float(Y.norm())

    @DEFICIENT
    def test_the_fallback_is_announced(self, kind, gaussian, sketch_of, caplog):
        Y = make_deficient(kind, gaussian)
        factor = orthogonalize(RowBlocks(Y), sketch_of(Y))
        assert factor.method == "tsqr"
        assert "falling back from Cholesky QR to TSQR" in caplog.text

    @DEFICIENT
    def test_cholesky_qr_declines_what_it_cannot_do(self, kind, gaussian, sketch_of):
        Y = make_deficient(kind, gaussian)
        assert cholesky_qr(RowBlocks(Y), sketch_of(Y)) is None

    @DTYPES
    def test_cholesky_qr_declines_a_sketch_of_something_else(self, dtype, decaying, sketch_of):
        other = sketch_of(decaying(0))
        assert cholesky_qr(RowBlocks(decaying(10, dtype)), other) is None

    @pytest.mark.parametrize(
        ("dtype", "decades", "preconditioned"),
        [(F32, 1, False), (F32, 2, False), (F32, 4, True), (F64, 1, True)],
    )
    def test_well_conditioned_columns_need_no_preconditioner(
        self, dtype, decades, preconditioned, decaying, orthonormal, sketch_of
    ):
        Y = (decaying(decades) @ orthonormal(N, N, seed=2)).to(dtype)
        factor = cholesky_qr(RowBlocks(Y), sketch_of(Y))
        own = float(torch.linalg.cond(Y.double())) ** 2
        assert factor.condition == pytest.approx(own, rel=1e-6) or preconditioned
        assert factor.condition < 100 or not preconditioned
        assert orthonormality(basis(Y, factor)) < (1e-10 if dtype is F32 else 1e-13)
        assert float(factor.T.tril(-1).abs().max()) < 1e-12

    @DTYPES
    @pytest.mark.parametrize("rows", [1, 7, 50, 299])
    def test_budgets_do_not_matter_with_a_sketch(
        self, rows, dtype, decaying, sketch_of, assert_close
    ):
        Y = decaying(4, dtype)
        expected = orthogonalize(RowBlocks(Y), sketch_of(Y)).T
        found = orthogonalize(RowBlocks(Y, budget_of(rows)), sketch_of(Y)).T
        assert_close(found, expected, tol=1e-10)

    @DTYPES
    @pytest.mark.parametrize("rows", [1, 7, 50, 299])
    def test_budgets_do_not_matter_without_a_sketch(self, rows, dtype, decaying, assert_close):
        Y = decaying(4, dtype)
        expected, found = tsqr(RowBlocks(Y)).T, tsqr(RowBlocks(Y, budget_of(rows))).T
        # Its columns are singular vectors, which have no sign of their own.
        assert_close(found * (found * expected).sum(0).sign(), expected, tol=1e-10)

    @pytest.mark.parametrize("rows", [7, 300])
    @SKETCHED
    def test_on_disk_as_in_memory(
        self, rows, sketched, decaying, sketch_of, tmp_path, assert_close
    ):
        Y = decaying(4, F32)
        sketch = sketch_of(Y) if sketched else None
        with h5py.File(tmp_path / "Y.h5", "w") as file:
            stored = RowBlocks(file.create_dataset("data", data=Y.numpy()), budget_of(rows))
            found = orthogonalize(stored, sketch)
        expected = orthogonalize(RowBlocks(Y, budget_of(rows)), sketch)
        # Without a sketch, columns are singular vectors, which have no sign of their own.
        signs = (found.T * expected.T).sum(0).sign()
        assert_close(found.T * signs, expected.T, tol=1e-12)
        assert found.method == expected.method

    @SKETCHED
    def test_zero_raises(self, sketched, sketch_of):
        Y = torch.zeros(D, N, dtype=F64)
        with pytest.raises(NumericalError, match="all zero"):
            orthogonalize(RowBlocks(Y), sketch_of(Y) if sketched else None)

    @SKETCHED
    @pytest.mark.parametrize("bad", [np.nan, np.inf], ids=str)
    def test_values_that_are_not_finite_raise(self, sketched, bad, gaussian, sketch_of):
        Y = gaussian(D, N)
        sketch = sketch_of(Y) if sketched else None
        Y[200, 3] = bad
        with pytest.raises(NumericalError, match=r"outer measurements.*NaN or infinite"):
            orthogonalize(RowBlocks(Y), sketch)


class TestHouseholderBasis:
    """Against LAPACK's QR of the whole matrix."""

    PIVOTING = pytest.mark.parametrize("pivoting", [True, False], ids=["pivoted", "plain"])

    @staticmethod
    def lapack(Y, pivoting):
        return torch.from_numpy(
            scipy.linalg.qr(Y.double().numpy(), mode="economic", pivoting=pivoting)[0]
        )

    @PIVOTING
    @DTYPES
    @SKETCHED
    @pytest.mark.parametrize("decades", [0, 2, 4])
    def test_columns_up_to_signs(
        self, decades, sketched, dtype, pivoting, decaying, orthonormal, sketch_of, assert_close
    ):
        # Rotated, so that no column is the largest by construction.
        Y = (decaying(decades) @ orthonormal(N, N, seed=2)).to(dtype)
        factor = orthogonalize(RowBlocks(Y), sketch_of(Y) if sketched else None)
        assert factor.method == ("cholesky_qr" if sketched else "tsqr")
        factor = householder_basis(factor, pivoting)
        Q, expected = basis(Y, factor), self.lapack(Y, pivoting)
        assert_close(Q * (Q * expected).sum(0).sign(), expected, tol=1e-10)
        assert_close(Q @ factor.R, Y.double(), tol=1e-10)

    def test_both_bases_differ(self, decaying, orthonormal, sketch_of):
        Y = decaying(2) @ orthonormal(N, N, seed=2)
        factor = orthogonalize(RowBlocks(Y), sketch_of(Y))
        plain, pivoted = (basis(Y, householder_basis(factor, p)) for p in (False, True))
        assert float((plain * pivoted).sum(0).abs().min()) < 0.5

    @PIVOTING
    @DEFICIENT
    def test_of_dependent_columns_the_range_remains(self, kind, pivoting, gaussian, sketch_of):
        Y = make_deficient(kind, gaussian)
        factor = householder_basis(orthogonalize(RowBlocks(Y), sketch_of(Y)), pivoting)
        Q = basis(Y, factor)
        assert Q.shape == (D, N - 3)
        assert orthonormality(Q) < 1e-10
        assert missed(Q, Y) < OUTSIDE[F64]

    @DEFICIENT
    def test_the_pivots_of_dependent_columns(self, kind, gaussian, sketch_of, assert_close):
        Y = make_deficient(kind, gaussian)
        Q = basis(Y, householder_basis(orthogonalize(RowBlocks(Y), sketch_of(Y)), True))
        expected = self.lapack(Y, True)[:, : N - 3]
        assert_close(Q * (Q * expected).sum(0).sign(), expected, tol=1e-10)


class TestCorePinvSolve:
    @pytest.mark.parametrize(
        ("inner", "rank"), [(20, 8), (8, 8), (5, 1)], ids=["tall", "square", "rank-one"]
    )
    def test_against_dense_pseudo_inverses(self, inner, rank, gaussian, assert_close):
        left, right, W = (
            gaussian(inner, rank),
            gaussian(inner, rank, seed=1),
            gaussian(inner, inner),
        )
        expected = np.linalg.pinv(left.numpy()) @ W.numpy() @ np.linalg.pinv(right.numpy()).T
        assert_close(core_pinv_solve(left, W, right), expected)

    def test_an_exact_core_is_recovered(self, gaussian, assert_close):
        left, right, core = gaussian(20, 8), gaussian(20, 8, seed=1), gaussian(8, 8)
        assert_close(core_pinv_solve(left, left @ core @ right.T, right), core)


def columns_bytes(num):
    """Bytes of columns ``[40]`` and of what is made of them."""
    return 8 * 40 * num + work_bytes(40, num, F64)


class TestApplySsrftToColumns:
    @pytest.mark.parametrize("columns", [1, 3, 5, 70])
    @pytest.mark.parametrize("batch", [1, 2, 64, None], ids=str)
    def test_against_a_dense_product(self, columns, batch, gaussian, dense_ssrft, assert_close):
        Y = gaussian(40, columns)
        least = max(columns_bytes(batch or 1), budget_of(1, columns))
        budget = None if batch is None else least
        found = apply_ssrft_to_columns(SSRFT((10, 40), 6), RowBlocks(Y, budget))
        assert_close(found, dense_ssrft((10, 40), 6) @ Y)

    @pytest.mark.parametrize("dtype", ["f4", "f8"])
    @pytest.mark.parametrize("columns", [1, 7])
    def test_from_disk(self, columns, dtype, gaussian, dense_ssrft, assert_close, tmp_path):
        Y = gaussian(40, columns).float().double()
        # One column, its transform, and reading it by single rows.
        budget = columns_bytes(1) + budget_of(1, columns)
        with h5py.File(tmp_path / "Y.h5", "w") as file:
            stored = RowBlocks(file.create_dataset("data", data=Y.numpy(), dtype=dtype), budget)
            stored.block_rows = 1
            found = apply_ssrft_to_columns(SSRFT((10, 40), 6), stored)
        assert_close(found, dense_ssrft((10, 40), 6) @ Y, tol=1e-5 if dtype == "f4" else None)

    @pytest.mark.parametrize(
        ("batch", "widths"),
        [(1, [1] * 5), (2, [2, 2, 1]), (5, [5]), (64, [5])],
        ids=["one", "two", "all", "more"],
    )
    def test_as_many_columns_at_once_as_fit(self, batch, widths, gaussian):
        seen = []

        class Recording(SSRFT):
            def _matmat(self, X):
                seen.append(X.shape[1])
                return super()._matmat(X)

        budget = int((columns_bytes(batch + 1) - 1) / 0.7)
        apply_ssrft_to_columns(Recording((10, 40), 6), RowBlocks(gaussian(40, 5), budget))
        assert seen == widths

    def test_single_precision_is_answered_in_double(self, gaussian, dense_ssrft, assert_close):
        Y = gaussian(40, 5)
        found = apply_ssrft_to_columns(SSRFT((10, 40), 6), RowBlocks(Y.float()))
        assert found.dtype == F64
        assert_close(found, dense_ssrft((10, 40), 6) @ Y, tol=1e-5)

    def test_a_budget_that_holds_no_column_names_what_is_needed(self, gaussian):
        S, needed = SSRFT((10, 40), 6), columns_bytes(1)
        with pytest.raises(InputError, match=rf"one column.* needs {needed} bytes"):
            apply_ssrft_to_columns(S, RowBlocks(gaussian(40, 5), needed - 1))
        assert apply_ssrft_to_columns(S, RowBlocks(gaussian(40, 5), needed)).shape == (10, 5)


class TestBudgetBesideCore:
    def test_what_is_left(self):
        assert budget_beside_core(10**6, 10, 20) == 10**6 - 8 * 20**2

    def test_too_little_says_what_is_needed_and_what_would_fit(self):
        needed = 8 * (2 * 2000**2 + 6 * 2000 * 1000)
        assert budget_beside_core(needed, 1000, 2000) == needed - 8 * 2000**2
        message = "1000 outer and 2000 inner .* needs 160 MB.* is 40 MB; about 1000 inner ones"
        with pytest.raises(InputError, match=message):
            budget_beside_core(needed // 4, 1000, 2000)


class TestEigh:
    S = torch.tensor([3.0, -2.0, 1.0, -0.5], dtype=F64)

    @pytest.fixture(params=["in-memory", "on-disk"])
    def pair(self, request, gaussian, orthonormal, tmp_path):
        """An approximation ``[60, 60]`` of rank 4, and its dense eigenvectors."""
        Y, U = gaussian(60, 4), orthonormal(4, 4, seed=1)
        Q, R = np.linalg.qr(Y.numpy())
        T = torch.as_tensor(np.linalg.inv(R))
        V = torch.as_tensor(Q) @ U
        if request.param == "in-memory":
            yield Eigh(self.S, U, RowBlocks(Y, budget_of(7, 4)), T), V
            return
        with h5py.File(tmp_path / "Y.h5", "w") as file:
            stored = RowBlocks(file.create_dataset("data", data=Y.numpy()), budget_of(7, 4))
            yield Eigh(self.S, U, stored, T), V

    @pytest.mark.parametrize("k", [1, 3, 4, None], ids=str)
    def test_vectors(self, pair, k, assert_close):
        eigh, V = pair
        found = eigh.vectors(k)
        assert_close(found, V[:, :k])
        assert orthonormality(found) < 1e-12

    @pytest.mark.parametrize("idxs", [[0], [59, 3, 17], [4, 4, 1]], ids=str)
    def test_vector_rows(self, pair, idxs, assert_close):
        eigh, V = pair
        assert_close(eigh.vector_rows(torch.tensor(idxs)), V[idxs])

    def test_project(self, pair, gaussian, assert_close):
        eigh, V = pair
        X = gaussian(60, 5)
        assert_close(eigh.project(X), V.T @ X)

    def test_matmul(self, pair, gaussian, assert_close):
        eigh, V = pair
        X = gaussian(60, 5)
        assert_close(eigh @ X, (V * self.S) @ V.T @ X)

    def test_matmul_answers_in_the_dtype_it_is_asked_in(self, pair, gaussian, assert_close):
        eigh, V = pair
        X = gaussian(60, 5).float()
        found = eigh @ X
        assert found.dtype == F32
        assert_close(found, (V * self.S) @ V.T @ X.double())

    def test_adjoint(self, pair):
        assert adjoint_mismatch(SymmetricLinOp(pair[0]), seed=4) < 1e-13

    @pytest.mark.parametrize("k", [1, 3, 4])
    def test_truncated(self, pair, k, gaussian, assert_close):
        eigh, V = pair
        X, truncated = gaussian(60, 5), eigh.truncated(k)
        assert truncated.shape == (60, 60)
        assert torch.equal(truncated.S, self.S[:k])
        assert_close(truncated.vectors(), V[:, :k])
        assert_close(truncated.vector_rows(torch.tensor([7, 2])), V[[7, 2], :k])
        assert_close(truncated @ X, (V[:, :k] * self.S[:k]) @ V[:, :k].T @ X)

    @pytest.mark.parametrize("k", [-1, 0, 5])
    def test_impossible_truncations_raise(self, pair, k):
        with pytest.raises(InputError, match=rf"\[1, 4\], got {k}"):
            pair[0].truncated(k)

    @pytest.mark.parametrize("shape", [(59,), (59, 2), (61, 2), (60, 2, 2)], ids=str)
    def test_wrong_shapes_raise(self, pair, shape):
        with pytest.raises(InputError, match=re.escape(f"X has shape {shape}")):
            pair[0] @ torch.ones(shape, dtype=F64)
        with pytest.raises(InputError, match=re.escape(f"X has shape {shape[::-1]}")):
            torch.ones(shape[::-1], dtype=F64) @ pair[0]


class TestTruncateCore:
    S, U, Vh = torch.arange(3.0), torch.arange(9.0).view(3, 3), -torch.arange(9.0).view(3, 3)

    def test_eigenpairs(self):
        S, U = truncate_core(2, self.S, self.U)
        assert torch.equal(S, self.S[:2])
        assert torch.equal(U, self.U[:, :2])

    def test_singular_triplets(self):
        S, U, Vh = truncate_core(2, self.S, self.U, self.Vh)
        assert torch.equal(S, self.S[:2])
        assert torch.equal(U, self.U[:, :2])
        assert torch.equal(Vh, self.Vh[:2])

    @pytest.mark.parametrize("k", [-1, 0, 4])
    def test_impossible_ranks_raise(self, k):
        with pytest.raises(InputError, match=rf"\[1, 3\], got {k}"):
            truncate_core(k, self.S, self.U)


class TestSolveCoreSeigh:
    """The sketch is made by dense products, so that only the solver is under test."""

    SEED, OUTER, INNER = 9, 12, 24

    @pytest.fixture
    def sketch(self, mixed_sign, gaussian, dense_ssrft):
        """``H`` with noise beyond rank 6, ``Y`` and ``W``."""
        noise = gaussian(80, 80, seed=3)
        H = mixed_sign(80, [5.0, -4.0, 3.0, 2.0, -1.0, 0.5]) + 1e-3 * (noise + noise.T)
        Phi, Psi = (dense_ssrft((self.INNER, 80), self.SEED + i) for i in (0, 1))
        return H, H @ Psi[: self.OUTER].T, Phi @ H @ Psi.T

    @pytest.fixture
    def Psi(self):
        return SSRFT((self.INNER, 80), self.SEED + 1)

    @staticmethod
    def dense(eigh):
        V = eigh.vectors()
        return (V * eigh.S) @ V.T

    @pytest.mark.parametrize("symmetrize", [True, False], ids=["symmetrised", "lower-triangle"])
    def test_against_dense_formulas(self, sketch, Psi, symmetrize, dense_seigh, assert_close):
        H, Y, W = sketch
        eigh = solve_core_seigh(RowBlocks(Y), W, Psi, symmetrize)
        expected = dense_seigh(H, self.OUTER, self.INNER, self.SEED, symmetrize)
        assert_close(self.dense(eigh), expected, tol=1e-10)
        assert orthonormality(eigh.vectors()) < 1e-12
        assert (eigh.S.abs().diff() <= 0).all()

    def test_diagnostics(self, sketch, Psi, dense_ssrft):
        _, Y, W = sketch
        Q = np.linalg.qr(Y.numpy())[0]
        left = dense_ssrft((self.INNER, 80), self.SEED).numpy() @ Q
        right = dense_ssrft((self.INNER, 80), self.SEED + 1).numpy() @ Q
        core = np.linalg.pinv(left) @ W.numpy() @ np.linalg.pinv(right).T
        asymmetry = np.linalg.norm(core - core.T) / np.linalg.norm(core)
        found = solve_core_seigh(RowBlocks(Y), W, Psi).diagnostics
        assert found["core_asymmetry"] == pytest.approx(asymmetry, rel=1e-8)
        assert found["core_condition"] == pytest.approx(np.linalg.cond(left), rel=1e-8)
        assert found["qr_method"] == "cholesky_qr"
        assert 1 <= found["qr_condition"] < 100

    @pytest.mark.parametrize("rows", [64, 70, 200])
    def test_budgets_do_not_matter(self, sketch, Psi, rows, assert_close):
        _, Y, W = sketch
        # One column has to fit as well, which takes more than a few rows here.
        blocks = RowBlocks(Y, budget_of(rows, self.OUTER))
        expected = solve_core_seigh(RowBlocks(Y), W, Psi)
        assert_close(self.dense(solve_core_seigh(blocks, W, Psi)), self.dense(expected), tol=1e-10)

    @pytest.mark.parametrize("dtype", [F32, F64], ids=["f32", "f64"])
    def test_on_disk_as_in_memory(self, sketch, Psi, dtype, tmp_path, assert_close):
        _, Y, W = sketch
        Y, W = Y.to(dtype), W.to(dtype)
        expected = solve_core_seigh(RowBlocks(Y), W, Psi)
        with h5py.File(tmp_path / "Y.h5", "w") as file:
            stored = RowBlocks(file.create_dataset("data", data=Y.numpy()))
            found = solve_core_seigh(stored, W, Psi)
            assert_close(found.S, expected.S, tol=1e-12)
            assert_close(self.dense(found), self.dense(expected), tol=1e-12)

    def test_single_precision_measurements(self, sketch, Psi, assert_close):
        _, Y, W = sketch
        expected = self.dense(solve_core_seigh(RowBlocks(Y), W, Psi))
        eigh = solve_core_seigh(RowBlocks(Y.float()), W.float(), Psi)
        assert eigh.S.dtype == F64
        assert orthonormality(eigh.vectors()) < 1e-10
        assert_close(self.dense(eigh), expected, tol=1e-5)

    @pytest.mark.parametrize(
        ("Y_shape", "W_shape", "Psi_shape"),
        [
            ((80, 12), (24, 23), (24, 80)),
            ((80, 12), (24, 24), (23, 80)),
            ((79, 12), (24, 24), (24, 80)),
            ((80, 25), (24, 24), (24, 80)),
        ],
        ids=["W-rectangle", "Psi-other-rows", "Psi-other-columns", "more-outer-than-inner"],
    )
    def test_shapes_that_do_not_fit_raise(self, Y_shape, W_shape, Psi_shape):
        Y, W = RowBlocks(torch.ones(Y_shape, dtype=F64)), torch.ones(W_shape, dtype=F64)
        with pytest.raises(InputError, match=r"expected Y \[D, n_o\].*got"):
            solve_core_seigh(Y, W, SSRFT(Psi_shape, 1))

    @pytest.mark.parametrize("bad", [np.nan, np.inf], ids=str)
    @pytest.mark.parametrize("where", ["outer", "inner"])
    def test_measurements_that_are_not_finite_raise(self, sketch, Psi, where, bad):
        _, Y, W = sketch
        {"outer": Y, "inner": W}[where][7, 3] = bad
        with pytest.raises(NumericalError, match=f"{where} measurements"):
            solve_core_seigh(RowBlocks(Y), W, Psi)


SPECTRA = {
    "exponential": 10 ** (-torch.arange(300, dtype=F64) / 10),
    "polynomial": (torch.arange(300, dtype=F64) + 1) ** -1,
    "noise": torch.cat([torch.linspace(5, 1, 8, dtype=F64), torch.full((292,), 1e-2, dtype=F64)]),
}


class TestPublishedCore:
    """One triangle, in the basis of the original: pivoted from a store, plain in memory."""

    SEED, OUTER, INNER = 9, 20, 40

    @pytest.fixture(params=SPECTRA)
    def sketch(self, request, orthonormal, dense_ssrft):
        """``Y``, ``W``, ``Phi`` and ``Psi`` of eigenvalues of both signs."""
        signs = torch.where(torch.arange(300) % 3 == 1, -1.0, 1.0)
        V = orthonormal(300, 300, seed=3)
        H = (V * (SPECTRA[request.param] * signs)) @ V.T
        Phi, Psi = (dense_ssrft((self.INNER, 300), self.SEED + i) for i in (0, 1))
        return H @ Psi[: self.OUTER].T, Phi @ H @ Psi.T, Phi, Psi

    def solve(self, Y, W, pivoting, factor=None):
        factor = orthogonalize(RowBlocks(Y), W[:, : self.OUTER]) if factor is None else factor
        factor = householder_basis(factor, pivoting)
        return solve_core_seigh(
            RowBlocks(Y), W, SSRFT((self.INNER, 300), self.SEED + 1), False, factor
        )

    @pytest.mark.parametrize("pivoting", [True, False], ids=["pivoted", "plain"])
    @DTYPES
    def test_against_the_original(self, sketch, pivoting, dtype, assert_close):
        Y, W, Phi, Psi = sketch
        Y, W = Y.to(dtype), W.to(dtype)
        S, V = published_core(Y, W, Phi, Psi, pivoting)
        found = self.solve(Y, W, pivoting)
        scale = float(S.abs().max())
        tol = {F64: 1e-12, F32: 2e-6}[dtype]  # the oracle rounds to the dtype, we do not
        assert_close(found.S / scale, S.double() / scale, tol=tol)
        V = V.double()
        assert_close(self.dense(found) / scale, (V * S.double()) @ V.T / scale, tol=tol)

    @pytest.mark.parametrize("pivoting", [True, False], ids=["pivoted", "plain"])
    def test_vectors(self, sketch, pivoting, assert_close):
        Y, W, Phi, Psi = sketch
        _, V = published_core(Y, W, Phi, Psi, pivoting)
        found = self.solve(Y, W, pivoting).vectors()
        assert_close(found * (found * V).sum(0).sign(), V, tol=1e-9)

    def test_it_depends_on_the_basis(self, sketch):
        Y, W, *_ = sketch
        pivoted, plain = (self.solve(Y, W, pivoting).S for pivoting in (True, False))
        assert float((pivoted - plain).abs().max()) > 1e-3 * float(plain.abs().max())

    def test_signs_of_the_basis_do_not_matter(self, sketch, assert_close):
        Y, W, *_ = sketch
        factor = householder_basis(orthogonalize(RowBlocks(Y), W[:, : self.OUTER]), True)
        signs = torch.where(torch.arange(self.OUTER) % 3 == 0, -1.0, 1.0).double()
        flipped = replace(factor, T=factor.T * signs)
        Psi = SSRFT((self.INNER, 300), self.SEED + 1)
        found, expected = (
            solve_core_seigh(RowBlocks(Y), W, Psi, False, f) for f in (flipped, factor)
        )
        assert_close(found.S, expected.S, tol=1e-13)
        assert_close(self.dense(found), self.dense(expected), tol=1e-13)

    def test_the_default_is_plain_even_where_cholesky_qr_declines(
        self, sketch, monkeypatch, assert_close
    ):
        Y, W, Phi, Psi = sketch
        monkeypatch.setattr("skerch.core.orthogonal.cholesky_qr", lambda *args: None)
        S, _ = published_core(Y, W, Phi, Psi, pivoting=False)
        transform = SSRFT((self.INNER, 300), self.SEED + 1)
        assert_close(solve_core_seigh(RowBlocks(Y), W, transform, False).S, S)

    @staticmethod
    def dense(eigh):
        V = eigh.vectors()
        return (V * eigh.S) @ V.T


class TestSolveCoreSsvd:
    def test_against_dense_formulas(self, gaussian, orthonormal, dense_ssrft, assert_close):
        A, Q_left, Q_right = gaussian(40, 30), orthonormal(40, 5), orthonormal(30, 5, seed=1)
        Phi, Psi = dense_ssrft((10, 40), 2), dense_ssrft((10, 30), 3)
        W = Phi @ A @ Psi.T
        core = np.linalg.pinv((Phi @ Q_left).numpy()) @ W.numpy()
        core = core @ np.linalg.pinv((Psi @ Q_right).numpy()).T
        U, S, Vh = solve_core_ssvd(Q_left, Q_right, W, SSRFT((10, 40), 2), SSRFT((10, 30), 3))
        assert_close((U * S) @ Vh, core)
        assert_close(S, np.linalg.svd(core)[1])

    def test_values_that_are_not_finite_raise(self, orthonormal):
        W = torch.full((10, 10), torch.nan, dtype=F64)
        S = SSRFT((10, 40), 2)
        with pytest.raises(NumericalError, match="inner measurements"):
            solve_core_ssvd(orthonormal(40, 5), orthonormal(40, 5), W, S, S)


class TestCheckSizes:
    @pytest.mark.parametrize(
        ("outer", "inner"), [(1, 1), (1, 6), (6, 6), (3, 5)], ids=lambda x: str(x)
    )
    def test_possible(self, outer, inner):
        check_sizes((8, 6), outer, inner)

    @pytest.mark.parametrize(
        ("outer", "inner"), [(0, 3), (-1, 3), (4, 3), (3, 7), (7, 7)], ids=lambda x: str(x)
    )
    def test_impossible(self, outer, inner):
        match = rf"outer <= inner <= 6 for shape \(8, 6\), got outer={outer}, inner={inner}"
        with pytest.raises(InputError, match=match):
            check_sizes((8, 6), outer, inner)


class TestCreateHdf5Layout:
    """Sizes and directories; what the files hold is for the tests of the store."""

    def test_general(self, tmp_path):
        found = create_hdf5_layout(tmp_path / "new", (9, 8), np.dtype("f4"), 3, 5)
        assert set(found) == {"leftouter", "rightouter", "inner"}
        assert [self.shape_in(found[name]) for name in found] == [(9, 3), (5, 5), (8, 3)]

    def test_symmetric(self, tmp_path):
        found = create_hdf5_layout(tmp_path, (9, 9), np.dtype("f4"), 3, 5, symmetric=True)
        assert set(found) == {"leftouter", "inner"}
        assert not list(tmp_path.glob("rightouter*"))

    @staticmethod
    def shape_in(path):
        with h5py.File(path) as file:
            return file["data"].shape

    @pytest.mark.parametrize(
        ("shape", "outer", "inner", "match"),
        [((9, 9), 4, 3, "outer=4"), ((9, 9), 4, 10, "inner=10"), ((9, 8), 3, 5, "square")],
        ids=["more-outer-than-inner", "more-than-dimensions", "symmetric-rectangle"],
    )
    def test_impossible_sizes_create_nothing(self, tmp_path, shape, outer, inner, match):
        with pytest.raises(InputError, match=match):
            create_hdf5_layout(tmp_path / "new", shape, np.dtype("f4"), outer, inner, True)
        assert not (tmp_path / "new").exists()

    def test_a_directory_in_use_is_left_alone(self, tmp_path):
        (tmp_path / "mine.txt").write_text("precious")
        with pytest.raises(InputError, match="expected a new or an empty directory"):
            create_hdf5_layout(tmp_path, (9, 9), np.dtype("f4"), 3, 5)
        assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]
        assert (tmp_path / "mine.txt").read_text() == "precious"
