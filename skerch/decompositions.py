"""Decompositions of operators in memory, from products with blocks of vectors alone.

========================  ==============  ==========================  =========
function                  passes          products, for rank ``k``    residuals
========================  ==============  ==========================  =========
:func:`seigh`             1               ``inner``, usually ``2 k``  no
:func:`nystrom`           1               usually ``2 k``             no
:func:`hmt`               2               ``2 k``                     yes
:func:`block_krylov`      ``num_rounds``  rounds * block size         yes
:func:`ssvd`              1               ``2 (outer) + inner``       no
========================  ==============  ==========================  =========

Products of one pass do not depend on each other. All share their mathematics with the routines for
measurements on disk: :mod:`skerch.core.sketch` and :mod:`skerch.core.rayleigh_ritz`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from .a_priori import check_sizes
from .budget import default_memory_budget
from .core.krylov import BasisStep, extend_basis, write_starting_block
from .core.orthogonal import orthogonalize
from .core.products import MatrixColumns, innermeas_batch_torch, linmeas_batch_torch
from .core.rayleigh_ritz import solve_nystrom, solve_rayleigh_ritz
from .core.row_blocks import RowBlocks
from .core.sketch import solve_core_seigh, solve_core_ssvd
from .errors import InputError
from .results import Eigh, Ssvd
from .ssrft import SSRFT, work_bytes

__all__ = ["block_krylov", "hmt", "nystrom", "seigh", "ssvd"]


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
        symmetrize: See :func:`~skerch.core.sketch.solve_core_seigh`.
        memory_budget: Bytes, default a quarter of the machine; the memory of ``op`` comes on top.

    Raises:
        InputError: If sizes are impossible, or the measurements do not fit into the budget; the
            line says what is needed and what would fit.
    """
    if op.shape[0] != op.shape[1]:
        raise InputError(f"seigh needs a square operator, got shape {tuple(op.shape)}")
    check_sizes(op.shape, outer, inner)
    _check_block_size(block_size)
    D = op.shape[0]
    budget = default_memory_budget() if memory_budget is None else memory_budget
    left = budget_beside_measurements(budget, op.shape, outer, inner, dtype, D)
    Phi, Psi = SSRFT((inner, D), seed, device), SSRFT((inner, D), seed + 1, device)
    Y = torch.empty(D, outer, dtype=dtype, device=device)
    W = torch.empty(inner, inner, dtype=dtype, device=device)
    for idxs in _blocks(inner, _fitting_block(block_size, left, D, dtype)):
        block = innermeas_batch_torch(idxs, op, Phi, Psi, dtype)
        W[:, idxs.start : idxs.stop] = block.inner
        if idxs.start < outer:
            Y[:, idxs.start : idxs.stop] = block.outer[:, : outer - idxs.start]
    return solve_core_seigh(RowBlocks(Y, left), W, Psi, symmetrize)


def _itemsize(dtype: torch.dtype) -> int:
    return torch.empty(0, dtype=dtype).element_size()


def budget_beside_measurements(
    budget: int, shape: tuple[int, int], outer: int, inner: int, dtype: torch.dtype, rows: int
) -> int:
    """Return what a memory budget leaves beside measurements in memory.

    Args:
        budget: Bytes.
        shape: Of the operator.
        outer: Number of outer measurements, of a side.
        inner: Number of inner measurements.
        dtype: Of the measurements.
        rows: Entries of outer measurements, of both sides where there are two.

    Raises:
        InputError: If too little is left; the line says what is needed and what would fit.
    """
    held = _itemsize(dtype) * (rows * outer + inner**2)
    needed = held + work_bytes(max(shape), 1, dtype)
    if needed > budget:
        fitting = max(0, int(outer * (budget - needed + held) / held))
        raise InputError(
            f"{outer} outer and {inner} inner measurements of a {shape[0]} x {shape[1]} matrix in "
            f"memory need {needed / 1e9:.3g} GB, the memory budget is {budget / 1e9:.3g} GB; about "
            f"{fitting} outer ones would fit, or measure into a store"
        )
    return budget - held


def _check_block_size(block_size: int) -> None:
    if block_size < 1:
        raise InputError(f"block_size must be at least 1, got {block_size}")


def _fitting_block(block_size: int, left: int, dim: int, dtype: torch.dtype) -> int:
    # A vector, its product, and what is on its way from one to the other.
    return min(block_size, max(1, left // (4 * dim * _itemsize(dtype))))


def _blocks(num: int, size: int) -> Iterator[range]:
    for begin in range(0, num, size):
        yield range(begin, min(begin + size, num))


def hmt(
    op: Any,
    rank: int,
    seed: int,
    dtype: torch.dtype = torch.float64,
    device: torch.device | str = "cpu",
    batch_size: int = 64,
    memory_budget: int | None = None,
) -> Eigh:
    """Range finder, then Rayleigh-Ritz, for a symmetric operator ``H`` [HMT2011, 4.1 and 5.3].

    ``Q`` is an orthonormal basis of ``H Psi^T`` with the SSRFT ``Psi`` (``[rank, D]``), and the
    result has the eigenpairs of ``Q Q^T H Q Q^T``.

    Cost: two passes of ``rank`` products each, ``batch_size`` at a time.

    Args:
        op: Symmetric ``[D, D]`` operator with ``op @ X``.
        rank: Rank of the result.
        seed: ``Psi`` has the seed ``seed + 1``, as in :func:`seigh`.
        dtype: In which the operator computes and the basis is stored.
        device: Where the operator computes.
        batch_size: Vectors per product.
        memory_budget: Bytes; see :class:`~skerch.core.row_blocks.RowBlocks`.

    Returns:
        Up to ``rank`` pairs with their residual norms; see
        :func:`~skerch.core.rayleigh_ritz.solve_rayleigh_ritz`.

    Raises:
        InputError: If sizes are impossible.
        NumericalError: If products are not finite, or the operator is zero.
    """
    rounds = _Rounds(op, dtype, device, batch_size, memory_budget)
    rounds.check(rank, rank)
    products = rounds.multiply(rounds.start(rank, seed))
    extend_basis([], products, [], rounds.create, memory_budget)
    products = rounds.multiply(rounds.blocks[0])
    return solve_rayleigh_ritz(
        rounds.blocks,
        products,
        [],
        rank,
        num_products=rounds.num_products,
        budget=memory_budget,
    )


def nystrom(
    op: Any,
    rank: int,
    seed: int,
    num_products: int | None = None,
    dtype: torch.dtype = torch.float64,
    device: torch.device | str = "cpu",
    batch_size: int = 64,
    memory_budget: int | None = None,
) -> Eigh:
    """Eigendecomposition of a positive semi-definite operator ``H`` in one pass [TYUC2017].

    Cost: one pass of ``num_products`` products, ``batch_size`` at a time.

    Args:
        op: Positive semi-definite ``[D, D]`` operator with ``op @ X``.
        rank: Rank of the result.
        seed: The test vectors are the rows of an SSRFT ``[num_products, D]`` of seed ``seed + 1``.
        num_products: At least ``rank``; default twice that, or ``D``.
        dtype: In which the operator computes and the basis is stored.
        device: Where the operator computes.
        batch_size: Vectors per product.
        memory_budget: Bytes; see :class:`~skerch.core.row_blocks.RowBlocks`.

    Returns:
        Up to ``rank`` pairs; see :func:`~skerch.core.rayleigh_ritz.solve_nystrom`.

    Raises:
        InputError: If sizes are impossible.
        NumericalError: If products are not finite, the operator is zero, or found out not to be
            positive semi-definite.
    """
    num = min(2 * rank, op.shape[0]) if num_products is None else num_products
    rounds = _Rounds(op, dtype, device, batch_size, memory_budget)
    rounds.check(rank, num)
    start = rounds.start(num, seed)
    return solve_nystrom(rounds.multiply(start), start, rank, rounds.create, memory_budget)


def block_krylov(
    op: Any,
    rank: int,
    num_rounds: int,
    block_size: int,
    seed: int,
    dtype: torch.dtype = torch.float64,
    device: torch.device | str = "cpu",
    batch_size: int = 64,
    memory_budget: int | None = None,
) -> Eigh:
    """Eigenpairs of a symmetric operator ``H`` from a block Krylov space [MM2015].

    ``V_0 = Psi^T`` with the SSRFT ``Psi`` (``[block_size, D]``). The basis of
    ``[V_0, H V_0, H^2 V_0, ...]`` is reorthogonalised in full, and the pairs are the Ritz pairs of
    the whole basis. Rounds end early where the basis becomes invariant; a block is narrower than
    ``block_size`` where its products are numerically dependent. Of an eigenvalue that is repeated
    more than ``block_size`` times, no more copies than that are found.

    Cost: ``num_rounds`` passes of ``block_size`` products each, ``batch_size`` at a time; with
    ``m = num_rounds * block_size`` about ``5 D m^2`` further operations, and ``D m`` numbers.

    Args:
        op: Symmetric ``[D, D]`` operator with ``op @ X``.
        rank: Rank of the result, at most ``num_rounds * block_size``; half of it is a good choice.
        num_rounds: Passes over the operator.
        block_size: Columns of a block.
        seed: ``Psi`` has the seed ``seed + 1``, as in :func:`seigh`.
        dtype: In which the operator computes and the basis is stored.
        device: Where the operator computes.
        batch_size: Vectors per product.
        memory_budget: Bytes; see :class:`~skerch.core.row_blocks.RowBlocks`.

    Returns:
        Up to ``rank`` pairs with their residual norms; see
        :func:`~skerch.core.rayleigh_ritz.solve_rayleigh_ritz`.

    Raises:
        InputError: If sizes are impossible.
        NumericalError: If products are not finite, or the operator is zero.
    """
    rounds = _Rounds(op, dtype, device, batch_size, memory_budget)
    if num_rounds < 1:
        raise InputError(f"num_rounds must be at least 1, got {num_rounds}")
    rounds.check(rank, block_size, num_rounds)
    rounds.blocks.append(rounds.start(block_size, seed))
    products = rounds.multiply(rounds.blocks[0])
    steps: list[BasisStep] = []
    for _ in range(num_rounds - 1):
        step = extend_basis(rounds.blocks, products, steps, rounds.create, memory_budget)
        if step.rank == 0:
            break
        steps.append(step)
        products = rounds.multiply(rounds.blocks[-1])
    return solve_rayleigh_ritz(
        rounds.blocks,
        products,
        steps,
        rank,
        num_rounds,
        budget=memory_budget,
    )


class _Rounds:
    """Blocks of vectors, and the products with them, of a method in rounds."""

    def __init__(
        self,
        op: Any,
        dtype: torch.dtype,
        device: torch.device | str,
        batch_size: int,
        budget: int | None,
    ):
        self.op, self.dtype, self.device = op, dtype, device
        self.batch_size, self.budget = batch_size, budget
        self.blocks: list[Tensor] = []
        self.num_products = 0

    def check(self, rank: int, block_size: int, num_rounds: int = 1) -> None:
        """Raise :class:`InputError` for sizes that cannot be."""
        if self.op.shape[0] != self.op.shape[1]:
            raise InputError(f"expected a square operator, got shape {tuple(self.op.shape)}")
        D, columns = self.op.shape[0], num_rounds * block_size
        if not (1 <= block_size <= D and 1 <= rank <= min(columns, D)):
            raise InputError(
                f"expected blocks of 1 ... {D} columns and 1 <= rank <= {min(columns, D)}, "
                f"got {num_rounds} blocks of {block_size} columns and rank {rank}"
            )
        if self.batch_size < 1:
            raise InputError(f"batch_size must be at least 1, got {self.batch_size}")

    def start(self, num: int, seed: int) -> Tensor:
        """Return ``Psi^T``, ``[D, num]``."""
        D = self.op.shape[0]
        start = torch.empty(D, num, dtype=self.dtype, device=self.device)
        write_starting_block(SSRFT((num, D), seed + 1, self.device), start, self.budget)
        return start

    def create(self, width: int) -> Tensor:
        """Add a block to be filled."""
        block = torch.empty(self.op.shape[0], width, dtype=self.dtype, device=self.device)
        self.blocks.append(block)
        return block

    def multiply(self, block: Tensor) -> Tensor:
        """Return ``H`` times the block, in batches."""
        products, n = torch.empty_like(block), block.shape[1]
        for idxs in _blocks(n, self.batch_size):
            columns = MatrixColumns(block, self.device)
            products[:, idxs.start : idxs.stop] = linmeas_batch_torch(
                idxs, self.op, columns, self.dtype
            )
        self.num_products += n
        return products


def ssvd(
    op: Any,
    outer: int,
    inner: int,
    seed: int,
    dtype: torch.dtype = torch.float64,
    device: torch.device | str = "cpu",
    block_size: int = 64,
    memory_budget: int | None = None,
) -> Ssvd:
    """Sketched singular value decomposition of any operator ``A`` of shape ``[H, W]``.

    Cost: ``outer + inner`` products ``A @ v`` and ``outer`` products ``v @ A``, ``block_size`` at a
    time.

    Args:
        op: ``[H, W]`` operator with ``op @ X`` and ``X @ op``.
        outer: Number of outer measurements of each side, the rank of the result.
        inner: Number of inner measurements, at least ``outer``, usually twice as many.
        seed: Left outer, right outer, left inner, right inner SSRFTs have ``seed ... seed + 3``.
        dtype: In which the operator computes.
        device: Where the operator computes.
        block_size: Vectors per product, fewer if the budget is small.
        memory_budget: Bytes, default a quarter of the machine; the memory of ``op`` comes on top,
            and that of the result, ``16 (H + W) outer`` bytes while it is made.

    Raises:
        InputError: If sizes are impossible, or the measurements do not fit into the budget; the
            line says what is needed and what would fit.
    """
    check_sizes(op.shape, outer, inner)
    _check_block_size(block_size)
    height, width = op.shape
    budget = default_memory_budget() if memory_budget is None else memory_budget
    left = budget_beside_measurements(budget, op.shape, outer, inner, dtype, height + width)
    block_size = _fitting_block(block_size, left, max(height, width), dtype)
    left_outer = SSRFT((outer, height), seed, device)
    right_outer = SSRFT((outer, width), seed + 1, device)
    Phi, Psi = SSRFT((inner, height), seed + 2, device), SSRFT((inner, width), seed + 3, device)
    Y_left = torch.empty(height, outer, dtype=dtype, device=device)
    Y_right = torch.empty(width, outer, dtype=dtype, device=device)
    W = torch.empty(inner, inner, dtype=torch.float64, device=device)
    for idxs in _blocks(outer, block_size):
        columns = slice(idxs.start, idxs.stop)
        Y_left[:, columns] = op @ right_outer.rows(idxs, dtype).T
        Y_right[:, columns] = (left_outer.rows(idxs, dtype) @ op).T
    for idxs in _blocks(inner, block_size):
        W[:, idxs.start : idxs.stop] = Phi @ (op @ Psi.rows(idxs, dtype).T)
    Q_left, Q_right = (_basis(Y, left) for Y in (Y_left, Y_right))
    U, S, Vh = solve_core_ssvd(Q_left, Q_right, W, Phi, Psi)
    return Ssvd(Q_left, U, S, Vh, Q_right)


def _basis(Y: Tensor, budget: int) -> Tensor:
    blocks = RowBlocks(Y, budget)
    return blocks.matmul(orthogonalize(blocks).T)
