"""Results of analysed Hessians, collected from the logs of 10d and 12a."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from skerch.utils import InputError

from .jsonlog import Log, read_log
from .overlap import chance_level, chance_variance

#: Headers of result lines, with the split where the header says it.
HEADERS = {"RESULT": None, "H_TRAIN RESULT": "train", "H_TEST RESULT": "test"}


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
    """

    path: Path
    step: int
    split: str
    dim: int
    data_source: str
    quantities: dict[str, Any] = field(default_factory=dict)
    errors: list[dict[str, Any]] = field(default_factory=list)
    exact: list[dict[str, Any]] = field(default_factory=list)

    @property
    def label(self) -> str:
        """What a legend calls it."""
        return f"step {self.step}, {self.split}"

    def overlap_table(self, quantity: str = "frob_Qtop^2") -> pd.DataFrame:
        """Return ``k, overlap, chance, ratio, chance_std`` for every ``k``."""
        curve = np.asarray(self.quantities[quantity], dtype=float)
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


def find_logs(where: str, script_prefixes: tuple[str, ...]) -> list[Path]:
    """Return logs named in ``where``: files, or directories with logs of these scripts.

    Args:
        where: One path or several, separated as in ``PATH`` (by ``:``).
        script_prefixes: Such as ``("10d", "12a")``; only for directories.

    Raises:
        InputError: If a path does not exist or a directory has no such log.
    """
    logs: list[Path] = []
    for text in where.split(os.pathsep):
        path = Path(text).expanduser()
        if path.is_dir():
            found = sorted(
                log
                for log in path.rglob("*.log")
                if log.name.partition("[")[2].startswith(script_prefixes)
            )
            if not found:
                raise InputError(f"{path}: no log of {' or '.join(script_prefixes)} in there")
            logs += found
        elif path.is_file():
            logs.append(path)
        else:
            raise InputError(f"{path}: no such log or directory")
    return logs


def collect_results(logs: Iterable[Log]) -> list[HessianResult]:
    """Gather results from logs, ordered by split (train first) and step; later logs win.

    Raises:
        InputError: If a log has none, or does not say how many parameters there are.
    """
    results: dict[tuple[str, int], HessianResult] = {}
    for log in logs:
        own: dict[tuple[str, int], HessianResult] = {}
        for event in log.events:
            if event.header not in HEADERS or "step" not in event.body:
                continue
            split = HEADERS[event.header] or ("test" if event.body.get("H_test") else "train")
            where = (split, int(event.body["step"]))
            if where not in own:
                dim, source = _globals(log)
                own[where] = HessianResult(log.path, where[1], split, dim, source)
            body = {k: v for k, v in event.body.items() if k not in ("step", "H_test")}
            if "principal_angles" in body:
                own[where].exact.append(body)
            elif "K" in body:
                own[where].errors.append(body)
            else:
                own[where].quantities.update(body)
        if not own:
            raise InputError(f"{log.path}: has no result line")
        results.update(own)
    return sorted(results.values(), key=lambda result: (result.split != "train", result.step))


def _globals(log: Log) -> tuple[int, str]:
    for event in log.events:
        if "num_params" in event.body:
            return int(event.body["num_params"]), str(event.body.get("data_source", ""))
    raise InputError(f"{log.path}: does not say num_params, so there is no chance level")


def read_results(where: str) -> tuple[list[HessianResult], list[str]]:
    """Read the logs named by ``where``; also return what was left out of them, line by line."""
    logs = [read_log(path) for path in find_logs(where, ("10d", "12a"))]
    left_out = [f"{log.path}: {text}" for log in logs for text in log.left_out]
    return collect_results(logs), left_out
