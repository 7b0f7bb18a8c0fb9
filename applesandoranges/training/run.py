"""A training that is ready to start, a new one or one that goes on: checks, directory, log."""

from __future__ import annotations

import os
import uuid
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from skerch import heartbeat
from skerch.errors import InputError

from ..app import events
from ..app.log import JsonLog, Log, as_logged, file_stamp, is_cut_at_once, read_log
from ..app.machine import parse_device
from ..app.software import made_with
from ..hessian.loss import Loss
from ..problems.data_files import kept_generators
from ..problems.definition import short_name
from ..problems.parameters import parameter_vector, state_hash, trainable, untrained_state
from ..problems.problem import Problem, build_problem
from .keys import RunConfig, TrainingConfig
from .recording import FORMER_MATRICES, check_recorded
from .settings import TrainingSettings

#: Keys in which a training that goes on may differ from its beginning: where things are, and what
#: is looked at without changing it.
FREE_KEYS = {
    "OBS_DATASETS", "DEVICE", "OUTPUT_DIR", "OUTDIR_SUFFIX", "TUNING_CONF", "RESUME", "WITH_EVAL",
}  # fmt: skip
#: Bytes of the name of a run directory: the names of files in it begin with it, and those have at
#: most 255, while they are written too.
LONGEST_NAME = 150
#: Validation points of a full data set, of whatever kind, before GLOBALS said how many there are.
FORMER_NUM_VALID = 10_000


@dataclass(frozen=True, kw_only=True)
class TrainingRun:
    """A training that is ready to start; nothing was written yet but its directory.

    ``total_steps`` updates are made; a recorded step is the state before its update, and
    ``total_steps`` itself the state after the last one. ``done`` says that all were made before.
    """

    run_id: str
    run_dir: Path
    log: JsonLog
    problem: Problem
    settings: TrainingSettings
    seed: int
    record_steps: tuple[int, ...]
    total_steps: int
    num_hessian: int
    done: bool = False
    with_eval: bool = True
    logged: set[tuple[str, ...]] = field(default_factory=set)

    def hessian_facts(self, step: int, split: str) -> dict[str, Any]:
        """Return what tells the Hessian of a step, whose state the network has, from any other."""
        net = self.problem.net
        return {
            "run_id": self.run_id,
            "problem": self.problem.name,
            "step": step,
            "split": split,
            "params_sha256": state_hash(parameter_vector(net), untrained_state(net)),
            "data_sha256": self.problem.subset_hash(split, self.num_hessian),
            **self.problem.facts(),
        }

    def has_logged(self, header: str, body: dict[str, Any]) -> bool:
        """Say whether the log has an event of a step, whatever else its body says."""
        return _event_key(header, body) in self.logged

    def log_once(self, header: str, body: dict[str, Any]) -> None:
        """Log an event of a step, unless the log has it from before the training was resumed."""
        if not self.has_logged(header, body):
            self.log(header, body)
            self.logged.add(_event_key(header, body))


def _event_key(header: str, body: dict[str, Any]) -> tuple[str, ...]:
    matrix = str(body.get("matrix"))
    return header, str(body.get("global_step")), FORMER_MATRICES.get(matrix, matrix)


def prepare_run(config: TrainingConfig, script: str, resume: Path | None = None) -> TrainingRun:
    """Check everything, build the problem, make the run directory and log CONFIG and GLOBALS.

    Args:
        config: The keys.
        script: Whose log it is.
        resume: Run directory of a training by the same keys that goes on.

    Raises:
        InputError: If anything about the configuration cannot work, or is not that of the training
            that should go on; nothing is written then.
    """
    if resume is None:
        run_id, log = new_log(config, script)
        return _prepare(config, log, None, run_id)
    log = JsonLog(_log_of(resume, script), resume=True, alone=True)
    try:
        return _prepare(config, log, _earlier_log(log.path, config), None)
    except BaseException:
        log.close()
        raise


def _prepare(
    config: TrainingConfig, log: JsonLog, earlier: Log | None, new_id: str | None
) -> TrainingRun:
    """Return a training that writes ``log``.

    A new one has ``new_id``; another goes on with ``earlier``, or begins if that is None.
    """
    settings = config.settings()
    device = parse_device(config.DEVICE)
    _check_keys(config)
    problem = build_problem(
        config.PROBLEM, config.datasets(), config.RANDOM_SEED, settings.batch_size, device
    )
    record_steps, total_steps = _steps(config, settings, problem.steps_per_epoch)
    heartbeat.doing("choosing the data of the Hessians")
    subsets = hessian_subsets(problem, config.NUM_HESSIAN_DATAPOINTS)
    if earlier is None and not problem.known:
        _check_loss(problem, config.NUM_HESSIAN_DATAPOINTS)
    run_id = earlier.first(events.GLOBALS)["run_id"] if earlier else new_id or uuid.uuid4().hex
    run = TrainingRun(
        run_id=run_id,
        run_dir=log.path.parent,
        log=log,
        problem=problem,
        settings=settings,
        seed=config.RANDOM_SEED,
        record_steps=record_steps,
        total_steps=total_steps,
        num_hessian=config.NUM_HESSIAN_DATAPOINTS,
        done=earlier is not None and any(e.text == events.TRAINING_DONE for e in earlier.events),
        with_eval=config.WITH_EVAL,
    )
    run_globals = identity(problem, run_id, run.run_dir) | subsets | _globals(run, config)
    if earlier is None:
        run.run_dir.mkdir(parents=True, exist_ok=new_id is None)
        log(events.CONFIG, asdict(config))
        log(events.GLOBALS, run_globals)
    else:
        _go_on(run, earlier, run_globals)
    return run


def _check_run(config: RunConfig) -> None:
    if not 0 <= config.RANDOM_SEED < 2**32 - 10**8:
        raise InputError(f"RANDOM_SEED must lie in [0, 2^32 - 10^8), got {config.RANDOM_SEED}")
    if "/" in config.OUTDIR_SUFFIX or "\0" in config.OUTDIR_SUFFIX:
        raise InputError(f"OUTDIR_SUFFIX is part of a file name, got {config.OUTDIR_SUFFIX!r}")


def _check_keys(config: TrainingConfig) -> None:
    _check_run(config)
    if config.MAX_STEPS is not None and config.MAX_STEPS < 0:
        raise InputError(f"MAX_STEPS must be at least 0, got {config.MAX_STEPS}")


def _steps(
    config: TrainingConfig, settings: TrainingSettings, steps_per_epoch: int
) -> tuple[tuple[int, ...], int]:
    """Return the steps to record and the number of updates."""
    last = settings.last_step(steps_per_epoch, config.MAX_STEPS)
    steps = tuple(sorted(set(config.RECORD_STEPS)))
    beyond = [step for step in steps if not 0 <= step <= last]
    if beyond or not steps:
        raise InputError(
            f"RECORD_STEPS must be some of 0 ... {last} (this training has {settings.num_epochs} "
            f"epochs of {steps_per_epoch} steps, MAX_STEPS={config.MAX_STEPS}), got "
            f"{beyond or 'none'}"
        )
    return steps, min(last + 1, settings.num_epochs * steps_per_epoch)


def hessian_subsets(problem: Problem, size: int) -> dict[str, Tensor | str]:
    """Return indices and hashes of the data of both Hessians, as they are logged.

    Raises:
        InputError: If there is no subset of that size.
    """
    splits = ("train", "test")
    try:
        idxs = {f"H_{split}_idxs": problem.hessian_subset(split, size) for split in splits}
    except InputError as error:
        raise InputError(f"NUM_HESSIAN_DATAPOINTS: {error}") from error
    return idxs | {f"H_{split}_sha256": problem.subset_hash(split, size) for split in splits}


def _check_loss(problem: Problem, size: int) -> None:
    """Evaluate the loss once, before anything is written.

    Raises:
        InputError: If it is none whose Hessian can be measured.
    """
    training = problem.net.training
    problem.net.eval()
    with kept_generators():
        Loss.of(problem, "train", size).value()
    problem.net.train(training)


def new_log(config: RunConfig, script: str) -> tuple[str, JsonLog]:
    """Return a new identity, and the log in a new run directory; nothing is written yet."""
    _check_run(config)
    stamp = file_stamp()
    name = f"{stamp}__{short_name(config.PROBLEM)}__{config.RANDOM_SEED}"
    if config.OUTDIR_SUFFIX:
        name += f"__{config.OUTDIR_SUFFIX}"
    if (size := len(os.fsencode(name))) > LONGEST_NAME:
        raise InputError(
            f"OUTDIR_SUFFIX makes the name of the run directory {size} bytes long, at most "
            f"{LONGEST_NAME} are possible: {name[:60]!r} ..."
        )
    run_dir = Path(config.OUTPUT_DIR).expanduser() / name
    return uuid.uuid4().hex, JsonLog(run_dir / f"{stamp}[{script}].log", alone=True)


def _go_on(run: TrainingRun, earlier: Log, run_globals: dict[str, Any]) -> None:
    """Check that a training is the earlier one, and take over what that has logged.

    Nothing is written where it is done.
    """
    # What earlier versions did not log, or logged in another way, and what it was then.
    former = {"num_valid": run.problem.num_valid(FORMER_NUM_VALID), "sched_hpars": None}
    said = earlier.first(events.GLOBALS).get("data_files")
    run.problem.check_data_files(said, f"the training ({earlier.path})")
    _check_same(earlier, events.GLOBALS, run_globals, {"run_dir", "made_with"}, former)
    check_recorded(earlier, run.run_dir)
    run.logged.update(_event_key(event.header, event.body) for event in earlier.events)
    if not run.done:
        run.log.info(events.RESUMED, {"log": run.log.path})


def _log_of(run_dir: Path, script: str) -> Path:
    logs = [path for path in run_dir.glob("*.log") if path.name.endswith(f"[{script}].log")]
    if len(logs) != 1:
        found = [path.name for path in logs]
        raise InputError(f"{run_dir}: expected the log of one training by {script}, found {found}")
    return logs[0]


def _earlier_log(path: Path, config: TrainingConfig) -> Log | None:
    """Return the log of a training, which must have the keys of ``config``.

    ``None`` if that training was killed before it had said what it is: then nothing was trained.
    """
    if not is_cut_at_once(path):
        log = read_log(path)
        _check_same(log, events.CONFIG, asdict(config), FREE_KEYS)
        if log.bodies(events.GLOBALS):
            return log
    if files := sorted(path.parent.glob("*.h5")):
        raise InputError(
            f"{path}: was cut, it does not say of which run {files[0].name} is; start the training "
            "anew, without RESUME"
        )
    return None


def _check_same(
    log: Log,
    header: str,
    expected: dict[str, Any],
    ignore: set[str],
    former: dict[str, Any] | None = None,
) -> None:
    """Raise :class:`InputError` unless the log's first ``header`` body is ``expected``.

    ``former`` says what stands for keys that the log lacks or has as an empty dictionary.
    """
    found = log.first(header)
    for name, value in as_logged(expected).items():
        there = found.get(name)
        if there in (None, {}):
            there = (former or {}).get(name, there)
        if name not in ignore and there != value:
            raise InputError(
                f"{log.path}: is of another training: {name} was {there!r}, now {value!r}; RESUME "
                "takes the keys and data that it was begun with"
            )


def identity(problem: Problem, run_id: str, run_dir: Path) -> dict[str, Any]:
    """Return what GLOBALS says of every run, beside :func:`hessian_subsets`."""
    params = trainable(problem.net)
    return {
        "run_id": run_id,
        "run_dir": str(run_dir),
        "made_with": made_with(),
        "data_source": problem.source,
        "data_files": problem.data_files,
        "batch_size": problem.batch_size,
        "num_valid": problem.num_valid(),
        "param_shapes": [list(p.shape) for p in params.values()],
        "num_params": sum(p.numel() for p in params.values()),
        **problem.facts(),
    }


def _globals(run: TrainingRun, config: TrainingConfig) -> dict[str, Any]:
    settings = run.settings
    return {
        "num_epochs": settings.num_epochs,
        "max_steps": config.MAX_STEPS,
        "steps_per_epoch": run.problem.steps_per_epoch,
        "opt_name": settings.opt_name,
        "opt_hpars": settings.opt_hpars,
        "sched_name": settings.sched_name,
        "sched_hpars": settings.sched_hpars if settings.sched_name else None,
        "record_steps": run.record_steps,
    }
