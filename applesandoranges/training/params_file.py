"""HDF5 files to which columns are added over time: ``data`` ``(D, columns)`` with metadata.

``data_idxs`` ``(2, entries)`` holds the first column of each entry and the one after its last;
``metadata`` one text per entry, the ``repr`` of a dictionary. Named tensors that belong to an entry
but have other shapes (BatchNorm statistics) lie in ``extras/<entry>/``. A new entry is added to a
copy, which then replaces the file: whatever happens, the file holds whole entries only.
"""

from __future__ import annotations

import ast
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import torch
from torch import Tensor

from skerch.errors import InputError, StoreError
from skerch.store.files import own_dataset, reading, replacing, reserve_space
from skerch.utils import check_finite

#: Rows per chunk: large enough to read columns fast, small enough for any HDF5 cache.
CHUNK_ROWS = 2**18


@dataclass(frozen=True)
class Entry:
    """One entry: ``data`` ``[D, columns]``, metadata, and its named extras."""

    data: Tensor
    metadata: dict[str, Any]
    extras: dict[str, Tensor]


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
        with replacing(path, durable=True) as aside, h5py.File(aside, "w") as file:
            chunks = (min(dim, CHUNK_ROWS), 1)
            file.create_dataset("data", (dim, 0), numpy_dtype, maxshape=(dim, None), chunks=chunks)
            file.create_dataset("data_idxs", (2, 0), "int64", maxshape=(2, None))
            file.create_dataset("metadata", (0,), h5py.string_dtype(), maxshape=(None,))
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
    ) -> None:
        """Add ``data`` (``[D]`` or ``[D, columns]``) as a new entry.

        Raises:
            NumericalError: If a value is NaN or infinite.
        """
        check_finite(data, f"{self.path.name}, entry {metadata}")
        columns = data[:, None] if data.ndim == 1 else data
        with replacing(self.path, durable=True) as aside:
            shutil.copyfile(self.path, aside)
            self._append_to(aside, columns, metadata, extras or {})

    @staticmethod
    def _append_to(
        path: Path, columns: Tensor, metadata: dict[str, Any], extras: Mapping[str, Tensor]
    ) -> None:
        with h5py.File(path, "r+") as file:
            dataset, idxs, texts = (file[name] for name in ("data", "data_idxs", "metadata"))
            entry, begin = len(texts), dataset.shape[1]
            end = begin + columns.shape[1]
            chunks = -(-len(columns) // dataset.chunks[0]) * columns.shape[1]
            added = chunks * dataset.chunks[0] * dataset.dtype.itemsize
            reserve_space(file, added + sum(value.nbytes for value in extras.values()))
            for name, value in extras.items():
                file[f"extras/{entry}/{name}"] = value.detach().cpu().numpy()
            dataset.resize(end, axis=1)
            dataset[:, begin:end] = columns.detach().cpu().numpy()
            idxs.resize(entry + 1, axis=1)
            idxs[:, entry] = begin, end
            texts.resize(entry + 1, axis=0)
            texts[entry] = repr(metadata)

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
        """
        metadata = self.metadata()
        matches = [i for i, found in enumerate(metadata) if wanted.items() <= found.items()]
        if not matches:
            names = ", ".join(f"{name} {value}" for name, value in wanted.items())
            there = [found.get(next(iter(wanted))) for found in metadata]
            raise InputError(f"{self.path}: {names} was not recorded; there are {there}")
        entry = matches[-1]
        with reading(self.path) as file:
            begin, end = own_dataset(file, "data_idxs")[:, entry]
            data = torch.from_numpy(own_dataset(file, "data")[:, begin:end])
            extras = {
                name: torch.as_tensor(own_dataset(file, f"extras/{entry}/{name}")[()])
                for name in file.get(f"extras/{entry}", {})
            }
        return Entry(data, metadata[entry], extras)
