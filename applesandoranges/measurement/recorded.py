"""A Hessian of a recorded training step, rebuilt from the training log and the params file."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from skerch.errors import InputError
from skerch.store.measurements import INITIAL_FLAG

from ..app import events
from ..app.config import key
from ..app.log import Log, read_log
from ..app.machine import allow_tf32, default_device, parse_device
from ..hessian.checks import check_operator
from ..hessian.engines import BlockHessian, ProductConfig
from ..hessian.loss import Loss
from ..hessian.operator import make_hessian
from ..problems.parameters import load_state, tensor_hash, trainable
from ..problems.problem import Problem, build_problem
from ..training.loop import subset_hash
from ..training.params_file import IncrementalHDF5
from .sizes import DTYPE

TORCH_DTYPE = getattr(torch, DTYPE)


@dataclass
class RecordedHessianConfig(ProductConfig):
    """Keys that 10c and 10d have in common."""

    OBS_DATASETS: str = key("directory with the data sets (see 09a)")
    PARAMS_PATH: str = key("params file of 10a")
    TRAINING_LOGPATH: str = key("log of 10a")
    STEP: int = key("recorded training step")
    TEST_HESSIAN: bool = key("Hessian of the test split instead of the training split", False)
    SUCCESS_FLAG: str = key("flag of a successful measurement", "measured")
    DEVICE: str = key("cpu, cuda, cuda:1, ...", default_device, shown="cuda if available")
    ALLOW_UNKNOWN_PROVENANCE: bool = key(
        "take files of other tools, which do not say of which Hessian they are", False
    )


@dataclass(frozen=True)
class RecordedHessian:
    """The Hessian of one step and split, with all that its measurements depend on.

    Attributes:
        problem: Network (in the recorded state), loss and data.
        operator: The ``[D, D]`` Hessian.
        params: The recorded parameters, ``[D]``.
        run_dir: Directory of the training run.
        seed: RANDOM_SEED of the run.
        identity: What tells this Hessian from any other; part of each measurement's provenance.
        doubts: What could not be verified about log and params file, for want of provenance.
        training: What the training log says of the run, under the names of GLOBALS in published
            logs.
    """

    problem: Problem
    operator: BlockHessian
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

    @property
    def source(self) -> str:
        """Where the data come from: full, embedded or synthetic."""
        return self.problem.data.source

    @property
    def dim(self) -> int:
        """Number of parameters ``D``."""
        return len(self.params)

    @property
    def where(self) -> str:
        """Step and split, for messages."""
        return f"step {self.step}, {self.identity['split']}"

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
            batch = make_hessian(self.problem.net, self.problem.criterion, [(X, y)], len(y))
            if not bool(torch.isfinite(batch @ v[:, None]).all()):
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
    obs_datasets, test = Path(config.OBS_DATASETS).expanduser(), config.TEST_HESSIAN
    allow_tf32(config.ALLOW_TF32)
    log = read_log(training_log)
    trained, run = _facts(log)
    params_file = IncrementalHDF5(params_path)
    doubts = _check_same_run(log, run, params_file, config.ALLOW_UNKNOWN_PROVENANCE)
    entry = params_file.find(step=config.STEP)
    problem = build_problem(
        trained["PROBLEM"],
        obs_datasets,
        trained["RANDOM_SEED"],
        run["batch_size"],
        parse_device(config.DEVICE),
    )
    shapes = [list(p.shape) for p in trainable(problem.net).values()]
    if shapes != run["param_shapes"]:
        raise InputError(f"{training_log}: its parameter shapes are not those of {problem.name}")
    load_state(problem.net, entry.data[:, 0], entry.extras)
    split = "test" if test else "train"
    num_data = trained["NUM_HESSIAN_DATAPOINTS"]
    idxs = problem.hessian_subset(split, num_data)
    data_hash = subset_hash(problem.deterministic_data(split), idxs)
    if idxs.tolist() != run[f"H_{split}_idxs"] or data_hash != run.get(
        f"H_{split}_sha256", data_hash if doubts else None
    ):
        raise InputError(
            f"{obs_datasets}: these are not the data of the training ({training_log}, data source "
            f"{run.get('data_source')!r}, here {problem.data.source!r})"
        )
    operator = make_hessian(
        problem.net,
        problem.criterion,
        problem.hessian_data(split, num_data),
        num_data,
        config.product_settings(entry.data.shape[0], problem.device),
    )
    identity = {
        "run_id": run.get("run_id", "unknown"),
        "problem": problem.name,
        "step": config.STEP,
        "split": split,
        "params_sha256": tensor_hash(entry.data[:, 0], *entry.extras.values()),
        "data_sha256": data_hash,
    }
    return RecordedHessian(
        problem=problem,
        operator=operator,
        params=entry.data[:, 0],
        run_dir=training_log.parent,
        stamp=training_log.name.partition("[")[0],
        seed=trained["RANDOM_SEED"],
        step=config.STEP,
        test=test,
        num_data=num_data,
        identity=identity,
        doubts=doubts,
        training=_training(log, params_file, len(entry.data)),
    )


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
