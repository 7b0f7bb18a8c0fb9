"""The core of published runs, written down as the original code computes it, densely."""

from __future__ import annotations

import numpy as np
import scipy.linalg
import torch
from torch import Tensor


def published_core(
    Y: Tensor, W: Tensor, Phi: Tensor, Psi: Tensor, pivoting: bool
) -> tuple[Tensor, Tensor]:
    """Return eigenvalues by descending magnitude, and eigenvectors as columns.

    Everything in the dtype of the measurements. NumPy's solver reads the lower triangle, whatever
    the upper one says.

    Args:
        Y: Outer measurements ``[D, n_o]``.
        W: Inner measurements ``[n_i, n_i]``.
        Phi: The left transform as a matrix ``[n_i, D]``.
        Psi: The right one.
        pivoting: SciPy's QR as in the analysis of a store; otherwise torch's as in memory.
    """
    if pivoting:
        Q = torch.from_numpy(scipy.linalg.qr(Y.numpy(), mode="economic", pivoting=True)[0])
    else:
        Q = torch.linalg.qr(Y).Q
    core = torch.linalg.lstsq(Phi.to(Y) @ Q, W).solution
    core = torch.linalg.lstsq(Psi.to(Y) @ Q, core.T).solution.T
    S, U = np.linalg.eigh(core.numpy(), UPLO="L")
    order = np.argsort(-np.abs(S), kind="stable")
    return torch.from_numpy(S[order]), Q @ torch.from_numpy(U[:, order])
