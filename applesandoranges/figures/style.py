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

plt.rcParams.update(
    {
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.grid": True,
        "grid.alpha": 0.3,
        "legend.frameon": False,
        "legend.fontsize": "small",
        "figure.constrained_layout.use": True,
        "savefig.dpi": 150,
    }
)


def line_styles(num: int) -> list[dict[str, Any]]:
    """Return line properties for ``num`` series."""
    if num <= len(COLOURS):
        return [{"color": c, "linestyle": s} for c, s in zip(COLOURS, STYLES, strict=True)][:num]
    cividis = matplotlib.colormaps["cividis"]
    return [
        {"color": cividis(0.92 * (1 - i / (num - 1))), "linestyle": ("-", "--")[i % 2]}
        for i in range(num)
    ]


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
