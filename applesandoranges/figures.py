"""The figures of the paper, from logs. Each function returns a figure and the tables it shows.

A function raises :class:`MissingInLogsError` where the logs lack what it needs.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter

from .jsonlog import TIME_RESOLUTION, Log
from .plots import CHANCE, COLOURS, line_styles
from .results import HessianResult, LogSet

Drawing = tuple[Figure, dict[str, pd.DataFrame]]

SPLITS = {"train": "training split", "test": "test split"}
#: Filled against large and open, so that one can be seen on top of the other.
SPLIT_MARKERS: dict[str, dict[str, Any]] = {
    "train": {"marker": "o", "ms": 4},
    "test": {"marker": "s", "ms": 7, "mfc": "none"},
}
#: For clouds of points of several steps.
POINTS = ("o", "x", "^", "+", "s", "1")


class MissingInLogsError(Exception):
    """The logs lack what a figure needs; the message says what."""


def _require(results: Sequence[HessianResult], quantity: str) -> list[HessianResult]:
    having = [result for result in results if quantity in result.quantities]
    if not having:
        raise MissingInLogsError(f"no log has {quantity}")
    return having


def _by_split(results: Sequence[HessianResult]) -> dict[str, list[HessianResult]]:
    split = {name: [r for r in results if r.split == name] for name in SPLITS}
    return {name: part for name, part in split.items() if part}


def _mark(tables: Sequence[tuple[HessianResult, pd.DataFrame]]) -> pd.DataFrame:
    return pd.concat(
        [table.assign(step=result.step, split=result.split) for result, table in tables]
    )


def title_note(results: Sequence[HessianResult]) -> str:
    """Return number of parameters, and the kind of the data where they are not the full set."""
    sources = sorted({result.data_source for result in results} - {"full", ""})
    dims = ", ".join(str(dim) for dim in sorted({result.dim for result in results}))
    note = f", {' and '.join(sources)} data, not the full data set" if sources else ""
    return f"D = {dims}{note}"


def draw_chance(ax: Axes, table: pd.DataFrame) -> None:
    """Draw the chance level ``k/D`` with a band of two standard deviations."""
    ax.plot(table["k"], table["chance"], color=CHANCE, lw=2.5, alpha=0.7, label="chance level k/D")
    low = (table["chance"] - 2 * table["chance_std"]).clip(lower=0)
    high = table["chance"] + 2 * table["chance_std"]
    ax.fill_between(table["k"], low, high, color=CHANCE, alpha=0.25, lw=0, label="± 2 std. dev.")


def draw_overlap(ax: Axes, results: Sequence[HessianResult]) -> pd.DataFrame:
    """Draw overlap against ``k`` for Hessians of one split, with the chance level."""
    tables = [(result, result.overlap_table()) for result in results]
    for (result, table), style in zip(tables, line_styles(len(tables)), strict=True):
        ax.plot(table["k"], table["overlap"], label=f"step {result.step}", **style)
    longest = max((table for _, table in tables), key=len)
    draw_chance(ax, longest)
    floor = longest["chance"].iloc[0] / 2
    ax.set(xlabel="k", ylabel="overlap", xscale="log", yscale="log", ylim=(floor, 1))
    return _mark(tables)


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
    return _mark(tables)


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
    return _mark(tables)


def overview(logs: LogSet) -> Drawing:
    """Overlap, spectrum and scree bounds side by side; of the training split if there is one."""
    split, results = next(iter(_by_split(_require(logs.results, "frob_Qtop^2")).items()))
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


def overlap_over_k(logs: LogSet) -> Drawing:
    """Overlap against ``k`` for each recorded step, a panel for each split."""
    parts = _by_split(_require(logs.results, "frob_Qtop^2"))
    figure, axes = plt.subplots(
        1, len(parts), figsize=(6.5 * len(parts), 4.6), sharey=True, squeeze=False
    )
    tables = []
    for ax, (split, part) in zip(axes[0], parts.items(), strict=True):
        tables.append(draw_overlap(ax, part))
        ax.legend(ncols=1 + (len(part) > 6), loc="upper left")
        ax.label_outer()
        ax.set_title(f"Hessian of the {SPLITS[split]}")
    figure.suptitle(title_note(logs.results), fontsize="medium")
    return figure, {"overlap": pd.concat(tables)}


def overlap_over_steps(logs: LogSet) -> Drawing:
    """Overlap, and its ratio to chance, against the training step for some ranks."""
    results = _require(logs.results, "frob_Qtop^2")
    n = min(len(result.quantities["frob_Qtop^2"]) for result in results)
    ranks = sorted({max(1, round(share * n)) for share in (0.05, 0.2, 0.5, 1.0)})
    table = _mark([(result, result.overlap_table()) for result in results])
    table = table[table["k"].isin(ranks)]
    figure, axes = plt.subplots(1, 2, figsize=(11, 4.2))
    for ax, column in zip(axes, ("overlap", "ratio"), strict=True):
        for k, style in zip(ranks, line_styles(len(ranks)), strict=True):
            for split, marker in SPLIT_MARKERS.items():
                rows = table[(table["k"] == k) & (table["split"] == split)].sort_values("step")
                if len(rows):
                    ax.plot(
                        rows["step"], rows[column], label=f"k = {k}, {split}", **style, **marker
                    )
        ax.set(xlabel="training step", yscale="log")
    axes[0].set(ylabel="overlap")
    axes[1].set(ylabel="overlap / chance level")
    axes[1].yaxis.set_major_formatter("{x:g}")
    axes[1].yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes[1].yaxis.set_minor_formatter(NullFormatter())
    axes[1].axhline(1, color=CHANCE, label="chance")
    axes[1].legend(loc="center left", bbox_to_anchor=(1, 0.5))
    figure.suptitle(title_note(results), fontsize="medium")
    return figure, {"overlap": table}


def exact_against_sketched(logs: LogSet) -> Drawing:
    """Exact (broad, pale) and sketched (thin) overlap, eigenvalue errors, principal angles."""
    results = _require(logs.results, "H_frob_Qtop^2")
    parts = _by_split(results)
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
    return figure, {"overlap": _mark(overlaps), "eigval": _mark(errors), "angles": _mark(angles)}


def errors(logs: LogSet) -> Drawing:
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
    axes[0].legend(ncols=len(_by_split(results)))
    axes[0].set_title("A-posteriori error")
    quantities = results[0].quantities
    bounds = pd.DataFrame(
        [
            {"event": name, "probability": value}
            for name, value in quantities.items()
            if name.startswith("P(err")
        ]
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
    return figure, {"errors": _mark(tables), "bounds": bounds}


def training(logs: LogSet) -> Drawing:
    """Loss and accuracy over training with the recorded steps marked."""
    if not logs.training:
        raise MissingInLogsError("no log has evaluations of a training")
    log = logs.training[0]
    table = pd.DataFrame(log.bodies("EVAL ROUND") + log.bodies("FINAL EVALUATION"))
    steps = [body["global_step"] for body in log.bodies("TRAINING BATCH")]
    figure, axes = plt.subplots(1, 2, figsize=(11, 4.2))
    names = {"train": "training", "xv": "validation", "test": "test"}
    for ax, what, label in zip(
        axes, ("loss", "acc"), ("loss, with the L2 term if there is one", "accuracy"), strict=True
    ):
        for (part, name), style in zip(names.items(), line_styles(3), strict=True):
            ax.plot(table["global_step"], table[f"{part}_{what}"], label=name, **style)
        for number, step in enumerate(steps):
            ax.axvline(
                step, color=CHANCE, lw=0.8, ls=":", label="recorded steps" if not number else None
            )
        ax.set(xlabel="training step", ylabel=label)
    axes[0].legend()
    figure.suptitle(_run_note(log), fontsize="medium")
    return figure, {"evaluations": table}


def _run_note(log: Log) -> str:
    body = {name: value for event in log.events for name, value in event.body.items()}
    problem, seed = body.get("PROBLEM", "training"), body.get("RANDOM_SEED", "unknown")
    source = body.get("data_source", "full")
    note = "" if source == "full" else f", {source} data, not the full data set"
    return f"{problem}, seed {seed}{note}"


def stage_times(log: Log) -> pd.DataFrame:
    """Return the seconds from each INFO event to the next, by its text."""
    events = [event for event in log.events if event.text and event.header == "INFO"]
    rows = [
        {"stage": a.text, "seconds": (b.time - a.time).total_seconds()}
        for a, b in itertools.pairwise(events)
    ]
    return pd.DataFrame(rows, columns=["stage", "seconds"])


def run_times(logs: LogSet) -> Drawing:
    """Seconds per measurement, and per stage of the analysis, from the time stamps."""
    rows = []
    for log in logs.measuring:
        done = [event for event in log.events if "Measurement successful" in event.text]
        begun = [event for event in log.events if "Performing measurement" in event.text]
        if done:
            seconds = (done[-1].time - begun[0].time).total_seconds() / len(done)
            rows.append({"log": log.path.name, "stage": "one measurement", "seconds": seconds})
    stages = [stage_times(log).assign(log=log.path.name) for log in logs.analysing]
    table = pd.concat([pd.DataFrame(rows, columns=["log", "stage", "seconds"]), *stages])
    if not len(table):
        raise MissingInLogsError("no log has stages with time stamps")
    order = list(dict.fromkeys(table["stage"]))
    figure, ax = plt.subplots(figsize=(9, 1.2 + 0.45 * len(order)))
    for position, stage in enumerate(order):
        seconds = table.loc[table["stage"] == stage, "seconds"]
        median = seconds.median()
        label = f"{median:.3g} s" if median > 0 else f"at most {TIME_RESOLUTION:g} s"
        # A logarithmic axis has no place for what begins and ends with the same time stamp.
        drawn, median = seconds.replace(0, TIME_RESOLUTION), median or TIME_RESOLUTION
        ax.plot(drawn, [position] * len(drawn), "o", mfc="none", color=line_styles(1)[0]["color"])
        ax.plot(median, position, "|", ms=16, mew=2, color="black")
        text = ax.annotate(
            label, (median, position), (0, 9), textcoords="offset points", ha="center"
        )
        text.set_fontsize("small")
    ax.set(yticks=range(len(order)), yticklabels=order, xlabel="seconds", xscale="log")
    ax.set_ylim(-0.7, len(order) - 0.5)
    ax.xaxis.set_minor_formatter(NullFormatter())
    ax.invert_yaxis()
    note = f"; {title_note(logs.results)}" if logs.results else ""
    ax.set_title(f"Run times, median marked{note}", fontsize="medium")
    return figure, {"seconds": table}


def masks(logs: LogSet) -> Drawing:
    """Overlap of magnitude, best and random masks; columns are first, middle and last step."""
    results = _require(logs.results, "frob_Qbest^2")
    parts = _by_split(results)
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
            ax.plot(k, table["overlap"], label="magnitude mask", **magnitude)
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
    axes[0][0].legend()
    figure.suptitle(title_note(results), fontsize="medium")
    return figure, {"overlap": _mark(tables)}


def recoveries(logs: LogSet) -> Drawing:
    """Accuracy of all recoveries against products, and against rounds at the fewest products.

    Of the last recorded step; the table has all of them.
    """
    results = [result for result in logs.results if result.recoveries]
    if not results:
        raise MissingInLogsError("no log compares recoveries")
    table = _mark([(result, pd.DataFrame(result.recoveries)) for result in results])
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


#: Figures by the name under which they are written.
FIGURES: dict[str, Callable[[LogSet], Drawing]] = {
    "overview": overview,
    "overlap_over_k": overlap_over_k,
    "overlap_over_steps": overlap_over_steps,
    "exact_against_sketched": exact_against_sketched,
    "recoveries": recoveries,
    "errors": errors,
    "masks": masks,
    "training": training,
    "run_times": run_times,
}
