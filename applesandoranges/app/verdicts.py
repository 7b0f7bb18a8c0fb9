"""What the verdict in a log of 10d or 12a says, for all who show it: 13a, its figures, 11s."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

#: Relative errors within which a number can be read, and within which it is of use.
READABLE, USABLE = 0.05, 0.2
#: How far beyond reading a number is that the verdict does not vouch for.
NOT_READABLE = math.inf
#: Logs of before say in words alone for which k the overlap is of use.
_OF_USE = re.compile(rf"overlap can be read within {USABLE:.0%} for k = (\d+) \.\.\. (\d+)")

#: First and last ``k``.
Run = tuple[int, int]


def longest(runs: Sequence[Run]) -> Run | None:
    """Return the first one of the longest; ``None`` of none."""
    return max(runs, key=lambda run: run[1] - run[0], default=None)


def in_words(runs: Sequence[Run]) -> str:
    """Say which ``k`` they are: one or two in full, of more the longest and how many others."""
    named = list(runs) if len(runs) <= 2 else [max(runs, key=lambda run: run[1] - run[0])]
    parts = [f"{a} ... {b}" if a < b else str(a) for a, b in named]
    others = sum(b - a + 1 for a, b in runs if (a, b) not in named)
    return f"k = {' and '.join(parts)}" + (f" and {others} other k" if others else "")


@dataclass(frozen=True)
class Verdict:
    """The verdict on one Hessian.

    Attributes:
        text: All of it, as it stands in the log.
        trustworthy: Whether the overlap is of use at all.
        runs: All ``k`` for which the overlap is known within an error, by that error, the
            smallest first; ``None`` if the error was not estimated.
        remedies: What helps, if it is not trusted.
        eigenvalues: How many leading eigenvalues can be read; ``None`` if that is not known.
    """

    text: str
    trustworthy: bool
    runs: dict[float, list[Run]] | None
    eigenvalues: int | None
    remedies: tuple[str, ...] = ()

    @property
    def full_text(self) -> str:
        """The text, and what helps."""
        if self.trustworthy or not self.remedies:
            return self.text
        return f"{self.text}. What helps: {'; '.join(self.remedies)}"

    @classmethod
    def of(cls, body: Mapping[str, Any]) -> Verdict | None:
        """Return the verdict that quantities of a log hold; published logs have none."""
        if "verdict" not in body:
            return None
        text, trustworthy = str(body["verdict"]), bool(body.get("trustworthy", True))
        eigenvalues = body.get("readable_eigenvalues", None if trustworthy else 0)
        if not trustworthy:
            return cls(text, trustworthy, {}, eigenvalues, tuple(body.get("remedies", ())))
        if "readable_overlap" not in body:
            return cls(text, trustworthy, None, eigenvalues)
        readable = body["readable_overlap"]
        earlier = [int(k) for k in match.groups()] if (match := _OF_USE.search(text)) else readable
        found = {READABLE: readable, USABLE: body.get("usable_overlap", earlier)}
        every = {error: [run] for error, run in found.items() if run}
        if USABLE in every:
            every[USABLE] = body.get("usable_runs", every[USABLE])
        runs = {error: [(first, last) for first, last in every[error]] for error in every}
        return cls(text, trustworthy, runs, eigenvalues)

    def error_at(self, k: int) -> float:
        """Return within which relative error the overlap at ``k`` is known; NaN: not estimated."""
        if self.runs is None:
            return math.nan
        holding = (
            error
            for error, runs in self.runs.items()
            if any(first <= k <= last for first, last in runs)
        )
        return next(holding, NOT_READABLE)

    def words_at(self, k: int) -> str:
        """Say whether the overlap at ``k`` can be read."""
        error = self.error_at(k)
        if math.isnan(error):
            return "error not estimated"
        return "not readable" if error == NOT_READABLE else f"within {error:.0%}"

    @property
    def words(self) -> str:
        """Say for which ``k`` the overlap can be read."""
        if self.runs is None:
            return "error not estimated"
        if not self.runs:
            return "not readable"
        widest = self.runs[max(self.runs)]
        error = next(error for error, runs in self.runs.items() if runs == widest)
        return f"{in_words(widest)} within {error:.0%}"
