"""Eigenvalues, errors and bounds of recoveries."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import NullFormatter

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
    require,
    title_note,
)
from .overlap import draw_overlap
from .style import CHANCE, COLOURS, line_styles

#: For clouds of points of several steps.
POINTS = ("o", "x", "^", "+", "s", "1")


def draw_spectrum(ax: Axes, results: Sequence[HessianResult]) -> pd.DataFrame:
    """Draw ``|eigenvalue|`` against rank; negative ones as open circles."""
    tables = []
    for result, style in zip(results, line_styles(len(results)), strict=True):
        S = result.array("core_S")
        rank = np.arange(1, len(S) + 1)
        ax.plot(rank, np.abs(S), **style)
        ax.plot(rank[S < 0], -S[S < 0], "o", mfc="none", ms=3, mew=0.7, color=style["color"])
        tables.append((result, pd.DataFrame({"rank": rank, "eigenvalue": S})))
    ax.plot([], [], "ko", mfc="none", ms=3, label="negative eigenvalue")
    # The last eigenvalues of a sketch fall to zero, whatever the true ones do.
    floor = min(np.abs(table["eigenvalue"]).quantile(0.02) for _, table in tables)
    ax.set(xlabel="rank", ylabel="|eigenvalue|", xscale="log", yscale="log")
    if floor > 0:
        ax.set_ylim(bottom=floor / 2)
    return mark(tables)


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
    results = require(logs.results, "H_frob_Qtop^2")
    parts = by_split(results)
    figure, axes = plt.subplots(
        len(parts), 3, figsize=(14, 4.2 * len(parts)), squeeze=False, sharex="col"
    )
    overlaps, errors, angles = [], [], []
    for row, (split, part) in zip(axes, parts.items(), strict=True):
        points = itertools.cycle(POINTS)
        for result, style in zip(part, line_styles(len(part)), strict=True):
            exact, sketched = (
                result.overlap_table(name) for name in ("H_frob_Qtop^2", "frob_Qtop^2")
            )
            colour = {"color": style["color"]}
            row[0].plot(exact["k"], exact["overlap"], lw=6, alpha=0.3, **colour)
            row[0].plot(sketched["k"], sketched["overlap"], label=f"step {result.step}", **style)
            overlaps.append((result, exact.assign(sketched=sketched["overlap"])))
            # By magnitude: of two eigenvalues of nearly the same size and opposite sign, either
            # may come first.
            S = np.abs(result.array("core_S"))
            true = np.abs(result.array("H_eigvals")[: len(S)])
            relative = np.abs(S - true) / true
            rank = np.arange(1, len(S) + 1)
            row[1].plot(
                rank, relative, next(points), ms=3, mew=0.7, alpha=0.8,
                label=f"step {result.step}", **colour,
            )  # fmt: skip
            errors.append((result, pd.DataFrame({"rank": rank, "relative_error": relative})))
            body = max(result.exact, key=lambda body: body["K"])
            angle = np.degrees(np.sort(np.asarray(body["principal_angles"], dtype=float)))
            row[2].plot(rank, angle, label=f"step {result.step}", **style)
            angles.append((result, pd.DataFrame({"number": rank, "degrees": angle})))
        draw_chance(row[0], overlaps[-1][1])
        row[0].plot([], [], color="black", label="sketched")
        row[0].plot([], [], color="black", lw=6, alpha=0.3, label="exact")
        floor = overlaps[-1][1]["chance"].iloc[0] / 2
        row[0].set(ylabel=f"overlap, {SPLITS[split]}", xscale="log", yscale="log", ylim=(floor, 1))
        row[1].set(ylabel="relative error of |eigenvalue|", yscale="log")
        row[2].set(ylabel="principal angle [degrees]", ylim=(0, 90))
        row[0].legend(ncols=2, loc="upper left")
        row[1].legend(loc="lower right", markerscale=2)
        row[2].legend(loc="upper left")
    titles = (
        "Overlap: exact and sketched",
        "Error of sketched eigenvalues",
        f"Angles between the top-{len(rank)} eigenspaces",
    )
    for ax, title in zip(axes[0], titles, strict=True):
        ax.set_title(title)
    for ax, label in zip(axes[-1], ("k", "rank", "principal angle number"), strict=True):
        ax.set_xlabel(label)
    figure.suptitle(title_note(results), fontsize="medium")
    return figure, {"overlap": mark(overlaps), "eigval": mark(errors), "angles": mark(angles)}


def errors(logs: LogSet, options: Options) -> Drawing:
    """A-posteriori error of each truncation with the probability bounds of its estimate."""
    results = [result for result in logs.results if result.errors]
    if not results:
        raise MissingInLogsError("no log has a-posteriori errors")
    figure, axes = plt.subplots(1, 2, figsize=(12, 4.2))
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
        axes[0].plot(table["K"], table["relative_error"], label=result.label, **style)
        tables.append((result, table))
    axes[0].set(xlabel="rank K of the truncation", ylabel="estimated |H - H_K| / |H|  (Frobenius)")
    axes[0].set_ylim(bottom=0)
    axes[0].legend(ncols=len(by_split(results)))
    axes[0].set_title("A-posteriori error")
    quantities = results[0].quantities
    bounds = pd.DataFrame(
        [(name, value) for name, value in quantities.items() if name.startswith("P(err")],
        columns=["event", "probability"],
    )
    bounds = bounds[bounds["probability"] > 0]
    if len(bounds):
        # P(err<=0.75x): the estimate is at most 0.75 times the true error.
        events = bounds["event"].str.extract(r"err(?P<relation>[<>]=)(?P<factor>[^x]*)x")
        labels = events["relation"].map({"<=": "at most", ">=": "at least"})
        bars = axes[1].barh(
            labels + " " + events["factor"] + " times the true one",
            bounds["probability"], color=COLOURS[0],
        )  # fmt: skip
        axes[1].bar_label(bars, fmt="%.2g", padding=3)
        axes[1].set(xlabel="upper bound of the probability", xlim=(0, 1))
        number = results[0].errors[0].get("num_a_posteriori", "the logged")
        axes[1].set_title(f"How likely an estimate from {number} vectors is ...")
        axes[1].invert_yaxis()
    figure.suptitle(title_note(results), fontsize="medium")
    return figure, {"errors": mark(tables), "bounds": bounds}


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
        "SEIGH" if row.recovery == "seigh" else "range finder + Rayleigh-Ritz"
        if row.recovery == "hmt" else f"block Krylov, {row.num_rounds} rounds"
        for row in part.itertuples()
    ]  # fmt: skip
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
