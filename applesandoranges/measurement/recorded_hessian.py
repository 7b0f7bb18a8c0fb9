"""A Hessian of a recorded training step, rebuilt from the training log and the params file."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from skerch import heartbeat
from skerch.errors import InputError
from skerch.store_names import INITIAL_FLAG

from ..app import events
from ..app.log import Log, read_log
from ..app.machine import allow_tf32, parse_device
from ..hessian.batches import num_points
from ..hessian.checks import check_operator
from ..hessian.curvatures import BlockOperator
from ..hessian.engines import product_settings
from ..hessian.loss import Loss
from ..hessian.modes import differentiable
from ..hessian.operator import make_hessian
from ..problems.definition import short_name
from ..problems.parameters import (
    load_state,
    parameter_shapes,
    parameter_vector,
    select,
    state_hash,
    trainable,
)
from ..problems.problem import Problem, build_problem
from ..training.params_file import Entry, IncrementalHDF5
from ..training.recording import MATRICES
from .keys import RecordedHessianConfig
from .same_loss import check_same_loss
from .sizes import DTYPE, curvature_facts

TORCH_DTYPE = getattr(torch, DTYPE)


@dataclass(frozen=True)
class RecordedHessian:
    """The Hessian of one step and split, with all that its measurements depend on.

    Attributes:
        problem: Network (in the recorded state), loss and data.
        operator: The ``[D, D]`` Hessian, or another curvature.
        params: The recorded parameters that span it, ``[D]``.
        shapes: Shapes of their tensors by name, in order.
        run_dir: Directory of the training run.
        seed: RANDOM_SEED of the run.
        identity: What tells this Hessian from any other; part of each measurement's provenance.
        doubts: What could not be verified about log and params file, for want of provenance.
        training: What the training log says of the run, under the names of GLOBALS in published
            logs.
    """

    problem: Problem
    operator: BlockOperator
    params: Tensor
    run_dir: Path
    stamp: str
    seed: int
    step: int
    test: bool
    num_data: int
    identity: dict[str, Any]
    doubts: tuple[str, ...] = ()
    training: dict[str, Any] = field(default_factory=dict)
    shapes: dict[str, list[int]] = field(default_factory=dict)

    @property
    def source(self) -> str:
        """Where the data come from: full, embedded or synthetic."""
        return self.problem.source

    @property
    def dim(self) -> int:
        """Number of parameters ``D``."""
        return len(self.params)

    @property
    def size_in_words(self) -> str:
        """``D`` and the choice of parameters, for messages."""
        chosen = self.identity.get("parameters")
        return f"D is {self.dim} here" + (f" (PARAMETERS={chosen})" if chosen else "")

    @property
    def where(self) -> str:
        """Step and split, for messages."""
        return f"step {self.step}, {self.identity['split']}"

    @property
    def computed_with(self) -> dict[str, str]:
        """What the rounding of products depends on."""
        device = self.problem.device.type
        tf32 = device == "cuda" and torch.backends.cuda.matmul.allow_tf32
        return {"engine": self.operator.plan.engine, "device": device, "tf32": str(tf32).lower()}

    def check(self) -> None:
        """Make sure that the operator is worth measuring, at the cost of two products.

        Raises:
            NumericalError: If the loss is random or the operator not symmetric.
        """
        loss = Loss.of(self.problem, self.identity["split"], self.num_data)
        check_operator(self.operator, loss, self.where)

    def culprit(self, v: Tensor) -> str:
        """Say which mini-batch makes the product with ``v`` (``[D]``) NaN or infinite."""
        batches = self.problem.hessian_data(self.identity["split"], self.num_data)
        for number, (X, y) in enumerate(batches):
            num = num_points(X, y)
            batch = make_hessian(
                self.problem.net,
                self.problem.criterion,
                [(X, y)],
                num,
                curvature=self.identity.get("curvature") or "hessian",
                names=self.identity.get("parameter_names"),
                known=True,  # the reason is known by now
            )
            with differentiable(self.problem.net):
                product = batch @ v[:, None]
            if not bool(torch.isfinite(product).all()):
                return f"mini-batch {number} (of {self.problem.batch_size} data points)"
        return "their sum over mini-batches"


def load_recorded_hessian(config: RecordedHessianConfig) -> RecordedHessian:
    """Rebuild the problem of a 10a log and load the parameters and buffers of a step.

    Raises:
        InputError: If log and params file are of different runs, the step was not recorded, or the
            data are not those of the training.
    """
    if config.SUCCESS_FLAG in ("", INITIAL_FLAG):
        raise InputError(f"SUCCESS_FLAG cannot be {config.SUCCESS_FLAG!r}: it means not measured")
    training_log, params_path = Path(config.TRAINING_LOGPATH), Path(config.PARAMS_PATH)
    allow_tf32(config.ALLOW_TF32)
    log = read_log(training_log)
    trained, run = _facts(log)
    params_file = IncrementalHDF5(params_path)
    doubts = _check_same_run(log, run, params_file, config.ALLOW_UNKNOWN_PROVENANCE)
    entry = params_file.find(step=config.STEP)
    doubts += _check_same_step(log, params_file, entry, config, unknown=bool(doubts))
    problem = _rebuild_problem(config, log)
    load_state(problem.net, entry.data[:, 0], entry.extras)
    problem.net.eval()
    names = select(problem.net, config.PARAMETERS)
    params = parameter_vector(problem.net, names).cpu()
    split = "test" if config.TEST_HESSIAN else "train"
    num_data = trained["NUM_HESSIAN_DATAPOINTS"]
    data_hash = _check_same_data(config, problem, split, log, unknown=bool(doubts))
    check_same_loss(problem, split, num_data, log, config.STEP)
    operator = _operator(config, problem, split, num_data, names)
    identity = {
        "run_id": run.get("run_id", "unknown"),
        "problem": problem.name,
        "step": config.STEP,
        "split": split,
        "params_sha256": state_hash(entry.data[:, 0], entry.extras),
        "data_sha256": data_hash,
        **problem.facts(),
        **curvature_facts(config.CURVATURE, config.PARAMETERS, names),
    }
    return RecordedHessian(
        problem=problem,
        operator=operator,
        params=params,
        shapes=parameter_shapes(problem.net, names),
        run_dir=training_log.parent,
        stamp=training_log.name.partition("[")[0],
        seed=trained["RANDOM_SEED"],
        step=config.STEP,
        test=config.TEST_HESSIAN,
        num_data=num_data,
        identity=identity,
        doubts=doubts,
        training=_training(log, params_file, len(entry.data)),
    )


def state_hashes(config: RecordedHessianConfig) -> Callable[[int], str | None]:
    """Return a function that returns ``params_sha256`` of a step, ``None`` if it is not recorded.

    It raises :class:`InputError` if the recorded step is not that of the training log.
    """
    log = read_log(Path(config.TRAINING_LOGPATH))
    lines = replace(log, events=[event for event in log.events if event.header == events.HDF5])
    params_file = IncrementalHDF5(Path(config.PARAMS_PATH))
    unknown = config.ALLOW_UNKNOWN_PROVENANCE

    def of_step(step: int) -> str | None:
        if not params_file.has(step=step):
            return None
        entry = params_file.find(step=step)
        _check_same_step(lines, params_file, entry, replace(config, STEP=step), unknown)
        return state_hash(entry.data[:, 0], entry.extras)

    return of_step


def _operator(
    config: RecordedHessianConfig, problem: Problem, split: str, num_data: int, names: list[str]
) -> BlockOperator:
    """Return the operator for products with the parameters of some names."""
    dim = len(parameter_vector(problem.net, names))
    return make_hessian(
        problem.net,
        problem.criterion,
        problem.hessian_data(split, num_data),
        num_data,
        product_settings(config, dim, problem.device),
        curvature=config.CURVATURE,
        names=names,
        known=problem.known,
    )


def _rebuild_problem(config: RecordedHessianConfig, log: Log) -> Problem:
    """Build the problem that was trained."""
    trained, run = _facts(log)
    if config.PROBLEM and short_name(config.PROBLEM) != short_name(trained["PROBLEM"]):
        raise InputError(
            f"PROBLEM: expected the one of the training, {trained['PROBLEM']} ({log.path}), got "
            f"{config.PROBLEM}"
        )
    problem = build_problem(
        config.PROBLEM or trained["PROBLEM"],
        None if config.OBS_DATASETS is None else Path(config.OBS_DATASETS).expanduser(),
        trained["RANDOM_SEED"],
        run["batch_size"],
        parse_device(config.DEVICE),
    )
    shapes = [list(p.shape) for p in trainable(problem.net).values()]
    if shapes != run["param_shapes"]:
        raise InputError(f"{log.path}: its parameter shapes are not those of {problem.name}")
    for name, value in problem.facts().items():
        if run.get(name) != value:
            raise InputError(
                f"{config.PROBLEM or trained['PROBLEM']}: is not what was trained ({log.path}): "
                f"{name} was {run.get(name)}, now {value}; take the file as it was"
            )
    return problem


def _check_same_data(
    config: RecordedHessianConfig, problem: Problem, split: str, log: Log, unknown: bool
) -> str:
    """Refuse data that are not those of the training, and return their hash.

    ``unknown``: Whether a log without a hash of them will do.
    """
    heartbeat.doing("checking that the data are those of the training")
    trained, run = _facts(log)
    if "data_files" in run or not config.ALLOW_UNKNOWN_PROVENANCE:
        where = f"the training ({log.path})"
        problem.check_data_files(run.get("data_files"), where, quick=True)
    size = trained["NUM_HESSIAN_DATAPOINTS"]
    idxs, data_hash = problem.hessian_subset(split, size), problem.subset_hash(split, size)
    expected = run.get(f"H_{split}_sha256", data_hash if unknown else None)
    if idxs.tolist() != run[f"H_{split}_idxs"] or data_hash != expected:
        raise InputError(
            f"{config.OBS_DATASETS or trained['PROBLEM']}: these are not the data of the training "
            f"({log.path}, data source {run.get('data_source')!r}, here {problem.source!r})"
        )
    return data_hash


def _training(log: Log, params_file: IncrementalHDF5, dim: int) -> dict[str, Any]:
    """Return :attr:`RecordedHessian.training`."""
    trained, run = _facts(log)
    entries = enumerate(params_file.metadata())
    step_to_h5 = {found["step"]: entry for entry, found in entries if "step" in found}
    return {
        "run_dir": str(log.path.parent),
        "problem": trained["PROBLEM"],
        "batch_size": run["batch_size"],
        "record_steps": run.get("record_steps", list(step_to_h5)),
        "num_hessian_datapoints": trained["NUM_HESSIAN_DATAPOINTS"],
        "random_seed": trained["RANDOM_SEED"],
        "H_train_idxs": run["H_train_idxs"],
        "H_test_idxs": run["H_test_idxs"],
        "num_params": dim,
        "step_to_h5": step_to_h5,
    }


def _is_int(value: Any, begin: int, end: float = math.inf) -> bool:
    return type(value) is int and begin <= value < end


#: What a training log must say for its Hessians to be rebuilt: header, name, what it is.
_NEEDED: tuple[tuple[str, str, str, Callable[[Any], bool]], ...] = (
    (events.CONFIG, "PROBLEM", "a text", lambda value: isinstance(value, str)),
    (events.CONFIG, "RANDOM_SEED", "a seed", lambda value: _is_int(value, 0, 2**32)),
    (events.CONFIG, "NUM_HESSIAN_DATAPOINTS", "a number", lambda value: _is_int(value, 1)),
    (events.GLOBALS, "batch_size", "a number", lambda value: _is_int(value, 1)),
    (events.GLOBALS, "param_shapes", "a list", lambda value: isinstance(value, list)),
    (events.GLOBALS, "H_train_idxs", "a list", lambda value: isinstance(value, list)),
    (events.GLOBALS, "H_test_idxs", "a list", lambda value: isinstance(value, list)),
)


def _facts(log: Log) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the bodies of CONFIG and GLOBALS, made sure that they say what is needed."""
    bodies = {header: log.first(header) for header in (events.CONFIG, events.GLOBALS)}
    for header, name, what, is_valid in _NEEDED:
        value = bodies[header].get(name)
        if not is_valid(value):
            raise InputError(
                f"{log.path}: expected {name} ({what}) in its {header} line, found {value!r}"
            )
    return bodies[events.CONFIG], bodies[events.GLOBALS]


def _check_same_run(
    log: Log, run: dict[str, Any], params_file: IncrementalHDF5, allow_unknown: bool
) -> tuple[str, ...]:
    """Check that log and params file are of one run; return what could not be verified."""
    if not params_file.path.is_file():
        raise InputError(f"{params_file.path}: no such params file")
    here, there = run.get("run_id"), params_file.attributes().get("run_id")
    if here is None and there is None:
        text = f"{log.path} and {params_file.path} do not say of which run they are"
        if not allow_unknown:
            raise InputError(f"{text}; ALLOW_UNKNOWN_PROVENANCE=true takes them on trust")
        return (text,)
    if here != there:
        raise InputError(
            f"{log.path} and {params_file.path} are of different runs (run_id {here} and {there})"
        )
    return ()


def _check_same_step(
    log: Log,
    params_file: IncrementalHDF5,
    entry: Entry,
    config: RecordedHessianConfig,
    unknown: bool,
) -> tuple[str, ...]:
    """Check that a recorded step is what the training recorded; return what could not be verified.

    ``unknown``: Whether nothing is known of log and params file, and that was allowed.
    """
    where = {"global_step": config.STEP, "matrix": MATRICES["params"][0]}
    said = [body for body in log.bodies(events.HDF5) if where.items() <= body.items()]
    hashes = {body["sha256"] for body in said if "sha256" in body}
    if hashes and hashes != {entry.sha256}:
        raise InputError(
            f"{params_file.path}: step {config.STEP} is not the one that the training recorded, as "
            f"{log.path} says: the file was damaged or changed"
        )
    if hashes or unknown:
        return ()
    text = f"{log.path} does not say the hash of step {config.STEP}"
    # The training may have been killed between the two; an edited log is no line less.
    if (said or not entry.is_verified) and not config.ALLOW_UNKNOWN_PROVENANCE:
        raise InputError(
            f"{text}, as those of earlier versions; train again, or take it on trust with "
            "ALLOW_UNKNOWN_PROVENANCE=true"
        )
    return (text,)
