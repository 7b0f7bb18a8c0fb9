"""Results collected from the logs of 10a, 10c, 10d and 12a, ours or published ones."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from skerch.errors import InputError

from ..app import events
from ..app.log import Event, Log, read_log
from ..subspaces.chance import chance_level, chance_variance
from .runs import Run, group_by_run

#: Headers of result lines, with the split where the header says it.
HEADERS = {events.RESULT: None} | {name: split for split, name in events.SPLIT_RESULTS.items()}
#: Names of logs: ``<stamp>[<number of the script>_...``.
LOG_NAME = re.compile(r"\[\d\d[a-z]_")
#: Headers of lines that a training writes.
TRAINING_HEADERS = (events.EVAL_ROUND, events.TRAINING_BATCH, events.FINAL_EVALUATION)
#: Names in published logs, and of earlier versions, and what they are called here.
ALIASES = {
    "frob_Qtop^2_mag": "frob_Qtop^2",
    "frob_Qtop^2_best": "frob_Qbest^2",
    "frob_Qtop^2_rand": "frob_Qrandom^2",
    "eigvec_errors": "eigvec_resnorm",
}
#: Quantities that are lists of numbers.
LISTS = {
    "core_S", "H_eigvals", "frob_Qtop^2", "frob_Qtop^2_mag", "frob_Qtop^2_best", "frob_Qbest^2",
    "H_frob_Qtop^2", "H_frob_Qbest^2", "largest_absparams", "scree_lower", "scree_upper",
}  # fmt: skip
#: Keys that say which Hessian a line is of, or explain it.
WHERE = ("step", "H_test", "info")
#: Error estimates of several ranks in one line, as published logs have them.
ERROR_OF_RANK = re.compile(r"Frob\((H-)?H_(\d+)\)\^2")


@dataclass(frozen=True)
class HessianResult:
    """All logged quantities of one Hessian, by their names in the log.

    Attributes:
        path: The log.
        facts: The training run.
        step: Training step.
        split: ``"train"`` or ``"test"``.
        recovery: How it was recovered, e.g. ``"seigh"``.
        quantities: E.g. ``core_S`` and ``frob_Qtop^2``.
        errors: A-posteriori estimates, a body for each rank.
        exact: Comparisons with the exact eigendecomposition (12a), a body for each rank.
        recoveries: Recoveries at equal products (12a), a body for each method and number.
        angles: Principal angles with the mask, and with eigenspaces of other steps, a body each.
    """

    path: Path
    facts: Run
    step: int
    split: str
    recovery: str
    quantities: dict[str, Any] = field(default_factory=dict)
    errors: list[dict[str, Any]] = field(default_factory=list)
    exact: list[dict[str, Any]] = field(default_factory=list)
    recoveries: list[dict[str, Any]] = field(default_factory=list)
    angles: list[dict[str, Any]] = field(default_factory=list)

    @property
    def run(self) -> str:
        """Key of the training run."""
        return self.facts.key

    @property
    def problem(self) -> str:
        """Name of the problem, ``""`` if no log says it."""
        return self.facts.problem

    @property
    def dim(self) -> int:
        """Number of parameters ``D``.

        Raises:
            InputError: If no log says it.
        """
        if self.facts.dim is None:
            raise InputError(
                f"{self.path}: no log of this run says num_params, so there is no chance level; "
                "give NUM_PARAMS"
            )
        return self.facts.dim

    @property
    def data_source(self) -> str:
        """Where the data are from, ``""`` if no log says it."""
        return self.facts.data_source

    @property
    def label(self) -> str:
        """What a legend of one run calls it."""
        how = "" if self.recovery == "seigh" else f", {self.recovery}"
        return f"step {self.step}, {self.split}{how}"

    def array(self, quantity: str) -> np.ndarray:
        """Return a quantity as an array of floats; exact eigenvalues by descending magnitude."""
        values = np.asarray(self.quantities[quantity], dtype=float)
        if quantity == "H_eigvals":  # published logs have them in ascending order
            values = values[np.argsort(-np.abs(values), kind="stable")]
        return values

    def mask(self) -> np.ndarray:
        """Return the indices of the largest parameters, by descending magnitude, ``[n]``.

        Published logs of mnist_mini have them as a set; see :attr:`mask_is_ordered`.
        """
        return np.asarray(self.quantities["largest_absparams"], dtype=np.int64)

    @property
    def mask_is_ordered(self) -> bool:
        """Whether the mask is ordered by magnitude: sets come with (nearly) ascending indices."""
        ascending = np.diff(self.mask()) > 0
        return len(ascending) < 10 or ascending.sum() < len(ascending) - 1

    def overlap_table(self, quantity: str = "frob_Qtop^2") -> pd.DataFrame:
        """Return ``k, overlap, chance, ratio, chance_std`` for every ``k``."""
        curve = self.array(quantity)
        if len(curve) > self.dim:
            raise InputError(
                f"{self.path}: {quantity} has {len(curve)} values, more than the {self.dim} "
                "parameters of this run; check NUM_PARAMS"
            )
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

    def take(self, body: dict[str, Any]) -> None:
        """Sort a result line into the lists."""
        if "recovery" in body:
            self.recoveries.append(body)
        elif "angles_with" in body:
            self.angles.append(body)
        elif "principal_angles" in body:
            self.exact.append(body)
        elif "K" in body:
            self.errors[:] = [b for b in self.errors if b["K"] != body["K"]] + [body]
        elif any(ERROR_OF_RANK.fullmatch(name) for name in body):
            known = {b["K"] for b in self.errors}
            self.errors.extend(b for b in _errors_by_rank(body) if b["K"] not in known)
        else:
            self.quantities.update(_by_present_names(body))


@dataclass(frozen=True)
class LogSet:
    """Logs sorted by what they hold; a log of 12a holds both training and results.

    Attributes:
        results: Ordered by run, split (train first) and step.
        training: Logs of trainings.
        measuring: Logs of measurements.
        analysing: Logs with the results that count.
        left_out: What could not be read, or does not count, a line each.
        runs: All runs, each with its logs.
    """

    results: list[HessianResult]
    training: list[Log]
    measuring: list[Log]
    analysing: list[Log]
    left_out: list[str]
    runs: list[tuple[Run, list[Log]]]

    def of_run(self, run: Run) -> LogSet:
        """Return what is of one run."""
        (own,) = (logs for other, logs in self.runs if other.key == run.key)

        def only(logs: list[Log]) -> list[Log]:
            return [log for log in logs if any(log is other for other in own)]

        return LogSet(
            [result for result in self.results if result.run == run.key],
            only(self.training),
            only(self.measuring),
            only(self.analysing),
            self.left_out,
            [(run, own)],
        )

    def run_of(self, log: Log) -> Run:
        """Return the run of a log."""
        return next(run for run, logs in self.runs if any(log is other for other in logs))


def find_logs(where: str) -> list[Path]:
    """Return the logs named in ``where``: files, or directories with logs of numbered scripts.

    Args:
        where: One path or several, separated as in ``PATH`` (by ``:``).

    Raises:
        InputError: If a path does not exist or a directory has no such log.
    """
    logs: list[Path] = []
    for text in where.split(os.pathsep):
        path = Path(text).expanduser()
        if path.is_dir():
            found = sorted(log for log in path.rglob("*.log") if LOG_NAME.search(log.name))
            if not found:
                raise InputError(
                    f"{path}: no log of a numbered script in there (<stamp>[10d_....py]....log)"
                )
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
        num_params: ``D``, where no log of a run says it.

    Raises:
        InputError: If a file is no log, or a log has nothing that could be drawn.
    """
    logs = [read_log(path) for path in find_logs(where)]
    left_out = [f"{log.path}: {text}" for log in logs for text in log.left_out]
    training = [log for log in logs if any(log.bodies(name) for name in TRAINING_HEADERS)]
    analysing = [log for log in logs if any(log.bodies(header) for header in HEADERS)]
    measuring = [log for log in logs if any(events.MEASURING in e.text for e in log.events)]
    for log in logs:
        if not any(log is other for part in (training, analysing, measuring) for other in part):
            left_out.append(f"{log.path}: has no result, evaluation or measurement")
    if not (training or analysing or measuring):
        raise InputError(left_out[-1])
    runs = group_by_run(logs, num_params)
    results: list[HessianResult] = []
    for run, own in runs:
        mine = [log for log in own if any(log is other for other in analysing)]
        results += _collect(run, mine, left_out)
    counting = {result.path for result in results}
    analysing = [log for log in analysing if log.path in counting]
    return LogSet(results, training, measuring, analysing, left_out, runs)


def _collect(run: Run, logs: Sequence[Log], left_out: list[str]) -> list[HessianResult]:
    """Return the results of a run; of several analyses of one Hessian the last complete one.

    Where none is complete, what the last one has counts. What does not count is said.
    """
    chosen: dict[tuple[str, int, str], HessianResult] = {}
    complete: set[tuple[str, int, str]] = set()
    for log in sorted(logs, key=lambda log: log.events[0].time):
        for result in _results(run, log, left_out):
            key = result.split, result.step, result.recovery
            whole = _is_complete(log, result)
            if not whole:
                left_out.append(f"{result.path}: the analysis of {result.label} did not end")
                if key in complete:
                    continue
            elif key in complete:
                left_out.append(f"{chosen[key].path}: a later analysis of {result.label} counts")
            chosen[key] = result
            complete |= {key} if whole else set()
    return sorted(chosen.values(), key=lambda r: (r.split != "train", r.step, r.recovery))


def _results(run: Run, log: Log, left_out: list[str]) -> list[HessianResult]:
    config = next(iter(log.bodies(events.CONFIG)), {})
    recovery = str(config.get("RECOVERY") or "seigh")
    found: dict[tuple[str, int], HessianResult] = {}
    for event in log.events:
        if event.header not in HEADERS:
            continue
        where = _which_hessian(event, config)
        if where is None:
            continue
        if wrong := _malformed(event.body):
            left_out.append(f"{log.path}: a result line is not as expected ({wrong})")
            continue
        result = found.setdefault(where, HessianResult(log.path, run, where[1], where[0], recovery))
        result.take({name: v for name, v in event.body.items() if name not in WHERE})
    return list(found.values())


def _which_hessian(event: Event, config: dict[str, Any]) -> tuple[str, int] | None:
    """Return split and step of a result line; published logs state them in CONFIG only."""
    step = event.body.get("step", config.get("STEP"))
    test = event.body.get("H_test", config.get("TEST_HESSIAN"))
    split = HEADERS[event.header] or ("test" if test else "train")
    return (split, step) if isinstance(step, int) else None


def _malformed(body: dict[str, Any]) -> str:
    """Return what is wrong with the quantities of a result line; empty if nothing is."""
    for name, value in body.items():
        if name in LISTS and not (
            isinstance(value, list)
            and value
            and all(v is None or isinstance(v, (int, float)) for v in value)
        ):
            return f"{name} is no list of numbers"
    return ""


def _is_complete(log: Log, result: HessianResult) -> bool:
    """Return whether an analysis came to its end, the overlap being the last that is computed.

    Logs of 10d of this project say so in their last line; published ones have no such line.
    """
    ours = any("made_with" in body for body in log.bodies(events.GLOBALS))
    if ours and log.bodies(events.RESULT):
        return any(event.text == events.ANALYSED for event in log.events)
    return "frob_Qtop^2" in result.quantities


def _by_present_names(body: dict[str, Any]) -> dict[str, Any]:
    body = {ALIASES.get(name, name): value for name, value in body.items()}
    largest: Iterable[Any] = body.get("largest_absparams", ())
    if not all(isinstance(value, int) for value in largest):
        # Before version 0.2 their magnitudes stood under this name.
        body["largest_absparams_magnitudes"] = body.pop("largest_absparams")
    return body


def _errors_by_rank(body: dict[str, Any]) -> list[dict[str, Any]]:
    ranks = sorted({int(m[2]) for name in body if (m := ERROR_OF_RANK.fullmatch(name))})
    return [
        {
            "K": k,
            "Frob(H)^2": body["Frob(H)^2"],
            "Frob(H_K)^2": body[f"Frob(H_{k})^2"],
            "Frob(H-H_K)^2": body[f"Frob(H-H_{k})^2"],
        }
        for k in reversed(ranks)
    ]
