"""What the overlap of a random subspace with a mask is."""

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
