"""A Hessian of a recorded training step, rebuilt from the training log and the params file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from skerch.measurement_store import INITIAL_FLAG
from skerch.ssrft import SSRFT
from skerch.utils import InputError

from .hessian import load_state, make_hessian, tensor_hash, trainable
from .hessian_engines import BlockHessian, ProductConfig
from .incremental_hdf5 import IncrementalHDF5
from .jsonlog import Log, read_log
from .problems import Problem, build_problem
from .resources import allow_tf32, default_device, parse_device, return_freed_memory
from .script_config import key
from .training import subset_hash

DTYPE = torch.float32


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

    @property
    def source(self) -> str:
        """Where the data come from: full, embedded or synthetic."""
        return self.problem.data.source

    @property
    def dim(self) -> int:
        """Number of parameters ``D``."""
        return len(self.params)

    def sketch_provenance(self, outer: int, inner: int) -> dict[str, Any]:
        """Return the provenance that each measurement of an ``(outer, inner)`` sketch carries."""
        return self.identity | {
            "recovery": "seigh",
            "num_outer": outer,
            "num_inner": inner,
            "seed_phi": self.seed + 1,
            "seed_psi": self.seed + 2,
            "dtype": str(DTYPE).removeprefix("torch."),
        }

    def test_matrices(self, inner: int) -> tuple[SSRFT, SSRFT]:
        """Return ``(Phi, Psi)``, both ``[inner, D]``."""
        shape, device = (inner, self.dim), self.problem.device
        return SSRFT(shape, self.seed + 1, device), SSRFT(shape, self.seed + 2, device)


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
    return_freed_memory()
    log = read_log(training_log)
    trained, run = log.first("CONFIG"), log.first("GLOBALS")
    params_file = IncrementalHDF5(params_path)
    _check_same_run(log, run, params_file)
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
    if idxs.tolist() != run[f"H_{split}_idxs"] or data_hash != run[f"H_{split}_sha256"]:
        raise InputError(
            f"{obs_datasets}: these are not the data of the training ({training_log}, data source "
            f"{run['data_source']!r}, here {problem.data.source!r})"
        )
    operator = make_hessian(
        problem.net,
        problem.criterion,
        problem.hessian_data(split, num_data),
        num_data,
        config.product_settings(entry.data.shape[0], problem.device),
    )
    identity = {
        "run_id": run["run_id"],
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
    )


def _check_same_run(log: Log, run: dict[str, Any], params_file: IncrementalHDF5) -> None:
    if not params_file.path.is_file():
        raise InputError(f"{params_file.path}: no such params file")
    there = params_file.attributes().get("run_id")
    if there != run.get("run_id") or there is None:
        raise InputError(
            f"{log.path} and {params_file.path} are of different runs "
            f"(run_id {run.get('run_id')} and {there})"
        )
