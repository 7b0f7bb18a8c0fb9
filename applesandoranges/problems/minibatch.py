"""Mini-batches ``(inputs, targets)`` whose halves may be nested: dictionaries, lists, tuples."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from skerch.errors import InputError

#: What a network is given, and what its loss compares the outputs with.
Batch = tuple[Any, Any]


def leaves(nested: Any) -> list[Any]:
    """Return all that is no dictionary, list or tuple."""
    return pytree.tree_leaves(nested)


def convert(value: Any, function: Callable[[Tensor], Tensor]) -> Any:
    """Return ``value`` with ``function`` applied to each of its tensors, however they are nested.

    Mappings keep their type (some libraries have their own), and what is no tensor is left alone.
    """
    if isinstance(value, Tensor):
        return function(value)
    if isinstance(value, Mapping):
        items = {name: convert(item, function) for name, item in value.items()}
        if type(value) is dict:
            return items
        changed: Any = copy.copy(value)
        for name, item in items.items():
            changed[name] = item
        return changed
    if isinstance(value, list | tuple):
        parts = [convert(item, function) for item in value]
        return type(value)(*parts) if hasattr(value, "_fields") else type(value)(parts)
    return value


def tensors(value: Any) -> list[Tensor]:
    """Return all tensors in ``value``."""
    found: list[Tensor] = []

    def keep(tensor: Tensor) -> Tensor:
        found.append(tensor)
        return tensor

    convert(value, keep)
    return found


def to_device(nested: Any, device: torch.device) -> Any:
    """Return the same with all tensors on ``device``."""
    return convert(nested, lambda x: x.to(device))


def num_points(batch: Batch) -> int:
    """Return the number of data points: the common length of all tensors.

    Raises:
        InputError: If there is no such length.
    """
    lengths = {len(x) if x.ndim else None for x in leaves(batch) if isinstance(x, Tensor)}
    if len(lengths) != 1 or None in lengths:
        raise InputError(
            "expected a mini-batch whose tensors all have the data points as first dimension, got "
            f"lengths {sorted(lengths, key=str)}"
        )
    (length,) = lengths
    return int(length or 0)


def cut(batch: Batch, num: int) -> Batch:
    """Return the first ``num`` data points."""
    inputs, targets = convert(batch, lambda x: x[:num])
    return inputs, targets


def first_points(batches: Iterable[Batch], num: int) -> Iterator[Batch]:
    """Yield mini-batches until they hold ``num`` data points; the last one may be cut."""
    left = num
    for batch in batches:
        if left <= 0:
            return
        here = num_points(batch)
        yield batch if here <= left else cut(batch, left)
        left -= min(here, left)


def update_digest(digest: Any, nested: Any) -> None:
    """Feed a hash with names, dtypes, shapes and values.

    Raises:
        InputError: If there is anything but numbers and texts.
    """
    flat, structure = pytree.tree_flatten(nested)
    digest.update(str(structure).encode())
    for x in flat:
        values = x.detach().cpu().numpy() if isinstance(x, Tensor) else np.asarray(x)
        if values.dtype.hasobject:
            raise InputError(f"expected numbers or texts as data, got a {type(x).__name__}")
        digest.update(f"{values.dtype}{values.shape}".encode())
        digest.update(np.ascontiguousarray(values).tobytes())


def hash_of(parts: Iterable[Any]) -> str:
    """Return a SHA-256 over nested values, in order."""
    digest = hashlib.sha256()
    for part in parts:
        update_digest(digest, part)
    return digest.hexdigest()
