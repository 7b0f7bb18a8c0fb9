"""Which measurement a file holds: by its name, and by its own account.

A file that was renamed, restored under another name or copied over another one still says what it
was measured as.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np

from ..errors import StoreError
from ..store_names import ALL, INDEX, INNER_FMT, KIND, LO_FMT, RO_FMT

_SUB_FILE = re.compile(r"(?P<kind>.+)_(?P<index>\d{10})\.h5", re.DOTALL)


@dataclass(frozen=True)
class Place:
    """Number ``index`` of the measurements of a ``kind``: ``leftouter``, ``inner`` ..."""

    kind: str
    index: int

    @classmethod
    def of_name(cls, path: Path) -> Place | None:
        """Return what the name of a file says; ``None`` if it is not that of a measurement."""
        match = _SUB_FILE.fullmatch(path.name)
        return cls(match["kind"], int(match["index"])) if match else None

    @classmethod
    def by_own_account(cls, file: h5py.File) -> Place | None:
        """Return what an open file says of itself; ``None`` if nothing."""
        kind, index = file.attrs.get(KIND), file.attrs.get(INDEX)
        if kind is None and index is None:
            return None
        if not isinstance(kind, str) or not isinstance(index, np.integer):
            raise StoreError(f"{file.filename}: does not say rightly which measurement it holds")
        return cls(kind, int(index))

    def __str__(self) -> str:
        return f"measurement {self.index} of {self.kind!r}"


def check_place(file: h5py.File, needed: bool) -> None:
    """Raise :class:`StoreError` if an open sub-file holds another measurement than its name says.

    Args:
        file: The file.
        needed: Whether it must say what it holds; files of other tools do not.
    """
    expected = Place.of_name(Path(file.filename))
    if expected is None:
        return
    found = Place.by_own_account(file)
    if found is None and needed:
        raise StoreError(
            f"{file.filename}: does not say which measurement it holds, as those of earlier "
            "versions"
        )
    if found not in (None, expected):
        raise StoreError(f"{file.filename}: holds {found} instead, which was renamed or copied")


def check_names(all_path: Path, names: list[str]) -> str:
    """Return the kind of the sub-files ``names``, one for each column of a virtual file in order.

    Raises:
        StoreError: If a column is not the file of its number, or the virtual file has the name of
            another kind.
    """
    places = [Place.of_name(Path(name)) for name in names]
    kind = places[0].kind if places and places[0] is not None else ""
    for index, (name, place) in enumerate(zip(names, places, strict=True)):
        if place != Place(kind, index):
            raise StoreError(
                f"{all_path}: column {index} is {name!r}, expected measurement {index} of one kind"
            )
    check_kind(all_path, kind, ALL)
    return kind


def check_kind(path: Path, kind: str, word: str) -> None:
    """Raise :class:`StoreError` if a file over many measurements is named after another kind.

    Args:
        path: The file.
        kind: What it holds.
        word: What stands in its name in place of a number.
    """
    others = {fmt.format(word) for fmt in (LO_FMT, RO_FMT, INNER_FMT)} - {f"{kind}_{word}.h5"}
    if path.name in others:
        raise StoreError(f"{path}: holds measurements of {kind!r}, which its name denies")
