"""How far each Hessian is, and how long the rest takes, for people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from humanfriendly import format_size, format_timespan
from rich.console import Console
from rich.table import Table

from ..app import events
from ..app.log import Log
from ..app.verdicts import Verdict
from .experiment import Experiment, HessianKey
from .ownership import foreign_files, is_store, store_files
from .progress import (
    ANALYSE,
    MEASURE,
    analysed_hessians,
    begun_indices,
    facts,
    find_logs,
    find_training,
    measured_indices,
    store_exists,
)
from .queue import Queued


@dataclass(frozen=True)
class HessianProgress:
    """How far one Hessian is.

    Attributes:
        analysed: Whether its analysis is complete.
        measured: Indices in the store.
        failed: Indices whose measurement began and is neither there nor running.
        running: Indices of tasks that run and are not measured yet.
        queued: Whether any job for it waits or runs.
        analysing: Whether its analysis runs.
    """

    key: HessianKey
    analysed: bool
    measured: frozenset[int] = frozenset()
    failed: frozenset[int] = frozenset()
    running: frozenset[int] = frozenset()
    queued: bool = False
    analysing: bool = False

    def state(self, total: int) -> str:
        """Return one word for people."""
        if self.analysed:
            return "analysed"
        if self.analysing:
            return "analysing"
        if self.running:
            return "measuring"
        if self.queued:
            return "queued"
        if len(self.measured) == total:
            return "measured"
        return "incomplete" if self.measured or self.failed else "not begun"


def progress_of_hessians(
    experiment: Experiment, queue: Sequence[Queued], measuring: Sequence[Log]
) -> list[HessianProgress]:
    """Return the progress of all Hessians.

    Args:
        experiment: Which.
        queue: Its jobs.
        measuring: The logs of 10c.
    """
    run_id = find_training(experiment).run_id
    done = analysed_hessians(experiment, run_id)
    pending = len(done) < len(experiment.hessians)
    held = measured_indices(experiment, run_id) if pending and store_exists(experiment) else {}
    begun = begun_indices(measuring)
    return [
        HessianProgress(key, analysed=True)
        if key in done
        else _progress_of(key, experiment, queue, held.get(key, set()), begun.get(key, set()))
        for key in experiment.hessians
    ]


def _progress_of(
    key: HessianKey,
    experiment: Experiment,
    queue: Sequence[Queued],
    measured: set[int],
    begun: set[int],
) -> HessianProgress:
    jobs = [(job, job.hessian()) for job in queue]
    own = [(job, where[1:]) for job, where in jobs if where is not None and where[0] == key]
    running = {
        idx
        for job, (number, offset) in own
        if job.running and job.task is not None
        for idx in experiment.indices_of(job.task + offset, number)
    }
    return HessianProgress(
        key,
        analysed=False,
        measured=frozenset(measured),
        failed=frozenset(begun - measured - running),
        running=frozenset(running - measured),
        queued=bool(own),
        analysing=any(job.running and job.script == "10d" for job, _ in own),
    )


def seconds_left(
    experiment: Experiment,
    hessians: Sequence[HessianProgress],
    measuring: Sequence[Log],
    analysing: Sequence[Log],
) -> float | None:
    """Estimate the time for what is missing, by the rate so far; None before the first measurement.

    Pauses between jobs do not count: the rate is that of the times during which any job measured.
    """
    spans = sorted((log.events[0].time, log.events[-1].time) for log in measuring)
    num = sum(e.text == events.MEASURED for log in measuring for e in log.events)
    busy = _union_seconds(spans)
    if not num or not busy:
        return None
    pending = [hessian for hessian in hessians if not hessian.analysed]
    missing = sum(experiment.sizes.total - len(hessian.measured) for hessian in pending)
    times = [
        (log.events[-1].time - log.events[0].time).total_seconds()
        for log in analysing
        if log.events[-1].text == events.ANALYSED
    ]
    per_analysis = sum(times) / len(times) if times else 0.0
    return missing * busy / num + len(pending) * per_analysis


def verdicts_in_words(analysing: Sequence[Log]) -> dict[HessianKey, str]:
    """Return up to which ``k`` the overlap of each analysed Hessian can be read.

    Where an accuracy was asked for (ACCURACY), also whether it was reached.

    Args:
        analysing: The logs of 10d, oldest first: of several analyses the last one counts.
    """
    found = {}
    for log in analysing:
        body = {name: value for b in log.bodies(events.RESULT) for name, value in b.items()}
        where = facts(log)
        if verdict := Verdict.of(body):
            words = [verdict.words]
            if wanted := body.get("wanted"):
                error = body["overlap_error"]
                reached = error is not None and error <= wanted
                words.append(f"ACCURACY={wanted:g} {'reached' if reached else 'not reached'}")
            found[where["step"], where["split"]] = "; ".join(words)
    return found


def _union_seconds(spans: Sequence[tuple[datetime, datetime]]) -> float:
    """Return how long at least one of the spans, sorted by their begin, lasted."""
    total = 0.0
    reached: datetime | None = None
    for begin, end in spans:
        if reached is None or end > reached:
            total += (end - (begin if reached is None else max(begin, reached))).total_seconds()
            reached = end
    return total


def print_status(experiment: Experiment, queue: Sequence[Queued], resume_command: str) -> None:
    """Print how far the experiment is, and the command that finishes it."""
    console = _console()
    training = find_training(experiment)
    measuring = find_logs(experiment, MEASURE, training.run_id)
    analysing = find_logs(experiment, ANALYSE, training.run_id)
    hessians = progress_of_hessians(experiment, queue, measuring)
    runs = any(job.script == "10a" and job.running for job in queue)
    state = "running" if runs and training.state != "done" else training.state
    console.print(f"Training: {state.replace('absent', 'not begun')}")
    if experiment.run_dir is not None:
        console.print(f"Run directory: {experiment.run_dir}")
    words = verdicts_in_words(analysing)
    console.print(_table(hessians, experiment.sizes.total, words))
    waiting = sum(not job.running for job in queue)
    console.print(f"Jobs: {len(queue) - waiting} running, {waiting} waiting")
    if training.state == "done" and all(hessian.analysed for hessian in hessians) and not queue:
        console.print("All Hessians are analysed.")
        if waits := _waits_for_clean_up(experiment, training.run_id):
            console.print(f"{waits}; this removes them: {resume_command}")
        return
    left = seconds_left(experiment, hessians, measuring, analysing)
    console.print(f"Time left: {_time_left(left, any(job.running for job in queue))}")
    what = "If the jobs stop, this goes on" if queue else "Nothing runs or waits; this finishes it"
    console.print(f"{what}: {resume_command}")


def _waits_for_clean_up(experiment: Experiment, run_id: str | None) -> str:
    """Say what the end of an experiment would still remove; empty if nothing."""
    store = experiment.store
    if experiment.settings.KEEP_MEASUREMENTS or not is_store(store):
        return ""
    if next(foreign_files(store, run_id), None) is not None:
        return ""  # a clean-up leaves it alone
    size = sum(path.stat().st_size for path in store_files(store))
    return f"{format_size(size)} of measurements in {store} wait for the clean-up"


def print_verdicts(experiment: Experiment) -> None:
    """Print what the analyses of an experiment that is done say of themselves."""
    words = verdicts_in_words(find_logs(experiment, ANALYSE, find_training(experiment).run_id))
    table = Table("Hessian", "readable", box=None, pad_edge=False)
    for step, split in experiment.hessians:
        table.add_row(f"step {step}, {split}", words.get((step, split), ""))
    _console().print(table)


def _console() -> Console:
    return Console(highlight=False, markup=False, soft_wrap=True)


def _time_left(seconds: float | None, running: bool) -> str:
    if not running:
        return "unknown, nothing runs"
    if seconds is None:
        return "unknown before the first measurement"
    return f"{format_timespan(round(seconds), max_units=2)} by the rate so far"


def _table(
    hessians: Sequence[HessianProgress], total: int, verdicts: Mapping[HessianKey, str]
) -> Table:
    numbers = ("done", "failed", "running", "of")
    table = Table("Hessian", "state", *numbers, "readable", box=None, pad_edge=False)
    for column in table.columns[2:-1]:
        column.justify = "right"
    for hessian in hessians:
        counts = (len(hessian.measured), len(hessian.failed), len(hessian.running), total)
        (step, split), verdict = hessian.key, ""
        if hessian.analysed:
            counts, verdict = (total, 0, 0, total), verdicts.get(hessian.key, "")
        cells = (f"step {step}, {split}", hessian.state(total), *map(str, counts), verdict)
        table.add_row(*cells)
    return table
