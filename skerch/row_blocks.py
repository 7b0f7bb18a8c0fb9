"""Tall matrices that are read by blocks of rows, from memory or from disk alike.

The out-of-core decompositions see a tall matrix ``Y`` only through this interface, so that both
ways share one implementation of the mathematics.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .utils import InputError, default_memory_budget, rows_within


class RowBlocks:
    """A ``[D, n]`` matrix (tensor or HDF5 data set) read by blocks of rows.

    Args:
        matrix: A tensor, or an :class:`h5py.Dataset` of shape ``[D, n]``.
        budget: Bytes that the routines that read this matrix may hold at once; default a quarter
            of this machine's memory.
        device: Where the blocks are wanted.
    """

    #: Copies of a block that the routines hold at once: as read, in float64, and a product of it.
    WORKING_COPIES = 5

    def __init__(
        self, matrix: Any, budget: int | None = None, device: torch.device | str | None = None
    ):
        self.matrix = matrix
        if device is None:
            device = matrix.device if isinstance(matrix, Tensor) else "cpu"
        self._plan_blocks(tuple(matrix.shape), budget, device)

    def _plan_blocks(
        self, shape: tuple[int, int], budget: int | None, device: torch.device | str
    ) -> None:
        self.shape = shape
        self.device = torch.device(device)
        self.budget = default_memory_budget() if budget is None else budget
        row_bytes = self.WORKING_COPIES * 8 * shape[1]
        self.block_rows = min(shape[0], rows_within(self.budget, row_bytes, f"matrix {shape}"))

    @property
    def eps(self) -> float:
        """Unit round-off of the dtype in which the matrix is stored."""
        dtype = self.matrix.dtype
        return float(
            torch.finfo(dtype).eps if isinstance(self.matrix, Tensor) else np.finfo(dtype).eps
        )

    def __iter__(self) -> Iterator[tuple[slice, Tensor]]:
        """Yield ``(rows, block)`` with blocks ``[<= block_rows, n]`` in float64."""
        for begin in range(0, self.shape[0], self.block_rows):
            rows = slice(begin, min(begin + self.block_rows, self.shape[0]))
            yield rows, self.read(rows)

    def read(self, rows: slice) -> Tensor:
        """Return consecutive rows in float64."""
        return self._as_float64(self.stored(rows))

    def stored(self, rows: slice) -> Tensor:
        """Return consecutive rows in the stored dtype, wherever they are."""
        return torch.as_tensor(self.matrix[rows])

    def rows(self, idxs: Tensor) -> Tensor:
        """Return the rows ``idxs`` (in any order, may repeat), ``[len(idxs), n]``, in float64."""
        if isinstance(self.matrix, Tensor):
            return self._as_float64(self.matrix[idxs.to(self.matrix.device)])
        # HDF5 takes strictly ascending indices only.
        ascending, back = torch.unique(idxs.cpu(), return_inverse=True)
        return self._as_float64(self.matrix[ascending.numpy()])[back.to(self.device)]

    def columns(self, begin: int, end: int) -> Tensor:
        """Return columns ``begin ... end-1`` in the stored dtype, shape ``[D, end - begin]``."""
        return torch.as_tensor(self.matrix[:, begin:end]).to(self.device)

    def _as_float64(self, values: Any) -> Tensor:
        return torch.as_tensor(values).to(self.device, torch.float64)

    def t_matmul(self, X: Tensor) -> Tensor:
        """Return ``Y^T X`` for ``X`` of shape ``[D, K]``, accumulated in float64."""
        if X.ndim != 2 or X.shape[0] != self.shape[0]:
            raise InputError(f"expected X [{self.shape[0]}, K], got shape {tuple(X.shape)}")
        result = torch.zeros(self.shape[1], X.shape[1], dtype=torch.float64, device=self.device)
        for rows, block in self:
            result += block.T @ X[rows].to(block)
        return result

    def matmul(self, X: Tensor) -> Tensor:
        """Return ``Y X`` for ``X`` of shape ``[n, K]``, as a float64 ``[D, K]`` matrix."""
        return torch.cat([block @ X.to(block) for _, block in self])


class ColumnBlocks(RowBlocks):
    """Matrices ``[D, b_0], [D, b_1], ...`` side by side, read by blocks of rows as one.

    Args:
        parts: Tensors, HDF5 data sets, or :class:`RowBlocks`; at least one.
        budget: See :class:`RowBlocks`; for all parts together.
        device: Where the blocks are wanted; default where the first part is.

    Raises:
        InputError: If there are none, or they differ in their number of rows.
    """

    def __init__(
        self,
        parts: Sequence[Any],
        budget: int | None = None,
        device: torch.device | str | None = None,
    ):
        heights = {part.shape[0] for part in parts}
        if len(heights) != 1:
            raise InputError(f"expected blocks with the same number of rows, got {sorted(heights)}")
        self.parts = [
            part if isinstance(part, RowBlocks) else RowBlocks(part, budget, device)
            for part in parts
        ]
        width = sum(part.shape[1] for part in self.parts)
        self._plan_blocks((heights.pop(), width), budget, device or self.parts[0].device)

    @property
    def eps(self) -> float:
        """Unit round-off of the coarsest dtype in which a part is stored."""
        return max(part.eps for part in self.parts)

    def stored(self, rows: slice) -> Tensor:
        """Return consecutive rows in float64, which holds whatever the parts hold."""
        block = torch.empty(
            rows.stop - rows.start, self.shape[1], dtype=torch.float64, device=self.device
        )
        widths = [part.shape[1] for part in self.parts]
        for part, columns in zip(self.parts, block.split(widths, dim=1), strict=True):
            columns.copy_(part.stored(rows))
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
