"""Short logs in the form of those that were published with arXiv 2504.14701, numbers of our own.

Three ways in which theirs differ from ours matter to readers: analyses state step and split in
CONFIG only, texts may come without a body, and nothing says that an analysis came to its end.
"""

from __future__ import annotations

import json
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np

N = 8
STAMP = "2024_02_01_12_55_00.604"
BEGIN = datetime(2024, 2, 1, 12, 55)
ORDERED = "Frob(Q[largest_absparams,:k])^2 ordered by increasing k"


def curve(seed: int, n: int = N) -> list[float]:
    """Return a plausible ``k * overlap(k)``."""
    return list(np.cumsum(np.random.default_rng(seed).random(n)) / 10)


class Writer:
    """Writes lines, ten seconds apart."""

    def __init__(self, directory: Path, name: str, later: int = 0):
        directory.mkdir(parents=True, exist_ok=True)
        self.time = BEGIN + timedelta(hours=later)
        self.path = directory / f"{self.time:%Y_%m_%d_%H_%M_%S}.000{name}.log"
        self.lines: list[str] = []

    def __call__(self, header: str, body: Any) -> None:
        self.time += timedelta(seconds=10)
        stamp = self.time.strftime("%Y-%m-%d_%H:%M:%S.%f")[:-3]
        self.lines.append(json.dumps([stamp, [header, body]]))
        self.path.write_text("\n".join(self.lines) + "\n")


def run_directory(root: Path, problem: str, seed: int = 12345, suffix: str = "64009") -> Path:
    return root / f"{STAMP}__{problem}__{seed}__{suffix}"


def training_log(directory: Path, dim: int, evaluations: bool = True) -> Path:
    """Write the log of 10a."""
    _, problem, seed, _ = directory.name.split("__")
    log = Writer(directory, "[10a_gather_params_grads.py]")
    log("CONFIG", {"PROBLEM": problem, "RANDOM_SEED": int(seed), "RECORD_STEPS": [0, 2000]})
    log("INFO", ["get_obs_testproblem"])
    log("GLOBALS", {"run_dir": f"output/{directory.name}", "num_params": dim, "sched_hpars": None})
    for step in (0, 2000):
        if evaluations:
            scores = {f"{p}_{q}": 0.5 for p in ("train", "xv", "test") for q in ("loss", "acc")}
            log("EVAL ROUND", {"epoch": 1, "global_step": step, **scores})
        log("HDF5", {"global_step": step, "matrix": "batch_parameters", "split": "batch",
                     "status": "saved"})  # fmt: skip
        losses = {"batch_loss": 2.3, "H_train_loss": 2.4, "H_test_loss": 2.5}
        log("TRAINING BATCH", {"global_step": step, "epoch": 1, **losses, "lr": 0.1})
    return log.path


def measuring_log(directory: Path, num_inner: int = 2 * N) -> Path:
    """Write the log of a job of 10c: two measurements in thirty seconds."""
    log = Writer(directory, "[10c_hessian_hdf5_measurements.py]__idxs=<0...1>", 1)
    log("CONFIG", _training(directory) | {"NUM_INNER": num_inner, "STEP": 0, "TEST_HESSIAN": True})
    log("INFO", ["Setting up problem..."])
    for idx in (0, 1):
        where = {"step": 0, "idx": idx, "meas_idx": idx, "H_test": True}
        log("INFO", ["Performing measurement", where])
        log("INFO", ["Measurement successful!", {"with_outer": True, **where}])
    return log.path


def analysis_log(
    directory: Path, dim: int, step: int, test: bool = True, n: int = N, seed: int | None = None
) -> Path:
    """Write the log of 10d; the overlap is ``curve(seed)``, by default of the step."""
    name = f"[10d_core_and_analysis.py]__step={step}__test={test}"
    log = Writer(directory, name, 2 + step)
    log("CONFIG", _training(directory) | {"STEP": step, "TEST_HESSIAN": test})
    log("INFO", ["Setting up problem..."])
    log("INFO", ["Checking inner flags and copying to monolithic"])
    log("INFO", [f"Orthogonalizing outer measurements ({dim}, {n})"])
    log("INFO", ["Solving SEIGH core"])
    log("RESULT", {"core_S": [(-1) ** i / (i + 1) for i in range(n)]})
    values = curve(step if seed is None else seed, n)
    log("RESULT", {"frob_Qtop^2": values, "info": ORDERED})
    log("RESULT", {"largest_absparams": list(range(step, step + n)), "info": "Indices of k ..."})
    return log.path


def exhaustive_log(
    directory: Path, dim: int, script: str = "12b_mnist_mini_exhaustive_test.py"
) -> Path:
    """Write a log with results of both splits, exact eigenvalues in ascending order."""
    _, problem, seed, _ = directory.name.split("__")
    log = Writer(directory, f"[{script}]")
    log("CONFIG", {"PROBLEM": problem, "RANDOM_SEED": int(seed), "NUM_OUTER": N})
    log("GLOBALS", {"run_dir": f"output/{directory.name}", "num_params": dim})
    for step in (0, 100):
        for split in ("TEST", "TRAIN"):
            log(f"H_{split} INFO", [f"Performing full EIGH (step {step})..."])
            log(f"H_{split} INFO", [f"Performing Sketchy EIGH (step {step})..."])
            _log_result(log, f"H_{split} RESULT", step)
        log("TRAINING BATCH", {"global_step": step, "epoch": 1, "batch_loss": 2.3, "lr": 0.1})
    return log.path


def _log_result(log: Writer, header: str, step: int) -> None:
    log(header, {"step": step, "H_eigvals": [-3.0, -1.0, 0.5, 2.0, 4.0]})
    log(header, {"step": step, "core_S": [1 / (i + 1) for i in range(N)]})
    log(header, {"step": step, "info": "Frob^2 of ...", "Frob(H)^2": 4.0, f"Frob(H_{N})^2": 3.0,
                 "Frob(H_4)^2": 2.0, f"Frob(H-H_{N})^2": 1.0, "Frob(H-H_4)^2": 2.5})  # fmt: skip
    log(header, {"step": step, "info": "Scree ...", "scree_lower": [0.9] * N,
                 "scree_upper": [1.1] * N})  # fmt: skip
    random = [curve(100 + i) for i in range(3)]
    log(header, {"step": step, "frob_Qtop^2_mag": curve(step), "frob_Qtop^2_best": curve(99),
                 "frob_Qtop^2_rand": random})  # fmt: skip
    indices = {"largest_absparams": list(range(N)), "best_overlap_params": list(range(N, 2 * N))}
    log(header, {"step": step, **indices, "info": "k indices of different masks"})


def _training(directory: Path) -> dict[str, Any]:
    path = f"output/{directory.name}/{STAMP}[10a_gather_params_grads.py].log"
    return {"TRAINING_LOGPATH": path, "OBS_DATASETS": "datasets"}
