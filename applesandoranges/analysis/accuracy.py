"""Rounds that end when the overlap is accurate enough.

After each round the pairs that there are so far say how far the overlap may be off
(:mod:`~applesandoranges.analysis.uncertainty`), for no product. Each round divides that by about
the same number, once it has all pairs that are wanted: two of them say how many more it would take.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from skerch.results import Eigh

from ..app import events
from ..app.log import JsonLog
from .overlap import largest_parameters, mask_rows
from .uncertainty import overlap_band
from .verdict import converged_pairs

#: Under which name it stands in logs, and beside the block of the next round.
ERROR = "overlap_error"
#: Why rounds ended, in words.
ENOUGH = "accurate enough"


@dataclass(frozen=True)
class Accuracy:
    """How accurate the overlap is after some rounds, and how accurate it is to be.

    Attributes:
        k: For so many parameters and pairs.
        wanted: Largest relative error that is wanted.
        error: The one that is estimated; ``None`` while there are not so many converged pairs.
        before: The one after the round before, if it is known.
        num_products: Products so far.
        per_round: Products of another round.
    """

    k: int
    wanted: float
    error: float | None
    before: float | None
    num_products: int
    per_round: int

    @property
    def is_reached(self) -> bool:
        """Whether no other round is needed."""
        return self.error is not None and self.error <= self.wanted

    @property
    def more_rounds(self) -> int | None:
        """How many rounds it would still take at the pace of the last one; ``None`` if unknown."""
        if self.is_reached:
            return 0
        if self.error is None:
            return None
        if self.before is None or not self.error < self.before:
            return None
        return math.ceil(math.log(self.error / self.wanted) / math.log(self.before / self.error))

    def body(self) -> dict[str, Any]:
        """Return what a log says of it."""
        more = self.more_rounds
        return {
            "K": self.k,
            ERROR: self.error,
            "wanted": self.wanted,
            "num_products": self.num_products,
            "rounds_still_needed": more,
            "products_still_needed": None if more is None else more * self.per_round,
        }


def log_accuracy(log: JsonLog, where: dict[str, Any], found: Accuracy) -> None:
    """Log how accurate the overlap is, and whether that is enough."""
    log(events.RESULT, where | found.body())
    log.info(events.ACCURATE if found.is_reached else events.NOT_ACCURATE, where)


def overlap_error(eigh: Eigh, params: Tensor, k: int) -> float | None:
    """Return the relative error of the overlap of the ``k`` largest parameters and leading pairs.

    Of the last pair that there is, if the Hessian has no ``k``.

    Cost: no product; a pass over the basis.

    Args:
        eigh: Eigenpairs from rounds, at least ``k``.
        params: The parameters, ``[D]``.
        k: Number of parameters and pairs.

    Returns:
        ``None`` if nothing can be said: the basis is too small, or pairs up to ``k`` have not
        converged, whatever their band (:func:`~applesandoranges.analysis.verdict.converged_pairs`).
    """
    if converged_pairs(eigh) < min(k, len(eigh.S)):
        return None
    mask = largest_parameters(params, len(eigh.S))
    (rows,) = mask_rows(eigh, [mask])
    band = overlap_band(eigh, mask, rows, None, num=0, seed=0, vectors=1)
    if band is None:
        return None
    error = float(band.errors[min(k, len(eigh.S)) - 1])
    return error if math.isfinite(error) else None  # no overlap to compare with
