"""The monolithic file: all measurements of a store in one contiguous data set, verified.

Measurements are copied by blocks of rows, each read from its own file: within a memory budget, and
so that row blocks of the result are cheap to read. Checksums are verified on the way, and the
result has one of its own.
"""

from __future__ import annotations

import contextlib
import json
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from ..budget import resolve_budget, rows_within
from ..errors import InputError, StoreError
from ..store_names import (
    CHECKSUM,
    DATA,
    FLAGS,
    INITIAL_FLAG,
    KIND,
    MERGED,
    ON_TRUST,
    PROVENANCE,
    SOURCES,
)
from .files import (
    Provenance,
    check_writable,
    create_h5,
    differences,
    format_indices,
    own_dataset,
    read_facts,
    read_provenance,
    reading,
    remove_stale_asides,
    replacing,
    reserve_space,
)
from .places import check_kind
from .provenance import (
    Header,
    VirtualSet,
    analyze_virtual,
    common_provenance,
    examine,
    hash_of_sums,
    load_virtual,
)


def check_output(all_path: Path, out_path: Path, overwrite: bool, num: int | None = None) -> None:
    """Raise :class:`InputError` if merging ``all_path`` must not write ``out_path``.

    An existing file may be replaced only if asked, and if it is the merge of such a store.
    """
    layout = load_virtual(all_path).first(num)
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
            same = data.ndim == 2 and (data.shape[0], data.dtype) == (layout.shape[0], layout.dtype)
    except StoreError:
        same = False
    if not same:
        raise InputError(
            f"{out_path}: exists and is not a merged store of {layout.shape[0]} rows and dtype "
            f"{layout.dtype}; it is left alone"
        )


def merge_all(
    all_path: Path,
    out_path: Path,
    ok_flag: str | None = None,
    provenance: Provenance | None = None,
    *,
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
    layout, out_path = load_virtual(all_path).first(num), Path(out_path)
    check_output(all_path, out_path, overwrite, num)
    if ok_flag is not None:
        report = analyze_virtual(all_path, ok_flag, provenance, allow_unknown, num)
        report.require_complete()
        common = report.provenance
    else:
        common = common_provenance(layout)
    remove_stale_asides(out_path.parent)
    with (
        replacing(out_path, durable=True, overwrite=overwrite) as aside,
        create_h5(aside) as out,
    ):
        columns = _Columns(layout, common, ok_flag)
        checksum = _copy_columns(columns, out, resolve_budget(memory_budget))
        out.create_dataset(FLAGS, data=columns.flags, dtype=h5py.string_dtype())
        out.attrs[KIND] = layout.kind
        out.attrs[PROVENANCE] = json.dumps(common)
        if checksum is not None:
            out.attrs[CHECKSUM], out.attrs[SOURCES] = checksum, columns.sources
        if provenance and not common:
            out.attrs[ON_TRUST] = json.dumps(dict(provenance))
    if delete_subfiles:
        for path in layout.subpaths:
            path.unlink()
    return out_path


class _Columns:
    """The measurements of a store while they are copied: none may change meanwhile.

    Args:
        layout: Which ones.
        common: The provenance of all that are measured.
        ok_flag: The flag of each; ``None`` if they may have any.
    """

    def __init__(self, layout: VirtualSet, common: dict[str, Any], ok_flag: str | None):
        self.layout, self.common, self.ok_flag = layout, common, ok_flag
        self._headers: list[Header] = []
        self._sums = [0] * layout.shape[1]

    @property
    def flags(self) -> list[str]:
        """The flag of each; known after the first block of rows."""
        return [header.flag for header in self._headers]

    @property
    def none_measured(self) -> bool:
        """Whether there is nothing to copy; known after the first block of rows."""
        return all(flag == INITIAL_FLAG for flag in self.flags)

    @property
    def sources(self) -> str:
        """The hash over what was read of each; known after the last block of rows."""
        return hash_of_sums(self._sums)

    def read(self, begin: int, block: np.ndarray) -> None:
        """Read rows ``begin ...`` into ``block``, ``[n, rows]``.

        Raises:
            StoreError: If a file was changed since the first block of rows, or is damaged.
        """
        for idx, path in enumerate(self.layout.subpaths):
            with reading(path) as file:
                header, column = examine(file, self.layout.shape[0], self.layout.dtype)
                if begin == 0:
                    self._headers.append(header)
                self._check_unchanged(idx, header)
                column.read_direct(block[idx], np.s_[begin : begin + block.shape[1]])
            self._sums[idx] = zlib.crc32(block[idx].data, self._sums[idx])

    def _check_unchanged(self, idx: int, now: Header) -> None:
        before = self._headers[idx]
        if (
            (self.ok_flag is not None and now.flag != self.ok_flag)
            or (now.flag, now.checksum) != (before.flag, before.checksum)
            or (now.flag != INITIAL_FLAG and now.provenance != self.common)
        ):
            raise StoreError(f"{self.layout.subpaths[idx]}: was changed while it was merged")

    def verify(self) -> None:
        """Raise :class:`StoreError` if what was read differs from its checksum."""
        expected = [header.checksum for header in self._headers]
        wrong = [
            idx
            for idx, (found, checksum) in enumerate(zip(self._sums, expected, strict=True))
            if checksum is not None and found != checksum
        ]
        if wrong:
            raise StoreError(
                f"{self.layout.path}: the checksum does not match for measurements "
                f"{format_indices(wrong)}. Measure these indices again"
            )


def _copy_columns(columns: _Columns, out: h5py.File, budget: int) -> int | None:
    """Copy by blocks of rows; return the checksum of what was written, if anything was."""
    import torch  # transposes on all cores

    layout = columns.layout
    (dim, num), itemsize = layout.shape, layout.dtype.itemsize
    # Columns as read, their transpose, what HDF5 holds of it, and room for allocators.
    rows = min(dim, rows_within(budget / 4, num * itemsize, f"merging {layout.path.name}"))
    data = out.create_dataset(DATA, shape=layout.shape, dtype=layout.dtype)
    buffer = np.empty((num, rows), dtype=layout.dtype)
    total = 0
    for begin in range(0, dim, rows):
        block = buffer[:, : min(rows, dim - begin)]
        columns.read(begin, block)
        if columns.none_measured:
            return None  # HDF5 reserves the space when something is
        if begin == 0:
            reserve_space(out, data.nbytes)
        copied = torch.from_numpy(block).T.contiguous().numpy()
        data[begin : begin + len(copied)] = copied
        total = zlib.crc32(copied.data, total)
    columns.verify()
    return total


@contextlib.contextmanager
def load_merged(
    path: Path, ok_flag: str, provenance: Provenance | None = None, allow_unknown: bool = False
) -> Iterator[h5py.File]:
    """Open a monolithic file, verified: flags are ``ok_flag``, provenance and kind are right.

    The data themselves are verified by :func:`verify_merged`.

    Raises:
        StoreError: Otherwise; the line lists the indices or the differences.
    """
    with reading(Path(path)) as file:
        if len(shape := own_dataset(file, DATA).shape) != 2:
            raise StoreError(f"{path}: expected merged measurements (dim, n), found shape {shape}")
        flags = own_dataset(file, FLAGS).asstr()[:]
        wrong = [i for i, flag in enumerate(flags) if flag != ok_flag]
        if wrong:
            raise StoreError(
                f"{path}: {len(wrong)} of {len(flags)} measurements do not carry the flag "
                f"{ok_flag!r}: {format_indices(wrong)}"
            )
        if KIND in file.attrs:
            check_kind(Path(path), str(file.attrs[KIND]), MERGED)
        found = read_provenance(file)
        if provenance and (found or not allow_unknown):
            wrong_keys = differences(provenance, found)
            if wrong_keys:
                raise StoreError(f"{path}: {wrong_keys}")
        yield file


def read_on_trust(file: h5py.File) -> dict[str, Any]:
    """Return what the measurements of a monolithic file were taken for, where they did not say."""
    return read_facts(file, ON_TRUST)


def verify_merged(path: Path, memory_budget: int | None = None) -> None:
    """Read a monolithic file once and compare its data with their checksum, if it has one.

    Raises:
        StoreError: If they differ.
    """
    budget = resolve_budget(memory_budget)
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
