"""What operators and what they are multiplied with have to be: one clear line for all else.

Everything here computes in single or double precision and in real numbers. Operators may be of
any kind (:func:`skerch.as_linop`), what they are multiplied with is a tensor. Other dtypes and
numbers near the limits of their dtype are refused rather than converted: a conversion would lose
imaginary parts, digits or the device without a word. Only integers of NumPy and SciPy operators are
converted, to float64.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from .errors import InputError, NumericalError

#: What is computed in.
DTYPES = (torch.float32, torch.float64)
#: Norms of an operator with which everything is right. Of the products in single precision no part
#: may be denormal that exceeds round-off. What is double has squares as well, of residuals for one.
SCALES = {torch.float32: (1e-31, 1e37), torch.float64: (1e-135, 1e150)}

#: What NumPy's dtypes are called in torch.
_OF_NUMPY = {np.dtype(np.float32): torch.float32, np.dtype(np.float64): torch.float64}
#: What to do with a complex operator.
HERMITIAN = (
    "take its real and its imaginary part one by one; a Hermitian A + iB has the eigenvalues of "
    "the real [[A, -B], [B, A]], which has each twice"
)


def check_dtype(dtype: torch.dtype) -> None:
    """Raise :class:`InputError` unless it is single or double precision."""
    if dtype not in DTYPES:
        raise InputError(f"expected dtype torch.float32 or torch.float64, got {dtype}")


def check_operand(X: Any, what: str, shape: str) -> None:
    """Raise :class:`InputError` unless ``X`` is a real torch tensor in single or double precision.

    Args:
        X: Anything.
        what: What it is for, for the error message.
        shape: That is expected, for the error message.
    """
    if isinstance(X, Tensor) and X.dtype in DTYPES:
        return
    raise InputError(
        f"{what}: expected a torch tensor {shape} of float32 or float64, got {describe(X)}; "
        f"{_remedy(X, str(attribute(X, 'dtype') or ''))}"
    )


def check_product(product: Any, shape: tuple[int, int]) -> None:
    """Raise :class:`InputError` unless an operator gave what it should have."""
    check_operand(product, "the operator's product", str(list(shape)))
    if tuple(product.shape) != shape:
        raise InputError(
            f"the operator's product: expected shape {shape}, got {tuple(product.shape)}; does the "
            "operator's shape belong to it?"
        )


def check_scale(largest: float, eps: float, what: str) -> None:
    """Raise :class:`NumericalError` if numbers are too close to the limits of their dtype.

    Args:
        largest: Magnitude of the largest number; 0 is left to others.
        eps: Machine epsilon of what is stored.
        what: What they are, for the error message.
    """
    dtype = torch.float32 if eps > torch.finfo(torch.float64).eps else torch.float64
    least, most = SCALES[dtype]
    if largest != 0 and not least <= largest <= most:
        raise NumericalError(
            f"{what}: expected magnitudes of {least:g} to {most:g} for {dtype}, got "
            f"{largest:.3g}; scale the operator: c H has the eigenvalues c lambda"
        )


def attribute(op: Any, name: str) -> Any:
    """Return an attribute, or ``None`` where there is none or it is an abstract property."""
    try:
        return getattr(op, name, None)
    except NotImplementedError:
        return None


def torch_dtype(op: Any) -> torch.dtype | None:
    """Return the dtype that an operator says it computes in; ``None`` if it does not say.

    Raises:
        InputError: If that is neither single nor double precision; the line says what to do.
    """
    said = attribute(op, "dtype")
    found: torch.dtype | None
    if isinstance(said, torch.dtype):
        found = said
    elif isinstance(said, (np.dtype, type)):
        dtype = np.dtype(said)
        integer = np.issubdtype(dtype, np.integer) or dtype == np.bool_
        found = torch.float64 if integer else _OF_NUMPY.get(dtype)
    else:
        return None
    if found in DTYPES:
        return found
    raise InputError(
        f"operator: expected float32 or float64, got {describe(op)}; {_remedy(op, str(said))}"
    )


def describe(X: Any) -> str:
    """Say in some words what something is, for error messages."""
    if isinstance(X, Tensor):
        return f"a tensor {list(X.shape)} of {X.dtype}"
    if isinstance(X, np.ndarray):
        return f"a NumPy array {list(X.shape)} of {X.dtype}"
    dtype = attribute(X, "dtype")
    return f"a {type(X).__module__}.{type(X).__qualname__}" + (f" of {dtype}" if dtype else "")


def _remedy(X: Any, dtype: str) -> str:
    if "complex" in dtype:
        return HERMITIAN
    if isinstance(X, np.ndarray):
        return "convert it: torch.from_numpy(array).double()"
    if isinstance(X, Tensor):
        return "convert it: tensor.double()"
    if dtype:
        return "convert it: make it in float32 or float64"
    return "convert it: torch.as_tensor(values, dtype=torch.float64)"


class Snapshot:
    """What shows later whether a matrix was changed in place.

    Torch counts changes, but not those by way of NumPy or ``.data``: some numbers are compared.
    """

    SIDE = 64

    def __init__(self, X: Tensor):
        self._count = self._counted(X)
        self._some = self._chosen(X).clone()

    def is_of(self, X: Tensor) -> bool:
        """Say whether nothing has changed, as far as one can see."""
        same = torch.allclose(self._some, self._chosen(X), rtol=0, atol=0, equal_nan=True)
        return same and self._counted(X) == self._count

    def _chosen(self, X: Tensor) -> Tensor:
        height, width = (max(1, size // self.SIDE) for size in X.shape)
        return X[::height, ::width]

    @staticmethod
    def _counted(X: Tensor) -> int:
        return 0 if X.is_inference() else X._version
