"""Exact eigendecompositions of small Hessians, and how far a sketched one is from them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from humanfriendly import format_size
from scipy.linalg import eigh_tridiagonal, eigvalsh_tridiagonal, lapack, subspace_angles
from torch import Tensor

from skerch.a_posteriori import eigenvalues_to_compare
from skerch.core.row_blocks import RowBlocks
from skerch.errors import InputError, NumericalError
from skerch.results import Eigh
from skerch.utils import check_finite

from ..app.screen import Bar
from .overlap import truncation_ranks


def dense_matrix(operator: Any, batch_size: int, device: torch.device | str = "cpu") -> Tensor:
    """Return a symmetric operator as a matrix ``[D, D]``, float64, symmetrised.

    Cost: ``D`` products, ``batch_size`` at a time, in float32.
    """
    D = operator.shape[0]
    H = torch.empty(D, D, dtype=torch.float32)
    with Bar("exact Hessian", "column", D) as bar:
        for begin in range(0, D, batch_size):
            size = min(batch_size, D - begin)
            E = torch.zeros(D, size, device=device)
            E[torch.arange(begin, begin + size), torch.arange(size)] = 1
            H[:, begin : begin + size] = (operator @ E).cpu()
            bar.advance(size)
    check_finite(H, "exact Hessian")
    dense = H.double()
    return dense.add_(H.T).mul_(0.5)


@dataclass(frozen=True)
class ExactEigh:
    """Exact eigendecomposition of a dense matrix, by descending magnitude.

    Attributes:
        H: The matrix, ``[D, D]`` float64.
        S: All eigenvalues, ``[D]``.
        V: The first ``k`` eigenvectors, ``[D, k]``.
    """

    H: Tensor
    S: Tensor
    V: Tensor

    def of_same_sign(self, S: Tensor) -> Tensor:
        """Return the exact value of each eigenvalue ``S`` (``[n]``) that was found."""
        return eigenvalues_to_compare(S, self.S)

    def as_eigh(self) -> Eigh:
        """Return the first ``k`` pairs as the kind of object that a sketch gives."""
        eye = torch.eye(self.V.shape[1], dtype=torch.float64)
        return Eigh(self.S[: len(eye)], eye, RowBlocks(self.V), eye)


def exact_eigh(H: Tensor, k: int) -> ExactEigh:
    """Decompose ``H`` (``[D, D]``, symmetric, float64) and compute the first ``k`` eigenvectors.

    Through a tridiagonal matrix, all of whose eigenvalues are cheap: the leading eigenvectors lie
    at both ends of the spectrum, and LAPACK's drivers compute either one end or all of them.
    """
    A, D = H.numpy(), len(H)
    work, _ = lapack.dsytrd_lwork(D, lower=1)
    reflectors, diagonal, off_diagonal, tau, info = lapack.dsytrd(A, lower=1, lwork=int(work))
    _check_lapack("dsytrd", info)
    S = torch.from_numpy(eigvalsh_tridiagonal(diagonal, off_diagonal))
    order = S.abs().argsort(descending=True, stable=True)
    num_low = int((S[order[:k]] < 0).sum())
    ends = [(0, num_low - 1), (D - (k - num_low), D - 1)]
    values, vectors = zip(
        *(
            eigh_tridiagonal(diagonal, off_diagonal, select="i", select_range=(first, last))
            for first, last in ends
            if first <= last
        ),
        strict=True,
    )
    U = np.asfortranarray(np.concatenate(vectors, axis=1))
    # Q = diag(1, Q'), with Q' from the reflectors below the diagonal.
    below, _, info = lapack.dormqr(
        "L", "N", reflectors[1:, : D - 1], tau, U[1:], lwork=64 * U.shape[1]
    )
    _check_lapack("dormqr", info)
    U[1:] = below
    by_magnitude = (
        torch.from_numpy(np.concatenate(values)).abs().argsort(descending=True, stable=True)
    )
    return ExactEigh(H, S[order], torch.from_numpy(U)[:, by_magnitude])


def _check_lapack(routine: str, info: int) -> None:
    if info != 0:
        raise NumericalError(f"{routine} of LAPACK failed with info = {info}")


def check_exact_memory(dim: int, budget: int) -> None:
    """Raise :class:`InputError` if an exact decomposition does not fit into ``budget`` bytes."""
    needed = 28 * dim**2  # float32 columns, the matrix, its eigenvectors and LAPACK's work space
    if needed > budget:
        raise InputError(
            f"the exact Hessian of {dim} parameters needs {format_size(needed)}, the memory budget "
            f"is {format_size(budget)}; use a smaller problem or raise MEMORY_BUDGET_GB"
        )


def frobenius_errors(exact: ExactEigh, eigh: Eigh) -> tuple[Tensor, Tensor]:
    """Return ``||H - H_k||_F / ||H||_F`` for all truncations of ``eigh``, and the best possible.

    Both ``[n]`` for ``k = 1 ... n``, from
    ``||H - U S U^T||^2 = ||H||^2 - 2 sum_i s_i (u_i^T H u_i) + sum_i s_i^2``.
    """
    U, S = eigh.vectors().cpu(), eigh.S.cpu()
    total = exact.S.square().sum()
    gain = (2 * S * (U * (exact.H @ U)).sum(0) - S.square()).cumsum(0)
    best = (total - exact.S.square().cumsum(0)).clamp_min(0)[: len(S)]
    return ((total - gain).clamp_min(0) / total).sqrt(), (best / total).sqrt()


def exact_results(exact: ExactEigh, sketch: Eigh) -> Iterator[dict[str, Any]]:
    """Yield how far the first pairs of ``sketch`` are from the exact ones.

    Eigenvalues are compared with those of the same rank among the ones of their sign. Eigenvector
    errors are ``||v_i -+ u_i||`` with the better sign; where eigenvalues lie close together they
    say little, and the principal angles of the top-``K`` subspaces (radians, descending) are what
    to look at. Frobenius errors are relative to ``||H||_F``.
    """
    n = len(sketch.S)
    U = sketch.vectors().cpu()
    yield {"H_eigvals": exact.S}
    cosines = (exact.V[:, :n] * U).sum(0).abs().clamp(max=1)
    yield {"eigval_errors": (sketch.S.cpu() - exact.of_same_sign(sketch.S.cpu())).abs()}
    yield {"eigvec_resnorm": (2 - 2 * cosines).sqrt()}
    found, best = frobenius_errors(exact, sketch)
    for k in truncation_ranks(n):
        angles = subspace_angles(exact.V[:, :k].numpy(), U[:, :k].numpy())
        yield {
            "K": k,
            "principal_angles": angles,
            "subspace_alignment": float(np.mean(np.cos(angles) ** 2)),
            "rel_frob_error": float(found[k - 1]),
            "best_rel_frob_error": float(best[k - 1]),
        }
