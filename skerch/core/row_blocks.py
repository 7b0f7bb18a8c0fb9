"""Tall matrices that are read by blocks of rows, from memory or from disk alike.

The out-of-core decompositions see a tall matrix ``Y`` only through this interface, so that both
ways share one implementation of the mathematics.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..budget import resolve_budget, rows_within
from ..errors import InputError
from ..utils import same_memory


class RowBlocks:
    """A ``[D, n]`` matrix (tensor or HDF5 data set) read by blocks of rows.

    Args:
        matrix: A tensor, or an :class:`h5py.Dataset` of shape ``[D, n]``.
        memory_budget: Bytes that the routines that read this matrix may hold at once; default a
            quarter of this machine's memory.
        device: Where the blocks are wanted.
    """

    #: Copies of a block that the routines hold at once: as read, in float64, products of it, and
    #: the one before.
    WORKING_COPIES = 6
    #: Blocks that stay in the processor's cache are the fastest, whatever the budget ...
    MAX_BLOCK_BYTES = 2**22
    #: ... but a QR that goes block by block needs several times more rows than columns.
    MIN_ROWS_PER_COLUMN = 2
    #: Copies of a block, in float64, that reading a column from disk holds.
    READING_COPIES = 3

    def __init__(
        self,
        matrix: Any,
        memory_budget: int | None = None,
        device: torch.device | str | None = None,
    ):
        self.matrix = matrix
        if device is None:
            device = matrix.device if isinstance(matrix, Tensor) else "cpu"
        self._plan_blocks(tuple(matrix.shape), memory_budget, device)

    def _plan_blocks(
        self, shape: tuple[int, int], memory_budget: int | None, device: torch.device | str
    ) -> None:
        self.shape = shape
        self.device = torch.device(device)
        self.budget = resolve_budget(memory_budget)
        row_bytes = 8 * shape[1]
        self.block_rows = min(
            rows_within(self.budget, self.WORKING_COPIES * row_bytes, f"matrix {shape}"),
            self._most_rows(shape),
        )

    @classmethod
    def _most_rows(cls, shape: tuple[int, int]) -> int:
        """Return the rows of a block where the budget does not matter."""
        fast = cls.MAX_BLOCK_BYTES // (8 * shape[1])
        return min(shape[0], max(cls.MIN_ROWS_PER_COLUMN * shape[1], fast))

    @classmethod
    def least_budget(cls, shape: tuple[int, int], column: int, *, on_disk: bool) -> int:
        """Return the bytes with which neither reading nor :meth:`columns_within` refuses.

        Args:
            shape: ``(D, n)`` of the matrix.
            column: What ``cost(1)`` of :meth:`columns_within` is.
            on_disk: Whether the matrix is.
        """
        row_bytes = 8 * shape[1]
        # Blocks grow with the budget: reading takes a fixed share of it, up to the largest block.
        share = cls.READING_COPIES / cls.WORKING_COPIES
        largest = cls.READING_COPIES * row_bytes * cls._most_rows(shape)
        with_reading = min(math.ceil(column / (1 - share)), column + largest)
        return max(cls.WORKING_COPIES * row_bytes, with_reading if on_disk else column)

    @property
    def eps(self) -> float:
        """Unit round-off of the dtype in which the matrix is stored."""
        return torch.finfo(self.dtype).eps

    @property
    def dtype(self) -> torch.dtype:
        """The dtype in which the matrix is stored."""
        if isinstance(self.matrix, Tensor):
            return self.matrix.dtype
        return torch.from_numpy(np.empty(0, self.matrix.dtype)).dtype

    def __iter__(self) -> Iterator[tuple[slice, Tensor]]:
        """Yield ``(rows, block)`` with blocks ``[<= block_rows, n]`` in float64."""
        for rows in self._slices():
            yield rows, self.read(rows)

    def read(self, rows: slice) -> Tensor:
        """Return consecutive rows in float64."""
        return self._as_float64(self.stored(rows))

    def stored(self, rows: slice) -> Tensor:
        """Return consecutive rows in the stored dtype, wherever they are."""
        return same_memory(self.matrix[rows])

    def _slices(self) -> Iterator[slice]:
        for begin in range(0, self.shape[0], self.block_rows):
            yield slice(begin, min(begin + self.block_rows, self.shape[0]))

    def rows(self, idxs: Tensor) -> Tensor:
        """Return the rows ``idxs`` (in any order, may repeat), ``[len(idxs), n]``, in float64.

        One pass over a matrix on disk: HDF5 takes milliseconds for each row of a selection.
        """
        if isinstance(self.matrix, Tensor):
            return self._as_float64(self.matrix[idxs.to(self.matrix.device)])
        collect = RowCollector(idxs.to(self.device), self.shape[1])
        for at, block in self:
            collect(at, block)
        return collect.rows

    def columns(self, begin: int, end: int) -> Tensor:
        """Return columns ``begin ... end-1`` in the stored dtype, shape ``[D, end - begin]``.

        A view of a tensor where that is. One pass over a matrix on disk: what costs time there is
        the number of separate pieces, not of bytes.
        """
        if isinstance(self.matrix, Tensor):
            return self.matrix[:, begin:end].to(self.device)
        columns = torch.empty(self.shape[0], end - begin, dtype=self.dtype, device="cpu")
        for rows in self._slices():
            columns[rows] = same_memory(self.matrix[rows])[:, begin:end]
        return columns.to(self.device)

    def columns_within(self, cost: Callable[[int], int], what: str) -> int:
        """Return how many columns may be in memory at once.

        Args:
            cost: Bytes that this many columns take, with all that is made of them.
            what: What they are for, for the error message.

        Raises:
            InputError: If not even one fits; the line says what is needed.
        """
        block = 8 * self.block_rows * self.shape[1]
        reading = 0 if self.in_memory else self.READING_COPIES * block
        if cost(1) + reading > self.budget:
            raise InputError(
                f"{what}: one column of {self.shape} needs {cost(1) + reading} bytes, the budget "
                f"is {self.budget}"
            )
        # Not the last byte of it, if there is a choice: allocators need room as well.
        room = 0.7 * self.budget - reading
        return max((c for c in range(1, self.shape[1] + 1) if cost(c) <= room), default=1)

    @property
    def in_memory(self) -> bool:
        """Whether the matrix is in memory anyway."""
        return isinstance(self.matrix, Tensor)

    def _as_float64(self, values: Any) -> Tensor:
        return same_memory(values).to(self.device, torch.float64)

    def t_matmul(self, *Xs: Tensor) -> Tensor:
        """Return ``Y^T [X_1 X_2 ...]`` for ``X_i`` of shape ``[D, K_i]``, in float64; one pass."""
        for X in Xs:
            if X.ndim != 2 or X.shape[0] != self.shape[0]:
                raise InputError(f"expected X [{self.shape[0]}, K], got shape {tuple(X.shape)}")
        num = sum(X.shape[1] for X in Xs)
        result = torch.zeros(self.shape[1], num, dtype=torch.float64, device=self.device)
        for rows, block in self:
            result += block.T @ torch.cat([X[rows].to(block) for X in Xs], dim=1)
        return result

    def matmul(self, X: Tensor) -> Tensor:
        """Return ``Y X`` for ``X`` of shape ``[n, K]``, as a float64 ``[D, K]`` matrix.

        The result is held as a whole, whatever the budget.
        """
        result = torch.empty(self.shape[0], X.shape[1], dtype=torch.float64, device=self.device)
        for rows, block in self:
            result[rows] = block @ X.to(block)
        return result


class ColumnBlocks(RowBlocks):
    """Matrices ``[D, b_0], [D, b_1], ...`` side by side, read by blocks of rows as one.

    Args:
        parts: Tensors, HDF5 data sets, or :class:`RowBlocks`; at least one.
        memory_budget: See :class:`RowBlocks`; for all parts together.
        device: Where the blocks are wanted; default where the first part is.

    Raises:
        InputError: If there are none, or they differ in their number of rows.
    """

    def __init__(
        self,
        parts: Sequence[Any],
        memory_budget: int | None = None,
        device: torch.device | str | None = None,
    ):
        heights = {part.shape[0] for part in parts}
        if len(heights) != 1:
            raise InputError(f"expected blocks with the same number of rows, got {sorted(heights)}")
        self.parts = [
            part if isinstance(part, RowBlocks) else RowBlocks(part, memory_budget, device)
            for part in parts
        ]
        width = sum(part.shape[1] for part in self.parts)
        self._plan_blocks((heights.pop(), width), memory_budget, device or self.parts[0].device)

    @property
    def eps(self) -> float:
        """Unit round-off of the coarsest dtype in which a part is stored."""
        return max(part.eps for part in self.parts)

    @property
    def in_memory(self) -> bool:
        """Whether all parts are in memory anyway."""
        return all(part.in_memory for part in self.parts)

    def stored(self, rows: slice) -> Tensor:
        """Return consecutive rows in float64, which holds whatever the parts hold."""
        block = torch.empty(
            rows.stop - rows.start, self.shape[1], dtype=torch.float64, device=self.device
        )
        begin = 0
        for part in self.parts:
            end = begin + part.shape[1]
            block[:, begin:end].copy_(part.stored(rows))
            begin = end
        return block

    def rows(self, idxs: Tensor) -> Tensor:
        """Return the rows ``idxs`` (in any order, may repeat), in float64."""
        return torch.cat([part.rows(idxs).to(self.device) for part in self.parts], dim=1)

    def columns(self, begin: int, end: int) -> Tensor:
        """Return columns ``begin ... end-1`` in the (widest) stored dtype."""
        chosen, offset = [], 0
        for part in self.parts:
            first, last = max(begin - offset, 0), min(end - offset, part.shape[1])
            if first < last:
                chosen.append(part.columns(first, last).to(self.device))
            offset += part.shape[1]
        return torch.cat(chosen, dim=1)


class RowCollector:
    """Picks rows out of the blocks of a pass over a matrix.

    Args:
        idxs: Which rows, in any order, may repeat.
        width: Entries of a row.
        transform: Applied to the rows that are found, ``[m, n] -> [m, width]``.

    Attributes:
        rows: ``[len(idxs), width]`` float64; complete after the pass.
    """

    def __init__(
        self, idxs: Tensor, width: int, transform: Callable[[Tensor], Tensor] | None = None
    ):
        self._ascending, self._order = idxs.sort()
        self._transform = transform
        self.rows = torch.empty(len(idxs), width, dtype=torch.float64, device=idxs.device)

    def __call__(self, at: slice, block: Tensor) -> None:
        """Take rows ``at`` of the matrix."""
        bounds = torch.tensor([at.start, at.stop], device=self._ascending.device)
        begin, end = torch.searchsorted(self._ascending, bounds).tolist()
        if begin < end:
            found = block[self._ascending[begin:end] - at.start]
            found = found if self._transform is None else self._transform(found)
            self.rows[self._order[begin:end]] = found
