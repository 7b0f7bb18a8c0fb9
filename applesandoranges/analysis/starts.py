"""Eigenvectors that 10d wrote, as the start of another recovery."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from skerch.errors import InputError
from skerch.store.basis import Start
from skerch.store.files import reading
from skerch.store_names import CHECKSUM

from .eigenspaces import VerifiedRows, described


def start_options(path: str | None, dim: int) -> dict[str, Any]:
    """Return the options of a recovery for START; none if that is not given.

    The name of a start is a hash of the checksum of its vectors, their shape, and of which Hessian
    they are; how they were recovered changes nothing.

    Args:
        path: The file of eigenvectors.
        dim: Number of parameters ``D``.

    Raises:
        InputError: If there is no file, or they are of another number of parameters.
        StoreError: If it is a file of something else. Damage shows when vectors have been read.
    """
    if path is None:
        return {}
    if not Path(path).is_file():
        raise InputError(f"START={path}: no such file; 10d with EIGENVECTORS=k writes one")
    with reading(Path(path)) as file:
        shape, (provenance, _) = VerifiedRows(file).shape, described(file)
        checksum = int(file.attrs[CHECKSUM])
    if len(shape) != 2 or shape[0] != dim or shape[1] < 1:
        raise InputError(
            f"{path}: expected eigenvectors of {dim} parameters, found shape {tuple(shape)}"
        )
    text = json.dumps([list(map(int, shape)), checksum, provenance], sort_keys=True)
    name = hashlib.sha256(text.encode()).hexdigest()
    return {"start": Start(name, int(shape[1]), lambda: _opened(Path(path)))}


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[VerifiedRows]:
    with reading(path) as file:
        yield VerifiedRows(file)
