"""The store of a recovery in rounds: blocks of a basis, and the Hessian's products with the last.

Round 0 multiplies the Hessian with rows of an SSRFT. Between rounds ``r`` and ``r + 1`` (10e), the
products are merged and the next block of the basis is made of them, ``basis_<r + 1>.h5`` beside the
measurements; that block, once made, is never made again. Measurements carry the id of the block
that they are products with, so that those of another basis are never taken for them.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py

from skerch import BASIS_FMT, LO_FMT
from skerch.core.krylov import BasisStep
from skerch.core.products import MatrixColumns, MeasurementRows
from skerch.core.rayleigh_ritz import solve_rayleigh_ritz
from skerch.errors import InputError, StoreError
from skerch.results import Eigh
from skerch.ssrft import SSRFT
from skerch.store.basis import open_basis, write_first_block, write_next_block
from skerch.store.files import differences, read_provenance, reading
from skerch.store.measurements import DistributedHDF5

from .loop import NUMPY_DTYPE
from .merge import Merge
from .recorded import DTYPE, RecordedHessian
from .recoveries import Recovery

MERGED = "MERGED"


@dataclass(frozen=True)
class RoundStore:
    """Measurements and basis of one Hessian in rounds.

    Attributes:
        directory: Where the store lies.
        recorded: The Hessian.
        recovery: Rounds and their size.
        flag: Success flag.
        budget: Memory to use, in bytes.
    """

    directory: Path
    recorded: RecordedHessian
    recovery: Recovery
    flag: str
    budget: int

    def block_path(self, number: int) -> Path:
        """Return the file of the block that round ``number`` multiplies."""
        return DistributedHDF5.subpath(self.directory, BASIS_FMT, number)

    @property
    def _identity(self) -> dict[str, Any]:
        return self.recorded.identity | {
            "recovery": self.recovery.name,
            "block_size": self.recovery.block_size,
            "seed_psi": self.recorded.seed + 2,
            "dtype": str(DTYPE).removeprefix("torch."),
        }

    def _block_identity(self, number: int) -> dict[str, Any]:
        return self._identity | {"round": number}

    def has_block(self, number: int) -> bool:
        """Say whether the block of round ``number`` was made, for this very Hessian."""
        path = self.block_path(number)
        if not path.exists():
            return False
        with reading(path) as file:
            return not differences(self._block_identity(number), read_provenance(file))

    def width(self, number: int) -> int:
        """Return the columns of the block of a round; 0 if the basis before is invariant.

        Raises:
            StoreError: If it was not made yet; the line says how it is.
        """
        if number == 0:
            return self.recovery.block_size
        if not self.has_block(number):
            raise StoreError(
                f"{self.block_path(number)}: the block of round {number} of this Hessian is not "
                f"there; measure round {number - 1} (10c) and run 10e with ROUND={number - 1}"
            )
        with reading(self.block_path(number)) as file:
            return int(file["data"].shape[1])

    def provenance(self, number: int) -> dict[str, Any]:
        """Return what each measurement of a round carries."""
        block = "ssrft"
        if number:
            with reading(self.block_path(number)) as file:
                block = read_provenance(file)["block_id"]
        return self._block_identity(number) | {"block_id": block}

    @contextmanager
    def vectors(self, number: int) -> Iterator[MeasurementRows]:
        """Yield the vectors that round ``number`` multiplies."""
        if number == 0:
            yield self._psi()
        else:
            with reading(self.block_path(number)) as file:
                yield MatrixColumns(file["data"], self.recorded.problem.device)

    def _psi(self) -> SSRFT:
        shape = (self.recovery.block_size, self.recorded.dim)
        return SSRFT(shape, self.recorded.seed + 2, self.recorded.problem.device)

    def merge(self, number: int, virtual: Path | None = None, merged: Path | None = None) -> Merge:
        """Return the merge of the products of a round."""
        return Merge(
            virtual or self.directory / LO_FMT.format(DistributedHDF5.ALL),
            merged or self.directory / LO_FMT.format(MERGED),
            self.flag,
            self.provenance(number),
            self.budget,
            num=self.width(number),
        )

    @contextmanager
    def _basis(self, last: int) -> Iterator[tuple[list[h5py.Dataset], list[BasisStep]]]:
        """Yield blocks and steps of the basis that round ``last`` completes."""
        numbers = range(self.recovery.basis_begin, last + 1)
        if 0 in numbers and not self.has_block(0):
            first = self._block_identity(0) | {"block_id": "ssrft"}
            write_first_block(self.block_path(0), self._psi(), NUMPY_DTYPE, first, self.budget)
        paths = [self.block_path(number) for number in numbers]
        with open_basis(paths, self._identity) as basis:
            yield basis

    def extend(self, number: int) -> BasisStep | None:
        """Make the block of round ``number + 1`` of the products of round ``number``.

        Returns:
            The small matrices of the step, or ``None`` if the block was there already.

        Raises:
            InputError: If ``number`` is the last round.
            StoreError: If products are missing; the line lists them.
        """
        if number + 1 >= self.recovery.num_rounds:
            raise InputError(
                f"round {number} is the last of {self.recovery.num_rounds}: 10d comes next"
            )
        if self.has_block(number + 1):
            return None
        merge = self.merge(number)
        merge.check()
        merge.run(delete_subfiles=False)
        identity = self._block_identity(number + 1) | {"block_id": uuid.uuid4().hex}
        with ExitStack() as stack:
            products = stack.enter_context(merge.open())["data"]
            blocks, steps = stack.enter_context(self._basis(number))
            return write_next_block(
                self.block_path(number + 1), blocks, products, steps, NUMPY_DTYPE, identity,
                self.budget, self.recorded.problem.device,
            )  # fmt: skip

    def last_round(self) -> int:
        """Return the round whose products complete the basis; earlier ones if it is invariant."""
        for number in range(1, self.recovery.num_rounds):
            if self.width(number) == 0:
                return number - 1
        return self.recovery.num_rounds - 1

    @contextmanager
    def solved(self, rank: int, merge: Merge) -> Iterator[Eigh]:
        """Yield the ``rank`` leading eigenpairs, from the merged products of the last round."""
        last = self.last_round()
        planned = self.recovery.num_rounds - self.recovery.basis_begin
        num_products = sum(self.width(number) for number in range(last + 1))
        with ExitStack() as stack:
            products = stack.enter_context(merge.open())["data"]
            blocks, steps = stack.enter_context(self._basis(last))
            yield solve_rayleigh_ritz(
                blocks, products, steps, rank, planned, num_products, self.budget,
                self.recorded.problem.device,
            )  # fmt: skip
