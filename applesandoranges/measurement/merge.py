"""From measurements to monolithic files, verified before anything is written."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from skerch.errors import StoreError
from skerch.store.files import format_indices, read_provenance
from skerch.store.measurements import DistributedHDF5, load_merged, verify_merged


@dataclass(frozen=True)
class Merge:
    """``virtual`` into ``monolithic``, with the flag and provenance that all must carry.

    Attributes:
        allow_unknown: Take measurements of other tools, which carry no provenance; ``None`` where
            no other tool makes such measurements, so that no key could allow them.
        num: Merge the first ``num`` measurements only; all by default.
    """

    virtual: Path
    monolithic: Path
    flag: str
    provenance: dict[str, Any]
    memory_budget: int
    allow_unknown: bool | None = None
    num: int | None = None

    @cached_property
    def done_before(self) -> bool:
        """Whether the monolithic file held these very measurements, undamaged, from the start."""
        try:
            with self.open() as file:
                shape = file["data"].shape
            verify_merged(self.monolithic, self.memory_budget)
        except StoreError:
            return False
        return shape == DistributedHDF5.load_virtual(self.virtual).first(self.num).shape

    def check(self) -> list[str]:
        """Check that this merge is done or can be; return what could not be verified.

        Raises:
            StoreError: If measurements cannot be used; the line lists their indices and why.
        """
        if self.done_before:
            with self.open() as file:
                return self._doubts(read_provenance(file))
        DistributedHDF5.check_output(self.virtual, self.monolithic, overwrite=True, num=self.num)
        report = DistributedHDF5.analyze_virtual(
            self.virtual, self.flag, self.provenance, bool(self.allow_unknown), self.num
        )
        if report.without_provenance and self.allow_unknown is not None:
            which = format_indices(report.without_provenance)
            raise StoreError(
                f"{self.virtual}: measurements {which} do not say of which Hessian they are; "
                "ALLOW_UNKNOWN_PROVENANCE=true takes them on trust, if three made again agree"
            )
        report.require_complete()
        return self._doubts(report.provenance)

    def _doubts(self, provenance: dict[str, Any]) -> list[str]:
        text = f"{self.virtual}: the measurements do not say of which Hessian they are"
        return [] if provenance else [text]

    def stored(self, idx: int) -> np.ndarray:
        """Return measurement ``idx``, ``[dim]``; from the monolithic file if that is complete."""
        if self.done_before:
            with self.open() as file:
                return file["data"][:, idx]
        return DistributedHDF5.load(DistributedHDF5.load_virtual(self.virtual).subpaths[idx]).data

    def run(self, delete_subfiles: bool) -> bool:
        """Merge unless it is done; return whether anything was merged."""
        if self.done_before:
            return False
        DistributedHDF5.merge_all(
            self.virtual,
            self.monolithic,
            self.flag,
            self.provenance,
            self.memory_budget,
            delete_subfiles,
            overwrite=True,
            allow_unknown=bool(self.allow_unknown),
            num=self.num,
        )
        return True

    def open(self) -> AbstractContextManager[h5py.File]:
        """Open the monolithic file, its flags and provenance verified."""
        unknown = bool(self.allow_unknown)
        return load_merged(self.monolithic, self.flag, self.provenance, unknown)
