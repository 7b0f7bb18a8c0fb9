"""Blocks of vectors in memory and the products with them: what methods in rounds share."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from .adapters import computing_in
from .core.krylov import (
    BasisStep,
    extend_basis,
    unit_columns,
    warm_columns,
    write_starting_block,
)
from .core.products import MatrixColumns, MeasurementRows, linmeas_batch_torch
from .core.rayleigh_ritz import solve_rayleigh_ritz
from .errors import InputError
from .operands import check_operand
from .results import Eigh
from .ssrft import SSRFT
from .symmetry import check_symmetric


def check_batch_size(batch_size: int) -> None:
    """Raise :class:`InputError` unless products have a vector at least."""
    if batch_size < 1:
        raise InputError(f"batch_size must be at least 1, got {batch_size}")


def check_warm_start(warm: Tensor, dim: int) -> None:
    """Raise :class:`InputError` unless these are some finite vectors ``[dim, m]``."""
    check_operand(warm, "start", f"[{dim}, m]")
    if warm.ndim != 2 or warm.shape[0] != dim or warm.shape[1] < 1:
        raise InputError(f"start: expected vectors [{dim}, m], got shape {tuple(warm.shape)}")
    if not bool(torch.isfinite(warm).all()):
        raise InputError("start: expected finite vectors, some numbers are NaN or infinite")


def batches(num: int, size: int) -> Iterator[range]:
    """Yield ``0 ... num - 1`` in ranges of ``size`` and a rest."""
    for begin in range(0, num, size):
        yield range(begin, min(begin + size, num))


class Rounds:
    """Blocks of vectors, and the products with them, of a method in rounds."""

    def __init__(
        self,
        op: Any,
        dtype: torch.dtype | None,
        device: torch.device | str | None,
        batch_size: int,
        memory_budget: int | None,
    ):
        self.op, self.dtype, self.device = computing_in(op, dtype, device)
        self.batch_size, self.memory_budget = batch_size, memory_budget
        self.blocks: list[Tensor] = []
        self.num_products = 0

    def check(self, rank: int, block_size: int, num_rounds: int = 1) -> None:
        """Raise :class:`InputError` for sizes that cannot be."""
        if self.op.shape[0] != self.op.shape[1]:
            raise InputError(f"expected a square operator, got shape {self.op.shape}")
        D, columns = self.op.shape[0], num_rounds * block_size
        if not (1 <= block_size <= D and 1 <= rank <= min(columns, D)):
            raise InputError(
                f"expected blocks of 1 ... {D} columns and 1 <= rank <= {min(columns, D)}, "
                f"got {num_rounds} blocks of {block_size} columns and rank {rank}"
            )
        check_batch_size(self.batch_size)
        check_symmetric(self.op.wrapped)

    def start(self, num: int, seed: int, warm: Tensor | None = None) -> Tensor:
        """Return the first vectors: ``Psi^T``, or some of ``warm`` and ``Psi^T`` for the others.

        Args:
            num: Number of vectors.
            seed: ``Psi`` has the next one.
            warm: ``[D, m]``, of any scale; see :func:`~skerch.core.krylov.warm_columns`. They are
                orthonormalised together, which leaves out what depends on others.

        Returns:
            Orthonormal columns, ``[D, num]`` or, of a dependent ``warm``, fewer.

        Raises:
            InputError: If ``warm`` is not a finite tensor of ``D`` rows.
        """
        D, shared = self.op.shape[0], 0
        if warm is not None:
            check_warm_start(warm, D)
            shared = warm_columns(warm.shape[1], num)
        start = torch.empty(D, num, dtype=self.dtype, device=self.device)
        if warm is not None:
            start[:, :shared] = unit_columns(warm[:, :shared].detach())
        fresh = SSRFT((num - shared, D), seed + 1, self.device)
        write_starting_block(fresh, start[:, shared:], self.memory_budget)
        if not shared:
            return start
        extend_basis([], start, [], self.create, self.memory_budget)
        return self.blocks.pop()

    def create(self, width: int) -> Tensor:
        """Add a block to be filled."""
        block = torch.empty(self.op.shape[0], width, dtype=self.dtype, device=self.device)
        self.blocks.append(block)
        return block

    def multiply(self, block: Tensor) -> Tensor:
        """Return ``H`` times the block, ``[D, n]``, in batches."""
        return self.multiply_rows(MatrixColumns(block, self.device), block.shape[1])

    def multiply_rows(self, rows: MeasurementRows, n: int) -> Tensor:
        """Return ``H`` times the first ``n`` rows, ``[D, n]``, in batches."""
        products = torch.empty(self.op.shape[0], n, dtype=self.dtype, device=self.device)
        for idxs in batches(n, self.batch_size):
            products[:, idxs.start : idxs.stop] = linmeas_batch_torch(
                idxs, self.op, rows, self.dtype
            )
        self.num_products += n
        return products

    def extend(self, products: Tensor, steps: Sequence[BasisStep]) -> BasisStep:
        """Add the next block, made of products with the last one."""
        return extend_basis(self.blocks, products, steps, self.create, self.memory_budget)

    def solve(
        self,
        products: Tensor,
        steps: Sequence[BasisStep],
        rank: int,
        num_rounds: int | None = None,
    ) -> Eigh:
        """Recover eigenpairs from all blocks and the products with the last one."""
        return solve_rayleigh_ritz(
            self.blocks,
            products,
            steps,
            rank,
            num_rounds=num_rounds,
            num_products=self.num_products,
            memory_budget=self.memory_budget,
        )
