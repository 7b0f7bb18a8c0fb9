"""How figures look, and how they are written: PNG, PDF, and CSV of what they show.

Colours are those of Okabe and Ito, told apart by readers with any colour vision; line styles change
along with them, for grey print. Series with an order (training steps) that are too many for that
take the colours of cividis, light to dark.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
STYLES = ("-", "--", "-.", ":", (0, (5, 1)), (0, (3, 1, 1, 1)))
CHANCE = "#777777"
#: What belongs to no series, and what open markers and dark cells of a matrix show.
INK, PAPER = "black", "white"
#: Colours of ordered values.
COLOUR_MAP = "cividis"
#: Exact results lie behind sketched ones.
BROAD: dict[str, Any] = {"lw": 6, "alpha": 0.3}
#: What random masks give.
BAND: dict[str, Any] = {"color": CHANCE, "alpha": 0.25, "lw": 0}
#: What the verdict on a result does not vouch for.
FAINT: dict[str, Any] = {"lw": 1, "alpha": 0.45, "linestyle": (0, (4, 3))}
#: What lies between two ends.
SHADE: dict[str, Any] = {"alpha": 0.2, "lw": 0}
#: The same at a single point.
BAR: dict[str, Any] = {"alpha": 0.25, "lw": 7}
#: The chance level of a series in its colour, and limits in no colour.
DOTTED: dict[str, Any] = {"lw": 1, "ls": ":"}
LIMITS: dict[str, Any] = {"allowed": ":", "explained": "--"}
PUBLISHED: dict[str, Any] = {
    "marker": "o", "ms": 2.6, "color": INK, "linestyle": "none", "mew": 0, "zorder": 4,
}  # fmt: skip

plt.rcParams.update(
    {
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.grid": True,
        "grid.alpha": 0.3,
        "legend.frameon": True,  # or lines would strike out its words
        "legend.framealpha": 0.85,
        "legend.edgecolor": "none",
        "legend.fontsize": "small",
        "figure.constrained_layout.use": True,
        "savefig.dpi": 150,
    }
)


def line_styles(num: int) -> list[dict[str, Any]]:
    """Return line properties for ``num`` series."""
    if num <= len(COLOURS):
        return [{"color": c, "linestyle": s} for c, s in zip(COLOURS, STYLES, strict=True)][:num]
    colours = matplotlib.colormaps[COLOUR_MAP]
    return [
        {"color": colours(0.92 * (1 - i / (num - 1))), "linestyle": STYLES[i % 2]}
        for i in range(num)
    ]


def pale_style(style: dict[str, Any]) -> dict[str, Any]:
    """Return the line properties of the exact results beside sketched ones in ``style``."""
    return {"color": style["color"]} | BROAD


def unconnected(look: dict[str, Any]) -> dict[str, Any]:
    """Return the properties of points that no line connects; a dash where there is no marker."""
    dash = {"marker": "_", "ms": 16, "mew": look.get("lw", 1)}
    return {**({} if "marker" in look else dash), **look, "linestyle": "none"}


def figure_paths(directory: Path, name: str, tables: Sequence[str]) -> list[Path]:
    """Return the files that :func:`save_figure` writes."""
    endings = (".png", ".pdf", *(f"_{table}.csv" for table in tables))
    return [directory / f"{name}{ending}" for ending in endings]


def save_figure(
    figure: Figure, directory: Path, name: str, tables: dict[str, pd.DataFrame]
) -> list[Path]:
    """Write a figure as PNG and PDF and its tables as CSV; return the paths."""
    paths = figure_paths(directory, name, list(tables))
    for path in paths[:2]:
        figure.savefig(path)
    plt.close(figure)
    for path, table in zip(paths[2:], tables.values(), strict=True):
        table.to_csv(path, index=False)
    return paths
