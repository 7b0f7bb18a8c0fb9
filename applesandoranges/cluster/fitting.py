"""Whether the data can serve an experiment, before anything of it runs.

Imports torch: for those alone who begin a training.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any

from skerch.errors import InputError

from ..problems.datasets import MissingDataError
from ..problems.extent import Extent, extent_of
from ..problems.problem import num_params
from ..training.settings import DEFAULT_SETTINGS, TrainingSettings, load_settings
from .settings import Settings

__all__ = ["MissingDataError", "fit_to_data"]


@dataclass(frozen=True)
class _TooMuch:
    """A setting that the data cannot serve.

    Attributes:
        name: Which.
        value: The largest value that they can serve.
        why: What the data have.
        others: What other settings become with it, where they are defaults, too.
    """

    name: str
    value: int
    why: str
    others: dict[str, int] = field(default_factory=dict)


def fit_to_data(s: Settings, chosen: Collection[str]) -> tuple[Settings, list[str]]:
    """Check the sizes of an experiment against its data.

    Args:
        s: The settings.
        chosen: Names of those that somebody chose. All others are defaults: where FIT_DEFAULTS
            says so, they become what the data can serve.

    Returns:
        The settings, and a few words for each change.

    Raises:
        InputError: If the data cannot serve a size; in one line with the variable that mends it.
        MissingDataError: If they are not there.
    """
    training = load_settings(s.TUNING_CONF or DEFAULT_SETTINGS, s.PROBLEM, s.OPTIMIZER)
    found = num_params(s.PROBLEM, s.PARAMETERS)
    if found != s.NUM_PARAMS:
        raise InputError(f"NUM_PARAMS={s.NUM_PARAMS}: {s.PROBLEM} has {found}; leave it out")
    extent = extent_of(s.PROBLEM, s.OBS_DATASETS_PATH, training.batch_size)
    words = []
    for much in (_steps(s, training, extent, chosen), _points(s, extent)):
        if much is None:
            continue
        if not s.FIT_DEFAULTS or much.name in chosen:
            raise InputError(
                f"{much.name}={getattr(s, much.name)}: {much.why}; set {much.name}={much.value}"
            )
        changes: dict[str, Any] = {much.name: much.value}
        changes |= {name: value for name, value in much.others.items() if name not in chosen}
        words += [f"{name}={value} instead of {getattr(s, name)}"
                  for name, value in changes.items()]  # fmt: skip
        words[-1] += f" ({much.why})"
        s = dataclasses.replace(s, **changes)
    return s, words


def _steps(
    s: Settings, training: TrainingSettings, extent: Extent, chosen: Collection[str]
) -> _TooMuch | None:
    """Compare the last recorded step with the last one of the training."""
    end = s.MAX_STEPS if "MAX_STEPS" in chosen else None  # by default, it follows the others
    last = training.last_step(extent.steps_per_epoch, end)
    if s.steps[-1] <= last:
        return None
    epochs = f"{training.num_epochs} epochs of {extent.steps_per_epoch} steps"
    why = f"the last step is {last}, of {epochs}{'' if end is None else f' and MAX_STEPS={end}'}"
    if last < s.RECORD_BEGINNING:
        return _TooMuch("RECORD_BEGINNING", last, why)
    served = [step for step in s.steps if step <= last]
    others = {"MAX_STEPS": served[-1]}
    if len(served) == 1 and last > s.RECORD_BEGINNING and "RECORD_EVERY" not in chosen:
        # Both ends of a short training.
        others = {"MAX_STEPS": last, "RECORD_EVERY": last - s.RECORD_BEGINNING}
    return _TooMuch("MAX_RECORD_STEP", others["MAX_STEPS"], why, others)


def _points(s: Settings, extent: Extent) -> _TooMuch | None:
    """Compare the data points of a Hessian with those there are."""
    num, multiple, most = s.NUM_HESSIAN_DATAPOINTS, extent.multiple, extent.most_points
    if num % multiple == 0 and 1 <= num <= most:
        return None
    why = f"both splits allow at most {most} data points of a Hessian"
    if multiple > 1:
        why = f"both splits allow {multiple}, {2 * multiple}, ..., {most} data points of a Hessian"
    return _TooMuch("NUM_HESSIAN_DATAPOINTS", min(max(num // multiple, 1) * multiple, most), why)
