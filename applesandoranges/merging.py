"""From measurements to monolithic files, verified before anything is written."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py

from skerch.distributed_decompositions import check_sizes
from skerch.measurement_store import DistributedHDF5, load_merged
from skerch.utils import InputError, StoreError


def sketch_sizes(outer_virtual: Path, inner_virtual: Path, dim: int) -> tuple[int, int]:
    """Return ``(n_o, n_i)`` of a store.

    Raises:
        InputError: If the files are missing, or not those of a sketch of a ``[dim, dim]`` matrix.
    """
    for path in (outer_virtual, inner_virtual):
        if not path.is_file():
            raise InputError(f"{path}: no such virtual file")
    outer = DistributedHDF5.load_virtual(outer_virtual)
    inner = DistributedHDF5.load_virtual(inner_virtual)
    if outer.shape[0] != dim or inner.shape[0] != inner.shape[1] or outer.dtype != inner.dtype:
        raise InputError(
            f"expected outer measurements ({dim}, n_o) and inner ones (n_i, n_i) of one dtype, "
            f"found {outer.shape} {outer.dtype} in {outer_virtual} and {inner.shape} {inner.dtype} "
            f"in {inner_virtual}"
        )
    check_sizes((dim, dim), outer.shape[1], inner.shape[1])
    return outer.shape[1], inner.shape[1]


@dataclass(frozen=True)
class Merge:
    """``virtual`` into ``monolithic``, with the flag and provenance that all must carry."""

    virtual: Path
    monolithic: Path
    flag: str
    provenance: dict[str, Any]

    def is_done(self) -> bool:
        """Say whether the monolithic file holds these very measurements already."""
        try:
            load_merged(self.monolithic, self.flag, self.provenance).close()
        except StoreError:
            return False
        return True

    def check(self) -> None:
        """Raise :class:`StoreError`, listing indices, unless this merge is done or can be."""
        if not self.is_done():
            DistributedHDF5.check_output(self.virtual, self.monolithic, overwrite=True)
            report = DistributedHDF5.analyze_virtual(self.virtual, self.flag, self.provenance)
            report.require_complete()

    def run(self, memory_budget: int, delete_subfiles: bool) -> bool:
        """Merge unless it is done; return whether anything was merged."""
        if self.is_done():
            return False
        DistributedHDF5.merge_all(
            self.virtual,
            self.monolithic,
            self.flag,
            self.provenance,
            memory_budget,
            delete_subfiles,
            overwrite=True,
        )
        return True

    def open(self) -> h5py.File:
        """Open the monolithic file, verified."""
        return load_merged(self.monolithic, self.flag, self.provenance)
