"""Measurements in HDF5: one file each, a virtual data set over them, and a monolithic copy.

Many processes write measurements at the same time, each as a file of its own that appears under
its name only when it is complete (written aside, then renamed), with a checksum of its data, the
provenance that its writer gives it, and which measurement it is. What lies in a store is read in
:mod:`skerch.store.provenance`, and copied in :mod:`skerch.store.merge`.

Layout of a sub-file: ``data`` ``(dim,)`` and ``flags`` ``(1,)`` (text), as in the virtual file
``data`` ``(dim, n)`` and ``flags`` ``(n,)``. Attributes hold what this module adds.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np

from ..errors import NumericalError, StoreError
from ..store_names import ALL, DATA, FLAGS, INITIAL_FLAG, NUMBER
from .files import Provenance, create_h5, reading, replacing
from .image import empty_image, measurement_image, write_image
from .merge import check_output, merge_all
from .places import Place
from .provenance import StoreReport, VirtualSet, analyze_virtual, examine, load_virtual

if TYPE_CHECKING:  # reading a store takes no torch, whose import takes seconds
    import torch

__all__ = [
    "INITIAL_FLAG",
    "DistributedHDF5",
    "Measurement",
    "StoreReport",
    "VirtualSet",
]


@dataclass(frozen=True)
class Measurement:
    """One sub-file: ``data`` ``[dim]``, flag, provenance and the checksum it should have."""

    data: np.ndarray
    flag: str
    provenance: dict[str, Any]
    checksum: int | None


class DistributedHDF5:
    """Creates, fills, inspects and merges measurement stores."""

    SUBPATH_FORMAT = NUMBER
    ALL = ALL

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
        image = empty_image(dim, np.dtype(dtype), INITIAL_FLAG)
        data = h5py.VirtualLayout((dim, num), dtype)
        flags = h5py.VirtualLayout((num,), h5py.string_dtype())
        for idx in range(num):
            path = cls.subpath(directory, fmt, idx)
            write_image(path, image)
            data[:, idx] = h5py.VirtualSource(path.name, DATA, (dim,), dtype)
            flags[idx : idx + 1] = h5py.VirtualSource(path.name, FLAGS, (1,), h5py.string_dtype())
        all_path = directory / fmt.format(cls.ALL)
        with replacing(all_path) as aside, create_h5(aside) as file:
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
            path: The sub-file; if it has the name of a measurement, the file says of which.
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
        place = Place.of_name(Path(path))
        write_image(Path(path), measurement_image(array, flag, provenance, made_with or {}, place))

    @staticmethod
    def load(path: Path, dim: int | None = None, dtype: np.dtype | None = None) -> Measurement:
        """Read one measurement; verify its checksum and that it is the one that its name says.

        Raises:
            StoreError: If the file is missing, damaged, another measurement, or of another size or
                dtype.
        """
        with reading(Path(path)) as file:
            header, data = examine(file, dim, dtype)
            values = data[:]
        if header.checksum is not None and zlib.crc32(values.data) != header.checksum:
            raise StoreError(f"{path}: the checksum of its data does not match")
        return Measurement(values, header.flag, header.provenance, header.checksum)

    load_virtual = staticmethod(load_virtual)
    analyze_virtual = staticmethod(analyze_virtual)
    check_output = staticmethod(check_output)
    merge_all = staticmethod(merge_all)
