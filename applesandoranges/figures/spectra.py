"""Eigenvalues, errors and bounds of recoveries."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from matplotlib.axes import Axes
from matplotlib.ticker import NullFormatter

from skerch.a_posteriori import eigenvalues_to_compare

from ..app.verdicts import NOT_READABLE, READABLE
from ..results.collect import HessianResult, LogSet
from .common import (
    SPLIT_MARKERS,
    SPLITS,
    Drawing,
    MissingInLogsError,
    Options,
    by_split,
    draw_chance,
    mark,
    name_exact_and_sketched,
    require,
    title_note,
)
from .overlap import Tables, draw_ends, draw_overlap
from .readable import draw_line, name_unreadable
from .style import CHANCE, COLOURS, INK, line_styles, pale_style

#: What the right panel of the errors says.
BOUNDS_CAPTION = (
    "Left: square roots of squared norms, each estimated from products with {} random vectors. "
    "Right: how likely such an estimate of a square is\nthis far from the true one, at most, "
    "for any matrix: many Hessians are far better. It says nothing of this Hessian in particular."
)
#: For clouds of points of several steps.
POINTS = ("o", "x", "^", "+", "s", "1")


def draw_spectrum(ax: Axes, results: Sequence[HessianResult]) -> pd.DataFrame:
    """Draw ``|eigenvalue|`` against rank; negative ones as open circles.

    Beyond the eigenvalues that can be read, by the verdict, pale and dashed.
    """
    require(results, "core_S")
    tables = []
    for result, style in zip(results, line_styles(len(results)), strict=True):
        if "core_S" not in result.quantities:  # its colour is that of its overlap
            continue
        S = result.array("core_S")
        rank = np.arange(1, len(S) + 1)
        known, below = _known_eigenvalues(result, len(S)), S < 0
        draw_line(ax, rank, np.abs(S), known, **style)
        circles = {"marker": "o", "mfc": "none", "ms": 3, "mew": 0.7, "linestyle": "none"}
        draw_line(ax, rank[below], -S[below], known[below], color=style["color"], **circles)
        table = pd.DataFrame({"rank": rank, "eigenvalue": S, "known_within": known})
        tables.append((result, table))
    name_unreadable(ax, [table for _, table in tables], "eigenvalues")
    ax.plot([], [], "o", mfc="none", ms=3, color=INK, label="negative eigenvalue")
    # The last eigenvalues of a sketch fall to zero, whatever the true ones do.
    floor = min(np.abs(table["eigenvalue"]).quantile(0.02) for _, table in tables)
    ax.set(xlabel="rank", ylabel="|eigenvalue|", xscale="log", yscale="log")
    if floor > 0:
        ax.set_ylim(bottom=floor / 2)
    return mark(tables)


def _known_eigenvalues(result: HessianResult, num: int) -> np.ndarray:
    """Return within which relative error each eigenvalue is known, as of overlaps."""
    if result.verdict is None or result.verdict.eigenvalues is None:
        return np.full(num, np.nan)
    return np.where(np.arange(num) < result.verdict.eigenvalues, READABLE, NOT_READABLE)


def draw_scree(ax: Axes, results: Sequence[HessianResult]) -> pd.DataFrame:
    """Draw bounds of the share of squared Frobenius norm that is left beyond each rank."""
    having = [result for result in results if "scree_lower" in result.quantities]
    tables = []
    for result, style in zip(having, line_styles(len(having)), strict=True):
        lower, upper = result.array("scree_lower"), result.array("scree_upper")
        rank = np.arange(len(lower))
        ax.fill_between(rank, lower, upper, color=style["color"], alpha=0.12, lw=0)
        ax.plot(rank, upper, **style)
        ax.plot(rank, lower, lw=0.8, **style)
        tables.append((result, pd.DataFrame({"rank": rank, "lower": lower, "upper": upper})))
    ax.set(
        xlabel="rank kept",
        ylabel="energy left: lower and upper bound",
        yscale="log",
        ylim=(1e-4, 5),
    )
    if not tables:
        ax.text(0.5, 0.5, "no a-posteriori estimate", ha="center", transform=ax.transAxes)
        return pd.DataFrame()
    return mark(tables)


def overview(logs: LogSet, options: Options) -> Drawing:
    """Overlap, spectrum and scree bounds side by side; of the training split if there is one."""
    split, results = next(iter(by_split(require(logs.results, "frob_Qtop^2")).items()))
    figure, axes = plt.subplots(1, 3, figsize=(14, 4.2))
    tables = {
        "overlap": draw_overlap(axes[0], results),
        "spectrum": draw_spectrum(axes[1], results),
        "scree": draw_scree(axes[2], results),
    }
    axes[0].set_title("Largest parameters against top eigenspace")
    axes[1].set_title("Sketched eigenvalues")
    axes[2].set_title("Energy beyond a rank")
    figure.legend(loc="outside right center")
    figure.suptitle(f"Hessian of the {SPLITS[split]}, {title_note(results)}", fontsize="medium")
    return figure, tables


def exact_against_sketched(logs: LogSet, options: Options) -> Drawing:
    """Exact (broad, pale) and sketched (thin) overlap, eigenvalue errors, principal angles."""
    results = require(require(logs.results, "H_frob_Qtop^2"), "core_S")
    parts = by_split(results)
    figure, axes = plt.subplots(
        len(parts), 3, figsize=(14, 4.2 * len(parts)), squeeze=False, sharex="col"
    )
    tables: dict[str, Tables] = {"overlap": [], "eigval": [], "angles": []}
    for row, (split, part) in zip(axes, parts.items(), strict=True):
        tables["overlap"] += _draw_both_overlaps(row[0], part)
        tables["eigval"] += _draw_eigenvalue_errors(row[1], part)
        tables["angles"] += _draw_angles(row[2], part)
        row[0].set_ylabel(f"overlap, {SPLITS[split]}")
    titles = (
        "Overlap: exact and sketched",
        "Error of sketched eigenvalues",
        f"Angles between the top-{len(tables['angles'][-1][1])} eigenspaces",
    )
    for ax, title in zip(axes[0], titles, strict=True):
        ax.set_title(title)
    for ax, label in zip(axes[-1], ("k", "rank", "principal angle number"), strict=True):
        ax.set_xlabel(label)
    figure.suptitle(title_note(results), fontsize="medium")
    return figure, {name: mark(some) for name, some in tables.items()}


def _draw_both_overlaps(ax: Axes, part: Sequence[HessianResult]) -> Tables:
    tables = []
    for result, style in zip(part, line_styles(len(part)), strict=True):
        exact, sketched = (result.overlap_table(name) for name in ("H_frob_Qtop^2", "frob_Qtop^2"))
        ax.plot(exact["k"], exact["overlap"], **pale_style(style))
        look = style | {"label": f"step {result.step}"}
        draw_line(ax, sketched["k"], sketched["overlap"], sketched["known_within"], **look)
        known = sketched["known_within"]
        tables.append((result, exact.assign(sketched=sketched["overlap"], known_within=known)))
    draw_ends(ax, [(result, result.overlap_table()) for result in part])
    name_unreadable(ax, [table for _, table in tables])
    ax.set(xscale="log", yscale="log")
    draw_chance(ax, [table for _, table in tables])
    name_exact_and_sketched(ax)
    ax.legend(ncols=2, loc="upper left", fontsize="x-small")
    return tables


def _draw_eigenvalue_errors(ax: Axes, part: Sequence[HessianResult]) -> Tables:
    """Draw errors of eigenvalues, each beside the exact one of the same rank in its sign."""
    tables = []
    for result, style, points in zip(
        part, line_styles(len(part)), itertools.cycle(POINTS), strict=False
    ):
        S, exact = (torch.from_numpy(result.array(name)) for name in ("core_S", "H_eigvals"))
        true = eigenvalues_to_compare(S, exact)
        rank, relative = np.arange(1, len(S) + 1), ((S - true) / true).abs().numpy()
        ax.plot(
            rank, relative, points, ms=3, mew=0.7, alpha=0.8,
            label=f"step {result.step}", color=style["color"],
        )  # fmt: skip
        tables.append((result, pd.DataFrame({"rank": rank, "relative_error": relative})))
    ax.set(ylabel="relative error of eigenvalue", yscale="log")
    ax.legend(loc="lower right", markerscale=2)
    return tables


def _draw_angles(ax: Axes, part: Sequence[HessianResult]) -> Tables:
    tables = []
    for result, style in zip(part, line_styles(len(part)), strict=True):
        body = max(result.exact, key=lambda body: body["K"])
        angle = np.degrees(np.sort(np.asarray(body["principal_angles"], dtype=float)))
        number = np.arange(1, len(angle) + 1)
        ax.plot(number, angle, label=f"step {result.step}", **style)
        tables.append((result, pd.DataFrame({"number": number, "degrees": angle})))
    ax.set(ylabel="principal angle [degrees]", ylim=(0, 90))
    ax.legend(loc="upper left")
    return tables


def errors(logs: LogSet, options: Options) -> Drawing:
    """A-posteriori error of each truncation, and how far chance may move these estimates."""
    results = [result for result in logs.results if result.errors]
    if not results:
        raise MissingInLogsError("no log has a-posteriori errors")
    quantities = results[0].quantities
    bounds = pd.DataFrame(
        [(name, p) for name, p in quantities.items() if name.startswith("P(err") and p > 0],
        columns=["event", "probability"],
    )
    figure, axes = plt.subplots(1, 1 + (len(bounds) > 0), figsize=(12, 4.6), squeeze=False)
    tables = _draw_estimated_errors(axes[0, 0], results)
    if len(bounds):
        number = results[0].errors[0].get("num_a_posteriori", "the logged")
        _draw_bounds(axes[0, 1], bounds)
        axes[0, 1].set_title("How far chance may move an estimate")
        figure.supxlabel(BOUNDS_CAPTION.format(number), fontsize="small")
    figure.suptitle(title_note(results), fontsize="medium")
    return figure, {"errors": mark(tables), "bounds": bounds}


def _draw_estimated_errors(ax: Axes, results: Sequence[HessianResult]) -> Tables:
    tables = []
    steps = sorted({result.step for result in results})
    styles = dict(zip(steps, line_styles(len(steps)), strict=True))
    for result in results:
        bodies = sorted(result.errors, key=lambda body: body["K"])
        table = pd.DataFrame(
            {
                "K": [body["K"] for body in bodies],
                "relative_error": [
                    (body["Frob(H-H_K)^2"] / body["Frob(H)^2"]) ** 0.5 for body in bodies
                ],
            }
        )
        style = styles[result.step] | SPLIT_MARKERS[result.split]
        ax.plot(table["K"], table["relative_error"], label=result.label, **style)
        tables.append((result, table))
    ax.set(xlabel="rank K of the truncation", ylabel="estimated |H - H_K| / |H|  (Frobenius)")
    ax.set_ylim(bottom=0)
    ax.legend(ncols=len(by_split(results)))
    ax.set_title("Estimated error of the recovered Hessian")
    return tables


def _draw_bounds(ax: Axes, bounds: pd.DataFrame) -> None:
    """Draw how likely an estimate is far from the true one, at most, a bar for each factor."""
    # P(err<=0.75x): the estimate of the square is at most 0.75 times the true one.
    events = bounds["event"].str.extract(r"err(?P<relation>[<>]=)(?P<factor>[^x]*)x")
    labels = events["relation"].map({"<=": "at most", ">=": "at least"})
    labels += " " + events["factor"] + " times the true square"
    bars = ax.barh(labels, bounds["probability"], color=COLOURS[0])
    ax.bar_label(bars, fmt="%.2g", padding=3)
    ax.set(xlabel="probability, at most", xlim=(0, 1))
    ax.invert_yaxis()


#: Of recoveries whose number of rounds is fixed.
NAMES = {"seigh": "SEIGH", "nystrom": "damped Nystrom", "hmt": "range finder + Rayleigh-Ritz"}


def recoveries(logs: LogSet, options: Options) -> Drawing:
    """Accuracy of all recoveries against products, and against rounds at the fewest products.

    Of the last recorded step; the table has all of them.
    """
    results = [result for result in logs.results if result.recoveries]
    if not results:
        raise MissingInLogsError("no log compares recoveries")
    table = mark([(result, pd.DataFrame(result.recoveries)) for result in results])
    shown = max(results, key=lambda result: (result.step, result.split == "train"))
    part = pd.DataFrame(shown.recoveries)
    part["label"] = [
        NAMES.get(row.recovery, f"block Krylov, {row.num_rounds} rounds")
        for row in part.itertuples()
    ]
    figure, axes = plt.subplots(1, 3, figsize=(15, 4.4))
    labels = list(dict.fromkeys(part["label"]))
    for label, style in zip(labels, line_styles(len(labels)), strict=True):
        rows = part[part["label"] == label].sort_values("num_products")
        for ax, column in zip(axes, ("rel_frob_error", "half_eigval_error"), strict=False):
            ax.plot(rows["num_products"], rows[column], marker="o", ms=4, label=label, **style)
        first = rows.iloc[0]
        axes[2].plot(first["num_rounds"], first["rel_frob_error"], "o", ms=8, color=style["color"])
    best, K = part["best_rel_frob_error"].iloc[0], int(part["K"].iloc[0])
    for ax in (axes[0], axes[2]):
        ax.axhline(best, color=CHANCE, lw=2, label="best possible")
        ax.set(ylabel=f"relative Frobenius error, K = {K}")
        ax.set_ylim(bottom=0)
    axes[1].set(ylabel=f"median relative error of the top {K // 2} eigenvalues", yscale="log")
    for ax in axes[:2]:
        ax.set(xlabel="Hessian products")
    rounds = sorted(part["num_rounds"].unique())
    axes[2].set(xlabel=f"rounds, with {part['num_products'].min()} products or a few more")
    axes[2].set(xscale="log", xticks=rounds, xticklabels=rounds)
    axes[2].xaxis.set_minor_formatter(NullFormatter())
    handles, names = axes[0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside right center")
    figure.suptitle(f"Hessian of {shown.label}, {title_note([shown])}", fontsize="medium")
    return figure, {"recoveries": table}
