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

import torch
from humanfriendly import format_size
from torch import Tensor

from ..errors import InputError
from ..operands import check_scale
from ..results import Eigh
from ..ssrft import SSRFT, work_bytes
from ..symmetry import relative_asymmetry, warn_if_asymmetric
from ..utils import check_finite, numerical_rank
from .orthogonal import OrthonormalFactor, householder_basis, orthogonalize
from .row_blocks import RowBlocks

log = logging.getLogger(__name__)

#: Share of an operator outside of the bases of ``ssvd``, from which its values are not to be
#: trusted: over seven spectra and 20 seeds, with twice as many inner as outer measurements, the
#: largest was up to 45 times too large beyond it, and up to 2.3 times below it (a test holds 3).
MAX_FIT_ERROR = 0.5


def apply_ssrft_to_columns(S: SSRFT, Y: RowBlocks) -> Tensor:
    """Return ``S Y`` (float64 ``[k, n]``), transforming as many columns at once as fit."""
    D, n = Y.shape

    def cost(num: int) -> int:
        return _transform_bytes(D, num, Y.dtype, Y.device)

    per_step = Y.columns_within(cost, "transforming the measurements")
    result = torch.empty(S.shape[0], n, dtype=torch.float64, device=Y.device)
    for begin in range(0, n, per_step):
        columns = slice(begin, min(begin + per_step, n))
        result[:, columns] = S @ Y.columns(columns.start, columns.stop)
    return result


def least_budget_of_transforms(shape: tuple[int, int], dtype: torch.dtype, *, on_disk: bool) -> int:
    """Return the least budget with which :func:`apply_ssrft_to_columns` does not refuse."""
    return RowBlocks.least_budget(shape, _transform_bytes(shape[0], 1, dtype), on_disk=on_disk)


def _transform_bytes(
    dim: int, num: int, dtype: torch.dtype, device: torch.device | str = "cpu"
) -> int:
    return num * dtype.itemsize * dim + work_bytes(dim, num, dtype, device)


def core_pinv_solve(left: Tensor, W: Tensor, right: Tensor) -> Tensor:
    """Solve ``C = pinv(left) W pinv(right)^T`` by least squares [TYUC2019, section 2].

    Args:
        left: ``Phi Q``, ``[n_i, r]``.
        W: Inner measurements, ``[n_i, n_i]``.
        right: ``Psi Q``, ``[n_i, r]``.

    Returns:
        The core, ``[r, r]``.
    """
    half: Tensor = torch.linalg.lstsq(left, W).solution
    core: Tensor = torch.linalg.lstsq(right, half.T).solution.T
    return core


def core_bytes(outer: int, inner: int) -> int:
    """Return the bytes of the inner measurements, and of the least-squares problems with them."""
    return 8 * (2 * inner**2 + 6 * inner * outer)


def budget_beside_core(budget: int, outer: int, inner: int) -> int:
    """Return what a memory budget leaves for row blocks beside inner measurements and core.

    Raises:
        InputError: If too little is left; the line says what is needed and what would fit.
    """
    held = 8 * inner**2  # W
    needed = core_bytes(outer, inner)
    if needed > budget:
        fitting = int(inner * (budget / needed) ** 0.5)
        raise InputError(
            f"the core of {outer} outer and {inner} inner measurements needs "
            f"{format_size(needed)}, the memory budget is {format_size(budget)}; about {fitting} "
            f"inner ones would fit"
        )
    return budget - held


def budget_beside_measurements(
    budget: int,
    shape: tuple[int, int],
    outer: int,
    inner: int,
    *,
    dtype: torch.dtype,
    rows: int,
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
    held = _measurement_bytes(outer, inner, dtype, rows)
    needed = held + work_bytes(max(shape), 1, dtype)
    if needed > budget:
        fitting = max(0, int(outer * (budget - needed + held) / held))
        raise InputError(
            f"{outer} outer and {inner} inner measurements of a {shape[0]} x {shape[1]} matrix in "
            f"memory need {format_size(needed)}, the memory budget is {format_size(budget)}; about "
            f"{fitting} outer ones would fit, or measure into a store"
        )
    return budget - held


def _measurement_bytes(outer: int, inner: int, dtype: torch.dtype, rows: int) -> int:
    return dtype.itemsize * (rows * outer + inner**2)


def least_seigh_budget(
    dim: int, outer: int, inner: int, dtype: torch.dtype, *, on_disk: bool
) -> int:
    """Return the least budget with which the functions of this module do not refuse SEIGH.

    Args:
        dim: ``D`` of the ``[D, D]`` operator.
        outer: Number of outer measurements ``n_o``.
        inner: Number of inner measurements ``n_i``.
        dtype: Of the measurements.
        on_disk: Whether outer measurements are read from a store (:func:`budget_beside_core`), or
            everything is in memory (:func:`budget_beside_measurements`).
    """
    rows = least_budget_of_transforms((dim, outer), dtype, on_disk=on_disk)
    if on_disk:
        return max(core_bytes(outer, inner), 8 * inner**2 + rows)
    return _measurement_bytes(outer, inner, dtype, dim) + rows


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
        Psi: The right SSRFT, ``[n_i, D]``. ``Psi Y`` shows whether ``H`` is symmetric; if not, a
            warning says so.
        symmetrize: Average both triangles of the core; otherwise only the lower one is read, and
            the result depends on the basis: see :func:`householder_basis`.
        factor: A basis of the range of ``Y``; default that of ``orthogonalize(Y, W[:, :n_o])``, or
            without ``symmetrize`` that of a QR without pivoting.

    Cost: no product with the operator; two passes over ``Y``.

    Returns:
        Up to ``n_o`` pairs. Those are left out of which the eigenvalue is round-off of the
        measurements, ``cond(Phi Q) eps ||H||``: measurements are off by ``eps`` of what they are,
        and the solve of the core amplifies that by the condition number of its factors. Of
        operators of lower rank such values mean nothing; over kernels and seeds they were at most
        0.6 times that. Fewer are a warning, and ``numerical_rank`` in the diagnostics.

    Raises:
        InputError: If the shapes do not fit.
        NumericalError: If measurements are not finite, zero, or at the limits of their dtype.
    """
    (D, n_o), n_i = Y.shape, len(W)
    if tuple(W.shape) != (n_i, n_i) or tuple(Psi.shape) != (n_i, D) or not n_o <= n_i <= D:
        raise InputError(
            f"expected Y [D, n_o], W [n_i, n_i], Psi [n_i, D] with n_o <= n_i <= D; "
            f"got {Y.shape}, {tuple(W.shape)}, {Psi.shape}"
        )
    W = W.to(Y.device, torch.float64)
    check_finite(W, "inner measurements")
    check_scale(float(W.abs().max()), Y.eps, "inner measurements")
    if factor is None:
        factor = orthogonalize(Y, W[:, :n_o])
        factor = factor if symmetrize else householder_basis(factor, pivoting=False)
    left = W[:, :n_o] @ factor.T
    right = apply_ssrft_to_columns(Psi, Y)
    warn_if_asymmetric(relative_asymmetry(right[:n_o]))  # is Psi_o H Psi_o^T
    core = core_pinv_solve(left, W, right @ factor.T)
    check_finite(core, "core of the sketch")
    asymmetry = relative_asymmetry(core)
    if symmetrize:
        core = (core + core.T) / 2
    S, U = torch.linalg.eigh(core)
    order = S.abs().argsort(descending=True, stable=True)
    condition = float(torch.linalg.cond(left))
    round_off = condition * Y.eps * float(S.abs().max())
    order = order[: numerical_rank(S[order], n_o, round_off)]
    diagnostics: dict[str, float | str] = {
        "core_asymmetry": asymmetry,
        "core_condition": condition,
        "numerical_rank": len(order),
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
        ``(U, S, Vh)`` of the core, with ``S`` in descending order; a warning says where they may
        not hold, see :func:`diagnosed_core_ssvd`.

    Raises:
        NumericalError: If inner measurements are not finite.
    """
    U, S, Vh, _ = diagnosed_core_ssvd(Q_left, Q_right, W, Phi, Psi)
    return U, S, Vh


def diagnosed_core_ssvd(
    Q_left: Tensor, Q_right: Tensor, W: Tensor, Phi: SSRFT, Psi: SSRFT
) -> tuple[Tensor, Tensor, Tensor, dict[str, float | str]]:
    """Return the same, and diagnostics; warn where they say that the result may not hold.

    ``core_condition`` is the larger condition number of both factors of the core. ``fit_error`` is
    the estimated share of ``A`` in Frobenius norm that the bases do not hold: the inner
    measurements have ``n_i^2`` numbers, the core ``r^2``, and what it cannot explain of the others
    is that of all. Small singular values are off by it, and beyond :data:`MAX_FIT_ERROR` the
    largest may be several times too large.
    """
    check_finite(W, "inner measurements")
    left, right = Phi @ Q_left, Psi @ Q_right
    core = core_pinv_solve(left, W, right)
    n, r = len(W), core.shape[0]
    diagnostics: dict[str, float | str] = {
        "core_condition": max(float(torch.linalg.cond(factor)) for factor in (left, right))
    }
    if r < n:
        unexplained = (W - left @ core @ right.T).norm() / W.norm().clamp_min(1e-300)
        error = float(unexplained) / (1 - (r / n) ** 2) ** 0.5
        diagnostics["fit_error"] = error
        if error > MAX_FIT_ERROR:
            log.warning(
                "about %.0f %% of the operator (Frobenius norm) lie outside of the bases: singular "
                "values may be far too large; take more outer measurements than %d",
                100 * min(error, 1.0),
                r,
            )
    elif n < min(Q_left.shape[0], Q_right.shape[0]):
        log.warning(
            "as many inner measurements as outer ones, %d, amplify errors and do not show them: "
            "singular values may be far too large; take about twice as many",
            n,
        )
    U, S, Vh = torch.linalg.svd(core)
    return U, S, Vh, diagnostics
