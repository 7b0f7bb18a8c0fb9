"""Errors, reproducible noise and small numerical helpers.

Randomness is always drawn on the CPU and then moved, so that a seed names the same numbers on
every device.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor


class SkerchError(Exception):
    """Base class of the errors that this package raises on purpose."""


class InputError(SkerchError, ValueError):
    """The caller asked for something impossible; nothing was changed."""


class StoreError(SkerchError, RuntimeError):
    """A measurement store is incomplete, inconsistent or damaged."""


class NumericalError(SkerchError, ArithmeticError):
    """A computation produced or received values that cannot be trusted.

    Args:
        message: What happened.
        indices: Of the measurements that are concerned, if any.
    """

    def __init__(self, message: str, indices: Sequence[int] = ()):
        super().__init__(message)
        self.indices = tuple(indices)


def _generator(seed: int) -> torch.Generator:
    return torch.Generator(device="cpu").manual_seed(int(seed))


def uniform_noise(
    shape: int | Sequence[int],
    seed: int,
    dtype: torch.dtype = torch.float64,
    device: torch.device | str = "cpu",
) -> Tensor:
    """Draw i.i.d. samples of the uniform distribution on ``[0, 1)``."""
    size = (shape,) if isinstance(shape, int) else tuple(shape)
    return torch.rand(size, generator=_generator(seed), dtype=dtype).to(device)


def gaussian_noise(
    shape: int | Sequence[int],
    seed: int,
    mean: float = 0.0,
    std: float = 1.0,
    dtype: torch.dtype = torch.float64,
    device: torch.device | str = "cpu",
) -> Tensor:
    """Draw i.i.d. samples of the normal distribution with given ``mean`` and ``std``."""
    size = (shape,) if isinstance(shape, int) else tuple(shape)
    noise = torch.randn(size, generator=_generator(seed), dtype=dtype)
    return noise.mul_(std).add_(mean).to(device)


def randperm(
    n: int, seed: int, device: torch.device | str = "cpu", inverse: bool = False
) -> Tensor:
    """Return a random permutation of ``0 ... n-1`` (``int64``), or the inverse of it."""
    permutation = torch.randperm(n, generator=_generator(seed))
    return (permutation.argsort() if inverse else permutation).to(device)


def rademacher(
    shape: int | Sequence[int],
    seed: int,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
) -> Tensor:
    """Draw i.i.d. random signs (``-1`` or ``+1``)."""
    uniform = uniform_noise(shape, seed, dtype=torch.float32)
    return ((uniform > 0.5).to(dtype) * 2 - 1).to(device)


def check_finite(values: Tensor, what: str) -> None:
    """Raise :class:`NumericalError` if ``values`` has a NaN or an infinity."""
    if not bool(torch.isfinite(values).all()):
        bad = int((~torch.isfinite(values)).sum())
        raise NumericalError(f"{what}: {bad} of {values.numel()} values are NaN or infinite")


def default_memory_budget() -> int:
    """Return a quarter of this machine's memory, in bytes."""
    import os

    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 4


def rows_within(budget: float, row_bytes: int, what: str) -> int:
    """Return how many rows of ``row_bytes`` fit into ``budget`` bytes.

    Raises:
        InputError: If not even one row fits; the line says what is needed.
    """
    rows = math.floor(budget / row_bytes)
    if rows < 1:
        raise InputError(
            f"{what}: one row needs {row_bytes} bytes, the budget left is {budget:.0f}"
        )
    return rows
