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
    name_exact_and_sketched,
    panels,
    rank_of,
    require,
    title_note,
)
from .readable import draw_line, name_unreadable
from .style import BAR, CHANCE, DOTTED, INK, SHADE, line_styles, pale_style, unconnected

Tables = list[tuple[HessianResult, pd.DataFrame]]
#: A line between fewer points would show a course that nobody knows.
LEAST_POINTS = 3
ENDS = "shades: estimated range of the exact overlap"


def overlap_tables(results: Sequence[HessianResult], quantity: str = "frob_Qtop^2") -> Tables:
    """Return the overlap table of each result."""
    return [(result, result.overlap_table(quantity)) for result in results]


def draw_over_k(ax: Axes, tables: Tables, column: str, pale: bool = False) -> None:
    """Draw a column against ``k``, a line for each step; broad and pale ones lie behind others."""
    for (result, table), style in zip(tables, line_styles(len(tables)), strict=True):
        look = pale_style(style) if pale else style | {"label": _label(result)}
        draw_line(ax, table["k"], table[column], table["known_within"], **look)
    ax.set(xlabel="k", xscale="log", yscale="log")


def _label(result: HessianResult) -> str:
    """Name the step, and warn of what is not readable or arbitrary in it."""
    tied = f" ({result.num_tied:,} parameters tie)" if result.num_tied else ""
    bad = result.verdict is not None and not result.verdict.trustworthy
    return f"step {result.step}{', not readable' * bad}{tied}"


def draw_ends(ax: Axes, tables: Tables) -> None:
    """Shade between which ends the exact overlap probably lies, where logs say it."""
    label = ENDS
    for (_, table), style in zip(tables, line_styles(len(tables)), strict=True):
        if table["lowest"].notna().any():
            ends = table["k"], table["lowest"], table["highest"]
            ax.fill_between(*ends, color=style["color"], **SHADE, label=label)
            label = "_"  # once is enough


def draw_ends_over_steps(ax: Axes, table: pd.DataFrame, ranks: Sequence[int]) -> None:
    """Shade the same over the steps, for each rank; of few steps, at each of them alone."""
    label = ENDS
    for k, style in zip(ranks, line_styles(len(ranks)), strict=True):
        rows = table[(table["k"] == k) & table["lowest"].notna()].sort_values("step")
        ends, colour = (rows["step"], rows["lowest"], rows["highest"]), style["color"]
        if len(rows) >= LEAST_POINTS:
            ax.fill_between(*ends, color=colour, **SHADE, label=label)
        elif len(rows):
            ax.vlines(*ends, color=colour, **BAR, label=label)
        label = label if rows.empty else "_"


def draw_overlap(ax: Axes, results: Sequence[HessianResult]) -> pd.DataFrame:
    """Draw overlap against ``k`` for Hessians of one run and split, with the chance level."""
    tables = overlap_tables(results)
    draw_over_k(ax, tables, "overlap")
    draw_ends(ax, tables)
    name_unreadable(ax, [table for _, table in tables])
    draw_chance(ax, [table for _, table in tables])
    ax.set(ylabel="overlap")
    return mark(tables)


def draw_ratio_over_k(ax: Axes, results: Sequence[HessianResult]) -> pd.DataFrame:
    """Draw the ratio of overlap to chance against ``k`` for Hessians of one run and split."""
    tables = overlap_tables(results)
    draw_over_k(ax, tables, "ratio")
    name_unreadable(ax, [table for _, table in tables])
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
    """Draw a column against the training step, a line for each rank; a split at a time.

    Of one or two steps there are points alone.
    """
    table = mark(overlap_tables(results, quantity))
    table = table[table["k"].isin(ranks)]
    splits = [split for split in SPLIT_MARKERS if split in set(table["split"])]
    for k, style in zip(ranks, line_styles(len(ranks)), strict=True):
        for split in splits:
            rows = table[(table["k"] == k) & (table["split"] == split)].sort_values("step")
            label = f"k = {k}" + (f", {split}" if len(splits) > 1 else "")
            look = pale_style(style) if pale else style | SPLIT_MARKERS[split] | {"label": label}
            look = look if len(rows) >= LEAST_POINTS else unconnected(look)
            draw_line(ax, rows["step"], rows[column], rows["known_within"], **look)
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
        ax.set_title(f"{title}\n{title_note(part)}", fontsize="medium")
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
        draw_ends_over_steps(ax, table, ranks)
        name_unreadable(ax, [table], connected=table["step"].nunique() >= LEAST_POINTS)
        for k, style in zip(ranks, line_styles(len(ranks)), strict=True):
            label = "chance level of the same k" if k == ranks[-1] else None
            ax.axhline(k / part[0].dim, color=style["color"], **DOTTED, label=label)
        ax.set(ylabel="overlap")
        return table

    return _grid_of_panels(logs, draw)


def ratio_over_steps(logs: LogSet, options: Options) -> Drawing:
    """Ratio of the overlap to chance against the training step at the chosen ranks."""

    def draw(ax: Axes, part: list[HessianResult]) -> pd.DataFrame:
        ranks = options.ranks_up_to(rank_of(part, "frob_Qtop^2"))
        table = draw_over_steps(ax, part, "ratio", ranks)
        name_unreadable(ax, [table], connected=table["step"].nunique() >= LEAST_POINTS)
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
    draw_ends(axes[0, 0], sketched)
    draw_chance(axes[0, 0], [table for _, table in exact])
    for k, style in zip(ranks, line_styles(len(ranks)), strict=True):
        axes[0, 1].axhline(k / results[0].dim, color=style["color"], **DOTTED)
    for ax in axes[0]:
        ax.set(ylabel="overlap", xlabel="")
    for ax in axes[1]:
        _ratio_axis(ax)
    for ax in axes.flat:
        name_exact_and_sketched(ax)
        name_unreadable(ax, [table for _, table in sketched])
    axes[0, 1].plot([], [], color=INK, **DOTTED, label="chance level k/D")
    axes[0, 0].legend(ncols=2, loc="upper left", fontsize="x-small")
    axes[0, 1].legend(ncols=2, loc="best", fontsize="x-small")
    figure.suptitle(
        f"{results[0].facts.label}, Hessian of the {SPLITS[split]}, {title_note(results)}",
        fontsize="medium",
    )
    table = mark(exact).merge(
        mark(sketched)[["run", "split", "step", "k", "overlap", "ratio", "known_within"]],
        on=["run", "split", "step", "k"], suffixes=("", "_sketched"),
    )  # fmt: skip
    return figure, {"overlap": table}
