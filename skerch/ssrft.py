"""Scrambled subsampled randomised Fourier transforms (SSRFT) [TYUC2019, 3.2].

``S = R F P2 F P1`` of shape ``[k, D]``: ``F`` is the orthonormal DCT-II, ``P1`` and ``P2`` are
random signed permutations, and ``R`` selects ``k`` random rows. So ``S S^T = I``.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch_dct
from torch import Tensor

from .linops import LinOp
from .utils import InputError, rademacher, randperm


class SSRFT(LinOp):
    """The operator ``S`` of shape ``[k, D]``, a function of ``(seed, D, k)`` alone.

    Permutations and signs are drawn once, on the CPU, when the operator is made. A product costs
    ``O(D log D)`` per vector, and vectors are transformed in batches.

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
        self._perm1 = randperm(D, seed, device)
        self._signs1 = rademacher(D, seed + 1, torch.int8, device)
        self._perm2 = randperm(D, seed + 2, device)
        self._signs2 = rademacher(D, seed + 3, torch.int8, device)
        self._rows = randperm(D, seed + 4)[:k].to(device)

    def forward(self, x: Tensor) -> Tensor:
        """Apply ``S`` along the last dimension: ``[..., D] -> [..., k]``."""
        self._check_last(x, self.shape[1])
        x = x[..., self._perm1] * self._signs1
        x = torch_dct.dct(x, norm="ortho")
        x = x[..., self._perm2] * self._signs2
        return torch_dct.dct(x, norm="ortho")[..., self._rows]

    def adjoint(self, y: Tensor) -> Tensor:
        """Apply ``S^T`` along the last dimension: ``[..., k] -> [..., D]``."""
        self._check_last(y, self.shape[0])
        x = y.new_zeros((*y.shape[:-1], self.shape[1]))
        x[..., self._rows] = y
        return self._unscramble(x)

    def rows(self, idxs: Sequence[int], dtype: torch.dtype = torch.float32) -> Tensor:
        """Return rows ``idxs`` of ``S``, shape ``[len(idxs), D]``."""
        wrong = [i for i in idxs if not 0 <= i < self.shape[0]]
        if wrong:
            raise InputError(f"SSRFT row indices must lie in [0, {self.shape[0]}), got {wrong}")
        chosen = self._rows[torch.as_tensor(list(idxs), device=self._rows.device)]
        x = torch.zeros(len(idxs), self.shape[1], dtype=dtype, device=self._rows.device)
        x[torch.arange(len(idxs), device=x.device), chosen] = 1
        return self._unscramble(x)

    def _check_last(self, x: Tensor, size: int) -> None:
        if x.ndim < 1 or x.shape[-1] != size:
            raise InputError(f"SSRFT: expected shape [..., {size}], got {tuple(x.shape)}")

    def _unscramble(self, x: Tensor) -> Tensor:
        x = torch_dct.idct(x, norm="ortho") * self._signs2
        x = torch.empty_like(x).index_copy_(-1, self._perm2, x)
        x = torch_dct.idct(x, norm="ortho") * self._signs1
        return torch.empty_like(x).index_copy_(-1, self._perm1, x)

    def _matmat(self, X: Tensor) -> Tensor:
        return self.forward(X.T.contiguous()).T

    def _rmatmat(self, X: Tensor) -> Tensor:
        return self.adjoint(X)


def ssrft(x: Tensor, num_rows: int, seed: int) -> Tensor:
    """Apply the SSRFT of shape ``[num_rows, D]`` along the last dimension of ``x``."""
    return SSRFT((num_rows, x.shape[-1]), seed, x.device).forward(x)


def ssrft_adjoint(y: Tensor, num_columns: int, seed: int) -> Tensor:
    """Apply the transposed SSRFT of shape ``[k, num_columns]`` along the last dimension."""
    return SSRFT((y.shape[-1], num_columns), seed, y.device).adjoint(y)
