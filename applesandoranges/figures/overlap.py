"""Overlap of the largest parameters with the top eigenspace: over ``k``, over training, to chance.

Each panel is a run and a split, so that several data sets make a grid.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import LogLocator, NullFormatter

from ..results.collect import HessianResult, LogSet
from .common import (
    SPLIT_MARKERS,
    SPLITS,
    Drawing,
    Options,
    draw_chance,
    grid,
    longest_split,
    mark,
    panels,
    rank_of,
    require,
    title_note,
)
from .style import CHANCE, line_styles

Tables = list[tuple[HessianResult, pd.DataFrame]]


def overlap_tables(
    results: Sequence[HessianResult], quantity: str = "frob_Qtop^2"
) -> list[tuple[HessianResult, pd.DataFrame]]:
    """Return the overlap table of each result."""
    return [(result, result.overlap_table(quantity)) for result in results]


def draw_over_k(ax: Axes, tables: Tables, column: str, pale: bool = False) -> None:
    """Draw a column against ``k``, a line for each step; broad and pale ones lie behind others."""
    for (result, table), style in zip(tables, line_styles(len(tables)), strict=True):
        if pale:
            ax.plot(table["k"], table[column], lw=6, alpha=0.3, color=style["color"])
        else:
            ax.plot(table["k"], table[column], label=f"step {result.step}", **style)
    ax.set(xlabel="k", xscale="log", yscale="log")


def draw_overlap(ax: Axes, results: Sequence[HessianResult]) -> pd.DataFrame:
    """Draw overlap against ``k`` for Hessians of one run and split, with the chance level."""
    tables = overlap_tables(results)
    draw_over_k(ax, tables, "overlap")
    longest = max((table for _, table in tables), key=len)
    draw_chance(ax, longest)
    ax.set(ylabel="overlap", ylim=(longest["chance"].iloc[0] / 2, 1))
    return mark(tables)


def draw_ratio_over_k(ax: Axes, results: Sequence[HessianResult]) -> pd.DataFrame:
    """Draw the ratio of overlap to chance against ``k`` for Hessians of one run and split."""
    tables = overlap_tables(results)
    draw_over_k(ax, tables, "ratio")
    _ratio_axis(ax)
    return mark(tables)


def draw_over_steps(
    ax: Axes,
    results: Sequence[HessianResult],
    column: str,
    ranks: Sequence[int],
    quantity: str = "frob_Qtop^2",
    pale: bool = False,
) -> pd.DataFrame:
    """Draw a column against the training step, a line for each rank; a split at a time."""
    table = mark(overlap_tables(results, quantity))
    table = table[table["k"].isin(ranks)]
    splits = [split for split in SPLIT_MARKERS if split in set(table["split"])]
    for k, style in zip(ranks, line_styles(len(ranks)), strict=True):
        for split in splits:
            rows = table[(table["k"] == k) & (table["split"] == split)].sort_values("step")
            if pale:
                ax.plot(rows["step"], rows[column], lw=6, alpha=0.3, color=style["color"])
            else:
                label = f"k = {k}" + (f", {split}" if len(splits) > 1 else "")
                ax.plot(
                    rows["step"], rows[column], label=label, **style, **SPLIT_MARKERS[split]
                )  # fmt: skip
    ax.set(xlabel="training step", yscale="log")
    return table


def _ratio_axis(ax: Axes) -> None:
    ax.axhline(1, color=CHANCE, lw=2, label="chance")
    ax.set(ylabel="overlap / chance level")
    ax.yaxis.set_major_formatter("{x:g}")
    ax.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    ax.yaxis.set_minor_formatter(NullFormatter())


def _grid_of_panels(
    logs: LogSet, draw: Callable[[Axes, list[HessianResult]], pd.DataFrame]
) -> Drawing:
    results = require(logs.results, "frob_Qtop^2")
    parts = panels(results)
    figure, axes = grid(len(parts), 5.8, 4.4)
    tables = []
    for ax, (title, part) in zip(axes, parts, strict=True):
        tables.append(draw(ax, part))
        steps = len({result.step for result in part})
        ax.legend(ncols=1 + (steps > 6), loc="best", fontsize="x-small")
        ax.set_title(f"{title}, {title_note(part)}", fontsize="medium")
    if len({part[0].run for _, part in parts}) == 1:  # else the panels say which run they are of
        figure.suptitle(results[0].facts.label, fontsize="medium")
    return figure, {"overlap": pd.concat(tables)}


def overlap_over_k(logs: LogSet, options: Options) -> Drawing:
    """Overlap against ``k`` for each recorded step."""
    return _grid_of_panels(logs, draw_overlap)


def ratio_over_k(logs: LogSet, options: Options) -> Drawing:
    """Ratio of the overlap to chance against ``k`` for each recorded step."""
    return _grid_of_panels(logs, draw_ratio_over_k)


def overlap_over_steps(logs: LogSet, options: Options) -> Drawing:
    """Overlap against the training step at the chosen ranks, with their chance levels."""

    def draw(ax: Axes, part: list[HessianResult]) -> pd.DataFrame:
        ranks = options.ranks_up_to(rank_of(part, "frob_Qtop^2"))
        table = draw_over_steps(ax, part, "overlap", ranks)
        for k, style in zip(ranks, line_styles(len(ranks)), strict=True):
            label = "chance level of the same k" if k == ranks[-1] else None
            ax.axhline(k / part[0].dim, color=style["color"], lw=1, ls=":", label=label)
        ax.set(ylabel="overlap")
        return table

    return _grid_of_panels(logs, draw)


def ratio_over_steps(logs: LogSet, options: Options) -> Drawing:
    """Ratio of the overlap to chance against the training step at the chosen ranks."""

    def draw(ax: Axes, part: list[HessianResult]) -> pd.DataFrame:
        ranks = options.ranks_up_to(rank_of(part, "frob_Qtop^2"))
        table = draw_over_steps(ax, part, "ratio", ranks)
        _ratio_axis(ax)
        return table

    return _grid_of_panels(logs, draw)


def exact_and_sketched_overlap(logs: LogSet, options: Options) -> Drawing:
    """Exact and sketched overlap over ``k`` and over training, and their ratios to chance."""
    split, results = longest_split(require(logs.results, "H_frob_Qtop^2"))
    ranks = options.ranks_up_to(rank_of(results, "H_frob_Qtop^2"))
    exact, sketched = (overlap_tables(results, name) for name in ("H_frob_Qtop^2", "frob_Qtop^2"))
    figure, axes = plt.subplots(2, 2, figsize=(12, 8.4), sharex="col")
    for row, column in zip(axes, ("overlap", "ratio"), strict=True):
        draw_over_k(row[0], exact, column, pale=True)
        draw_over_k(row[0], sketched, column)
        draw_over_steps(row[1], results, column, ranks, "H_frob_Qtop^2", pale=True)
        draw_over_steps(row[1], results, column, ranks)
    draw_chance(axes[0, 0], exact[-1][1])
    axes[0, 0].set(ylim=(exact[-1][1]["chance"].iloc[0] / 2, 1))
    for k, style in zip(ranks, line_styles(len(ranks)), strict=True):
        axes[0, 1].axhline(k / results[0].dim, color=style["color"], lw=1, ls=":")
    for ax in axes[0]:
        ax.set(ylabel="overlap", xlabel="")
    for ax in axes[1]:
        _ratio_axis(ax)
    for ax in axes.flat:
        ax.plot([], [], color="black", label="sketched")
        ax.plot([], [], color="black", lw=6, alpha=0.3, label="exact")
    axes[0, 1].plot([], [], color="black", lw=1, ls=":", label="chance level k/D")
    axes[0, 0].legend(ncols=2, loc="upper left", fontsize="x-small")
    axes[0, 1].legend(ncols=2, loc="best", fontsize="x-small")
    figure.suptitle(
        f"{results[0].facts.label}, Hessian of the {SPLITS[split]}, {title_note(results)}",
        fontsize="medium",
    )
    table = mark(exact).merge(
        mark(sketched)[["run", "split", "step", "k", "overlap", "ratio"]],
        on=["run", "split", "step", "k"], suffixes=("", "_sketched"),
    )  # fmt: skip
    return figure, {"overlap": table}
