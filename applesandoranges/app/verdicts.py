"""What the verdict in a log of 10d or 12a says, for all who show it: 13a, its figures, 11s."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

#: Relative errors within which a number can be read, and within which it is of use.
READABLE, USABLE = 0.05, 0.2
#: How far beyond reading a number is that the verdict does not vouch for.
NOT_READABLE = math.inf
#: Logs of before say in words alone for which k the overlap is of use.
_OF_USE = re.compile(rf"overlap can be read within {USABLE:.0%} for k = (\d+) \.\.\. (\d+)")

Run = tuple[int, int]


@dataclass(frozen=True)
class Verdict:
    """The verdict on one Hessian.

    Attributes:
        text: All of it, as it stands in the log.
        trustworthy: Whether the overlap is of use at all.
        runs: First and last ``k`` for which the overlap is known within an error, by that error,
            the smallest first; ``None`` if the error was not estimated.
        eigenvalues: How many leading eigenvalues can be read; ``None`` if that is not known.
    """

    text: str
    trustworthy: bool
    runs: dict[float, Run] | None
    eigenvalues: int | None

    @classmethod
    def of(cls, body: Mapping[str, Any]) -> Verdict | None:
        """Return the verdict that quantities of a log hold; published logs have none."""
        if "verdict" not in body:
            return None
        text, trustworthy = str(body["verdict"]), bool(body.get("trustworthy", True))
        eigenvalues = body.get("readable_eigenvalues", None if trustworthy else 0)
        if not trustworthy:
            return cls(text, trustworthy, {}, eigenvalues)
        if "readable_overlap" not in body:
            return cls(text, trustworthy, None, eigenvalues)
        readable = body["readable_overlap"]
        earlier = [int(k) for k in match.groups()] if (match := _OF_USE.search(text)) else readable
        found = {READABLE: readable, USABLE: body.get("usable_overlap", earlier)}
        runs = {error: (run[0], run[1]) for error, run in found.items() if run}
        return cls(text, trustworthy, runs, eigenvalues)

    def error_at(self, k: int) -> float:
        """Return within which relative error the overlap at ``k`` is known; NaN: not estimated."""
        if self.runs is None:
            return math.nan
        holding = (error for error, (first, last) in self.runs.items() if first <= k <= last)
        return next(holding, NOT_READABLE)

    def words_at(self, k: int) -> str:
        """Say whether the overlap at ``k`` can be read, and up to where beside it."""
        error = self.error_at(k)
        if math.isnan(error):
            return "error not estimated"
        return "not readable" if error == NOT_READABLE else self._up_to(error)

    @property
    def words(self) -> str:
        """Say up to which ``k`` the overlap can be read."""
        if self.runs is None:
            return "error not estimated"
        if not self.runs:
            return "not readable"
        longest = self.runs[max(self.runs)]
        return self._up_to(next(error for error, run in self.runs.items() if run == longest))

    def _up_to(self, error: float) -> str:
        first, last = (self.runs or {})[error]
        which = f"up to k = {last}" if first == 1 else f"k = {first} to {last}"
        return f"{which} within {error:.0%}"
