"""Masks: how they compare, and how they and the top eigenspaces change over a training."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.image import AxesImage

from ..results.collect import HessianResult, LogSet
from ..subspaces.grassmannian import METRICS, metrics_of
from .common import (
    SPLITS,
    Drawing,
    MissingInLogsError,
    Options,
    by_split,
    longest_split,
    mark,
    rank_of,
    require,
    title_note,
)
from .readable import draw_line, name_unreadable
from .style import CHANCE, COLOUR_MAP, INK, PAPER, line_styles

#: Matrices with more steps have no room for numbers.
MOST_STEPS_WITH_NUMBERS = 12


def masks(logs: LogSet, options: Options) -> Drawing:
    """Overlap of magnitude, best and random masks; columns are first, middle and last step."""
    results = require(logs.results, "frob_Qbest^2")
    parts = by_split(results)
    longest = max(parts.values(), key=len)
    columns = sorted({0, (len(longest) - 1) // 2, len(longest) - 1})
    figure, axes = plt.subplots(
        len(parts), len(columns), squeeze=False, sharex=True, sharey=True,
        figsize=(4.3 * len(columns), 3.8 * len(parts)),
    )  # fmt: skip
    tables = []
    magnitude, best, random = line_styles(3)
    for row, part in zip(axes, parts.values(), strict=True):
        for ax, column in zip(row, columns, strict=True):
            result = part[min(column, len(part) - 1)]
            table = result.overlap_table()
            k = table["k"].to_numpy()
            table["best"] = result.array("frob_Qbest^2") / k
            ax.plot(k, table["best"], label="best mask", **best)
            look = magnitude | {"label": "magnitude mask"}
            draw_line(ax, k, table["overlap"], table["known_within"], **look)
            if "frob_Qrandom^2" in result.quantities:
                curves = result.array("frob_Qrandom^2") / k
                table["random_mean"], table["random_std"] = curves.mean(0), curves.std(0)
                low, high = curves.min(0), curves.max(0)
                ax.fill_between(
                    k, low, high, color=random["color"], alpha=0.35, lw=0, label="random masks"
                )
            ax.plot(k, table["chance"], color=CHANCE, label="chance k/D")
            ax.set(xscale="log", yscale="log", ylim=(table["chance"].iloc[0] / 2, 1.2))
            ax.set_title(result.label, fontsize="medium")
            tables.append((result, table))
        row[0].set_ylabel("overlap")
    for ax in axes[-1]:
        ax.set_xlabel("k")
    name_unreadable(axes[0][0], [table for _, table in tables])
    axes[0][0].legend()
    figure.suptitle(title_note(results), fontsize="medium")
    return figure, {"overlap": mark(tables)}


def intersection_over_union(mask: np.ndarray, other: np.ndarray) -> float:
    """Return the share of the indices in either mask that are in both."""
    common = len(np.intersect1d(mask, other))
    return common / (len(mask) + len(other) - common)


def mask_stabilisation(logs: LogSet, options: Options) -> Drawing:
    """Intersection over union of the masks of two steps, a matrix for each rank."""
    _, results = longest_split(require(logs.results, "largest_absparams"))
    if len({result.step for result in results}) < 2:
        raise MissingInLogsError("only one step has masks; two are needed")
    ranks = _ranks_of_masks(results, options)
    rows = [
        {"k": k, "step": a.step, "other_step": b.step,
         "iou": intersection_over_union(a.mask()[:k], b.mask()[:k])}
        for k in ranks for a in results for b in results
    ]  # fmt: skip

    def chance(k: int) -> float:  # expected overlap k / D, as a share of the union
        return k / (2 * results[0].dim - k)

    title = "Intersection over union of the largest parameters of two steps"
    return _matrices(pd.DataFrame(rows), "iou", results, title, chance)


def eigenspace_stabilisation(logs: LogSet, options: Options) -> Drawing:
    """Overlap of the top eigenspaces of two steps, a matrix for each rank."""
    having = [r for r in logs.results if _angles_with(r, "eigenspace")]
    if not having:
        raise MissingInLogsError(
            "no log compares eigenspaces of two steps; 12a does, and 10d with EIGENVECTORS"
        )
    split, having = longest_split(having)
    results = [result for result in logs.results if result.split == split]
    curves: dict[tuple[int, int], list[float]] = {}
    for result in having:
        for body in _angles_with(result, "eigenspace"):
            pair = result.step, int(body["other_step"])
            curves[pair] = curves[pair[::-1]] = body["frob_VtV^2"]
    ranks = options.ranks_up_to(min(map(len, curves.values())))
    steps = sorted({step for pair in curves for step in pair})
    rows = []
    for k in ranks:
        for a in steps:
            for b in steps:
                curve = curves.get((a, b))
                value = 1.0 if a == b else np.nan if curve is None else curve[k - 1] / k
                rows.append({"k": k, "step": a, "other_step": b, "overlap": value})
    title = f"Overlap of the top eigenspaces of two steps, {SPLITS[split]}"
    dim = results[0].dim
    return _matrices(pd.DataFrame(rows), "overlap", results, title, lambda k: k / dim)


def _ranks_of_masks(results: Sequence[HessianResult], options: Options) -> list[int]:
    """Return the ranks at which masks can be compared: of sets, that of the whole set alone."""
    n = rank_of(results, "largest_absparams")
    if all(result.mask_is_ordered for result in results):
        return options.ranks_up_to(n)
    if options.ranks and n not in options.ranks:
        raise MissingInLogsError(
            f"the masks of this log are sets, not ordered by magnitude; they can be compared at "
            f"k = {n} alone"
        )
    return [n]


def _angles_with(result: HessianResult, what: str) -> list[dict[str, Any]]:
    return [body for body in result.angles if body["angles_with"] == what]


def _matrices(
    table: pd.DataFrame,
    value: str,
    results: Sequence[HessianResult],
    title: str,
    chance: Callable[[int], float],
) -> Drawing:
    """Draw a matrix over pairs of steps for each ``k``."""
    ranks = sorted(table["k"].unique())
    figure, axes = plt.subplots(
        1,
        len(ranks),
        figsize=(3.9 * len(ranks) + 1, 5),
        squeeze=False,
        sharey=True,
        layout="compressed",
    )
    for ax, k in zip(axes[0], ranks, strict=True):
        part = table[table["k"] == k].pivot(index="step", columns="other_step", values=value)
        image = _draw_matrix(ax, part)
        ax.set_title(f"k = {k} (chance {chance(int(k)):.2g})", fontsize="medium")
    axes[0, 0].set_ylabel("training step")
    figure.colorbar(image, ax=list(axes[0]), shrink=0.8)
    label = results[0].facts.label
    figure.suptitle(f"{title}\n{label}, {title_note(results)}", fontsize="medium")
    return figure, {value: table}


def _draw_matrix(ax: Axes, part: pd.DataFrame) -> AxesImage:
    image = ax.imshow(part, vmin=0, vmax=1, cmap=COLOUR_MAP)
    names = [str(step) for step in part.columns]
    ax.set_xticks(range(len(names)), names, rotation=90)
    ax.set_yticks(range(len(names)), names)
    ax.set_xlabel("training step")
    ax.grid(visible=False)
    if len(names) <= MOST_STEPS_WITH_NUMBERS:
        for (i, j), number in np.ndenumerate(part.to_numpy()):
            text = "" if np.isnan(number) else f"{number:.2f}".replace("0.", ".")
            colour = PAPER if number < 0.5 else INK
            ax.text(j, i, text, ha="center", va="center", fontsize=6, color=colour)
    return image


def grassmannian_along_training(logs: LogSet, options: Options) -> Drawing:
    """Grassmannian metrics between mask and top eigenspace, and between successive eigenspaces."""
    table = pd.concat([_metrics_with(logs.results, what) for what in PAIRS])
    if not len(table):
        raise MissingInLogsError("no log has principal angles with the mask; 10d and 12a log them")
    shown = table[table["split"] == longest_split(logs.results)[0]]
    if not len(shown):
        shown = table
    rows = [what for what in PAIRS if (shown["pair"] == what).any()]
    ranks = sorted(shown["k"].unique())
    figure, axes = plt.subplots(
        len(rows), len(ranks), figsize=(4.1 * len(ranks), 3.6 * len(rows)),
        squeeze=False, sharey="row", sharex=True,
    )  # fmt: skip
    metrics = list(dict.fromkeys(shown["metric"]))
    for row, what in zip(axes, rows, strict=True):
        for ax, k in zip(row, ranks, strict=True):
            part = shown[(shown["pair"] == what) & (shown["k"] == k)].sort_values("step")
            for name, style in zip(metrics, line_styles(len(metrics)), strict=True):
                line = part[part["metric"] == name]
                ax.plot(
                    line["step"], line["similarity"], marker="o", ms=3,
                    label=METRICS[name].label, **style,
                )  # fmt: skip
            ax.set_title(f"{PAIRS[what]}, k = {k}", fontsize="medium")
        row[0].set_ylabel("similarity, 1 for equal subspaces")
    for ax in axes[-1]:
        ax.set_xlabel("training step")
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside right center")
    split = SPLITS[shown["split"].iloc[0]]
    figure.suptitle(
        f"{logs.results[0].facts.label}, {split}, {title_note(logs.results)}", fontsize="medium"
    )
    return figure, {"metrics": table}


#: Pairs of subspaces that are followed along a training.
PAIRS = {"mask": "mask and eigenspace", "eigenspace": "eigenspaces of successive steps"}


def _metrics_with(results: Sequence[HessianResult], what: str) -> pd.DataFrame:
    """Return all metrics of the pairs of one kind; of eigenspaces, those of successive steps."""
    rows = []
    for part in by_split(results).values():
        before = dict(zip([r.step for r in part][1:], [r.step for r in part], strict=False))
        for result in part:
            for body in _angles_with(result, what):
                if what == "eigenspace" and body["other_step"] != before.get(result.step):
                    continue
                for rank, angles in body["principal_angles"].items():
                    t = np.asarray(angles, dtype=float)
                    rows += [
                        {"split": result.split, "step": result.step, "pair": what, "k": int(rank),
                         "metric": metric.name,
                         "similarity": metric.similarity(metric.of_angles(t), int(rank))}
                        for metric in metrics_of("OB")
                    ]  # fmt: skip
    columns = ["split", "step", "pair", "k", "metric", "similarity"]
    return pd.DataFrame(rows, columns=columns)
