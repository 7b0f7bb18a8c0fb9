"""Recovery from blocks on disk: the same numbers as in memory, whatever budget and dtype."""

from __future__ import annotations

import h5py
import numpy as np
import pytest
import scipy.linalg
import torch

from skerch.core.krylov import Combination, Projection
from skerch.core.rayleigh_ritz import _ritz_pairs, _significant, solve_rayleigh_ritz
from skerch.core.row_blocks import ColumnBlocks, RowBlocks
from skerch.decompositions import block_krylov, hmt
from skerch.ssrft import SSRFT
from skerch.store.basis import open_basis, write_first_block, write_next_block
from skerch.synthmat import SynthMat
from skerch.utils import InputError, NumericalError, StoreError

pytestmark = pytest.mark.numerical

F32, F64 = torch.float32, torch.float64
D, RANK, SEED = 150, 12, 3
ORIGIN = {"run": "a", "step": 300}
DTYPES = pytest.mark.parametrize(("dtype", "tol"), [(F64, 1e-10), (F32, 2e-6)], ids=["f64", "f32"])
#: Bytes for some or for very few rows at a time; never for a whole remainder.
BUDGETS = pytest.mark.parametrize("budget", [45_000, 10_000], ids=["rows", "few-rows"])


@pytest.fixture(scope="module")
def H():
    return SynthMat.exp_decay((D, D), 1, 0.1, seed=21, psd=False)


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def test_what_counts_as_round_off_grows_with_the_dimension():
    """Of D = 150 entries, not of the two columns of the last products."""
    zeros, D = torch.zeros(2, 2, dtype=F64), 150
    remainder = RowBlocks(torch.zeros(D, 2))
    last = Projection(zeros, zeros, zeros, 0.0, remainder, zeros, norm=2.0, eps=1e-7)
    limit = D**0.5 * 1e-7 * 2
    for share, num in ((0.5, 1), (2, 2)):
        S = torch.tensor([1.0, share * limit], dtype=F64)
        assert _significant(S, 2, last) == (num, num)


def dense(eigh):
    V = eigh.vectors()
    return (V * eigh.S) @ V.T


class Disk:
    """A basis and its products in HDF5, as jobs that share nothing but files would have them."""

    def __init__(self, directory, H, dtype, budget):
        self.directory, self.H, self.budget = directory, H.to(dtype), budget
        self.dtype = torch.empty(0, dtype=dtype).numpy().dtype

    def block(self, round_):
        return self.directory / f"basis_{round_}.h5"

    def start(self, num):
        Psi = SSRFT((num, len(self.H)), SEED + 1)
        write_first_block(
            self.block(0),
            Psi,
            dtype=self.dtype,
            provenance=ORIGIN,
            memory_budget=100 * len(self.H),
        )

    def measure(self, round_):
        """Multiply with block ``round_`` into a file of its own."""
        path = self.directory / f"products_{round_}.h5"
        with h5py.File(self.block(round_)) as basis, h5py.File(path, "w") as out:
            V = torch.from_numpy(basis["data"][:])
            out.create_dataset("data", data=(self.H @ V).numpy())
        return path

    def extend(self, round_, source, basis_rounds):
        with (
            open_basis([self.block(r) for r in basis_rounds], ORIGIN) as (blocks, steps),
            h5py.File(source) as file,
        ):
            write_next_block(
                self.block(round_),
                blocks,
                file["data"],
                steps,
                dtype=self.dtype,
                provenance=ORIGIN,
                memory_budget=self.budget,
            )

    def solve(self, rank, rounds, source, check, **kwargs):
        paths = [self.block(r) for r in rounds]
        with open_basis(paths, ORIGIN) as (blocks, steps), h5py.File(source) as file:
            data = file["data"]
            check(
                solve_rayleigh_ritz(blocks, data, steps, rank, memory_budget=self.budget, **kwargs)
            )

    def krylov(self, rank, num_rounds, block_size, check):
        self.start(block_size)
        for r in range(num_rounds - 1):
            self.extend(r + 1, self.measure(r), range(r + 1))
        self.solve(rank, range(num_rounds), self.measure(num_rounds - 1), check)


@pytest.fixture
def same(assert_close):
    """``same(expected, tol)``: a check that two results are the same to ``tol``."""

    def make(expected, tol):
        def check(found):
            assert_close(found.S, expected.S, tol=tol)
            assert_close(dense(found), dense(expected), tol=tol)
            assert found.num_products == expected.num_products
            if expected.residual_norms is not None:
                assert_close(found.residual_norms, expected.residual_norms, tol=tol)
            V = found.vectors()
            assert_close(V.T @ V, torch.eye(V.shape[1], dtype=F64), tol=1e-12)

        return check

    return make


@DTYPES
@BUDGETS
@pytest.mark.parametrize(("rounds", "block"), [(1, 15), (2, 10), (4, 5)], ids=str)
def test_block_krylov_on_disk(tmp_path, H, same, dtype, tol, budget, rounds, block):
    expected = block_krylov(H.to(dtype), RANK, rounds, block, SEED, dtype)
    Disk(tmp_path, H, dtype, budget).krylov(RANK, rounds, block, same(expected, tol))


@DTYPES
@BUDGETS
def test_hmt_on_disk(tmp_path, H, same, dtype, tol, budget):
    disk = Disk(tmp_path, H, dtype, budget)
    disk.start(RANK)
    disk.extend(1, disk.measure(0), [])
    disk.block(0).unlink()
    check = same(hmt(H.to(dtype), RANK, SEED, dtype), tol)
    disk.block(1).rename(disk.block(0))
    with h5py.File(disk.measure(0)) as file, h5py.File(disk.block(0)) as basis:
        check(
            solve_rayleigh_ritz(
                [basis["data"]], file["data"], [], RANK, num_products=2 * RANK, memory_budget=budget
            )
        )


def test_an_invariant_basis_on_disk(tmp_path, mixed_sign, assert_close):
    """A block without columns ends the rounds; what follows it is refused."""
    eigenvalues = [3.0, -2.0, 1.0]
    disk = Disk(tmp_path, mixed_sign(D, eigenvalues), F64, 10_000)
    disk.start(5)
    widths, round_ = [5], 0
    while widths[-1]:
        disk.extend(round_ + 1, disk.measure(round_), range(round_ + 1))
        round_ += 1
        with h5py.File(disk.block(round_)) as file:
            widths.append(file["data"].shape[1])

    def check(found):
        assert_close(found.S, eigenvalues, tol=1e-12)
        assert found.diagnostics["early_stop"] == f"invariant after round {round_} of 10"
        assert float(found.residual_norms.max()) < 1e-12

    source = disk.directory / f"products_{round_ - 1}.h5"
    disk.solve(3, range(round_ + 1), source, check, num_rounds=10)
    paths = [disk.block(r) for r in range(round_ + 1)]
    with pytest.raises(StoreError, match="no block can follow"), open_basis([*paths, paths[0]]):
        pass


def test_ritz_values_that_vanish_are_no_eigenvalues():
    """One unit vector, and an operator that swaps it with another one."""
    V, P = torch.eye(D, 2, dtype=F64).split(1, dim=1)
    with pytest.raises(NumericalError, match="vanishes on the basis"):
        solve_rayleigh_ritz([V], P, [], 1)


class TestRefusals:
    @pytest.fixture
    def disk(self, tmp_path, H):
        disk = Disk(tmp_path, H, F64, None)
        disk.krylov(RANK, 3, 6, lambda eigh: None)
        return disk

    @pytest.mark.parametrize(
        ("rounds", "message"),
        [
            ([0, 2], "expected 6 columns after 12 others, found 6 after 6"),
            ([1], "not block 0 of a basis"),
            ([0, 0], "not block 1 of a basis"),
            ([0, 1, 7], "no such file"),
        ],
        ids=["gap", "no-start", "twice", "missing"],
    )
    def test_files_that_do_not_follow_each_other(self, disk, rounds, message):
        with (
            pytest.raises(StoreError, match=message),
            open_basis([disk.block(r) for r in rounds]),
        ):
            pass

    def test_files_of_another_origin(self, disk):
        wrong = {"run": "b", "step": 300}
        with (
            pytest.raises(StoreError, match="of another basis: run: expected 'b', found 'a'"),
            open_basis([disk.block(0)], wrong),
        ):
            pass

    @pytest.mark.parametrize("name", ["data", "step"])
    def test_links_to_other_files(self, disk, name):
        with h5py.File(disk.block(1), "a") as file:
            del file[name]
            file[name] = h5py.ExternalLink(disk.block(2).name, name)
        with pytest.raises(StoreError, match="link"), open_basis([disk.block(0), disk.block(1)]):
            pass

    def test_a_failure_leaves_the_block_that_was_there(self, disk):
        before = disk.block(1).read_bytes()
        zero = torch.zeros(D, 6, dtype=F64)
        with (
            open_basis([disk.block(0)]) as (blocks, steps),
            pytest.raises(ArithmeticError, match="no range"),
        ):
            write_next_block(disk.block(1), blocks, zero, steps, dtype="float64", provenance=ORIGIN)
        assert disk.block(1).read_bytes() == before
        assert not [p for p in disk.directory.iterdir() if p.name.endswith(".tmp")]

    def test_a_rank_that_is_none(self, disk):
        with pytest.raises(InputError, match="rank must be at least 1, got 0"):
            disk.solve(0, [0], disk.directory / "products_0.h5", None)

    def test_a_budget_for_less_than_a_row(self, disk):
        disk.budget = 500
        with pytest.raises(InputError, match="one row needs"):
            disk.solve(RANK, [0, 1, 2], disk.directory / "products_2.h5", None)


def test_ritz_pairs_of_a_basis_that_is_not_orthonormal(rng):
    """They solve ``K x = s (V^T V) x``, as LAPACK does for pencils."""
    V, A = (
        torch.from_numpy(rng.standard_normal((9, 5))),
        torch.from_numpy(rng.standard_normal((9, 9))),
    )
    gram, K = V.T @ V, V.T @ (A + A.T) @ V
    S, U, T = _ritz_pairs(K, torch.linalg.cholesky(gram))
    expected = torch.from_numpy(scipy.linalg.eigh(K.numpy(), gram.numpy(), eigvals_only=True))
    expected = expected[expected.abs().argsort(descending=True)]
    torch.testing.assert_close(S, expected, rtol=1e-9, atol=1e-9)
    X = V @ T @ U
    torch.testing.assert_close(X.T @ X, torch.eye(5, dtype=F64), rtol=0, atol=1e-9)


@pytest.mark.parametrize(("budget", "held"), [(8 * 9 * 3, True), (8 * 9 * 3 - 1, False)])
def test_a_remainder_is_held_where_the_budget_allows(rng, budget, held):
    V, X = (torch.from_numpy(rng.standard_normal((9, n))) for n in (2, 3))
    remainder = Combination(ColumnBlocks([V, X], 10**4, None), torch.ones(2, 3, dtype=F64))
    found = remainder.held(budget)
    assert (found is not remainder) == held
    assert isinstance(found, RowBlocks)
    rows = torch.cat([block for _, block in found])
    torch.testing.assert_close(rows, X - V.sum(1, keepdim=True))


@pytest.mark.parametrize(
    ("rank", "blocks_left_out"), [(30, 3), (29, 2), (11, 1), (4, 1)], ids=lambda n: str(n)
)
def test_a_coarser_recovery_lacks_as_many_blocks_as_half_the_pairs_have_columns(
    H, rank, blocks_left_out
):
    """Blocks of five; one at least. It is the recovery from the first blocks alone."""
    found = block_krylov(H, rank, num_rounds=9, block_size=5)
    columns = found.Y.shape[1] - 5 * blocks_left_out
    assert found.coarser.Y.shape == (D, columns)
    V = torch.linalg.qr(found.Y.stored(slice(0, D))[:, :columns]).Q
    values = torch.linalg.eigvalsh(V.T @ H @ V)
    expected = values[values.abs().argsort(descending=True)][:rank]
    torch.testing.assert_close(found.coarser.S, expected, rtol=0, atol=1e-9)
