"""Operators of all kinds as one: tensors, NumPy, SciPy, CurvLinOps, any object, functions.

:func:`as_linop` is the door. What others multiply by stays as it is; this module finds out in which
dtype and where that is, says how ``X @ A`` is made, and turns the errors that a product with a
tensor of another dtype or on another device ends in into one line.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import scipy.sparse
import torch
from scipy.sparse.linalg import LinearOperator as ScipyLinearOperator
from torch import Tensor

from .errors import InputError, SkerchError
from .linop import LinOp
from .operands import (
    DTYPES,
    HERMITIAN,
    Snapshot,
    attribute,
    check_dtype,
    check_product,
    describe,
    torch_dtype,
)

#: What torch says where operator and vectors are of different dtypes or on different devices.
_MISMATCH = re.compile(r"dtype|scalar type|same device|device type")
#: What a product with vectors of the wrong dtype may end in.
_PRODUCT_ERRORS = (RuntimeError, TypeError, ValueError)

Multiply = Callable[[Tensor], Tensor]


def as_linop(
    op: Any,
    shape: tuple[int, int] | None = None,
    dtype: torch.dtype | None = None,
    device: torch.device | str | None = None,
    *,
    per_vector: bool = False,
    adjoint: Multiply | None = None,
) -> AdaptedLinOp:
    """Return a linear operator that knows the dtype and the device in which it computes.

    ``op`` may be a dense or sparse tensor; a NumPy array; a SciPy sparse matrix or LinearOperator;
    an operator of this package or of CurvLinOps; any object with ``shape`` and ``@`` (one whose
    ``dtype`` is NumPy's is multiplied with arrays, any other with tensors); or a function. Then
    ``X @ A`` is made by its ``__rmatmul__``, otherwise by ``.T``, otherwise by ``.adjoint()``.

    Cost: none, or one product for objects and functions that do not say their dtype: with a vector
    of ones in float64, and if that fails another one in float32. NumPy and SciPy operators of
    integers or truth values compute in float64.

    Args:
        op: The operator, ``[H, W]``.
        shape: ``(H, W)``; functions need it.
        dtype: In which it computes, float32 or float64; default what the operator says.
        device: Where it computes; default what the operator says, otherwise where vectors are.
        per_vector: The function, and ``adjoint``, take one vector ``[W]`` (``[H]``) at a time.
        adjoint: For functions: ``[H, K] -> [W, K]``, the product with the transposed operator; the
            function itself if it is symmetric.

    Raises:
        InputError: For anything else; for complex, half and other dtypes; and for a shape, dtype or
            device that is not the operator's. The line says what to do.

    Example:
        >>> import numpy as np
        >>> import torch
        >>> from skerch import as_linop, hmt
        >>> as_linop(np.eye(3, dtype=np.float32))
        AdaptedLinOp((3, 3), torch.float32)
        >>> d = torch.arange(1.0, 7.0, dtype=torch.float64)
        >>> H = as_linop(lambda X: d[:, None] * X, shape=(6, 6))
        >>> hmt(H, 6).S.numpy().round(6).tolist()
        [6.0, 5.0, 4.0, 3.0, 2.0, 1.0]
    """
    adapted = adapt(op, shape, dtype, device, per_vector=per_vector, adjoint=adjoint)
    return adapted if adapted.dtype is not None else adapted.with_dtype(_find_dtype(adapted))


def computing_in(
    op: Any, dtype: torch.dtype | None, device: torch.device | str | None
) -> tuple[AdaptedLinOp, torch.dtype, torch.device]:
    """Return :func:`as_linop` of an operator, its dtype, and its device (default the CPU)."""
    adapted = as_linop(op, dtype=dtype, device=device)
    assert adapted.dtype is not None
    return adapted, adapted.dtype, adapted.device or torch.device("cpu")


def adapt(
    op: Any,
    shape: tuple[int, int] | None = None,
    dtype: torch.dtype | None = None,
    device: torch.device | str | None = None,
    *,
    per_vector: bool = False,
    adjoint: Multiply | None = None,
) -> AdaptedLinOp:
    """Return :func:`as_linop` of an operator without any product: its dtype may stay unknown."""
    if dtype is not None:
        check_dtype(dtype)
    is_operator = hasattr(op, "__matmul__") and hasattr(op, "shape")
    if not is_operator and callable(op):
        times, left = _of_function(op, shape, per_vector, adjoint)
        return AdaptedLinOp(op, _two_numbers(shape, op), dtype, _as_device(device), times, left)
    if per_vector or adjoint is not None:
        raise InputError(
            f"per_vector and adjoint are for functions, got {describe(op)}, which is an operator"
        )
    if not is_operator:
        raise InputError(
            f"expected an operator with a shape (H, W) and @, got {describe(op)}; a function f of "
            "[W, K] tensors becomes one by as_linop(f, (H, W)), numbers by torch.as_tensor"
        )
    own_shape = _two_numbers(op.shape, op)
    if shape is not None and _two_numbers(shape, op) != own_shape:
        raise InputError(f"operator: expected shape {tuple(shape)}, got {describe(op)}")
    own_dtype = torch_dtype(op)
    if dtype is not None and own_dtype not in (None, dtype):
        raise InputError(
            f"operator: expected {dtype}, in which to compute, got {_computing(op, own_dtype)}; "
            f"convert one of them: {_conversion(op, dtype)}, or dtype={own_dtype}"
        )
    where = _device_of(op)
    if device is not None and where is not None and not _same_device(where, torch.device(device)):
        raise InputError(f"operator: expected device {device}, got {describe(op)} on {where}")
    if isinstance(op, AdaptedLinOp) and dtype in (None, op.dtype):
        return op
    op = op.detach() if isinstance(op, Tensor) else TorchLinOpWrapper(op) if _is_numpy(op) else op
    return AdaptedLinOp(
        op,
        own_shape,
        dtype or own_dtype,
        where or _as_device(device),
        lambda X: op @ X,
        _from_left(op),
    )


class AdaptedLinOp(LinOp):
    """What :func:`as_linop` makes: any operator, behind the contract of this package.

    Args:
        op: The operator or function.
        shape: ``(H, W)``.
        dtype: In which it computes; ``None`` if that is not known.
        device: Where it computes; ``None`` if that is not known.
        times: ``[W, K] -> [H, K]``.
        left: ``[K, H] -> [K, W]``.
    """

    def __init__(
        self,
        op: Any,
        shape: tuple[int, int],
        dtype: torch.dtype | None,
        device: torch.device | None,
        times: Multiply,
        left: Multiply,
    ):
        super().__init__(shape)
        self.op, self.dtype, self.device = op, dtype, device
        self._times, self._left = times, left

    @property
    def wrapped(self) -> Any:
        """What others multiply by: the operator as it was given."""
        return self.op.op if isinstance(self.op, TorchLinOpWrapper) else self.op

    def with_dtype(self, dtype: torch.dtype) -> AdaptedLinOp:
        """Return the same operator, of which it is known now in what it computes."""
        return AdaptedLinOp(self.op, self.shape, dtype, self.device, self._times, self._left)

    def _matmat(self, X: Tensor) -> Tensor:
        return self._call(self._times, X, (self.shape[0], X.shape[1]))

    def _rmatmat(self, X: Tensor) -> Tensor:
        return self._call(self._left, X, (X.shape[0], self.shape[1]))

    def _call(self, multiply: Multiply, X: Tensor, shape: tuple[int, int]) -> Tensor:
        if self.dtype is not None and X.dtype != self.dtype:
            raise InputError(
                f"operator: expected {X.dtype}, in which to compute, got "
                f"{_computing(self.op, self.dtype)}; convert one of them: "
                f"{_conversion(self.op, X.dtype)}, or X.to({self.dtype})"
            )
        before = Snapshot(X)
        try:
            product = multiply(X)
        except SkerchError:
            raise
        except _PRODUCT_ERRORS as error:
            if not _MISMATCH.search(str(error)):
                raise
            raise InputError(
                f"the operator's product with a tensor {list(X.shape)} of {X.dtype} on {X.device} "
                f"failed ({_one_line(error)}); say in what and where it computes: dtype=, device="
            ) from error
        if not before.is_of(X):
            raise InputError(
                "operator: expected a product that leaves its vectors as they are, got one that "
                "changed them in place; make a new tensor of it, such as X * d for X.mul_(d)"
            )
        check_product(product, shape)
        return product.detach()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.shape}, {self.dtype})"


class TorchLinOpWrapper(LinOp):
    """Lets a real operator that speaks NumPy (SciPy's included) be used with torch tensors.

    Products have the dtype and the device of the tensor that it is multiplied with.

    Example:
        >>> import scipy.sparse
        >>> import torch
        >>> from skerch.linops import TorchLinOpWrapper
        >>> TorchLinOpWrapper(scipy.sparse.diags_array([1.0, 2.0])) @ torch.ones(2)
        tensor([1., 2.])
    """

    def __init__(self, op: Any):
        check_real(getattr(op, "dtype", None), "operator")
        super().__init__(tuple(op.shape))
        self.op = op

    def _matmat(self, X: Tensor) -> Tensor:
        return self._back(_times_array(self.op, X), X)

    def _rmatmat(self, X: Tensor) -> Tensor:
        # (A^T X^T)^T, because NumPy arrays would try to multiply elementwise from the left.
        try:
            return self._back(_times_array(self.op.T, X.T).T, X)
        except (NotImplementedError, TypeError) as error:  # of a LinearOperator without rmatvec
            raise _no_left_product(self.op) from error

    @staticmethod
    def _back(result: np.ndarray, like: Tensor) -> Tensor:
        check_real(result.dtype, "the operator's product")
        return torch.from_numpy(np.ascontiguousarray(result)).to(like)


def _times_array(op: Any, X: Tensor) -> np.ndarray:
    """Return ``op @ X`` as an array; what programs of others may change is a copy."""
    array = X.detach().cpu().numpy()
    if isinstance(op, np.ndarray) or scipy.sparse.issparse(op):
        product: np.ndarray = op @ array
        return product
    array = array.copy()
    if not _multiplies_vectors_only(op):
        return np.asarray(op @ array)
    # SciPy would stack the products when all are made: of one that reuses its memory, the last.
    columns = (np.array(op.matvec(x)).reshape(-1) for x in array.T)
    return np.stack(list(columns), axis=1)


def _multiplies_vectors_only(op: Any) -> bool:
    if not isinstance(op, ScipyLinearOperator):
        return False
    given = getattr(op, "_CustomLinearOperator__matmat_impl", op)  # of LinearOperator(matmat=...)
    return given is None or type(op)._matmat is ScipyLinearOperator._matmat


def check_real(dtype: Any, what: str) -> None:
    """Raise :class:`InputError` for a complex dtype of NumPy."""
    if dtype is not None and np.issubdtype(dtype, np.complexfloating):
        raise InputError(f"{what}: expected real numbers, got {dtype}; {HERMITIAN}")


def _of_function(
    f: Multiply, shape: Any, per_vector: bool, adjoint: Multiply | None
) -> tuple[Multiply, Multiply]:
    """Return ``X -> A X`` and ``X -> X A`` of a function."""
    if shape is None:
        raise InputError(f"a function needs a shape: as_linop(f, (H, W)), got {describe(f)}")
    times = _columnwise(f) if per_vector else f
    if adjoint is None:

        def left(X: Tensor) -> Tensor:
            raise InputError(
                "X @ A: the function was given without its adjoint; as_linop(f, shape, "
                "adjoint=g) with g(X) = A^T X, which is f itself if A is symmetric"
            )

        return times, left
    back = _columnwise(adjoint) if per_vector else adjoint
    return times, lambda X: back(X.T).T


def _columnwise(f: Multiply) -> Multiply:
    # Cloned at once: the next product may be in the same memory.
    return lambda X: torch.stack([torch.clone(f(x)) for x in X.T], dim=1)


def _from_left(op: Any) -> Multiply:
    """Return ``X -> X A`` by the first way that the operator has."""
    if isinstance(op, Tensor) and op.layout != torch.strided:
        transposed = op.to_sparse(sparse_dim=2).T  # of CSR, it is CSC, which multiplies less
        return lambda X: (transposed @ X.T).T
    if hasattr(op, "__rmatmul__"):
        return lambda X: X @ op
    if hasattr(op, "T"):
        return lambda X: (op.T @ X.T).T
    if hasattr(op, "adjoint"):
        return lambda X: (op.adjoint() @ X.T).T

    def none(X: Tensor) -> Tensor:
        raise _no_left_product(op)

    return none


def _no_left_product(op: Any) -> InputError:
    return InputError(
        f"X @ A: expected an operator with __rmatmul__, .T or .adjoint(), got {describe(op)}; "
        "skerch.linops.SymmetricLinOp(op) if it is symmetric, otherwise "
        "as_linop(f, shape, adjoint=g)"
    )


def _find_dtype(op: AdaptedLinOp) -> torch.dtype:
    """Return in which dtype an operator computes, by a product with ones."""
    if isinstance(op.op, TorchLinOpWrapper) and (dtype := torch_dtype(op.op.op)) is not None:
        return dtype  # it computes in any
    errors = []
    for dtype in reversed(DTYPES):
        ones = torch.ones(op.shape[1], 1, dtype=dtype, device=op.device)
        try:
            return (op @ ones).dtype
        except _PRODUCT_ERRORS as error:
            errors.append(f"{dtype}: {_one_line(error)}")
    raise InputError(
        f"operator: expected one that can be multiplied with a tensor [{op.shape[1]}, 1], got "
        f"{describe(op.op)} that fails ({'; '.join(errors)}); does its shape belong to it, and is "
        "it on another device? (device=)"
    )


def _computing(op: Any, dtype: torch.dtype | None) -> str:
    what = describe(op)
    return what if what.endswith(str(dtype)) else f"{what}, which computes in {dtype}"


def _conversion(op: Any, dtype: torch.dtype) -> str:
    return f"operator.to({dtype})" if isinstance(op, Tensor) else f"an operator of {dtype}"


def _one_line(error: BaseException) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"


def _is_numpy(op: Any) -> bool:
    """Say whether an operator is multiplied with arrays, not with tensors."""
    if isinstance(op, (Tensor, LinOp)):
        return False
    if isinstance(op, (np.ndarray, ScipyLinearOperator)) or scipy.sparse.issparse(op):
        return True
    dtype = attribute(op, "dtype")
    return isinstance(dtype, np.dtype) or (
        isinstance(dtype, type) and issubclass(dtype, np.generic)
    )


def _two_numbers(shape: Any, op: Any) -> tuple[int, int]:
    if isinstance(shape, Sequence) and len(shape) == 2 and all(_is_count(n) for n in shape):
        return int(shape[0]), int(shape[1])
    raise InputError(f"expected an operator with a shape (H, W), got {describe(op)} of {shape!r}")


def _is_count(n: Any) -> bool:
    return isinstance(n, (int, np.integer)) and int(n) > 0


def _as_device(device: torch.device | str | None) -> torch.device | None:
    return None if device is None else torch.device(device)


def _device_of(op: Any) -> torch.device | None:
    if _is_numpy(op):
        return None  # products go there and back
    device = attribute(op, "device")
    return device if isinstance(device, torch.device) else None


def _same_device(a: torch.device, b: torch.device) -> bool:
    return a.type == b.type and (None in (a.index, b.index) or a.index == b.index)
