"""Recoveries in rounds: blocks of a basis, and the Hessian's products with them.

Round 0 multiplies the Hessian with rows of an SSRFT. Between rounds ``r`` and ``r + 1`` (10e), the
products are merged and the next block of the basis is made of them, ``basis_<r + 1>.h5`` beside the
measurements; that block, once made, is never made again. Measurements carry the id of the block
that they are products with, so that those of another basis are never taken for them.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

import h5py
from torch import Tensor

from skerch import BASIS_FMT, LO_FMT
from skerch.core.krylov import BasisStep
from skerch.core.products import MatrixColumns, MeasurementRows, linmeas_batch_torch
from skerch.core.rayleigh_ritz import solve_rayleigh_ritz
from skerch.errors import InputError, StoreError
from skerch.results import Eigh
from skerch.ssrft import SSRFT
from skerch.store.basis import open_basis, write_first_block, write_next_block
from skerch.store.files import differences, read_provenance, reading
from skerch.store.measurements import DistributedHDF5

from ..app import events
from .merge import Merge
from .recorded import TORCH_DTYPE
from .recovery import NUMPY_DTYPE, Recovery, Stage


class Krylov(Recovery):
    """Rayleigh-Ritz on a block Krylov basis [MM2015]: all blocks from the SSRFT's on."""

    #: The round whose vectors are the first block of the basis.
    basis_begin = 0

    # --- which vectors

    def _block_path(self, number: int) -> Path:
        """Return the file of the block that round ``number`` multiplies."""
        return DistributedHDF5.subpath(self.store.directory, BASIS_FMT, number)

    @property
    def _identity(self) -> dict[str, Any]:
        return self.sizes.provenance(self.recorded.identity, self.recorded.seed)

    def _block_identity(self, number: int) -> dict[str, Any]:
        return self._identity | {"round": number}

    def _has_block(self, number: int) -> bool:
        """Say whether the block of round ``number`` was made, for this very Hessian."""
        path = self._block_path(number)
        if not path.exists():
            return False
        with reading(path) as file:
            return not differences(self._block_identity(number), read_provenance(file))

    def _width(self, number: int) -> int:
        """Return the columns of the block of a round; 0 if the basis before is invariant.

        Raises:
            StoreError: If it was not made yet; the line says how it is.
        """
        if number == 0:
            return self.sizes.per_round
        if not self._has_block(number):
            raise StoreError(
                f"{self._block_path(number)}: the block of round {number} of this Hessian is not "
                f"there; measure round {number - 1} (10c) and run 10e with ROUND={number - 1}"
            )
        with reading(self._block_path(number)) as file:
            return int(file["data"].shape[1])

    def _provenance(self, number: int) -> dict[str, Any]:
        block = "ssrft"
        if number:
            with reading(self._block_path(number)) as file:
                block = read_provenance(file)["block_id"]
        return self._block_identity(number) | {"block_id": block}

    @cached_property
    def provenance(self) -> dict[str, Any]:
        """What each measurement of the round carries: also of which block."""
        return self._provenance(self.number)

    def _psi(self) -> SSRFT:
        shape = (self.sizes.per_round, self.recorded.dim)
        return SSRFT(shape, self.recorded.seed + 2, self.recorded.problem.device)

    @contextmanager
    def _rows(self) -> Iterator[MeasurementRows]:
        if self.number == 0:
            yield self._psi()
        else:
            with reading(self._block_path(self.number)) as file:
                yield MatrixColumns(file["data"], self.recorded.problem.device)

    def vectors(self, idxs: Sequence[int]) -> Tensor:
        """Return columns ``idxs`` of the block as rows, ``[K, D]``."""
        with self._rows() as rows:
            return rows.rows(idxs, TORCH_DTYPE)

    # --- measure

    def measure(self, idxs: Sequence[int]) -> list[Tensor]:
        """Return the products, ``[D, K]``."""
        with self._rows() as rows:
            return [linmeas_batch_torch(idxs, self.recorded.operator, rows, TORCH_DTYPE)]

    def missing(self, idxs: Sequence[int]) -> list[int]:
        """Return those that are not measured.

        None once the next block is made of them: the following rounds use their files again. A
        block of dependent products has fewer columns than others.
        """
        if self._has_block(self.number + 1):
            return []
        width = self._width(self.number)
        return super().missing([idx for idx in idxs if idx < width])

    # --- advance

    @property
    def is_exhausted(self) -> bool:
        """Whether the basis before this round is invariant."""
        return self._width(self.number) == 0

    @contextmanager
    def _basis(self, last: int) -> Iterator[tuple[list[h5py.Dataset], list[BasisStep]]]:
        """Yield blocks and steps of the basis that round ``last`` completes."""
        numbers = range(self.basis_begin, last + 1)
        if 0 in numbers and not self._has_block(0):
            first = self._block_identity(0) | {"block_id": "ssrft"}
            write_first_block(
                self._block_path(0), self._psi(), NUMPY_DTYPE, first, self.store.budget
            )
        paths = [self._block_path(number) for number in numbers]
        with open_basis(paths, self._identity) as basis:
            yield basis

    def _merge_of(self, number: int) -> Merge:
        return self._merge(LO_FMT, self._provenance(number), num=self._width(number))

    def advance(self) -> BasisStep | None:
        """See :meth:`Recovery.advance`: the block of the next round, orthonormal to all before."""
        number = self.number
        if number + 1 >= self.sizes.num_rounds:
            raise InputError(
                f"round {number} is the last of {self.sizes.num_rounds}: 10d comes next"
            )
        if self._has_block(number + 1):
            return None
        merge = self._merge_of(number)
        merge.check()
        merge.run(delete_subfiles=False)
        identity = self._block_identity(number + 1) | {"block_id": uuid.uuid4().hex}
        with ExitStack() as stack:
            products = stack.enter_context(merge.open())["data"]
            blocks, steps = stack.enter_context(self._basis(number))
            return write_next_block(
                self._block_path(number + 1), blocks, products, steps, NUMPY_DTYPE, identity,
                self.store.budget, self.recorded.problem.device,
            )  # fmt: skip

    # --- solve

    @cached_property
    def _last(self) -> int:
        """The round whose products complete the basis; an earlier one if that is invariant."""
        for number in range(1, self.sizes.num_rounds):
            if self._width(number) == 0:
                return number - 1
        return self.sizes.num_rounds - 1

    @cached_property
    def merges(self) -> dict[str, Merge]:
        """The products of the last round."""
        self.sizes.check_rank()
        return {"outer": self._merge_of(self._last)}

    @property
    def facts(self) -> dict[str, Any]:
        """The provenance of the last round, and its sizes."""
        return self._provenance(self._last) | self.sizes.in_analysis

    @contextmanager
    def solved(self, stage: Stage) -> Iterator[Eigh]:
        """Yield the leading eigenpairs, from the products with the last block."""
        stage(events.SOLVING)
        planned = self.sizes.num_rounds - self.basis_begin
        num_products = sum(self._width(number) for number in range(self._last + 1))
        with ExitStack() as stack:
            products = stack.enter_context(self.merges["outer"].open())["data"]
            blocks, steps = stack.enter_context(self._basis(self._last))
            yield solve_rayleigh_ritz(
                blocks, products, steps, self.sizes.rank, planned, num_products, self.store.budget,
                self.recorded.problem.device,
            )  # fmt: skip


class Hmt(Krylov):
    """Range finder, then Rayleigh-Ritz [HMT2011, 4.1 and 5.3]: the second block alone."""

    basis_begin = 1
