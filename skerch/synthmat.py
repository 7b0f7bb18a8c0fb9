"""Synthetic test matrices with known spectra [TYUC2019, 7.3.1]."""

from __future__ import annotations

import torch
from torch import Tensor

from .errors import InputError
from .utils import gaussian_noise, rademacher

Device = torch.device | str


class SynthMat:
    """Families of random matrices; all functions return dense tensors.

    Example:
        >>> import torch
        >>> from skerch.synthmat import SynthMat
        >>> A = SynthMat.exp_decay((10, 10), rank=2, decay=1.0, seed=0)
        >>> torch.linalg.eigvalsh(A).flip(0)[:4].numpy().round(6).tolist()
        [1.0, 1.0, 0.1, 0.01]
    """

    @staticmethod
    def lowrank_noise(
        shape: tuple[int, int] = (100, 100),
        rank: int = 10,
        snr: float = 1e-4,
        seed: int = 0,
        dtype: torch.dtype = torch.float64,
        device: Device = "cpu",
    ) -> Tensor:
        """``diag(1, ..., 1, 0, ..., 0) + (snr / D) G G^T`` with a Gaussian ``G`` ``[D, D]``."""
        height, width = shape
        _check_rank(shape, rank)
        if height != width:
            raise InputError(f"lowrank_noise is square, got shape {height},{width}")
        G = gaussian_noise((height, width), seed, dtype=dtype)
        A = G @ G.T * (snr / height)
        A[range(rank), range(rank)] += 1
        return A.to(device)

    @staticmethod
    def exp_decay(
        shape: tuple[int, int] = (100, 100),
        rank: int = 10,
        decay: float = 0.5,
        symmetric: bool = True,
        seed: int = 0,
        dtype: torch.dtype = torch.float64,
        device: Device = "cpu",
        psd: bool = True,
    ) -> Tensor:
        """``rank`` singular values of 1, then ``10^(-decay), 10^(-2 decay), ...``."""
        tail = _tail(shape, rank)
        return _with_spectrum(shape, rank, 10 ** (-decay * tail), symmetric, seed, dtype, psd).to(
            device
        )

    @staticmethod
    def poly_decay(
        shape: tuple[int, int] = (100, 100),
        rank: int = 10,
        decay: float = 0.5,
        symmetric: bool = True,
        seed: int = 0,
        dtype: torch.dtype = torch.float64,
        device: Device = "cpu",
        psd: bool = True,
    ) -> Tensor:
        """``rank`` singular values of 1, then ``2^(-decay), 3^(-decay), ...``."""
        tail = _tail(shape, rank)
        return _with_spectrum(shape, rank, (tail + 1) ** -decay, symmetric, seed, dtype, psd).to(
            device
        )


def _check_rank(shape: tuple[int, int], rank: int) -> None:
    if not 0 <= rank <= min(shape):
        raise InputError(f"rank must lie in [0, {min(shape)}], got {rank}")


def _tail(shape: tuple[int, int], rank: int) -> Tensor:
    _check_rank(shape, rank)
    # float32 on purpose: the reference matrices of the literature code have these exact spectra.
    return torch.arange(1, min(shape) - rank + 1, dtype=torch.float32)


def _with_spectrum(
    shape: tuple[int, int],
    rank: int,
    tail: Tensor,
    symmetric: bool,
    seed: int,
    dtype: torch.dtype,
    psd: bool,
) -> Tensor:
    height, width = shape
    values = torch.cat([torch.ones(rank), tail]).to(dtype)
    if symmetric:
        if height != width:
            raise InputError(f"a symmetric matrix is square, got shape {height},{width}")
        V: Tensor = torch.linalg.qr(gaussian_noise((height, height), seed, dtype=dtype)).Q
        if not psd:
            values[rank:] *= rademacher(len(tail), seed + 1, dtype)  # the leading ones stay
        return (V * values) @ V.T
    small = min(shape)
    U: Tensor = torch.linalg.qr(gaussian_noise((height, small), seed, dtype=dtype)).Q
    V = torch.linalg.qr(gaussian_noise((width, small), seed + 1, dtype=dtype)).Q
    return (U * values) @ V.T
