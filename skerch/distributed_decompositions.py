"""Sketched decompositions from measurements in memory or on disk.

The outer measurements ``Y`` (``[D, n_o]``) are only ever read by blocks of rows, the inner ones
``W`` (``[n_i, n_i]``) are small. Instead of an orthonormal ``Q`` these routines carry the small
factor ``T`` (``[n_o, r]``) with ``Q = Y T``, from which everything else follows:

* ``W[:, :n_o] = Phi Y``, hence ``Phi Q = W[:, :n_o] T`` needs no transform at all;
* ``Psi Q = (Psi Y) T`` needs one forward transform per column of ``Y``;
* rows of ``Q`` and products ``Q^T X`` need one pass over ``Y``.

Notation and core sketch: [TYUC2019, section 2]. ``Psi`` (right) and ``Phi`` (left) are SSRFTs of
shape ``[n_i, D]``, ``W = Phi H Psi^T`` and ``Y`` holds the first ``n_o`` columns of ``H Psi^T``.
"""

from __future__ import annotations

import logging
import shutil
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import scipy.linalg
import torch
from torch import Tensor

from . import INNER_FMT, LO_FMT, RO_FMT
from .errors import InputError, NumericalError
from .measurement_store import DistributedHDF5
from .row_blocks import RowBlocks
from .ssrft import SSRFT, work_bytes
from .utils import check_finite

log = logging.getLogger(__name__)

#: Condition number of the preconditioned Gram matrix above which one pass is not trusted.
MAX_GRAM_CONDITION = 1e8


def check_sizes(shape: tuple[int, int], outer: int, inner: int) -> None:
    """Raise :class:`InputError` unless ``1 <= outer <= inner <= min(shape)``."""
    if not 1 <= outer <= inner <= min(shape):
        raise InputError(
            f"expected 1 <= outer <= inner <= {min(shape)} for shape {tuple(shape)}, "
            f"got outer={outer}, inner={inner}"
        )


def create_hdf5_layout(
    directory: Path,
    shape: tuple[int, int],
    dtype: np.dtype,
    outer: int,
    inner: int,
    symmetric: bool = False,
) -> dict[str, Path]:
    """Create the empty measurement store of a sketch in a new or empty directory.

    Args:
        directory: Where.
        shape: ``(H, W)`` of the operator.
        dtype: Of the measurements.
        outer: Number of outer measurements ``n_o``.
        inner: Number of inner measurements ``n_i >= n_o``; 0, for symmetric operators, where a
            recovery in rounds needs none.
        symmetric: Leave out the right outer measurements.

    Returns:
        Paths of the virtual files: ``leftouter``, ``inner`` (unless 0) and, unless symmetric,
        ``rightouter``.

    Raises:
        InputError: If sizes are impossible or the directory holds anything.
    """
    if inner or not symmetric:
        check_sizes(shape, outer, inner)
    elif not 1 <= outer <= min(shape):
        raise InputError(f"expected 1 <= outer <= {min(shape)}, got {outer}")
    if symmetric and shape[0] != shape[1]:
        raise InputError(f"a symmetric operator is square, got shape {shape[0]},{shape[1]}")
    directory = Path(directory)
    existed = directory.is_dir()
    if directory.exists() and not (existed and not any(directory.iterdir())):
        raise InputError(f"{directory}: expected a new or an empty directory")
    directory.mkdir(parents=True, exist_ok=True)
    try:
        paths = {"leftouter": DistributedHDF5.create(directory, LO_FMT, outer, shape[0], dtype)}
        if inner:
            paths["inner"] = DistributedHDF5.create(directory, INNER_FMT, inner, inner, dtype)
        if not symmetric:
            paths["rightouter"] = DistributedHDF5.create(directory, RO_FMT, outer, shape[1], dtype)
    except BaseException:
        shutil.rmtree(directory)
        if existed:
            directory.mkdir()
        raise
    return paths


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


def triangular_factor(Y: RowBlocks) -> Tensor:
    """Return ``R`` (``[n, n]``, or ``[D, n]`` if ``D < n``) of a QR of ``Y``, one pass in float64.

    Raises:
        NumericalError: If ``Y`` is not finite.
    """
    R = torch.zeros(0, Y.shape[1], dtype=torch.float64, device=Y.device)
    for _, block in Y:
        R = torch.linalg.qr(torch.cat([R, block]), mode="r").R
    check_finite(R, "outer measurements")
    return R


def tsqr(Y: RowBlocks) -> OrthonormalFactor:
    """Tall-skinny QR by row blocks in float64, with a rank decision at the dtype's round-off.

    Stable for any ``Y``; directions below ``sqrt(n_o) * eps * ||Y||_2`` are dropped.

    Raises:
        NumericalError: If ``Y`` is zero or not finite.
    """
    n = Y.shape[1]
    _, S, Vh = torch.linalg.svd(triangular_factor(Y))
    rank = int((n**0.5 * Y.eps * S[0] < S).sum())
    if rank == 0:
        raise NumericalError("the outer measurements are all zero: the operator has no range")
    if rank < n:
        log.warning("outer measurements have numerical rank %d of %d", rank, n)
    S, Vh = S[:rank], Vh[:rank]
    return OrthonormalFactor(Vh.T / S, S[:, None] * Vh, "tsqr", float(S[0] / S[-1]))


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


def apply_ssrft_to_columns(S: SSRFT, Y: RowBlocks) -> Tensor:
    """Return ``S Y`` (float64 ``[k, n]``), transforming as many columns at once as fit."""
    D, n = Y.shape
    itemsize = torch.empty(0, dtype=Y.dtype).element_size()

    def cost(num: int) -> int:
        return num * itemsize * D + work_bytes(D, num, Y.dtype, Y.device)

    per_step = Y.columns_within(cost, "transforming the measurements")
    result = torch.empty(S.shape[0], n, dtype=torch.float64, device=Y.device)
    for begin in range(0, n, per_step):
        columns = slice(begin, min(begin + per_step, n))
        result[:, columns] = S @ Y.columns(columns.start, columns.stop)
    return result


def core_pinv_solve(left: Tensor, W: Tensor, right: Tensor) -> Tensor:
    """Solve ``C = pinv(left) W pinv(right)^T`` by least squares [TYUC2019, section 2].

    Args:
        left: ``Phi Q``, ``[n_i, r]``.
        W: Inner measurements, ``[n_i, n_i]``.
        right: ``Psi Q``, ``[n_i, r]``.

    Returns:
        The core, ``[r, r]``.
    """
    half = torch.linalg.lstsq(left, W).solution
    return torch.linalg.lstsq(right, half.T).solution.T


def budget_beside_core(budget: int, outer: int, inner: int) -> int:
    """Return what a memory budget leaves for row blocks beside inner measurements and core.

    Raises:
        InputError: If too little is left; the line says what is needed and what would fit.
    """
    held = 8 * inner**2  # W
    needed = held + 8 * (inner**2 + 6 * inner * outer)  # the least-squares problems
    if needed > budget:
        fitting = int(inner * (budget / needed) ** 0.5)
        raise InputError(
            f"the core of {outer} outer and {inner} inner measurements needs {needed / 1e9:.3g} "
            f"GB, the memory budget is {budget / 1e9:.3g} GB; about {fitting} inner ones would fit"
        )
    return budget - held


@dataclass(frozen=True)
class Eigh:
    """Eigenpairs ``H ~ V diag(S) V^T`` with ``V = Y T U``, by descending magnitude.

    Attributes:
        S: Eigenvalues ``[k]``, float64.
        U: Eigenvectors of the core, ``[r, k]`` with ``k <= r``.
        Y: Outer measurements or basis ``[D, n]``, by row blocks.
        T: Orthonormalising factor ``[n, r]``.
        diagnostics: What the solver found out on its way (core asymmetry, conditioning, ...).
        residual_norms: ``||H v - s v||`` of each pair, ``[k]``; ``None`` where one pass over the
            operator does not tell.
        num_products: Products with the operator that this took; ``None`` if it is not known.
    """

    S: Tensor
    U: Tensor
    Y: RowBlocks
    T: Tensor
    diagnostics: dict[str, float | str] = field(default_factory=dict)
    residual_norms: Tensor | None = None
    num_products: int | None = None

    @property
    def shape(self) -> tuple[int, int]:
        """Shape ``(D, D)`` of the approximated operator."""
        return self.Y.shape[0], self.Y.shape[0]

    def vectors(self, k: int | None = None) -> Tensor:
        """Return the first ``k`` eigenvectors, ``[D, k]``."""
        return self.Y.matmul(self.T @ self.U[:, :k])

    @property
    def basis(self) -> Tensor:
        """``T U``, ``[n_o, r]``: the eigenvectors are ``V = Y (T U)``."""
        return self.T @ self.U

    def vector_rows(self, idxs: Tensor) -> Tensor:
        """Return rows ``idxs`` of the eigenvectors, ``[len(idxs), k]``."""
        return self.Y.rows(idxs) @ self.basis

    def project(self, *Xs: Tensor) -> Tensor:
        """Return ``V^T [X_1 X_2 ...]`` for ``X_i`` ``[D, K_i]``; one pass over the measurements."""
        return self.basis.T @ self.Y.t_matmul(*Xs)

    def __matmul__(self, X: Tensor) -> Tensor:
        """Multiply the low-rank approximation with ``X`` of shape ``[D, K]``."""
        return self.Y.matmul(self.basis @ (self.S[:, None] * self.project(X))).to(X.dtype)

    def truncated(self, k: int) -> Eigh:
        """Return the approximation by the first ``k`` pairs."""
        S, U = truncate_core(k, self.S, self.U)
        residuals = None if self.residual_norms is None else self.residual_norms[:k]
        return replace(self, S=S, U=U, residual_norms=residuals)


def truncate_core(k: int, S: Tensor, U: Tensor, Vh: Tensor | None = None) -> tuple[Tensor, ...]:
    """Keep the first ``k`` values and vectors: ``(S, U)`` or ``(S, U, Vh)``."""
    if not 1 <= k <= len(S):
        raise InputError(f"truncation rank must lie in [1, {len(S)}], got {k}")
    return (S[:k], U[:, :k]) if Vh is None else (S[:k], U[:, :k], Vh[:k])


def solve_core_seigh(
    Y: RowBlocks,
    W: Tensor,
    Psi: SSRFT,
    symmetrize: bool = True,
    factor: OrthonormalFactor | None = None,
) -> Eigh:
    """Recover eigenpairs of a symmetric operator from its sketch (SEIGH).

    Args:
        Y: Outer measurements ``H Psi[:n_o]^T``, ``[D, n_o]``.
        W: Inner measurements ``Phi H Psi^T``, ``[n_i, n_i]``.
        Psi: The right SSRFT, ``[n_i, D]``.
        symmetrize: Average both triangles of the core; otherwise only the lower one is read, and
            the result depends on the basis: see :func:`householder_basis`.
        factor: A basis of the range of ``Y``; default that of ``orthogonalize(Y, W[:, :n_o])``, or
            without ``symmetrize`` that of a QR without pivoting.

    Cost: no product with the operator; two passes over ``Y``.

    Raises:
        InputError: If the shapes do not fit.
        NumericalError: If measurements are not finite.
    """
    (D, n_o), n_i = Y.shape, len(W)
    if tuple(W.shape) != (n_i, n_i) or tuple(Psi.shape) != (n_i, D) or not n_o <= n_i <= D:
        raise InputError(
            f"expected Y [D, n_o], W [n_i, n_i], Psi [n_i, D] with n_o <= n_i <= D; "
            f"got {Y.shape}, {tuple(W.shape)}, {Psi.shape}"
        )
    W = W.to(Y.device, torch.float64)
    check_finite(W, "inner measurements")
    if factor is None:
        factor = orthogonalize(Y, W[:, :n_o])
        factor = factor if symmetrize else householder_basis(factor, pivoting=False)
    left = W[:, :n_o] @ factor.T
    right = apply_ssrft_to_columns(Psi, Y) @ factor.T
    core = core_pinv_solve(left, W, right)
    check_finite(core, "core of the sketch")
    asymmetry = float((core - core.T).norm() / core.norm().clamp_min(1e-300))
    if symmetrize:
        core = (core + core.T) / 2
    S, U = torch.linalg.eigh(core)
    order = S.abs().argsort(descending=True, stable=True)
    diagnostics: dict[str, float | str] = {
        "core_asymmetry": asymmetry,
        "core_condition": float(torch.linalg.cond(left)),
        "qr_method": factor.method,
        "qr_condition": factor.condition,
    }
    return Eigh(S[order], U[:, order], Y, factor.T, diagnostics, num_products=n_i)


def solve_core_ssvd(
    Q_left: Tensor, Q_right: Tensor, W: Tensor, Phi: SSRFT, Psi: SSRFT
) -> tuple[Tensor, Tensor, Tensor]:
    """Recover ``A ~ (Q_left U) diag(S) (Vh Q_right^T)`` from its inner measurements.

    Args:
        Q_left: Basis of the range, ``[H, r]``.
        Q_right: Basis of the co-range, ``[W, r]``.
        W: ``Phi A Psi^T``, ``[n_i, n_i]``.
        Phi: Left inner SSRFT ``[n_i, H]``.
        Psi: Right inner SSRFT ``[n_i, W]``.

    Returns:
        ``(U, S, Vh)`` of the core, with ``S`` in descending order.

    Raises:
        NumericalError: If inner measurements are not finite.
    """
    check_finite(W, "inner measurements")
    U, S, Vh = torch.linalg.svd(core_pinv_solve(Phi @ Q_left, W, Psi @ Q_right))
    return U, S, Vh
