"""Results collected from the logs of 10a, 10c, 10d and 12a, ours or published ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from skerch.errors import InputError

from ..app import events
from ..app.log import Event, Log, read_log
from ..app.verdicts import Verdict
from ..subspaces.chance import chance_level
from .log_files import find_logs, without_copies
from .names import ERROR_OF_RANK, by_present_names, errors_by_rank
from .runs import Run, group_by_run
from .wellformed import malformed, unfitting

#: Headers of result lines, with the split where the header says it.
HEADERS = {events.RESULT: None} | {name: split for split, name in events.SPLIT_RESULTS.items()}
#: Headers of lines that a training writes.
TRAINING_HEADERS = (events.EVAL_ROUND, events.TRAINING_BATCH, events.FINAL_EVALUATION)
#: Keys that say which Hessian a line is of, or explain it.
WHERE = ("step", "H_test", "info")


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
        layers: What layers have of the mask, the eigenspace and the overlap, a body for each rank.
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
    layers: list[dict[str, Any]] = field(default_factory=list)

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
        """Number of parameters ``D`` that span the Hessian.

        Raises:
            InputError: If no log says it.
        """
        if "num_selected_params" in self.quantities:
            return self.quantities["num_selected_params"]
        if self.facts.dim is None:
            raise InputError(
                f"{self.path}: no log of this run says num_params, so there is no chance level; "
                "give NUM_PARAMS"
            )
        return self.facts.dim

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
        """Return ``k, overlap, lowest, highest, chance, ratio, ..., known_within`` by ``k``.

        Between ``lowest`` and ``highest`` lies the exact one; NaN where that was not estimated.
        ``known_within`` is the relative error that the verdict vouches for, infinite beyond.
        ``chance`` is the mean overlap of a random mask, ``chance_std`` its standard deviation and
        ``z_score`` how many of these the overlap is above the mean, from the eigenvectors; both are
        NaN for logs without them, such as published ones.
        """
        curve = self.array(quantity)
        if len(curve) > self.dim:
            raise InputError(
                f"{self.path}: {quantity} has {len(curve)} values, more than the {self.dim} "
                "parameters of this run; check NUM_PARAMS"
            )
        k = torch.arange(1, len(curve) + 1)
        judged = self.verdict if quantity == "frob_Qtop^2" else None
        chance = chance_level(k, self.dim).numpy()
        overlap = curve / k.numpy()
        spread = f"{'H_' * quantity.startswith('H_')}frob_Qchance^2_std"
        std = self._per_rank(spread)
        return pd.DataFrame(
            {
                "k": k.numpy(),
                "overlap": overlap,
                "lowest": self._per_rank(f"{quantity}_lowest"),
                "highest": self._per_rank(f"{quantity}_highest"),
                "chance": chance,
                "ratio": overlap / chance,
                "chance_std": std,
                "z_score": (overlap - chance) / std,
                "known_within": [judged.error_at(i) if judged else np.nan for i in k.tolist()],
            }
        )

    def _per_rank(self, quantity: str) -> np.ndarray | float:
        """Return a logged ``k * value(k)`` as values, or NaN where logs do not have it."""
        if quantity not in self.quantities:
            return np.nan
        values = self.array(quantity)
        return values / np.arange(1, len(values) + 1)

    @property
    def verdict(self) -> Verdict | None:
        """The verdict on the recovery; ``None`` in logs without one, such as published ones."""
        return Verdict.of(self.quantities)

    @property
    def num_tied(self) -> int:
        """The most parameters that tie where a mask is cut; 0 if logs know of none."""
        return int(max(self.quantities.get("num_tied", [0])))

    def take(self, body: dict[str, Any]) -> None:
        """Sort a result line into the lists."""
        if "recovery" in body:
            self.recoveries.append(body)
        elif "angles_with" in body:
            self.angles.append(body)
        elif "principal_angles" in body:
            self.exact.append(body)
        elif "layers_mask" in body:
            self.layers.append(body)
        elif "overlap_error" in body:  # with ACCURACY
            self.quantities["overlap_error"] = body["overlap_error"]
        elif "K" in body:
            self.errors[:] = [b for b in self.errors if b["K"] != body["K"]] + [body]
        elif any(ERROR_OF_RANK.fullmatch(name) for name in body):
            known = {b["K"] for b in self.errors}
            self.errors.extend(b for b in errors_by_rank(body) if b["K"] not in known)
        else:
            self.quantities.update(by_present_names(body))


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
        chosen: Which one of several analyses of a Hessian counts, a line each.
    """

    results: list[HessianResult]
    training: list[Log]
    measuring: list[Log]
    analysing: list[Log]
    left_out: list[str]
    runs: list[tuple[Run, list[Log]]]
    chosen: list[str] = field(default_factory=list)

    def parts(self, by_recovery: bool) -> list[tuple[str, LogSet]]:
        """Return a part for each run, and for each recovery if there are several, with labels."""
        found = []
        for run, _ in self.runs:
            own = self.of_run(run)
            names = list(dict.fromkeys(result.recovery for result in own.results))
            if not by_recovery or len(names) < 2:
                found.append((run.label, own))
                continue
            for name in names:
                results = [result for result in own.results if result.recovery == name]
                found.append((f"{run.label}, {name}", replace(own, results=results)))
        return found

    def of_run(self, run: Run) -> LogSet:
        """Return what is of one run."""
        (own,) = (logs for other, logs in self.runs if other.key == run.key)
        results = [result for result in self.results if result.run == run.key]
        training, measuring, analysing = (
            [log for log in logs if log in own]
            for logs in (self.training, self.measuring, self.analysing)
        )
        return LogSet(
            results, training, measuring, analysing, self.left_out, [(run, own)], self.chosen
        )

    def run_of(self, log: Log) -> Run:
        """Return the run of a log."""
        return next(run for run, logs in self.runs if log in logs)


def read_logs(where: str, num_params: int | None = None) -> LogSet:
    """Read and sort the logs named by ``where``; copies of a log count once, and this is said.

    Args:
        where: See :func:`~applesandoranges.results.log_files.find_logs`.
        num_params: ``D``, where no log of a run says it.

    Raises:
        InputError: If a file is no log, or a log has nothing that could be drawn.
    """
    logs, copies = without_copies([read_log(path) for path in find_logs(where)])
    left_out = [copies] if copies else []
    left_out += [f"{log.path}: {text}" for log in logs for text in log.left_out]
    training = [log for log in logs if any(log.bodies(name) for name in TRAINING_HEADERS)]
    analysing = [log for log in logs if any(log.bodies(header) for header in HEADERS)]
    measuring = [log for log in logs if any(events.MEASURING in e.text for e in log.events)]
    for log in logs:
        if log not in [*training, *analysing, *measuring]:
            left_out.append(f"{log.path}: has no result, evaluation or measurement")
    if not (training or analysing or measuring):
        raise InputError(left_out[-1])
    runs = group_by_run(logs, num_params)
    results: list[HessianResult] = []
    chosen: list[str] = []
    for run, own in runs:
        mine = [log for log in own if log in analysing]
        results += _collect(run, mine, left_out, chosen)
    counting = {result.path for result in results}
    analysing = [log for log in analysing if log.path in counting]
    return LogSet(results, training, measuring, analysing, left_out, runs, chosen)


def _collect(
    run: Run, logs: Sequence[Log], left_out: list[str], chosen: list[str]
) -> list[HessianResult]:
    """Return the results of a run; of several analyses of one Hessian the last complete one.

    The last one is the one that was begun last, by the time in the log. Where none of published
    form is complete, what the last one has counts. What does not count is said.
    """
    found: dict[tuple[str, int, str], list[tuple[bool, HessianResult, Event]]] = {}
    for log in sorted(logs, key=lambda log: (log.events[0].time, str(log.path))):
        for result in _results(run, log, left_out):
            whole = _is_complete(log, result)
            if not whole:
                left_out.append(f"{result.path}: the analysis of {result.label} did not end")
            if whole or not _is_ours(log):
                key = result.split, result.step, result.recovery
                found.setdefault(key, []).append((whole, result, log.events[0]))
    counting = []
    for analyses in found.values():
        complete = [item for item in analyses if item[0]]
        *others, (_, last, begin) = complete or analyses
        counting.append(last)
        left_out += [
            f"{other.path}: a later analysis of {other.label} counts" for _, other, _ in others
        ]
        if others:
            zone = "UTC" if begin.has_offset else "by its clock, whose time zone it does not say"
            chosen.append(
                f"{run.label}, {last.label}: of {len(others) + 1} analyses that which was begun "
                f"last, on {begin.time:%Y-%m-%d %H:%M:%S} {zone}: {last.path.name}"
            )
    return sorted(counting, key=lambda r: (r.split != "train", r.step, r.recovery))


def _results(run: Run, log: Log, left_out: list[str]) -> list[HessianResult]:
    config = next(iter(log.bodies(events.CONFIG)), {})
    recovery = ", ".join([str(config.get("RECOVERY") or "seigh"), *_other_curvature(config)])
    found: dict[tuple[str, int], HessianResult] = {}
    for event in log.events:
        if event.header not in HEADERS:
            continue
        where = _which_hessian(event, config)
        if where is None:
            continue
        if wrong := malformed(event.body):
            left_out.append(f"{log.path}: a result line is not as expected ({wrong})")
            continue
        result = found.setdefault(where, HessianResult(log.path, run, where[1], where[0], recovery))
        result.take({name: v for name, v in event.body.items() if name not in WHERE})
    for result in found.values():
        for name, wrong in unfitting(result.quantities).items():
            left_out.append(f"{log.path}: {name} of {result.label} is not as expected ({wrong})")
            del result.quantities[name]
    return list(found.values())


def _other_curvature(config: dict[str, Any]) -> list[str]:
    """Return what tells the curvature of a log from the Hessian of all parameters."""
    curvature, parameters = config.get("CURVATURE"), config.get("PARAMETERS")
    other = [curvature] if curvature not in (None, "hessian") else []
    return [*other, *([f"of {parameters}"] if parameters else [])]


def _which_hessian(event: Event, config: dict[str, Any]) -> tuple[str, int] | None:
    """Return split and step of a result line; published logs state them in CONFIG only."""
    step = event.body.get("step", config.get("STEP"))
    test = event.body.get("H_test", config.get("TEST_HESSIAN"))
    split = HEADERS[event.header] or ("test" if test else "train")
    return (split, step) if isinstance(step, int) else None


def _is_complete(log: Log, result: HessianResult) -> bool:
    """Return whether an analysis came to its end, the overlap being the last that is computed.

    Logs of 10d of this project say so in their last line; published ones have no such line.
    """
    if _is_ours(log) and log.bodies(events.RESULT):
        return any(event.text == events.ANALYSED for event in log.events)
    return "frob_Qtop^2" in result.quantities


def _is_ours(log: Log) -> bool:
    return any("made_with" in body for body in log.bodies(events.GLOBALS))
