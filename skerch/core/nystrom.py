"""Damped Nystrom approximation of symmetric operators, definite or not, from one pass.

``H ~ Y B_r^+ Y^T`` with ``Y = H Psi^T`` (``[D, n]``), an SSRFT ``Psi``, and ``B = Psi Y`` of which
the ``r`` eigenvalues of largest magnitude are inverted, and the others less and less [NP2023, where
they are cut off]. Every product is kept, and there is no other test matrix. ``Y`` is read by blocks
of rows and of columns, as in :mod:`skerch.core.sketch`; its orthonormal basis is never stored.

**Why damp, and where.** Of a positive semi-definite operator all of ``B`` is inverted: its small
eigenvalues belong to small ones of ``H`` [TYUC2017]. Where both signs are there, positive and
negative parts of ``H`` cancel in ``B``. Eigenvalues of ``B`` become small that way while their
columns of ``Y`` are not, and inverting them makes large errors of them. So ``1 / s`` becomes ``s^3
/ (s^4 + d^4)`` with the first eigenvalue ``d`` beyond the ``r`` of them, a Butterworth filter.
Tikhonov's ``s / (s^2 + d^2)`` makes errors smaller by another 2 %, and eigenvalues too small by
several; ``python -m benchmarks one_pass`` compares both with a cut. Which ``r`` is decided by the
products themselves: with a part of them held out, an approximation ``H_r`` from the others is
judged by ``||(H - H_r) Psi_out^T||_F``. Up to a factor this estimates ``||H - H_r||_F``, as what is
held out is random, and unknown to ``H_r``. It takes no product and no pass over ``Y``, of which it
needs the small triangular factor alone.

[NP2023] Nakatsukasa and Park, Randomized low-rank approximation for symmetric indefinite matrices,
arXiv 2212.01127. [TYUC2017] Tropp, Yurtsever, Udell and Cevher, arXiv 1706.05736.
"""

from __future__ import annotations

import math

import torch
from humanfriendly import format_size
from torch import Tensor

from ..errors import InputError, NumericalError
from ..operands import check_scale
from ..results import Eigh
from ..ssrft import SSRFT
from ..symmetry import relative_asymmetry, warn_if_asymmetric
from ..utils import check_finite, numerical_rank, product_round_off
from .orthogonal import orthogonalize
from .row_blocks import RowBlocks
from .sketch import apply_ssrft_to_columns, least_budget_of_transforms

#: Parts of the products, each of which is held out once.
FOLDS = 4
#: Ranks of the core that are compared.
CANDIDATES = 24
#: The largest rank of which what was held out is at most so much worse than of the best one is
#: taken: errors hardly depend on it there, and damping makes eigenvalues smaller.
AS_GOOD = 1.01
#: A core of one sign is inverted as a whole, unless that makes what was held out so much worse:
#: the operator may have both signs, even if the core does not show them.
MAX_LOSS = 2.0
#: Share of the eigenvalues of the core that is kept at most against what was held out, whatever
#: rank is wanted: with hardly more products than pairs, some are made of cancellation alone.
LEAST_KEPT = 2 / 3

#: Matrices ``[n, n]`` in float64 that are held at once.
CORE_COPIES = 12


def core_bytes(num: int) -> int:
    """Return the bytes that everything small takes, of so many products."""
    return 8 * CORE_COPIES * num**2


def budget_beside_core(budget: int, num: int) -> int:
    """Return what a memory budget leaves for row blocks beside the core of ``num`` products.

    Raises:
        InputError: If nothing is left; the line says what is needed and what would fit.
    """
    needed = core_bytes(num)
    if needed >= budget:
        fitting = int((budget / (8 * CORE_COPIES)) ** 0.5)
        raise InputError(
            f"the core of {num} products needs {format_size(needed)}, the memory budget is "
            f"{format_size(budget)}; about {fitting} products would fit"
        )
    return budget - needed


def least_nystrom_budget(dim: int, num: int, dtype: torch.dtype, *, on_disk: bool) -> int:
    """Return the least budget for ``num`` products, which are not counted if they are in memory."""
    return core_bytes(num) + least_budget_of_transforms((dim, num), dtype, on_disk=on_disk)


def solve_nystrom(Y: RowBlocks, Psi: SSRFT, rank: int) -> Eigh:
    """Recover eigenpairs of a symmetric operator from one pass.

    Args:
        Y: Products ``H Psi^T``, ``[D, n]``.
        Psi: The SSRFT that the operator was multiplied with, ``[n, D]``.
        rank: Pairs that are wanted, at most ``n``.

    Cost: no product with the operator; ``n`` transforms, and one pass over ``Y`` by rows; about
    ``30 n^3`` operations for each of :data:`FOLDS` parts.

    Returns:
        Up to ``rank`` pairs without residual norms, which one pass does not tell. There are fewer
        if the others are round-off of the products, or of less than 1.5 products for each pair.
        In the diagnostics: ``core_rank`` is ``r``, beyond which eigenvalues of the core are
        damped, ``semi_definite`` says whether the core shows
        both signs, and ``held_out_error`` is the estimated relative error in Frobenius norm of the
        approximation before it was cut to ``rank``, from three quarters of the products.

    Raises:
        InputError: If shapes do not fit.
        NumericalError: If the products are zero, not finite, or at the limits of their dtype.
    """
    D, n = Y.shape
    if tuple(Psi.shape) != (n, D) or not 1 <= rank <= n:
        raise InputError(
            f"expected Y [D, n], Psi [n, D] and 1 <= rank <= n, got {Y.shape}, {Psi.shape} and "
            f"rank {rank}"
        )
    B = apply_ssrft_to_columns(Psi, Y)
    check_finite(B, "products")
    check_scale(float(B.abs().max()), Y.eps, "products")
    if not bool(B.any()):
        raise NumericalError("the products are all zero: the operator has no range")
    factor = orthogonalize(Y, B)
    norm = float(torch.linalg.matrix_norm(factor.R, 2))
    core = _Core(factor.R, B, product_round_off(D, Y.eps, norm))
    kept, error = core.choose(rank, whole=n == D)
    warn_if_asymmetric(core.asymmetry)
    S, U, amplification = core.eigh(kept)
    S = S[:kept]  # the others are damped
    found = numerical_rank(S, rank, amplification * Y.eps * norm)
    k = min(rank, found)
    diagnostics: dict[str, float | str] = {
        "core_asymmetry": core.asymmetry,
        "core_rank": kept,
        "semi_definite": "yes" if core.is_definite else "no",
        "held_out_error": error,
        "numerical_rank": found,
        "qr_method": factor.method,
        "qr_condition": factor.condition,
    }
    return Eigh(S[:k], U[:, :k], Y, factor.T, diagnostics, num_products=n)


class _Core:
    """Everything small: ``Y = Q R``, and ``B = Psi Y``.

    Args:
        R: ``[q, n]``.
        B: ``[n, n]``, symmetric up to round-off.
        round_off: Norm below which a part of ``B`` may be round-off.
    """

    def __init__(self, R: Tensor, B: Tensor, round_off: float):
        self.R, self.B, self.round_off = R, (B + B.T) / 2, round_off
        self.asymmetry = relative_asymmetry(B)
        self.values, self.vectors = _by_magnitude(self.B)
        self.significant = int((round_off < self.values.abs()).sum())

    @property
    def is_definite(self) -> bool:
        """Whether all eigenvalues have one sign, up to round-off."""
        signs = self.values[: self.significant].sign()
        return bool((signs == signs[0]).all())

    def choose(self, rank: int, whole: bool) -> tuple[int, float]:
        """Return how many eigenvalues of ``B`` are not damped, and the error of what was held out.

        Args:
            rank: Pairs that are wanted.
            whole: Whether ``B`` is the whole operator in another basis: nothing cancels in it.

        Raises:
            NumericalError: If all of them are round-off.
        """
        n, most = len(self.B), self.significant
        if most == 0:
            raise NumericalError("all eigenvalues are zero: the operator vanishes on the basis")
        least = min(rank, math.ceil(LEAST_KEPT * n), most)
        shares = torch.linspace(least / n, most / n, CANDIDATES, dtype=torch.float64, device="cpu")
        errors = self._held_out(shares.tolist())
        best = int((errors <= AS_GOOD * errors.min()).nonzero().max())
        if whole or (self.is_definite and errors[-1] <= MAX_LOSS * errors[best]):
            best = CANDIDATES - 1
        return min(most, max(least, round(n * float(shares[best])))), float(errors[best])

    def _held_out(self, shares: list[float]) -> Tensor:
        """Return ``||(H - H_r) X|| / ||H X||`` over all parts ``X`` of the products.

        Args:
            shares: ``r`` as shares of the products that are not held out, ascending.
        """
        n = len(self.B)
        squares = torch.zeros(len(shares), dtype=torch.float64, device="cpu")
        part = torch.arange(n, device=self.B.device) % min(FOLDS, n)
        for number in range(min(FOLDS, n)):
            kept, out = part != number, part == number
            S, U = _by_magnitude(self.B[kept][:, kept])
            significant = int((self.round_off < S.abs()).sum())
            coefficients = U.T @ self.B[kept][:, out]
            basis = self.R[:, kept] @ U
            for at, share in enumerate(shares):
                inverse = _damped_inverse(S, round(share * len(S)), significant)
                left = self.R[:, out] - basis @ (inverse[:, None] * coefficients)
                squares[at] += float(left.square().sum())
        return (squares / float(self.R.square().sum())).sqrt()

    def eigh(self, r: int) -> tuple[Tensor, Tensor, float]:
        """Return eigenvalues and vectors of ``R B_r^+ R^T`` by magnitude, and ``||R B_r^+||``.

        The latter is how much of an error in the products gets into the result.
        """
        columns = self.R @ self.vectors
        solved = columns * _damped_inverse(self.values, r, self.significant)
        core = solved @ columns.T
        S, U = _by_magnitude((core + core.T) / 2)
        return S, U, float(torch.linalg.matrix_norm(solved, 2))


def _damped_inverse(S: Tensor, r: int, significant: int) -> Tensor:
    """Return ``s^3 / (s^4 + d^4)``, where ``d`` is the first beyond ``r``; 0 for what is round-off.

    Args:
        S: Eigenvalues by descending magnitude, ``[n]``.
        r: How many are not damped; all that are no round-off are inverted as they are.
        significant: How many are no round-off.
    """
    limit = float(S[r].abs()) if r < significant else 0.0
    inverse = torch.zeros_like(S)
    values = S[:significant]
    inverse[:significant] = 1 / (values * (1 + (limit / values) ** 4))
    return inverse


def _by_magnitude(matrix: Tensor) -> tuple[Tensor, Tensor]:
    S, U = torch.linalg.eigh(matrix)
    order = S.abs().argsort(descending=True, stable=True)
    return S[order], U[:, order]
