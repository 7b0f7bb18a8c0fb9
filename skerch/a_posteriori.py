"""Error estimates after the fact [TYUC2019, 6.4-6.5]."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from .errors import InputError
from .utils import gaussian_noise

if TYPE_CHECKING:
    from .results import Eigh


@dataclass(frozen=True)
class APosterioriError:
    """Squared Frobenius norms estimated from ``n`` Gaussian products; all tensors ``[n]``.

    Attributes:
        frob1_sq: One estimate of ``||A||_F^2`` per random vector.
        frob2_sq: One estimate of ``||B||_F^2`` per random vector.
        diff_sq: One estimate of ``||A - B||_F^2`` per random vector.
    """

    frob1_sq: Tensor
    frob2_sq: Tensor
    diff_sq: Tensor

    def joined(self, other: APosterioriError) -> APosterioriError:
        """Return the estimates of both, as from all of their random vectors."""
        return APosterioriError(
            torch.cat([self.frob1_sq, other.frob1_sq]),
            torch.cat([self.frob2_sq, other.frob2_sq]),
            torch.cat([self.diff_sq, other.diff_sq]),
        )

    @property
    def means(self) -> tuple[float, float, float]:
        """Means over the random vectors: ``(||A||^2, ||B||^2, ||A - B||^2)``."""
        return tuple(float(x.mean()) for x in (self.frob1_sq, self.frob2_sq, self.diff_sq))  # type: ignore[return-value]

    @property
    def standard_errors(self) -> tuple[float, float, float]:
        """Standard errors of the means (NaN for a single vector)."""
        n = len(self.diff_sq)
        return tuple(  # type: ignore[return-value]
            float(x.std() / n**0.5) for x in (self.frob1_sq, self.frob2_sq, self.diff_sq)
        )


def gaussian_test_vectors(
    dim: int, num: int, seed: int, dtype: torch.dtype, device: torch.device | str = "cpu"
) -> Tensor:
    """Return ``[dim, num]`` Gaussian vectors; vector ``j`` depends on ``seed + j`` alone."""
    if num < 1:
        raise InputError(f"a-posteriori estimates need at least one vector, got {num}")
    rows = torch.empty(num, dim, dtype=dtype, device=device)
    for j in range(num):
        rows[j] = gaussian_noise(dim, seed + j, dtype=dtype)
    return rows.T


def a_posteriori_error(
    A: Any,
    B: Any,
    num: int,
    seed: int,
    dtype: torch.dtype = torch.float64,
    device: torch.device | str = "cpu",
) -> APosterioriError:
    """Estimate ``||A||_F^2``, ``||B||_F^2`` and ``||A - B||_F^2`` from products alone.

    Uses ``E ||A g||^2 = ||A||_F^2`` for standard normal ``g`` [TYUC2019, 6.4]. Cost: ``num``
    products with each operator.
    """
    if tuple(A.shape) != tuple(B.shape):
        raise InputError(f"operators differ in shape: {tuple(A.shape)} and {tuple(B.shape)}")
    G = gaussian_test_vectors(A.shape[1], num, seed, dtype, device)
    AG, BG = A @ G, B @ G
    return APosterioriError(AG.square().sum(0), BG.square().sum(0), (AG - BG).square().sum(0))


def truncation_errors(
    eigh: Eigh, G: Tensor, AG: Tensor, ranks: Sequence[int]
) -> dict[int, APosterioriError]:
    """Estimate the error of several truncations of an eigendecomposition at once.

    Eigenvectors are orthonormal, so ``||A_k g||`` and ``<A g, A_k g>`` need ``V^T g`` and
    ``V^T A g`` only: one pass over the measurements serves every rank, and no product at all.

    Args:
        eigh: The approximation, of rank ``r``.
        G: Gaussian test vectors ``[D, n]``.
        AG: The operator's products with them, ``[D, n]``.
        ranks: Truncation ranks in ``[1, r]``.

    Raises:
        InputError: If a rank lies elsewhere.
    """
    if wrong := [k for k in ranks if not 1 <= k <= len(eigh.S)]:
        raise InputError(f"truncation ranks must lie in [1, {len(eigh.S)}], got {wrong}")
    num = G.shape[1]
    projected = eigh.project(G, AG)
    AkG = eigh.S[:, None] * projected[:, :num]  # in the basis of the eigenvectors
    cross = (AkG * projected[:, num:]).cumsum(0)
    approx_sq = AkG.square().cumsum(0)
    # Column by column: a copy of all in double precision may be too large.
    AG_sq = torch.stack([column.double().square().sum() for column in AG.T]).to(approx_sq)
    return {
        k: APosterioriError(
            AG_sq,
            approx_sq[k - 1],
            (AG_sq - 2 * cross[k - 1] + approx_sq[k - 1]).clamp_min(0),
        )
        for k in ranks
    }


def a_posteriori_error_bounds(
    num: int, error: float, complex_data: bool = False
) -> dict[str, float]:
    """Bound the probability that an a-posteriori estimate is off by a factor [TYUC2019, 6.4].

    Args:
        num: Number of Gaussian vectors.
        error: Relative deviation in ``(0, 1]``.
        complex_data: Complex test vectors carry twice the information.

    Returns:
        Two probabilities, with keys such as ``"P(err<=0.5x)"`` and ``"P(err>=1.5x)"``.
    """
    if num < 1:
        raise InputError(f"number of measurements must be at least 1, got {num}")
    if not 0 < error <= 1:
        raise InputError(f"error must lie in (0, 1], got {error}")
    beta = 1.0 if complex_data else 0.5
    low = 0.0 if error == 1 else math.exp(beta * num * (math.log(1 - error) + error))
    high = math.exp(beta * num * (math.log(1 + error) - error))
    return {f"P(err<={1 - error:g}x)": low, f"P(err>={1 + error:g}x)": high}


def scree_bounds(S: Tensor, frob_sq: float, error_sq: float) -> tuple[Tensor, Tensor]:
    """Bound the share of energy that is left beyond each rank [TYUC2019, 6.5].

    Args:
        S: Approximate eigen- or singular values by descending magnitude, shape ``[k]``.
        frob_sq: (Estimate of) ``||A||_F^2``.
        error_sq: (Estimate of) ``||A - A_k||_F^2``.

    Returns:
        ``(lower, upper)``, both ``[k]``; entry ``i`` is for the energy of values ``i, i+1, ...``.
    """
    if frob_sq <= 0:
        raise InputError(f"scree bounds need a positive squared norm, got {frob_sq}")
    tail = S.square().flip(0).cumsum(0).flip(0)
    return tail / frob_sq, (tail.sqrt() + error_sq**0.5).square() / frob_sq
