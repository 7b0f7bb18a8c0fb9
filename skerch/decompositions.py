"""Sketched decompositions of operators in memory [TYUC2019, section 2]."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .distributed_decompositions import (
    Eigh,
    check_sizes,
    orthogonalize,
    solve_core_seigh,
    solve_core_ssvd,
    truncate_core,
)
from .distributed_measurements import innermeas_batch_torch
from .row_blocks import RowBlocks
from .ssrft import SSRFT, work_bytes
from .utils import InputError, default_memory_budget

__all__ = ["Ssvd", "seigh", "ssvd", "truncate_core"]


def seigh(
    op: Any,
    outer: int,
    inner: int,
    seed: int,
    dtype: torch.dtype = torch.float64,
    device: torch.device | str = "cpu",
    block_size: int = 64,
    symmetrize: bool = True,
    memory_budget: int | None = None,
) -> Eigh:
    """Sketched eigendecomposition of a symmetric operator ``H``.

    Cost: ``inner`` products ``H @ v``, ``block_size`` at a time, and two passes over the
    ``[D, outer]`` measurements.

    Args:
        op: Symmetric ``[D, D]`` operator with ``op @ X``.
        outer: Number of outer measurements ``n_o``, the rank of the result.
        inner: Number of inner measurements ``n_i >= n_o``, usually ``2 n_o``.
        seed: ``Phi`` has this seed, ``Psi`` the next one.
        dtype: In which the operator computes.
        device: Where the operator computes.
        block_size: Vectors per product, fewer if the budget is small.
        symmetrize: See :func:`~skerch.distributed_decompositions.solve_core_seigh`.
        memory_budget: Bytes, default a quarter of the machine; the memory of ``op`` comes on top.

    Raises:
        InputError: If sizes are impossible, or the measurements do not fit into the budget; the
            line says what is needed and what would fit.
    """
    if op.shape[0] != op.shape[1]:
        raise InputError(f"seigh needs a square operator, got shape {tuple(op.shape)}")
    check_sizes(op.shape, outer, inner)
    if block_size < 1:
        raise InputError(f"block_size must be at least 1, got {block_size}")
    D = op.shape[0]
    budget = default_memory_budget() if memory_budget is None else memory_budget
    left = budget_beside_measurements(budget, D, outer, inner, dtype)
    # A vector, its product, and what is on its way from one to the other.
    block_size = min(block_size, max(1, left // (4 * D * _itemsize(dtype))))
    Phi, Psi = SSRFT((inner, D), seed, device), SSRFT((inner, D), seed + 1, device)
    Y = torch.empty(D, outer, dtype=dtype, device=device)
    W = torch.empty(inner, inner, dtype=dtype, device=device)
    for begin in range(0, inner, block_size):
        idxs = range(begin, min(begin + block_size, inner))
        block = innermeas_batch_torch(idxs, op, Phi, Psi, dtype)
        W[:, idxs.start : idxs.stop] = block.inner
        if begin < outer:
            Y[:, begin : begin + block_size] = block.outer[:, : outer - begin]
    return solve_core_seigh(RowBlocks(Y, left), W, Psi, symmetrize)


def _itemsize(dtype: torch.dtype) -> int:
    return torch.empty(0, dtype=dtype).element_size()


def budget_beside_measurements(
    budget: int, dim: int, outer: int, inner: int, dtype: torch.dtype
) -> int:
    """Return what a memory budget leaves beside ``Y`` ``[dim, outer]`` and ``W`` in memory.

    Raises:
        InputError: If too little is left; the line says what is needed and what would fit.
    """
    held = _itemsize(dtype) * (dim * outer + inner**2)
    needed = held + work_bytes(dim, 1, dtype)
    if needed > budget:
        fitting = max(0, int(outer * (budget - needed + held) / held))
        raise InputError(
            f"{outer} outer and {inner} inner measurements of a {dim} x {dim} matrix in memory "
            f"need {needed / 1e9:.3g} GB, the memory budget is {budget / 1e9:.3g} GB; about "
            f"{fitting} outer ones would fit, or measure into a store"
        )
    return budget - held


@dataclass(frozen=True)
class Ssvd:
    """``A ~ (Q_left U) diag(S) (Vh Q_right^T)``; ``Q_left [H, r]``, ``Q_right [W, r]``."""

    Q_left: Tensor
    U: Tensor
    S: Tensor
    Vh: Tensor
    Q_right: Tensor

    def to_dense(self) -> Tensor:
        """Return the approximation as a ``[H, W]`` matrix."""
        return (self.Q_left @ self.U * self.S) @ (self.Vh @ self.Q_right.T)

    def truncated(self, k: int) -> Ssvd:
        """Return the approximation by the first ``k`` triplets."""
        S, U, Vh = truncate_core(k, self.S, self.U, self.Vh)
        return Ssvd(self.Q_left, U, S, Vh, self.Q_right)


def ssvd(
    op: Any,
    outer: int,
    inner: int,
    seed: int,
    dtype: torch.dtype = torch.float64,
    device: torch.device | str = "cpu",
) -> Ssvd:
    """Sketched singular value decomposition of any operator ``A`` of shape ``[H, W]``.

    Seeds: left outer, right outer, left inner, right inner are ``seed ... seed + 3``.

    Cost: ``outer + inner`` products ``A @ v`` and ``outer`` products ``v @ A``.
    """
    check_sizes(op.shape, outer, inner)
    height, width = op.shape
    left_outer = SSRFT((outer, height), seed, device)
    right_outer = SSRFT((outer, width), seed + 1, device)
    Phi, Psi = SSRFT((inner, height), seed + 2, device), SSRFT((inner, width), seed + 3, device)
    Y_left = op @ right_outer.rows(range(outer), dtype).T
    Y_right = (left_outer.rows(range(outer), dtype) @ op).T
    W = (Phi @ (op @ Psi.rows(range(inner), dtype).T)).double()
    Q_left, Q_right = (_basis(Y) for Y in (Y_left, Y_right))
    U, S, Vh = solve_core_ssvd(Q_left, Q_right, W, Phi, Psi)
    return Ssvd(Q_left, U, S, Vh, Q_right)


def _basis(Y: Tensor) -> Tensor:
    blocks = RowBlocks(Y)
    return blocks.matmul(orthogonalize(blocks).T)
