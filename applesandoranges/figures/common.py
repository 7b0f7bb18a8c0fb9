"""What all figures share: the choice of results, panels, titles, and the chance level."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from skerch.errors import InputError

from ..results.collect import HessianResult, LogSet
from .style import BAND, BROAD, CHANCE, DOTTED, INK, line_styles

Drawing = tuple[Figure, dict[str, pd.DataFrame]]

SPLITS = {"train": "training split", "test": "test split"}
#: Filled against large and open, so that one can be seen on top of the other.
SPLIT_MARKERS: dict[str, dict[str, Any]] = {
    "train": {"marker": "o", "ms": 4},
    "test": {"marker": "s", "ms": 7, "mfc": "none"},
}


#: What a quantity is and who logs it, for the line that says that it is not there.
LOGGED_BY = {
    "core_S": "the recovered eigenvalues, which 10d and 12a log",
    "frob_Qtop^2": "the overlap, which 10d and 12a log",
    "H_frob_Qtop^2": "the exact overlap, which 12a logs",
    "frob_Qbest^2": "the best mask, which 10d and 12a log",
    "largest_absparams": "the indices of the largest parameters, which 10d and 12a log",
}


class MissingInLogsError(Exception):
    """The logs lack what a figure needs; the message says what."""


@dataclass(frozen=True)
class Options:
    """What the user chooses.

    Attributes:
        ranks: Values of ``k`` at which to show what changes over a training; empty for
            :data:`SHARES` of the rank of a result.
    """

    ranks: tuple[int, ...] = ()

    #: Shares of the rank that stand for it by default.
    SHARES = (0.05, 0.2, 0.5, 1.0)

    def ranks_up_to(self, n: int) -> list[int]:
        """Return the chosen ranks that are at most ``n``.

        Raises:
            InputError: If all are larger.
        """
        if not self.ranks:
            return sorted({max(1, round(share * n)) for share in self.SHARES})
        ranks = sorted({k for k in self.ranks if k <= n})
        if not ranks:
            raise InputError(f"K: the curves of these logs end at k = {n}, got {min(self.ranks)}")
        return ranks


#: Draws a figure, or raises :class:`MissingInLogsError`.
Draw = Callable[[LogSet, Options], Drawing]


def require(results: Sequence[HessianResult], quantity: str) -> list[HessianResult]:
    """Return the results that have a quantity; raise if there is none."""
    having = [result for result in results if quantity in result.quantities]
    if not having:
        raise MissingInLogsError(f"no log has {quantity} ({LOGGED_BY[quantity]})")
    return having


def by_split(results: Sequence[HessianResult]) -> dict[str, list[HessianResult]]:
    """Return the results of each split that there is, the training split first."""
    split = {name: [r for r in results if r.split == name] for name in SPLITS}
    return {name: part for name, part in split.items() if part}


def longest_split(results: Sequence[HessianResult]) -> tuple[str, list[HessianResult]]:
    """Return the split with the most results, the training split if both have as many."""
    return max(by_split(results).items(), key=lambda item: len(item[1]))


def panels(results: Sequence[HessianResult]) -> list[tuple[str, list[HessianResult]]]:
    """Return the results of each run, recovery and split, with a title that says which."""
    keys = dict.fromkeys((r.run, r.recovery) for r in results)
    found = []
    for run, recovery in keys:
        own = [r for r in results if (r.run, r.recovery) == (run, recovery)]
        for split, part in by_split(own).items():
            name = f"Hessian of the {SPLITS[split]}"
            if len({other for _, other in keys}) > 1:
                name += f", {recovery}"
            if len({other for other, _ in keys}) > 1:
                name = f"{part[0].facts.label}\n{name}"
            found.append((name, part))
    return found


def rank_of(results: Sequence[HessianResult], quantity: str) -> int:
    """Return the length that all curves of a quantity have in common."""
    return min(len(result.quantities[quantity]) for result in results)


def mark(tables: Sequence[tuple[HessianResult, pd.DataFrame]]) -> pd.DataFrame:
    """Return the tables as one, each marked with its run, step, split and recovery."""
    marked = []
    for result, table in tables:
        where = {"run": result.facts.label, "step": result.step, "split": result.split}
        if "recovery" not in table:  # those of 12a compare several
            where["recovery"] = result.recovery
        marked.append(table.assign(**where))
    return pd.concat(marked)


def title_note(results: Sequence[HessianResult]) -> str:
    """Return number of parameters, and the kind of the data where they are not the full set."""
    sources = sorted({result.facts.data_source for result in results} - {"full", "own", ""})
    dims = ", ".join(str(dim) for dim in sorted({result.dim for result in results}))
    note = f", {' and '.join(sources)} data, not the full data set" if sources else ""
    return f"D = {dims}{note}"


def draw_chance(ax: Axes, tables: Sequence[pd.DataFrame]) -> None:
    """Draw the chance level ``k/D``, with two standard deviations of random masks if logs say it.

    Ends the axis there. About 95 % of random masks lie within. That is given the eigenvectors,
    which are localised: much broader than for a random subspace. Of a single Hessian it is a band,
    of several the upper end of each in its colour.
    """
    longest = max(tables, key=len)
    k, chance = longest["k"], longest["chance"]
    ax.plot(k, chance, color=CHANCE, lw=2.5, alpha=0.7, label="chance level k/D")
    if len(tables) == 1 and longest["chance_std"].notna().any():
        low = (chance - 2 * longest["chance_std"]).clip(lower=0)
        high = chance + 2 * longest["chance_std"]
        ax.fill_between(k, low, high, **BAND, label="random masks, ± 2 std. dev.")
    elif any(table["chance_std"].notna().any() for table in tables):
        for table, style in zip(tables, line_styles(len(tables)), strict=True):
            upper = table["chance"] + 2 * table["chance_std"]
            ax.plot(table["k"], upper, color=style["color"], **DOTTED)
        ax.plot([], [], color=INK, **DOTTED, label="random masks, mean + 2 std. dev.")
    ax.set_ylim(chance.iloc[0] / 2, 1)


def name_exact_and_sketched(ax: Axes) -> None:
    """Say in the legend to come which lines are sketched and which are exact."""
    ax.plot([], [], color=INK, label="sketched")
    ax.plot([], [], color=INK, label="exact", **BROAD)


def grid(num: int, width: float, height: float, **options: Any) -> tuple[Figure, list[Axes]]:
    """Return a figure of ``num`` panels in rows of at most three, and its panels."""
    columns = min(num, 3 if num != 4 else 2)
    rows = -(-num // columns)
    figure, axes = plt.subplots(
        rows, columns, figsize=(width * columns, height * rows), squeeze=False, **options
    )
    flat = list(np.ravel(axes))
    for ax in flat[num:]:
        ax.remove()
    return figure, flat[:num]
