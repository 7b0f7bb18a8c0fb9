"""Errors, reproducible noise and small numerical helpers.

Randomness is always drawn on the CPU and then moved, so that a seed names the same numbers on
every device.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from .errors import InputError, NumericalError, SkerchError, StoreError

__all__ = [
    "InputError",
    "NumericalError",
    "SkerchError",
    "StoreError",
    "check_finite",
    "gaussian_noise",
    "product_round_off",
    "rademacher",
    "randperm",
    "uniform_noise",
]


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


def product_round_off(dim: int, eps: float, norm: float) -> float:
    """Return the norm below which a part of ``H v`` may be round-off: ``sqrt(D) eps ||H||_2``.

    Rounding puts a sum of ``D`` products off by at most ``l sqrt(D) u`` times the sum of their
    magnitudes, with a probability that ``l`` decides [Higham and Mary 2019, "A new approach to
    probabilistic rounding error analysis"]. With ``u = eps / 2`` this is ``l = 2``. Kernels differ
    in the order of their sums, and stay below.

    Args:
        dim: ``D``.
        eps: Machine epsilon of the dtype of the products.
        norm: ``||H||_2``, or what is known of it.
    """
    return dim**0.5 * eps * norm
