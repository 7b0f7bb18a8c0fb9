"""Error estimates after the fact [TYUC2019, 6.4-6.5]."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from scipy.special import stdtrit  # scipy.stats has it, too, and takes a second to import
from torch import Tensor

from .adapters import adapt, computing_in
from .errors import InputError
from .results import Eigh, Ssvd
from .utils import gaussian_noise


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

    def intervals(self, level: float) -> tuple[tuple[float, float], ...]:
        """Return the :func:`confidence_interval` of each norm; needs two random vectors."""
        num = len(self.diff_sq)
        return tuple(
            confidence_interval(mean, error, num, level)
            for mean, error in zip(self.means, self.standard_errors, strict=True)
        )

    @property
    def standard_errors(self) -> tuple[float, float, float]:
        """Standard errors of the means (NaN for a single vector)."""
        n = len(self.diff_sq)
        if n < 2:
            return (math.nan,) * 3
        return tuple(  # type: ignore[return-value]
            float(x.std() / n**0.5) for x in (self.frob1_sq, self.frob2_sq, self.diff_sq)
        )


def eigenvalues_to_compare(found: Tensor, exact: Tensor) -> Tensor:
    """Return the exact eigenvalue of each one that was found: that of the same rank in its sign.

    By magnitude alone, ``x`` may stand where ``-x`` should, and the error of a perfect recovery
    would be ``2 |x|``. Values of a sign that the operator has fewer of are compared with zero.

    Args:
        found: By descending magnitude, ``[n]``.
        exact: All exact eigenvalues, in any order, ``[D]``.

    Returns:
        ``[n]``, in the dtype of ``exact``.

    Example:
        >>> import torch
        >>> from skerch.a_posteriori import eigenvalues_to_compare
        >>> found, exact = torch.tensor([-2.9, 2.8]), torch.tensor([3.0, 1.0, -3.0])
        >>> eigenvalues_to_compare(found, exact)
        tensor([-3.,  3.])
    """
    result = exact.new_zeros(len(found))
    for sign in (1, -1):
        places = (found * sign > 0).nonzero()[:, 0]
        values = sign * (exact[exact * sign > 0] * sign).sort(descending=True).values[: len(places)]
        result[places[: len(values)]] = values
    return result


def gaussian_test_vectors(
    dim: int, num: int, seed: int, dtype: torch.dtype, device: torch.device | str = "cpu"
) -> Tensor:
    """Return ``[dim, num]`` Gaussian vectors; vector ``j`` depends on ``seed + j`` alone.

    Example:
        >>> import torch
        >>> from skerch.a_posteriori import gaussian_test_vectors
        >>> gaussian_test_vectors(5, 2, seed=0, dtype=torch.float32).shape
        torch.Size([5, 2])
    """
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
    dtype: torch.dtype | None = None,
    device: torch.device | str | None = None,
) -> APosterioriError:
    """Estimate ``||A||_F^2``, ``||B||_F^2`` and ``||A - B||_F^2`` from products alone.

    Uses ``E ||A g||^2 = ||A||_F^2`` for standard normal ``g`` [TYUC2019, 6.4]. Cost: ``num``
    products with each operator.

    Args:
        A: An operator, whatever :func:`skerch.as_linop` takes.
        B: Another one, of the same shape and dtype; a result of a decomposition for one.
        num: Random vectors.
        seed: Of the first one.
        dtype: In which both compute; default what ``A`` says.
        device: Where both compute; default where ``A`` says, or the CPU.

    Raises:
        InputError: If the operators differ in shape or dtype.

    Example:
        >>> import torch
        >>> from skerch import seigh
        >>> from skerch.a_posteriori import a_posteriori_error
        >>> H = torch.diag(0.5 ** torch.arange(20.0, dtype=torch.float64))
        >>> estimate = a_posteriori_error(H, seigh(H, 10), num=30, seed=1)
        >>> norm_sq, _, error_sq = estimate.means
        >>> error_sq < 1e-4 * norm_sq
        True
    """
    left, dtype, device = computing_in(A, dtype, device)
    right = adapt(B, dtype=dtype)
    if left.shape != right.shape:
        raise InputError(f"operators differ in shape: {left.shape} and {right.shape}")
    G = gaussian_test_vectors(left.shape[1], num, seed, dtype, device)
    AG, BG = left @ G, right @ G
    return APosterioriError(AG.square().sum(0), BG.square().sum(0), (AG - BG).square().sum(0))


def residual_norms(op: Any, result: Eigh | Ssvd, k: int | None = None) -> Tensor:
    """Return ``||H v - s v||`` of eigenpairs, or what corresponds to it of singular triplets.

    For symmetric ``H`` an eigenvalue lies within this distance of ``s`` [Parlett, The symmetric
    eigenvalue problem, 4.5]. For triplets it is ``(||A v - s u||^2 + ||A^T u - s v||^2)^(1/2)``.

    Cost: ``k`` products with the operator; for triplets as many from the left.

    Args:
        op: The operator, whatever :func:`skerch.as_linop` takes.
        result: Its decomposition.
        k: For the first ``k`` pairs; default all.

    Returns:
        ``[k]``, float64.

    Raises:
        InputError: If operator and decomposition differ in shape, or there are fewer pairs.

    Example:
        >>> import torch
        >>> from skerch import seigh
        >>> from skerch.a_posteriori import residual_norms
        >>> H = torch.diag(torch.tensor([5.0, -3.0] + [0.0] * 18, dtype=torch.float64))
        >>> bool((residual_norms(H, seigh(H, 2, 4)) < 1e-12).all())
        True
    """
    A, dtype, _ = computing_in(op, None, result.device)
    if A.shape != result.shape:
        raise InputError(f"the operator has shape {A.shape}, its decomposition {result.shape}")
    part = result if k is None else result.truncated(k)
    S = part.S
    if isinstance(part, Eigh):
        V = part.vectors()
        return _column_norms((A @ V.to(dtype)).to(V) - V * S)
    U, V = part.left_vectors(), part.right_vectors()
    right = _column_norms((A @ V.to(dtype)).to(U) - U * S)
    left = _column_norms((U.T.to(dtype) @ A).to(V).T - V * S)
    return (left.square() + right.square()).sqrt()


def _column_norms(X: Tensor) -> Tensor:
    norms: Tensor = torch.linalg.vector_norm(X, dim=0)
    return norms


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

    Example:
        >>> import torch
        >>> from skerch import hmt
        >>> from skerch.a_posteriori import gaussian_test_vectors, truncation_errors
        >>> H = torch.diag(torch.tensor([2.0, 1.0, 0.0, 0.0], dtype=torch.float64))
        >>> G = gaussian_test_vectors(4, 3, seed=0, dtype=torch.float64)
        >>> errors = truncation_errors(hmt(H, 2), G, H @ G, ranks=[1, 2])
        >>> float(errors[2].diff_sq.max()) < 1e-12 < float(errors[1].diff_sq.max())
        True
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

    Example:
        >>> from skerch.a_posteriori import a_posteriori_error_bounds
        >>> bounds = a_posteriori_error_bounds(num=30, error=0.5)
        >>> {name: round(p, 3) for name, p in bounds.items()}
        {'P(err<=0.5x)': 0.055, 'P(err>=1.5x)': 0.242}
    """
    if num < 1:
        raise InputError(f"number of measurements must be at least 1, got {num}")
    if not 0 < error <= 1:
        raise InputError(f"error must lie in (0, 1], got {error}")
    beta = 1.0 if complex_data else 0.5
    low = 0.0 if error == 1 else math.exp(beta * num * (math.log(1 - error) + error))
    high = math.exp(beta * num * (math.log(1 + error) - error))
    return {f"P(err<={1 - error:g}x)": low, f"P(err>={1 + error:g}x)": high}


def confidence_interval(
    mean: float, standard_error: float, num: int, level: float
) -> tuple[float, float]:
    """Return the interval in which the mean of positive numbers lies, from ``num >= 2`` of them.

    By Student's t for the logarithm of the mean (delta method): sums of squares are skewed, and an
    interval that is symmetric about them would reach below zero.

    Example:
        >>> from skerch.a_posteriori import confidence_interval
        >>> low, high = confidence_interval(mean=2.0, standard_error=0.1, num=30, level=0.95)
        >>> round(low, 2), round(high, 2)
        (1.81, 2.22)
    """
    if num < 2:
        raise InputError(f"an interval needs at least 2 estimates, got {num}")
    if not 0 < level < 1:
        raise InputError(f"expected a level between 0 and 1, got {level}")
    if mean <= 0:
        return 0.0, 0.0
    width = float(stdtrit(num - 1, (1 + level) / 2)) * standard_error / mean
    return mean * math.exp(-width), mean * math.exp(width) if width < 700 else math.inf


def scree_bounds(
    S: Tensor, frob_sq: float | tuple[float, float], error_sq: float | tuple[float, float]
) -> tuple[Tensor, Tensor]:
    """Bound the share of energy that is left beyond each rank [TYUC2019, 6.5].

    Args:
        S: Approximate eigen- or singular values by descending magnitude, shape ``[k]``.
        frob_sq: ``||A||_F^2``, or an interval that holds it (see :func:`confidence_interval`):
            bounds by the mean of few estimates alone miss the truth more often than not.
        error_sq: ``||A - A_k||_F^2``, or an interval.

    Returns:
        ``(lower, upper)``, both ``[k]``; entry ``i`` is for the energy of values ``i, i+1, ...``.

    Example:
        >>> import torch
        >>> from skerch.a_posteriori import scree_bounds
        >>> lower, upper = scree_bounds(torch.tensor([2.0, 1.0]), frob_sq=5.0, error_sq=0.0)
        >>> lower, upper
        (tensor([1.0000, 0.2000]), tensor([1.0000, 0.2000]))
    """
    least, most = frob_sq if isinstance(frob_sq, tuple) else (frob_sq, frob_sq)
    error = error_sq[1] if isinstance(error_sq, tuple) else error_sq
    if least <= 0:
        raise InputError(f"scree bounds need a positive squared norm, got {least}")
    if not error >= 0:
        raise InputError(f"scree bounds need a squared error of at least 0, got {error}")
    tail = S.square().flip(0).cumsum(0).flip(0)
    upper = (tail.sqrt() + error**0.5).square() / least
    return tail / most, upper.clamp_max(1) if isinstance(frob_sq, tuple) else upper
