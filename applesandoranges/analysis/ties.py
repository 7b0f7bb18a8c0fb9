"""Parameters of exactly the same magnitude, and what their order does to the overlap.

At initialisation whole layers may have one value, such as the weights of BatchNorm. Which of the
tied parameters are among the ``k`` largest is then decided by their index; these are the overlaps
that any other order gives.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from skerch.results import Eigh

from .overlap import CANDIDATES, LargestSums, mask_curve


@dataclass(frozen=True)
class Tie:
    """Parameters of one magnitude, some of which are among the ``n`` largest.

    Attributes:
        larger: Number of larger parameters.
        idxs: Indices of the tied ones, ascending.
    """

    larger: int
    idxs: Tensor

    def cuts(self, n: int) -> range:
        """Return the ``k`` up to ``n`` of which the masks hold some of them, but not all."""
        return range(self.larger + 1, min(n, self.larger + len(self.idxs) - 1) + 1)


def find_ties(params: Tensor, n: int) -> list[Tie]:
    """Return the ties that a mask of at most ``n`` of the largest parameters cuts through."""
    magnitudes = params.abs()
    smallest = magnitudes.topk(min(n, len(params))).values[-1]
    idxs = (magnitudes >= smallest).nonzero()[:, 0]
    idxs = idxs[magnitudes[idxs].argsort(descending=True, stable=True)]
    _, counts = magnitudes[idxs].unique_consecutive(return_counts=True)
    ties, larger = [], 0
    for group in idxs.split(counts.tolist()):
        tie = Tie(larger, group)
        if tie.cuts(n):
            ties.append(tie)
        larger += len(group)
    return ties


@dataclass(frozen=True)
class TiedCurves:
    """The overlap over all orders of tied parameters, as ``k * overlap(k)``, ``[n]`` each.

    Attributes:
        num_tied: Parameters that tie at the cut of each ``k``; 0 where the mask is unique.
        mean: Over random orders.
        lowest: Of the worst order for each ``k``.
        highest: Of the best order for each ``k``.
    """

    num_tied: Tensor
    mean: Tensor
    lowest: Tensor
    highest: Tensor


def tied_curves(eigh: Eigh, ties: list[Tie], rows: Tensor) -> TiedCurves:
    """Return what the order of tied parameters does to the overlap.

    Cost: one pass over the sketch if there are ties; ``16 n^2`` bytes at most beside it.

    Args:
        eigh: The eigenpairs.
        ties: What :func:`find_ties` found.
        rows: Rows of the eigenvectors of the ``n`` largest parameters in their order, ``[n, n]``.
    """
    n = len(rows)
    larger = rows.square().cumsum(0).cumsum(1)
    curves = TiedCurves(
        torch.zeros(n, dtype=torch.int64), *(mask_curve(rows).clone() for _ in range(3))
    )
    sums = [_Leverage(tie, n, rows.device) for tie in ties]
    for at, block in eigh.Y if ties else ():
        for one in sums:
            for idxs in one.between(at).split(CANDIDATES):
                one.add(block[idxs - at.start] @ eigh.basis)
    for one in sums:
        at, before = one.at, one.tie.larger
        below = larger[before - 1, at] if before else torch.zeros_like(one.total)
        curves.num_tied[at] = len(one.tie.idxs)
        curves.mean[at] = below + one.total * one.chosen / len(one.tie.idxs)
        curves.lowest[at] = below - one.smallest.sums
        curves.highest[at] = below + one.largest.sums
    return curves


class _Leverage:
    """Sums of the leverage scores of tied parameters, at each ``k`` that cuts through them.

    Attributes:
        at: Where these ``k`` are in a curve.
        chosen: How many of the tied parameters are in the mask, for each ``k``.
        total: Sum over all of the tied parameters, for each ``k``.
    """

    def __init__(self, tie: Tie, n: int, device: torch.device):
        self.tie, cuts = tie, tie.cuts(n)
        self.idxs = tie.idxs.to(device)
        self.at = slice(cuts.start - 1, cuts.stop - 1)
        self.chosen = torch.arange(1, len(cuts) + 1, device=device)
        self.total = torch.zeros(len(cuts), dtype=torch.float64, device=device)
        self.largest, self.smallest = LargestSums(self.chosen), LargestSums(self.chosen)

    def between(self, rows: slice) -> Tensor:
        """Return which of the tied parameters are among these rows."""
        bounds = torch.tensor([rows.start, rows.stop], device=self.idxs.device)
        begin, end = torch.searchsorted(self.idxs, bounds).tolist()
        return self.idxs[begin:end]

    def add(self, rows: Tensor) -> None:
        """Take in rows of the eigenvectors, ``[B, n]``."""
        leverage = rows.square().cumsum(1)[:, self.at]
        self.total += leverage.sum(0)
        self.largest.add(leverage)
        self.smallest.add(-leverage)
