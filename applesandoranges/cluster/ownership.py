"""Whose measurements a directory holds: what others made is never overwritten or removed."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from skerch import BASIS_FMT, INNER_FMT, LO_FMT, RO_FMT
from skerch.errors import StoreError, one_line
from skerch.store.files import is_stale_aside, own_dataset, read_provenance, reading
from skerch.store_names import ALL, FLAGS, INITIAL_FLAG, MERGED, NUMBER

_FORMATS = (LO_FMT, RO_FMT, INNER_FMT, BASIS_FMT)
#: Names as a layout makes them, and no others: ``inner_notes.h5`` is somebody's notes.
_PLACE = rf"(?:\d{{{len(NUMBER.format(0))}}}|{ALL}|{MERGED})"
_NAME = re.compile("|".join(fmt.replace(".", r"\.").format(_PLACE) for fmt in _FORMATS))


def store_files(directory: Path) -> list[Path]:
    """Return the files of a store, the virtual ones last: without them it is none."""
    found = [p for p in directory.iterdir() if p.is_file() and not p.is_symlink() and _ours(p)]
    return sorted(found, key=lambda path: (is_virtual(path), path.name))


def _ours(path: Path) -> bool:
    return _NAME.fullmatch(path.name) is not None or _is_aside(path)


def _is_aside(path: Path) -> bool:
    """Say whether a killed process left it; who writes now, or elsewhere, still needs it."""
    name = path.name[1:].rsplit(".", 4)[0]  # .NAME.HOST.PID.RANDOM.tmp
    return _NAME.fullmatch(name) is not None and is_stale_aside(path)


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
    """Say whether a file of a store holds measurements of another run.

    What may not be read, or not now, is somebody's. Damaged measurements are nobody's: they are
    made again, though a clean-up leaves them alone (:func:`may_be_removed`).
    """
    try:
        return _is_of_others(path, run_id)
    except OSError:
        return True
    except StoreError:
        return False


def may_be_removed(path: Path, run_id: str | None) -> bool:
    """Say whether a file of a store is known not to hold measurements of another run."""
    try:
        return not _is_of_others(path, run_id)
    except (OSError, StoreError):
        return False


def unreadable(path: Path) -> str:
    """Return why a file of a store cannot be read, so that nobody knows whose it is, or nothing."""
    try:
        _is_of_others(path, None)
    except (OSError, StoreError) as error:
        return one_line(error)
    return ""


def _is_of_others(path: Path, run_id: str | None) -> bool:
    """Say whether a file that can be read holds measurements of another run.

    Raises:
        OSError: If the system does not let us read it.
        StoreError: If it is damaged.
    """
    if _is_aside(path):
        return False
    try:
        # HDF5 does not tell what the system refuses from what is no HDF5.
        with path.open("rb") as raw:
            raw.read(1)
    except FileNotFoundError:  # removed in the meantime
        return False
    with reading(path) as file:
        if is_virtual(path):
            return False
        owner = read_provenance(file).get("run_id")
        if owner is not None:
            return bool(owner != run_id)
        if FLAGS not in file:
            return True
        return any(flag != INITIAL_FLAG for flag in own_dataset(file, FLAGS).asstr()[:])
