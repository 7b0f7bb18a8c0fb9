"""What trainings and their times look like."""

from __future__ import annotations

import itertools
import re

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import NullFormatter

from ..app import events
from ..app.log import TIME_RESOLUTION, Event, Log
from ..results.collect import HEADERS, LogSet
from ..results.runs import Run
from .common import Drawing, MissingInLogsError, Options
from .style import CHANCE, DOTTED, INK, line_styles

#: Quantities of a training: headers of their lines, and the columns with their names.
EVALUATIONS = {
    "loss": {"train_loss": "training", "xv_loss": "validation", "test_loss": "test"},
    "acc": {"train_acc": "training", "xv_acc": "validation", "test_acc": "test"},
}
RECORDED = {
    "batch_loss": "mini-batch",
    "H_train_loss": "Hessian data, training",
    "H_test_loss": "Hessian data, test",
}
#: Stages of published logs, and what they are called here.
STAGES = {
    "Checking inner flags and copying to monolithic": events.MERGING.format("inner"),
    "Checking outer flags and copying to monolithic": events.MERGING.format("outer"),
    "Done copying to monolithic": "Opening the merged files",
    "Orthogonalizing outer measurements": events.ORTHOGONALISING,
    "Solving SEIGH core": events.SOLVING,
    "Performing full EIGH": events.DECOMPOSING,
    "Performing Sketchy EIGH": events.SKETCHING,
    "A-posteriori error estimation and scree bounds": events.ESTIMATING,
    "Setting up problem": "Building the problem",
    "Preparing Hessian dataloader": "Loading the Hessian data",
    "Loading model parameters and creating Hessian": "Loading parameters, making the Hessian",
}
#: What stages are in words, where the text of the log is not plain enough.
WORDS = {
    events.MERGING.format("inner"): "merging the inner measurements into one file",
    events.MERGING.format("outer"): "merging the outer measurements into one file",
    events.ORTHOGONALISING: "orthogonalising the outer measurements",
    events.SOLVING: "solving the core for the eigenpairs",
    events.ESTIMATING: "estimating the error with more products",
    events.OVERLAP: "overlap with the largest parameters",
    events.SKETCHING: "sketching the Hessian",
    events.DECOMPOSING: "exact Hessian and its eigenpairs",
    events.COMPARING: "comparing recoveries",
    events.WRITING_EIGENVECTORS: "writing eigenvectors",
}
#: Texts that state facts and are no stages.
FACTS = (events.PRODUCTS, events.REMEASURED, events.TEST_MATRICES)
#: Quantities that published logs compute without an INFO line before them.
UNANNOUNCED = {"frob_Qtop^2": events.OVERLAP}


def training(logs: LogSet, options: Options) -> Drawing:
    """Loss and accuracy over training with the recorded steps marked.

    Without evaluations, as some published trainings are, the losses of the recorded steps.
    """
    if not logs.training:
        raise MissingInLogsError("no log has evaluations of a training")
    log = logs.training[0]
    recorded = pd.DataFrame(log.bodies(events.TRAINING_BATCH))
    evaluated = pd.DataFrame(log.bodies(events.EVAL_ROUND) + log.bodies(events.FINAL_EVALUATION))
    run = logs.run_of(log)
    source = _source_note(run)
    if len(evaluated):
        figure, axes = plt.subplots(1, 2, figsize=(11, 4.2))
        _draw_columns(axes[0], evaluated, EVALUATIONS["loss"])
        _draw_columns(axes[1], evaluated, EVALUATIONS["acc"])
        axes[0].set(ylabel="loss, with the L2 term if there is one")
        axes[1].set(ylabel="accuracy")
    else:
        figure, ax = plt.subplots(figsize=(6.5, 4.2))
        axes = [ax]
        _draw_columns(ax, recorded, RECORDED, marker="o", ms=4)
        ax.set(ylabel="loss at recorded steps, without the L2 term")
        source += "; the log has no evaluations"
    for ax in axes:
        for number, step in enumerate(recorded.get("global_step", ())):
            label = "recorded steps" if not number else None
            ax.axvline(step, color=CHANCE, **DOTTED | {"lw": 0.8}, label=label)
    axes[0].legend()
    figure.suptitle(f"{run.label}{source}", fontsize="medium")
    return figure, {"evaluations": evaluated, "recorded_steps": recorded}


def _source_note(run: Run) -> str:
    full = run.data_source in ("full", "")
    return "" if full else f", {run.data_source} data, not the full data set"


def _draw_columns(ax: Axes, table: pd.DataFrame, names: dict[str, str], **marks: object) -> None:
    for (column, name), style in zip(names.items(), line_styles(len(names)), strict=True):
        if column in table:
            ax.plot(table["global_step"], table[column], label=name, **(style | marks))
    ax.set(xlabel="training step")


def stage_times(log: Log) -> pd.DataFrame:
    """Return ``stage, seconds`` of a log: from each INFO line to the next, or to a result.

    A result that follows another is a stage as well if it has a name in :data:`UNANNOUNCED`.
    """
    rows = []
    for begin, end in itertools.pairwise(_marks(log)):
        stage = stage_name(begin.text)
        if not stage and not is_info(end):
            stage = next((UNANNOUNCED[name] for name in end.body if name in UNANNOUNCED), "")
        if stage:
            rows.append({"stage": stage, "seconds": (end.time - begin.time).total_seconds()})
    return pd.DataFrame(rows, columns=["stage", "seconds"])


def stage_name(text: str) -> str:
    """Return the name of a stage, without the sizes and steps that published logs add to it."""
    plain = re.sub(r"\s*\([^)]*\)", "", text).removesuffix("...").strip()
    return STAGES.get(plain, plain)


def is_info(event: Event) -> bool:
    """Return whether an event says what happens: INFO, or H_TRAIN INFO of published logs."""
    return event.header.endswith(events.INFO)


def _marks(log: Log) -> list[Event]:
    stages = (e for e in log.events if e.text not in FACTS)
    return [e for e in stages if (is_info(e) and e.text) or e.header in HEADERS]


def measurement_times(log: Log) -> list[dict[str, object]]:
    """Return the mean time of a measurement in a log, and that of all in sequence."""
    begun = [event for event in log.events if events.MEASURING in event.text]
    done = [event for event in log.events if events.MEASURED in event.text]
    if not done:
        return []
    seconds = (done[-1].time - begun[0].time).total_seconds() / len(done)
    rows: list[dict[str, object]] = [{"stage": "one measurement", "seconds": seconds}]
    num = next((body.get("NUM_INNER") for body in log.bodies(events.CONFIG)), None)
    if isinstance(num, int):
        rows.append({"stage": "all measurements, in sequence", "seconds": num * seconds})
    return rows


def run_times(logs: LogSet, options: Options) -> Drawing:
    """Seconds per measurement and per stage of the analysis, of each run, from the time stamps.

    The table has all stages, the figure those that last longer than time stamps resolve.
    """
    table = _times_of_runs(logs)
    if not len(table):
        raise MissingInLogsError("no log has stages with time stamps")
    groups = {name: part["seconds"] for name, part in table.groupby(["stage", "run"], sort=False)}
    shown = {name: part for name, part in groups.items() if part.median() > TIME_RESOLUTION}
    if not shown:
        raise MissingInLogsError(f"no stage takes longer than {TIME_RESOLUTION:g} s")
    order = list(dict.fromkeys(stage for stage, _ in shown))
    runs = list(dict.fromkeys(table["run"]))
    height = 1.4 + len(order) * (0.25 + 0.13 * len(runs))
    figure, ax = plt.subplots(figsize=(10, height))
    for number, (run, style) in enumerate(zip(runs, line_styles(len(runs)), strict=True)):
        ax.plot([], [], "o", color=style["color"], label=run)
        for position, stage in enumerate(order):
            if (stage, run) in shown:
                beside = position + (number + 1) / (len(runs) + 1) - 0.5
                _draw_times(ax, shown[stage, run], beside, style)
    labels = [stage_in_words(stage) for stage in order]
    ax.set(yticks=range(len(order)), yticklabels=labels, xlabel="seconds", xscale="log")
    for position in range(len(order) - 1):
        ax.axhline(position + 0.5, color=CHANCE, lw=0.4)
    ax.set_ylim(-0.5, len(order) - 0.5)
    ax.margins(x=0.12)
    ax.grid(visible=False, axis="y")
    ax.xaxis.set_minor_formatter(NullFormatter())
    ax.invert_yaxis()
    ax.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=min(2, len(runs)))
    title = "Run times; a dot is one log or Hessian, the bar their median"
    if len(shown) < len(groups):
        title += f"\n(left out: what takes at most {TIME_RESOLUTION:g} s, the resolution of logs)"
    figure.suptitle(title, fontsize="medium")
    return figure, {"seconds": table}


def _times_of_runs(logs: LogSet) -> pd.DataFrame:
    """Return ``stage, seconds, log, run`` of all logs; empty if there are none."""
    parts = []
    for log in [*logs.measuring, *logs.analysing]:
        rows = measurement_times(log) if log in logs.measuring else []
        table = pd.concat([pd.DataFrame(rows), stage_times(log)] if rows else [stage_times(log)])
        if log in logs.measuring:
            table = table[~table["stage"].str.startswith((events.MEASURING, events.MEASURED))]
        run = logs.run_of(log)
        parts.append(table.assign(log=log.path.name, run=f"{run.label}{_source_note(run)}"))
    return pd.concat(parts) if parts else pd.DataFrame()


def stage_in_words(stage: str) -> str:
    """Return what a figure calls a stage of a log."""
    return WORDS.get(stage, stage[:1].lower() + stage[1:])


def seconds_in_words(seconds: float) -> str:
    """Return three digits, or all digits of a large number, but no exponent."""
    return f"{seconds:,.0f}" if seconds >= 1000 else f"{seconds:.3g}"


def _draw_times(ax: Axes, seconds: pd.Series, position: float, style: dict[str, object]) -> None:
    median = seconds.median()
    label = f"{seconds_in_words(median)} s"
    # A logarithmic axis has no place for what begins and ends with the same time stamp.
    drawn = seconds.clip(lower=TIME_RESOLUTION)
    ax.plot(drawn, [position] * len(drawn), "o", ms=5, mfc="none", color=style["color"])
    ax.plot(median, position, "|", ms=12, mew=2, color=INK)
    ax.annotate(
        label, (float(drawn.max()), position), (8, 0), textcoords="offset points", va="center",
        fontsize="x-small",
    )  # fmt: skip
