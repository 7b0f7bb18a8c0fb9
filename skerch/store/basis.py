"""Blocks of a basis on disk: one HDF5 file each, written aside and renamed when it is complete.

A file holds the block as the contiguous data set ``data`` (``[D, b]``, row blocks are cheap), the
small matrices of the round that made it as the group ``step`` (not in the first file), a checksum
of each column (``crc32``, ``[b]``), and what its writer says about its origin. A hash over all of
this (with the checksums in place of the columns) is what the next block names as the one before it,
so that a block which was made again of other products is never combined with those that followed
the old one. A block without columns says that the basis before it is invariant; if it has no small
matrices either, that somebody ended it, for the reason that is written there as ``ended``.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch

from ..budget import resolve_budget, rows_within
from ..core.krylov import BasisStep, extend_basis, write_starting_block
from ..errors import StoreError
from ..ssrft import SSRFT
from ..store_names import CHECKSUM, CONTENT, DATA, PROVENANCE
from .files import (
    Provenance,
    create_h5,
    differences,
    own_dataset,
    provenance_text,
    read_provenance,
    reading,
    replacing,
)

STEP = "step"
#: In the provenance of a block: its name, if that is not its hash; the name of the one before; and
#: why no other is to follow.
NAME, PREVIOUS, ENDED = "block_id", "previous_block", "ended"


@dataclass(frozen=True)
class BlockHeader:
    """What the file of a block says of it.

    Attributes:
        width: Number of columns ``b``.
        provenance: What its writer said about its origin.
        step: The small matrices of the round that made it.
        checksums: CRC-32 of each column, ``[b]``.
        content: Hash over all of that.
    """

    width: int
    provenance: dict[str, Any]
    step: BasisStep | None
    checksums: np.ndarray
    content: str

    @property
    def name(self) -> str:
        """What the next block, and products with this one, call it."""
        return str(self.provenance.get(NAME, self.content))

    @property
    def ended(self) -> str | None:
        """Why the basis before was ended; ``None`` if it was not, or is invariant."""
        ended = self.width == 0 and self.step is None
        return str(self.provenance.get(ENDED, "ended")) if ended else None


@dataclass(frozen=True)
class Start:
    """Vectors that the first block of a basis is made of, the most important ones first.

    Attributes:
        name: A hash, which provenances name.
        num: How many there are.
        open: Gives them, ``[D, num]``, to be read once by slices of rows.
    """

    name: str
    num: int
    open: Callable[[], contextlib.AbstractContextManager[Any]]


def write_first_block(
    path: Path,
    Psi: SSRFT,
    *,
    dtype: np.dtype,
    provenance: Provenance,
    memory_budget: int | None = None,
) -> None:
    """Write ``Psi^T`` as the first block, replacing what was there."""
    with new_block(path, provenance, memory_budget) as file:
        data = file.create_dataset(DATA, (Psi.shape[1], Psi.shape[0]), dtype)
        write_starting_block(Psi, data, memory_budget)


def write_warm_block(
    path: Path,
    warm: Any,
    num: int,
    Psi: SSRFT,
    *,
    dtype: np.dtype,
    provenance: Provenance,
    memory_budget: int | None = None,
    device: torch.device | str | None = None,
) -> BasisStep:
    """Write an orthonormal basis of some vectors and ``Psi^T`` as the first block.

    Args:
        path: The file.
        warm: ``[D, m]``, of any scale, read once by slices of rows.
        num: How many of its columns to take.
        Psi: The SSRFT of the others, ``[n, D]``.
        dtype: Of the block.
        provenance: See :func:`write_next_block`.
        memory_budget: Bytes to hold at once.
        device: Where to compute.

    Raises:
        NumericalError: If the vectors are not finite.
    """
    n, D = Psi.shape
    scratch = path.with_name(f"{path.name}.columns")
    with contextlib.ExitStack() as stack:
        # Never published: it goes again when the block is there, or could not be made.
        stack.callback(scratch.unlink, missing_ok=True)
        with replacing(scratch) as aside, create_h5(aside) as file:
            columns = file.create_dataset(DATA, (D, num + n), dtype)
            write_starting_block(Psi, _Columns(columns, num), memory_budget)
            step = rows_within(resolve_budget(memory_budget) / 4, 8 * warm.shape[1], "a start")
            slices = [slice(begin, min(begin + step, D)) for begin in range(0, D, step)]
            squares = np.zeros(num)
            for rows in slices:
                columns[rows, :num] = values = np.asarray(warm[rows])[:, :num]
                squares += np.square(values, dtype=np.float64).sum(axis=0)
            # As long as the random ones, which would be round-off beside longer ones.
            norms = np.where(squares > 0, np.sqrt(squares), 1.0)
            for rows in slices:
                columns[rows, :num] = columns[rows, :num] / norms
        with reading(scratch) as file:
            return write_next_block(
                path,
                [],
                own_dataset(file, DATA),
                [],
                dtype=dtype,
                provenance=provenance,
                memory_budget=memory_budget,
                device=device,
            )


class _Columns:
    """The columns of a data set from ``begin`` on, to be written."""

    def __init__(self, data: h5py.Dataset, begin: int):
        self._data, self._begin = data, begin
        self.shape, self.dtype = (data.shape[0], data.shape[1] - begin), data.dtype

    def __getitem__(self, rows: slice) -> np.ndarray:
        values: np.ndarray = self._data[rows, self._begin :]
        return values

    def __setitem__(self, where: tuple[slice, slice], values: np.ndarray) -> None:
        rows, columns = where
        self._data[rows, self._begin + columns.start : self._begin + columns.stop] = values


def write_next_block(
    path: Path,
    blocks: Sequence[Any],
    products: Any,
    steps: Sequence[BasisStep],
    *,
    dtype: np.dtype,
    provenance: Provenance,
    memory_budget: int | None = None,
    device: torch.device | str | None = None,
) -> BasisStep:
    """Extend a basis and write the new block, replacing what was there.

    Arguments, result and errors are those of :func:`~skerch.core.krylov.extend_basis`; the file
    appears under its name only when it is complete. ``provenance`` should name the products and,
    as :data:`PREVIOUS`, the last block.
    """
    with new_block(path, provenance, memory_budget) as file:

        def create(width: int) -> h5py.Dataset:
            return file.create_dataset(DATA, (products.shape[0], width), dtype)

        step = extend_basis(blocks, products, steps, create, memory_budget, device)
        if step.rank == 0:
            create(0)
        step.save(file.create_group(STEP))
    return step


def write_end(path: Path, dim: int, why: str, *, dtype: np.dtype, provenance: Provenance) -> None:
    """Write a block without columns, after which no other is to follow.

    Args:
        path: The file, which is replaced.
        dim: ``D``.
        why: In words.
        dtype: Of the blocks before.
        provenance: See :func:`write_next_block`.
    """
    with new_block(path, {**provenance, ENDED: why}) as file:
        file.create_dataset(DATA, (dim, 0), dtype)


@contextlib.contextmanager
def open_basis(
    paths: Sequence[Path],
    provenance: Provenance | None = None,
    memory_budget: int | None = None,
) -> Iterator[tuple[list[h5py.Dataset], list[BasisStep]]]:
    """Open the files of a basis in their order, verified, and yield its blocks and steps.

    Args:
        paths: The files; the last one may be without columns, and is left out then.
        provenance: What each file must carry; default anything.
        memory_budget: Bytes to hold at once while the checksums are compared: one pass.

    Raises:
        StoreError: If a file is missing, damaged or of another origin, or if files do not fit
            together.
    """
    with contextlib.ExitStack() as stack:
        blocks: list[h5py.Dataset] = []
        steps: list[BasisStep] = []
        before: BlockHeader | None = None
        for path in paths:
            file = stack.enter_context(reading(Path(path)))
            if provenance and (wrong := differences(provenance, read_provenance(file))):
                raise StoreError(f"{path}: of another basis: {wrong}")
            header = read_block(file)
            step = _fitting_step(path, header, blocks, before)
            if header.width == 0:
                if path != paths[-1]:
                    raise StoreError(f"{path}: the basis is invariant, no block can follow")
                break
            blocks.append(own_dataset(file, DATA))
            _verify(path, blocks[-1], header, memory_budget)
            if step is not None:
                steps.append(step)
            before = header
        yield blocks, steps


def _fitting_step(
    path: Path, header: BlockHeader, blocks: Sequence[h5py.Dataset], before: BlockHeader | None
) -> BasisStep | None:
    """Return the step that made a block, if it is one of the basis.

    Raises:
        StoreError: If it did not follow ``blocks``, the last of which has the header ``before``.
    """
    step, columns = header.step, sum(block.shape[1] for block in blocks)
    ended = header.ended is not None and columns > 0
    if step is not None and len(step.gram) == columns == 0:
        step = None  # made by the range finder, of products with vectors of no basis
    if not ended and (step is None) != (columns == 0):
        raise StoreError(f"{path}: not block {len(blocks)} of a basis")
    if step is not None and (len(step.gram), step.rank) != (columns, header.width):
        raise StoreError(
            f"{path}: expected {step.rank} columns after {len(step.gram)} others, found "
            f"{header.width} after {columns}"
        )
    follows = header.provenance.get(PREVIOUS)
    if before is not None and follows not in (None, before.name):
        raise StoreError(
            f"{path}: follows block {follows}, but the one before it is {before.name}, which was "
            "made again; make this one again, too"
        )
    return step


def read_block(file: h5py.File) -> BlockHeader:
    """Return what an open file says of its block, its small matrices and checksums verified.

    Raises:
        StoreError: If it is no block, or they are damaged.
    """
    data = own_dataset(file, DATA)
    if CONTENT not in file.attrs:
        raise StoreError(
            f"{file.filename}: has no checksums, as blocks of earlier versions; {AGAIN}"
        )
    checksums = own_dataset(file, CHECKSUM)[()]
    if data.ndim != 2 or checksums.shape != data.shape[1:]:
        raise StoreError(f"{file.filename}: expected a block and a checksum of each column")
    provenance, step = read_provenance(file), _read_step(file)
    content = _content(data.shape, checksums, step, provenance)
    if content != file.attrs[CONTENT]:
        raise StoreError(f"{file.filename}: damaged, its content does not match its hash; {AGAIN}")
    return BlockHeader(data.shape[1], provenance, step, checksums, content)


#: What to do about a block that cannot be used.
AGAIN = "remove the file, and make the block again (10e)"


class VerifiedColumns:
    """The block of an open file by columns, each compared with its checksum when it is read."""

    def __init__(self, file: h5py.File, header: BlockHeader):
        self._data, self._header, self._name = own_dataset(file, DATA), header, file.filename

    @property
    def shape(self) -> tuple[int, int]:
        """``(D, b)``."""
        rows, columns = self._data.shape
        return rows, columns

    def __getitem__(self, key: tuple[slice, slice]) -> np.ndarray:
        """Return consecutive columns ``[:, begin:end]``.

        Raises:
            StoreError: If one is damaged, or the block another one than that of the header.
        """
        everything, columns = key
        assert everything == slice(None)
        values: np.ndarray = self._data[:, columns]
        sums = [zlib.crc32(np.ascontiguousarray(column).data) for column in values.T]
        if sums != self._header.checksums[columns].tolist():
            raise StoreError(f"{self._name}: the checksum of a column does not match; {AGAIN}")
        return values


def verify_block(path: Path, memory_budget: int | None = None) -> None:
    """Raise :class:`StoreError` if any part of a block is damaged; one pass."""
    with reading(path) as file:
        _verify(path, own_dataset(file, DATA), read_block(file), memory_budget)


def _verify(path: Path, data: h5py.Dataset, header: BlockHeader, budget: int | None) -> None:
    if not np.array_equal(_sums_of_columns(data, budget), header.checksums):
        raise StoreError(f"{path}: the checksum of its columns does not match; {AGAIN}")


def _sums_of_columns(data: h5py.Dataset, budget: int | None) -> np.ndarray:
    """Return the CRC-32 of each column of ``[D, b]``; one pass by blocks of rows."""
    (D, b), sums = data.shape, [0] * data.shape[1]
    # Rows as read, and their transpose.
    step = rows_within(resolve_budget(budget) / 4, max(b, 1) * data.dtype.itemsize, "a checksum")
    for begin in range(0, D if b else 0, step):
        columns = torch.from_numpy(data[begin : begin + step]).T.contiguous().numpy()
        sums = [zlib.crc32(column.data, total) for column, total in zip(columns, sums, strict=True)]
    return np.array(sums, dtype=np.uint32)


def _content(
    shape: tuple[int, ...], checksums: np.ndarray, step: BasisStep | None, provenance: Provenance
) -> str:
    digest = hashlib.sha256(json.dumps([shape, provenance], sort_keys=True).encode())
    digest.update(checksums.astype("<u4").tobytes())
    for entry in fields(BasisStep) if step is not None else ():
        matrix = getattr(step, entry.name).numpy()
        digest.update(f"{entry.name}{matrix.dtype}{matrix.shape}".encode() + matrix.tobytes())
    return digest.hexdigest()


def _read_step(file: h5py.File) -> BasisStep | None:
    if STEP not in file:
        return None
    if not isinstance(file.get(STEP, getlink=True), h5py.HardLink):
        raise StoreError(f"{file.filename}: {STEP!r} is a link to somewhere else")
    for entry in fields(BasisStep):
        own_dataset(file, f"{STEP}/{entry.name}")
    return BasisStep.load(file[STEP])


@contextlib.contextmanager
def new_block(
    path: Path, provenance: Provenance, memory_budget: int | None = None
) -> Iterator[h5py.File]:
    """Yield a file to be filled, which replaces ``path`` when it is complete."""
    with replacing(Path(path), durable=True) as aside, create_h5(aside) as file:
        yield file
        data = own_dataset(file, DATA)
        checksums = _sums_of_columns(data, memory_budget)
        file.create_dataset(CHECKSUM, data=checksums)
        file.attrs[PROVENANCE] = provenance_text(provenance)
        kept = read_provenance(file)
        file.attrs[CONTENT] = _content(data.shape, checksums, _read_step(file), kept)
