"""From measurements to monolithic files, verified before anything is written."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from skerch import heartbeat
from skerch.errors import StoreError
from skerch.store.files import format_indices, read_provenance
from skerch.store.measurements import DistributedHDF5, StoreReport, VirtualSet
from skerch.store.merge import load_merged, read_on_trust, verify_merged
from skerch.store_names import KIND, SOURCES


@dataclass
class Merge:
    """``virtual`` into ``monolithic``, with the flag and provenance that all must carry.

    Attributes:
        kind: What is measured, the beginning of the names of all sub-files.
        allow_unknown: Take measurements of other tools, which carry no provenance; ``None`` where
            no other tool makes such measurements, so that no key could allow them.
        num: Merge the first ``num`` measurements only; all by default.
        made_with: What each measurement was made with, once they were checked to be merged.
        sources: Hash over the measurements that the monolithic file was made of, once it was
            looked at or made here. From then on no other one is taken for it.
    """

    virtual: Path
    monolithic: Path
    kind: str
    flag: str
    provenance: dict[str, Any]
    memory_budget: int
    allow_unknown: bool | None = None
    num: int | None = None
    sources: str | None = field(default=None, init=False)
    made_with: list[dict[str, Any]] = field(default_factory=list, init=False)

    @cached_property
    def done_before(self) -> bool:
        """Whether the monolithic file held these very measurements, undamaged, from the start.

        What does not say what it was made of never counts. Of what other tools measured, which say
        nothing of themselves, it counts if it was made here for this very Hessian and no sub-file
        is there any more: they may be those of the next Hessian by now.
        """
        layout = self._layout
        try:
            with self.open() as file:
                same = file["data"].shape == layout.shape and file.attrs.get(KIND) == self.kind
                provenance, sources = read_provenance(file), file.attrs.get(SOURCES)
            verify_merged(self.monolithic, self.memory_budget)
        except StoreError:
            return False
        if not same or sources is None:
            return False
        if provenance:
            # Measured again since: whatever is merged beside it is of the new ones.
            report = self._report()
            fresh = not report.problems and report.sources != sources
        else:
            fresh = any(map(Path.exists, layout.subpaths))
        if not fresh:
            self.sources = sources
        return not fresh

    @property
    def _layout(self) -> VirtualSet:
        found = DistributedHDF5.load_virtual(self.virtual).require_kind(self.kind)
        return found.first(self.num)

    def _report(self) -> StoreReport:
        return DistributedHDF5.analyze_virtual(
            self.virtual, self.flag, self.provenance, bool(self.allow_unknown), self.num
        )

    def check(self) -> list[str]:
        """Check that this merge is done or can be; return what could not be verified.

        Raises:
            StoreError: If measurements cannot be used; the line lists their indices and why.
        """
        if self.done_before:
            with self.open() as file:
                return self._doubts(read_provenance(file))
        heartbeat.doing(f"verifying the measurements of {self.virtual.name}")
        DistributedHDF5.check_output(self.virtual, self.monolithic, overwrite=True, num=self.num)
        report = self._report()
        if report.without_provenance and self.allow_unknown is not None:
            which = format_indices(report.without_provenance)
            raise StoreError(
                f"{self.virtual}: measurements {which} do not say of which Hessian they are; "
                "ALLOW_UNKNOWN_PROVENANCE=true takes them on trust, if three made again agree"
            )
        report.require_complete()
        self.made_with = report.made_with
        doubts = self._doubts(report.provenance)
        if self._is_of_something_unknown:
            doubts.append(f"{self.monolithic}: does not say of which Hessian it is; merged anew")
        return doubts

    @property
    def _is_of_something_unknown(self) -> bool:
        """Whether the monolithic file is whole, and not known to be of this Hessian or another."""
        try:
            with load_merged(self.monolithic, self.flag) as file:
                return not read_provenance(file) and read_on_trust(file) != self.provenance
        except StoreError:
            return False

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
        heartbeat.doing(f"merging the measurements of {self.virtual.name}")
        DistributedHDF5.merge_all(
            self.virtual,
            self.monolithic,
            self.flag,
            self.provenance,
            memory_budget=self.memory_budget,
            delete_subfiles=delete_subfiles,
            overwrite=True,
            allow_unknown=bool(self.allow_unknown),
            num=self.num,
        )
        with self.open() as file:
            self.sources = str(file.attrs[SOURCES])
        return True

    @contextmanager
    def open(self) -> Iterator[h5py.File]:
        """Open the monolithic file, its flags and provenance verified.

        Raises:
            StoreError: If they are others, or another job has replaced the file meanwhile.
        """
        unknown = bool(self.allow_unknown)
        with load_merged(self.monolithic, self.flag, self.provenance, unknown) as file:
            if not read_provenance(file) and read_on_trust(file) != self.provenance:
                raise StoreError(f"{self.monolithic}: does not say of which Hessian it is")
            if self.sources not in (None, file.attrs.get(SOURCES)):
                raise StoreError(f"{self.monolithic}: was replaced by another job meanwhile")
            yield file
