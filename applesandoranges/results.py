"""Results collected from the logs of 10a, 10c, 10d and 12a, ours or published ones."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from skerch.errors import InputError

from .jsonlog import Log, read_log
from .overlap import chance_level, chance_variance

#: Headers of result lines, with the split where the header says it.
HEADERS = {"RESULT": None, "H_TRAIN RESULT": "train", "H_TEST RESULT": "test"}
#: Scripts whose logs are looked for in a directory.
SCRIPTS = ("10a", "10c", "10d", "12a")


@dataclass(frozen=True)
class HessianResult:
    """All logged quantities of one Hessian, by their names in the log.

    Attributes:
        path: The log.
        step: Training step.
        split: ``"train"`` or ``"test"``.
        dim: Number of parameters ``D``.
        data_source: ``"full"``, ``"embedded"``, ``"synthetic"`` or ``""`` if the log does not say.
        quantities: E.g. ``core_S`` and ``frob_Qtop^2``.
        errors: A-posteriori estimates, a body for each rank.
        exact: Comparisons with the exact eigendecomposition (12a), a body for each rank.
        recoveries: Recoveries at equal products (12a), a body for each method and number.
    """

    path: Path
    step: int
    split: str
    dim: int
    data_source: str
    quantities: dict[str, Any] = field(default_factory=dict)
    errors: list[dict[str, Any]] = field(default_factory=list)
    exact: list[dict[str, Any]] = field(default_factory=list)
    recoveries: list[dict[str, Any]] = field(default_factory=list)

    @property
    def label(self) -> str:
        """What a legend calls it."""
        return f"step {self.step}, {self.split}"

    def array(self, quantity: str) -> np.ndarray:
        """Return a quantity as an array of floats."""
        return np.asarray(self.quantities[quantity], dtype=float)

    def overlap_table(self, quantity: str = "frob_Qtop^2") -> pd.DataFrame:
        """Return ``k, overlap, chance, ratio, chance_std`` for every ``k``."""
        curve = self.array(quantity)
        k = torch.arange(1, len(curve) + 1)
        chance = chance_level(k, self.dim).numpy()
        overlap = curve / k.numpy()
        return pd.DataFrame(
            {
                "k": k.numpy(),
                "overlap": overlap,
                "chance": chance,
                "ratio": overlap / chance,
                "chance_std": chance_variance(k, self.dim).sqrt().numpy(),
            }
        )


@dataclass(frozen=True)
class LogSet:
    """Logs sorted by what they hold; a log of 12a holds both training and results.

    Attributes:
        results: Ordered by split (train first) and step.
        training: Logs with evaluations of a training.
        measuring: Logs of measurements.
        analysing: Logs with results.
        left_out: What could not be read, a line each.
    """

    results: list[HessianResult]
    training: list[Log]
    measuring: list[Log]
    analysing: list[Log]
    left_out: list[str]


def find_logs(where: str) -> list[Path]:
    """Return the logs named in ``where``: files, or directories with logs of these scripts.

    Args:
        where: One path or several, separated as in ``PATH`` (by ``:``).

    Raises:
        InputError: If a path does not exist or a directory has no such log.
    """
    logs: list[Path] = []
    for text in where.split(os.pathsep):
        path = Path(text).expanduser()
        if path.is_dir():
            found = sorted(
                log for log in path.rglob("*.log") if log.name.partition("[")[2].startswith(SCRIPTS)
            )
            if not found:
                raise InputError(f"{path}: no log of {', '.join(SCRIPTS)} in there")
            logs += found
        elif path.is_file():
            logs.append(path)
        else:
            raise InputError(f"{path}: no such log or directory")
    return logs


def read_logs(where: str, num_params: int | None = None) -> LogSet:
    """Read and sort the logs named by ``where``.

    Args:
        where: See :func:`find_logs`.
        num_params: ``D``, where no log says it.

    Raises:
        InputError: If a file is no log, or a log has nothing that could be drawn.
    """
    logs = [read_log(path) for path in find_logs(where)]
    left_out = [f"{log.path}: {text}" for log in logs for text in log.left_out]
    training = [log for log in logs if log.bodies("EVAL ROUND")]
    analysing = [log for log in logs if any(log.bodies(header) for header in HEADERS)]
    measuring = [log for log in logs if any("Performing measurement" in e.text for e in log.events)]
    for log in logs:
        if not any(log is other for part in (training, analysing, measuring) for other in part):
            left_out.append(f"{log.path}: has no result, evaluation or measurement")
    if not (training or analysing or measuring):
        raise InputError(left_out[-1])
    results = _collect(analysing, num_params or _num_params(logs))
    return LogSet(results, training, measuring, analysing, left_out)


def _num_params(logs: Sequence[Log]) -> int | None:
    return next(
        (int(e.body["num_params"]) for log in logs for e in log.events if "num_params" in e.body),
        None,
    )


def _collect(logs: Sequence[Log], num_params: int | None) -> list[HessianResult]:
    results: dict[tuple[str, int], HessianResult] = {}
    for log in logs:
        own: dict[tuple[str, int], HessianResult] = {}
        dim = _num_params([log]) or num_params
        if dim is None:
            raise InputError(
                f"{log.path}: no log says num_params, so there is no chance level; give NUM_PARAMS"
            )
        source = next((e.body["data_source"] for e in log.events if "data_source" in e.body), "")
        for event in log.events:
            if event.header not in HEADERS or "step" not in event.body:
                continue
            split = HEADERS[event.header] or ("test" if event.body.get("H_test") else "train")
            where = (split, int(event.body["step"]))
            result = own.setdefault(where, HessianResult(log.path, where[1], split, dim, source))
            body = {k: v for k, v in event.body.items() if k not in ("step", "H_test")}
            if "recovery" in body:
                result.recoveries.append(body)
            elif "principal_angles" in body:
                result.exact.append(body)
            elif "K" in body:
                result.errors.append(body)
            else:
                result.quantities.update(body)
        results.update(own)  # of two analyses of one Hessian, the later log counts
    return sorted(results.values(), key=lambda result: (result.split != "train", result.step))
