"""Files of measurements, made in memory and written to disk at once.

One write instead of HDF5's many small ones. Through the low-level interface of h5py: the other one
takes twice as long for a file of this size.
"""

from __future__ import annotations

import itertools
import json
import threading
import zlib
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path

import h5py
import numpy as np

from ..store_names import CHECKSUM, DATA, FLAGS, INDEX, KIND, MADE_WITH, PROVENANCE
from .files import Provenance, provenance_text, replacing
from .places import Place

_TEXT = h5py.string_dtype()

#: Bytes of data up to which a file in memory is kept for the next measurement: making another one
#: takes HDF5 longer than changing it. Of more data it is the writing that counts.
_LARGEST_TEMPLATE = 2**20


class _Template:
    """A file in memory of which data, checksum and index change.

    ``facts`` are texts by the names of their attributes, as pairs.
    """

    def __init__(self, shape: tuple[int, ...], dtype: np.dtype, flag: str, *facts: tuple[str, str]):
        self._file, self._data = _new_file(shape, dtype, flag, dict(facts))
        self._checksum = _add_attribute(self._file, CHECKSUM, np.dtype(np.int64))
        self._index = None
        if KIND in dict(facts):
            self._index = _add_attribute(self._file, INDEX, np.dtype(np.int64))
        self._lock = threading.Lock()

    def image(self, values: np.ndarray, index: int) -> bytes:
        """Return the file with these values; ``index`` matters if it has a kind."""
        with self._lock:  # threads share it
            self._data.write(h5py.h5s.ALL, h5py.h5s.ALL, values)
            self._checksum.write(np.array(zlib.crc32(values.data), dtype=np.int64))
            if self._index is not None:
                self._index.write(np.array(index, dtype=np.int64))
            return _image(self._file)


_kept_template = lru_cache(maxsize=4)(_Template)


def measurement_image(
    values: np.ndarray,
    flag: str,
    provenance: Provenance,
    made_with: Provenance,
    place: Place | None,
) -> bytes:
    """Return the content of the file of a measurement; ``place`` is which one, if it has any."""
    facts = {PROVENANCE: provenance_text(provenance), MADE_WITH: json.dumps(dict(made_with))}
    if place is not None:
        facts[KIND] = place.kind
    make = _Template if values.nbytes > _LARGEST_TEMPLATE else _kept_template
    template = make(values.shape, values.dtype, flag, *facts.items())
    return template.image(values, 0 if place is None else place.index)


def empty_image(dim: int, dtype: np.dtype, flag: str) -> bytes:
    """Return the content of a file of ``dim`` entries, for which no space is reserved."""
    return _image(_new_file((dim,), dtype, flag, {})[0])


_FILE_NUMBERS = itertools.count()


def _new_file(
    shape: tuple[int, ...], dtype: np.dtype, flag: str, facts: Mapping[str, str]
) -> tuple[h5py.h5f.FileID, h5py.h5d.DatasetID]:
    """Return a file in memory, closed with the last reference to it, and its data set."""
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
    image: bytes = file.get_file_image()
    return image


def _add_dataset(
    file: h5py.h5f.FileID, name: str, shape: tuple[int, ...], dtype: np.dtype
) -> h5py.h5d.DatasetID:
    kind = h5py.h5t.py_create(dtype, logical=True)
    return h5py.h5d.create(file, name.encode(), kind, h5py.h5s.create_simple(shape))


def _add_attribute(file: h5py.h5f.FileID, name: str, dtype: np.dtype) -> h5py.h5a.AttrID:
    kind = h5py.h5t.py_create(dtype, logical=True)
    return h5py.h5a.create(file, name.encode(), kind, h5py.h5s.create(h5py.h5s.SCALAR))


def write_image(path: Path, image: bytes) -> None:
    """Write a file that appears under its name when it is complete."""
    rest = memoryview(image)
    with replacing(path) as aside, open(aside, "wb", buffering=0) as file:
        while rest:  # a nearly full disk takes a part of it first
            rest = rest[file.write(rest) :]
