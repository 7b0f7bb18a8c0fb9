"""Training settings per problem, read from a YAML file whose header explains its schema.

The whole file is checked, so that a mistake in it shows before the run that needs it.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import yaml
from omegaconf import MISSING, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from skerch.errors import InputError

from .. import REPOSITORY
from ..app.keys import coerce
from ..app.spelling import check_name
from ..app.values import AsWritten
from ..problems.definition import is_file, load_definition

SchemaT = TypeVar("SchemaT")

#: Settings of the published runs; an installed package does not have them.
DEFAULT_SETTINGS = REPOSITORY / "config" / "basic_config.yaml"


@dataclass(frozen=True)
class TrainingSettings:
    """How to train a problem.

    Attributes:
        batch_size: Data points per step.
        num_epochs: Passes through the training data.
        opt_name: Key of :data:`OPTIMIZERS`.
        opt_hpars: Its hyper-parameters.
        sched_name: Key of :data:`SCHEDULES`, or None for a constant learning rate.
        sched_hpars: Its hyper-parameters.
    """

    batch_size: int
    num_epochs: int
    opt_name: str
    opt_hpars: dict[str, Any]
    sched_name: str | None
    sched_hpars: dict[str, Any]

    def last_step(self, steps_per_epoch: int, max_steps: int | None) -> int:
        """Return the last step that can be recorded.

        Args:
            steps_per_epoch: Of the training data.
            max_steps: MAX_STEPS, number of the last training step; ``None`` for all epochs.

        Returns:
            That step; or the number of all steps, which is the state after the last update.
        """
        all_steps = self.num_epochs * steps_per_epoch
        return all_steps if max_steps is None or max_steps >= all_steps - 1 else max_steps


def _check(name: str, value: float, valid: bool, expected: str) -> None:
    if not valid:
        raise ValueError(f"{name}: expected {expected}, got {value}")


def _check_ratios(**ratios: float) -> None:
    for name, ratio in ratios.items():
        _check(name, ratio, 0 <= ratio <= 1, "a number in [0, 1]")


@dataclass
class _SGD:
    lr: float = MISSING
    momentum: float | None = None

    def __post_init__(self) -> None:
        _check("lr", self.lr, 0 < self.lr < math.inf, "a positive finite number")
        if self.momentum is not None:
            _check("momentum", self.momentum, 0 <= self.momentum < 1, "a number in [0, 1)")


@dataclass
class _Adam:
    lr: float = MISSING
    beta1: float = 0.9
    beta2: float = 0.999
    eps: float = 1e-8

    def __post_init__(self) -> None:
        _check("lr", self.lr, 0 < self.lr < math.inf, "a positive finite number")
        _check("beta1", self.beta1, 0 <= self.beta1 < 1, "a number in [0, 1)")
        _check("beta2", self.beta2, 0 <= self.beta2 < 1, "a number in [0, 1)")
        _check("eps", self.eps, 0 < self.eps < math.inf, "a positive finite number")


@dataclass
class _Cosine:
    warmup_ratio: float = 0.0
    final_lr_ratio: float = 0.0

    def __post_init__(self) -> None:
        _check_ratios(warmup_ratio=self.warmup_ratio, final_lr_ratio=self.final_lr_ratio)


@dataclass
class _CosineRestarts:
    period: int = MISSING
    mult: int = 1
    warmup_ratio: float = 0.0
    final_lr_ratio: float = 0.0

    def __post_init__(self) -> None:
        _check("period", self.period, self.period >= 1, "at least 1 step")
        _check("mult", self.mult, self.mult >= 1, "at least 1")
        _check_ratios(warmup_ratio=self.warmup_ratio, final_lr_ratio=self.final_lr_ratio)


@dataclass
class _Trapezoidal:
    warmup_ratio: float = MISSING
    cooldown_ratio: float = MISSING

    def __post_init__(self) -> None:
        _check_ratios(warmup_ratio=self.warmup_ratio, cooldown_ratio=self.cooldown_ratio)
        both = self.warmup_ratio + self.cooldown_ratio
        _check("warmup_ratio + cooldown_ratio", both, both <= 1, "at most 1")


OPTIMIZERS: dict[str, type[Any]] = {"SGD": _SGD, "Adam": _Adam}
SCHEDULES: dict[str, type[Any]] = {
    "cosine": _Cosine,
    "cosine_restarts": _CosineRestarts,
    "trapezoidal": _Trapezoidal,
}


@dataclass
class _Optimizer:
    opt_hpars: dict[str, Any] = MISSING
    lr_schedule: dict[str, Any] | None = None


@dataclass
class _Problem:
    batch_size: int = MISSING
    num_epochs: int = MISSING
    SGD: dict[str, Any] | None = None
    Adam: dict[str, Any] | None = None

    def __post_init__(self) -> None:
        _check("batch_size", self.batch_size, self.batch_size >= 1, "at least 1")
        _check("num_epochs", self.num_epochs, self.num_epochs >= 1, "at least 1")


def load_settings(path: Path, problem: str, optimizer: str) -> TrainingSettings:
    """Read the settings of ``problem`` with ``optimizer``.

    Raises:
        InputError: If the file is missing, anything in it is not valid, or it has no settings for
            this problem and optimiser; in one line that names the file.
    """
    from ..problems.registry import check_problem  # imports torch, which takes seconds

    path = Path(path).expanduser()
    if not is_file(problem):
        check_problem(problem)
    check_name("optimizer", optimizer, OPTIMIZERS)
    try:
        written = yaml.load(path.read_text(), Loader=AsWritten)
        content = {} if written is None else written
        if isinstance(written, (dict, list)):  # which may hold ${interpolations}
            content = OmegaConf.to_container(OmegaConf.create(written), resolve=True)
    except FileNotFoundError:
        default = path == DEFAULT_SETTINGS
        hint = "; it is in the repository alone, give your own as TUNING_CONF" if default else ""
        raise InputError(f"{path}: no such settings file{hint}") from None
    except (yaml.YAMLError, OmegaConfBaseException, OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path}: not a readable YAML file: {error}") from error
    if not isinstance(content, dict):
        raise InputError(f"{path}: expected settings by problem, got a {type(content).__name__}")
    settings: dict[str, dict[str, TrainingSettings]] = {}
    if (definition := load_definition(problem) if is_file(problem) else None) is not None:
        problem = definition.name
        if definition.settings is not None:
            where = f"{definition.path}: settings"
            settings[problem] = _problem_settings(definition.settings, where)
    for key, section in content.items():
        name = str(key)
        if definition is None or name != problem:
            check_problem(name, f" in {path}")
        settings[name] = _problem_settings(section, f"{path}: {name}")
    if optimizer not in settings.get(problem, {}):
        if definition is not None and problem not in settings:
            raise InputError(
                f"{definition.path}: no settings for {optimizer}, neither there (settings = "
                f"{{'batch_size': ..., ...}}, see docs/own_network.md) nor in {path} ({problem}: "
                "...); 10f and 20a, which do not train, need BATCH_SIZE alone"
            )
        there = ", ".join(f"{name} with {opt}" for name in settings for opt in settings[name])
        raise InputError(f"{path}: no settings for {problem} with {optimizer}; there is {there}")
    return settings[problem][optimizer]


def _problem_settings(section: Any, where: str) -> dict[str, TrainingSettings]:
    """Return the settings of one problem by optimiser."""
    problem = _read(_Problem, section, where)
    settings = {}
    for opt_name, hpars_type in OPTIMIZERS.items():
        content = getattr(problem, opt_name)
        if content is None:
            continue
        inside = f"{where}.{opt_name}"
        optimizer = _read(_Optimizer, content, inside)
        opt_hpars = _read(hpars_type, optimizer.opt_hpars, f"{inside}.opt_hpars")
        settings[opt_name] = TrainingSettings(
            problem.batch_size,
            problem.num_epochs,
            opt_name,
            _given(opt_hpars),
            *_schedule(optimizer.lr_schedule, f"{inside}.lr_schedule"),
        )
    return settings


def _schedule(content: dict[str, Any] | None, where: str) -> tuple[str | None, dict[str, Any]]:
    """Return name and hyper-parameters of a schedule."""
    if content is None:
        return None, {}
    name = str(content.get("name"))
    check_name(f"schedule name in {where}", name, SCHEDULES)
    hpars = {key: value for key, value in content.items() if key != "name"}
    return name, _given(_read(SCHEDULES[name], hpars, where))


def _given(hpars: Any) -> dict[str, Any]:
    """Return hyper-parameters as a dictionary, less those that do not apply."""
    return {name: value for name, value in dataclasses.asdict(hpars).items() if value is not None}


def _read(schema: type[SchemaT], content: Any, where: str) -> SchemaT:
    """Return ``content`` as a ``schema``.

    Raises:
        InputError: Unknown or missing key, wrong type, or value out of range.
    """
    if not isinstance(content, dict):
        raise InputError(f"{where}: expected keys with values, got {content}")
    types = {field.name: str(field.type) for field in dataclasses.fields(schema)}  # type: ignore[arg-type]
    values = {str(key): value for key, value in content.items()}
    for name in values:
        check_name(f"key in {where}", name, types)
    typed, missing = coerce(
        schema, values, lambda name: f"{where}.{name}: expected {types[name]}, got {values[name]!r}"
    )
    if missing:
        raise InputError(f"{where}: missing {', '.join(missing)}")
    try:
        return schema(**typed)
    except ValueError as error:
        raise InputError(f"{where}: {error}") from None
