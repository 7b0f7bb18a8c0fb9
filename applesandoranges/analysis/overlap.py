"""Overlap between a parameter mask and the top eigenspace, for all ranks at once.

The overlap of two ``k``-dimensional subspaces with orthonormal bases ``A`` and ``B`` is
``||A^T B||_F^2 / k``. For a mask of ``k`` coordinates this is the squared norm of ``k`` rows of the
first ``k`` eigenvectors, divided by ``k`` (arXiv 2504.14701). All curves here hold
``k * overlap(k)`` for ``k = 1 ... n``, as the logs do under ``frob_Qtop^2``.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from skerch.budget import rows_within
from skerch.core.row_blocks import RowCollector
from skerch.results import Eigh
from skerch.utils import rademacher, randperm

from ..subspaces.chance import chance_level, random_mask_variance

#: Rows that are compared with the best ones at once.
CANDIDATES = 4096
#: Random vectors that estimate how orthonormal eigenvectors are.
PROBES = 8


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


@dataclass(frozen=True)
class AllMasks:
    """The overlap with all masks of ``k`` of the ``D`` coordinates, as ``k * overlap(k)``.

    Attributes:
        best: The largest one, ``[n]``.
        mean: Of a uniformly random one, ``[n]``: ``k^2 / D``.
        std: Its standard deviation, ``[n]``.
        orthogonality: Estimate of ``||V^T V - I||_F`` of the eigenvectors.
    """

    best: Tensor
    mean: Tensor
    std: Tensor
    orthogonality: float

    def z_scores(self, curve: Tensor) -> Tensor:
        """Return by how many standard deviations of random masks a curve exceeds their mean."""
        return (curve - self.mean.to(curve)) / self.std.to(curve)


class LargestSums:
    """For each column of a tall matrix, the sum of its largest entries; the matrix comes in parts.

    Args:
        counts: How many entries of each column to add up, at least one, ``[c]``.
    """

    def __init__(self, counts: Tensor):
        self._at = counts - 1, torch.arange(len(counts), device=counts.device)
        size = int(counts.max()), len(counts)
        self._largest = torch.full(size, -math.inf, dtype=torch.float64, device=counts.device)

    def add(self, rows: Tensor) -> None:
        """Take in rows ``[B, c]``."""
        candidates = rows[(rows > self._largest[self._at]).any(1)]  # most rows reach none of them
        if len(candidates):
            both = torch.cat([self._largest, candidates])
            self._largest = both.topk(len(self._largest), dim=0).values

    @property
    def sums(self) -> Tensor:
        """The sums, ``[c]``."""
        return self._largest.cumsum(0)[self._at]


def all_masks(eigh: Eigh) -> AllMasks:
    """Return what masks of ``k`` coordinates can reach, and what they reach by chance.

    From the leverage scores, the squared norms of rows of the first ``k`` eigenvectors: the sum of
    the ``k`` largest, and their variance. One pass by row blocks, holding only the best ``k`` so
    far of every ``k``. The same pass multiplies ``V^T V`` with a few random signs.
    """
    n, basis, dim = len(eigh.S), eigh.basis, eigh.shape[0]
    k = torch.arange(1, n + 1, device=basis.device)
    best = LargestSums(k)
    sum_of_squares = torch.zeros(n, dtype=torch.float64, device=basis.device)
    signs = rademacher(n * PROBES, seed=0).to(basis).reshape(n, PROBES)
    deviation = -signs
    for _, block in eigh.Y:
        for part in block.split(CANDIDATES):  # few at once: sorting needs several copies of them
            rows = part @ basis
            deviation = deviation + rows.T @ (rows @ signs)
            leverage = rows.square_().cumsum(1)
            best.add(leverage)
            sum_of_squares += leverage.square_().sum(0)
    orthogonality = float(deviation.norm()) / PROBES**0.5
    std = k * random_mask_variance(k, dim, sum_of_squares).sqrt()
    return AllMasks(best.sums, k * chance_level(k, dim), std, orthogonality)


def random_masks(dim: int, n: int, num: int, seed: int) -> list[Tensor]:
    """Return ``num`` random orders of ``n`` of ``dim`` coordinates; seeds ``seed + j``."""
    # Cloned: a slice would keep the whole permutation.
    return [randperm(dim, seed + j)[:n].clone() for j in range(num)]
