"""Training with recorded steps, shared by 10a and 12a."""

from __future__ import annotations

import hashlib
import math
import secrets
import uuid
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset
from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from skerch.errors import InputError, NumericalError

from .. import REPOSITORY
from ..app import events
from ..app.config import key
from ..app.log import JsonLog, Log, as_logged, file_stamp, read_log
from ..app.machine import default_device, parse_device
from ..app.software import made_with
from ..problems.parameters import buffer_state, load_buffers, trainable
from ..problems.problem import Batch, Problem, build_problem
from .checkpoints import TrainingState
from .optimisers import make_optimizer, make_schedule
from .settings import TrainingSettings, load_settings

#: Keys in which a training that goes on may differ from its beginning: where things are, and what
#: is looked at without changing it.
FREE_KEYS = {
    "OBS_DATASETS", "DEVICE", "OUTPUT_DIR", "OUTDIR_SUFFIX", "TUNING_CONF", "RESUME", "WITH_EVAL",
}  # fmt: skip
#: Validation points of a full data set, of whatever kind, before GLOBALS said how many there are.
FORMER_NUM_VALID = 10_000
#: Values of ``matrix`` in HDF5 lines of earlier versions, and what they are called now.
FORMER_MATRICES = {
    "params": "batch_parameters",
    "gradients_train": "train_gradient",
    "gradients_test": "test_gradient",
}

DEFAULT_SETTINGS = REPOSITORY / "config" / "basic_config.yaml"


@dataclass
class TrainingConfig:
    """Keys that 10a and 12a have in common."""

    OBS_DATASETS: str = key("directory with the data sets (see 09a)")
    RECORD_STEPS: list[int] = key("steps to record, each before its update")
    NUM_HESSIAN_DATAPOINTS: int = key("class-balanced data points per Hessian")
    TUNING_CONF: str = key(
        "settings per problem", str(DEFAULT_SETTINGS), shown="config/basic_config.yaml"
    )
    OPTIMIZER: str = key("an optimiser that the settings have", "SGD")
    PROBLEM: str = key("a problem that the settings have", "mnist_mini")
    RANDOM_SEED: int = key(
        "seed of data split, initialisation and training",
        lambda: secrets.randbelow(2**31),
        "random",
    )
    MAX_STEPS: int | None = key("last training step", None, shown="all epochs")
    DEVICE: str = key("cpu, cuda, cuda:1, ...", default_device, shown="cuda if available")
    OUTPUT_DIR: str = key("where the run directory is made", "output")
    OUTDIR_SUFFIX: str = key("appended to the name of the run directory", "")
    WITH_EVAL: bool = key(
        "evaluate all splits at the beginning of each epoch and at the end (costly for ImageNet)",
        True,
    )


@dataclass(frozen=True)
class TrainingRun:
    """A training that is ready to start; nothing was written yet but its directory.

    ``total_steps`` updates are made; a recorded step is the state before its update, and
    ``total_steps`` itself the state after the last one.
    """

    run_id: str
    run_dir: Path
    stamp: str
    problem: Problem
    settings: TrainingSettings
    seed: int
    record_steps: tuple[int, ...]
    total_steps: int
    num_hessian: int
    log: JsonLog
    with_eval: bool = True
    logged: set[tuple[str, ...]] = field(default_factory=set)

    def log_once(self, header: str, body: dict[str, Any]) -> None:
        """Log an event of a step, unless the log has it from before the training was resumed."""
        event = _event_key(header, body)
        if event not in self.logged:
            self.log(header, body)
            self.logged.add(event)


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
    earlier = None if resume is None else _earlier_log(resume, script, config)
    settings = load_settings(Path(config.TUNING_CONF), config.PROBLEM, config.OPTIMIZER)
    device = parse_device(config.DEVICE)
    if not 0 <= config.RANDOM_SEED < 2**32 - 10**8:
        raise InputError(f"RANDOM_SEED must lie in [0, 2^32 - 10^8), got {config.RANDOM_SEED}")
    problem = build_problem(
        config.PROBLEM,
        Path(config.OBS_DATASETS).expanduser(),
        config.RANDOM_SEED,
        settings.batch_size,
        device,
    )
    all_steps = settings.num_epochs * problem.steps_per_epoch
    if config.MAX_STEPS is not None and config.MAX_STEPS < 0:
        raise InputError(f"MAX_STEPS must be at least 0, got {config.MAX_STEPS}")
    total = all_steps if config.MAX_STEPS is None else min(all_steps, config.MAX_STEPS + 1)
    steps = tuple(sorted(set(config.RECORD_STEPS)))
    last = total if total == all_steps else total - 1
    beyond = [step for step in steps if not 0 <= step <= last]
    if beyond or not steps:
        raise InputError(
            f"RECORD_STEPS must be some of 0 ... {last} (this training has {settings.num_epochs} "
            f"epochs of {problem.steps_per_epoch} steps, MAX_STEPS={config.MAX_STEPS}), "
            f"got {beyond or 'none'}"
        )
    subsets = {
        split: problem.hessian_subset(split, config.NUM_HESSIAN_DATAPOINTS)
        for split in ("train", "test")
    }
    if "/" in config.OUTDIR_SUFFIX or "\0" in config.OUTDIR_SUFFIX:
        raise InputError(f"OUTDIR_SUFFIX is part of a file name, got {config.OUTDIR_SUFFIX!r}")
    hashes = {
        split: subset_hash(problem.deterministic_data(split), idxs)
        for split, idxs in subsets.items()
    }
    if earlier is None:
        run_id, stamp = uuid.uuid4().hex, file_stamp()
        name = f"{stamp}__{config.PROBLEM}__{config.RANDOM_SEED}"
        if config.OUTDIR_SUFFIX:
            name += f"__{config.OUTDIR_SUFFIX}"
        run_dir = Path(config.OUTPUT_DIR).expanduser() / name
        log = JsonLog(run_dir / f"{stamp}[{script}].log")
    else:
        run_id, stamp = earlier.first(events.GLOBALS)["run_id"], earlier.path.name.partition("[")[0]
        run_dir, log = earlier.path.parent, JsonLog(earlier.path, resume=True)
    run = TrainingRun(
        run_id, run_dir, stamp, problem, settings, config.RANDOM_SEED, steps, total,
        config.NUM_HESSIAN_DATAPOINTS, log, config.WITH_EVAL,
    )  # fmt: skip
    run_globals = _globals(run, config, subsets, hashes)
    if earlier is None:
        run_dir.mkdir(parents=True)
        log(events.CONFIG, asdict(config))
        log(events.GLOBALS, run_globals)
    else:
        # What earlier versions did not log, or logged in another way, and what it was then.
        former = {"num_valid": problem.num_valid(FORMER_NUM_VALID), "sched_hpars": None}
        _check_same(earlier, events.GLOBALS, run_globals, {"run_dir", "made_with"}, former)
        run.logged.update(_event_key(event.header, event.body) for event in earlier.events)
        log.info(events.RESUMED, {"log": log.path})
    return run


def finished_log(run_dir: Path, script: str) -> Path | None:
    """Return the log of the training in ``run_dir`` if that is done.

    Raises:
        InputError: If there is no such training.
    """
    log = _log_of(run_dir, script)
    return log.path if any(event.text == events.TRAINING_DONE for event in log.events) else None


def _log_of(run_dir: Path, script: str) -> Log:
    logs = [path for path in run_dir.glob("*.log") if path.name.endswith(f"[{script}].log")]
    if len(logs) != 1:
        found = [path.name for path in logs]
        raise InputError(f"{run_dir}: expected the log of one training by {script}, found {found}")
    return read_log(logs[0])


def _earlier_log(run_dir: Path, script: str, config: TrainingConfig) -> Log:
    """Return the log of the training in ``run_dir``, which must have the keys of ``config``."""
    log = _log_of(run_dir, script)
    _check_same(log, events.CONFIG, asdict(config), FREE_KEYS)
    return log


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
                f"{log.path}: is of another training: {name} was {there!r}, now {value!r}"
            )


def _globals(
    run: TrainingRun, config: TrainingConfig, subsets: dict[str, Tensor], hashes: dict[str, str]
) -> dict[str, Any]:
    settings, params = run.settings, trainable(run.problem.net)
    return {
        "run_id": run.run_id,
        "run_dir": str(run.run_dir),
        "made_with": made_with(),
        "data_source": run.problem.data.source,
        "batch_size": settings.batch_size,
        "num_epochs": settings.num_epochs,
        "max_steps": config.MAX_STEPS,
        "steps_per_epoch": run.problem.steps_per_epoch,
        "num_valid": run.problem.num_valid(),
        "opt_name": settings.opt_name,
        "opt_hpars": settings.opt_hpars,
        "sched_name": settings.sched_name,
        "sched_hpars": settings.sched_hpars if settings.sched_name else None,
        "param_shapes": [list(p.shape) for p in params.values()],
        "num_params": sum(p.numel() for p in params.values()),
        "H_train_idxs": subsets["train"],
        "H_test_idxs": subsets["test"],
        "H_train_sha256": hashes["train"],
        "H_test_sha256": hashes["test"],
        "record_steps": run.record_steps,
    }


def subset_hash(dataset: Dataset, idxs: Tensor) -> str:
    """Return a SHA-256 over inputs and labels of a subset, in order."""
    digest = hashlib.sha256()
    for idx in idxs.tolist():
        X, y = dataset[idx]
        digest.update(X.numpy().tobytes())
        digest.update(int(y).to_bytes(8, "little"))
    return digest.hexdigest()


@torch.no_grad()
def evaluate(problem: Problem, which: str) -> tuple[float, float]:
    """Return mean loss (with the L2 term) and accuracy on ``which`` evaluation set."""
    problem.net.eval()
    total, correct, count = 0.0, 0, 0
    for X, y in problem.eval_loader(which):
        X, y = X.to(problem.device), y.to(problem.device)
        outputs = problem.net(X)
        total += float(problem.criterion(outputs, y)) * len(y)
        correct += int((outputs.argmax(1) == y).sum())
        count += len(y)
    return total / count + float(problem.regularization()), correct / count


@torch.no_grad()
def hessian_loss(problem: Problem, split: str, num_data: int) -> float:
    """Return the mean loss (without the L2 term) on the Hessian subset of ``split``."""
    problem.net.eval()
    total = sum(
        float(problem.criterion(problem.net(X), y)) * len(y)
        for X, y in problem.hessian_data(split, num_data)
    )
    return total / num_data


def hessian_gradient(problem: Problem, split: str, num_data: int) -> Tensor:
    """Return the gradient of :func:`hessian_loss`, ``[D]``."""
    problem.net.eval()
    params = list(trainable(problem.net).values())
    total: Tensor | float = 0.0
    for X, y in problem.hessian_data(split, num_data):
        loss = problem.criterion(problem.net(X), y) * (len(y) / num_data)
        total = total + torch.cat([g.flatten() for g in torch.autograd.grad(loss, params)])
    assert isinstance(total, Tensor)
    return total


def _final_epoch(run: TrainingRun) -> int:
    """Return the epoch, from 1, of FINAL EVALUATION.

    As in the published logs: the one after the epoch of the last update, the last one if there are
    no more.
    """
    last_update = run.total_steps - 1
    return min(run.settings.num_epochs, last_update // run.problem.steps_per_epoch + 2)


def _log_evaluation(run: TrainingRun, header: str, epoch: int, step: int) -> None:
    """Evaluate all splits and log it, if that is wanted and not logged yet; epochs count from 1."""
    body: dict[str, Any] = {"epoch": epoch, "global_step": step}
    if not run.with_eval or _event_key(header, body) in run.logged:
        return
    for which, prefix in (("train_eval", "train"), ("valid", "xv"), ("test", "test")):
        body[f"{prefix}_loss"], body[f"{prefix}_acc"] = evaluate(run.problem, which)
    run.log_once(header, body)


def _batches(problem: Problem, begin: int) -> Iterator[Batch]:
    """Yield the mini-batches of steps ``begin, begin + 1, ...`` without end."""
    epoch, skip = divmod(begin, problem.steps_per_epoch)
    while True:
        for X, y in problem.train_loader(epoch, skip):
            yield X.to(problem.device), y.to(problem.device)
        epoch, skip = epoch + 1, 0


def train(
    run: TrainingRun, on_record: Callable[[int], None], checkpoint: Path | None = None
) -> None:
    """Train, logging evaluations, and call ``on_record(step)`` at each recorded step.

    The network is in evaluation mode during that call and in training mode for each update.

    Args:
        run: The training.
        on_record: Called with the step.
        checkpoint: If given, the state is saved there at the beginning of each epoch and after each
            recorded step; where the file exists already, the training goes on from it.

    Raises:
        NumericalError: If the loss is not finite any more.
        StoreError: If the checkpoint is damaged or of another run.
    """
    problem, log = run.problem, run.log
    optimizer = make_optimizer(run.settings, problem.net.parameters())
    schedule = make_schedule(
        run.settings, optimizer, run.settings.num_epochs * problem.steps_per_epoch
    )
    state = TrainingState(problem.net, optimizer, schedule)
    begin = 0
    if checkpoint is not None and checkpoint.exists():
        begin = state.load(checkpoint, run.run_id)
        log.info(events.FROM_CHECKPOINT, {"global_step": begin})
    batches, end = _batches(problem, begin), run.total_steps
    with (
        logging_redirect_tqdm([log.logger]),
        tqdm(total=end, initial=begin, desc="training", unit="step", disable=None) as bar,
    ):
        for step in range(begin, end + 1):
            (epoch, position), recorded = (
                divmod(step, problem.steps_per_epoch),
                step in run.record_steps,
            )
            last = step == end
            # Before the mini-batch is drawn, which moves the generators.
            if checkpoint is not None and (position == 0 or step - 1 in run.record_steps or last):
                state.save(checkpoint, run.run_id, step)
            if last and not recorded:
                break
            X, y = next(batches)
            if position == 0 and not last:
                _log_evaluation(run, events.EVAL_ROUND, epoch + 1, step)
            body: dict[str, Any] = {"global_step": step, "epoch": epoch + 1}
            if recorded:
                problem.net.eval()
                # Before the batch passes through the network, which moves BatchNorm's statistics.
                on_record(step)
                losses = {
                    f"H_{split}_loss": hessian_loss(problem, split, run.num_hessian)
                    for split in ("train", "test")
                }
                buffers = buffer_state(problem.net)
            problem.net.train()
            loss = problem.criterion(problem.net(X), y)
            batch_loss = loss.item()
            if not math.isfinite(batch_loss):
                raise NumericalError(f"training diverged: the loss of step {step} is {batch_loss}")
            if recorded:
                lr = optimizer.param_groups[0]["lr"]
                run.log_once(
                    events.TRAINING_BATCH, body | {"batch_loss": batch_loss} | losses | {"lr": lr}
                )
            if last:
                load_buffers(problem.net, buffers)
                break
            optimizer.zero_grad()
            (loss + problem.regularization()).backward()
            optimizer.step()
            schedule.step()
            bar.update()
    _log_evaluation(run, events.FINAL_EVALUATION, _final_epoch(run), end)
