"""What of an experiment is done, and what is still needed.

What counts are the logs and the store, not what became of the jobs.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from skerch import BASIS_FMT
from skerch.errors import InputError, SkerchError, StoreError
from skerch.store.files import differences, own_dataset, read_provenance, reading
from skerch.store.measurements import DistributedHDF5
from skerch.store_names import FLAGS

from ..app import events
from ..app.log import Log, is_cut_at_once, read_log
from .experiment import Experiment, HessianKey
from .ownership import foreign_files, is_store

TRAIN, MEASURE, ANALYSE = (
    "10a_gather_params_grads.py", "10c_hessian_hdf5_measurements.py", "10d_core_and_analysis.py",
)  # fmt: skip


@dataclass(frozen=True)
class Training:
    """State of the training: ``"absent"``, ``"unfinished"`` or ``"done"``."""

    state: str
    run_id: str | None = None


def find_training(experiment: Experiment) -> Training:
    """Read the log of 10a.

    Raises:
        InputError: If the run is one of another problem, or did not record the steps.
    """
    if experiment.run_dir is None:
        return Training("absent")
    logs = find_logs(experiment, TRAIN)
    if not logs:
        return Training("unfinished")
    log = logs[0]
    if not (log.bodies(events.CONFIG) and log.bodies(events.GLOBALS)):
        return Training("unfinished")  # killed before it had begun
    config, run = log.first(events.CONFIG), log.first(events.GLOBALS)
    trained = {"PROBLEM": config.get("PROBLEM"), "NUM_PARAMS": run["num_params"]}
    if experiment.settings.PARAMETERS:
        del trained["NUM_PARAMS"]  # those of the choice, which 10c compares
    for name, found in trained.items():
        expected = getattr(experiment.settings, name)
        if expected != found:
            raise InputError(f"{log.path}: expected {name}={expected}, found {found}")
    missing = sorted(set(experiment.steps) - set(run["record_steps"]))
    if missing:
        raise InputError(
            f"{log.path}: steps {missing} were not recorded; there are {run['record_steps']}, of "
            "which RECORD_BEGINNING, RECORD_EVERY and MAX_RECORD_STEP choose"
        )
    done = any(event.text == events.TRAINING_DONE for event in log.events)
    return Training("done" if done else "unfinished", run["run_id"])


def analysed_hessians(experiment: Experiment, run_id: str | None) -> set[HessianKey]:
    """Return the Hessians with a complete log of 10d, for sizes like these."""
    done = set()
    for log in find_logs(experiment, ANALYSE, run_id):
        body = facts(log)
        finished = any(event.text == events.ANALYSED for event in log.events)
        if finished and not differences(_wanted(experiment, experiment.sizes.in_analysis), body):
            done.add((body["step"], body["split"]))
    return done


def store_exists(experiment: Experiment) -> bool:
    """Say whether the store is there.

    Raises:
        InputError: If there is something else, or a store of other sizes.
    """
    directory = experiment.store
    if not directory.exists() or not any(directory.iterdir()):
        return False
    for fmt, shape in experiment.sizes.layout.items():
        path = directory / fmt.format(DistributedHDF5.ALL)
        if not path.is_file():
            raise InputError(f"{directory}: expected a measurement store, no {path.name}")
        found = DistributedHDF5.load_virtual(path).shape
        if found != shape:
            raise InputError(f"{path}: expected shape {shape}, found {found}")
    return True


def measured_indices(experiment: Experiment, run_id: str | None) -> dict[HessianKey, set[int]]:
    """Return what the store holds, by Hessian, going by flags and provenance of its files.

    Measurements are counted through all rounds: number ``r * per_round + i`` is index ``i`` of
    round ``r``. The files of a round are those of the round before, used again. Their data are not
    read: 10c and 10d verify the checksums.
    """
    held: dict[HessianKey, set[int]] = {}
    sizes, starts = experiment.sizes, _starts(experiment)
    for idx in range(sizes.per_round):
        paths = [
            DistributedHDF5.subpath(experiment.store, fmt, idx)
            for fmt, shape in sizes.layout.items()
            if idx < shape[1]
        ]
        owners = {_owner(path, experiment, run_id, starts) for path in paths}
        owner = owners.pop()
        if owner is not None and not owners:
            key, number = owner
            held.setdefault(key, set()).add(number * sizes.per_round + idx)
    for number in range(1, sizes.num_rounds):
        # Whoever has a block has measured all rounds before it.
        block = DistributedHDF5.subpath(experiment.store, BASIS_FMT, number)
        owner = _owner(block, experiment, run_id, starts)
        if owner is not None:
            held.setdefault(owner[0], set()).update(range(number * sizes.per_round))
    return held


def _starts(experiment: Experiment) -> dict[HessianKey, str | None]:
    """Return what the measurements of each Hessian must say of their start.

    ``None`` stands for none, and an empty name for any: that of eigenvectors that are not there.
    """
    if not experiment.settings.TRACK:
        return {}
    from ..analysis.starts import start_options  # imports torch, which takes seconds

    starts: dict[HessianKey, str | None] = {}
    for key in experiment.hessians:
        ending = experiment.start_of(*key)
        starts[key] = "" if ending else None
        run_dir = experiment.run_dir if ending else None
        found = [] if run_dir is None else [*run_dir.glob(f"*{ending}*.h5")]
        if len(found) == 1:
            with contextlib.suppress(SkerchError):  # 10e says what is wrong with it
                options = start_options(str(found[0]), experiment.settings.NUM_PARAMS)
                starts[key] = options["start"].name
    return starts


def _owner(
    path: Path, experiment: Experiment, run_id: str | None, starts: Mapping[HessianKey, str | None]
) -> tuple[HessianKey, int] | None:
    """Return the Hessian and the round of a measurement, or of the block of a basis."""
    wanted = experiment.settings.MEAS_FLAG
    try:
        with reading(path) as file:
            provenance = read_provenance(file)
            flag = own_dataset(file, FLAGS).asstr()[0] if FLAGS in file else wanted
    except StoreError:
        return None
    if flag != wanted or not _is_ours(provenance, experiment, run_id):
        return None
    key = (provenance["step"], provenance["split"])
    start, found = starts.get(key), provenance.get("start")
    ours = found is not None if start == "" else found == start
    return (key, provenance.get("round", 0)) if ours else None


def _wanted(experiment: Experiment, sizes: dict[str, Any]) -> dict[str, Any]:
    return sizes | experiment.settings.curvature_facts


def _is_ours(provenance: dict[str, Any], experiment: Experiment, run_id: str | None) -> bool:
    return (
        run_id is not None
        and provenance.get("run_id") == run_id
        and not differences(_wanted(experiment, experiment.sizes.in_provenance), provenance)
    )


def find_logs(experiment: Experiment, script: str, run_id: str | None = None) -> list[Log]:
    """Return the logs of a script in the run directory, oldest first; empty ones are left out.

    Args:
        experiment: Which.
        script: Name of the script.
        run_id: Of the training: logs of others, and of other sizes, are left out. Not for 10a.
    """
    logs = []
    if experiment.run_dir is not None:
        for path in sorted(experiment.run_dir.iterdir()):
            ours = f"[{script}]" in path.name and path.suffix == ".log"
            if ours and not is_cut_at_once(path):
                logs.append(read_log(path))
    logs.sort(key=lambda log: log.events[0].time)
    return [log for log in logs if script == TRAIN or _is_ours(facts(log), experiment, run_id)]


def facts(log: Log) -> dict[str, Any]:
    """Return what a log says of its Hessian, nothing if it was cut before."""
    return next(iter(log.bodies(events.GLOBALS)), {})


def begun_indices(logs: Sequence[Log]) -> dict[HessianKey, set[int]]:
    """Return the indices whose measurement began, according to logs of 10c."""
    begun: dict[HessianKey, set[int]] = {}
    for log in logs:
        body = facts(log)
        first = body.get("round", 0) * body.get("block_size", 0)
        for event in log.events:
            if event.text == events.MEASURING:
                key = (event.body["step"], "test" if event.body["H_test"] else "train")
                idx = event.body.get("meas_idx", event.body["idx"])  # earlier logs have one alone
                begun.setdefault(key, set()).add(first + idx)
    return begun


@dataclass(frozen=True)
class Plan:
    """What is still to be done.

    Attributes:
        training: State of the training.
        store_ready: Whether the store exists and is needed.
        foreign: Files in its place with measurements of other runs.
        leftover: Whether there is a store with nothing but measurements of this run.
        tasks: For each Hessian that is not analysed, in this order: the first round that is not
            complete, and the array tasks that it needs. Later rounds need all.
        analysed: The others.
    """

    training: Training
    store_ready: bool
    foreign: list[Path]
    leftover: bool
    tasks: dict[HessianKey, tuple[int, Sequence[int]]]
    analysed: list[HessianKey]


def make_plan(experiment: Experiment) -> Plan:
    """Find out what is done.

    The Hessians share the store: what it holds is of use only to the one that comes first, which is
    that of most measurements. All others are measured from the start.
    """
    training = find_training(experiment)
    done = analysed_hessians(experiment, training.run_id)
    pending = [key for key in experiment.hessians if key not in done]
    ready = bool(pending) and store_exists(experiment)
    held = measured_indices(experiment, training.run_id) if ready else {}
    pending.sort(key=lambda key: -len(held.get(key, ())))
    tasks = {}
    for position, key in enumerate(pending):
        measured = held.get(key, set()) if position == 0 else set()
        tasks[key] = _missing_tasks(experiment, measured)
    there = is_store(experiment.store)
    foreign = list(foreign_files(experiment.store, training.run_id)) if there else []
    analysed = [key for key in experiment.hessians if key in done]
    return Plan(training, ready, foreign, there and not foreign, tasks, analysed)


def _missing_tasks(experiment: Experiment, there: set[int]) -> tuple[int, Sequence[int]]:
    """Return the round that is to be measured next, and its tasks; none if the last one is done."""
    size = experiment.sizes.per_round
    # The files of complete rounds are used again: what counts is the latest one that has any.
    number = max(there, default=0) // size
    if experiment.settings.VERIFY:
        return number, experiment.all_tasks
    missing = [i for i in range(size) if number * size + i not in there]
    return number, sorted({experiment.task_of(i) for i in missing})
