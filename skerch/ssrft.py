"""Scrambled subsampled randomised Fourier transforms (SSRFT) [TYUC2019, 3.2].

``S = R F P2 F P1`` of shape ``[k, D]``: ``F`` is the orthonormal DCT-II, ``P1`` and ``P2`` are
random signed permutations, and ``R`` selects ``k`` random rows. So ``S S^T = I``.

Each DCT is one real FFT of length ``D`` (Makhoul 1980, "A fast cosine transform in one and two
dimensions"): with ``v`` the even entries of ``x`` followed by the odd ones backwards, and ``Z_j =
sqrt(2 / D) exp(-i pi j / 2 D) rfft(v)_j``, the transform is ``C_j = Re Z_j`` and ``C_(D-j) = -Im
Z_j``. The reordering before the FFT, the unpacking of ``Z`` after it, and the random permutation
between two transforms are one gather each, with indices that are composed once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from .errors import InputError
from .linops import LinOp
from .utils import rademacher, randperm

#: Vectors and numbers that are transformed at once on a CPU, at most. FFTs of awkward lengths are
#: planned anew in each call, so that batches of few vectors are slow; larger ones leave the cache.
BATCH_VECTORS, BATCH_NUMBERS = 16, 2**23
BATCH_NUMBERS_GPU = 2**26


@dataclass(frozen=True)
class _SignedGather:
    """``x -> x[:, idxs] * signs``; a sign of 0 makes a zero."""

    idxs: Tensor
    signs: Tensor

    def __call__(self, x: Tensor) -> Tensor:
        # Unlike index_select, this is done by several threads.
        return x.gather(-1, self.idxs.long().expand(len(x), -1)).mul_(self.signs)


class SSRFT(LinOp):
    """The operator ``S`` of shape ``[k, D]``, a function of ``(seed, D, k)`` alone.

    Permutations and signs are drawn on the CPU, once, when the operator is first used. A product
    costs ``O(D log D)`` per vector; vectors are transformed in batches.

    Args:
        shape: ``(k, D)`` with ``k <= D``.
        seed: Seeds ``seed ... seed + 4`` are used for the five random ingredients.
        device: Where the products take place.

    Raises:
        InputError: If ``k > D``.
    """

    def __init__(self, shape: tuple[int, int], seed: int, device: torch.device | str = "cpu"):
        super().__init__(shape)
        k, D = self.shape
        if k > D:
            raise InputError(f"SSRFT: expected no more rows than columns, got shape {self.shape}")
        self.seed = int(seed)
        self.device = torch.device(device)
        self._kept_twiddles: dict[tuple[torch.dtype, bool], Tensor] = {}

    def forward(self, x: Tensor) -> Tensor:
        """Apply ``S`` along the last dimension: ``[..., D] -> [..., k]``."""
        self._check_last(x, self.shape[1])
        return self._in_batches(self._forward, x, self.shape[0])

    def adjoint(self, y: Tensor) -> Tensor:
        """Apply ``S^T`` along the last dimension: ``[..., k] -> [..., D]``."""
        self._check_last(y, self.shape[0])
        return self._in_batches(self._adjoint, y, self.shape[1])

    def rows(self, idxs: Sequence[int], dtype: torch.dtype = torch.float32) -> Tensor:
        """Return rows ``idxs`` of ``S``, shape ``[len(idxs), D]``."""
        wrong = [i for i in idxs if not 0 <= i < self.shape[0]]
        if wrong:
            raise InputError(f"SSRFT row indices must lie in [0, {self.shape[0]}), got {wrong}")
        units = torch.zeros(len(idxs), self.shape[0], dtype=dtype, device=self.device)
        units[torch.arange(len(idxs)), torch.as_tensor(list(idxs), dtype=torch.int64)] = 1
        return self.adjoint(units)

    # ------------------------------------------------------------------ one batch, [B, ...]

    def _forward(self, x: Tensor) -> Tensor:
        first, second, last = self._forward_gathers
        twiddles = self._twiddles(x.dtype, inverse=False)
        for gather in (first, second):
            x = torch.view_as_real(torch.fft.rfft(gather(x)).mul_(twiddles)).flatten(-2)
        return last(x)

    def _adjoint(self, y: Tensor) -> Tensor:
        first, second, last = self._adjoint_gathers
        D, twiddles = self.shape[1], self._twiddles(y.dtype, inverse=True)
        # The zero column is what entries outside of the chosen rows are gathered from.
        y = torch.cat([y, y.new_zeros(len(y), 1)], dim=-1)
        for gather in (first, second):
            Z = torch.view_as_complex(gather(y).unflatten(-1, (-1, 2)))
            y = torch.fft.irfft(Z.mul_(twiddles), n=D)
        return last(y)

    def _in_batches(self, apply: Callable[[Tensor], Tensor], x: Tensor, width: int) -> Tensor:
        flat = x.reshape(-1, x.shape[-1])
        per_batch = _batch_vectors(x.device, self.shape[1])
        result = x.new_empty(len(flat), width)
        for begin in range(0, len(flat), per_batch):
            batch = flat[begin : begin + per_batch].contiguous()
            result[begin : begin + per_batch] = apply(batch)
        return result.reshape(*x.shape[:-1], width)

    # ------------------------------------------------------------------ what is drawn

    @cached_property
    def _drawn(self) -> tuple[_SignedGather, _SignedGather, Tensor]:
        """``P1`` and ``P2``, each followed by the reordering of the FFT, and the rows."""
        k, D = self.shape
        order = torch.cat([torch.arange(0, D, 2), torch.arange(1, D, 2).flip(0)])
        scrambles = [
            _SignedGather(
                randperm(D, seed)[order].to(self.device, torch.int32),
                rademacher(D, seed + 1, torch.int8)[order].to(self.device),
            )
            for seed in (self.seed, self.seed + 2)
        ]
        return scrambles[0], scrambles[1], randperm(D, self.seed + 4)[:k].clone().to(self.device)

    @cached_property
    def _forward_gathers(self) -> tuple[_SignedGather, _SignedGather, _SignedGather]:
        first, second, rows = self._drawn
        unpack, half = self._unpack, second.idxs.long()
        middle = _SignedGather(unpack.idxs[half], unpack.signs[half] * second.signs)
        return first, middle, _SignedGather(unpack.idxs[rows], unpack.signs[rows])

    @cached_property
    def _adjoint_gathers(self) -> tuple[_SignedGather, _SignedGather, _SignedGather]:
        k, D = self.shape
        first, second, rows = self._drawn
        outside = torch.full((D,), k, dtype=torch.int32, device=self.device)
        outside[rows] = torch.arange(k, dtype=torch.int32, device=self.device)
        ones = torch.ones(D, dtype=torch.int8, device=self.device)
        return (
            self._pack(_SignedGather(outside, ones)),
            self._pack(_inverse(second)),
            _inverse(first),
        )

    @property
    def _unpack(self) -> _SignedGather:
        """From ``Z`` as real numbers (``Re Z_0, Im Z_0, Re Z_1, ...``) to the transform."""
        D = self.shape[1]
        j = torch.arange(D, dtype=torch.int32, device=self.device)
        real = j <= D // 2
        signs = torch.where(real, 1, -1).to(torch.int8)
        return _SignedGather(torch.where(real, 2 * j, 2 * (D - j) + 1), signs)

    def _pack(self, source: _SignedGather) -> _SignedGather:
        """From the source of a transform's entries to ``Z`` as real numbers."""
        D = self.shape[1]
        j = torch.arange(D // 2 + 1, device=self.device)
        entries = torch.stack([j, (D - j) % D], dim=1).flatten()
        signs = source.signs[entries]
        signs[1::2] *= -1
        signs[1] = 0
        return _SignedGather(source.idxs[entries], signs)

    def _twiddles(self, dtype: torch.dtype, inverse: bool) -> Tensor:
        """Return the factors between ``rfft`` and ``Z``, or their inverses, ``[D // 2 + 1]``."""
        if (dtype, inverse) not in self._kept_twiddles:
            D = self.shape[1]
            # In double precision on the CPU, so that all devices use the same numbers.
            angles = torch.arange(D // 2 + 1, dtype=torch.float64).mul_(-torch.pi / (2 * D))
            factors = torch.polar(torch.full_like(angles, (2 / D) ** 0.5), angles)
            factors[0] = (1 / D) ** 0.5
            factors = factors.reciprocal() if inverse else factors
            self._kept_twiddles[dtype, inverse] = factors.to(self.device, dtype.to_complex())
        return self._kept_twiddles[dtype, inverse]

    def _check_last(self, x: Tensor, size: int) -> None:
        if x.ndim < 1 or x.shape[-1] != size:
            raise InputError(f"SSRFT: expected shape [..., {size}], got {tuple(x.shape)}")

    def _matmat(self, X: Tensor) -> Tensor:
        return self.forward(X.T).T

    def _rmatmat(self, X: Tensor) -> Tensor:
        return self.adjoint(X)


def _inverse(gather: _SignedGather) -> _SignedGather:
    """Return the inverse of a signed permutation."""
    idxs, back = gather.idxs.long(), torch.empty_like(gather.idxs)
    back[idxs] = torch.arange(len(idxs), dtype=back.dtype, device=back.device)
    return _SignedGather(back, gather.signs[back.long()])


def work_bytes(dim: int, num: int, dtype: torch.dtype, device: torch.device | str = "cpu") -> int:
    """Return the bytes that products with ``num`` vectors ``[dim]`` hold beside them and results.

    Indices, signs and twiddle factors, and a batch of vectors in several real and complex forms.
    """
    per_batch = min(_batch_vectors(torch.device(device), dim), num)
    return 48 * dim + 5 * per_batch * dim * torch.empty(0, dtype=dtype).element_size()


def _batch_vectors(device: torch.device, dim: int) -> int:
    if device.type == "cpu":
        return max(1, min(BATCH_VECTORS, BATCH_NUMBERS // dim))
    return max(1, BATCH_NUMBERS_GPU // dim)


def ssrft(x: Tensor, num_rows: int, seed: int) -> Tensor:
    """Apply the SSRFT of shape ``[num_rows, D]`` along the last dimension of ``x``."""
    return SSRFT((num_rows, x.shape[-1]), seed, x.device).forward(x)


def ssrft_adjoint(y: Tensor, num_columns: int, seed: int) -> Tensor:
    """Apply the transposed SSRFT of shape ``[k, num_columns]`` along the last dimension."""
    return SSRFT((y.shape[-1], num_columns), seed, y.device).adjoint(y)
