"""Recovery of eigenpairs in one or several rounds, from bases that are stored by blocks.

In round ``r`` somebody multiplies the operator with the columns of block ``V_r`` of a basis, in as
many jobs as there are columns if need be. Between rounds,
:func:`~skerch.core.krylov.extend_basis` makes the next block from these products; at the end,
:func:`solve_rayleigh_ritz` recovers eigenpairs from all of them:

* block Krylov [MM2015]: ``V_0`` are rows of an SSRFT, each further block is the part of ``H V_r``
  that lies outside of ``V`` (block Lanczos with full reorthogonalisation);
* range finder, then Rayleigh-Ritz [HMT2011, 5.3]: extending an empty basis by the products
  ``H Psi^T`` gives ``Q``; another round measures ``H Q``;
* :func:`solve_nystrom` [TYUC2017, algorithm 3]: one round, for positive semi-definite operators.

[MM2015] Musco and Musco, arXiv 1504.05477. [HMT2011] Halko, Martinsson and Tropp, arXiv 0909.4061.
[TYUC2017] Tropp, Yurtsever, Udell and Cevher, arXiv 1706.05736.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ..budget import default_memory_budget
from ..errors import InputError, NumericalError
from ..results import Eigh
from ..utils import product_round_off
from .krylov import (
    BasisStep,
    Combination,
    Create,
    cholesky_of_basis,
    extend_basis,
    project_out,
    symmetric_from_columns,
)
from .row_blocks import ColumnBlocks

log = logging.getLogger(__name__)


def solve_rayleigh_ritz(
    blocks: Sequence[Any],
    products: Any,
    steps: Sequence[BasisStep],
    rank: int,
    num_rounds: int | None = None,
    num_products: int | None = None,
    budget: int | None = None,
    device: torch.device | str | None = None,
) -> Eigh:
    """Recover the ``rank`` eigenpairs of largest magnitude from all rounds.

    Solves for the Ritz pairs of the whole basis. Residuals follow from the rounds' small matrices
    and the part of the last products that lies outside of the basis. Pairs of which the eigenvalue
    is round-off of the products, :func:`~skerch.utils.product_round_off` with the norm that the
    rounds show, are left out.

    Cost: no product with the operator; two passes over the basis, about ``4 D m n`` operations.

    Args:
        blocks: The whole basis, ``[D, b_r]`` each, ``m`` columns in total.
        products: ``H`` times the last block, ``[D, n]``.
        steps: Results of :func:`extend_basis`, one for each block but the last.
        rank: Pairs that are wanted.
        num_rounds: Rounds that were planned; fewer blocks mean that the basis became invariant
            before, which the diagnostics then say.
        num_products: Products with the operator; default one for each column of the basis.
        budget: Bytes to hold at once; default a quarter of the machine.
        device: Where to compute.

    Returns:
        Up to ``rank`` pairs with residual norms. Fewer are a warning, and ``numerical_rank`` in
        the diagnostics.

    Raises:
        InputError: If shapes and numbers do not fit.
        NumericalError: If products are not finite, or no eigenvalue differs from zero.
    """
    budget = default_memory_budget() if budget is None else budget
    round_ = project_out(blocks, products, steps, budget, device)
    L, m = round_.cholesky, len(round_.cholesky)
    if rank < 1:
        raise InputError(f"rank must be at least 1, got {rank}")
    columns = [step.rayleigh.to(L) for step in steps] + [round_.rayleigh]
    K = symmetric_from_columns(columns)
    T = _inverse_transpose(L)
    S, U = torch.linalg.eigh(T.T @ K @ T)
    order = S.abs().argsort(descending=True, stable=True)
    S, U = S[order], U[:, order]
    k, numerical_rank = _significant(S, rank, products.shape[0], round_.eps, round_.norm)
    S, U = S[:k], U[:, :k]

    W = T @ U  # eigenvectors are V W
    H = torch.zeros_like(K)  # the operator in the basis, H V = V H + remainder of the last round
    for column, step in zip(columns, [*steps, None], strict=True):
        height, width = column.shape
        at = slice(height - width, height)
        H[:height, at] = torch.cholesky_solve(column, L[:height, :height])
        if step is not None:
            H[height : height + step.rank, at] = step.remainder.to(L)
    inside = L.T @ (H @ W - W * S)
    outside = round_.factor @ W[-round_.factor.shape[1] :]
    residual_norms = torch.cat([inside, outside]).norm(dim=0)

    done, planned = len(blocks), len(blocks) if num_rounds is None else num_rounds
    diagnostics: dict[str, float | str] = {
        "rounds": done,
        "early_stop": "no" if done == planned else f"invariant after round {done} of {planned}",
        "basis_columns": m,
        "basis_orthogonality": round_.orthogonality,
        "core_asymmetry": _asymmetry(columns, K),
        "numerical_rank": numerical_rank,
    }
    Y = ColumnBlocks(blocks, budget, device)
    return Eigh(
        S, U, Y, T, diagnostics, residual_norms, m if num_products is None else num_products
    )


def solve_nystrom(
    products: Any,
    start: Any,
    rank: int,
    create: Create,
    budget: int | None = None,
    device: torch.device | str | None = None,
) -> Eigh:
    """Recover eigenpairs of a positive semi-definite operator from one round.

    The stabilised Nystrom approximation ``Y B^-1 Y^T`` with ``B = X^T Y`` and
    ``Y = H X + shift X``. The shift, ``sqrt(D) * eps * ||H X||_2``, is taken off the eigenvalues
    again [TYUC2017, algorithm 3]. Eigenvalues below it are lost.

    Cost: no product with the operator; at most ten passes over products and starting block.

    Args:
        products: ``H X``, ``[D, n]``.
        start: ``X``, ``[D, n]`` with orthonormal columns.
        rank: Pairs that are wanted, at most ``n``.
        create: See :func:`~skerch.core.krylov.extend_basis`; for an orthonormal basis of ``Y``.
        budget: Bytes to hold at once; default a quarter of the machine.
        device: Where to compute.

    Returns:
        Up to ``rank`` pairs without residual norms, which one pass does not tell.

    Raises:
        InputError: If shapes do not fit.
        NumericalError: If the products are zero or not finite, or if ``B`` shows that the operator
            is not positive semi-definite (not every such operator shows itself).
    """
    budget = default_memory_budget() if budget is None else budget
    sketch = project_out([start], products, [], budget, device)
    D, n = sketch.remainder.shape
    if not 1 <= rank <= n:
        raise InputError(f"rank must lie in [1, {n}], the number of products, got {rank}")
    shift = product_round_off(D, sketch.eps, sketch.norm)
    B = sketch.rayleigh + shift * sketch.gram
    B = (B + B.T) / 2
    lower, info = torch.linalg.cholesky_ex(B)
    if int(info) != 0:
        raise NumericalError(
            f"the operator is not positive semi-definite: its sketch has the eigenvalue "
            f"{float(torch.linalg.eigvalsh(B)[0]) - shift:.3g}, the products have norm "
            f"{sketch.norm:.3g}"
        )
    Y = Combination(
        ColumnBlocks([start, products], budget // 2, device), -shift * torch.eye(n).to(B)
    )
    basis: list[Any] = []

    def keep(width: int) -> Any:
        basis.append(create(width))
        return basis[0]

    step = extend_basis([], Y, [], keep, budget, device)
    Q = ColumnBlocks(basis, budget, device)
    gram = torch.zeros(step.rank, step.rank, dtype=torch.float64, device=Q.device)
    for _, block in Q:
        gram += block.T @ block
    L, orthogonality = cholesky_of_basis(gram)
    core = torch.linalg.solve_triangular(lower.T, step.remainder, upper=True, left=False)
    U, singular_values, _ = torch.linalg.svd(core, full_matrices=False)
    S = (singular_values.square() - shift).clamp_min(0)
    k, numerical_rank = _significant(S, rank, products.shape[0], sketch.eps, sketch.norm)
    diagnostics: dict[str, float | str] = {
        "shift": shift,
        "basis_columns": step.rank,
        "basis_orthogonality": orthogonality,
        "numerical_rank": numerical_rank,
    }
    return Eigh(S[:k], U[:, :k], Q, _inverse_transpose(L), diagnostics, num_products=n)


def _inverse_transpose(L: Tensor) -> Tensor:
    eye = torch.eye(len(L), dtype=L.dtype, device=L.device)
    return torch.linalg.solve_triangular(L.T, eye, upper=True)


def _significant(S: Tensor, rank: int, dim: int, eps: float, norm: float) -> tuple[int, int]:
    """Return how many of ``rank`` eigenvalues exceed round-off, and how many of all ``[m]`` do.

    Raises:
        NumericalError: If none does.
    """
    largest = max(float(S[0].abs()), norm)
    numerical_rank = int((product_round_off(dim, eps, largest) < S.abs()).sum())
    if numerical_rank == 0:
        raise NumericalError("all eigenvalues are zero: the operator vanishes on the basis")
    if numerical_rank < rank:
        log.warning("numerical rank %d: fewer than the %d pairs asked for", numerical_rank, rank)
    return min(rank, numerical_rank), numerical_rank


def _asymmetry(columns: Sequence[Tensor], K: Tensor) -> float:
    """Return the norm of what averaging the diagonal blocks removed, relative to ``K``."""
    squares = [(c[-c.shape[1] :] - c[-c.shape[1] :].T).square().sum() for c in columns]
    return float(torch.stack(squares).sum().sqrt() / K.norm().clamp_min(1e-300))
