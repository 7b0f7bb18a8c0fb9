"""The damped Nystrom approximation against dense NumPy oracles, and where it degenerates."""

from __future__ import annotations

import h5py
import numpy as np
import pytest
import torch

from skerch import nystrom, seigh
from skerch.core.nystrom import LEAST_KEPT, budget_beside_core, core_bytes, solve_nystrom
from skerch.core.row_blocks import RowBlocks
from skerch.decompositions import hmt
from skerch.ssrft import SSRFT
from skerch.synthmat import SynthMat
from skerch.utils import InputError, NumericalError

pytestmark = pytest.mark.numerical

F32, F64 = torch.float32, torch.float64
D, RANK, NUM, SEED = 200, 20, 48, 3
#: Bases come from a Gram matrix of condition 1e8 at most.
ORTHONORMAL = 1e-7
SLOW_DECAY = {
    "poly 1": lambda: SynthMat.poly_decay((D, D), 1, 1.0, seed=21, psd=False),
    "poly 0.7": lambda: SynthMat.poly_decay((D, D), 5, 0.7, seed=22, psd=False),
    "exp": lambda: SynthMat.exp_decay((D, D), 1, 0.03, seed=21, psd=False),
}
each_slow_decay = pytest.mark.parametrize("make", SLOW_DECAY.values(), ids=SLOW_DECAY)


def dense(eigh):
    V = eigh.vectors()
    return (V * eigh.S) @ V.T


def deviation(eigh):
    V = eigh.vectors()
    return float((V.T @ V - torch.eye(V.shape[1], dtype=F64)).abs().max())


def by_magnitude(eigenvalues):
    return eigenvalues[np.argsort(-np.abs(eigenvalues), kind="stable")]


def damped(H, X, r):
    """``Y B_r^+ Y^T`` by NumPy."""
    Y = H @ X
    S, U = np.linalg.eigh(X.T @ Y)
    order = np.argsort(-np.abs(S))
    Y, S = Y @ U[:, order], S[order]
    limit = S[r] if r < len(S) else 0.0
    return (Y * (S**3 / (S**4 + limit**4))) @ Y.T


def error(H, eigh):
    return float((H - dense(eigh)).norm() / H.norm())


class TestAgainstDense:
    @each_slow_decay
    def test_it_is_the_formula(self, make, dense_ssrft, assert_close):
        H = make()
        found = nystrom(H, NUM, SEED, NUM)
        r = found.diagnostics["core_rank"]
        expected = damped(H.numpy(), dense_ssrft((NUM, D), SEED + 1).numpy().T, r)
        S, V = np.linalg.eigh(expected)
        order = np.argsort(-np.abs(S))[:r]
        assert_close(found.S, S[order], tol=1e-10)
        assert_close(dense(found), (V[:, order] * S[order]) @ V[:, order].T, tol=1e-10)
        assert deviation(found) < ORTHONORMAL

    @each_slow_decay
    @pytest.mark.parametrize("seed", range(3))
    def test_the_rank_of_the_core_is_close_to_the_best_one(self, make, seed, dense_ssrft):
        H = make()
        found = nystrom(H, RANK, seed, NUM)
        X = dense_ssrft((NUM, D), seed + 1).numpy().T

        def error_of(r):
            S, V = np.linalg.eigh(damped(H.numpy(), X, r))
            kept = np.argsort(-np.abs(S))[:RANK]
            return np.linalg.norm(H.numpy() - (V[:, kept] * S[kept]) @ V[:, kept].T)

        best = min(error_of(r) for r in range(RANK, NUM + 1))
        assert error(H, found) <= 1.15 * best / float(H.norm())

    @each_slow_decay
    def test_what_was_held_out_tells_the_error(self, make):
        """Of the approximation from 3/4 of the products, hence somewhat more than the error."""
        H = make()
        found = nystrom(H, NUM, SEED, NUM)
        assert 0.8 < found.diagnostics["held_out_error"] / error(H, found) < 2.5

    @each_slow_decay
    def test_one_pass_beats_another_one_at_as_many_products(self, make):
        H = make()
        pairs = [
            (error(H, nystrom(H, RANK, seed, 2 * RANK)), error(H, seigh(H, RANK, 2 * RANK, seed)))
            for seed in range(5)
        ]
        assert np.mean([own for own, _ in pairs]) < np.mean([other for _, other in pairs])

    @pytest.mark.parametrize("sign", [1, -1], ids=["positive", "negative"])
    def test_nothing_is_cut_of_semi_definite_operators(self, sign, dense_ssrft, assert_close):
        H = sign * SynthMat.poly_decay((D, D), 1, 1.0, seed=21)
        found = nystrom(H, RANK, SEED, NUM)
        assert found.diagnostics["core_rank"] == NUM
        assert found.diagnostics["semi_definite"] == "yes"
        expected = damped(H.numpy(), dense_ssrft((NUM, D), SEED + 1).numpy().T, NUM)
        assert_close(found.S, by_magnitude(np.linalg.eigvalsh(expected))[:RANK], tol=1e-11)


class TestOnDisk:
    @pytest.mark.parametrize(("dtype", "tol"), [(F64, 1e-11), (F32, 1e-4)], ids=["f64", "f32"])
    @pytest.mark.parametrize("budget", [10**6, 60_000], ids=["rows", "few-rows"])
    def test_as_in_memory(self, tmp_path, dtype, tol, budget, assert_close):
        H = SLOW_DECAY["poly 1"]().to(dtype)
        Psi = SSRFT((NUM, D), SEED + 1)
        expected = nystrom(H, RANK, SEED, NUM, dtype)
        with h5py.File(tmp_path / "products.h5", "w") as file:
            file["data"] = (H @ Psi.rows(range(NUM), dtype).T).numpy()
            found = solve_nystrom(RowBlocks(file["data"], budget), Psi, RANK)
            assert_close(found.S, expected.S, tol=tol)
            assert_close(dense(found), dense(expected), tol=tol)
            assert deviation(found) < ORTHONORMAL

    def test_a_core_that_does_not_fit_is_refused(self):
        assert budget_beside_core(core_bytes(100) + 1000, 100) == 1000
        with pytest.raises(InputError, match="about 99 products would fit"):
            budget_beside_core(core_bytes(99) + 8, 100)


class TestDegenerate:
    @pytest.mark.parametrize("dtype", [F32, F64], ids=str)
    @pytest.mark.parametrize(
        "eigenvalues",
        [[-1.0], [1.0, -1.0], [5.0, -1e-3], [3.0, -3.0, 1.0, 1.0, -1.0, -1.0], [2.0] * 5],
        ids=["negative", "both", "slightly", "equal magnitudes", "repeated"],
    )
    def test_low_rank(self, mixed_sign, eigenvalues, dtype):
        H = mixed_sign(D, eigenvalues)
        found = nystrom(H.to(dtype), RANK, SEED, dtype=dtype)
        tol = 1e-11 if dtype == F64 else 2e-4
        assert len(found.S) == found.diagnostics["numerical_rank"] == len(eigenvalues)
        expected = torch.tensor(eigenvalues, dtype=F64).sort().values
        torch.testing.assert_close(found.S.sort().values, expected, rtol=0, atol=tol)
        torch.testing.assert_close(dense(found), H, rtol=0, atol=tol)
        assert deviation(found) < ORTHONORMAL

    @pytest.mark.parametrize("rank", [1, 20, 50])
    def test_as_many_products_as_dimensions_are_exact(self, rank, assert_close):
        H = SynthMat.poly_decay((50, 50), 1, 1.0, seed=2, psd=False)
        found = nystrom(H, rank, SEED, 50)
        assert_close(found.S, by_magnitude(np.linalg.eigvalsh(H.numpy()))[:rank], tol=1e-9)

    @pytest.mark.parametrize("seed", range(10))
    def test_as_many_products_as_pairs_invert_no_cancellation(self, seed, caplog):
        """The plain formula gives errors of many times the operator; fewer pairs are a warning."""
        H = SLOW_DECAY["poly 1"]()
        found = nystrom(H, 40, seed, 40)
        assert LEAST_KEPT * 40 <= len(found.S) <= 40
        assert error(H, found) < 1
        if len(found.S) < 40:
            assert "fewer than the 40 pairs" in caplog.text

    def test_one_product(self):
        H = torch.diag(torch.tensor([2.0, 1.0], dtype=F64))
        assert len(nystrom(H, 1, SEED, 1).S) == 1

    def test_a_zero_operator_has_no_range(self):
        with pytest.raises(NumericalError, match=r"^the products are all zero.*no range$"):
            nystrom(torch.zeros(D, D), 3)

    @pytest.mark.parametrize("bad", [float("nan"), float("inf")])
    def test_products_that_are_not_finite(self, bad):
        Y = hmt(SLOW_DECAY["exp"](), 8).Y.matmul(torch.eye(8, dtype=F64))
        Y[17, 3] = bad
        with pytest.raises(NumericalError, match=r"products: .* NaN or infinite"):
            solve_nystrom(RowBlocks(Y), SSRFT((8, D), 1), 4)

    @pytest.mark.parametrize(("shape", "rank"), [((7, D), 4), ((8, D - 1), 4), ((8, D), 9)])
    def test_what_does_not_fit_is_refused(self, shape, rank):
        with pytest.raises(InputError, match=r"expected Y \[D, n\]"):
            solve_nystrom(RowBlocks(torch.ones(D, 8)), SSRFT(shape, 1), rank)
