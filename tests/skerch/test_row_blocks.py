from __future__ import annotations

import h5py
import pytest
import torch

from skerch.budget import default_memory_budget
from skerch.core.row_blocks import ColumnBlocks, RowBlocks, RowCollector
from skerch.utils import InputError

pytestmark = pytest.mark.numerical

D, N = 23, 4
F64 = torch.float64
SOURCES = ["tensor-f64", "tensor-f32", "hdf5-f64", "hdf5-f32", "hdf5-chunked"]


def budget_of(rows, width=N):
    """The smallest budget in which blocks of ``rows`` rows fit."""
    return RowBlocks.WORKING_COPIES * 8 * width * rows


@pytest.fixture
def dense(gaussian):
    # Exact in float32, so that the stored dtype changes nothing.
    return gaussian(D, N).float().double()


@pytest.fixture(params=SOURCES)
def matrix(request, dense, tmp_path):
    kind, option = request.param.split("-")
    dtype = torch.float32 if option == "f32" else F64
    if kind == "tensor":
        yield dense.to(dtype)
        return
    with h5py.File(tmp_path / "matrix.h5", "w") as file:
        chunks = (5, 2) if option == "chunked" else None
        yield file.create_dataset("data", data=dense.to(dtype).numpy(), chunks=chunks)


@pytest.mark.parametrize("rows", [1, 7, 22, 23, 100])
class TestBlocks:
    def test_they_are_the_matrix(self, matrix, dense, rows):
        blocks = list(RowBlocks(matrix, budget_of(rows)))
        assert all(block.dtype == F64 for _, block in blocks)
        assert torch.equal(torch.cat([block for _, block in blocks]), dense)
        assert [i for at, _ in blocks for i in range(at.start, at.stop)] == list(range(D))

    def test_they_are_as_large_as_fits(self, matrix, rows):
        sizes = [len(block) for _, block in RowBlocks(matrix, budget_of(rows))]
        expected = min(rows, D)
        assert sizes[:-1] == [expected] * (len(sizes) - 1)
        assert sizes[-1] <= expected
        assert RowBlocks(matrix, budget_of(rows)).block_rows == expected
        assert RowBlocks(matrix, budget_of(rows + 1) - 1).block_rows == expected

    def test_products(self, matrix, dense, rows, gaussian, assert_close):
        Y, right, left = RowBlocks(matrix, budget_of(rows)), gaussian(N, 3), gaussian(D, 3)
        assert_close(Y.matmul(right), dense @ right)
        assert_close(Y.t_matmul(left), dense.T @ left)

    def test_products_with_single_precision_are_in_double(self, matrix, dense, rows, gaussian):
        Y, right, left = RowBlocks(matrix, budget_of(rows)), gaussian(N, 3), gaussian(D, 3)
        assert Y.matmul(right.float()).dtype == Y.t_matmul(left.float()).dtype == F64


class TestParts:
    @pytest.mark.parametrize(
        "idxs", [[5], [0, 22], [22, 3, 11, 4], [7, 7, 2, 7], [], list(range(D))[::-1]], ids=str
    )
    def test_rows(self, matrix, dense, idxs):
        idxs = torch.tensor(idxs, dtype=torch.int64)
        found = RowBlocks(matrix).rows(idxs)
        assert found.dtype == F64
        assert torch.equal(found, dense[idxs])

    @pytest.mark.parametrize(("begin", "end"), [(0, 4), (1, 3), (2, 3)])
    def test_columns_keep_their_dtype(self, matrix, dense, begin, end):
        found = RowBlocks(matrix).columns(begin, end)
        assert torch.equal(found.double(), dense[:, begin:end])
        assert str(found.dtype).split(".")[-1] == str(matrix.dtype).split(".")[-1]

    def test_eps_is_that_of_the_stored_numbers(self, matrix):
        expected = 2.0**-23 if "32" in str(matrix.dtype) else 2.0**-52
        assert RowBlocks(matrix).eps == expected

    def test_shape_and_default_budget(self, matrix):
        Y = RowBlocks(matrix)
        assert Y.shape == (D, N)
        assert Y.budget == default_memory_budget()

    def test_several_products_in_one_pass(self, matrix, dense, gaussian, assert_close):
        X, Z = gaussian(D, 3), gaussian(D, 2, seed=1).float()
        found = RowBlocks(matrix, budget_of(7)).t_matmul(X, Z)
        assert_close(found, torch.cat([dense.T @ X, dense.T @ Z.double()], dim=1))

    def test_collected_rows_may_be_transformed(self, matrix, dense, gaussian, assert_close):
        idxs, B = torch.tensor([22, 3, 3, 11]), gaussian(N, 2)
        collect = RowCollector(idxs, 2, lambda rows: rows @ B)
        for at, block in RowBlocks(matrix, budget_of(5)):
            collect(at, block)
        assert_close(collect.rows, dense[idxs] @ B)

    @pytest.mark.parametrize("fitting", [1, 3, 4])
    def test_columns_within_a_budget(self, matrix, fitting):
        Y = RowBlocks(matrix, 10**6)
        reading = 0 if Y.in_memory else 3 * 8 * N * D
        Y.budget = int((reading + 100 * fitting) / 0.7) + 1
        assert Y.columns_within(lambda num: 100 * num, "test") == fitting
        Y.budget = reading + 100
        assert Y.columns_within(lambda num: 100 * num, "test") == 1
        Y.budget = reading + 99
        with pytest.raises(InputError, match=rf"test: one column of .* needs {reading + 100} byt"):
            Y.columns_within(lambda num: 100 * num, "test")


def test_blocks_do_not_grow_beyond_what_is_useful(monkeypatch, dense):
    monkeypatch.setattr(RowBlocks, "MAX_BLOCK_BYTES", 8 * N * 10)
    assert [len(block) for _, block in RowBlocks(dense)] == [10, 10, 3]


def test_a_budget_that_holds_no_row_names_what_is_needed(matrix):
    needed = budget_of(1)
    with pytest.raises(InputError, match=rf"one row needs {needed} bytes.*left is {needed - 1}"):
        RowBlocks(matrix, needed - 1)
    assert RowBlocks(matrix, needed).block_rows == 1


@pytest.mark.parametrize("shape", [(D,), (D - 1, 2), (D + 1, 2), (D, 2, 2)], ids=str)
def test_wrong_shapes_raise(matrix, shape):
    with pytest.raises(InputError, match=rf"expected X \[{D}, K\]"):
        RowBlocks(matrix).t_matmul(torch.ones(shape, dtype=F64))


class TestColumnBlocks:
    WIDTHS = (3, 1, 4)

    @pytest.fixture
    def whole(self, gaussian):
        return gaussian(D, sum(self.WIDTHS)).float().double()

    @pytest.fixture(params=["tensors", "hdf5", "row-blocks", "mixed"])
    def parts(self, request, whole, tmp_path):
        split = whole.split(self.WIDTHS, dim=1)
        with h5py.File(tmp_path / "parts.h5", "w") as file:
            stored = [
                file.create_dataset(str(i), data=p.float().numpy()) for i, p in enumerate(split)
            ]
            yield {
                "tensors": split,
                "hdf5": stored,
                "row-blocks": [RowBlocks(part) for part in split],
                "mixed": [split[0].float(), stored[1], RowBlocks(split[2])],
            }[request.param]

    @pytest.mark.parametrize("rows", [1, 7, 23])
    def test_they_are_the_matrices_side_by_side(self, parts, whole, rows):
        Y = ColumnBlocks(parts, budget_of(rows, whole.shape[1]))
        blocks = list(Y)
        assert Y.shape == whole.shape
        assert Y.block_rows == rows
        assert torch.equal(torch.cat([block for _, block in blocks]), whole)
        assert [i for at, _ in blocks for i in range(at.start, at.stop)] == list(range(D))

    def test_parts_and_products(self, parts, whole, gaussian, assert_close):
        Y, idxs = ColumnBlocks(parts), torch.tensor([7, 0, 7, 22])
        assert torch.equal(Y.rows(idxs), whole[idxs])
        assert_close(Y.matmul(gaussian(8, 3)), whole @ gaussian(8, 3))
        assert_close(Y.t_matmul(gaussian(D, 3)), whole.T @ gaussian(D, 3))

    @pytest.mark.parametrize(("begin", "end"), [(0, 8), (2, 5), (3, 4), (4, 8), (1, 2)])
    def test_columns(self, parts, whole, begin, end):
        found = ColumnBlocks(parts).columns(begin, end)
        assert torch.equal(found.double(), whole[:, begin:end])

    def test_eps_is_that_of_the_coarsest_part(self, whole):
        split = whole.split(self.WIDTHS, dim=1)
        assert ColumnBlocks(split).eps == 2.0**-52
        assert ColumnBlocks([split[0], split[1].float()]).eps == 2.0**-23

    @pytest.mark.parametrize("heights", [[], [3, 4]], ids=["none", "different"])
    def test_parts_that_do_not_fit(self, heights):
        with pytest.raises(InputError, match="same number of rows"):
            ColumnBlocks([torch.ones(h, 2) for h in heights])
