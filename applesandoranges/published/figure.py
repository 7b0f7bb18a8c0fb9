"""A figure of a run on the published results: both curves, and below them their differences."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from ..figures.style import CHANCE, LIMITS, PUBLISHED, line_styles

#: What is drawn of a Hessian: quantity, title, label of the differences.
CURVES = (
    ("eigenvalue", "exact eigenvalues", "relative difference"),
    ("core", "sketched eigenvalues", "difference / largest"),
    ("overlap", "overlap with the largest parameters", "difference"),
)
#: Losses of the training, with the split in whose rows they are drawn.
LOSSES = {"train": ("train_loss", "H_train_loss"), "test": ("test_loss", "xv_loss", "H_test_loss")}
#: Differences below this are drawn here: logarithmic axes have no zero.
FLOOR = 1e-10


def draw_comparison(rows: pd.DataFrame, title: str) -> Figure:
    """Draw what :func:`applesandoranges.published.compare.compare` returns.

    For each split a row of curves (ours as lines, published as points at some ranks) and one of
    their absolute differences with the limits that they are held against.
    """
    hessians = rows[rows["quantity"].isin([name for name, *_ in CURVES])]
    splits = [split for split in ("train", "test") if split in set(hessians["split"])] or ["train"]
    steps = sorted(set(hessians["step"]))
    styles = dict(zip(steps, line_styles(len(steps)), strict=True))
    curves = [curve for curve in CURVES if curve[0] in set(hessians["quantity"])]
    losses = rows[rows["name"].isin([name for names in LOSSES.values() for name in names])]
    num_columns = max(1, len(curves) + (len(losses) > 0))
    figure, axes = plt.subplots(
        2 * len(splits), num_columns, figsize=(4.2 * num_columns, 4.9 * len(splits) + 0.4),
        squeeze=False, sharex="col", height_ratios=[1.6, 1] * len(splits),
    )  # fmt: skip
    for at, split in enumerate(splits):
        pair = axes[2 * at : 2 * at + 2]
        for column, (quantity, name, ylabel) in enumerate(curves):
            some = hessians[(hessians["split"] == split) & (hessians["quantity"] == quantity)]
            _draw_curves(pair[:, column], some, styles, f"{name}, {split} split")
            pair[1, column].set_ylabel(ylabel)
        if len(losses):
            others = losses[losses["name"].isin(LOSSES[split])]
            _draw_losses(pair[:, -1], others, f"losses, {split} split")
    xlabels = ["k" if quantity == "overlap" else "rank" for quantity, *_ in curves]
    for ax, xlabel in zip(axes[-1], [*xlabels, "step"], strict=False):
        ax.set_xlabel(xlabel)
    _legend(figure, styles, rows)
    figure.suptitle(title)
    return figure


def _draw_curves(
    pair: Iterable[Axes], rows: pd.DataFrame, styles: dict[int, dict[str, Any]], title: str
) -> None:
    top, bottom = pair
    for step, one in rows.groupby("step"):
        shown = one[one["at"].isin(_some_ranks(int(one["at"].max())))]
        top.plot(one["at"], one["ours"], lw=1.1, **styles[step])
        top.plot(shown["at"], shown["published"], **PUBLISHED)
        _draw_difference(bottom, one, styles[step])
    top.set_xscale("log")
    if "overlap" not in set(rows["quantity"]):
        top.set_yscale("log")
    top.set_title(title, fontsize="medium")
    _finish_differences(bottom, rows)


def _draw_losses(pair: Iterable[Axes], rows: pd.DataFrame, title: str) -> None:
    top, bottom = pair
    names = list(dict.fromkeys(rows["name"]))
    for name, style in zip(names, line_styles(len(names)), strict=True):
        one = rows[rows["name"] == name].sort_values("at")
        top.plot(one["at"], one["ours"], lw=1.1, label=name, **style)
        top.plot(one["at"], one["published"], **PUBLISHED)
        _draw_difference(bottom, one, style)
    top.set_yscale("log")
    top.set_title(title, fontsize="medium")
    top.legend()
    bottom.set_ylabel("difference")
    _finish_differences(bottom, rows)


def _draw_difference(ax: Axes, one: pd.DataFrame, style: dict[str, Any]) -> None:
    ax.plot(one["at"], one["difference"].clip(lower=FLOOR), lw=0.8, **style)


def _finish_differences(ax: Axes, rows: pd.DataFrame) -> None:
    ax.set_yscale("log")
    for limit, linestyle in LIMITS.items():
        level = rows[limit].max()
        if level > 0 and (limit == "allowed" or level > rows["allowed"].max()):
            ax.axhline(level, color=CHANCE, linestyle=linestyle, lw=1.4)


def _some_ranks(n: int) -> np.ndarray:
    """Return about fourteen of ``1 ... n``, evenly spaced on a logarithmic axis."""
    return np.unique(np.geomspace(1, n, 14).round().astype(int))


def _legend(figure: Figure, styles: dict[int, dict[str, Any]], rows: pd.DataFrame) -> None:
    handles = [
        Line2D([], [], lw=1.5, label=f"step {step}", **style) for step, style in styles.items()
    ]
    handles.append(Line2D([], [], label="published", **PUBLISHED | {"ms": 4}))
    shown = ["allowed"] + ["explained"] * bool((rows["explained"] > rows["allowed"]).any())
    handles += [
        Line2D([], [], color=CHANCE, linestyle=LIMITS[limit], label=f"{limit} difference")
        for limit in shown
    ]
    figure.legend(
        handles=handles,
        loc="outside lower center",
        ncol=-(-len(handles) // (1 + (len(handles) > 8))),
    )
