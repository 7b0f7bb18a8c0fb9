"""Whether a run is a published experiment, or another one: data, settings, sketches."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from skerch.errors import InputError

from ..app import events
from ..results.collect import LogSet
from .tables import OPTIMIZER, RUNS, SEED, PublishedRun


def published_run(logs: LogSet) -> PublishedRun:
    """Return the published run that logs are to be compared with.

    Raises:
        InputError: If they are of several runs, lack the training, or were not published.
    """
    if len(logs.training) != 1 or len(logs.runs) != 1:
        raise InputError(
            f"expected the logs of one training run and of its analyses, found {len(logs.runs)} "
            f"runs with {len(logs.training)} trainings; give one run directory, which has them all"
        )
    problem = logs.runs[0][0].problem
    if problem not in RUNS:
        raise InputError(
            f"{logs.training[0].path}: no verdict is possible: nothing was published of "
            f"{problem or 'an unknown problem'}, only of {', '.join(RUNS)}"
        )
    return RUNS[problem]


def run_differences(logs: LogSet, run: PublishedRun) -> list[str]:
    """Return what makes a training another experiment than the published one, in words."""
    config, made = logs.training[0].first(events.CONFIG), logs.training[0].first(events.GLOBALS)
    source = logs.runs[0][0].data_source or "full"
    words = [] if source == "full" else [f"the data are {source}, not the full {run.data}"]
    lr = (made.get("opt_hpars") or {}).get("lr", run.lr)
    settings = (
        ("OPTIMIZER", config.get("OPTIMIZER"), OPTIMIZER),
        ("RANDOM_SEED", config.get("RANDOM_SEED"), SEED),
        ("NUM_HESSIAN_DATAPOINTS", config.get("NUM_HESSIAN_DATAPOINTS"), run.num_hessian),
        ("batch_size", made.get("batch_size"), run.batch_size),
        ("lr", run.lr if math.isclose(lr, run.lr, rel_tol=1e-4) else lr, run.lr),
        ("lr_schedule", made.get("sched_name"), None),
    )
    return words + _differing(settings)


def _differing(settings: Iterable[tuple[str, Any, Any]]) -> list[str]:
    return [f"{name}={ours}, published {other}" for name, ours, other in settings if ours != other]


def sketch_differences(logs: LogSet, run: PublishedRun) -> list[str]:
    """Return what makes sketches other ones than the published ones, in words."""
    words: dict[str, None] = {}
    for result in logs.results:
        (log,) = (log for log in logs.analysing if log.path == result.path)
        config = next(iter(log.bodies(events.CONFIG)), {})
        made = next(iter(log.bodies(events.GLOBALS)), {})
        # Published logs of 10d say neither; their measurements' logs say n_i.
        measured = [log.first(events.CONFIG) for log in logs.measuring]
        inner = next((b["NUM_INNER"] for b in [config, *measured] if b.get("NUM_INNER")), None)
        settings = (
            ("SYMMETRIZE_CORE", config.get("SYMMETRIZE_CORE", False), False),
            ("RECOVERY", result.recovery, "seigh"),
            ("NUM_OUTER", len(result.quantities.get("core_S", ())) or run.outer, run.outer),
            ("NUM_INNER", made.get("num_inner", inner) or run.inner, run.inner),
        )
        words |= dict.fromkeys(_differing(settings))
    return list(words)
