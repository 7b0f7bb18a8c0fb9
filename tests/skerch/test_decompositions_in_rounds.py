"""hmt, nystrom and block_krylov against dense NumPy oracles, and where they degenerate."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from skerch.decompositions import block_krylov, hmt, nystrom, seigh
from skerch.synthmat import SynthMat
from skerch.utils import InputError, NumericalError

pytestmark = pytest.mark.numerical

F32, F64 = torch.float32, torch.float64
D, SEED = 200, 3

#: Distinct eigenvalues, because single-vector rounds find one copy of each only.
MATRICES = {
    "exp": lambda: SynthMat.exp_decay((D, D), 1, 0.05, seed=21, psd=False),
    "poly": lambda: SynthMat.poly_decay((D, D), 1, 1.0, seed=21, psd=False),
    "noise": lambda: SynthMat.lowrank_noise((D, D), 1, 1.0, seed=21),
}
RECOVERIES = {
    "hmt": lambda H, **kw: hmt(H, 24, SEED, **kw),
    "krylov-1x40": lambda H, **kw: block_krylov(H, 24, 1, 40, SEED, **kw),
    "krylov-4x12": lambda H, **kw: block_krylov(H, 24, 4, 12, SEED, **kw),
    "krylov-30x1": lambda H, **kw: block_krylov(H, 24, 30, 1, SEED, **kw),
}
ALL = RECOVERIES | {"nystrom": lambda H, **kw: nystrom(H, 24, SEED, 48, **kw)}
each_matrix = pytest.mark.parametrize("make", MATRICES.values(), ids=MATRICES)
each_recovery = pytest.mark.parametrize("recover", RECOVERIES.values(), ids=RECOVERIES)
each_of_all = pytest.mark.parametrize("recover", ALL.values(), ids=ALL)


def dense(eigh):
    V = eigh.vectors()
    return (V * eigh.S) @ V.T


def deviation(eigh):
    V = eigh.vectors()
    return float((V.T @ V - torch.eye(V.shape[1], dtype=F64)).abs().max())


def true_residuals(H, eigh):
    V = eigh.vectors()
    return (H.double() @ V - V * eigh.S).norm(dim=0)


def by_magnitude(eigenvalues):
    return eigenvalues[np.argsort(-np.abs(eigenvalues), kind="stable")]


def dense_ritz(H, Q):
    """Eigenvalues ``[m]`` of the compression of ``H`` to the range of ``Q``, by magnitude."""
    return by_magnitude(np.linalg.eigvalsh(Q.T @ H @ Q))


class Counting:
    """An operator that records the widths of the blocks it is multiplied with."""

    def __init__(self, A):
        self.A, self.shape, self.dtype, self.widths = A, A.shape, A.dtype, []

    def __matmul__(self, X):
        self.widths.append(X.shape[1])
        return self.A @ X


class TestAgainstDense:
    @each_matrix
    @pytest.mark.parametrize(("rounds", "block"), [(1, 40), (4, 12), (12, 3), (30, 1)], ids=str)
    def test_block_krylov_has_the_ritz_values_of_the_krylov_space(
        self, make, rounds, block, dense_ssrft, assert_close
    ):
        H = make()
        Q = dense_ssrft((block, D), SEED + 1).numpy().T
        for _ in range(rounds - 1):
            Q = np.linalg.qr(np.concatenate([Q, H.numpy() @ Q[:, -block:]], axis=1))[0]
        found = block_krylov(H, rounds * block, rounds, block, SEED)
        assert_close(found.S, dense_ritz(H.numpy(), Q), tol=1e-11)

    @each_matrix
    @pytest.mark.parametrize("rank", [1, 10, 40])
    def test_hmt_compresses_to_the_range_of_the_sketch(self, make, rank, dense_ssrft, assert_close):
        H = make()
        Q = np.linalg.qr(H.numpy() @ dense_ssrft((rank, D), SEED + 1).numpy().T)[0]
        found = hmt(H, rank, SEED)
        assert_close(found.S, dense_ritz(H.numpy(), Q), tol=1e-11)
        assert_close(dense(found), Q @ (Q.T @ H.numpy() @ Q) @ Q.T, tol=1e-11)

    @pytest.mark.parametrize("num", [20, 40])
    def test_nystrom_is_the_pseudo_inverse_formula(self, num, dense_ssrft, assert_close):
        H = SynthMat.poly_decay((D, D), 8, 2.0, seed=21)
        X = dense_ssrft((num, D), SEED + 1).numpy().T
        Y = H.numpy() @ X
        expected = Y @ np.linalg.pinv(X.T @ Y) @ Y.T
        found = nystrom(H, num, SEED, num)
        assert_close(dense(found), expected, tol=1e-11)
        assert_close(found.S, by_magnitude(np.linalg.eigvalsh(expected))[:num], tol=1e-11)

    @each_matrix
    @each_recovery
    def test_residual_norms_are_the_true_ones(self, make, recover):
        H = make()
        found = recover(H)
        torch.testing.assert_close(
            found.residual_norms, true_residuals(H, found), rtol=1e-9, atol=1e-13
        )

    @each_matrix
    @each_recovery
    def test_eigenvectors_are_orthonormal_and_sorted(self, make, recover):
        found = recover(make())
        assert found.S.shape == (24,)
        assert deviation(found) < 1e-12
        assert bool((found.S.abs().diff() <= 0).all())

    @pytest.mark.parametrize("recover", [hmt, nystrom], ids=["hmt", "nystrom"])
    def test_all_products_are_exact(self, recover, assert_close):
        H = SynthMat.poly_decay((60, 60), 4, 1.0, seed=2)
        assert_close(dense(recover(H, 60, SEED)), H, tol=1e-10)

    def test_more_rounds_at_equal_products_are_closer_to_the_best(self):
        H = MATRICES["poly"]()
        errors = [
            float((H - dense(eigh)).norm())
            for eigh in (
                seigh(H, 30, 60, SEED),
                hmt(H, 30, SEED),
                block_krylov(H, 30, 2, 30, SEED),
                block_krylov(H, 30, 4, 15, SEED),
                block_krylov(H, 30, 10, 6, SEED),
            )
        ]
        S = np.linalg.eigvalsh(H.numpy())
        best = float(np.linalg.norm(by_magnitude(S)[30:]))
        assert errors == sorted(errors, reverse=True)
        assert errors[-1] < 1.05 * best

    @pytest.mark.parametrize(
        "make",
        [
            lambda: SynthMat.exp_decay((D, D), 8, 0.1, seed=21),
            lambda: SynthMat.poly_decay((D, D), 4, 3.0, seed=21),
        ],
        ids=["exp", "poly"],
    )
    def test_nystrom_and_block_krylov_agree_on_semi_definite_operators(self, make):
        H = make()
        one, other = nystrom(H, 10, SEED, 80), block_krylov(H, 10, 4, 20, SEED)
        torch.testing.assert_close(one.S, other.S, rtol=1e-3, atol=0)


class TestInterface:
    @pytest.fixture
    def H(self):
        return SynthMat.exp_decay((D, D), 1, 0.05, seed=4)

    @each_of_all
    def test_memory_budgets_do_not_matter(self, H, recover, assert_close):
        found, expected = recover(H, memory_budget=30_000), recover(H)
        assert_close(found.S, expected.S, tol=1e-12)
        assert_close(dense(found), dense(expected), tol=1e-11)

    @pytest.mark.parametrize(
        ("recover", "widths"),
        [
            (RECOVERIES["hmt"], [10, 10, 4] * 2),
            (RECOVERIES["krylov-4x12"], [10, 2] * 4),
            (RECOVERIES["krylov-30x1"], [1] * 30),
            (ALL["nystrom"], [10] * 4 + [8]),
        ],
        ids=["hmt", "krylov-4x12", "krylov-30x1", "nystrom"],
    )
    def test_products_are_made_in_batches_and_counted(self, H, recover, widths):
        op = Counting(H)
        found = recover(op, batch_size=10)
        assert op.widths == widths
        assert found.num_products == sum(widths)

    def test_seigh_counts_its_products_and_knows_no_residuals(self, H):
        found = seigh(H, 10, 20, SEED)
        assert found.num_products == 20
        assert found.residual_norms is None

    def test_nystrom_knows_no_residuals_and_takes_twice_the_rank(self, H):
        found = nystrom(H, 10, SEED)
        assert found.num_products == 20
        assert found.residual_norms is None

    @each_of_all
    def test_the_same_seed_gives_the_same_result_whatever_the_generator(self, H, recover):
        torch.manual_seed(3)
        first = recover(H)
        torch.manual_seed(4)
        assert torch.equal(recover(H).S, first.S)

    def test_another_seed_gives_another_result(self, H):
        assert not torch.equal(hmt(H, 10, 0).S, hmt(H, 10, 1).S)

    @each_recovery
    def test_truncation_keeps_what_belongs_to_the_pairs(self, H, recover, assert_close):
        found = recover(H)
        head = found.truncated(5)
        assert torch.equal(head.S, found.S[:5])
        assert torch.equal(head.residual_norms, found.residual_norms[:5])
        assert head.num_products == found.num_products
        assert_close(head.vectors(), found.vectors(5), tol=1e-13)

    @each_of_all
    def test_every_method_of_the_result(self, H, recover, gaussian, assert_close):
        """The core is wider than the number of pairs here."""
        found, X, idxs = recover(H), gaussian(D, 3), torch.tensor([5, 0, 199])
        V = found.vectors()
        assert found.shape == (D, D)
        assert V.shape == (D, 24)
        assert_close(found.vector_rows(idxs), V[idxs], tol=1e-12)
        assert_close(found.project(X), V.T @ X, tol=1e-12)
        assert_close(found @ X, dense(found) @ X, tol=1e-12)

    @pytest.mark.parametrize(
        "call",
        [
            lambda H: hmt(H, 0, 0),
            lambda H: hmt(H, D + 1, 0),
            lambda H: hmt(H[:, :50], 5, 0),
            lambda H: hmt(H, 5, 0, batch_size=0),
            lambda H: nystrom(H, 10, 0, num_products=9),
            lambda H: nystrom(H, 10, 0, num_products=D + 1),
            lambda H: block_krylov(H, 10, 0, 10, 0),
            lambda H: block_krylov(H, 10, 2, 0, 0),
            lambda H: block_krylov(H, 10, 2, 4, 0),
            lambda H: block_krylov(H, 10, 2, D + 1, 0),
            lambda H: block_krylov(H, 0, 2, 10, 0),
        ],
        ids=[
            "no-rank", "rank>D", "not-square", "no-batch", "products<rank", "products>D",
            "no-rounds", "no-block", "columns<rank", "block>D", "krylov-no-rank",
        ],
    )  # fmt: skip
    def test_impossible_sizes(self, H, call):
        with pytest.raises(InputError):
            call(H)

    @each_of_all
    def test_operators_that_break_name_the_measurement(self, H, recover):
        H[7, 7] = torch.nan
        with pytest.raises(NumericalError, match="NaN or infinite"):
            recover(H)


class TestDegenerate:
    @pytest.mark.parametrize("seed", range(3))
    @pytest.mark.parametrize(
        "recover",
        [
            lambda H, seed: hmt(H, 20, seed),
            lambda H, seed: block_krylov(H, 20, 5, 10, seed),
            lambda H, seed: block_krylov(H, 20, 5, 30, seed),
            lambda H, seed: block_krylov(H, 20, 40, 1, seed),
        ],
        ids=["hmt", "krylov", "block-larger-than-the-rank", "single-vectors"],
    )
    @pytest.mark.parametrize(
        "eigenvalues",
        [[5.0, -4.0, 3.0, -2.0, 1.0, -0.5], [-1.0], [1e3, -1.0, 1e-3]],
        ids=["mixed", "one-negative", "six-decades"],
    )
    def test_low_rank_gives_fewer_pairs_and_says_so(
        self, recover, eigenvalues, seed, mixed_sign, assert_close, caplog
    ):
        H = mixed_sign(D, eigenvalues, seed)
        found = recover(H, seed)
        assert_close(found.S, by_magnitude(np.array(eigenvalues)), tol=1e-12)
        assert_close(dense(found), H, tol=1e-11)
        assert found.diagnostics["numerical_rank"] == len(eigenvalues)
        assert f"numerical rank {len(eigenvalues)}: fewer than the 20 pairs" in caplog.text
        assert deviation(found) < 1e-12

    @pytest.mark.parametrize("block", [2, 10, 30])
    def test_an_invariant_basis_ends_the_rounds(self, mixed_sign, block, caplog):
        H = Counting(mixed_sign(D, [5.0, -4.0, 3.0, -2.0]))
        found = block_krylov(H, 10, 20, block, SEED)
        rounds = found.diagnostics["rounds"]
        assert found.diagnostics["early_stop"] == f"invariant after round {rounds} of 20"
        assert "0 of" in caplog.text
        # The start and the range of the operator, and no more than a few directions of round-off.
        assert found.num_products == sum(H.widths) < block + 4 + 8

    def test_without_an_early_stop_the_diagnostics_say_no(self):
        found = block_krylov(MATRICES["poly"](), 10, 3, 10, SEED)
        assert found.diagnostics["early_stop"] == "no"
        assert found.diagnostics["basis_columns"] == found.num_products == 30

    def test_a_last_block_that_is_smaller(self, assert_close):
        """Blocks of 10 in a space of 25 dimensions."""
        op = Counting(SynthMat.exp_decay((25, 25), 1, 0.05, seed=2))
        found = block_krylov(op, 25, 3, 10, SEED)
        assert op.widths == [10, 10, 5]
        assert_close(found.S, 10.0 ** (-0.05 * np.arange(25)), tol=1e-7)  # synthmat is in float32
        assert float(found.residual_norms.max()) < 1e-12

    @pytest.mark.parametrize(
        ("eigenvalues", "block"),
        [([2.0] * 6, 8), ([2.0] * 6, 1), ([3.0, 1.0, 1.0, 1.0], 4), ([-1.0] * 5 + [0.5] * 5, 5)],
        ids=["one-value", "one-value-single-vector", "three-equal", "two-clusters"],
    )
    def test_repeated_eigenvalues(self, mixed_sign, eigenvalues, block, assert_close):
        """A block of ``b`` finds no more than ``b`` copies of an eigenvalue."""
        H = mixed_sign(D, eigenvalues)
        found = block_krylov(H, 10 if block > 1 else 3, 6, block, SEED)
        expected = [
            value for value in dict.fromkeys(eigenvalues)
            for _ in range(min(block, eigenvalues.count(value)))
        ]  # fmt: skip
        assert_close(found.S, expected, tol=1e-12)
        assert float(true_residuals(H, found).max()) < 1e-11

    @pytest.mark.parametrize("seed", range(30))
    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
    @pytest.mark.parametrize("block", [1, 3])
    def test_round_off_of_products_is_no_new_direction(self, mixed_sign, block, dtype, seed):
        """Whatever the order in which a kernel sums: two values, so two blocks and no more."""
        H = mixed_sign(100, [2.0] * 40 + [-1.0] * 60).to(dtype)
        found = block_krylov(H, block, 6, block, seed, dtype)
        assert found.diagnostics["basis_columns"] == 2 * block
        assert found.diagnostics["early_stop"] != "no"

    @pytest.mark.parametrize("seed", range(30))
    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
    def test_magnified_round_off_may_be_a_direction_and_does_no_harm(
        self, mixed_sign, assert_close, dtype, seed
    ):
        """Three values, so three blocks, but the second remainder is small in some directions.

        Normalising it magnifies its round-off, which another processor may find above the limit.
        """
        H = mixed_sign(D, [2.0] * 40 + [-1.0] * 60).to(dtype)
        found = block_krylov(H, 3, 6, 3, seed, dtype)
        eps = torch.finfo(dtype).eps
        assert 9 <= found.diagnostics["basis_columns"] <= 12
        assert_close(found.S, [2.0] * 3, tol=100 * eps)
        assert deviation(found) < 100 * eps
        assert float(true_residuals(H.double(), found).max()) < 1000 * eps

    @pytest.mark.parametrize(
        "recover",
        [lambda H: hmt(H, 8, SEED), lambda H: block_krylov(H, 8, 4, 6, SEED)],
        ids=["hmt", "krylov"],
    )
    def test_equal_magnitudes_of_both_signs(self, recover, mixed_sign, assert_close):
        H = mixed_sign(D, [3.0, -3.0, 1.0, 1.0, -1.0, -1.0])
        found = recover(H)
        assert_close(found.S.sort().values, [-3.0, -1.0, -1.0, 1.0, 1.0, 3.0], tol=1e-12)
        assert_close(dense(found), H, tol=1e-12)
        assert deviation(found) < 1e-12

    @each_of_all
    def test_a_zero_operator_has_no_range(self, recover):
        with pytest.raises(NumericalError, match="the operator has no range"):
            recover(torch.zeros(D, D, dtype=F64))

    @pytest.mark.parametrize(("rounds", "block"), [(5, 15), (2, 50), (1, 50), (60, 1)], ids=str)
    def test_a_basis_of_the_whole_space_is_exact(self, rounds, block, assert_close):
        H = SynthMat.poly_decay((50, 50), 1, 1.0, seed=2, psd=False)
        found = block_krylov(H, 20, rounds, block, SEED)
        assert_close(found.S, by_magnitude(np.linalg.eigvalsh(H.numpy()))[:20], tol=1e-12)
        assert found.diagnostics["basis_columns"] <= 50
        assert deviation(found) < 1e-12

    @pytest.mark.parametrize(
        "recover",
        [
            lambda H: hmt(H, 9, SEED, F32),
            lambda H: block_krylov(H, 9, 4, 6, SEED, F32),
        ],
        ids=["hmt", "krylov"],
    )
    def test_single_precision_with_condition_1e8(self, recover, mixed_sign):
        """Eigenvalues below the round-off of the largest one are noise, and left out."""
        eigenvalues = [(-1.0) ** i * 10.0**-i for i in range(9)]
        H = mixed_sign(D, eigenvalues)
        found = recover(H.float())
        assert deviation(found) < 1e-12
        assert 6 <= len(found.S) <= 8
        torch.testing.assert_close(
            found.S[:6], torch.tensor(eigenvalues[:6], dtype=F64), rtol=0, atol=2e-7
        )
        true = true_residuals(H.float(), found)
        torch.testing.assert_close(found.residual_norms, true, rtol=0, atol=1e-6)

    @each_matrix
    @each_recovery
    def test_single_precision(self, make, recover):
        H = make()
        found, expected = recover(H.float(), dtype=F32), recover(H)
        assert found.S.dtype == F64
        assert found.Y.eps == 2.0**-23
        assert deviation(found) < 1e-12
        torch.testing.assert_close(found.S, expected.S, rtol=0, atol=5e-6)

    @pytest.mark.parametrize("dtype", [F32, F64], ids=["f32", "f64"])
    def test_nystrom_of_low_rank(self, mixed_sign, dtype, caplog):
        eigenvalues = [4.0, 3.0, 2.0, 2.0, 1.0]
        H = mixed_sign(D, eigenvalues)
        found = nystrom(H.to(dtype), 10, SEED, dtype=dtype)
        tol = 1e-4 if dtype == F32 else 1e-12
        torch.testing.assert_close(
            found.S[:5], torch.tensor(eigenvalues, dtype=F64), rtol=0, atol=tol
        )
        assert float(found.S[5:].sum()) < tol
        assert deviation(found) < 1e-12


#: Sketches whose core is well and badly conditioned, and the other recoveries.
OF_LOW_RANK = {
    "seigh, n_i = 2 n_o": lambda H, seed, dtype: seigh(H, 30, 60, seed, dtype),
    "seigh, small": lambda H, seed, dtype: seigh(H, 10, 20, seed, dtype),
    "seigh, n_i = n_o + 2": lambda H, seed, dtype: seigh(H, 30, 32, seed, dtype),
    "hmt": lambda H, seed, dtype: hmt(H, 30, seed, dtype),
    "krylov": lambda H, seed, dtype: block_krylov(H, 30, 3, 10, seed, dtype),
    "nystrom": lambda H, seed, dtype: nystrom(H, 30, seed, 60, dtype),
}


@pytest.mark.parametrize("seed", range(30))
@pytest.mark.parametrize("dtype", [F32, F64], ids=str)
@pytest.mark.parametrize("recover", OF_LOW_RANK.values(), ids=OF_LOW_RANK)
def test_rank_over_seeds(recover, dtype, seed, mixed_sign):
    """Of five eigenvalues five are found, whatever seed and kernel: what else is there is zero."""
    found = recover(mixed_sign(D, [1.0, 1.0, 0.9, 0.8, 0.5], seed).to(dtype), seed, dtype)
    assert len(found.S) == found.diagnostics["numerical_rank"] == 5
