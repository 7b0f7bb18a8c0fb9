"""Bases that grow by blocks: orthonormality, span, ranks and refusals."""

from __future__ import annotations

import h5py
import numpy as np
import pytest
import torch

from skerch.core.krylov import BasisStep, extend_basis, project_out, write_starting_block
from skerch.core.row_blocks import RowBlocks
from skerch.ssrft import SSRFT
from skerch.store.basis import read_block, write_end
from skerch.utils import InputError, NumericalError, product_round_off

pytestmark = pytest.mark.numerical

F32, F64 = torch.float32, torch.float64
D, N = 120, 8
#: A remainder is held, or recomputed by blocks of a few rows.
BUDGETS = pytest.mark.parametrize("budget", [None, 20_000], ids=["held", "row-blocks"])


def orthonormality(V):
    V = V.double()
    return float((V.T @ V - torch.eye(V.shape[1], dtype=F64)).abs().max())


@pytest.fixture
def extend():
    """``extend(blocks, products, steps)``: the step and the new block (``None`` without one)."""

    def call(blocks, products, steps=(), budget=None, dtype=F64):
        made = []

        def create(width):
            made.append(torch.full((len(products), width), torch.nan, dtype=dtype))
            return made[-1]

        step = extend_basis(blocks, products, steps, create, budget)
        return step, made[0] if made else None

    return call


class TestStartingBlock:
    @pytest.mark.parametrize("budget", [None, 64 * D, 3 * 64 * D], ids=["all", "one", "three"])
    def test_it_is_the_transposed_ssrft(self, dense_ssrft, assert_close, budget):
        out = torch.empty(D, N, dtype=F64)
        write_starting_block(SSRFT((N, D), 5), out, budget)
        assert_close(out, dense_ssrft((N, D), 5).T)

    def test_on_disk_it_is_the_same_number_for_number(self, tmp_path):
        out = torch.empty(D, N, dtype=F32)
        write_starting_block(SSRFT((N, D), 5), out)
        with h5py.File(tmp_path / "block.h5", "w") as file:
            data = file.create_dataset("data", (D, N), "float32")
            write_starting_block(SSRFT((N, D), 5), data, 200 * D)
            assert torch.equal(torch.from_numpy(data[:]), out)

    def test_an_end_has_no_columns_and_says_why(self, tmp_path):
        path, dtype = tmp_path / "end.h5", np.dtype("float32")
        write_end(path, D, "accurate enough", dtype=dtype, provenance={"round": 3})
        with h5py.File(path) as file:
            block = read_block(file)
            assert (file["data"].shape, file["data"].dtype) == ((D, 0), dtype)
        assert (block.width, block.step) == (0, None)
        assert block.ended == "accurate enough"
        assert block.provenance["round"] == 3

    def test_its_name_does_not_depend_on_the_order_of_its_facts(self, tmp_path):
        names, facts = set(), {"round": 3, "run_id": "a"}
        for number, order in enumerate([facts, dict(reversed(facts.items()))]):
            path = tmp_path / f"{number}.h5"
            write_end(path, D, "accurate enough", dtype=np.dtype("f4"), provenance=order)
            with h5py.File(path) as file:
                names.add(read_block(file).name)
        assert len(names) == 1

    def test_a_budget_that_holds_no_row_names_what_is_needed(self):
        with pytest.raises(InputError, match=f"one row needs {64 * D} bytes"):
            write_starting_block(SSRFT((N, D), 5), torch.empty(D, N), 64 * D - 1)


class TestExtension:
    @BUDGETS
    @pytest.mark.parametrize("decades", [0, 6, 12])
    def test_the_new_block_is_orthonormal_and_spans_the_products(
        self, extend, orthonormal, gaussian, budget, decades
    ):
        V = orthonormal(D, 2 * N)
        blocks, gram = [V[:, :N], V[:, N:]], torch.eye(N, dtype=F64)
        steps = [BasisStep(gram, torch.zeros(N, N), torch.eye(N, dtype=F64))]
        # Almost everything lies in the basis; what does not spans many decades.
        P = V @ gaussian(2 * N, N, seed=1)
        P += gaussian(D, N, seed=2) * torch.logspace(0, -decades, N, dtype=F64)
        step, new = extend(blocks, P, steps, budget)
        assert orthonormality(torch.cat([V, new], dim=1)) < 1e-13
        whole = torch.cat([V, new], dim=1)
        torch.testing.assert_close(whole @ (whole.T @ P), P, rtol=0, atol=1e-13)
        torch.testing.assert_close(new.T @ P, step.remainder, rtol=0, atol=1e-13)
        torch.testing.assert_close(V.T @ P, step.rayleigh, rtol=0, atol=1e-13)
        torch.testing.assert_close(V.T @ V[:, N:], step.gram, rtol=0, atol=1e-13)

    @BUDGETS
    def test_an_empty_basis_gives_an_orthonormal_basis_of_the_products(
        self, extend, gaussian, budget
    ):
        P = gaussian(D, N) * torch.logspace(0, -13, N, dtype=F64)
        step, Q = extend([], P, budget=budget)
        assert orthonormality(Q) < 1e-13
        torch.testing.assert_close(Q @ step.remainder, P, rtol=0, atol=1e-14)

    @BUDGETS
    def test_single_precision_blocks_are_orthonormal_to_single_precision(
        self, extend, orthonormal, gaussian, budget
    ):
        V = orthonormal(D, N).float()
        P = (V.double() @ gaussian(N, N, seed=1) + 1e-4 * gaussian(D, N, seed=2)).float()
        _, new = extend([V], P, budget=budget, dtype=F32)
        assert orthonormality(torch.cat([V, new], dim=1)) < 2e-7

    @BUDGETS
    @pytest.mark.parametrize("rank", [1, 5, 7])
    def test_dependent_products_give_a_narrower_block(
        self, extend, orthonormal, gaussian, budget, rank, caplog
    ):
        V = orthonormal(D, N)
        P = V @ gaussian(N, N, seed=1) + gaussian(D, rank, seed=2) @ gaussian(rank, N, seed=3)
        step, new = extend([V], P, budget=budget)
        assert step.rank == new.shape[1] == rank
        assert f"{rank} of {N} new directions" in caplog.text

    @BUDGETS
    def test_products_in_the_basis_end_it(self, extend, orthonormal, gaussian, budget, caplog):
        V = orthonormal(D, N)
        step, new = extend([V], V @ gaussian(N, N, seed=1), budget=budget)
        assert (step.rank, new) == (0, None)
        assert step.remainder.shape == (0, N)
        assert f"0 of {N} new directions" in caplog.text

    def test_round_off_of_earlier_rounds_does_not_come_back_as_a_direction(
        self, extend, orthonormal, gaussian
    ):
        """What is tiny against the operator is noise, even if the last products are tiny too."""
        V = orthonormal(D, 2 * N)
        big = BasisStep(torch.eye(N, dtype=F64), torch.eye(N, dtype=F64), torch.eye(N, dtype=F64))
        step, _ = extend([V[:, :N], V[:, N:]], 1e-17 * gaussian(D, N), [big])
        assert step.rank == 0

    @pytest.mark.parametrize("seed", range(30))
    @pytest.mark.parametrize("dtype", [F32, F64], ids=str)
    def test_round_off_stays_below_half_of_what_decides(self, extend, mixed_sign, dtype, seed):
        """Two eigenvalues: behind two blocks there is nothing, whichever way a kernel sums."""
        H = mixed_sign(D, [2.0] * 40 + [-1.0] * 80).to(dtype)
        first = torch.empty(D, 3, dtype=dtype)
        write_starting_block(SSRFT((3, D), seed), first)
        step, second = extend([first], H @ first, dtype=dtype)
        round_ = project_out([first, second], H @ second, [step], 10**8, None)
        left = float(torch.linalg.svdvals(round_.factor).max())
        assert 0 < left < product_round_off(D, torch.finfo(dtype).eps, 2.0) / 2

    def test_the_basis_never_gets_wider_than_the_space(self, extend, orthonormal, gaussian):
        V = orthonormal(20, 17)
        step, new = extend([V], gaussian(20, 17, seed=1))
        assert step.rank == 3
        assert orthonormality(torch.cat([V, new], dim=1)) < 1e-13


class Recording:
    """A stored matrix that notes how many numbers are read at once."""

    def __init__(self, values):
        self.values, self.shape, self.dtype = values.numpy(), tuple(values.shape), "float64"
        self.largest = 0

    def __getitem__(self, where):
        self.largest = max(self.largest, self.values[where].size)
        return self.values[where]


@pytest.mark.parametrize("budget", [30_000, 100_000])
def test_reads_stay_within_the_budget(extend, orthonormal, gaussian, budget):
    """Three matrices side by side; half of the budget is for the copies of what is read."""
    V, P = orthonormal(2000, 2 * N), Recording(gaussian(2000, N))
    blocks = [Recording(V[:, :N]), Recording(V[:, N:])]
    step = BasisStep(torch.eye(N, dtype=F64), torch.zeros(N, N), torch.eye(N, dtype=F64))
    extend_basis(blocks, P, [step], lambda width: torch.empty(2000, width), budget)
    read = 8 * sum(matrix.largest for matrix in [*blocks, P])
    most = budget / 2 / RowBlocks.WORKING_COPIES
    assert 0.8 * most < read <= most


class TestRefusals:
    def test_zero_products(self, extend):
        with pytest.raises(NumericalError, match="the operator has no range"):
            extend([], torch.zeros(D, N, dtype=F64))

    @pytest.mark.parametrize("value", [torch.nan, torch.inf], ids=["nan", "inf"])
    def test_products_that_are_not_finite(self, extend, orthonormal, gaussian, value):
        P = gaussian(D, N)
        P[3, 2] = value
        with pytest.raises(NumericalError, match="NaN or infinite"):
            extend([orthonormal(D, N)], P)

    def test_a_basis_that_is_none(self, extend, gaussian):
        with pytest.raises(NumericalError, match="not orthonormal"):
            extend([gaussian(D, N)], gaussian(D, N, seed=1))

    @pytest.mark.parametrize(
        ("widths", "num_products", "num_steps"),
        [([N], N - 1, 0), ([N, N], N, 0), ([N], N, 1), ([N, N - 1], N - 1, 1)],
        ids=["narrow-products", "missing-step", "extra-step", "rank-differs"],
    )
    def test_blocks_products_and_steps_that_do_not_fit(
        self, extend, orthonormal, gaussian, widths, num_products, num_steps
    ):
        blocks = orthonormal(D, sum(widths)).split(widths, dim=1)
        steps = [BasisStep(*[torch.eye(N, dtype=F64)] * 3)] * num_steps
        with pytest.raises(InputError, match="expected products of the last block"):
            extend(blocks, gaussian(D, num_products), steps)

    def test_different_heights(self, extend, orthonormal, gaussian):
        with pytest.raises(InputError, match="same number of rows"):
            extend([orthonormal(D, N)], gaussian(D - 1, N))


def test_steps_come_back_from_disk(tmp_path, gaussian):
    step = BasisStep(gaussian(16, 8), gaussian(16, 8, seed=1), gaussian(5, 8, seed=2))
    with h5py.File(tmp_path / "step.h5", "w") as file:
        step.save(file.create_group("step"))
        found = BasisStep.load(file["step"])
    assert found.rank == 5
    assert torch.equal(found.gram, step.gram)
    assert torch.equal(found.rayleigh, step.rayleigh)
    assert torch.equal(found.remainder, step.remainder)
