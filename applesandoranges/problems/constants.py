"""Numbers that a file of a problem holds beside parameters and data: weights of a loss, scales.

They may come from other files, which no hash of source code covers.
"""

from __future__ import annotations

import sys
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from .parameters import named_hash, storable


def constants_hash(
    sources: Collection[Path], net: nn.Module, loss: nn.Module, others: Mapping[str, Any]
) -> str:
    """Return a SHA-256 over all numbers that are found without running the code.

    Args:
        sources: Files of which tensors and arrays at the top level count.
        net: Tensors, arrays and numbers that are attributes of its modules count.
        loss: The same, and its parameters and buffers.
        others: Attributes of the object that defines the problem.
    """
    found: dict[str, Any] = {f"loss/{name}": value for name, value in loss.state_dict().items()}
    found |= {f"others/{name}": value for name, value in others.items() if _is_array(value)}
    for name, value in _of_files(sources):
        found[name] = value
    for kind, module in (("net", net), ("loss", loss)):
        found |= {f"{kind}/{name}": value for name, value in _of_modules(module)}
    return _hash(found)


def attribute_hashes(net: nn.Module) -> dict[str, str]:
    """Return a hash of each attribute of a network's modules that is a number, or has some.

    Parameters and buffers are none of them.
    """
    return {name: _hash({name: value}) for name, value in _of_modules(net)}


def _hash(found: Mapping[str, Any]) -> str:
    tensors = {name: _as_tensor(value) for name, value in found.items() if _is_array(value)}
    numbers = {name: value for name, value in found.items() if not _is_array(value)}
    return named_hash(tensors, repr(sorted(numbers.items())))


def _of_files(sources: Collection[Path]) -> Iterator[tuple[str, Any]]:
    paths = {str(path) for path in sources}
    for module in [*sys.modules.values()]:
        path = getattr(module, "__file__", None)
        if isinstance(path, str) and path in paths:
            for name, value in [*vars(module).items()]:
                if _is_array(value):
                    yield f"{Path(path).name}/{name}", value


def _of_modules(root: nn.Module) -> Iterator[tuple[str, Any]]:
    for prefix, module in root.named_modules():
        for name, value in vars(module).items():
            counts = _is_array(value) or (_is_numbers(value) and name != "training")
            if counts and not name.startswith("_"):
                yield f"{prefix}.{name}", value


def _is_numbers(value: Any) -> bool:
    if isinstance(value, (list, tuple)):
        return all(map(_is_numbers, value))
    return isinstance(value, (bool, int, float))


def _is_array(value: Any) -> bool:
    if isinstance(value, Tensor):
        return value.layout == torch.strided
    return isinstance(value, np.ndarray) and value.dtype.kind in "biufc"


def _as_tensor(value: Tensor | np.ndarray) -> Tensor:
    if isinstance(value, np.ndarray):
        return torch.as_tensor(np.array(value, dtype=value.dtype.newbyteorder("=")))
    return storable(value)
