"""Whose measurements a directory holds: what others made is never overwritten or removed."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterator
from pathlib import Path

from skerch import BASIS_FMT, INNER_FMT, LO_FMT, RO_FMT
from skerch.errors import StoreError
from skerch.store.files import own_dataset, read_provenance, reading
from skerch.store_names import ALL, FLAGS, INITIAL_FLAG

_FORMATS = (LO_FMT, RO_FMT, INNER_FMT, BASIS_FMT)


def store_files(directory: Path) -> list[Path]:
    """Return the files of a store, the virtual ones last: without them it is none."""
    found = [p for p in directory.iterdir() if p.is_file() and not p.is_symlink() and _ours(p)]
    return sorted(found, key=lambda path: (is_virtual(path), path.name))


def _ours(path: Path) -> bool:
    # Also what a killed process left aside.
    names = [name for fmt in _FORMATS for name in (fmt.format("*"), f".{fmt.format('*')}.*.tmp")]
    return any(fnmatch.fnmatchcase(path.name, name) for name in names)


def is_virtual(path: Path) -> bool:
    """Say whether a file is that over all measurements of a kind."""
    return path.name in [fmt.format(ALL) for fmt in _FORMATS]


def is_store(directory: Path) -> bool:
    """Say whether a directory holds measurements, or room for them."""
    return directory.is_dir() and any(is_virtual(path) for path in store_files(directory))


def foreign_files(directory: Path, run_id: str | None) -> Iterator[Path]:
    """Yield the files of a store that hold measurements of another run, or of who knows which.

    Args:
        directory: The store.
        run_id: Of the run whose measurements are not foreign; ``None`` for a run to come.
    """
    return (path for path in store_files(directory) if is_foreign(path, run_id))


def is_foreign(path: Path, run_id: str | None) -> bool:
    """Say whether a file of a store holds measurements of another run; damaged ones are nobody's.

    Raises nothing: what cannot be read cannot be of use to anybody.
    """
    if is_virtual(path) or path.suffix == ".tmp":
        return False
    try:
        with reading(path) as file:
            owner = read_provenance(file).get("run_id")
            if owner is not None:
                return bool(owner != run_id)
            if FLAGS not in file:
                return True
            return any(flag != INITIAL_FLAG for flag in own_dataset(file, FLAGS).asstr()[:])
    except StoreError:
        return False
