"""The analysis as one would write it down first: what the benchmarks compare with, nothing else.

All in memory; a Householder QR of the whole matrix; both SSRFTs row by row, each row by the
transforms of ``torch_dct``; one overlap after the other.
"""

from __future__ import annotations

import torch
import torch_dct
from torch import Tensor

from skerch.utils import rademacher, randperm


def ssrft_row(idx: int, num_rows: int, dim: int, seed: int) -> Tensor:
    """Return row ``idx`` of an SSRFT, drawing all of its random numbers again, ``[dim]``."""
    x = torch.zeros(dim)
    x[randperm(dim, seed + 4)[:num_rows][idx]] = 1
    for shift in (2, 0):
        x = torch_dct.idct(x, norm="ortho") * rademacher(dim, seed + shift + 1)
        x = x[randperm(dim, seed + shift, inverse=True)]
    return x


def naive_seigh(Y: Tensor, W: Tensor, seed: int) -> tuple[Tensor, Tensor]:
    """Return eigenvalues ``[n_o]`` and eigenvectors ``[D, n_o]`` by descending magnitude.

    Args:
        Y: Outer measurements, ``[D, n_o]``.
        W: Inner measurements, ``[n_i, n_i]``.
        seed: That of ``Phi``; ``Psi`` has the next one.
    """
    (dim, _), inner = Y.shape, len(W)
    Q = torch.linalg.qr(Y).Q
    left, right = (
        torch.stack([ssrft_row(i, inner, dim, seed + s) @ Q for i in range(inner)]) for s in (0, 1)
    )
    half = torch.linalg.lstsq(left.double(), W.double()).solution
    core = torch.linalg.lstsq(right.double(), half.T).solution.T
    S, U = torch.linalg.eigh((core + core.T) / 2)
    order = S.abs().argsort(descending=True)
    return S[order], Q @ U[:, order].to(Q)


def naive_overlap(V: Tensor, params: Tensor) -> Tensor:
    """Return ``||V[mask_k, :k]||_F^2`` for the masks of the ``k`` largest parameters."""
    curve = []
    for k in range(1, V.shape[1] + 1):
        mask = params.abs().argsort(descending=True)[:k]
        curve.append(V[mask, :k].square().sum())
    return torch.stack(curve)
