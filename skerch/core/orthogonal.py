"""Orthonormal bases of tall matrices that are read by blocks of rows."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace

import scipy.linalg
import torch
from torch import Tensor

from ..errors import NumericalError
from ..utils import check_finite
from .row_blocks import RowBlocks

log = logging.getLogger(__name__)

#: Condition number of the preconditioned Gram matrix above which one pass is not trusted.
MAX_GRAM_CONDITION = 1e8

#: Directions of the measurements that are smaller than this, relatively, are not told from zero.
#: ``Q = Y T`` is never stored, and each product with a ``T`` that makes such a direction one long
#: cancels: ``Q`` would be orthonormal up to ``eps / 1e-11 = 2e-5`` times a modest factor, no more.
MIN_DIRECTION = 1e-11


@dataclass(frozen=True)
class OrthonormalFactor:
    """``Q = Y T`` with orthonormal columns.

    Attributes:
        T: ``[n_o, r]`` float64; ``r < n_o`` only if ``Y`` has numerically dependent columns.
        R: ``Q^T Y``, ``[r, n_o]`` float64: ``Y = Q R`` up to what was dropped.
        method: ``"cholesky_qr"`` (one pass) or ``"tsqr"`` (the fallback).
        condition: Condition number of what was factored.
    """

    T: Tensor
    R: Tensor
    method: str
    condition: float


def cholesky_qr(Y: RowBlocks, preconditioner: Tensor) -> OrthonormalFactor | None:
    """One-pass preconditioned Cholesky QR in float64.

    Accumulates the Gram matrix of ``Y R^-1``, with ``R`` from a QR of a sketch of ``Y``
    (``[m, n_o]`` with ``m >= n_o``), which is close to orthonormal already. Where ``R`` says that
    it loses no digit which ``Y`` has as it is stored, the Gram matrix of ``Y`` itself is taken:
    half of the work. ``Q`` is orthonormal up to round-off times the condition number of the Gram
    matrix, :data:`MAX_GRAM_CONDITION` at most.

    Returns:
        The factor, or ``None`` if the sketch or the Gram matrix is too ill-conditioned.
    """
    R = torch.linalg.qr(preconditioner.double()).R
    singular_values = torch.linalg.svdvals(R)
    condition = float(singular_values[0] / singular_values[-1].clamp_min(1e-300))
    round_off = torch.finfo(torch.float64).eps
    if condition < (Y.eps / 100 / round_off) ** 0.5 and (factor := _from_gram(Y, None)):
        return factor
    if not condition < 0.1 / round_off**0.75:
        return None
    return _from_gram(Y, R)


def _from_gram(Y: RowBlocks, preconditioner: Tensor | None) -> OrthonormalFactor | None:
    """Return the factor by the Gram matrix of ``Y P^-1`` (or of ``Y``), if that is trusted.

    ``P``, the preconditioner, is upper triangular.
    """
    n = Y.shape[1]
    eye = torch.eye(n, dtype=torch.float64, device=Y.device)
    R_inv = None
    if preconditioner is not None:
        R_inv = torch.linalg.solve_triangular(preconditioner, eye, upper=True)
    gram = torch.zeros(n, n, dtype=torch.float64, device=Y.device)
    for _, block in Y:
        _add_gram(gram, block if R_inv is None else _times_upper(block, R_inv))
    gram = gram.triu() + gram.triu(1).T
    R, info = torch.linalg.cholesky_ex(gram, upper=True)
    if int(info) != 0 or not (condition := float(torch.linalg.cond(gram))) < MAX_GRAM_CONDITION:
        return None
    T = torch.linalg.solve_triangular(R, eye if R_inv is None else R_inv, upper=True, left=False)
    R = R if preconditioner is None else R @ preconditioner
    return OrthonormalFactor(T, R, "cholesky_qr", condition)


def _column_groups(n: int) -> list[slice]:
    """Return few ranges of columns: products with triangular matrices leave out much of the zeros.

    With four of them three eighths of the work; narrower ones are multiplied less efficiently.
    """
    width = max(64, -(-n // 4))
    return [slice(begin, min(begin + width, n)) for begin in range(0, n, width)]


def _times_upper(block: Tensor, R: Tensor) -> Tensor:
    """Return ``block R`` for an upper triangular ``R``."""
    result = torch.empty_like(block)
    for columns in _column_groups(len(R)):
        torch.mm(block[:, : columns.stop], R[: columns.stop, columns], out=result[:, columns])
    return result


def _add_gram(gram: Tensor, block: Tensor) -> None:
    """Add ``block^T block`` to the upper triangle of ``gram``; the rest of it means nothing."""
    for columns in _column_groups(len(gram)):
        gram[: columns.stop, columns].addmm_(block[:, : columns.stop].T, block[:, columns])


def triangular_factor(Y: RowBlocks, T: Tensor | None = None) -> Tensor:
    """Return ``R`` (``[n, n]``, or ``[D, n]`` if ``D < n``) of a QR of ``Y``, one pass in float64.

    With ``T`` (``[n, r]``) of a QR of ``Y T``.

    Raises:
        NumericalError: If ``Y`` is not finite.
    """
    width = Y.shape[1] if T is None else T.shape[1]
    R = torch.zeros(0, width, dtype=torch.float64, device=Y.device)
    for _, block in Y:
        R = torch.linalg.qr(torch.cat([R, block if T is None else block @ T]), mode="r").R
    check_finite(R, "outer measurements")
    return R


def tsqr(Y: RowBlocks) -> OrthonormalFactor:
    """Tall-skinny QR by row blocks in float64, with a rank decision; two passes.

    For any ``Y``: directions below ``sqrt(n_o) * eps * ||Y||_2`` or :data:`MIN_DIRECTION` times
    ``||Y||_2`` are dropped. What is left is orthogonalised twice, as the first basis inherits the
    cancellation of its smallest directions [Giraud, Langou and Rozloznik, The loss of orthogonality
    in the Gram-Schmidt orthogonalization process, 2005]. A product with ``Y`` cancels all the same:
    the basis is orthonormal up to ``sqrt(n_o) eps_64`` times the condition number of what is kept.

    Raises:
        NumericalError: If ``Y`` is zero or not finite.
    """
    n = Y.shape[1]
    _, S, Vh = torch.linalg.svd(triangular_factor(Y))
    rank = int((max(n**0.5 * Y.eps, MIN_DIRECTION) * S[0] < S).sum())
    if rank == 0:
        raise NumericalError("the outer measurements are all zero: the operator has no range")
    if rank < n:
        log.warning("outer measurements have numerical rank %d of %d", rank, n)
    S, Vh = S[:rank], Vh[:rank]
    T = Vh.T / S
    R = triangular_factor(Y, T)
    T = torch.linalg.solve_triangular(R, T, upper=True, left=False)
    return OrthonormalFactor(T, R @ (S[:, None] * Vh), "tsqr", float(S[0] / S[-1]))


def orthogonalize(Y: RowBlocks, sketch: Tensor | None = None) -> OrthonormalFactor:
    """Return ``T`` with ``Q = Y T`` orthonormal.

    Args:
        Y: ``[D, n_o]`` outer measurements.
        sketch: ``Phi Y`` (``[n_i, n_o]``), the preconditioner of a one-pass Cholesky QR. Without
            it, or where it is too ill-conditioned, the stable :func:`tsqr` is used.
    """
    factor = None if sketch is None else cholesky_qr(Y, sketch.to(Y.device))
    if factor is None:
        if sketch is not None:
            log.warning("ill-conditioned outer measurements: falling back from Cholesky QR to TSQR")
        factor = tsqr(Y)
    return factor


def householder_basis(factor: OrthonormalFactor, pivoting: bool) -> OrthonormalFactor:
    """Return the basis that LAPACK's QR of ``Y`` gives, up to the signs of its columns.

    All bases of the range are equally good, but a solver that reads one triangle of a core which is
    not quite symmetric gives other results in each (signs of columns excepted). From ``Y = Q R``
    and a QR of the small ``R``, ``R P = Q_2 R_2``, follows ``Y P = (Q Q_2) R_2``: a QR of ``Y``
    itself, with the permutation ``P`` of the largest remaining columns if ``pivoting``, since
    ``Q`` changes no norm. Where two columns are equally long up to round-off, either may come
    first; that exchanges one entry of the core with its mirror image.

    Of dependent columns, those that ``factor`` has dropped are no part of the basis. LAPACK goes
    on with directions of round-off, which carry nothing of the operator.

    Args:
        factor: Any basis of the range of ``Y`` (``[D, n_o]``).
        pivoting: As in ``scipy.linalg.qr(Y, mode="economic", pivoting=True)``; otherwise as in
            ``torch.linalg.qr(Y)``.

    Cost: ``O(n_o^3)``, no pass over ``Y``.

    Source: [Golub and Van Loan, Matrix Computations, 4th edition, section 5.4.2].
    """
    if factor.method == "cholesky_qr" and not pivoting:
        return factor  # R is upper triangular: this is the basis
    R = factor.R.cpu().numpy()
    Q_2 = scipy.linalg.qr(R, mode="economic", pivoting=pivoting)[0]
    Q_2 = torch.from_numpy(Q_2).to(factor.R)
    return replace(factor, T=factor.T @ Q_2, R=Q_2.T @ factor.R)
