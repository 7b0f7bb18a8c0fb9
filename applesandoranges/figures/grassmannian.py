"""Figures of random subspaces: each metric against dimension or ratio, on a grid of eight cells."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.container import ErrorbarContainer
from matplotlib.figure import Figure

from ..subspaces.grassmannian import (
    CASES,
    MASK_METRICS,
    METRICS,
    Grid,
    expected_overlap,
    overlap_variance,
)
from .style import INK, PAPER, line_styles


def study_figure(summary: pd.DataFrame, grid: Grid, case: str) -> Figure:
    """Draw medians and 5-95 % bands of every metric; the first cell holds the legend.

    Overlap, in the last cell, comes with its exact mean ``k/D`` and two standard deviations. For
    masks, IoU is drawn there as well, in thin lines.

    Args:
        summary: Of :func:`applesandoranges.subspaces.grassmannian.summarise`.
        grid: The grid that was studied.
        case: Which pairs.
    """
    x, series = ("dim", "ratio") if grid.against == "dim" else ("ratio", "dim")
    values = sorted(grid.dims if series == "dim" else grid.ratios, reverse=series == "ratio")
    name = "D" if series == "dim" else "k/D"
    summary = summary[summary["case"] == case]
    metrics = [metric for metric in METRICS.values() if metric.name not in MASK_METRICS]
    figure, axes = plt.subplots(2, 4, figsize=(13, 6), sharex=True, sharey=True)
    legend, *cells = axes.flat
    for ax, metric in zip(cells, metrics, strict=True):
        for value, style in zip(values, line_styles(len(values)), strict=True):
            rows = summary[summary[series] == value].sort_values(x)
            own = rows[rows["metric"] == metric.name]
            ax.plot(own[x], own["median"], label=f"{name} = {value:g}", **style)
            ax.fill_between(own[x], own["low"], own["high"], color=style["color"], alpha=0.25, lw=0)
            if metric.name == "overlap":
                _draw_exact(ax, own, x, case)
                iou = rows[rows["metric"] == "iou"]
                ax.plot(iou[x], iou["median"], **style | {"lw": 0.7})
        ax.set_title(metric.label, fontsize="medium")
        ax.set(ylim=(-0.03, 1.03))
        if x == "dim":
            ax.set_xscale("log", base=2)
    handles, labels = cells[0].get_legend_handles_labels()
    exact = _draw_exact(cells[-1], summary.iloc[:0], x, case)
    band = legend.fill_between([], [], [], color=INK, alpha=0.25, lw=0)
    handles += [band, exact]
    labels += ["5 to 95 % of pairs", "exact mean k/D ± 2 std. dev."]
    if "iou" in set(summary["metric"]):
        handles += legend.plot([], [], color=INK, lw=0.7)
        labels += ["IoU (in the cell of overlap)"]
    legend.legend(handles, labels, loc="center", fontsize="medium")
    legend.set_axis_off()
    for ax in axes[-1]:
        ax.set_xlabel("dimension D" if x == "dim" else "ratio k/D")
    for ax in (cells[0], cells[3]):
        ax.set_ylabel("similarity (1: equal)")
        ax.tick_params(labelleft=True)
    figure.suptitle(f"{case}: {CASES[case]}", fontsize="large")
    return figure


def _draw_exact(ax: Axes, cells: pd.DataFrame, x: str, case: str) -> ErrorbarContainer:
    mean = [expected_overlap(row.dim, row.k) for row in cells.itertuples()]
    spread = [2 * np.sqrt(overlap_variance(case, row.dim, row.k)) for row in cells.itertuples()]
    return ax.errorbar(cells[x], mean, spread, fmt="o", ms=3, mfc=PAPER, color=INK, lw=1, capsize=2)
