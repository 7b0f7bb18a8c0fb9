"""What lies in a store: the virtual file, its sub-files, and which of them count.

Sub-files are always read one by one: a virtual data set over more files than a process may open
reads as zeros, without an error.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from ..errors import InputError, StoreError
from ..store_names import CHECKSUM, DATA, FLAGS, INITIAL_FLAG
from .files import (
    Provenance,
    differences,
    format_indices,
    own_dataset,
    read_made_with,
    read_provenance,
    reading,
)
from .places import check_names, check_place

UNKNOWN_PROVENANCE = "of another Hessian: it does not say of which"


@dataclass(frozen=True)
class Header:
    """What a sub-file says about its data: flag, provenance and the checksum they should have."""

    flag: str
    provenance: dict[str, Any]
    checksum: int | None


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What measurements must carry to count; see :func:`analyze_virtual`."""

    ok_flag: str
    provenance: Provenance | None
    allow_unknown: bool


@dataclass(frozen=True)
class VirtualSet:
    """What a virtual file says about its sub-files.

    ``shape`` is ``(dim, n)``, ``kind`` the beginning of the names of all sub-files.
    """

    path: Path
    kind: str
    shape: tuple[int, int]
    dtype: np.dtype
    subpaths: tuple[Path, ...]

    def first(self, num: int | None) -> VirtualSet:
        """Return the first ``num`` columns; ``None`` means all."""
        if num is None:
            return self
        if not 1 <= num <= self.shape[1]:
            raise InputError(f"{self.path}: expected 1 to {self.shape[1]} columns, got {num}")
        return replace(self, shape=(self.shape[0], num), subpaths=self.subpaths[:num])

    def require_kind(self, kind: str) -> VirtualSet:
        """Return itself; raise :class:`StoreError` if it is of another kind."""
        if self.kind != kind:
            raise StoreError(f"{self.path}: expected measurements of {kind!r}, not {self.kind!r}")
        return self


@dataclass(frozen=True)
class StoreReport:
    """State of each measurement of a virtual set.

    Attributes:
        measured: Indices that carry the success flag and the expected provenance.
        problems: For every other index, why it does not count.
        provenance: What all measured ones have in common (their whole provenance).
        sources: :func:`hash_of_sums` of all; ``None`` if some do not count, or have no checksum.
        made_with: What each measured one says that it was made with, in the order of ``measured``.
    """

    path: Path
    measured: list[int]
    problems: dict[int, str]
    provenance: dict[str, Any]
    sources: str | None = None
    made_with: list[dict[str, Any]] = field(default_factory=list)

    @property
    def without_provenance(self) -> list[int]:
        """Indices that do not count because their files do not say of which Hessian they are."""
        return [idx for idx, reason in self.problems.items() if reason == UNKNOWN_PROVENANCE]

    def require_complete(self) -> None:
        """Raise :class:`StoreError` that lists the indices which do not count, and why."""
        if not self.problems:
            return
        reasons: dict[str, list[int]] = {}
        for idx, reason in self.problems.items():
            reasons.setdefault(reason, []).append(idx)
        text = "; ".join(f"{format_indices(idxs)} ({why})" for why, idxs in reasons.items())
        total = len(self.problems) + len(self.measured)
        raise StoreError(
            f"{self.path}: {len(self.problems)} of {total} measurements cannot be used: "
            f"{text}. Measure these indices again"
        )


def load_virtual(all_path: Path) -> VirtualSet:
    """Read the virtual file alone: shape, dtype and the paths of the sub-files in order.

    Raises:
        StoreError: If it is none, or its columns are not the files of their numbers, in order.
    """
    all_path = Path(all_path)
    with reading(all_path) as file:
        data = own_dataset(file, DATA, virtual=True)
        sources = data.virtual_sources()
        shape, dtype = data.shape, data.dtype
    names: dict[int, str] = {}
    for source in sources:
        begin, end = source.vspace.get_select_bounds()
        if begin[1] == end[1]:
            names[begin[1]] = Path(source.file_name).name
    if len(shape) != 2 or sorted(names) != list(range(shape[1])):
        raise StoreError(f"{all_path}: expected one sub-file for each column of {shape}")
    kind = check_names(all_path, [names[i] for i in range(shape[1])])
    subpaths = tuple(all_path.with_name(names[i]) for i in range(shape[1]))
    return VirtualSet(all_path, kind, (shape[0], shape[1]), dtype, subpaths)


def analyze_virtual(
    all_path: Path,
    ok_flag: str,
    provenance: Provenance | None = None,
    allow_unknown: bool = False,
    num: int | None = None,
) -> StoreReport:
    """Say of each measurement whether it can be used, without reading its data.

    Args:
        all_path: The virtual file.
        ok_flag: Flag of a successful measurement.
        provenance: What each must carry. Without it, all must carry the same.
        allow_unknown: Accept files without any provenance (of other tools).
        num: Look at the first ``num`` measurements only.
    """
    layout = load_virtual(all_path).first(num)
    wanted = Wanted(ok_flag=ok_flag, provenance=provenance, allow_unknown=allow_unknown)
    measured: list[int] = []
    problems: dict[int, str] = {}
    sums: list[int | None] = []
    made_with: list[dict[str, Any]] = []
    common: dict[str, Any] | None = None
    for idx, path in enumerate(layout.subpaths):
        try:
            with reading(path) as file:
                header, data = examine(file, layout.shape[0], layout.dtype)
                stored, software = data.id.get_storage_size(), read_made_with(file)
        except StoreError as error:
            missing = not path.is_file()
            problems[idx] = "missing" if missing else str(error).partition(": ")[2]
            continue
        problem = _problem(header, stored, wanted, common)
        if problem:
            problems[idx] = problem
        else:
            measured.append(idx)
            sums.append(header.checksum)
            made_with.append(software)
            common = header.provenance if common is None else common
    known = [checksum for checksum in sums if checksum is not None]
    sources = hash_of_sums(known) if len(known) == len(layout.subpaths) else None
    return StoreReport(layout.path, measured, problems, common or {}, sources, made_with)


def hash_of_sums(checksums: Sequence[int]) -> str:
    """Return a SHA-256 over the checksums of measurements, in order."""
    return hashlib.sha256(np.array(checksums, dtype="<u4").tobytes()).hexdigest()


def examine(
    file: h5py.File, dim: int | None, dtype: np.dtype | None
) -> tuple[Header, h5py.Dataset]:
    """Return the header and the data of a sub-file.

    Raises:
        StoreError: If it is none, holds another measurement than its name says, or is of another
            size or dtype.
    """
    data, flags = own_dataset(file, DATA), own_dataset(file, FLAGS)
    if data.ndim != 1 or (dim is not None and data.shape != (dim,)):
        raise StoreError(f"{file.filename}: expected data of shape ({dim},), found {data.shape}")
    if dtype is not None and data.dtype != dtype:
        raise StoreError(f"{file.filename}: expected dtype {dtype}, found {data.dtype}")
    if flags.shape != (1,) or h5py.check_string_dtype(flags.dtype) is None:
        raise StoreError(f"{file.filename}: expected one text in {FLAGS!r}")
    checksum = file.attrs.get(CHECKSUM)
    header = Header(
        flags.asstr()[0], read_provenance(file), None if checksum is None else int(checksum)
    )
    check_place(file, needed=bool(header.provenance))
    return header, data


def _problem(
    header: Header, stored_bytes: int, wanted: Wanted, common: dict[str, Any] | None
) -> str:
    """Say why a measurement does not count, or does not belong to the others; empty if it does."""
    flag, found = header.flag, header.provenance
    if flag == INITIAL_FLAG:
        return "not measured"
    if flag != wanted.ok_flag:
        return f"flag is {flag!r} instead of {wanted.ok_flag!r}"
    if stored_bytes == 0:
        return "flagged, but never written"
    if wanted.provenance is not None and (found or not wanted.allow_unknown):
        if not found:
            return UNKNOWN_PROVENANCE
        if wrong := differences(wanted.provenance, found):
            return f"of another Hessian: {wrong}"
    if common is not None and found != common:
        return f"of another Hessian: {differences(common, found) or 'more provenance'}"
    return ""


def common_provenance(layout: VirtualSet) -> dict[str, Any]:
    """Return the provenance of all measured sub-files.

    Raises:
        StoreError: If they are of different Hessians.
    """
    first: tuple[Path, dict[str, Any]] | None = None
    for path in layout.subpaths:
        with reading(path) as file:
            header, _ = examine(file, layout.shape[0], layout.dtype)
        if header.flag == INITIAL_FLAG:
            continue
        if first is None:
            first = (path, header.provenance)
        elif header.provenance != first[1]:
            wrong = differences(first[1], header.provenance) or "more provenance"
            raise StoreError(f"{path} and {first[0]} are of different Hessians: {wrong}")
    return first[1] if first else {}
