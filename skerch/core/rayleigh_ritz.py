"""Recovery of eigenpairs in one or several rounds, from bases that are stored by blocks.

In round ``r`` somebody multiplies the operator with the columns of block ``V_r`` of a basis, in as
many jobs as there are columns if need be. Between rounds,
:func:`~skerch.core.krylov.extend_basis` makes the next block from these products; at the end,
:func:`solve_rayleigh_ritz` recovers eigenpairs from all of them:

* block Krylov [MM2015]: ``V_0`` are rows of an SSRFT, each further block is the part of ``H V_r``
  that lies outside of ``V`` (block Lanczos with full reorthogonalisation);
* range finder, then Rayleigh-Ritz [HMT2011, 5.3]: extending an empty basis by the products
  ``H Psi^T`` gives ``Q``; another round measures ``H Q``.

[MM2015] Musco and Musco, arXiv 1504.05477. [HMT2011] Halko, Martinsson and Tropp, arXiv 0909.4061.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ..budget import resolve_budget
from ..errors import InputError
from ..results import Eigh
from ..symmetry import warn_if_asymmetric
from ..utils import numerical_rank, product_round_off
from .krylov import (
    BasisStep,
    Projection,
    project_out,
    symmetric_from_columns,
)
from .row_blocks import ColumnBlocks

log = logging.getLogger(__name__)

#: Ritz values are as good as equal if they differ by less than the residual norm, which says how
#: far an eigenvalue may be, but relatively by this at least, and by that at most: the values of
#: pairs that have not converged are close to each other by chance.
EQUAL, CONVERGED = 1e-6, 1e-3


def solve_rayleigh_ritz(
    blocks: Sequence[Any],
    products: Any,
    steps: Sequence[BasisStep],
    rank: int,
    *,
    num_rounds: int | None = None,
    num_products: int | None = None,
    ended: str = "invariant",
    memory_budget: int | None = None,
    device: torch.device | str | None = None,
) -> Eigh:
    """Recover the ``rank`` eigenpairs of largest magnitude from all rounds.

    Solves for the Ritz pairs of the whole basis. Residuals follow from the rounds' small matrices
    and the part of the last products that lies outside of the basis. Pairs of which the eigenvalue
    is round-off of the products, :func:`~skerch.utils.product_round_off` with the norm that the
    rounds show, are left out.

    Rounds find as many copies of an eigenvalue as the first block has columns. As many or more
    (nearly) equal ones, of the same sign, are a warning: there may be further ones, which are
    missing. Not so if the last pair that is wanted is one of them: then nothing takes their place.

    Cost: no product with the operator; two passes over the basis, about ``4 D m n`` operations.

    Args:
        blocks: The whole basis, ``[D, b_r]`` each, ``m`` columns in total.
        products: ``H`` times the last block, ``[D, n]``.
        steps: Results of :func:`extend_basis`, one for each block but the last.
        rank: Pairs that are wanted.
        num_rounds: Rounds that were planned; fewer blocks mean that they ended before, which the
            diagnostics then say.
        num_products: Products with the operator; default one for each column of the basis.
        ended: Why there are no more blocks than these, where more were planned.
        memory_budget: Bytes to hold at once; default a quarter of the machine.
        device: Where to compute.

    Returns:
        Up to ``rank`` pairs with residual norms. Fewer are a warning, and ``numerical_rank`` in
        the diagnostics. So are equal eigenvalues, as many as a block has columns:
        ``cluster_wider_than_block`` is how many, and missing if there are none.

    Raises:
        InputError: If shapes and numbers do not fit.
        NumericalError: If products are not finite, or no eigenvalue differs from zero.
    """
    budget = resolve_budget(memory_budget)
    round_ = project_out(blocks, products, steps, budget, device)
    L = round_.cholesky
    if rank < 1:
        raise InputError(f"rank must be at least 1, got {rank}")
    columns = [step.rayleigh.to(L) for step in steps] + [round_.rayleigh]
    K = symmetric_from_columns(columns)
    S, U, T = _ritz_pairs(K, L)
    k, num_significant = _significant(S, rank, round_)
    S, U = S[:k], U[:, :k]
    residual_norms = _residual_norms(round_, columns, steps, S, T @ U)
    done, planned = len(blocks), len(blocks) if num_rounds is None else num_rounds
    warn_if_asymmetric(asymmetry := _asymmetry(columns, K))
    diagnostics: dict[str, float | str] = {
        "rounds": done,
        "early_stop": "no" if done == planned else f"{ended} after round {done} of {planned}",
        "basis_columns": len(L),
        "basis_orthogonality": round_.orthogonality,
        "core_asymmetry": asymmetry,
        "numerical_rank": num_significant,
    }
    if width := _wide_cluster(S, residual_norms, blocks[0].shape[1], rank, round_.eps):
        diagnostics["cluster_wider_than_block"] = width
    return Eigh(
        S,
        U,
        ColumnBlocks(blocks, budget, device),
        T,
        diagnostics=diagnostics,
        residual_norms=residual_norms,
        num_products=len(L) if num_products is None else num_products,
        coarser=_coarser(blocks, K, L, k, budget, device),
    )


def _ritz_pairs(K: Tensor, L: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return Ritz values by descending magnitude, coefficients, and the orthonormalising factor.

    Args:
        K: ``V^T H V``, ``[m, m]``.
        L: Cholesky factor of ``V^T V``, ``[m, m]``.
    """
    T = _inverse_transpose(L)
    S, U = torch.linalg.eigh(T.T @ K @ T)
    order = S.abs().argsort(descending=True, stable=True)
    return S[order], U[:, order], T


def _coarser(
    blocks: Sequence[Any],
    K: Tensor,
    L: Tensor,
    k: int,
    budget: int,
    device: torch.device | str | None,
) -> Eigh | None:
    """Return up to ``k`` pairs from the first blocks, one at least of them left out.

    At most ``k / 2`` columns less, if that is a block; see :attr:`~skerch.results.Eigh.coarser`.
    The random start alone is no recovery to compare with.
    """
    some = list(blocks[:-1])
    left_out = blocks[-1].shape[1]
    while len(some) > 1 and left_out + some[-1].shape[1] <= k / 2:
        left_out += some.pop().shape[1]
    if len(some) < 2:
        return None
    m = sum(block.shape[1] for block in some)
    S, U, T = _ritz_pairs(K[:m, :m], L[:m, :m])
    return Eigh(S[:k], U[:, :k], ColumnBlocks(some, budget, device), T)


def _residual_norms(
    last: Projection, columns: Sequence[Tensor], steps: Sequence[BasisStep], S: Tensor, W: Tensor
) -> Tensor:
    """Return ``||H v - s v||`` of the eigenvectors ``V W``, ``[k]``.

    ``columns`` are ``V^T H V`` by blocks, each down to its diagonal.
    """
    L = last.cholesky
    H = torch.zeros_like(L)  # the operator in the basis, H V = V H + remainder of the last round
    for column, step in zip(columns, [*steps, None], strict=True):
        height, width = column.shape
        at = slice(height - width, height)
        H[:height, at] = torch.cholesky_solve(column, L[:height, :height])
        if step is not None:
            H[height : height + step.rank, at] = step.remainder.to(L)
    inside = L.T @ (H @ W - W * S)
    outside = last.factor @ W[-last.factor.shape[1] :]
    norms: Tensor = torch.cat([inside, outside]).norm(dim=0)
    return norms


def _wide_cluster(S: Tensor, residual_norms: Tensor, block_size: int, rank: int, eps: float) -> int:
    """Return how many Ritz values are equal, and warn, if a block may have missed further ones.

    Args:
        S: Ritz values by magnitude, ``[k]``.
        residual_norms: Of their pairs.
        block_size: Columns of the first block.
        rank: Pairs that are wanted.
        eps: Machine epsilon of the products.

    Returns:
        The number; 0 if there are fewer than a block has columns, or no two.
    """
    least = max(EQUAL, len(S) ** 0.5 * eps)
    tolerance = S.abs() * (residual_norms / S.abs()).clamp(least, max(least, CONVERGED))
    near = (S[:, None] - S).abs() <= torch.minimum(tolerance[:, None], tolerance)
    if len(S) == rank:
        near[near[:, -1].clone()] = False  # what is missing would come after the last pair
    width = int(near.sum(dim=1).max())
    if width < max(2, block_size):
        return 0
    value = float(S[near.sum(dim=1).argmax()])
    log.warning(
        "%d Ritz values are about %.6g, and blocks have %d columns: there may be more eigenvalues "
        "that are equal to it, which narrower blocks cannot find; take wider blocks and fewer "
        "rounds",
        width,
        value,
        block_size,
    )
    return width


def _inverse_transpose(L: Tensor) -> Tensor:
    eye = torch.eye(len(L), dtype=L.dtype, device=L.device)
    inverse: Tensor = torch.linalg.solve_triangular(L.T, eye, upper=True)
    return inverse


def _significant(S: Tensor, rank: int, last: Projection) -> tuple[int, int]:
    """Return how many of ``rank`` eigenvalues exceed round-off, and how many of all ``[m]`` do.

    Raises:
        NumericalError: If none does.
    """
    largest = max(float(S[0].abs()), last.norm)
    round_off = product_round_off(last.remainder.shape[0], last.eps, largest)
    found = numerical_rank(S, rank, round_off)
    return min(rank, found), found


def _asymmetry(columns: Sequence[Tensor], K: Tensor) -> float:
    """Return the norm of what averaging the diagonal blocks removed, relative to ``K``."""
    squares = [(c[-c.shape[1] :] - c[-c.shape[1] :].T).square().sum() for c in columns]
    return float(torch.stack(squares).sum().sqrt() / K.norm().clamp_min(1e-300))
