"""Linear operators: the contract that every routine of this package relies on.

An operator ``A`` has ``A.shape == (H, W)``, ``A @ X`` for ``X`` of shape ``[W]`` or ``[W, K]``, and
``X @ A`` for ``X`` of shape ``[H]`` or ``[K, H]``. Dense tensors satisfy it as they are.

``X`` is a real torch tensor in single or double precision. All else is refused in one line: NumPy
arrays as well, instead of converting them, because results would silently be of another kind.
Operators are whatever :func:`skerch.as_linop` takes.
"""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import torch
from scipy.sparse.linalg import LinearOperator as ScipyLinearOperator
from torch import Tensor

from .adapters import AdaptedLinOp, TorchLinOpWrapper, adapt, as_linop, check_real, computing_in
from .errors import InputError
from .linop import LinOp
from .operands import check_operand
from .symmetry import check_symmetric
from .utils import gaussian_noise

__all__ = [
    "AdaptedLinOp",
    "CompositeLinOp",
    "DiagonalLinOp",
    "LinOp",
    "SymmetricLinOp",
    "TorchLinOpWrapper",
    "TransposedLinOp",
    "adjoint_mismatch",
    "as_linop",
    "to_scipy",
]


class TransposedLinOp(LinOp):
    """``A^T`` of an operator ``A``.

    Example:
        >>> import torch
        >>> from skerch.linops import TransposedLinOp
        >>> TransposedLinOp(torch.tensor([[1.0, 2.0]])) @ torch.ones(1)
        tensor([1., 2.])
    """

    def __init__(self, op: Any):
        self.op = adapt(op)
        self.dtype, self.device = self.op.dtype, self.op.device
        super().__init__((self.op.shape[1], self.op.shape[0]))

    def _matmat(self, X: Tensor) -> Tensor:
        return (X.T @ self.op).T

    def _rmatmat(self, X: Tensor) -> Tensor:
        return (self.op @ X.T).T


class CompositeLinOp(LinOp):
    """The product ``A_1 A_2 ... A_n`` of operators, applied right to left.

    Example:
        >>> import torch
        >>> from skerch.linops import CompositeLinOp, DiagonalLinOp
        >>> twice = DiagonalLinOp(torch.tensor([2.0, 2.0]))
        >>> CompositeLinOp(twice, torch.tensor([[1.0, 2.0], [3.0, 4.0]])) @ torch.ones(2)
        tensor([ 6., 14.])
    """

    def __init__(self, *ops: Any):
        if not ops:
            raise InputError("a composite operator needs at least one factor")
        self.ops = tuple(adapt(op) for op in ops)
        for left, right in itertools.pairwise(self.ops):
            if left.shape[1] != right.shape[0]:
                raise InputError(f"factors do not chain: {left.shape} and {right.shape}")
        super().__init__((self.ops[0].shape[0], self.ops[-1].shape[1]))
        self.dtype = next((op.dtype for op in self.ops if op.dtype is not None), None)
        self.device = next((op.device for op in self.ops if op.device is not None), None)

    def _matmat(self, X: Tensor) -> Tensor:
        for op in reversed(self.ops):
            X = op @ X
        return X

    def _rmatmat(self, X: Tensor) -> Tensor:
        for op in self.ops:
            X = X @ op
        return X


class DiagonalLinOp(LinOp):
    """``diag(d)`` for a vector ``d`` of shape ``[D]``.

    Example:
        >>> import torch
        >>> from skerch.linops import DiagonalLinOp
        >>> DiagonalLinOp(torch.tensor([1.0, 2.0])) @ torch.ones(2)
        tensor([1., 2.])
    """

    def __init__(self, diagonal: Tensor):
        check_operand(diagonal, "diagonal", "[D]")
        if diagonal.ndim != 1:
            raise InputError(f"diagonal: expected shape [D], got {list(diagonal.shape)}")
        super().__init__((len(diagonal), len(diagonal)))
        self.diagonal = diagonal
        self.dtype, self.device = diagonal.dtype, diagonal.device

    def _matmat(self, X: Tensor) -> Tensor:
        return self.diagonal[:, None] * X

    def _rmatmat(self, X: Tensor) -> Tensor:
        return X * self.diagonal


class SymmetricLinOp(LinOp):
    """Adds ``X @ A = (A @ X^T)^T`` to a symmetric operator that only knows ``A @ X``.

    Raises:
        InputError: If it is not square, or a matrix that is not symmetric.

    Example:
        >>> import torch
        >>> from skerch import as_linop
        >>> from skerch.linops import SymmetricLinOp
        >>> torch.ones(2) @ SymmetricLinOp(as_linop(lambda X: 3 * X, (2, 2), torch.float32))
        tensor([3., 3.])
    """

    def __init__(self, op: Any):
        self.op = adapt(op)
        super().__init__(self.op.shape)
        if self.shape[0] != self.shape[1]:
            raise InputError(f"a symmetric operator is square, got shape {self.shape}")
        check_symmetric(self.op.wrapped)
        self.dtype, self.device = self.op.dtype, self.op.device

    def _matmat(self, X: Tensor) -> Tensor:
        return self.op @ X

    def _rmatmat(self, X: Tensor) -> Tensor:
        return (self.op @ X.T).T


def to_scipy(op: Any, dtype: torch.dtype | None = None) -> ScipyLinearOperator:
    """Return ``op`` as a :class:`scipy.sparse.linalg.LinearOperator` of the given ``dtype``.

    Real arrays that it is multiplied with are converted to ``dtype``, as SciPy's solvers expect.

    Args:
        op: Whatever :func:`skerch.as_linop` takes.
        dtype: In which it computes; default what the operator says.

    Raises:
        InputError: If there is no such operator, or it is of another dtype.

    Example:
        >>> import torch
        >>> from scipy.sparse.linalg import eigsh
        >>> from skerch.linops import DiagonalLinOp, to_scipy
        >>> H = DiagonalLinOp(torch.arange(1.0, 11.0, dtype=torch.float64))
        >>> eigsh(to_scipy(H), k=2, return_eigenvectors=False).round(6).tolist()
        [9.0, 10.0]
    """
    A, dtype, device = computing_in(op, dtype, None)

    def as_tensor(X: np.ndarray) -> Tensor:
        check_real(X.dtype, "X")
        return torch.as_tensor(np.ascontiguousarray(X), dtype=dtype, device=device)

    def forward(X: np.ndarray) -> np.ndarray:
        return np.asarray((A @ as_tensor(X)).cpu().numpy())

    def adjoint(X: np.ndarray) -> np.ndarray:
        return np.asarray((as_tensor(X.T) @ A).cpu().numpy().T)

    return ScipyLinearOperator(
        A.shape,
        matvec=forward,
        rmatvec=adjoint,
        matmat=forward,
        rmatmat=adjoint,
        dtype=torch.empty(0, dtype=dtype).numpy().dtype,
    )


def adjoint_mismatch(op: Any, seed: int = 0, dtype: torch.dtype | None = None) -> float:
    """Return ``|<u, A v> - <A^T u, v>| / (|u| |A v|)`` for one random pair (the "dot test").

    Cost: one product from each side. Zero up to rounding if both sides belong to one matrix.

    Args:
        op: Whatever :func:`skerch.as_linop` takes.
        seed: Of the pair.
        dtype: In which it computes; default what the operator says.

    Example:
        >>> import torch
        >>> from skerch.linops import adjoint_mismatch
        >>> adjoint_mismatch(torch.tensor([[1.0, 2.0], [3.0, 4.0]])) < 1e-6
        True
    """
    A, dtype, device = computing_in(op, dtype, None)
    u = gaussian_noise(A.shape[0], seed, dtype=dtype, device=device)
    v = gaussian_noise(A.shape[1], seed + 1, dtype=dtype, device=device)
    Av = A @ v
    return float(abs(u @ Av - (u @ A) @ v) / (u.norm() * Av.norm()).clamp_min(1e-300))
