"""How the mask and the top eigenspace spread over the layers of a network."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from ..results.collect import HessianResult, LogSet
from .common import Drawing, MissingInLogsError, Options, by_split, mark, title_note
from .style import CHANCE, line_styles

#: More bars could not be told apart; the others are drawn as one.
MOST_LAYERS = 24
#: Columns of the table that are drawn, and what the legend calls them.
SHARES = {
    "parameters": "parameters (what chance gives)",
    "mask": "mask of the largest ones",
    "eigenspace": "top eigenspace",
    "overlap": "overlap",
}
OTHERS = "all others"


def layers(logs: LogSet, options: Options) -> Drawing:
    """Shares of each parameter tensor at the largest rank; columns are first and last step."""
    having = [result for result in logs.results if result.layers]
    if not having:
        raise MissingInLogsError("no log says what layers have of the mask (10d and 12a log it)")
    rows = []
    for part in by_split(having).values():
        rows.append(part if len(part) < 3 else [part[0], part[-1]])
    columns, tables = max(map(len, rows)), []
    drawn = [[(result, layer_table(result)) for result in row] for row in rows]
    bars = max(len(shown(table)) for row in drawn for _, table in row)
    figure, axes = plt.subplots(
        len(rows), columns, squeeze=False, sharex=True,
        figsize=(5.2 * columns, len(rows) * (1.3 + 0.32 * bars)),
    )  # fmt: skip
    for row, line in zip(axes, drawn, strict=True):
        for ax in row[len(line) :]:
            ax.set_visible(False)
        for ax, (result, table) in zip(row, line, strict=False):
            _draw_shares(ax, shown(table))
            ax.set_title(f"{result.label}, k = {table['k'].iloc[0]}", fontsize="medium")
            tables.append((result, table))
    for ax in axes[-1]:
        ax.set_xlabel("share")
    handles, labels = axes[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(SHARES))
    figure.suptitle(title_note(having), fontsize="medium")
    return figure, {"shares": mark(tables)}


def layer_table(result: HessianResult) -> pd.DataFrame:
    """Return the shares of all layers at the largest rank that was logged."""
    body = max(result.layers, key=lambda body: int(body["K"]))
    overlap = np.array(body["layers_overlap"], dtype=float)
    numbers = np.array(body["layer_sizes"], dtype=float)
    return pd.DataFrame(
        {
            "layer": body["layers"],
            "k": body["K"],
            "parameters": numbers / numbers.sum(),
            "mask": np.array(body["layers_mask"], dtype=float) / body["K"],
            "eigenspace": np.array(body["layers_eigenspace"], dtype=float) / body["K"],
            "overlap": overlap / max(overlap.sum(), np.finfo(float).tiny),
        }
    )


def shown(table: pd.DataFrame) -> pd.DataFrame:
    """Return the layers in their order; of many, those with the largest shares and the others."""
    if len(table) <= MOST_LAYERS:
        return table
    largest = table[list(SHARES)].max(axis=1).nlargest(MOST_LAYERS - 1).index
    others = table.drop(largest)[list(SHARES)].sum()
    last = pd.DataFrame([{"layer": OTHERS, "k": table["k"].iloc[0], **others}])
    return pd.concat([table.loc[sorted(largest)], last], ignore_index=True)


def _draw_shares(ax: Axes, table: pd.DataFrame) -> None:
    at, height = np.arange(len(table)), 0.8 / len(SHARES)
    colours = [CHANCE, *(style["color"] for style in line_styles(len(SHARES) - 1))]
    for number, ((column, label), colour) in enumerate(zip(SHARES.items(), colours, strict=True)):
        where = at + (number - (len(SHARES) - 1) / 2) * height
        ax.barh(where, table[column], height, color=colour, label=label)
    ax.set_yticks(at, table["layer"], fontsize="small")
    ax.invert_yaxis()
    ax.grid(visible=False, axis="y")
