"""Which training run a log belongs to, and what the logs of a run say of it together.

Logs of this project name their run by an identity; published ones only by its directory.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from skerch.errors import InputError

from ..app import events
from ..app.log import Log

#: A text of published logs that has the number of parameters.
ORTHOGONALIZING = re.compile(r"Orthogonalizing outer measurements \((\d+), \d+\)")


@dataclass(frozen=True)
class Run:
    """A training run.

    Attributes:
        key: Tells it apart from all others.
        directory: Name of the run directory, ``<stamp>__<problem>__<seed>[__<suffix>]``.
        problem: Name of the problem, or ``""`` if no log says it.
        seed: RANDOM_SEED, or ``None`` if no log says it.
        dim: Number of parameters ``D``, or ``None`` if no log says it.
        data_source: ``"full"``, ``"embedded"``, ``"synthetic"`` or ``""`` if no log says it.
        label: What legends call it; names of several runs differ.
    """

    key: str
    directory: str
    problem: str
    seed: int | None
    dim: int | None
    data_source: str
    label: str


def group_by_run(logs: Sequence[Log], num_params: int | None = None) -> list[tuple[Run, list[Log]]]:
    """Return the runs that the logs are of, each with its logs, in the order of the logs.

    Args:
        logs: All logs.
        num_params: ``D``, where no log of a run says it.

    Raises:
        InputError: If logs of one run contradict each other about the number of parameters.
    """
    identities: dict[str, set[str]] = {}
    for log in logs:
        if own := _identity(log):
            identities.setdefault(_directory(log), set()).add(own)
    groups: dict[str, list[Log]] = {}
    for log in logs:
        directory = _directory(log)
        # A name that several runs have says nothing.
        (*ambiguous, known) = sorted(identities.get(directory, ())) or [""]
        key = _identity(log) or ("" if ambiguous else known) or directory
        groups.setdefault(key, []).append(log)
    runs = [_describe(key, part, num_params) for key, part in groups.items()]
    labels = _labels(runs)
    named = [Run(**(vars(run) | {"label": label})) for run, label in zip(runs, labels, strict=True)]
    return list(zip(named, groups.values(), strict=True))


def _bodies(log: Log) -> Iterator[dict[str, Any]]:
    """Yield the bodies that describe a run; CONFIG and GLOBALS come first in every log."""
    return (event.body for event in log.events if event.header in (events.CONFIG, events.GLOBALS))


def _find(kind: type, logs: Sequence[Log], *names: str) -> Any:
    """Return the first value of the right kind under one of the names, or ``None``."""
    values = (body.get(name) for log in logs for body in _bodies(log) for name in names)
    return next((value for value in values if isinstance(value, kind)), None)


def _identity(log: Log) -> str | None:
    return _find(str, [log], "run_id")


def _directory(log: Log) -> str:
    own = _find(str, [log], "run_dir")
    training = _find(str, [log], "TRAINING_LOGPATH")
    name = Path(own).name if own else Path(training).parent.name if training else ""
    return name or log.path.resolve().parent.name


def _describe(key: str, logs: list[Log], num_params: int | None) -> Run:
    directory = _directory(logs[0])
    _, problem, digits, *_ = (*directory.split("__"), "", "", "")
    seed = _find(int, logs, "RANDOM_SEED", "random_seed")
    if seed is None and digits.isdigit():
        seed = int(digits)
    dims = {dim for log in logs for dim in _dims(log)}
    if len(dims) > 1:
        raise InputError(
            f"{logs[0].path.parent}: logs of one run name different numbers of parameters, "
            f"{', '.join(map(str, sorted(dims)))}; leave out those that do not belong to it"
        )
    return Run(
        key,
        directory,
        _find(str, logs, "PROBLEM", "problem") or problem,
        seed,
        dims.pop() if dims else num_params,
        _find(str, logs, "data_source") or "",
        "",
    )


def _dims(log: Log) -> Iterator[int]:
    for event in log.events:
        if isinstance(event.body.get("num_params"), int):
            yield event.body["num_params"]
        elif match := ORTHOGONALIZING.match(event.text):
            yield int(match[1])


def _labels(runs: Sequence[Run]) -> list[str]:
    """Return problem and seed of each run, and as much of its directory as makes them differ."""
    short = [
        f"{run.problem or run.directory}" + (f", seed {run.seed}" if run.seed is not None else "")
        for run in runs
    ]
    with_suffix = [
        f"{text}, {run.directory.split('__')[-1]}" for text, run in zip(short, runs, strict=True)
    ]
    whole = [f"{text}, {run.directory}" for text, run in zip(short, runs, strict=True)]
    keyed = [f"{text}, run {run.key[:8]}" for text, run in zip(whole, runs, strict=True)]
    return [
        next(
            (labels[i] for labels in (short, with_suffix, whole) if labels.count(labels[i]) == 1),
            keyed[i],
        )
        for i in range(len(runs))
    ]
