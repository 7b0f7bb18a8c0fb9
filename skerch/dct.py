"""Discrete cosine transforms of many vectors at once, in passes that stay in the cache.

The orthonormal DCT-II ``C`` of ``x`` of length ``D`` comes from one real FFT of that length
[Makhoul1980]: with ``v`` the even entries of ``x`` followed by the odd ones backwards, ``F`` its
transform and ``Z_m = sqrt(2 / D) exp(-i pi m / 2 D) F_m``, it is ``C_m = Re Z_m`` and ``C_(D-m) =
-Im Z_m``; ``C_0`` is smaller by ``sqrt(2)``.

With ``D = N1 N2`` the FFT takes two passes, each with short transforms that fit into the cache
[Bailey1990]: of length ``N1`` along ``n1``, for all ``n2``, then of length ``N2`` along ``n2``,
where ``n = N2 n1 + n2`` and ``m = k1 + N1 k2``. As ``v`` is real, ``k1 <= N1 / 2`` suffices. Where
only few ``C_m`` are wanted, the second pass is a dot product for each of them.

Vectors are the columns of ``[D, B]``. Before and after these transforms there is a random
permutation; it moves rows, that is, ``B`` neighbours at once: a cache line is not fetched for a
single number. The permutations also put entries in the order in which the passes want them, or take
them from where the passes left them. An SSRFT (left to right) and its adjoint (back again)::

      P1, order         rfft n1, fft n2     outputs, P2, order    rfft n1, dot products
    x ---------> v (n2, n1) ------> Z (k1, k2) --------> v (n2, n1) -----------> y
    x <--------- v (n2, n1) <------ Z (k1, k2) <-------- v (n2, n1) <----------- y

Time of an SSRFT of a block of float32 vectors through ``scipy.fft.dct`` (all cores), by ours
(``python -m benchmarks dct``, two cores; the two differ by less than 1e-6, relatively)::

    D                    7,030   895,210   1,387,108   3,274,634   11,689,512
    forward, 1,000 rows   0.96       3.0         4.1         5.9          4.1
    adjoint               0.97       3.0         4.0         5.1          2.2

* [Makhoul1980] J. Makhoul: A fast cosine transform in one and two dimensions.
* [Bailey1990] D. H. Bailey: FFTs in external or hierarchical memory.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from math import isqrt, prod

import numpy as np
import torch
from torch import Tensor

#: Numbers that a step of a pass works on: what stays in the cache of a CPU, and what keeps a GPU
#: busy.
STEP_NUMBERS, STEP_NUMBERS_GPU = 2**20, 2**26
#: FFTs of this length fit into the cache as they are.
MAX_SINGLE_PASS = 2**14


@dataclass(frozen=True)
class SignedGather:
    """``X -> X[idxs] * signs[:, None]`` for ``X`` ``[S, B]``; a sign of 0 makes a zero.

    Attributes:
        idxs: ``[n]``, int32.
        signs: ``[n]``, int8.
    """

    idxs: Tensor
    signs: Tensor

    def __call__(self, X: Tensor, rows: slice = slice(None)) -> Tensor:
        """Return rows ``rows`` of the result."""
        return X.index_select(0, self.idxs[rows]).mul_(self.signs[rows, None])

    def then(self, other: SignedGather) -> SignedGather:
        """Return this gather followed by another one, as one."""
        at = other.idxs.long()
        return SignedGather(self.idxs[at], self.signs[at] * other.signs)

    def inverse(self) -> SignedGather:
        """Return the inverse of a signed permutation."""
        back = torch.empty_like(self.idxs)
        back[self.idxs.long()] = _arange(len(back), back.device)
        return SignedGather(back, self.signs[back.long()])


def _arange(n: int, device: torch.device) -> Tensor:
    return torch.arange(n, dtype=torch.int32, device=device)


def _fft_order(num1: int, num2: int, device: torch.device) -> SignedGather:
    """Return the gather from ``x`` to ``v``, ordered by ``(n2, n1)``."""
    x = _arange(num1 * num2, device)
    idxs = torch.cat([x[::2], x[1::2].flip(0)]).view(num1, num2).T.flatten()
    return SignedGather(idxs, torch.ones_like(idxs, dtype=torch.int8))


def _gathered(X: Tensor, gather: SignedGather, n2: slice, length: int) -> Tensor:
    """Return what short FFTs are applied to, ``[N, B, N1]``, for a range of ``n2``."""
    rows = slice(n2.start * length, n2.stop * length)
    return gather(X, rows).view(-1, length, X.shape[1]).transpose(1, 2).contiguous()


def _smallest_divisor(dim: int, least: int) -> int:
    """Return the smallest divisor of ``dim`` that is at least ``least``, an even one if there is.

    A real FFT of an even length is a complex one of half the length; of an odd one it takes twice
    as long.
    """
    small = [d for d in range(1, isqrt(dim) + 1) if dim % d == 0]
    found = [d for d in {*small, *(dim // d for d in small)} if d >= least]
    return min([d for d in found if d % 2 == 0] or found)


class Scratch:
    """Memory for results on their way, by name, that each call hands out again.

    The system clears new memory, which takes as long as a pass over it.
    """

    def __init__(self, dtype: torch.dtype, device: torch.device):
        self._empty = torch.empty(0, dtype=dtype, device=device)
        self._kept: dict[str, Tensor] = {}

    def __call__(self, name: str, *shape: int) -> Tensor:
        """Return a real tensor with arbitrary values."""
        kept = self._kept.get(name, self._empty)
        if kept.numel() < prod(shape):
            self._kept[name] = kept = self._empty.new_empty(prod(shape))
        return kept[: prod(shape)].view(shape)


class DCT:
    """The orthonormal DCT-II of the columns of ``[D, B]``, and its inverse.

    Args:
        dim: ``D``.
        device: Where the transforms take place.
    """

    def __init__(self, dim: int, device: torch.device):
        self.device = device
        short = dim <= MAX_SINGLE_PASS
        self.length = dim if short else _smallest_divisor(dim, isqrt(dim - 1) + 1)
        self.num = dim // self.length
        self._kept: dict[torch.dtype, tuple[Tensor, Tensor]] = {}

    @property
    def order(self) -> SignedGather:
        """From the input of the DCT to the order in which :meth:`forward` wants it.

        The result of :meth:`inverse` is in that order, too.
        """
        return _fft_order(self.length, self.num, self.device)

    @property
    def outputs(self) -> SignedGather:
        """From the result of :meth:`forward` to the output of the DCT."""
        num_k1 = self.length // 2 + 1
        idxs = torch.empty(self.num, self.length, dtype=torch.int32, device=self.device)
        k1, k2 = _arange(num_k1, self.device), _arange(self.num, self.device)[:, None]
        idxs[:, :num_k1] = 2 * (self.num * k1 + k2)
        signs = torch.ones_like(idxs, dtype=torch.int8)
        # C_(D-m) = -Im Z_m, which is the number after Re Z_m.
        idxs[:, num_k1:] = idxs[:, 1 : self.length - num_k1 + 1].flip(0, 1) + 1
        signs[:, num_k1:] = -1
        return SignedGather(idxs.flatten(), signs.flatten())

    @property
    def spectrum(self) -> SignedGather:
        """From the output of the DCT to what :meth:`inverse` wants: ``Z`` of all ``k1``, ``k2``."""
        k1, k2 = _arange(self.length // 2 + 1, self.device)[:, None], _arange(self.num, self.device)
        m = k1 + self.length * k2
        idxs = torch.stack([m, (self.length * self.num - m) % (self.length * self.num)], dim=-1)
        signs = torch.ones_like(idxs, dtype=torch.int8)
        signs[..., 1] = -1
        signs[0, 0, 1] = 0
        return SignedGather(idxs.flatten(), signs.flatten())

    def forward(self, X: Tensor, gather: SignedGather, scratch: Scratch) -> Tensor:
        """Transform ``gather(X)``, which is ordered by :attr:`order`.

        Returns:
            ``Z`` by ``(k1, k2)`` and real and imaginary parts, ``[2 (N1 // 2 + 1) N2, B]``, in
            ``scratch``.
        """
        B, num_k1 = X.shape[1], self.length // 2 + 1
        _, last = self._twiddles(X.dtype)
        Z = scratch("transformed", num_k1, self.num, 2, B)
        for k1, values in self._spectra(X, gather, scratch):
            Z[k1] = torch.view_as_real(values.mul_(last)).permute(0, 2, 3, 1)
        Z[0, 0, 0] *= 0.5**0.5
        return Z.view(-1, B)

    def _spectra(
        self, X: Tensor, gather: SignedGather, scratch: Scratch
    ) -> Iterator[tuple[slice, Tensor]]:
        """Yield values of the FFT for ranges of ``k1``, ``[K, B, N2]``."""
        B, num_k1 = X.shape[1], self.length // 2 + 1
        twiddles, _ = self._twiddles(X.dtype)
        for n2 in steps(self.num, self.length * B, X.device):
            v = _gathered(X, gather, n2, self.length)
            values = torch.fft.rfft(v, norm="ortho").mul_(twiddles[n2, None])
            if self.num == 1:
                yield slice(None), values.permute(2, 1, 0)
                return
            self._between(scratch, B)[n2] = values.transpose(1, 2)
        for k1 in steps(num_k1, 2 * self.num * B, X.device):
            values = self._between(scratch, B)[:, k1].permute(1, 2, 0).contiguous()
            yield k1, torch.fft.fft(values, norm="ortho")

    def inverse(self, Y: Tensor, gather: SignedGather, scratch: Scratch) -> Tensor:
        """Transform ``gather(Y)``, which is :attr:`spectrum` of a DCT, back.

        Returns:
            The input of that DCT, ordered by :attr:`order`, ``[D, B]``, in ``scratch``.
        """
        V = scratch("transformed", self.num, self.length, Y.shape[1])
        twiddles, _ = self._twiddles(Y.dtype)
        for n2, values in self._inverted_last_pass(Y, gather, scratch):
            values.mul_(twiddles[n2, None].conj())
            v = torch.fft.irfft(values, n=self.length, norm="ortho")
            V[n2] = v.transpose(1, 2)
        return V.view(-1, Y.shape[1])

    def _inverted_last_pass(
        self, Y: Tensor, gather: SignedGather, scratch: Scratch
    ) -> Iterator[tuple[slice, Tensor]]:
        """Yield values for ranges of ``n2``, ``[N, B, N1 // 2 + 1]``."""
        B, num_k1 = Y.shape[1], self.length // 2 + 1
        _, last = self._twiddles(Y.dtype)
        whole = [slice(0, num_k1)]  # where there is no other pass
        for k1 in whole if self.num == 1 else steps(num_k1, 2 * self.num * B, Y.device):
            Z = gather(Y, slice(2 * k1.start * self.num, 2 * k1.stop * self.num))
            if k1.start == 0:
                Z[0] *= 2**0.5
            Z = Z.view(-1, self.num, 2, B).permute(0, 3, 1, 2).contiguous()
            values = torch.view_as_complex(Z).mul_(last.conj() / 2)
            if self.num == 1:
                yield slice(None), values.permute(2, 1, 0).contiguous()
                return
            values = torch.fft.ifft(values, norm="ortho")
            self._between(scratch, B)[:, k1] = values.permute(2, 0, 1)
        for n2 in steps(self.num, self.length * B, Y.device):
            yield n2, self._between(scratch, B)[n2].transpose(1, 2).contiguous()

    def _between(self, scratch: Scratch, B: int) -> Tensor:
        """Return what one pass leaves for the other, ``[N2, N1 // 2 + 1, B]``."""
        return torch.view_as_complex(scratch("between", self.num, self.length // 2 + 1, B, 2))

    def _twiddles(self, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """Return the factors after the first pass, ``[N2, N1 // 2 + 1]``, and after the second."""
        if dtype not in self._kept:
            k1, complex_dtype = torch.arange(self.length // 2 + 1, device="cpu"), dtype.to_complex()
            twiddles = _phases(self.num, k1, self.length * self.num, complex_dtype)
            last = _phases(
                1, torch.arange(self.num, device="cpu"), self.num, torch.complex128
            ).mul_(2**0.5)
            self._kept[dtype] = twiddles.to(self.device), last[0].to(self.device, complex_dtype)
        return self._kept[dtype]


class SelectedDCT:
    """Few outputs of the orthonormal DCT-II of the columns of ``[D, B]``, and the adjoint of it.

    Args:
        selected: Which outputs, ``[k]``, without repetition.
        dim: ``D``.
        device: Where the transforms take place.
    """

    #: Length of the FFTs of the one pass, at least, in total and for each output. Dot products with
    #: long columns take longer than longer FFTs.
    MIN_LENGTH, MIN_LENGTH_PER_OUTPUT = 1024, 2

    def __init__(self, selected: Tensor, dim: int, device: torch.device):
        self.selected = selected.cpu()
        self.device = device
        least = max(self.MIN_LENGTH, self.MIN_LENGTH_PER_OUTPUT * len(selected))
        self.length = _smallest_divisor(dim, min(dim, least))
        self.num = dim // self.length
        k1 = self.selected % self.length
        # Values of a real FFT at k1 > N1 / 2 are conjugates of those at N1 - k1.
        self._conjugate = k1 > self.length // 2
        self._bins = torch.where(self._conjugate, self.length - k1, k1).to(device)
        self._interior = (self._bins > 0) & (2 * self._bins < self.length)
        self._kept: dict[torch.dtype, Tensor] = {}

    @property
    def order(self) -> SignedGather:
        """From the input of the DCT to the order in which :meth:`forward` wants it.

        The result of :meth:`adjoint` is in that order, too.
        """
        return _fft_order(self.length, self.num, self.device)

    def forward(self, X: Tensor, gather: SignedGather) -> Tensor:
        """Return the selected outputs ``[k, B]`` of the DCT of ``gather(X)``."""
        B, k = X.shape[1], len(self.selected)
        weights = torch.view_as_real(self._weights(X.dtype))
        parts = X.new_zeros(B, k, 2)
        for n2 in steps(self.num, self.length * B, X.device):
            v = _gathered(X, gather, n2, self.length)
            values = torch.view_as_real(torch.fft.rfft(v).index_select(2, self._bins))
            parts += values.mul_(weights[n2, None]).sum(0)
        return parts.sum(-1).T

    def adjoint(self, Y: Tensor, scratch: Scratch) -> Tensor:
        """Return the adjoint for ``Y`` ``[k, B]``, ``[D, B]`` by :attr:`order`, in ``scratch``."""
        B, k1 = Y.shape[1], self.length // 2 + 1
        weights, groups = self._weights(Y.dtype), self._groups
        # An inverse real FFT adds the conjugates of all values but the first and the middle one.
        Y = (Y * torch.where(self._interior, 0.5, 1.0).to(Y)[:, None]).T
        V = scratch("selected", self.num, self.length, B)
        for n2 in steps(self.num, self.length * B, Y.device):
            values = Y.new_zeros(n2.stop - n2.start, B, k1, dtype=weights.dtype)
            for columns, bins in groups:
                values.index_add_(2, bins, weights[n2, None, columns] * Y[:, columns])
            V[n2] = torch.fft.irfft(values, n=self.length, norm="forward").transpose(1, 2)
        return V.view(-1, B)

    @cached_property
    def _groups(self) -> list[tuple[Tensor, Tensor]]:
        """Outputs and their bins, in groups in which no bin repeats: sums have a fixed order."""
        bins, left, groups = self._bins.numpy(force=True), np.arange(len(self._bins)), []
        while len(left):
            _, first = np.unique(bins[left], return_index=True)
            outputs = torch.from_numpy(left[first]).to(self.device)
            groups.append((outputs, self._bins[outputs]))
            left = np.delete(left, first)
        return groups

    def _weights(self, dtype: torch.dtype) -> Tensor:
        """Return the conjugates of the factors before the sum over ``n2``, ``[N2, k]``."""
        if dtype not in self._kept:
            dim = self.length * self.num
            weights = _phases(self.num, self.selected, dim, dtype.to_complex())
            weights *= (2 / dim) ** 0.5
            weights[:, self.selected == 0] *= 0.5**0.5
            weights.imag[:, ~self._conjugate] *= -1
            weights.imag[:, ~self._interior.cpu()] = 0
            self._kept[dtype] = weights.to(self.device)
        return self._kept[dtype]


def _phases(num: int, m: Tensor, dim: int, dtype: torch.dtype) -> Tensor:
    """Return ``exp(-i pi m (1 + 4 n) / 2 dim)`` for ``n`` in ``range(num)``, ``[num, len(m)]``.

    In double precision, without multiples of ``2 pi``, on the CPU, then rounded: all devices use
    the same numbers.
    """
    phases = torch.empty(num, len(m), dtype=dtype, device="cpu")
    for rows in steps(num, len(m), phases.device):
        n = torch.arange(rows.start, rows.stop, device="cpu")[:, None]
        angles = ((1 + 4 * n) * m % (4 * dim)).double().mul_(-torch.pi / (2 * dim))
        phases[rows] = torch.polar(torch.ones_like(angles), angles)
    return phases


def steps(count: int, numbers: int, device: torch.device) -> Iterator[slice]:
    """Yield slices of ``range(count)`` for steps of a pass; each item has that many numbers."""
    limit = STEP_NUMBERS if device.type == "cpu" else STEP_NUMBERS_GPU
    size = max(1, limit // numbers)
    for begin in range(0, count, size):
        yield slice(begin, min(begin + size, count))


def copy_steps(X: Tensor) -> Iterator[slice]:
    """Yield slices of rows for copying ``X`` to or from another layout."""
    return steps(len(X), 4 * X.shape[1], X.device)


def work_numbers(dim: int, num: int, device: torch.device) -> int:
    """Return how many numbers transforms of ``num`` vectors ``[dim]`` hold: scratch and steps."""
    step: int = next(steps(num * dim, 1, device)).stop
    return int(3.1 * num * dim) + 4 * max(step, num * DCT(dim, device).length)
