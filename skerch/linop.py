"""The contract of linear operators, as a base class that checks what it is multiplied with.

An operator ``A`` has ``A.shape == (H, W)``, ``A @ X`` for ``X`` of shape ``[W]`` or ``[W, K]``, and
``X @ A`` for ``X`` of shape ``[H]`` or ``[K, H]``. ``X`` is a real torch tensor in single or double
precision.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from .errors import InputError
from .operands import check_operand

if TYPE_CHECKING:
    from .linops import TransposedLinOp


class LinOp:
    """Base class: checks shapes, then calls ``_matmat`` and ``_rmatmat``.

    Subclasses implement ``_matmat(X)`` for ``X`` of shape ``[W, K]`` (returns ``[H, K]``) and
    ``_rmatmat(X)`` for ``X`` of shape ``[K, H]`` (returns ``[K, W]``).

    Raises:
        InputError: From products with anything but float32 or float64 tensors of fitting shape.
    """

    #: NumPy leaves ``array @ A`` to :meth:`__rmatmul__`, which refuses it.
    __array_ufunc__ = None
    #: Shape ``(H, W)``.
    shape: tuple[int, int]
    #: In which it computes; ``None`` if in whatever ``X`` is.
    dtype: torch.dtype | None = None
    #: Where it computes; ``None`` if wherever ``X`` is.
    device: torch.device | None = None

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
        check_operand(X, f"A @ X with A {self.shape}", f"[{self.shape[1]}, ...]")
        if X.ndim not in (1, 2) or X.shape[0] != self.shape[1]:
            raise InputError(f"A @ X with A {self.shape}: X has shape {tuple(X.shape)}")
        return self._matmat(X[:, None])[:, 0] if X.ndim == 1 else self._matmat(X)

    def __rmatmul__(self, X: Tensor) -> Tensor:
        """Multiply from the right: ``X @ A``."""
        check_operand(X, f"X @ A with A {self.shape}", f"[..., {self.shape[0]}]")
        if X.ndim not in (1, 2) or X.shape[-1] != self.shape[0]:
            raise InputError(f"X @ A with A {self.shape}: X has shape {tuple(X.shape)}")
        return self._rmatmat(X[None])[0] if X.ndim == 1 else self._rmatmat(X)

    @property
    def T(self) -> TransposedLinOp:
        """The transposed operator."""
        from .linops import TransposedLinOp  # which is one of these itself

        return TransposedLinOp(self)

    def __repr__(self) -> str:
        return f"{type(self).__name__}{self.shape}"
