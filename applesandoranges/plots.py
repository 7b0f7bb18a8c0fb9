"""Figures from results; every function returns a figure and the table that it shows.

Colours are those of Okabe and Ito, told apart by readers with any colour vision; line styles change
along with them, for grey print.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import cycle
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from .results import HessianResult

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
STYLES = ("-", "--", "-.", ":", (0, (5, 1)), (0, (3, 1, 1, 1)))
CHANCE = "#777777"

plt.rcParams.update(
    {
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.grid": True,
        "grid.alpha": 0.3,
        "legend.frameon": False,
        "figure.constrained_layout.use": True,
        "savefig.dpi": 160,
    }
)


def line_styles() -> Any:
    """Return an endless iterator of line properties."""
    return (
        {"color": colour, "linestyle": style}
        for colour, style in zip(cycle(COLOURS), cycle(STYLES), strict=False)
    )


def title_note(results: Sequence[HessianResult]) -> str:
    """Return a note on the data where they are not the full data set."""
    sources = {result.data_source for result in results} - {"full", ""}
    return f" ({', '.join(sorted(sources))} data)" if sources else ""


def draw_overlap(ax: Axes, results: Sequence[HessianResult]) -> pd.DataFrame:
    """Draw overlap against ``k`` with the chance level."""
    tables = []
    for result, style in zip(results, line_styles(), strict=False):
        table = result.overlap_table()
        ax.plot(table["k"], table["overlap"], label=result.label, **style)
        tables.append(table.assign(step=result.step, split=result.split))
    longest = max(tables, key=len)
    ax.plot(longest["k"], longest["chance"], color=CHANCE, lw=1.5, label="chance level k/D")
    ax.fill_between(
        longest["k"],
        (longest["chance"] - 2 * longest["chance_std"]).clip(lower=0),
        longest["chance"] + 2 * longest["chance_std"],
        color=CHANCE, alpha=0.25, lw=0, label="chance, 2 std. dev.",
    )  # fmt: skip
    floor = longest["chance"].iloc[0] / 2
    ax.set(xlabel="k", ylabel="overlap", xscale="log", yscale="log", ylim=(floor, 1))
    ax.legend(fontsize="small")
    return pd.concat(tables)


def draw_spectrum(ax: Axes, results: Sequence[HessianResult]) -> pd.DataFrame:
    """Draw ``|eigenvalue|`` against rank; negative ones as open circles."""
    tables = []
    for result, style in zip(results, line_styles(), strict=False):
        S = np.asarray(result.quantities["core_S"], dtype=float)
        rank = np.arange(1, len(S) + 1)
        ax.plot(rank, np.abs(S), label=result.label, **style)
        ax.plot(rank[S < 0], -S[S < 0], "o", mfc="none", ms=3, color=style["color"])
        tables.append(
            pd.DataFrame(
                {"rank": rank, "eigenvalue": S, "step": result.step, "split": result.split}
            )
        )
    ax.plot([], [], "ko", mfc="none", ms=3, label="negative")
    ax.set(xlabel="rank", ylabel="|eigenvalue|", yscale="log")
    ax.legend(fontsize="small")
    return pd.concat(tables)


def draw_scree(ax: Axes, results: Sequence[HessianResult]) -> pd.DataFrame:
    """Draw bounds of the share of squared Frobenius norm that is left beyond each rank."""
    tables = []
    for result, style in zip(results, line_styles(), strict=False):
        if "scree_lower" not in result.quantities:
            continue
        lower, upper = (
            np.asarray(result.quantities[name], dtype=float)
            for name in ("scree_lower", "scree_upper")
        )
        rank = np.arange(len(lower))
        ax.fill_between(rank, lower, upper, color=style["color"], alpha=0.25, lw=0)
        ax.plot(rank, upper, label=result.label, **style)
        ax.plot(rank, lower, lw=0.8, **style)
        tables.append(
            pd.DataFrame(
                {"rank": rank, "lower": lower, "upper": upper,
                 "step": result.step, "split": result.split}
            )
        )  # fmt: skip
    ax.set(xlabel="rank kept", ylabel="energy left (bounds)", yscale="log", ylim=(1e-4, 3))
    if tables:
        ax.legend(fontsize="small")
        return pd.concat(tables)
    ax.text(0.5, 0.5, "no a-posteriori estimate in the log", ha="center", transform=ax.transAxes)
    return pd.DataFrame()


def overview_figure(results: Sequence[HessianResult]) -> tuple[Figure, dict[str, pd.DataFrame]]:
    """Draw overlap, spectrum and scree bounds side by side."""
    figure, axes = plt.subplots(1, 3, figsize=(14, 4.2))
    tables = {
        "overlap": draw_overlap(axes[0], results),
        "spectrum": draw_spectrum(axes[1], results),
        "scree": draw_scree(axes[2], results),
    }
    axes[0].set_title("Overlap of largest parameters\nwith the top eigenspace")
    axes[1].set_title("Sketched eigenvalues")
    axes[2].set_title("Scree bounds")
    figure.suptitle(f"D = {results[0].dim}{title_note(results)}", fontsize="medium")
    return figure, tables


def save_figure(figure: Figure, stem: Path, tables: dict[str, pd.DataFrame]) -> list[Path]:
    """Write a figure as PNG and PDF and its tables as CSV; return the paths."""
    paths = figure_paths(stem, list(tables))
    for path in paths[:2]:
        figure.savefig(path)
    plt.close(figure)
    for path, table in zip(paths[2:], tables.values(), strict=True):
        table.to_csv(path, index=False)
    return paths


def figure_paths(stem: Path, tables: Sequence[str]) -> list[Path]:
    """Return the files that :func:`save_figure` writes."""
    return [
        stem.with_name(stem.name + ending)
        for ending in (".png", ".pdf", *(f"_{name}.csv" for name in tables))
    ]
