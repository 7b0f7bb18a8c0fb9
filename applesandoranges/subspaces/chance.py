"""What the overlap is by chance: of a random mask with given vectors, of a random subspace."""

from __future__ import annotations

import torch
from torch import Tensor


def chance_level(k: Tensor | int, dim: int) -> Tensor:
    """Return the mean overlap ``k / D`` of a random ``k``-dimensional subspace with a mask."""
    return torch.as_tensor(k, dtype=torch.float64) / dim


def chance_variance(k: Tensor | int, dim: int) -> Tensor:
    """Return the variance ``2 (D-k)^2 / (D^2 (D-1) (D+2))`` of that overlap."""
    # All in float64: D^4 is no 64-bit integer from D = 65,536 on.
    k, D = torch.as_tensor(k, dtype=torch.float64), torch.tensor(dim, dtype=torch.float64)
    return 2 * ((D - k) / D).square() / ((D - 1) * (D + 2))


def random_mask_variance(k: Tensor, dim: int, sum_of_squares: Tensor) -> Tensor:
    """Return the variance of the overlap of given subspaces with uniformly random masks, ``[n]``.

    The overlap of ``V_k`` (``[D, k]``, orthonormal) with a mask of ``k`` of ``D`` coordinates is
    the mean of ``k`` leverage scores ``l_r = ||V_k[r]||^2``, drawn without replacement; their mean
    is ``k / D`` (:func:`chance_level`), and so the variance is
    ``(D - k) / (D - 1) * (mean l^2 - (k/D)^2) / k`` [Cochran, Sampling Techniques, 1977, theorem
    2.2]. It is that of :func:`chance_variance` on average over Haar subspaces, and much larger
    where the vectors are localised.

    Args:
        k: Ranks, ``[n]``.
        dim: ``D``.
        sum_of_squares: ``sum_r l_r^2`` of each rank, ``[n]`` float64.
    """
    k = k.to(sum_of_squares)
    variance = (sum_of_squares / dim - (k / dim).square()).clamp_min(0)
    return (dim - k) / (dim - 1) * variance / k
