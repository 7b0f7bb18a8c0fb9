"""Overlap between a parameter mask and the top eigenspace, for all ranks at once.

The overlap of two ``k``-dimensional subspaces with orthonormal bases ``A`` and ``B`` is
``||A^T B||_F^2 / k``. For a mask of ``k`` coordinates this is the squared norm of ``k`` rows of the
first ``k`` eigenvectors, divided by ``k`` (arXiv 2504.14701). All curves here hold
``k * overlap(k)`` for ``k = 1 ... n``, as the logs do under ``frob_Qtop^2``.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from skerch.budget import rows_within
from skerch.core.row_blocks import RowCollector
from skerch.results import Eigh
from skerch.utils import randperm

#: Rows that are compared with the best ones at once.
CANDIDATES = 4096


def truncation_ranks(n: int) -> list[int]:
    """Return the ranks of logged errors and angles: ``n``, half and a twentieth of it."""
    return sorted({n, math.ceil(0.5 * n), math.ceil(0.05 * n)}, reverse=True)


def largest_parameters(params: Tensor, n: int) -> Tensor:
    """Return the indices of the ``n`` largest ``|params|``, largest first, ties by index."""
    return params.abs().argsort(descending=True, stable=True)[:n]


def mask_curve(rows: Tensor) -> Tensor:
    """Return ``||V[mask_k, :k]||_F^2`` for nested masks, ``k = 1 ... n``.

    Args:
        rows: Rows of the eigenvectors in the order in which the masks grow, ``[n, n]``.
    """
    return rows.square().cumsum(0).cumsum(1).diagonal()


def mask_rows(eigh: Eigh, masks: list[Tensor]) -> Iterator[Tensor]:
    """Yield the rows of the eigenvectors (``[n, n]``) that each mask (``[n]`` indices) chooses.

    Cost: one pass over the sketch, or several if the rows of all masks do not fit into the budget.

    Raises:
        InputError: If the rows of one mask do not fit; the line says what is needed.
    """
    n, basis = len(eigh.S), eigh.basis
    per_mask = 4 * 8 * n * n  # the rows, their squares and sums
    per_pass = rows_within(eigh.Y.budget / 2, per_mask, f"overlap of a mask of {n} parameters")
    for begin in range(0, len(masks), per_pass):
        some = masks[begin : begin + per_pass]
        collect = RowCollector(torch.cat(some).to(basis.device), n, lambda rows: rows @ basis)
        for at, block in eigh.Y:
            collect(at, block)
        yield from collect.rows.split([len(mask) for mask in some])


def mask_curves(eigh: Eigh, masks: list[Tensor]) -> list[Tensor]:
    """Return :func:`mask_curve` of each mask; see :func:`mask_rows`."""
    return [mask_curve(rows) for rows in mask_rows(eigh, masks)]


def best_mask_curve(eigh: Eigh) -> Tensor:
    """Return, for each ``k``, the largest value that any mask of ``k`` coordinates reaches.

    These are the ``k`` rows of largest norm in the first ``k`` eigenvectors; one pass by row
    blocks, holding only the best ``k`` so far of every ``k``.
    """
    n, basis = len(eigh.S), eigh.basis
    best = torch.zeros(n, n, dtype=torch.float64, device=basis.device)  # column k - 1: rank k
    for _, block in eigh.Y:
        for part in block.split(CANDIDATES):  # few at once: sorting needs several copies of them
            norms = (part @ basis).square_().cumsum(1)
            # The k-th best so far of each k: most rows reach none of them.
            candidates = norms[(norms > best.diagonal()).any(1)]
            if len(candidates):
                best = torch.cat([best, candidates]).topk(n, dim=0).values
    return best.cumsum(0).diagonal()


def random_masks(dim: int, n: int, num: int, seed: int) -> list[Tensor]:
    """Return ``num`` random orders of ``n`` of ``dim`` coordinates; seeds ``seed + j``."""
    # Cloned: a slice would keep the whole permutation.
    return [randperm(dim, seed + j)[:n].clone() for j in range(num)]
