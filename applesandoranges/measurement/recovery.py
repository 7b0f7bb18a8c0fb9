"""What a recovery is: which vectors, measure, advance, solve.

A recovery is a class derived from :class:`Recovery`, a line in
:data:`~applesandoranges.measurement.sizes.KINDS` and one in :func:`make_recovery`. 10c measures it,
10e advances it from one round to the next, 10d solves it.
"""

from __future__ import annotations

import shlex
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from skerch import heartbeat
from skerch.core.krylov import BasisStep
from skerch.errors import InputError, StoreError
from skerch.results import Eigh
from skerch.store.files import check_writable, differences
from skerch.store.measurements import DistributedHDF5
from skerch.store_names import ALL, INNER_FMT, LO_FMT, MERGED, kind_of_files

from ..app.software import made_with
from .merge import Merge
from .recorded_hessian import RecordedHessian
from .sizes import DTYPE, Sizes
from .ways import ways_of

NUMPY_DTYPE = np.dtype(DTYPE)

#: Told the name of each stage when it begins.
Stage = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class Store:
    """The measurements of one Hessian on disk.

    Attributes:
        virtual: Virtual files by format of their names; those of the other measurements lie beside.
        merged: Monolithic files, likewise.
        flag: Success flag.
        budget: Memory to use, in bytes.
        allow_unknown: Take measurements of other tools, which carry no provenance.
    """

    virtual: dict[str, Path]
    merged: dict[str, Path]
    flag: str
    budget: int
    allow_unknown: bool = False

    @classmethod
    def in_directory(cls, directory: Path, flag: str, budget: int) -> Store:
        """Return the store in ``directory``, under the usual names."""
        names = (ALL, MERGED)
        virtual, merged = (
            {fmt: directory / fmt.format(name) for fmt in (LO_FMT, INNER_FMT)} for name in names
        )
        return cls(virtual=virtual, merged=merged, flag=flag, budget=budget)

    @property
    def directory(self) -> Path:
        """Where the outer measurements lie."""
        return self.virtual[LO_FMT].parent


class Recovery(ABC):
    """A recovery of eigenpairs of one Hessian, at one of its rounds.

    Measurements are numbered from 0 in each round; the files of a round are those of the round
    before, used again.

    Attributes:
        recorded: The Hessian.
        sizes: Rounds, products, layout.
        store: Where measurements are.
        number: The round.
        remeasured: Which measurements were made again, as they do not say of which Hessian they
            are or were computed in several ways, and how far they were off.
    """

    remeasured: dict[str, Any] | None = None

    def __init__(self, recorded: RecordedHessian, sizes: Sizes, store: Store, number: int = 0):
        sizes.check_round(number)
        if sizes.num_outer is not None:
            sizes.check_rank()
        self.recorded, self.sizes, self.store, self.number = recorded, sizes, store, number

    # --- which vectors

    @abstractmethod
    def vectors(self, idxs: Sequence[int]) -> Tensor:
        """Return the vectors ``idxs`` that the Hessian is multiplied with, ``[K, D]``."""

    @cached_property
    def provenance(self) -> dict[str, Any]:
        """What each measurement of the round carries."""
        return self.sizes.provenance(self.recorded.identity, self.recorded.seed)

    @property
    def seeds(self) -> dict[str, int]:
        """Seeds of the test matrices, by the names that the provenance has for them."""
        names = ("seed_phi", "seed_psi")
        return {name: self.provenance[name] for name in names if name in self.provenance}

    # --- measure

    @abstractmethod
    def measure(self, idxs: Sequence[int]) -> list[Tensor]:
        """Return measurements ``idxs``, one ``[size, K]`` for each format of the layout."""

    def check_store(self) -> None:
        """Raise :class:`InputError` unless the store on disk has this layout and our dtype."""
        for fmt, shape in self.sizes.layout.items():
            path = self.store.virtual[fmt]
            if not path.is_file():
                command = self._layout_command(shlex.quote(str(self.store.directory)))
                raise InputError(f"{path}: no such store; {command} makes one")
            check_writable(path.parent)
            found = DistributedHDF5.load_virtual(path).require_kind(kind_of_files(fmt))
            if found.shape != shape or found.dtype != NUMPY_DTYPE:
                raise InputError(
                    f"{path}: expected shape {shape} and dtype {NUMPY_DTYPE}, found {found.shape} "
                    f"and {found.dtype}; {self.recorded.size_in_words}; "
                    f"{self._layout_command('NEW_DIRECTORY')} makes a store that fits"
                )

    def _layout_command(self, directory: str) -> str:
        """Return the command that makes an empty store of these sizes in a directory."""
        dim = self.recorded.dim
        outer, inner = (self.sizes.layout.get(fmt, (0, 0))[1] for fmt in (LO_FMT, INNER_FMT))
        return (
            f"python -m skerch create_hdf5_layout --hdf5dir {directory} --dtype {NUMPY_DTYPE} "
            f"--shape {dim},{dim} --outer {outer} --inner {inner} --sym"
        )

    def check_indices(self, idxs: Sequence[int]) -> list[int]:
        """Return the indices sorted and once each.

        Raises:
            InputError: If there are none, or some are not of this round.
        """
        num = self.sizes.per_round
        wrong = [i for i in idxs if not 0 <= i < num]
        if wrong or not idxs:
            raise InputError(
                f"MEASUREMENT_IDXS must be some of 0 ... {num - 1}, got {wrong or 'none'}"
            )
        return sorted(set(idxs))

    def subpaths(self, idx: int) -> list[Path | None]:
        """Return the file of measurement ``idx`` for each format, ``None`` where it has none."""
        return [
            DistributedHDF5.subpath(self.store.virtual[fmt].parent, fmt, idx)
            if idx < shape[1]
            else None
            for fmt, shape in self.sizes.layout.items()
        ]

    def with_outer(self, idx: int) -> bool:
        """Say whether the product itself of measurement ``idx`` is kept."""
        return idx < self.sizes.layout[LO_FMT][1]

    def is_measured(self, idx: int) -> bool:
        """Say whether measurement ``idx`` is there, whole and of this very Hessian and round."""
        try:
            for path, (dim, _) in zip(self.subpaths(idx), self.sizes.layout.values(), strict=True):
                if path is None:
                    continue
                found = DistributedHDF5.load(path, dim, NUMPY_DTYPE)
                if found.flag != self.store.flag or differences(self.provenance, found.provenance):
                    return False
        except StoreError:
            return False
        return True

    def missing(self, idxs: Sequence[int]) -> list[int]:
        """Return those of ``idxs`` that are not measured."""
        heartbeat.doing("looking which measurements are there")
        return [idx for idx in idxs if not self.is_measured(idx)]

    def write(self, idx: int, values: Sequence[np.ndarray]) -> None:
        """Write measurement ``idx``, one array for each format."""
        for path, array in zip(self.subpaths(idx), values, strict=True):
            if path is not None:
                software = made_with() | self.recorded.computed_with
                DistributedHDF5.write(path, array, self.store.flag, self.provenance, software)

    # --- advance

    def begin(self) -> BasisStep | None:
        """Make the vectors of the first round, where a start is given.

        Returns:
            The small matrices of the step, or ``None`` if it was made before.

        Raises:
            InputError: If this recovery makes none.
        """
        raise InputError(f"RECOVERY={self.sizes.recovery} has no START")

    @property
    def ended(self) -> str | None:
        """Why nothing is left to measure in this round, in words; ``None`` if something may be."""
        return None

    def advance(self, said: dict[str, Any] | None = None) -> BasisStep | None:
        """Make of the products of this round the vectors of the next one.

        Args:
            said: Written beside them.

        Returns:
            The small matrices of the step, or ``None`` if it was made before.

        Raises:
            InputError: If this is the last round.
            StoreError: If products are missing; the line lists them.
        """
        raise InputError(f"RECOVERY={self.sizes.recovery} has one round only: after 10c comes 10d")

    # --- solve

    @property
    @abstractmethod
    def merges(self) -> dict[str, Merge]:
        """What must be merged before, by name."""

    @property
    @abstractmethod
    def facts(self) -> dict[str, Any]:
        """What an analysis says of the measurements that it is of."""

    def check(self) -> list[str]:
        """Check all measurements, changing nothing; return what could not be verified.

        Raises:
            StoreError: If measurements cannot be used.
            InputError: If some that do not say of which Hessian they are belong to another one.
        """
        return [doubt for merge in self.merges.values() for doubt in merge.check()]

    def ways(self) -> dict[str, list[int]]:
        """Return in which ways the measurements were computed, and which ones in each.

        Engines, devices and TensorFloat-32, which may differ between the jobs of one Hessian;
        known once :meth:`check` was called, unless all were merged before.
        """
        return ways_of(self.merges)

    @abstractmethod
    def solved(self, stage: Stage) -> AbstractContextManager[Eigh]:
        """Return a context that gives the eigenpairs, from the merged measurements."""

    def _merge(self, fmt: str, provenance: dict[str, Any], **options: Any) -> Merge:
        return Merge(
            virtual=self.store.virtual[fmt],
            monolithic=self.store.merged[fmt],
            kind=kind_of_files(fmt),
            flag=self.store.flag,
            provenance=provenance,
            memory_budget=self.store.budget,
            **options,
        )


def make_recovery(
    recorded: RecordedHessian, sizes: Sizes, store: Store, number: int = 0, **options: Any
) -> Recovery:
    """Return the recovery of these sizes, at round ``number``.

    Args:
        recorded: The Hessian.
        sizes: What is recovered of it, and how.
        store: Where its measurements are.
        number: The round.
        options: Of one recovery alone; see its class.

    Raises:
        InputError: If there is no such round, or no such number of pairs.
    """
    from .hmt import Hmt
    from .nystrom import Nystrom
    from .rounds import Krylov
    from .seigh import Seigh

    classes: dict[str, type[Recovery]] = {
        "seigh": Seigh,
        "hmt": Hmt,
        "krylov": Krylov,
        "nystrom": Nystrom,
    }
    return classes[sizes.recovery](recorded, sizes, store, number, **options)
