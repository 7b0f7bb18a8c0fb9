"""Linear operators: the contract that every routine of this package relies on.

An operator ``A`` has ``A.shape == (H, W)``, ``A @ X`` for ``X`` of shape ``[W]`` or ``[W, K]``, and
``X @ A`` for ``X`` of shape ``[H]`` or ``[K, H]``. Dense tensors satisfy it as they are.
"""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import torch
from scipy.sparse.linalg import LinearOperator as ScipyLinearOperator
from torch import Tensor

from .errors import InputError


class LinOp:
    """Base class: checks shapes, then calls ``_matmat`` and ``_rmatmat``.

    Subclasses implement ``_matmat(X)`` for ``X`` of shape ``[W, K]`` (returns ``[H, K]``) and
    ``_rmatmat(X)`` for ``X`` of shape ``[K, H]`` (returns ``[K, W]``).
    """

    def __init__(self, shape: tuple[int, int]):
        self.shape = (int(shape[0]), int(shape[1]))
        if min(self.shape) < 1:
            raise InputError(f"operator shape must be positive, got {self.shape}")

    def _matmat(self, X: Tensor) -> Tensor:
        raise TypeError(f"{type(self).__name__} has no A @ X")

    def _rmatmat(self, X: Tensor) -> Tensor:
        raise TypeError(f"{type(self).__name__} has no X @ A")

    def __matmul__(self, X: Tensor) -> Tensor:
        """Multiply from the left: ``A @ X``."""
        if X.ndim not in (1, 2) or X.shape[0] != self.shape[1]:
            raise InputError(f"A @ X with A {self.shape}: X has shape {tuple(X.shape)}")
        return self._matmat(X[:, None])[:, 0] if X.ndim == 1 else self._matmat(X)

    def __rmatmul__(self, X: Tensor) -> Tensor:
        """Multiply from the right: ``X @ A``."""
        if X.ndim not in (1, 2) or X.shape[-1] != self.shape[0]:
            raise InputError(f"X @ A with A {self.shape}: X has shape {tuple(X.shape)}")
        return self._rmatmat(X[None])[0] if X.ndim == 1 else self._rmatmat(X)

    @property
    def T(self) -> TransposedLinOp:
        """The transposed operator."""
        return TransposedLinOp(self)

    def __repr__(self) -> str:
        return f"{type(self).__name__}{self.shape}"


class TransposedLinOp(LinOp):
    """``A^T`` of an operator ``A``."""

    def __init__(self, op: Any):
        super().__init__((op.shape[1], op.shape[0]))
        self.op = op

    def _matmat(self, X: Tensor) -> Tensor:
        return (X.T @ self.op).T

    def _rmatmat(self, X: Tensor) -> Tensor:
        return (self.op @ X.T).T


class CompositeLinOp(LinOp):
    """The product ``A_1 A_2 ... A_n`` of operators, applied right to left."""

    def __init__(self, *ops: Any):
        if not ops:
            raise InputError("a composite operator needs at least one factor")
        for left, right in itertools.pairwise(ops):
            if left.shape[1] != right.shape[0]:
                raise InputError(f"factors do not chain: {left.shape} and {right.shape}")
        super().__init__((ops[0].shape[0], ops[-1].shape[1]))
        self.ops = ops

    def _matmat(self, X: Tensor) -> Tensor:
        for op in reversed(self.ops):
            X = op @ X
        return X

    def _rmatmat(self, X: Tensor) -> Tensor:
        for op in self.ops:
            X = X @ op
        return X


class DiagonalLinOp(LinOp):
    """``diag(d)`` for a vector ``d`` of shape ``[D]``."""

    def __init__(self, diagonal: Tensor):
        super().__init__((len(diagonal), len(diagonal)))
        self.diagonal = diagonal

    def _matmat(self, X: Tensor) -> Tensor:
        return self.diagonal[:, None] * X

    def _rmatmat(self, X: Tensor) -> Tensor:
        return X * self.diagonal


class SymmetricLinOp(LinOp):
    """Adds ``X @ A = (A @ X^T)^T`` to a symmetric operator that only knows ``A @ X``."""

    def __init__(self, op: Any):
        if op.shape[0] != op.shape[1]:
            raise InputError(f"a symmetric operator is square, got shape {tuple(op.shape)}")
        super().__init__(tuple(op.shape))
        self.op = op

    def _matmat(self, X: Tensor) -> Tensor:
        return self.op @ X

    def _rmatmat(self, X: Tensor) -> Tensor:
        return (self.op @ X.T).T


class TorchLinOpWrapper(LinOp):
    """Lets an operator that speaks NumPy (SciPy's included) be used with torch tensors."""

    def __init__(self, op: Any):
        super().__init__(tuple(op.shape))
        self.op = op

    def _matmat(self, X: Tensor) -> Tensor:
        return self._back(self.op @ X.detach().cpu().numpy(), X)

    def _rmatmat(self, X: Tensor) -> Tensor:
        # (A^T X^T)^T, because NumPy arrays would try to multiply elementwise from the left.
        return self._back((self.op.T @ X.detach().cpu().numpy().T).T, X)

    @staticmethod
    def _back(result: np.ndarray, like: Tensor) -> Tensor:
        return torch.as_tensor(np.ascontiguousarray(result)).to(like)


def to_scipy(op: Any, dtype: torch.dtype = torch.float64) -> ScipyLinearOperator:
    """Return ``op`` as a :class:`scipy.sparse.linalg.LinearOperator` of the given ``dtype``."""

    def forward(X: np.ndarray) -> np.ndarray:
        return (op @ torch.as_tensor(np.ascontiguousarray(X), dtype=dtype)).numpy()

    def adjoint(X: np.ndarray) -> np.ndarray:
        return (torch.as_tensor(np.ascontiguousarray(X.T), dtype=dtype) @ op).numpy().T

    return ScipyLinearOperator(
        tuple(op.shape),
        matvec=forward,
        rmatvec=adjoint,
        matmat=forward,
        rmatmat=adjoint,
        dtype=torch.empty(0, dtype=dtype).numpy().dtype,
    )


def adjoint_mismatch(op: Any, seed: int = 0, dtype: torch.dtype = torch.float64) -> float:
    """Return ``|<u, A v> - <A^T u, v>| / (|u| |A v|)`` for one random pair (the "dot test").

    Cost: one product from each side. Zero up to rounding if both sides belong to one matrix.
    """
    from .utils import gaussian_noise

    u = gaussian_noise(op.shape[0], seed, dtype=dtype)
    v = gaussian_noise(op.shape[1], seed + 1, dtype=dtype)
    Av = op @ v
    return float(abs(u @ Av - (u @ op) @ v) / (u.norm() * Av.norm()).clamp_min(1e-300))
