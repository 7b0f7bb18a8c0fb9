"""Mini-batches as people have them: nested inputs of any kind, read again and again."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch

from skerch.errors import InputError

from ..problems.minibatch import convert, tensors


def num_points(X: Any, y: Any) -> int:
    """Return how many data points a mini-batch has: the length of its first target or input.

    Raises:
        InputError: If it has no tensor with a first dimension.
    """
    for tensor in [*tensors(y), *tensors(X)]:
        if tensor.ndim:
            return len(tensor)
    raise InputError("expected tensors [N, ...] in each mini-batch (X, y), found none")


def cut(value: Any, begin: int, end: int, num: int) -> Any:
    """Return data points ``begin ... end - 1`` of ``value``, which holds ``num`` of them."""
    return convert(value, lambda t: t[begin:end] if t.ndim and len(t) == num else t)


def to_dtype(value: Any, dtype: torch.dtype) -> Any:
    """Return ``value`` with its floating point tensors in ``dtype``."""
    return convert(value, lambda t: t.to(dtype) if t.is_floating_point() else t)


def check_data(data: Iterable[Any]) -> None:
    """Check that ``data`` can be read again and again, and are pairs; reads the first mini-batch.

    Raises:
        InputError: If not.
    """
    try:
        first = iter(data)
    except TypeError:
        kind = type(data).__name__
        raise InputError(
            f"expected mini-batches (X, y), e.g. a list or a DataLoader, found {kind}"
        ) from None
    if first is data:
        raise InputError(
            f"these data can be read once only ({type(data).__name__}), but each product reads "
            "them: give a list of mini-batches or a DataLoader"
        )
    for batch in first:
        _check_pair(batch)
        return
    raise InputError("there are no mini-batches in these data")


def _check_pair(batch: Any) -> None:
    if isinstance(batch, list | tuple) and len(batch) == 2:
        return
    size = f" of {len(batch)}" if isinstance(batch, list | tuple) else ""
    raise InputError(
        f"expected mini-batches (X, y), found a {type(batch).__name__}{size}: give a list or a "
        "DataLoader of pairs, the inputs of the network (nested as it takes them) and the targets"
    )


def check_finite(X: Any, number: int) -> None:
    """Raise :class:`InputError` if inputs of mini-batch ``number`` are NaN or infinite."""
    for tensor in tensors(X):
        if not bool(torch.isfinite(tensor).all()):
            raise InputError(f"the inputs of mini-batch {number} are NaN or infinite in places")
