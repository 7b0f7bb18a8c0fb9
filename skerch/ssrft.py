"""Scrambled subsampled randomised Fourier transforms (SSRFT) [TYUC2019, 3.2].

``S = R F P2 F P1`` of shape ``[k, D]``: ``F`` is the orthonormal DCT-II, ``P1`` and ``P2`` are
random signed permutations, and ``R`` selects ``k`` random rows. So ``S S^T = I``.

See :mod:`skerch.dct` for how the DCTs and the permutations between them are computed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property

import torch
from torch import Tensor

from .dct import DCT, Scratch, SelectedDCT, SignedGather, copy_steps, work_numbers
from .errors import InputError
from .linops import LinOp
from .operands import check_dtype, check_operand
from .utils import check_seed, rademacher, randperm

#: Vectors that are transformed at once: their entries are a cache line of 64 bytes in single
#: precision. Fewer of them where they are more numbers than these ...
BATCH_VECTORS, BATCH_NUMBERS = 16, 2**26
#: ... and several times as many where they are fewer than these: each step takes some microseconds,
#: whatever its size, and GPUs want much to do.
FEW_NUMBERS, FEW_NUMBERS_GPU = 2**18, 2**26


class SSRFT(LinOp):
    """The operator ``S`` of shape ``[k, D]``, a function of ``(seed, D, k)`` alone.

    Permutations and signs are drawn on the CPU, once, when the operator is first used. A product
    costs ``O(D log D)`` per vector; vectors are transformed in batches. They are float32 or float64
    tensors; all else is refused, NumPy arrays and other dtypes as well.

    Args:
        shape: ``(k, D)`` with ``k <= D``.
        seed: Seeds ``seed ... seed + 4`` are used for the five random ingredients.
        device: Where the products take place.

    Raises:
        InputError: If ``k > D``; from products, if vectors are of another kind or shape.

    Example:
        >>> import torch
        >>> from skerch import SSRFT
        >>> S = SSRFT((3, 8), seed=0)
        >>> torch.allclose((S @ torch.eye(8)) @ (S @ torch.eye(8)).T, torch.eye(3), atol=1e-6)
        True
    """

    device: torch.device

    def __init__(self, shape: tuple[int, int], seed: int, device: torch.device | str = "cpu"):
        super().__init__(shape)
        k, D = self.shape
        if k > D:
            raise InputError(f"SSRFT: expected no more rows than columns, got shape {self.shape}")
        self.seed = check_seed(seed)
        self.device = torch.device(device)

    def forward(self, x: Tensor) -> Tensor:
        """Apply ``S`` along the last dimension: ``[..., D] -> [..., k]``."""
        self._check_last(x, self.shape[1])
        return (self @ x.reshape(-1, x.shape[-1]).T).T.reshape(*x.shape[:-1], self.shape[0])

    def adjoint(self, y: Tensor) -> Tensor:
        """Apply ``S^T`` along the last dimension: ``[..., k] -> [..., D]``."""
        self._check_last(y, self.shape[0])
        return (y.reshape(-1, y.shape[-1]) @ self).reshape(*y.shape[:-1], self.shape[1])

    def rows(self, idxs: Sequence[int], dtype: torch.dtype = torch.float32) -> Tensor:
        """Return rows ``idxs`` of ``S``, shape ``[len(idxs), D]``."""
        check_dtype(dtype)
        wrong = [i for i in idxs if not 0 <= i < self.shape[0]]
        if wrong:
            raise InputError(f"SSRFT row indices must lie in [0, {self.shape[0]}), got {wrong}")
        units = torch.zeros(len(idxs), self.shape[0], dtype=dtype, device=self.device)
        units[range(len(idxs)), list(idxs)] = 1
        return self.adjoint(units)

    # ------------------------------------------------------------------ one batch, [..., B]

    def _forward(self, X: Tensor, out: Tensor, scratch: Scratch) -> None:
        first, second = self._forward_gathers
        Z = self._dct.forward(_interleaved(X, scratch), first, scratch)
        out.copy_(self._selected.forward(Z, second))

    def _adjoint(self, Y: Tensor, out: Tensor, scratch: Scratch) -> None:
        first, second = self._adjoint_gathers
        V = self._dct.inverse(self._selected.adjoint(Y, scratch), first, scratch)
        for rows in copy_steps(out):
            out[rows] = second(V, rows)

    def _in_batches(
        self, apply: Callable[[Tensor, Tensor, Scratch], None], X: Tensor, height: int
    ) -> Tensor:
        """Apply to ``X`` ``[..., n]``; return ``[height, n]``, contiguous by columns."""
        num, per_batch = X.shape[1], _batch_vectors(self.shape[1], X.device)
        result = X.new_empty(num, height).T
        scratch = Scratch(X.dtype, X.device)
        for begin in range(0, num, per_batch):
            columns = slice(begin, begin + per_batch)
            apply(X[:, columns], result[:, columns], scratch)
        return result

    # ------------------------------------------------------------------ what is drawn

    @property
    def _scrambles(self) -> tuple[SignedGather, SignedGather]:
        """``P1`` and ``P2``, drawn for each direction anew: few operators are used in both."""
        first, second = (
            SignedGather(
                randperm(self.shape[1], seed).to(self.device, torch.int32),
                rademacher(self.shape[1], seed + 1, torch.int8, self.device),
            )
            for seed in (self.seed, self.seed + 2)
        )
        return first, second

    @cached_property
    def _dct(self) -> DCT:
        return DCT(self.shape[1], self.device)

    @cached_property
    def _selected(self) -> SelectedDCT:
        k, D = self.shape
        return SelectedDCT(randperm(D, self.seed + 4)[:k].clone(), D, self.device)

    @cached_property
    def _forward_gathers(self) -> tuple[SignedGather, SignedGather]:
        """From the input to the first transform, and from there to the second one."""
        first, second = self._scrambles
        middle = self._dct.outputs.then(second).then(self._selected.order)
        return first.then(self._dct.order), middle

    @cached_property
    def _adjoint_gathers(self) -> tuple[SignedGather, SignedGather]:
        """From the second transform to the first, and from there to the input."""
        first, second = self._scrambles
        middle = second.then(self._selected.order).inverse().then(self._dct.spectrum)
        return middle, first.then(self._dct.order).inverse()

    def _check_last(self, x: Tensor, size: int) -> None:
        check_operand(x, "SSRFT", f"[..., {size}]")
        if x.ndim < 1 or x.shape[-1] != size:
            raise InputError(f"SSRFT: expected shape [..., {size}], got {tuple(x.shape)}")

    def _matmat(self, X: Tensor) -> Tensor:
        return self._in_batches(self._forward, X, self.shape[0])

    def _rmatmat(self, X: Tensor) -> Tensor:
        return self._in_batches(self._adjoint, X.T, self.shape[1]).T


def _interleaved(X: Tensor, scratch: Scratch) -> Tensor:
    """Return ``X``, contiguous by rows."""
    if X.is_contiguous():
        return X
    copy = scratch("interleaved", *X.shape)
    for rows in copy_steps(X):
        copy[rows] = X[rows]
    return copy


def work_bytes(dim: int, num: int, dtype: torch.dtype, device: torch.device | str = "cpu") -> int:
    """Return the bytes that products with ``num`` vectors ``[dim]`` hold beside them and results.

    Indices, signs and twiddle factors, of both directions, and a batch of vectors on their way.
    Exact to a tenth or so for operators with much fewer rows than columns.
    """
    device = torch.device(device)
    numbers = work_numbers(dim, min(_batch_vectors(dim, device), num), device)
    return 40 * dim + numbers * dtype.itemsize


def _batch_vectors(dim: int, device: torch.device) -> int:
    few = FEW_NUMBERS if device.type == "cpu" else FEW_NUMBERS_GPU
    lines = max(1, few // dim // BATCH_VECTORS)
    return max(1, min(BATCH_VECTORS * lines, BATCH_NUMBERS // dim))


def ssrft(x: Tensor, num_rows: int, seed: int) -> Tensor:
    """Apply the SSRFT of shape ``[num_rows, D]`` along the last dimension of ``x``.

    Example:
        >>> import torch
        >>> from skerch.ssrft import ssrft
        >>> ssrft(torch.ones(2, 8), num_rows=3, seed=0).shape
        torch.Size([2, 3])
    """
    check_operand(x, "ssrft", "[..., D]")
    return SSRFT((num_rows, x.shape[-1]), seed, x.device).forward(x)


def ssrft_adjoint(y: Tensor, num_columns: int, seed: int) -> Tensor:
    """Apply the transposed SSRFT of shape ``[k, num_columns]`` along the last dimension.

    Example:
        >>> import torch
        >>> from skerch.ssrft import ssrft, ssrft_adjoint
        >>> x, y = torch.ones(8), torch.ones(3)
        >>> bool((ssrft(x, 3, 0) @ y - x @ ssrft_adjoint(y, 8, 0)).abs() < 1e-5)
        True
    """
    check_operand(y, "ssrft_adjoint", "[..., k]")
    return SSRFT((y.shape[-1], num_columns), seed, y.device).adjoint(y)
