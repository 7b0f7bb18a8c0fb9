"""Orthonormal bases that grow by blocks, in memory or on disk, in single or double precision.

A basis is ``V = [V_0, V_1, ...]`` with blocks ``[D, b_r]``, tensors or HDF5 data sets, that are
read by blocks of rows within a memory budget. Stored numbers have round-off; whatever is
accumulated over rows is in double precision, and the Gram matrix ``V^T V`` of the *stored* basis is
kept, so that its deviation from the identity is accounted for and not neglected.

See :mod:`skerch.core.rayleigh_ritz` for what bases are good for.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor

from ..budget import resolve_budget, rows_within
from ..errors import InputError, NumericalError
from ..operands import check_scale
from ..ssrft import SSRFT
from ..utils import check_finite, product_round_off
from .orthogonal import triangular_factor
from .row_blocks import ColumnBlocks, RowBlocks

log = logging.getLogger(__name__)

#: Makes the ``[D, n]`` tensor or data set that a block of ``n`` columns is written into.
Create = Callable[[int], Any]

#: A unit vector of which projecting leaves less than this (squared) lies in the basis already:
#: "twice is enough" [Parlett, The symmetric eigenvalue problem, 6.9].
MIN_LEFT_SQUARED = 0.25

#: ``max |V^T V - I|`` beyond which blocks cannot be a basis that this module made.
MAX_NON_ORTHOGONALITY = 1e-3

#: Share of the columns of a first block that is random, whatever else it is made of. A start that
#: knows nothing of a direction would hide it for ever: powers of the operator leave an invariant
#: subspace that is orthogonal to it as it is.
FRESH_SHARE = 0.1


def warm_columns(available: int, width: int) -> int:
    """Return how many of ``available`` vectors a first block of ``width`` columns begins with.

    The others, :data:`FRESH_SHARE` and one at least, are random.

    Example:
        >>> from skerch.core.krylov import warm_columns
        >>> warm_columns(355, 355), warm_columns(100, 355), warm_columns(5, 1)
        (319, 100, 0)
    """
    return min(available, width - max(1, math.ceil(FRESH_SHARE * width)))


def unit_columns(X: Tensor) -> Tensor:
    """Return the columns of ``[D, m]`` with norm 1, as random ones have; zero ones as they are.

    Of larger ones beside them, the random ones would be no more than round-off.
    """
    X = X / X.abs().amax(dim=0).clamp_min(torch.finfo(X.dtype).tiny)  # squares could overflow
    norms: Tensor = torch.linalg.vector_norm(X, dim=0)
    return X / norms.clamp_min(torch.finfo(X.dtype).tiny)


def write_starting_block(Psi: SSRFT, out: Any, memory_budget: int | None = None) -> None:
    """Write ``Psi^T``, whose columns are orthonormal, into a tensor or data set ``[D, n]``.

    Args:
        Psi: The SSRFT, ``[n, D]``.
        out: Where to; its dtype is the one in which the transforms are computed.
        memory_budget: Bytes to hold at once.
    """
    n, D = Psi.shape
    budget = resolve_budget(memory_budget)
    dtype = out.dtype if isinstance(out, Tensor) else torch.from_numpy(out[:0]).dtype
    # Rows, their transpose, and the complex work space of the transforms.
    step = rows_within(budget, 8 * 8 * D, "making one row of an SSRFT")
    for begin in range(0, n, step):
        idxs = range(begin, min(begin + step, n))
        _write(out, (slice(None), slice(idxs.start, idxs.stop)), Psi.rows(idxs, dtype).T)


@dataclass(frozen=True)
class BasisStep:
    """Small matrices of one round, with ``m`` columns of basis so far and ``n`` new products ``P``.

    Attributes:
        gram: ``V^T V_r`` with the last block ``V_r`` (``[D, b]``), ``[m, b]``.
        rayleigh: ``V^T P``, ``[m, n]``.
        remainder: ``B`` (``[rank, n]``) with ``P = V C + V_next B`` for some ``C``.
    """

    gram: Tensor
    rayleigh: Tensor
    remainder: Tensor

    @property
    def rank(self) -> int:
        """Number of columns of the next block; 0 if the basis is invariant under the operator."""
        return len(self.remainder)

    def save(self, group: Any) -> None:
        """Write into an empty HDF5 group, one data set for each matrix."""
        for entry in fields(self):
            group.create_dataset(entry.name, data=getattr(self, entry.name).cpu().numpy())

    @classmethod
    def load(cls, group: Any) -> BasisStep:
        """Read what :meth:`save` wrote."""
        return cls(**{e.name: torch.from_numpy(group[e.name][()]) for e in fields(cls)})


def extend_basis(
    blocks: Sequence[Any],
    products: Any,
    steps: Sequence[BasisStep],
    create: Create,
    memory_budget: int | None = None,
    device: torch.device | str | None = None,
) -> BasisStep:
    """Orthonormalise products against the basis and write the next block.

    Project and normalise, then both once more, because the first time leaves round-off that is
    large compared with small remainders. Directions of which no more is left than the round-off of
    the products, :func:`~skerch.utils.product_round_off` with the norm that all rounds so far show,
    are dropped.

    Cost: no product with the operator; four passes over basis and products, or seven where the
    budget does not hold a remainder ``[D, n]``; about ``10 D m n`` operations (or ``14``).

    Args:
        blocks: The basis so far, ``[D, b_r]`` each; empty for the range finder.
        products: ``H`` times the last block (for the range finder, times anything), ``[D, n]``.
        steps: Results of the rounds before, one for each block but the last.
        create: Called once with the rank of the new block, unless that is 0.
        memory_budget: Bytes to hold at once, beside what ``create`` makes; default a quarter of the
            machine.
        device: Where to compute.

    Raises:
        InputError: If shapes and numbers do not fit.
        NumericalError: If the products are not finite, or all zero.
    """
    budget = resolve_budget(memory_budget)
    round_ = project_out(blocks, products, steps, budget, device)
    D, n = round_.remainder.shape
    _, S, Vh = torch.linalg.svd(round_.factor)
    kept = int((product_round_off(D, round_.eps, round_.norm) < S).sum())
    kept = min(kept, D - len(round_.cholesky))
    T, undo = Vh[:kept].T / S[:kept], S[:kept, None] * Vh[:kept]
    if kept:
        Q = _project_again(blocks, round_, T, budget, device)
        gram = torch.zeros(kept, kept, dtype=torch.float64, device=Q.device)
        for _, block in Q:
            gram += block.T @ block
        left, E = torch.linalg.eigh(gram)
        outside = left > MIN_LEFT_SQUARED
        left, E = left[outside].sqrt(), E[:, outside]
        undo = (E * left).T @ undo
    step = BasisStep(round_.gram, round_.rayleigh, undo)
    if step.rank:
        out = create(step.rank)
        for rows, block in Q:
            _write(out, rows, block @ (E / left))
    if step.rank < n:
        log.warning("%d of %d new directions lie outside of the basis", step.rank, n)
    return step


class Combination(RowBlocks):
    """``X T - V C``, computed anew whenever its rows are read.

    Args:
        basis_and_X: ``[V, X]`` side by side.
        coefficients: ``C``, ``[m, k]``.
        factor: ``T``, ``[n, k]``; default the identity.
    """

    def __init__(
        self, basis_and_X: ColumnBlocks, coefficients: Tensor, factor: Tensor | None = None
    ):
        self.reader, self.coefficients, self.factor = basis_and_X, coefficients, factor
        shape = basis_and_X.shape[0], coefficients.shape[1]
        self._plan_blocks(shape, basis_and_X.budget, basis_and_X.device)
        self.block_rows = basis_and_X.block_rows

    @property
    def eps(self) -> float:
        """Unit round-off of the coarsest dtype that is read."""
        return self.reader.eps

    def stored(self, rows: slice) -> Tensor:
        """Return consecutive rows in float64."""
        both, m = self.reader.read(rows), len(self.coefficients)
        X = both[:, m:] if self.factor is None else both[:, m:] @ self.factor
        return torch.addmm(X, both[:, :m], self.coefficients, alpha=-1) if m else X

    def held(self, budget: int) -> RowBlocks:
        """Return it as a tensor if ``budget`` allows, otherwise itself."""
        if 8 * self.shape[0] * self.shape[1] > budget:
            return self
        values = torch.empty(self.shape, dtype=torch.float64, device=self.device)
        for rows, block in self:
            values[rows] = block
        return RowBlocks(values, self.budget)


@dataclass(frozen=True)
class Projection:
    """Products ``P = V C + remainder`` of a round, projected for the first time.

    Attributes:
        gram, rayleigh: See :class:`BasisStep`.
        cholesky: ``L`` with ``V^T V = L L^T``, ``[m, m]``.
        orthogonality: ``max |V^T V - I|``.
        remainder: ``[D, n]``.
        factor: Triangular factor of the remainder, ``[n, n]``.
        norm: The largest norm of the operator that any round so far shows.
        eps: Machine epsilon of what is stored.
    """

    gram: Tensor
    rayleigh: Tensor
    cholesky: Tensor
    orthogonality: float
    remainder: RowBlocks
    factor: Tensor
    norm: float
    eps: float


def project_out(
    blocks: Sequence[Any],
    products: Any,
    steps: Sequence[BasisStep],
    budget: int,
    device: torch.device | str | None,
) -> Projection:
    """Project the products of a round out of the basis; see :func:`extend_basis`.

    Raises:
        InputError: If shapes and numbers do not fit.
        NumericalError: If the products are not finite, or all zero.
    """
    last = blocks[-1].shape[1] if blocks else 0
    widths = [block.shape[1] for block in blocks[1:]]
    if (blocks and products.shape[1] != last) or [step.rank for step in steps] != widths:
        raise InputError(
            f"expected products of the last block and one step for each block before it, got "
            f"blocks of {[block.shape[1] for block in blocks]} columns, {products.shape[1]} "
            f"products and steps of rank {[step.rank for step in steps]}"
        )
    reader = ColumnBlocks([*blocks, products], budget // 2, device)
    n = products.shape[1]
    m = reader.shape[1] - n
    inner = torch.zeros(m, last + n, dtype=torch.float64, device=reader.device)
    if blocks:
        for _, block in reader:
            inner += block[:, :m].T @ block[:, m - last :]
    gram, rayleigh = inner[:, :last], inner[:, last:]
    L, orthogonality = cholesky_of_basis(
        symmetric_from_columns([*(s.gram.to(inner) for s in steps), gram])
    )
    C = torch.cholesky_solve(rayleigh, L) if blocks else rayleigh
    remainder = Combination(reader, C).held(budget // 4)
    factor = triangular_factor(remainder)
    inside_and_outside = torch.cat([L.T @ C, factor])
    check_finite(inside_and_outside, "products")
    before = max((float(step.rayleigh.norm(dim=0).max()) for step in steps), default=0.0)
    check_scale(max(float(inside_and_outside.abs().max()), before), reader.eps, "products")
    norm = float(torch.linalg.matrix_norm(inside_and_outside, 2))
    if norm == 0:
        raise NumericalError("the products are all zero: the operator has no range")
    norm = max(norm, before)
    return Projection(gram, rayleigh, L, orthogonality, remainder, factor, norm, reader.eps)


def _project_again(
    blocks: Sequence[Any],
    first: Projection,
    T: Tensor,
    budget: int,
    device: torch.device | str | None,
) -> RowBlocks:
    """Return ``X - V V^+ X`` for the normalised remainder ``X = R T``, ``[D, k]``."""
    reader = ColumnBlocks([*blocks, first.remainder], budget // 2, device)
    m = len(first.cholesky)
    C = torch.zeros(m, T.shape[1], dtype=torch.float64, device=reader.device)
    if blocks:
        for _, block in reader:
            C += block[:, :m].T @ (block[:, m:] @ T)
        C = torch.cholesky_solve(C, first.cholesky)
    return Combination(reader, C, T).held(budget // 4)


def symmetric_from_columns(columns: Sequence[Tensor]) -> Tensor:
    """Return the symmetric ``[m, m]`` matrix whose block columns are known down to the diagonal."""
    m = len(columns[-1])
    upper = columns[-1].new_zeros(m, m)
    diagonal = torch.zeros_like(upper)
    for column in columns:
        height, width = column.shape
        upper[: height - width, height - width : height] = column[: height - width]
        diagonal[height - width : height, height - width : height] = column[height - width :]
    return upper + upper.T + (diagonal + diagonal.T) / 2


def cholesky_of_basis(gram: Tensor) -> tuple[Tensor, float]:
    """Return the Cholesky factor of ``V^T V`` and ``max |V^T V - I|``."""
    if not len(gram):
        return gram, 0.0
    check_finite(gram, "basis")
    off = float((gram - torch.eye(len(gram), dtype=gram.dtype, device=gram.device)).abs().max())
    if off > MAX_NON_ORTHOGONALITY:
        raise NumericalError(
            f"the stored basis is not orthonormal: V^T V is off by {off:.2g}, at most "
            f"{MAX_NON_ORTHOGONALITY} is expected; do all blocks belong together?"
        )
    return torch.linalg.cholesky(gram), off


def _write(out: Any, where: Any, values: Tensor) -> None:
    if isinstance(out, Tensor):
        out[where] = values.to(out)
    else:
        out[where] = values.cpu().numpy()
