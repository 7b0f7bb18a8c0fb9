"""HDF5 files to which columns are added over time: ``data`` ``(D, columns)`` with metadata.

``data_idxs`` ``(2, entries)`` holds the first column of each entry and the one after its last;
``metadata`` one text per entry, the ``repr`` of a dictionary. Named tensors that belong to an entry
but have other shapes (BatchNorm statistics, frozen parameters) lie in ``extras/<entry>/``; those
that do not differ from one entry to the next are stored once. ``sha256`` holds one hash per entry,
over all that belongs to it; files of other tools have none. A new entry is added to a copy, which
then replaces the file: whatever happens, the file holds whole entries only.
"""

from __future__ import annotations

import ast
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

import h5py
import numpy as np
import torch
from torch import Tensor

from skerch.errors import InputError, StoreError
from skerch.store.files import create_h5, own_dataset, reading, replacing, reserve_space
from skerch.utils import check_finite

from ..problems.parameters import named_hash

#: Rows per chunk: large enough to read columns fast, small enough for any HDF5 cache.
CHUNK_ROWS = 2**18


@dataclass(frozen=True)
class Entry:
    """One entry.

    Attributes:
        data: ``[D, columns]``.
        metadata: Which entry it is.
        extras: Tensors of other shapes, by name.
        sha256: Hash over all of that, as it was read.
        is_verified: Whether the file has a hash of the entry, which is this one.
    """

    data: Tensor
    metadata: dict[str, Any]
    extras: dict[str, Tensor]
    sha256: str
    is_verified: bool


class IncrementalHDF5:
    """A file of entries, each of one or more columns.

    Args:
        path: The file.
    """

    def __init__(self, path: Path):
        self.path = Path(path)

    @classmethod
    def create(
        cls, path: Path, dim: int, dtype: torch.dtype, attributes: Mapping[str, str]
    ) -> IncrementalHDF5:
        """Create a file without entries.

        Raises:
            InputError: If it exists.
        """
        numpy_dtype = torch.empty(0, dtype=dtype).numpy().dtype
        if path.exists():
            raise InputError(f"{path}: exists already")
        with replacing(path, durable=True) as aside, create_h5(aside) as file:
            chunks = (min(dim, CHUNK_ROWS), 1)
            file.create_dataset("data", (dim, 0), numpy_dtype, maxshape=(dim, None), chunks=chunks)
            file.create_dataset("data_idxs", (2, 0), "int64", maxshape=(2, None))
            for name in ("metadata", "sha256"):
                file.create_dataset(name, (0,), h5py.string_dtype(), maxshape=(None,))
            for name, value in attributes.items():
                file.attrs[name] = value
        return cls(path)

    @classmethod
    def open_or_create(
        cls, path: Path, dim: int, dtype: torch.dtype, attributes: Mapping[str, str]
    ) -> IncrementalHDF5:
        """Return the file at ``path``, created without entries if it is not there.

        Raises:
            InputError: If it is there with other attributes.
        """
        if not path.exists():
            return cls.create(path, dim, dtype, attributes)
        file = cls(path)
        if (found := file.attributes()) != dict(attributes):
            raise InputError(f"{path}: expected a file with {dict(attributes)}, found {found}")
        return file

    def append(
        self, data: Tensor, metadata: dict[str, Any], extras: Mapping[str, Tensor] | None = None
    ) -> str:
        """Add ``data`` (``[D]`` or ``[D, columns]``) as a new entry and return its hash.

        Raises:
            NumericalError: If a value is NaN or infinite.
        """
        check_finite(data, f"{self.path.name}, entry {metadata}")
        columns = data[:, None] if data.ndim == 1 else data
        with replacing(self.path, durable=True) as aside:
            shutil.copyfile(self.path, aside)
            return self._append_to(aside, columns, repr(metadata), extras or {})

    @staticmethod
    def _append_to(path: Path, columns: Tensor, text: str, extras: Mapping[str, Tensor]) -> str:
        sha256 = _hash(columns, text, extras)
        with h5py.File(path, "r+", locking=False) as file:
            dataset, idxs, texts = (file[name] for name in ("data", "data_idxs", "metadata"))
            entry, begin = len(texts), dataset.shape[1]
            end = begin + columns.shape[1]
            chunks = -(-len(columns) // dataset.chunks[0]) * columns.shape[1]
            added = chunks * dataset.chunks[0] * dataset.dtype.itemsize
            arrays = {_key(name): value.detach().cpu().numpy() for name, value in extras.items()}
            before = file.get(f"extras/{entry - 1}", {})
            same = {name for name in arrays.keys() & before if _equal(arrays[name], before[name])}
            reserve_space(file, added + sum(arrays[name].nbytes for name in arrays.keys() - same))
            for name, array in arrays.items():  # frozen parameters are the same in all entries
                file[f"extras/{entry}/{name}"] = before[name] if name in same else array
            dataset.resize(end, axis=1)
            dataset[:, begin:end] = columns.detach().cpu().numpy()
            idxs.resize(entry + 1, axis=1)
            idxs[:, entry] = begin, end
            for strings, value in ((texts, text), (file["sha256"], sha256)):
                strings.resize(entry + 1, axis=0)
                strings[entry] = value
        return sha256

    def attributes(self) -> dict[str, str]:
        """Return the attributes of the file."""
        with reading(self.path) as file:
            return {str(name): str(value) for name, value in file.attrs.items()}

    def metadata(self) -> list[dict[str, Any]]:
        """Return the metadata of all entries, in order."""
        with reading(self.path) as file:
            texts = own_dataset(file, "metadata").asstr()[:]
        try:
            parsed = [ast.literal_eval(text) for text in texts]
        except (ValueError, SyntaxError):
            parsed = [None]
        if not all(isinstance(metadata, dict) for metadata in parsed):
            raise StoreError(f"{self.path}: its metadata cannot be read")
        return parsed

    def has(self, **wanted: Any) -> bool:
        """Say whether there is an entry whose metadata hold all ``wanted`` values."""
        return any(wanted.items() <= found.items() for found in self.metadata())

    def find(self, **wanted: Any) -> Entry:
        """Return the last entry whose metadata hold all ``wanted`` values.

        Raises:
            InputError: If there is none; the line lists what there is.
            StoreError: If it does not match its hash.
        """
        metadata = self.metadata()
        matches = [i for i, found in enumerate(metadata) if wanted.items() <= found.items()]
        if not matches:
            names = ", ".join(f"{name} {value}" for name, value in wanted.items())
            there = [found.get(next(iter(wanted))) for found in metadata]
            raise InputError(f"{self.path}: {names} was not recorded; there are {there}")
        return self._entry(matches[-1], metadata)

    def _entry(self, entry: int, metadata: list[dict[str, Any]]) -> Entry:
        with reading(self.path) as file:
            text = own_dataset(file, "metadata").asstr()[entry]
            begin, end = own_dataset(file, "data_idxs")[:, entry]
            data = torch.from_numpy(own_dataset(file, "data")[:, begin:end])
            extras = {
                unquote(name): torch.as_tensor(own_dataset(file, f"extras/{entry}/{name}")[()])
                for name in file.get(f"extras/{entry}", {})
            }
            expected = None
            if "sha256" in file:
                expected = own_dataset(file, "sha256").asstr()[entry]
        sha256 = _hash(data, text, extras)
        if expected not in (None, sha256):
            raise StoreError(
                f"{self.path}: the entry {metadata[entry]} does not match its hash: the file was "
                "damaged or changed; train again"
            )
        return Entry(data, metadata[entry], extras, sha256, expected is not None)


def _key(name: str) -> str:
    """Return a name as one that is no path: those of modules may have slashes."""
    return quote(name, safe="")


def _equal(array: np.ndarray, stored: h5py.Dataset) -> bool:
    same_kind = (array.shape, array.dtype) == (stored.shape, stored.dtype)
    return same_kind and array.tobytes() == stored[()].tobytes()


def _hash(data: Tensor, text: str, extras: Mapping[str, Tensor]) -> str:
    """Return the hash of an entry with these columns, metadata and extras."""
    return named_hash({"data": data} | {f"extras/{name}": extras[name] for name in extras}, text)
