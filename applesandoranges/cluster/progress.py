"""Progress of an experiment of the 11x scripts: what is done, what is missing, what runs.

``python -m applesandoranges.cluster.progress plan`` says in words for the shell which jobs are
still needed; ``status`` shows people how far each Hessian is. What counts are the logs and the
store, not what became of the jobs.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from humanfriendly import format_timespan
from rich.console import Console
from rich.table import Table

from skerch import BASIS_FMT, INNER_FMT, LO_FMT
from skerch.errors import InputError, SkerchError, StoreError
from skerch.store.files import differences, format_indices, own_dataset, read_provenance, reading
from skerch.store.measurements import FLAGS, DistributedHDF5

from ..app import events
from ..app.config import one_line
from ..app.log import Log, read_log
from ..app.names import check_name

#: Step and split.
HessianKey = tuple[int, str]


@dataclass(frozen=True)
class Store:
    """The measurements of a ``[dim, dim]`` Hessian.

    Measurements are counted through all rounds: number ``r * per_round + i`` is index ``i`` of
    round ``r``. The files of a round are those of the round before, used again.

    Attributes:
        directory: Where it lies.
        num_outer: Outer measurements of a sketch; pairs that are wanted.
        num_inner: Inner measurements of a sketch; products in all rounds.
        dim: Number of parameters.
        recovery: ``"seigh"``, ``"hmt"`` or ``"krylov"``.
        num_rounds: Rounds of measurements, one for SEIGH.
        per_round: Measurements of a round.
    """

    directory: Path
    num_outer: int
    num_inner: int
    dim: int
    recovery: str
    num_rounds: int
    per_round: int

    @property
    def total(self) -> int:
        """Measurements of one Hessian."""
        return self.num_rounds * self.per_round

    @property
    def layout(self) -> dict[str, tuple[int, int]]:
        """Shapes of the virtual files by format of their names."""
        if self.recovery != "seigh":
            return {LO_FMT: (self.dim, self.per_round)}
        inner = (self.num_inner, self.num_inner)
        return {LO_FMT: (self.dim, self.num_outer), INNER_FMT: inner}

    @property
    def sizes(self) -> dict[str, int | str]:
        """What provenance says of a measurement of this store."""
        if self.recovery != "seigh":
            return {"recovery": self.recovery, "block_size": self.per_round}
        return {"num_outer": self.num_outer, "num_inner": self.num_inner}

    def exists(self) -> bool:
        """Say whether the store is there.

        Raises:
            InputError: If there is something else, or a store of other sizes.
        """
        if not self.directory.exists() or not any(self.directory.iterdir()):
            return False
        for fmt, shape in self.layout.items():
            path = self.directory / fmt.format(DistributedHDF5.ALL)
            if not path.is_file():
                raise InputError(f"{self.directory}: expected a measurement store, no {path.name}")
            found = DistributedHDF5.load_virtual(path).shape
            if found != shape:
                raise InputError(f"{path}: expected shape {shape}, found {found}")
        return True

    def subpaths(self, idx: int) -> list[Path]:
        """Return the files of index ``idx`` of a round."""
        return [
            DistributedHDF5.subpath(self.directory, fmt, idx)
            for fmt, shape in self.layout.items()
            if idx < shape[1]
        ]


@dataclass(frozen=True)
class Experiment:
    """What an 11x script was asked to do, and where.

    Attributes:
        script: Its name.
        run_dir: Run directory of 10a, None if the training has not begun.
        store: The measurements.
        problem: Name of the problem.
        steps: Recorded steps to analyse.
        splits: Of ``"train"`` and ``"test"``.
        per_job: Measurements per array task.
        flag: Success flag.
    """

    script: str
    run_dir: Path | None
    store: Store
    problem: str
    steps: tuple[int, ...]
    splits: tuple[str, ...]
    per_job: int
    flag: str

    @classmethod
    def read(cls, settings: Path, run_dir: str, store: str) -> Experiment:
        """Read the settings that the shell wrote: ``NAME=VALUE``, each ended by a NUL.

        Raises:
            InputError: If one is missing or not of its type.
        """
        entries = settings.read_text(errors="surrogateescape").split("\0")
        values = dict(entry.split("=", 1) for entry in entries if "=" in entry)
        try:
            begin, end = int(values["RECORD_BEGINNING"]), int(values["MAX_RECORD_STEP"])
            return cls(
                script=values["SCRIPT"],
                run_dir=Path(run_dir) if run_dir else None,
                store=Store(
                    directory=Path(store),
                    num_outer=int(values["NUM_OUTER"]),
                    num_inner=int(values["NUM_INNER"]),
                    dim=int(values["NUM_PARAMS"]),
                    recovery=values["RECOVERY"],
                    num_rounds=int(values["NUM_ROUNDS"]),
                    per_round=int(values["PER_ROUND"]),
                ),
                problem=values["PROBLEM"],
                steps=tuple(range(begin, end + 1, int(values["RECORD_EVERY"]))),
                splits=tuple(values["SPLITS"].split()),
                per_job=int(values["MEAS_PER_JOB"]),
                flag=values["MEAS_FLAG"],
            )
        except (KeyError, ValueError) as error:
            raise InputError(f"{settings}: not the settings of an 11x script ({error})") from None

    @property
    def hessians(self) -> list[HessianKey]:
        """All Hessians in the order of the chain."""
        return [(step, split) for step in self.steps for split in self.splits]

    def task_of(self, idx: int) -> int:
        """Return the array task, counted from 1, that measures index ``idx`` of a round."""
        return idx // self.per_job + 1

    def indices_of(self, task: int, number: int) -> range:
        """Return the measurements, through all rounds, of array task ``task`` of a round."""
        end = min(task * self.per_job, self.store.per_round)
        begin = number * self.store.per_round
        return range(begin + (task - 1) * self.per_job, begin + end)


@dataclass(frozen=True)
class Training:
    """State of the training: ``"absent"``, ``"unfinished"`` or ``"done"``."""

    state: str
    run_id: str | None = None


@dataclass(frozen=True)
class Queued:
    """A job of the experiment, or one task of an array, that waits or runs."""

    name: str
    running: bool
    task: int | None

    @classmethod
    def parse(cls, line: str) -> Queued:
        """Read ``NAME<tab>STATE<tab>TASK``, more fields may follow."""
        name, state, task = line.rstrip("\n").split("\t")[:3]
        return cls(name, state not in ("PENDING", "REQUEUED"), int(task) if task else None)

    @property
    def script(self) -> str:
        """``10a``, ``10b``, ``10c``, ``10d`` or something else."""
        return self.name.partition("_")[0]

    def hessian(self) -> tuple[HessianKey, int, int] | None:
        """Return Hessian, round, and the number to be added to ``task``; None for other jobs."""
        pattern = r"10[cde]_step(\d+)_(train|test)(?:_round(\d+))?(?:_from(\d+))?"
        match = re.fullmatch(pattern, self.name)
        if not match:
            return None
        return (int(match[1]), match[2]), int(match[3] or 0), int(match[4] or 0)


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


def find_training(experiment: Experiment) -> Training:
    """Read the log of 10a.

    Raises:
        InputError: If the run is one of another problem, or did not record the steps.
    """
    if experiment.run_dir is None:
        return Training("absent")
    logs = _logs(experiment, "10a_gather_params_grads.py")
    if not logs:
        return Training("unfinished")
    config, run = logs[0].first(events.CONFIG), logs[0].first(events.GLOBALS)
    for name, expected, found in (
        ("PROBLEM", experiment.problem, config.get("PROBLEM")),
        ("NUM_PARAMS", experiment.store.dim, run["num_params"]),
    ):
        if expected != found:
            raise InputError(f"{logs[0].path}: expected {name}={expected}, found {found}")
    missing = sorted(set(experiment.steps) - set(run["record_steps"]))
    if missing:
        raise InputError(
            f"{logs[0].path}: steps {missing} were not recorded; there are {run['record_steps']}"
        )
    done = any(event.text == events.TRAINING_DONE for event in logs[0].events)
    return Training("done" if done else "unfinished", run["run_id"])


def analysed_hessians(experiment: Experiment, run_id: str | None) -> set[HessianKey]:
    """Return the Hessians with a complete log of 10d, for a sketch of this size."""
    done = set()
    for log in _logs(experiment, "10d_core_and_analysis.py"):
        body = _globals(log)
        wanted = {"num_outer": experiment.store.num_outer}
        if experiment.store.recovery != "seigh":
            wanted["num_rounds"] = experiment.store.num_rounds
        finished = any(event.text == events.ANALYSED for event in log.events)
        if finished and _is_ours(body, experiment, run_id) and not differences(wanted, body):
            done.add((body["step"], body["split"]))
    return done


def measured_indices(experiment: Experiment, run_id: str | None) -> dict[HessianKey, set[int]]:
    """Return what the store holds, by Hessian, going by flags and provenance of its files.

    Their data are not read: 10c and 10d verify the checksums.
    """
    held: dict[HessianKey, set[int]] = {}
    store = experiment.store
    for idx in range(store.per_round):
        owners = {_owner(path, experiment, run_id) for path in store.subpaths(idx)}
        owner = owners.pop()
        if owner is not None and not owners:
            key, number = owner
            held.setdefault(key, set()).add(number * store.per_round + idx)
    for number in range(1, store.num_rounds):
        # Whoever has a block has measured all rounds before it.
        block = DistributedHDF5.subpath(store.directory, BASIS_FMT, number)
        owner = _owner(block, experiment, run_id)
        if owner is not None:
            held.setdefault(owner[0], set()).update(range(number * store.per_round))
    return held


def _owner(path: Path, experiment: Experiment, run_id: str | None) -> tuple[HessianKey, int] | None:
    """Return the Hessian and the round of a measurement, or of the block of a basis."""
    try:
        with reading(path) as file:
            provenance = read_provenance(file)
            flag = own_dataset(file, FLAGS).asstr()[0] if FLAGS in file else experiment.flag
    except StoreError:
        return None
    if flag != experiment.flag or not _is_ours(provenance, experiment, run_id):
        return None
    return (provenance["step"], provenance["split"]), provenance.get("round", 0)


def _is_ours(provenance: dict[str, Any], experiment: Experiment, run_id: str | None) -> bool:
    return (
        run_id is not None
        and provenance.get("run_id") == run_id
        and not differences(experiment.store.sizes, provenance)
    )


def _logs(experiment: Experiment, script: str) -> list[Log]:
    """Return the logs of ``script`` in the run directory, oldest first; empty ones are left out."""
    logs = []
    if experiment.run_dir is not None:
        for path in sorted(experiment.run_dir.iterdir()):
            if f"[{script}]" in path.name and path.suffix == ".log" and path.stat().st_size:
                logs.append(read_log(path))
    return logs


def _globals(log: Log) -> dict[str, Any]:
    return next(iter(log.bodies(events.GLOBALS)), {})


@dataclass(frozen=True)
class Plan:
    """What is still to be done.

    Attributes:
        training: State of the training.
        store_ready: Whether the store exists.
        tasks: For each Hessian that is not analysed, in this order: the first round that is not
            complete, and the array tasks that it needs. Later rounds need all.
        analysed: The others.
    """

    training: Training
    store_ready: bool
    tasks: dict[HessianKey, tuple[int, list[int]]]
    analysed: list[HessianKey]

    def lines(self) -> list[str]:
        """Return it in words for the shell."""
        lines = [
            f"training {self.training.state}",
            f"store {'ready' if self.store_ready else 'absent'}",
        ]
        lines += [f"hessian {step} {split} done" for step, split in self.analysed]
        for (step, split), (number, tasks) in self.tasks.items():
            words = format_indices(tasks).replace(" ", "") or "none"
            lines.append(f"hessian {step} {split} todo {words} {number}")
        return lines


def make_plan(experiment: Experiment) -> Plan:
    """Find out what is done.

    The Hessians share the store: what it holds is of use only to the one that comes first, which is
    that of most measurements. All others are measured from the start.
    """
    training = find_training(experiment)
    done = analysed_hessians(experiment, training.run_id)
    pending = [key for key in experiment.hessians if key not in done]
    ready = bool(pending) and experiment.store.exists()
    held = measured_indices(experiment, training.run_id) if ready else {}
    pending.sort(key=lambda key: -len(held.get(key, ())))
    tasks = {}
    for position, key in enumerate(pending):
        there = held.get(key, set()) if position == 0 else set()
        tasks[key] = _missing_tasks(experiment, there)
    return Plan(training, ready, tasks, [key for key in experiment.hessians if key in done])


def _missing_tasks(experiment: Experiment, there: set[int]) -> tuple[int, list[int]]:
    """Return the round that is to be measured next, and its tasks; none if the last one is done."""
    size = experiment.store.per_round
    # The files of complete rounds are used again: what counts is the latest one that has any.
    number = max(there, default=0) // size
    missing = [i for i in range(size) if number * size + i not in there]
    return number, sorted({experiment.task_of(i) for i in missing})


def begun_indices(logs: Sequence[Log]) -> dict[HessianKey, set[int]]:
    """Return the indices whose measurement began, according to logs of 10c."""
    begun: dict[HessianKey, set[int]] = {}
    for log in logs:
        body = _globals(log)
        first = body.get("round", 0) * body.get("block_size", 0)
        for event in log.events:
            if event.text == events.MEASURING:
                key = (event.body["step"], "test" if event.body["H_test"] else "train")
                idx = event.body.get("meas_idx", event.body["idx"])  # earlier logs have one alone
                begun.setdefault(key, set()).add(first + idx)
    return begun


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
    ready = pending and experiment.store.exists()
    held = measured_indices(experiment, run_id) if ready else {}
    begun = begun_indices(measuring)
    result = []
    for key in experiment.hessians:
        if key in done:
            result.append(HessianProgress(key, True))
            continue
        jobs = [(job, job.hessian()) for job in queue]
        own = [(job, where[1:]) for job, where in jobs if where is not None and where[0] == key]
        measured = frozenset(held.get(key, ()))
        running = {
            idx
            for job, (number, offset) in own
            if job.running and job.task is not None
            for idx in experiment.indices_of(job.task + offset, number)
        }
        result.append(
            HessianProgress(
                key,
                analysed=False,
                measured=measured,
                failed=frozenset(begun.get(key, set()) - measured - running),
                running=frozenset(running - measured),
                queued=bool(own),
                analysing=any(job.running and job.script == "10d" for job, _ in own),
            )
        )
    return result


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
    missing = sum(experiment.store.total - len(hessian.measured) for hessian in pending)
    times = [
        (log.events[-1].time - log.events[0].time).total_seconds()
        for log in analysing
        if log.events[-1].text == events.ANALYSED
    ]
    per_analysis = sum(times) / len(times) if times else 0.0
    return missing * busy / num + len(pending) * per_analysis


def _union_seconds(spans: Sequence[tuple[datetime, datetime]]) -> float:
    """Return how long at least one of the spans, sorted by their begin, lasted."""
    total, reached = 0.0, datetime.min
    for begin, end in spans:
        if end > reached:
            total += (end - max(begin, reached)).total_seconds()
            reached = end
    return total


def print_status(experiment: Experiment, queue: Sequence[Queued], resume_command: str) -> None:
    """Print how far the experiment is, and the command that finishes it."""
    console = Console(highlight=False, soft_wrap=True)
    training = find_training(experiment)
    ours = [
        log
        for log in _logs(experiment, "10c_hessian_hdf5_measurements.py")
        if _is_ours(_globals(log), experiment, training.run_id)
    ]
    analysing = [
        log
        for log in _logs(experiment, "10d_core_and_analysis.py")
        if _is_ours(_globals(log), experiment, training.run_id)
    ]
    hessians = progress_of_hessians(experiment, queue, ours)
    total = experiment.store.total
    runs = any(job.script == "10a" and job.running for job in queue)
    state = "running" if runs and training.state != "done" else training.state
    lines = [f"Training: {state.replace('absent', 'not begun')}"]
    if experiment.run_dir is not None:
        lines.append(f"Run directory: {experiment.run_dir}")
    for line in lines:
        console.print(line, markup=False)
    table = Table("Hessian", "state", "done", "failed", "running", "of", box=None, pad_edge=False)
    for column in table.columns[2:]:
        column.justify = "right"
    for hessian in hessians:
        numbers = (len(hessian.measured), len(hessian.failed), len(hessian.running))
        if hessian.analysed:
            numbers = (total, 0, 0)
        step, split = hessian.key
        table.add_row(f"step {step}, {split}", hessian.state(total), *map(str, numbers), str(total))
    console.print(table)
    waiting = sum(not job.running for job in queue)
    console.print(f"Jobs: {len(queue) - waiting} running, {waiting} waiting", markup=False)
    if training.state == "done" and all(hessian.analysed for hessian in hessians) and not queue:
        console.print("All Hessians are analysed.", markup=False)
        return
    left = seconds_left(experiment, hessians, ours, analysing)
    guess = (
        "unknown before the first measurement"
        if left is None
        else format_timespan(round(left), max_units=2)
    )
    console.print(f"Time left by the rate so far: {guess}", markup=False)
    what = "If the jobs stop, this goes on" if queue else "Nothing runs or waits; this finishes it"
    console.print(f"{what}: {resume_command}", markup=False)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; return 0, 2 for wrong input or 1 for a failure."""
    parser = argparse.ArgumentParser(prog="applesandoranges.cluster.progress", description=__doc__)
    parser.add_argument("command", help="plan or status")
    parser.add_argument("--settings", type=Path, required=True, help="settings of the 11x script")
    parser.add_argument("--run_dir", default="", help="run directory of 10a, empty if none yet")
    parser.add_argument("--store", required=True, help="measurement directory")
    parser.add_argument("--queue", type=Path, help="file with the jobs of the experiment")
    parser.add_argument("--resume_command", default="", help="shown by status")
    args = parser.parse_args(argv)
    try:
        check_name("command", args.command, ("plan", "status"))
        experiment = Experiment.read(args.settings, args.run_dir, args.store)
        if args.command == "plan":
            print(*make_plan(experiment).lines(), sep="\n")
        else:
            text = args.queue.read_text() if args.queue else ""
            queue = [Queued.parse(line) for line in text.splitlines()]
            print_status(experiment, queue, args.resume_command)
    except (SkerchError, OSError) as error:
        print(f"progress: {one_line(error)}", file=sys.stderr)
        return 2 if isinstance(error, InputError) else 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
