"""Optimisers and learning-rate schedules from settings. Schedules advance once per step."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

from torch import nn
from torch.optim import SGD, Adam, Optimizer
from torch.optim.lr_scheduler import LambdaLR

from .settings import TrainingSettings


def make_optimizer(settings: TrainingSettings, params: Iterable[nn.Parameter]) -> Optimizer:
    """Return the optimiser that ``settings`` describe."""
    hpars = dict(settings.opt_hpars)
    if settings.opt_name == "Adam":
        hpars["betas"] = (hpars.pop("beta1"), hpars.pop("beta2"))
        return Adam(params, **hpars)
    return SGD(params, **hpars)


def make_schedule(settings: TrainingSettings, optimizer: Optimizer, total_steps: int) -> LambdaLR:
    """Return the learning-rate schedule; call ``step()`` after each update.

    The learning rate rises linearly over ``warmup_ratio * total_steps`` steps, if there is such a
    ratio, and then follows the schedule over the remaining steps. All schedules are written as
    factors of the learning rate, because chained schedulers of torch raise deprecation warnings.

    Args:
        settings: The settings.
        optimizer: Its learning rate is the maximum of the schedule.
        total_steps: Steps of the whole training.
    """
    hpars = settings.sched_hpars
    warmup = round(hpars.get("warmup_ratio", 0.0) * total_steps)
    after = _FACTORS[settings.sched_name](hpars, total_steps, total_steps - warmup)

    def factor(step: int) -> float:
        return (step + 1) / (warmup + 1) if step < warmup else after(step - warmup)

    return LambdaLR(optimizer, factor)


#: Factor of the learning rate by the number of steps after the warm-up.
Factor = Callable[[int], float]


def _constant(hpars: dict[str, Any], total: int, remaining: int) -> Factor:
    return lambda step: 1.0


def _cosine(hpars: dict[str, Any], total: int, remaining: int) -> Factor:
    final = hpars["final_lr_ratio"]
    return lambda step: _half_cosine(min(1.0, step / max(1, remaining)), final)


def _cosine_restarts(hpars: dict[str, Any], total: int, remaining: int) -> Factor:
    def factor(step: int) -> float:
        period = hpars["period"]
        while step >= period:
            step -= period
            period *= hpars["mult"]
        return _half_cosine(step / period, hpars["final_lr_ratio"])

    return factor


def _trapezoidal(hpars: dict[str, Any], total: int, remaining: int) -> Factor:
    cooldown = max(1, round(hpars["cooldown_ratio"] * total))
    return lambda step: min(1.0, max(0, remaining - step) / cooldown)


def _half_cosine(progress: float, final: float) -> float:
    """Fall from 1 to ``final`` while ``progress`` rises from 0 to 1."""
    return final + (1 - final) * 0.5 * (1 + math.cos(math.pi * progress))


_FACTORS: dict[str | None, Callable[[dict[str, Any], int, int], Factor]] = {
    None: _constant,
    "cosine": _cosine,
    "cosine_restarts": _cosine_restarts,
    "trapezoidal": _trapezoidal,
}
