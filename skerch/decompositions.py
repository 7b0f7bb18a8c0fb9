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

Operators are whatever :func:`skerch.as_linop` takes, and compute in float32 or float64; what they
compute in is what they say, or what one product more shows. Norms near the limits of the dtype are
refused in one line (:mod:`skerch.operands`).
"""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import Any, TypeVar

import torch
from torch import Tensor

from .a_priori import block_size as columns_per_round
from .a_priori import check_sizes
from .adapters import computing_in
from .budget import resolve_budget
from .core.krylov import BasisStep
from .core.nystrom import solve_nystrom
from .core.orthogonal import orthogonalize
from .core.products import innermeas_batch_torch, linmeas_batch_torch
from .core.row_blocks import RowBlocks
from .core.sketch import budget_beside_measurements, diagnosed_core_ssvd, solve_core_seigh
from .errors import InputError
from .operands import check_scale
from .planning import LEAST_BLOCK
from .results import Eigh, Ssvd, truncate_core
from .rounds import Rounds, batches, check_batch_size
from .ssrft import SSRFT
from .symmetry import check_symmetric
from .utils import check_finite

__all__ = [
    "Eigh",
    "Ssvd",
    "block_krylov",
    "hmt",
    "nystrom",
    "seigh",
    "ssvd",
    "truncate_core",
]

_Result = TypeVar("_Result", Eigh, Ssvd)


def seigh(
    op: Any,
    outer: int,
    inner: int | None = None,
    seed: int = 0,
    dtype: torch.dtype | None = None,
    *,
    device: torch.device | str | None = None,
    batch_size: int = 64,
    symmetrize: bool = True,
    memory_budget: int | None = None,
) -> Eigh:
    """Sketched eigendecomposition of a symmetric operator ``H``.

    Cost: ``inner`` products ``H @ v``, ``batch_size`` at a time, and two passes over the
    ``[D, outer]`` measurements.

    Args:
        op: Symmetric ``[D, D]`` operator, whatever :func:`skerch.as_linop` takes.
        outer: Number of outer measurements ``n_o``, the rank of the result.
        inner: Number of inner measurements ``n_i >= n_o``; default ``2 n_o``, or ``D``.
        seed: ``Phi`` has this seed, ``Psi`` the next one.
        dtype: In which the operator computes; default what it says.
        device: Where the operator computes; default what it says, or the CPU.
        batch_size: Vectors per product, fewer if the budget is small.
        symmetrize: See :func:`~skerch.core.sketch.solve_core_seigh`.
        memory_budget: Bytes, default a quarter of the machine; the memory of ``op`` comes on top.

    Raises:
        InputError: If sizes are impossible, or the measurements do not fit into the budget; the
            line says what is needed and what would fit.

    Example:
        >>> import torch
        >>> from skerch import seigh
        >>> H = torch.diag(0.5 ** torch.arange(100.0))
        >>> seigh(H, 10).S[:3].numpy().round(2).tolist()
        [1.0, 0.5, 0.25]
    """
    A, dtype, device = computing_in(op, dtype, device)
    if A.shape[0] != A.shape[1]:
        raise InputError(f"seigh needs a square operator, got shape {A.shape}")
    check_symmetric(A.wrapped)
    D = A.shape[0]
    inner = min(2 * outer, D) if inner is None else inner
    check_sizes(A.shape, outer, inner)
    check_batch_size(batch_size)
    budget = resolve_budget(memory_budget)
    left = budget_beside_measurements(budget, A.shape, outer, inner, dtype=dtype, rows=D)
    Phi, Psi = SSRFT((inner, D), seed, device), SSRFT((inner, D), seed + 1, device)
    Y = torch.empty(D, outer, dtype=dtype, device=device)
    W = torch.empty(inner, inner, dtype=dtype, device=device)
    for idxs in batches(inner, _fitting_batch(batch_size, left, D, dtype)):
        block = innermeas_batch_torch(idxs, A, Phi, Psi, dtype)
        W[:, idxs.start : idxs.stop] = block.inner
        if idxs.start < outer:
            Y[:, idxs.start : idxs.stop] = block.outer[:, : outer - idxs.start]
    found = solve_core_seigh(RowBlocks(Y, left), W, Psi, symmetrize)
    return _made_by(found, "seigh", dtype, outer=outer, inner=inner, seed=seed)


def _fitting_batch(batch_size: int, left: int, dim: int, dtype: torch.dtype) -> int:
    # A vector, its product, and what is on its way from one to the other.
    return min(batch_size, max(1, left // (4 * dim * dtype.itemsize)))


def _made_by(
    result: _Result, method: str, dtype: torch.dtype, **arguments: str | int | float | bool
) -> _Result:
    """Return the result with its provenance: the method, and what decides about its numbers."""
    facts = {"method": method, "dtype": str(dtype).removeprefix("torch."), **arguments}
    return replace(result, provenance=facts)


def _named(start: Tensor | None) -> dict[str, Any]:
    """Return what the provenance says of a start: a hash of its numbers; nothing without one."""
    if start is None:
        return {}
    values = start.detach().cpu().contiguous().numpy()
    return {"start": hashlib.sha256(values.data).hexdigest()}


def hmt(
    op: Any,
    rank: int,
    seed: int = 0,
    dtype: torch.dtype | None = None,
    *,
    device: torch.device | str | None = None,
    batch_size: int = 64,
    memory_budget: int | None = None,
    start: Tensor | None = None,
) -> Eigh:
    """Range finder, then Rayleigh-Ritz, for a symmetric operator ``H`` [HMT2011, 4.1 and 5.3].

    ``Q`` is an orthonormal basis of ``H Psi^T`` with the SSRFT ``Psi`` (``[rank, D]``), and the
    result has the eigenpairs of ``Q Q^T H Q Q^T``.

    Cost: two passes of ``rank`` products each, ``batch_size`` at a time.

    Args:
        op: Symmetric ``[D, D]`` operator, whatever :func:`skerch.as_linop` takes.
        rank: Rank of the result.
        seed: ``Psi`` has the seed ``seed + 1``, as in :func:`seigh`.
        dtype: In which the operator computes and the basis is stored; default what it says.
        device: Where the operator computes; default what it says, or the CPU.
        batch_size: Vectors per product.
        memory_budget: Bytes; see :class:`~skerch.core.row_blocks.RowBlocks`.
        start: Vectors ``[D, m]`` to begin with, best those of a similar operator by descending
            magnitude of its eigenvalues; see :func:`~skerch.core.krylov.warm_columns`. The first
            block always has random columns as well, and the result the same guarantees: residuals
            say what was reached.

    Returns:
        Up to ``rank`` pairs with their residual norms; see
        :func:`~skerch.core.rayleigh_ritz.solve_rayleigh_ritz`.

    Raises:
        InputError: If sizes are impossible, or ``start`` is.
        NumericalError: If products are not finite, or the operator is zero.

    Example:
        >>> import torch
        >>> from skerch import hmt
        >>> H = torch.diag(0.5 ** torch.arange(100.0))
        >>> result = hmt(H, 10)
        >>> bool(result.residual_norms[0] < 0.01), result.num_products
        (True, 20)
    """
    rounds = Rounds(op, dtype, device, batch_size, memory_budget)
    rounds.check(rank, rank)
    products = rounds.multiply(rounds.start(rank, seed, start))
    rounds.extend(products, [])
    found = rounds.solve(rounds.multiply(rounds.blocks[0]), [], rank)
    arguments = {"rank": rank, "seed": seed} | _named(start)
    return _made_by(found, "hmt", rounds.dtype, **arguments)


def nystrom(
    op: Any,
    rank: int,
    seed: int = 0,
    num_products: int | None = None,
    dtype: torch.dtype | None = None,
    *,
    device: torch.device | str | None = None,
    batch_size: int = 64,
    memory_budget: int | None = None,
) -> Eigh:
    """Truncated Nystrom approximation of a symmetric operator ``H`` in one pass [NP2023].

    More accurate than :func:`seigh` at as many products, and than :func:`hmt` in many cases; it
    keeps all of them, where :func:`seigh` keeps a half. Positive semi-definite operators are the
    case in which nothing is cut [TYUC2017]. See :mod:`skerch.core.nystrom`.

    Cost: one pass of ``num_products`` products, ``batch_size`` at a time.

    Args:
        op: Symmetric ``[D, D]`` operator, whatever :func:`skerch.as_linop` takes.
        rank: Rank of the result.
        seed: The test vectors are the rows of an SSRFT ``[num_products, D]`` of seed ``seed + 1``.
        num_products: At least ``rank``; default twice that, or ``D``.
        dtype: In which the operator computes and products are stored; default what it says.
        device: Where the operator computes; default what it says, or the CPU.
        batch_size: Vectors per product.
        memory_budget: Bytes; see :class:`~skerch.core.row_blocks.RowBlocks`.

    Returns:
        Up to ``rank`` pairs; see :func:`~skerch.core.nystrom.solve_nystrom`.

    Raises:
        InputError: If sizes are impossible.
        NumericalError: If products are not finite, or the operator is zero.

    Example:
        >>> import torch
        >>> from skerch import nystrom
        >>> H = torch.diag((-0.5) ** torch.arange(100.0))
        >>> nystrom(H, 10).S[:3].numpy().round(3).tolist()
        [1.0, -0.5, 0.25]
    """
    rounds = Rounds(op, dtype, device, batch_size, memory_budget)
    num = min(2 * rank, rounds.op.shape[0]) if num_products is None else num_products
    rounds.check(rank, num)
    Psi = SSRFT((num, rounds.op.shape[0]), seed + 1, rounds.device)
    Y = RowBlocks(rounds.multiply_rows(Psi, num), memory_budget)
    found = solve_nystrom(Y, Psi, rank)
    return _made_by(found, "nystrom", rounds.dtype, rank=rank, seed=seed, num_products=num)


def block_krylov(
    op: Any,
    rank: int,
    num_rounds: int = 4,
    block_size: int | None = None,
    seed: int = 0,
    dtype: torch.dtype | None = None,
    *,
    device: torch.device | str | None = None,
    batch_size: int = 64,
    memory_budget: int | None = None,
    start: Tensor | None = None,
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
        op: Symmetric ``[D, D]`` operator, whatever :func:`skerch.as_linop` takes.
        rank: Rank of the result, at most ``num_rounds * block_size``; half of it is a good choice.
        num_rounds: Passes over the operator.
        block_size: Columns of a block; default such that all rounds make ``2 rank`` products, but
            :data:`~skerch.planning.LEAST_BLOCK` at least and ``D`` at most.
        seed: ``Psi`` has the seed ``seed + 1``, as in :func:`seigh`.
        dtype: In which the operator computes and the basis is stored; default what it says.
        device: Where the operator computes; default what it says, or the CPU.
        batch_size: Vectors per product.
        memory_budget: Bytes; see :class:`~skerch.core.row_blocks.RowBlocks`.
        start: Vectors ``[D, m]`` to begin with, best those of a similar operator by descending
            magnitude of its eigenvalues; see :func:`~skerch.core.krylov.warm_columns`. The first
            block always has random columns as well, and the result the same guarantees: residuals
            say what was reached.

    Returns:
        Up to ``rank`` pairs with their residual norms; see
        :func:`~skerch.core.rayleigh_ritz.solve_rayleigh_ritz`.

    Raises:
        InputError: If sizes are impossible, or ``start`` is.
        NumericalError: If products are not finite, or the operator is zero.

    Example:
        >>> import torch
        >>> from skerch import block_krylov
        >>> H = torch.diag(torch.arange(1.0, 101.0).double())
        >>> block_krylov(H, 3, num_rounds=10).S.numpy().round(3).tolist()
        [100.0, 99.0, 98.0]
    """
    rounds = Rounds(op, dtype, device, batch_size, memory_budget)
    if num_rounds < 1:
        raise InputError(f"num_rounds must be at least 1, got {num_rounds}")
    if block_size is None:
        least = max(columns_per_round(2 * rank, num_rounds), LEAST_BLOCK)
        block_size = min(least, rounds.op.shape[0])
    rounds.check(rank, block_size, num_rounds)
    rounds.blocks.append(rounds.start(block_size, seed, start))
    products = rounds.multiply(rounds.blocks[0])
    steps: list[BasisStep] = []
    for _ in range(num_rounds - 1):
        step = rounds.extend(products, steps)
        if step.rank == 0:
            break
        steps.append(step)
        products = rounds.multiply(rounds.blocks[-1])
    found = rounds.solve(products, steps, rank, num_rounds)
    arguments = {"rank": rank, "num_rounds": num_rounds, "block_size": block_size, "seed": seed}
    return _made_by(found, "block_krylov", rounds.dtype, **arguments, **_named(start))


def ssvd(
    op: Any,
    outer: int,
    inner: int | None = None,
    seed: int = 0,
    dtype: torch.dtype | None = None,
    *,
    device: torch.device | str | None = None,
    batch_size: int = 64,
    memory_budget: int | None = None,
) -> Ssvd:
    """Sketched singular value decomposition of any operator ``A`` of shape ``[H, W]``.

    Cost: ``outer + inner`` products ``A @ v`` and ``outer`` products ``v @ A``, ``batch_size`` at a
    time.

    Args:
        op: ``[H, W]`` operator with ``X @ op``, whatever :func:`skerch.as_linop` takes.
        outer: Number of outer measurements of each side, the rank of the result.
        inner: Number of inner measurements, at least ``outer``; default twice as many, or
            ``min(H, W)``.
        seed: Left outer, right outer, left inner, right inner SSRFTs have ``seed ... seed + 3``.
        dtype: In which the operator computes; default what it says.
        device: Where the operator computes; default what it says, or the CPU.
        batch_size: Vectors per product, fewer if the budget is small.
        memory_budget: Bytes, default a quarter of the machine; the memory of ``op`` comes on top,
            and that of the result, ``16 (H + W) outer`` bytes while it is made.

    Raises:
        InputError: If sizes are impossible, or the measurements do not fit into the budget; the
            line says what is needed and what would fit.

    Example:
        >>> import torch
        >>> from skerch import ssvd
        >>> A = torch.zeros(60, 40)
        >>> A[:3, :3] = torch.diag(torch.tensor([3.0, 2.0, 1.0]))
        >>> ssvd(A, 3).S.numpy().round(3).tolist()
        [3.0, 2.0, 1.0]
    """
    A, dtype, device = computing_in(op, dtype, device)
    height, width = A.shape
    inner = min(2 * outer, *A.shape) if inner is None else inner
    check_sizes(A.shape, outer, inner)
    check_batch_size(batch_size)
    budget, rows = resolve_budget(memory_budget), height + width
    left = budget_beside_measurements(budget, A.shape, outer, inner, dtype=dtype, rows=rows)
    batch_size = _fitting_batch(batch_size, left, max(height, width), dtype)
    left_outer = SSRFT((outer, height), seed, device)
    right_outer = SSRFT((outer, width), seed + 1, device)
    Phi, Psi = SSRFT((inner, height), seed + 2, device), SSRFT((inner, width), seed + 3, device)
    Y_left = torch.empty(height, outer, dtype=dtype, device=device)
    Y_right = torch.empty(width, outer, dtype=dtype, device=device)
    W = torch.empty(inner, inner, dtype=torch.float64, device=device)
    for idxs in batches(outer, batch_size):
        columns = slice(idxs.start, idxs.stop)
        Y_left[:, columns] = linmeas_batch_torch(idxs, A, right_outer, dtype)
        Y_right[:, columns] = linmeas_batch_torch(idxs, A, left_outer, dtype, adjoint=True)
    for idxs in batches(inner, batch_size):
        W[:, idxs.start : idxs.stop] = innermeas_batch_torch(idxs, A, Phi, Psi, dtype).inner
    check_finite(W, "inner measurements")
    check_scale(float(W.abs().max()), torch.finfo(dtype).eps, "inner measurements")
    Q_left, Q_right = (_basis(Y, left) for Y in (Y_left, Y_right))
    core = diagnosed_core_ssvd(Q_left, Q_right, W, Phi, Psi)
    found = Ssvd(Q_left, *core[:3], Q_right, core[3], 2 * outer + inner)
    return _made_by(found, "ssvd", dtype, outer=outer, inner=inner, seed=seed)


def _basis(Y: Tensor, budget: int) -> Tensor:
    blocks = RowBlocks(Y, budget)
    return blocks.matmul(orthogonalize(blocks).T)
