"""Keys of the scripts that build problems and train them."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from skerch.errors import InputError

from ..app.keys import key
from ..app.machine import device_key
from ..problems.definition import absolute
from .settings import DEFAULT_SETTINGS, TrainingSettings, load_settings


def datasets_key() -> Any:
    """Return the key of the directory with the data sets."""
    shown = "required unless PROBLEM is a file"
    return key("directory with the data sets (see 09a)", None, shown=shown)


def batch_size_key() -> Any:
    """Return the key of the mini-batches that a Hessian is made of, where nothing is trained."""
    return key("data points per mini-batch of a Hessian", None, shown="that of the settings")


@dataclass
class ProblemConfig:
    """Keys that say which problem is built, and from what: those of 10a, 12a and 20a."""

    OBS_DATASETS: str | None = datasets_key()
    NUM_HESSIAN_DATAPOINTS: int = key(
        "data points per Hessian, class-balanced where there are classes"
    )
    TUNING_CONF: str = key(
        "settings per problem", str(DEFAULT_SETTINGS), shown="config/basic_config.yaml"
    )
    OPTIMIZER: str = key("an optimiser that the settings have", "SGD")
    PROBLEM: str = key(
        "a problem that the settings have, or path/to/my_problem.py[:name]", "mnist_mini"
    )
    DEVICE: str = device_key()

    def __post_init__(self) -> None:
        # As the log says it, it is found from every directory.
        self.PROBLEM = absolute(self.PROBLEM)

    def settings(self) -> TrainingSettings:
        """Return the settings of problem and optimiser; see :func:`load_settings`."""
        return load_settings(Path(self.TUNING_CONF), self.PROBLEM, self.OPTIMIZER)

    def datasets(self) -> Path | None:
        """Return the directory with the data sets."""
        return None if self.OBS_DATASETS is None else Path(self.OBS_DATASETS).expanduser()


def mini_batch_size(config: Any) -> int:
    """Return ``BATCH_SIZE`` of a configuration that has it, or that of the settings.

    Raises:
        InputError: If it is not positive, or is not given and there are no settings.
    """
    size: int | None = config.BATCH_SIZE
    if size is None:
        return config.settings().batch_size
    if size < 1:
        raise InputError(f"BATCH_SIZE must be at least 1, got {size}")
    return size


@dataclass
class RunConfig(ProblemConfig):
    """Keys of what makes a run directory: 10a, 10f and 12a."""

    RANDOM_SEED: int = key(
        "seed of data split, initialisation and training; the test matrices of 12a are others "
        "than those of 10c and 10d for the same seed",
        lambda: secrets.randbelow(2**31),
        "random",
    )
    OUTPUT_DIR: str = key("where the run directory is made", "output")
    OUTDIR_SUFFIX: str = key("appended to the name of the run directory", "")


@dataclass
class TrainingConfig(RunConfig):
    """Keys that 10a and 12a have in common."""

    RECORD_STEPS: list[int] = key("steps to record, each before its update")
    MAX_STEPS: int | None = key(
        "last training step, counted from 0: MAX_STEPS + 1 updates",
        None,
        shown="all epochs",
    )
    WITH_EVAL: bool = key(
        "evaluate all splits at the beginning of each epoch and at the end (costly for ImageNet)",
        True,
    )
