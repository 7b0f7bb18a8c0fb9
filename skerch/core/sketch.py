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
from torch import Tensor

from ..errors import InputError
from ..results import Eigh
from ..ssrft import SSRFT, work_bytes
from ..utils import check_finite
from .orthogonal import OrthonormalFactor, householder_basis, orthogonalize
from .row_blocks import RowBlocks

log = logging.getLogger(__name__)


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
