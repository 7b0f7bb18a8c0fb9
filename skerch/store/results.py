"""Decompositions in files: one HDF5 file each, written aside and renamed when it is complete.

A file holds the values (``S``), the vectors (``vectors`` ``[D, k]``, or ``left`` ``[H, k]`` and
``right`` ``[W, k]``) in float64, residual norms where they are known, and as attributes what the
file is, who made it of what, and a checksum of all of this. Vectors are written and read by blocks
of rows.
"""

from __future__ import annotations

import contextlib
import json
import os
import zlib
from collections.abc import Iterator, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
from torch import Tensor

from ..budget import resolve_budget, rows_within
from ..core.row_blocks import RowBlocks
from ..errors import InputError, StoreError
from ..results import Eigh, Ssvd
from ..store_names import (
    CHECKSUM,
    FACTS,
    KIND,
    LEFT,
    MADE_WITH,
    PROVENANCE,
    RESIDUALS,
    RIGHT,
    VALUES,
    VECTORS,
)
from .files import (
    Provenance,
    check_writable,
    create_h5,
    own_dataset,
    read_provenance,
    reading,
    remove_stale_asides,
    replacing,
    reserve_space,
)

#: What the files are, and the data sets of their vectors.
KINDS = {"skerch eigenpairs 1": (VECTORS,), "skerch singular triplets 1": (LEFT, RIGHT)}
EIGENPAIRS, TRIPLETS = KINDS
#: Attributes that the checksum covers.
_TEXTS = (KIND, FACTS, PROVENANCE, MADE_WITH)
#: Copies of a block of rows that reading holds: as read, and where it goes to.
_COPIES = 2


def save(
    result: Eigh | Ssvd,
    path: str | os.PathLike[str],
    *,
    provenance: Provenance | None = None,
    overwrite: bool = False,
) -> None:
    """Write eigenpairs or singular triplets into an HDF5 file, which :func:`load` reads.

    Vectors are made and written by blocks of rows, within the memory budget of the result. The file
    appears under its name only when it is complete. It holds ``provenance``, that of the result,
    its diagnostics and products, and the versions of the software; not a coarser result.

    Args:
        result: What to save; with ``k`` pairs of a ``[D, D]`` operator, the file has ``8 D k``
            bytes.
        path: The file, in a directory that exists.
        provenance: Whatever else tells what this is of: texts, numbers and truth values by name.
        overwrite: Replace a file that is there.

    Raises:
        InputError: If there is one, or nothing can be written there, or the provenance is none.
        OSError: If the disk is full.

    Example:
        >>> import os, tempfile, torch
        >>> from skerch import load, seigh
        >>> result = seigh(torch.diag(torch.arange(1.0, 11.0).double()), 5, 10)
        >>> with tempfile.TemporaryDirectory() as directory:
        ...     path = os.path.join(directory, "result.h5")
        ...     result.save(path, provenance={"operator": "diag(1, ..., 10)"})
        ...     loaded = load(path)
        >>> loaded.provenance["method"], loaded.provenance["operator"]
        ('seigh', 'diag(1, ..., 10)')
        >>> torch.equal(loaded.vectors(), result.vectors())
        True
    """
    path = Path(path)
    _check_output(path, overwrite)
    texts = {
        KIND: EIGENPAIRS if isinstance(result, Eigh) else TRIPLETS,
        FACTS: json.dumps(
            {"num_products": result.num_products, "diagnostics": dict(result.diagnostics)}
        ),
        PROVENANCE: json.dumps(_joined(result.provenance, provenance or {})),
        MADE_WITH: json.dumps(_versions()),
    }
    small = {VALUES: result.S}
    if isinstance(result, Eigh) and result.residual_norms is not None:
        small[RESIDUALS] = result.residual_norms
    sides = _sides(result)
    remove_stale_asides(path.parent)
    with (
        replacing(path, durable=True, overwrite=overwrite) as aside,
        create_h5(aside) as file,
    ):
        reserve_space(file, sum(8 * Y.shape[0] * len(result.S) for Y, _ in sides.values()))
        for name, text in texts.items():
            # Of fixed length: damaged pointers to texts of any length make HDF5 crash.
            file.attrs[name] = np.bytes_(text.encode())
        checksum = _sum_of_texts(texts)
        for name, values in small.items():
            array = _array(values)
            file.create_dataset(name, data=array)
            checksum = zlib.crc32(array.data, checksum)
        for name, (Y, coefficients) in sides.items():
            data = file.create_dataset(name, (Y.shape[0], len(result.S)), np.float64)
            for rows, block in Y:
                array = _array(block @ coefficients.to(block))
                data[rows] = array
                checksum = zlib.crc32(array.data, checksum)
        file.attrs[CHECKSUM] = checksum


def load(
    path: str | os.PathLike[str],
    *,
    memory_budget: int | None = None,
    device: torch.device | str = "cpu",
) -> Eigh | Ssvd:
    """Read what :func:`save` wrote, and verify its checksum: one pass over the file.

    Eigenvectors stay in the file, and are read by blocks of rows when they are used, unless half of
    the budget holds them. Singular vectors are read into memory.

    Args:
        path: The file. While eigenvectors stay there, it must.
        memory_budget: Bytes to hold at once; default a quarter of the machine.
        device: Where to compute.

    Raises:
        StoreError: If the file is missing, damaged or something else.
        InputError: If singular vectors do not fit into the budget.

    Example:
        >>> import os, tempfile, torch
        >>> import skerch
        >>> with tempfile.TemporaryDirectory() as directory:
        ...     path = os.path.join(directory, "result.h5")
        ...     skerch.ssvd(torch.eye(6), 6).save(path)
        ...     skerch.load(path)
        Ssvd(6 x 6, 6 triplets, S = 1 ... 1)
    """
    path, budget = Path(path), resolve_budget(memory_budget)
    with _open(path) as (file, names):
        identity = _identity(file)
        sizes = [own_dataset(file, name).shape for name in names]
        fits = sum(8 * height * width for height, width in sizes) <= budget // 2
        if names != (VECTORS,) and not fits:
            raise InputError(
                f"{path}: its singular vectors {sizes} need twice "
                f"{sum(8 * height * width for height, width in sizes)} bytes, the memory budget is "
                f"{budget}"
            )
        small, vectors = _read_verified(file, names, budget, keep=fits)
        facts = json.loads(file.attrs[FACTS])
        provenance, checksum = read_provenance(file), int(file.attrs[CHECKSUM])
    S, residuals = small[VALUES], small.get(RESIDUALS)
    eye = torch.eye(len(S), dtype=torch.float64, device=device)
    what = {
        "diagnostics": facts["diagnostics"],
        "num_products": facts["num_products"],
        "provenance": provenance,
    }
    if names == (LEFT, RIGHT):
        left, right = (vectors[name].to(device) for name in names)
        return Ssvd(left, eye, S.to(device), eye, right, **what)
    matrix = vectors[VECTORS] if fits else _FileMatrix(path, sizes[0], checksum, identity, budget)
    Y = RowBlocks(matrix, budget, device)
    residuals = None if residuals is None else residuals.to(device)
    return Eigh(S.to(device), eye, Y, eye, residual_norms=residuals, **what)


class _FileMatrix:
    """Eigenvectors of which rows are read when they are wanted; opens the file for each block.

    Args:
        path: The file, which was verified.
        shape: Of the vectors.
        checksum: Of the file.
        identity: Of the file, from before it was verified.
        budget: Bytes to hold at once.

    Raises:
        StoreError: On reading rows, if the file is another one by now, or was changed: values and
            rows read before are not of the same result.
    """

    def __init__(
        self,
        path: Path,
        shape: tuple[int, int],
        checksum: int,
        identity: tuple[int, ...],
        budget: int,
    ):
        self.path, self.shape, self.budget = path.absolute(), shape, budget
        self.checksum, self.identity = checksum, identity
        self.dtype = np.dtype(np.float64)

    def __getitem__(self, rows: slice) -> np.ndarray:
        with reading(self.path) as file:
            if (identity := _identity(file)) != self.identity:
                self._verify_again(file)
                self.identity = identity
            return np.asarray(own_dataset(file, VECTORS)[rows])

    def _verify_again(self, file: h5py.File) -> None:
        """Accept a file that was only touched, or copied back, at the cost of one pass over it."""
        if file.attrs.get(CHECKSUM) != self.checksum:
            raise StoreError(
                f"{self.path}: expected the result that was loaded, found another one: the file "
                "was replaced in the meantime; load it again"
            )
        _read_verified(file, (VECTORS,), self.budget, keep=False)


def _identity(file: h5py.File) -> tuple[int, ...]:
    """Return what changes when another file, or other content, stands under the name of a file."""
    found = os.fstat(file.id.get_vfd_handle())  # of what was opened, whatever has its name by now
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns


def _check_output(path: Path, overwrite: bool) -> None:
    if not path.parent.is_dir():
        raise InputError(f"{path}: its directory does not exist")
    check_writable(path.parent)
    if path.is_dir():
        raise InputError(f"{path}: expected the name of a file, found a directory")
    if path.exists() and not overwrite:
        raise InputError(f"{path}: exists already; overwrite=True replaces it")


def _joined(of_result: Mapping[str, Any], of_user: Mapping[str, Any]) -> dict[str, Any]:
    """Return both provenances as one; the user's may not hide what the result says."""
    for name, value in of_user.items():
        if not isinstance(name, str) or not isinstance(value, (str, int, float, bool)):
            raise InputError(
                f"provenance: expected texts, numbers and truth values by name, got {name!r}: "
                f"{value!r}"
            )
        if name in of_result and of_result[name] != value:
            raise InputError(
                f"provenance: {name!r} is {of_result[name]!r} already, got {value!r}; choose "
                "another name"
            )
    return {**of_result, **of_user}


def _versions() -> dict[str, str]:
    versions = {}
    for name, distribution in (("skerch", "apples-and-oranges"), ("torch", "torch")):
        try:
            versions[name] = version(distribution)
        except PackageNotFoundError:
            versions[name] = "not installed, run from its directory"
    return versions


def _sides(result: Eigh | Ssvd) -> dict[str, tuple[RowBlocks, Tensor]]:
    """Return ``(Y, C)`` of each side: its vectors are ``Y C``."""
    if isinstance(result, Eigh):
        return {VECTORS: (result.Y, result.basis)}
    return {
        LEFT: (RowBlocks(result.Q_left), result.U[:, : len(result.S)]),
        RIGHT: (RowBlocks(result.Q_right), result.Vh[: len(result.S)].T),
    }


def _array(values: Tensor) -> np.ndarray:
    return np.ascontiguousarray(values.detach().cpu().numpy(), dtype=np.float64)


def _sum_of_texts(texts: Mapping[str, str]) -> int:
    return zlib.crc32("\n".join(texts[name] for name in _TEXTS).encode())


def kind_of(file: h5py.File) -> str | None:
    """Return which of :data:`KINDS` an open file is, or ``None``."""
    kind = _text(file, KIND)
    return kind if kind in KINDS else None


def _text(file: h5py.File, name: str) -> str:
    text = file.attrs.get(name)
    return text.decode(errors="replace") if isinstance(text, bytes) else ""


@contextlib.contextmanager
def _open(path: Path) -> Iterator[tuple[h5py.File, tuple[str, ...]]]:
    """Yield the file and the names of its vectors.

    Raises:
        StoreError: If it is something else.
    """
    with reading(path) as file:
        kind = kind_of(file)
        if kind is None:
            raise StoreError(
                f"{path}: expected a file that a result's save() wrote, found another HDF5 file"
            )
        yield file, KINDS[kind]


def _read_verified(
    file: h5py.File, names: tuple[str, ...], budget: int, keep: bool
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Read a file by blocks of rows; return what is small, and its vectors if they are to be kept.

    Raises:
        StoreError: If shapes do not fit together or the checksum does not match.
    """
    checksum = _sum_of_texts({name: _text(file, name) for name in _TEXTS})
    k = own_dataset(file, VALUES).shape[0]
    small: dict[str, Tensor] = {}
    for name in (VALUES, RESIDUALS):
        if name in file:
            values = _checked(file, name, (k,))[:]
            checksum = zlib.crc32(values.data, checksum)
            small[name] = torch.from_numpy(values)
    vectors: dict[str, Tensor] = {}
    for name in names:
        height = own_dataset(file, name).shape[0]
        data = _checked(file, name, (height, k))
        kept = torch.empty(height, k, dtype=torch.float64) if keep else None
        most = max(1, RowBlocks.MAX_BLOCK_BYTES // (8 * k))
        step = min(most, rows_within(budget, _COPIES * 8 * k, f"reading {file.filename}"))
        for begin in range(0, height, step):
            block = data[begin : begin + step]
            checksum = zlib.crc32(block.data, checksum)
            if kept is not None:
                kept[begin : begin + step] = torch.from_numpy(block)
        if kept is not None:
            vectors[name] = kept
    if file.attrs.get(CHECKSUM) != checksum:
        raise StoreError(f"{file.filename}: damaged (the checksum of its data does not match)")
    return small, vectors


def _checked(file: h5py.File, name: str, shape: tuple[int, ...]) -> h5py.Dataset:
    data = own_dataset(file, name)
    if data.shape != shape or data.dtype != np.float64:
        raise StoreError(
            f"{file.filename}: damaged (expected {name!r} {shape} of float64, found {data.shape} "
            f"of {data.dtype})"
        )
    return data
