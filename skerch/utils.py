"""Errors, reproducible noise and small numerical helpers.

Randomness is always drawn on the CPU and then moved, so that a seed names the same numbers on
every device.
"""

from __future__ import annotations

import logging
import operator
from collections.abc import Sequence
from typing import Any

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
    "numerical_rank",
    "product_round_off",
    "rademacher",
    "randperm",
    "uniform_noise",
]

log = logging.getLogger(__name__)

#: Sums over ``D`` in double precision between products and what is left of them beside a basis.
OWN_SUMS = 3


def check_seed(seed: int) -> int:
    """Return a seed as an integer.

    Raises:
        InputError: If it is none, or not of 64 bits: cut, it would be that of other numbers.

    Example:
        >>> from skerch.utils import check_seed
        >>> check_seed(12345)
        12345
    """
    try:
        number = operator.index(seed)
    except TypeError:
        raise InputError(f"seed: expected a whole number, got {seed!r}") from None
    if not -(2**63) <= number < 2**64:
        raise InputError(f"seed: expected a number of 64 bits, got {number}")
    return number


def _generator(seed: int) -> torch.Generator:
    return torch.Generator(device="cpu").manual_seed(check_seed(seed))


def uniform_noise(
    shape: int | Sequence[int],
    seed: int,
    dtype: torch.dtype = torch.float64,
    device: torch.device | str = "cpu",
) -> Tensor:
    """Draw i.i.d. samples of the uniform distribution on ``[0, 1)``.

    Example:
        >>> from skerch.utils import uniform_noise
        >>> bool((uniform_noise(100, seed=0) < 1).all())
        True
    """
    size = (shape,) if isinstance(shape, int) else tuple(shape)
    return torch.rand(size, generator=_generator(seed), dtype=dtype, device="cpu").to(device)


def gaussian_noise(
    shape: int | Sequence[int],
    seed: int,
    mean: float = 0.0,
    std: float = 1.0,
    dtype: torch.dtype = torch.float64,
    device: torch.device | str = "cpu",
) -> Tensor:
    """Draw i.i.d. samples of the normal distribution with given ``mean`` and ``std``.

    Example:
        >>> from skerch.utils import gaussian_noise
        >>> gaussian_noise((2, 3), seed=0).shape
        torch.Size([2, 3])
    """
    size = (shape,) if isinstance(shape, int) else tuple(shape)
    noise = torch.randn(size, generator=_generator(seed), dtype=dtype, device="cpu")
    return noise.mul_(std).add_(mean).to(device)


def randperm(
    n: int, seed: int, device: torch.device | str = "cpu", inverse: bool = False
) -> Tensor:
    """Return a random permutation of ``0 ... n-1`` (``int64``), or the inverse of it.

    Example:
        >>> from skerch.utils import randperm
        >>> randperm(5, seed=0)[randperm(5, seed=0, inverse=True)].tolist()
        [0, 1, 2, 3, 4]
    """
    permutation = torch.randperm(n, generator=_generator(seed), device="cpu")
    return (permutation.argsort() if inverse else permutation).to(device)


def rademacher(
    shape: int | Sequence[int],
    seed: int,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
) -> Tensor:
    """Draw i.i.d. random signs (``-1`` or ``+1``).

    Example:
        >>> from skerch.utils import rademacher
        >>> rademacher(4, seed=0).abs()
        tensor([1., 1., 1., 1.])
    """
    uniform = uniform_noise(shape, seed, dtype=torch.float32)
    return ((uniform > 0.5).to(dtype) * 2 - 1).to(device)


def same_memory(values: Any) -> Tensor:
    """Return an array as a tensor on the CPU, whatever the default device; a tensor as it is.

    Example:
        >>> import numpy as np
        >>> from skerch.utils import same_memory
        >>> same_memory(np.arange(3.0))
        tensor([0., 1., 2.], dtype=torch.float64)
    """
    return values if isinstance(values, Tensor) else torch.from_numpy(values)


def check_finite(values: Tensor, what: str) -> None:
    """Raise :class:`NumericalError` if ``values`` has a NaN or an infinity."""
    if not bool(torch.isfinite(values).all()):
        bad = int((~torch.isfinite(values)).sum())
        raise NumericalError(f"{what}: {bad} of {values.numel()} values are NaN or infinite")


def numerical_rank(S: Tensor, wanted: int, round_off: float) -> int:
    """Return how many of the values ``S`` are larger than round-off; warn of fewer than wanted.

    Raises:
        NumericalError: If none is.
    """
    rank = int((round_off < S.abs()).sum())
    if rank == 0:
        raise NumericalError("all eigenvalues are zero: the operator vanishes on the basis")
    if rank < wanted:
        log.warning("numerical rank %d: fewer than the %d pairs asked for", rank, wanted)
    return rank


def product_round_off(dim: int, eps: float, norm: float) -> float:
    """Return the norm below which what is left of ``H v`` may be round-off.

    It is ``sqrt(D) (eps + 3 eps_64) ||H||_2``. Rounding puts a sum of ``D`` products off by at most
    ``l sqrt(D) u`` times the sum of their magnitudes, with a probability that ``l`` decides [Higham
    and Mary 2019, "A new approach to probabilistic rounding error analysis"]; with ``u = eps / 2``,
    ``l`` is 2. The product is one such sum, in the dtype of the operator. Three more are ours, in
    double precision: the inner products with the basis, their combination, and the triangular
    factor. Beside single precision they are nothing; in double precision all four are alike, and
    one alone had no margin: ``sqrt(D) eps ||H||`` was reached to 86 % on one processor and passed
    on another. Kernels differ in the order of their sums, and stay below.

    Args:
        dim: ``D``.
        eps: Machine epsilon of the dtype of the products.
        norm: ``||H||_2``, or what is known of it.

    Example:
        >>> from skerch.utils import product_round_off
        >>> product_round_off(dim=10_000, eps=1e-7, norm=2.0) < 3e-5
        True
    """
    return float(dim**0.5 * (eps + OWN_SUMS * torch.finfo(torch.float64).eps) * norm)
