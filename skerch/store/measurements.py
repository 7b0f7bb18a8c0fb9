"""Measurements in HDF5: one file each, a virtual data set over them, and a monolithic copy.

Many processes write measurements at the same time, each as a file of its own that appears under
its name only when it is complete (written aside, then renamed), with a checksum of its data and
the provenance that its writer gives it. Sub-files are always read one by one: a virtual data set
over more files than a process may open reads as zeros, without an error.

Layout of a sub-file: ``data`` ``(dim,)`` and ``flags`` ``(1,)`` (text), as in the virtual file
``data`` ``(dim, n)`` and ``flags`` ``(n,)``. Attributes hold what this module adds.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import re
import threading
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np

from ..budget import default_memory_budget, rows_within
from ..errors import InputError, NumericalError, StoreError
from .files import (
    MADE_WITH,
    PROVENANCE,
    Provenance,
    check_writable,
    differences,
    format_indices,
    own_dataset,
    read_provenance,
    reading,
    remove_stale_asides,
    replacing,
    reserve_space,
)

if TYPE_CHECKING:  # reading a store takes no torch, whose import takes seconds
    import torch

DATA, FLAGS = "data", "flags"
CHECKSUM = "crc32"
INITIAL_FLAG = "initialized"
UNKNOWN_PROVENANCE = "of another Hessian: it does not say of which"


@dataclass(frozen=True)
class Measurement:
    """One sub-file: ``data`` ``[dim]``, flag, provenance and the checksum it should have."""

    data: np.ndarray
    flag: str
    provenance: dict[str, Any]
    checksum: int | None


@dataclass(frozen=True)
class VirtualSet:
    """What a virtual file says about its sub-files; ``shape`` is ``(dim, n)``."""

    path: Path
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


@dataclass(frozen=True)
class StoreReport:
    """State of each measurement of a virtual set.

    Attributes:
        measured: Indices that carry the success flag and the expected provenance.
        problems: For every other index, why it does not count.
        provenance: What all measured ones have in common (their whole provenance).
    """

    path: Path
    measured: list[int]
    problems: dict[int, str]
    provenance: dict[str, Any]

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


class DistributedHDF5:
    """Creates, fills, inspects and merges measurement stores."""

    SUBPATH_FORMAT = "{:010d}"
    ALL = "ALL"

    @classmethod
    def subpath(cls, directory: Path, fmt: str, idx: int) -> Path:
        """Return the path of measurement ``idx``; ``fmt`` is e.g. :data:`skerch.LO_FMT`."""
        return Path(directory) / fmt.format(cls.SUBPATH_FORMAT.format(idx))

    @classmethod
    def create(cls, directory: Path, fmt: str, num: int, dim: int, dtype: np.dtype) -> Path:
        """Create ``num`` empty sub-files of ``dim`` entries and the virtual file over them.

        Space is reserved when a measurement is written, not here.

        Returns:
            Path of the virtual file.
        """
        directory = Path(directory)
        image = _image(_new_file((dim,), np.dtype(dtype), INITIAL_FLAG, {})[0])
        data = h5py.VirtualLayout((dim, num), dtype)
        flags = h5py.VirtualLayout((num,), h5py.string_dtype())
        for idx in range(num):
            path = cls.subpath(directory, fmt, idx)
            _write_image(path, image)
            data[:, idx] = h5py.VirtualSource(path.name, DATA, (dim,), dtype)
            flags[idx : idx + 1] = h5py.VirtualSource(path.name, FLAGS, (1,), h5py.string_dtype())
        all_path = directory / fmt.format(cls.ALL)
        with replacing(all_path) as aside, h5py.File(aside, "w") as file:
            file.create_virtual_dataset(DATA, data)
            file.create_virtual_dataset(FLAGS, flags)
        return all_path

    @staticmethod
    def write(
        path: Path,
        values: np.ndarray | torch.Tensor,
        flag: str,
        provenance: Provenance,
        made_with: Provenance | None = None,
    ) -> None:
        """Write one measurement, replacing what was there only when it is complete.

        Args:
            path: The sub-file.
            values: ``[dim]``.
            flag: Success flag.
            provenance: Whatever tells this measurement from those of another matrix.
            made_with: Versions of software; written down, but not compared by anything.

        Raises:
            NumericalError: If a value is NaN or infinite; nothing is written.
        """
        if not isinstance(values, np.ndarray):
            values = values.detach().cpu().numpy()
        array = np.ascontiguousarray(values)
        if not np.isfinite(array).all():
            bad = int((~np.isfinite(array)).sum())
            raise NumericalError(f"{path.name}: {bad} of {array.size} values are NaN or infinite")
        image = _measurement_image(array, flag, provenance, made_with or {})
        _write_image(Path(path), image)

    @staticmethod
    def load(path: Path, dim: int | None = None, dtype: np.dtype | None = None) -> Measurement:
        """Read one measurement and verify its checksum.

        Raises:
            StoreError: If the file is missing, damaged, or of another size or dtype.
        """
        with reading(Path(path)) as file:
            flag, provenance, checksum, data = _examine(file, dim, dtype)
            values = data[:]
        if checksum is not None and zlib.crc32(values.data) != checksum:
            raise StoreError(f"{path}: the checksum of its data does not match")
        return Measurement(values, flag, provenance, checksum)

    @staticmethod
    def load_virtual(all_path: Path) -> VirtualSet:
        """Read the virtual file alone: shape, dtype and the paths of the sub-files in order."""
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
        subpaths = tuple(all_path.with_name(names[i]) for i in range(shape[1]))
        return VirtualSet(all_path, (shape[0], shape[1]), dtype, subpaths)

    @classmethod
    def analyze_virtual(
        cls,
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
        layout = cls.load_virtual(all_path).first(num)
        measured: list[int] = []
        problems: dict[int, str] = {}
        common: dict[str, Any] | None = None
        for idx, path in enumerate(layout.subpaths):
            try:
                with reading(path) as file:
                    flag, found, _, data = _examine(file, layout.shape[0], layout.dtype)
                    stored = data.id.get_storage_size()
            except StoreError as error:
                missing = not path.is_file()
                problems[idx] = "missing" if missing else str(error).partition(": ")[2]
                continue
            problem = _problem(flag, ok_flag, stored, found, provenance, common, allow_unknown)
            if problem:
                problems[idx] = problem
            else:
                measured.append(idx)
                common = found if common is None else common
        return StoreReport(layout.path, measured, problems, common or {})

    @classmethod
    def check_output(
        cls, all_path: Path, out_path: Path, overwrite: bool, num: int | None = None
    ) -> None:
        """Raise :class:`InputError` if merging ``all_path`` must not write ``out_path``.

        An existing file may be replaced only if asked, and if it is the merge of such a store.
        """
        layout = cls.load_virtual(all_path).first(num)
        if not out_path.parent.is_dir():
            raise InputError(f"{out_path}: its directory does not exist")
        check_writable(out_path.parent)
        if not out_path.exists():
            return
        if not overwrite:
            raise InputError(f"{out_path}: exists already; remove it or ask to overwrite it")
        try:
            with reading(out_path) as old:
                data = own_dataset(old, DATA)
                own_dataset(old, FLAGS)
                same = data.shape[:1] == layout.shape[:1] and data.dtype == layout.dtype
        except StoreError:
            same = False
        if not same:
            raise InputError(
                f"{out_path}: exists and is not a merged store of {layout.shape[0]} rows and dtype "
                f"{layout.dtype}; it is left alone"
            )

    @classmethod
    def merge_all(
        cls,
        all_path: Path,
        out_path: Path,
        ok_flag: str | None = None,
        provenance: Provenance | None = None,
        memory_budget: int | None = None,
        delete_subfiles: bool = False,
        overwrite: bool = False,
        allow_unknown: bool = False,
        num: int | None = None,
    ) -> Path:
        """Copy all measurements into one contiguous ``(dim, n)`` data set, by blocks of rows.

        The monolithic file replaces an existing one only when it is complete. Checksums are
        verified on the way.

        Args:
            all_path: The virtual file.
            out_path: The monolithic file.
            ok_flag: If given, every measurement must carry it; otherwise the flags are copied as
                they are, and measurements that were never written are zero.
            provenance: What every measurement must carry; without it, all must carry the same.
            memory_budget: Bytes to hold at once; default a quarter of the machine.
            delete_subfiles: Remove the sub-files after success.
            overwrite: Replace an existing monolithic file of the same shape and dtype.
            allow_unknown: Accept files without provenance.
            num: Merge the first ``num`` measurements only.

        Raises:
            InputError: If the output exists (or is something else than an earlier merge).
            StoreError: If measurements are missing, stale, mixed or damaged; the line lists them.
        """
        layout, out_path = cls.load_virtual(all_path).first(num), Path(out_path)
        cls.check_output(all_path, out_path, overwrite, num)
        if ok_flag is not None:
            report = cls.analyze_virtual(all_path, ok_flag, provenance, allow_unknown, num)
            report.require_complete()
            common = report.provenance
        else:
            common = _common_provenance(layout)
        budget = default_memory_budget() if memory_budget is None else memory_budget
        remove_stale_asides(out_path.parent)
        with (
            replacing(out_path, durable=True, overwrite=overwrite) as aside,
            h5py.File(aside, "w") as out,
        ):
            flags, checksum = _copy_columns(layout, out, common, ok_flag, budget)
            out.create_dataset(FLAGS, data=flags, dtype=h5py.string_dtype())
            out.attrs[PROVENANCE] = json.dumps(common)
            if checksum is not None:
                out.attrs[CHECKSUM] = checksum
        if delete_subfiles:
            for path in layout.subpaths:
                path.unlink()
        return out_path


@contextlib.contextmanager
def load_merged(
    path: Path, ok_flag: str, provenance: Provenance | None = None, allow_unknown: bool = False
) -> Iterator[h5py.File]:
    """Open a monolithic file, verified: all flags are ``ok_flag`` and the provenance is right.

    The data themselves are verified by :func:`verify_merged`.

    Raises:
        StoreError: Otherwise; the line lists the indices or the differences.
    """
    with reading(Path(path)) as file:
        own_dataset(file, DATA)
        flags = own_dataset(file, FLAGS).asstr()[:]
        wrong = [i for i, flag in enumerate(flags) if flag != ok_flag]
        if wrong:
            raise StoreError(
                f"{path}: {len(wrong)} of {len(flags)} measurements do not carry the flag "
                f"{ok_flag!r}: {format_indices(wrong)}"
            )
        found = read_provenance(file)
        if provenance and (found or not allow_unknown):
            wrong_keys = differences(provenance, found)
            if wrong_keys:
                raise StoreError(f"{path}: {wrong_keys}")
        yield file


def _measurement_image(
    values: np.ndarray, flag: str, provenance: Provenance, made_with: Provenance
) -> bytes:
    facts = json.dumps(dict(provenance)), json.dumps(dict(made_with))
    if values.nbytes > _LARGEST_TEMPLATE:
        return _Template(values.shape, values.dtype, flag, *facts).image(values)
    return _kept_template(values.shape, values.dtype, flag, *facts).image(values)


#: Bytes of data up to which a file in memory is kept for the next measurement: making another one
#: takes HDF5 longer than changing it. Of more data it is the writing that counts.
_LARGEST_TEMPLATE = 2**20


class _Template:
    """A file in memory of which data and checksum change."""

    def __init__(
        self, shape: tuple[int, ...], dtype: np.dtype, flag: str, provenance: str, made_with: str
    ):
        facts = {PROVENANCE: provenance, MADE_WITH: made_with}
        self._file, self._data = _new_file(shape, dtype, flag, facts)
        self._checksum = _add_attribute(self._file, CHECKSUM, np.dtype(np.int64))
        self._lock = threading.Lock()

    def image(self, values: np.ndarray) -> bytes:
        """Return the file with these values."""
        with self._lock:  # threads share it
            self._data.write(h5py.h5s.ALL, h5py.h5s.ALL, values)
            self._checksum.write(np.array(zlib.crc32(values.data), dtype=np.int64))
            return _image(self._file)


_kept_template = lru_cache(maxsize=4)(_Template)


_FILE_NUMBERS = itertools.count()


def _new_file(
    shape: tuple[int, ...], dtype: np.dtype, flag: str, facts: Mapping[str, str]
) -> tuple[h5py.h5f.FileID, h5py.h5d.DatasetID]:
    """Return a file in memory, closed with the last reference to it, and its data set."""
    # One write to disk instead of HDF5's many small ones. Through the low-level interface of h5py:
    # the other one takes twice as long for a file of this size.
    access = h5py.h5p.create(h5py.h5p.FILE_ACCESS)
    access.set_fapl_core(2**16, False)
    access.set_libver_bounds(h5py.h5f.LIBVER_V110, h5py.h5f.LIBVER_V110)
    name = f"in memory {next(_FILE_NUMBERS)}"  # HDF5 opens no two files of one name
    file = h5py.h5f.create(name.encode(), h5py.h5f.ACC_TRUNC, fapl=access)
    data = _add_dataset(file, DATA, shape, dtype)
    flags = _add_dataset(file, FLAGS, (1,), _TEXT)
    flags.write(h5py.h5s.ALL, h5py.h5s.ALL, np.array([flag], dtype=_TEXT))
    for key, text in facts.items():
        _add_attribute(file, key, _TEXT).write(np.array(text, dtype=_TEXT))
    return file, data


def _image(file: h5py.h5f.FileID) -> bytes:
    h5py.h5f.flush(file)
    return file.get_file_image()


_TEXT = h5py.string_dtype()


def _add_dataset(
    file: h5py.h5f.FileID, name: str, shape: tuple[int, ...], dtype: np.dtype
) -> h5py.h5d.DatasetID:
    kind = h5py.h5t.py_create(dtype, logical=True)
    return h5py.h5d.create(file, name.encode(), kind, h5py.h5s.create_simple(shape))


def _add_attribute(file: h5py.h5f.FileID, name: str, dtype: np.dtype) -> h5py.h5a.AttrID:
    kind = h5py.h5t.py_create(dtype, logical=True)
    return h5py.h5a.create(file, name.encode(), kind, h5py.h5s.create(h5py.h5s.SCALAR))


def _write_image(path: Path, image: bytes) -> None:
    rest = memoryview(image)
    with replacing(path) as aside, open(aside, "wb", buffering=0) as file:
        while rest:  # a nearly full disk takes a part of it first
            rest = rest[file.write(rest) :]


def _examine(
    file: h5py.File, dim: int | None, dtype: np.dtype | None
) -> tuple[str, dict[str, Any], int | None, h5py.Dataset]:
    data, flags = own_dataset(file, DATA), own_dataset(file, FLAGS)
    if data.ndim != 1 or (dim is not None and data.shape != (dim,)):
        raise StoreError(f"{file.filename}: expected data of shape ({dim},), found {data.shape}")
    if dtype is not None and data.dtype != dtype:
        raise StoreError(f"{file.filename}: expected dtype {dtype}, found {data.dtype}")
    if flags.shape != (1,) or h5py.check_string_dtype(flags.dtype) is None:
        raise StoreError(f"{file.filename}: expected one text in {FLAGS!r}")
    checksum = file.attrs.get(CHECKSUM)
    return (
        flags.asstr()[0],
        read_provenance(file),
        None if checksum is None else int(checksum),
        data,
    )


def _problem(
    flag: str,
    ok_flag: str,
    stored_bytes: int,
    found: dict[str, Any],
    provenance: Provenance | None,
    common: dict[str, Any] | None,
    allow_unknown: bool,
) -> str:
    if flag == INITIAL_FLAG:
        return "not measured"
    if flag != ok_flag:
        return f"flag is {flag!r} instead of {ok_flag!r}"
    if stored_bytes == 0:
        return "flagged, but never written"
    if provenance is not None and (found or not allow_unknown):
        if not found:
            return UNKNOWN_PROVENANCE
        wrong = differences(provenance, found)
        if wrong:
            return f"of another Hessian: {wrong}"
    if common is not None and found != common:
        return f"of another Hessian: {differences(common, found) or 'more provenance'}"
    return ""


def _common_provenance(layout: VirtualSet) -> dict[str, Any]:
    """Return the provenance of all measured sub-files, refusing a mixture."""
    first: tuple[Path, dict[str, Any]] | None = None
    for path in layout.subpaths:
        with reading(path) as file:
            flag, found, _, _ = _examine(file, layout.shape[0], layout.dtype)
        if flag == INITIAL_FLAG:
            continue
        if first is None:
            first = (path, found)
        elif found != first[1]:
            wrong = differences(first[1], found) or "more provenance"
            raise StoreError(f"{path} and {first[0]} are of different Hessians: {wrong}")
    return first[1] if first else {}


def _copy_columns(
    layout: VirtualSet,
    out: h5py.File,
    common: dict[str, Any],
    ok_flag: str | None,
    budget: int,
) -> tuple[list[str], int | None]:
    """Copy by blocks of rows; return the flags and the checksum of what was written."""
    import torch  # transposes on all cores

    (dim, num), itemsize = layout.shape, layout.dtype.itemsize
    # Columns as read, their transpose, what HDF5 holds of it, and room for allocators.
    rows = min(dim, rows_within(budget / 4, num * itemsize, f"merging {layout.path.name}"))
    data = out.create_dataset(DATA, shape=layout.shape, dtype=layout.dtype)
    buffer = np.empty((num, rows), dtype=layout.dtype)
    flags = [INITIAL_FLAG] * num
    sums: list[int] = [0] * num
    total = 0
    expected: list[int | None] = [None] * num
    for begin in range(0, dim, rows):
        end = min(begin + rows, dim)
        block = buffer[:, : end - begin]
        for idx, path in enumerate(layout.subpaths):
            with reading(path) as file:
                flag, found, checksum, column = _examine(file, dim, layout.dtype)
                changed = (flag != ok_flag) if ok_flag is not None else False
                if begin == 0:
                    flags[idx], expected[idx] = flag, checksum
                if (
                    changed
                    or (flag, checksum) != (flags[idx], expected[idx])
                    or (flag != INITIAL_FLAG and found != common)
                ):
                    raise StoreError(f"{path}: was changed while it was merged")
                column.read_direct(block[idx], np.s_[begin:end])
            sums[idx] = zlib.crc32(block[idx].data, sums[idx])
        if all(flag == INITIAL_FLAG for flag in flags):
            return flags, None  # nothing was measured: HDF5 reserves the space when it is
        if begin == 0:
            reserve_space(out, data.nbytes)
        copied = torch.from_numpy(block).T.contiguous().numpy()
        data[begin:end] = copied
        total = zlib.crc32(copied.data, total)
    wrong = [i for i in range(num) if expected[i] is not None and sums[i] != expected[i]]
    if wrong:
        raise StoreError(
            f"{layout.path}: the checksum does not match for measurements {format_indices(wrong)}. "
            "Measure these indices again"
        )
    return flags, total


def verify_merged(path: Path, memory_budget: int | None = None) -> None:
    """Read a monolithic file once and compare its data with their checksum, if it has one.

    Raises:
        StoreError: If they differ.
    """
    budget = default_memory_budget() if memory_budget is None else memory_budget
    with reading(Path(path)) as file:
        data, expected = own_dataset(file, DATA), file.attrs.get(CHECKSUM)
        if expected is None:
            return
        row_bytes = data.shape[1] * data.dtype.itemsize
        step = min(len(data), rows_within(budget / 2, row_bytes, f"verifying {path}"))
        checksum = 0
        for begin in range(0, len(data), step):
            checksum = zlib.crc32(data[begin : begin + step].data, checksum)
    if checksum != int(expected):
        raise StoreError(f"{path}: the checksum of its data does not match; merge it again")


_SHAPE = re.compile(r"(\d+),(\d+)")


def parse_shape(text: str) -> tuple[int, int]:
    """Read ``H,W``."""
    match = _SHAPE.fullmatch(text.strip())
    if not match or not all(int(x) > 0 for x in match.groups()):
        raise InputError(f"expected a shape such as 7030,7030, got {text!r}")
    return int(match[1]), int(match[2])
