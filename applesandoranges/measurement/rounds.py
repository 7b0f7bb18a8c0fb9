"""Recoveries in rounds: blocks of a basis, and the Hessian's products with them.

Round 0 multiplies the Hessian with rows of an SSRFT. Between rounds ``r`` and ``r + 1`` (10e), the
products are merged and the next block of the basis is made of them, ``basis_<r + 1>.h5`` beside the
measurements; that block, once made, is never made again. Measurements carry the name of the block
that they are products with, a hash of its content, and each block those of the block and the
products that it was made of. If one of them was made again and came out otherwise, whatever follows
it does not count any more.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import h5py
from torch import Tensor

from skerch import BASIS_FMT, LO_FMT, heartbeat
from skerch.core.krylov import BasisStep, warm_columns
from skerch.core.products import MatrixColumns, MeasurementRows, linmeas_batch_torch
from skerch.core.rayleigh_ritz import solve_rayleigh_ritz
from skerch.errors import InputError, StoreError
from skerch.results import Eigh
from skerch.ssrft import SSRFT
from skerch.store.basis import (
    NAME,
    PREVIOUS,
    BlockHeader,
    Start,
    VerifiedColumns,
    open_basis,
    read_block,
    write_end,
    write_first_block,
    write_next_block,
    write_warm_block,
)
from skerch.store.files import differences, read_provenance, reading
from skerch.store.measurements import DistributedHDF5

from ..app import events
from .merge import Merge
from .recorded_hessian import TORCH_DTYPE, RecordedHessian
from .recovery import NUMPY_DTYPE, Recovery, Stage, Store
from .sizes import Sizes
from .ways import compare_ways

#: What the block of round 0 is called: seed and size say which SSRFT.
SSRFT_BLOCK = "ssrft"


class Krylov(Recovery):
    """Rayleigh-Ritz on a block Krylov basis [MM2015]: all blocks from the SSRFT's on."""

    #: The round whose vectors are the first block of the basis.
    basis_begin = 0

    def __init__(
        self,
        recorded: RecordedHessian,
        sizes: Sizes,
        store: Store,
        number: int = 0,
        start: Start | None = None,
    ):
        name = None if start is None else start.name
        super().__init__(recorded, replace(sizes, start=name), store, number)
        self.start = start

    @property
    def _first_made(self) -> int:
        """The first round whose block is made, by 10e."""
        return 1 if self.start is None else 0

    # --- which vectors

    def _block_path(self, number: int) -> Path:
        """Return the file of the block that round ``number`` multiplies."""
        return DistributedHDF5.subpath(self.store.directory, BASIS_FMT, number)

    @property
    def _identity(self) -> dict[str, Any]:
        return self.sizes.provenance(self.recorded.identity, self.recorded.seed)

    def _block_identity(self, number: int) -> dict[str, Any]:
        return self._identity | {"round": number}

    def _block(self, number: int) -> BlockHeader | None:
        """Return the block of round ``number``, ``None`` if it was not made for this very Hessian.

        Nor does it count if it was made of another block than the one that is there.

        Raises:
            StoreError: If it is damaged.
        """
        path, wanted = self._block_path(number), self._block_identity(number)
        if number:
            before = SSRFT_BLOCK
            if number > self._first_made:
                block = self._block(number - 1)
                if block is None:
                    return None
                before = block.name
            wanted |= {PREVIOUS: before}
        if not path.exists():
            return None
        with reading(path) as file:
            if differences(wanted, read_provenance(file)):
                return None
            return read_block(file)

    def _has_block(self, number: int) -> bool:
        return self._block(number) is not None

    def _needed_block(self, number: int) -> BlockHeader:
        """Return the block of a round that is made.

        Raises:
            StoreError: If it, or one before it, was not made yet; the line says how it is.
        """
        for needed in range(self._first_made, number + 1):
            block = self._block(needed)
            if block is None and needed == 0:
                raise StoreError(
                    f"{self._block_path(0)}: the first block, of START, is not there or of another "
                    "start; run 10e with ROUND=-1"
                )
            if block is None:
                raise StoreError(
                    f"{self._block_path(needed)}: the block of round {needed} of this Hessian is "
                    f"not there, or not made of the one before it; measure round {needed - 1} "
                    f"(10c) and run 10e with ROUND={needed - 1}"
                )
        assert block is not None
        return block

    def _width(self, number: int) -> int:
        """Return the columns of the block of a round; 0 if the basis before is invariant.

        Raises:
            StoreError: If it was not made yet; the line says how it is.
        """
        made = number >= self._first_made
        return self._needed_block(number).width if made else self.sizes.per_round

    def _name(self, number: int) -> str:
        """Return what the block of a round is called; see :meth:`_needed_block`."""
        return self._needed_block(number).name if number >= self._first_made else SSRFT_BLOCK

    def _provenance(self, number: int) -> dict[str, Any]:
        return self._block_identity(number) | {NAME: self._name(number)}

    @cached_property
    def provenance(self) -> dict[str, Any]:
        """What each measurement of the round carries: also of which block."""
        name = self._multiplied.name if self.number >= self._first_made else SSRFT_BLOCK
        return self._block_identity(self.number) | {NAME: name}

    def _psi(self) -> SSRFT:
        shape = (self.sizes.per_round, self.recorded.dim)
        return SSRFT(shape, self.recorded.seed + 2, self.recorded.problem.device)

    @cached_property
    def _multiplied(self) -> BlockHeader:
        """The block of this round, if it is made; the same one for all measurements."""
        return self._needed_block(self.number)

    @contextmanager
    def _rows(self) -> Iterator[MeasurementRows]:
        if self.number < self._first_made:
            yield self._psi()
        else:
            with reading(self._block_path(self.number)) as file:
                columns = VerifiedColumns(file, self._multiplied)
                yield MatrixColumns(columns, self.recorded.problem.device)

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
        if self.number + 1 < self.sizes.num_rounds and self._has_block(self.number + 1):
            return []
        width = self._width(self.number)
        return super().missing([idx for idx in idxs if idx < width])

    # --- advance

    def _why_ended(self, number: int) -> str | None:
        """Return why the basis before a round ended: it is invariant, or what :meth:`end` said."""
        if self._width(number):
            return None
        return self._needed_block(number).ended or "invariant"

    @property
    def ended(self) -> str | None:
        """Why nothing is left to measure in this round; see :class:`Recovery`."""
        return self._why_ended(self.number)

    @contextmanager
    def _basis(self, last: int) -> Iterator[tuple[list[h5py.Dataset], list[BasisStep]]]:
        """Yield blocks and steps of the basis that round ``last`` completes."""
        numbers = range(self.basis_begin, last + 1)
        if 0 in numbers and self.start is None and not self._has_block(0):
            first = self._block_identity(0) | {NAME: SSRFT_BLOCK}
            write_first_block(
                self._block_path(0),
                self._psi(),
                dtype=NUMPY_DTYPE,
                provenance=first,
                memory_budget=self.store.budget,
            )
        paths = [self._block_path(number) for number in numbers]
        with open_basis(paths, self._identity, self.store.budget) as basis:
            yield basis

    def _merge_of(self, number: int) -> Merge:
        return self._merge(LO_FMT, self._provenance(number), num=self._width(number))

    def _next_identity(self, merge: Merge) -> dict[str, Any]:
        """Return what the next block says of itself: also which products it was made of."""
        made_of = {PREVIOUS: self._name(self.number), "products_sha256": merge.sources}
        return self._block_identity(self.number + 1) | made_of

    def begin(self) -> BasisStep | None:
        """See :meth:`Recovery.begin`: the block of the start and of random columns.

        Raises:
            InputError: If there is no start: nothing is to be made then.
        """
        if self.start is None:
            raise InputError("ROUND=-1 makes the first block of START, which is not given")
        if self._has_block(0):
            return None
        num = warm_columns(self.start.num, self.sizes.per_round)
        shape = (self.sizes.per_round - num, self.recorded.dim)
        with self.start.open() as warm:
            return write_warm_block(
                self._block_path(0),
                warm,
                num,
                SSRFT(shape, self.recorded.seed + 2, self.recorded.problem.device),
                dtype=NUMPY_DTYPE,
                provenance=self._block_identity(0),
                memory_budget=self.store.budget,
                device=self.recorded.problem.device,
            )

    @property
    def next_is_made(self) -> bool:
        """Whether the block of the next round is there; InputError if this is the last one."""
        number, rounds = self.number, self.sizes.num_rounds
        if number + 1 >= rounds:
            raise InputError(f"round {number} is the last of {rounds}: 10d comes next")
        return self._has_block(number + 1)

    @cached_property
    def _merged(self) -> Merge:
        """The products of this round, verified and merged."""
        merge = self._merge_of(self.number)
        merge.check()
        self.remeasured = compare_ways(self, {"outer": merge})
        merge.run(delete_subfiles=False)
        return merge

    def columns_up_to(self, number: int) -> int:
        """Return the columns of all blocks up to that of a round, each of which takes a product."""
        return sum(self._width(before) for before in range(number + 1))

    def spent(self, number: int) -> dict[str, int]:
        """Return how many pairs are wanted, and the products up to a round and of another one."""
        return {
            "k": self.sizes.rank,
            "num_products": self.columns_up_to(number),
            "per_round": self.sizes.per_round,
        }

    def so_far(self) -> Krylov:
        """Return the recovery from the rounds up to this one, whose products are merged.

        Raises:
            StoreError: If products are missing; the line lists them.
        """
        assert self._merged
        sizes = replace(self.sizes, num_rounds=self.number + 1, num_outer=self.sizes.rank)
        return type(self)(self.recorded, sizes, self.store, self.number, self.start)

    def end(self, why: str, said: dict[str, Any]) -> None:
        """Write in place of the next block that there is none.

        Args:
            why: In words.
            said: Written beside it.
        """
        write_end(
            self._block_path(self.number + 1),
            self.recorded.dim,
            why,
            dtype=NUMPY_DTYPE,
            provenance=self._next_identity(self._merged) | said,
        )

    def said_of(self, number: int) -> dict[str, Any]:
        """Return what was written beside the block of a round; nothing if it is not there."""
        block = self._block(number) if number >= self._first_made else None
        return {} if block is None else block.provenance

    def advance(self, said: dict[str, Any] | None = None) -> BasisStep | None:
        """See :meth:`Recovery.advance`: the block of the next round, orthonormal to all before.

        Args:
            said: Written beside it.
        """
        if self.next_is_made:
            return None
        number, merge = self.number, self._merged
        identity = self._next_identity(merge) | (said or {})
        heartbeat.doing("orthogonalising the products against the basis")
        with ExitStack() as stack:
            products = stack.enter_context(merge.open())["data"]
            blocks, steps = stack.enter_context(self._basis(number))
            return write_next_block(
                self._block_path(number + 1),
                blocks,
                products,
                steps,
                dtype=NUMPY_DTYPE,
                provenance=identity,
                memory_budget=self.store.budget,
                device=self.recorded.problem.device,
            )

    # --- solve

    @cached_property
    def last_round(self) -> int:
        """The round whose products complete the basis; an earlier one if that has ended."""
        for number in range(1, self.sizes.num_rounds):
            if self._width(number) == 0:
                return number - 1
        return self.sizes.num_rounds - 1

    @cached_property
    def merges(self) -> dict[str, Merge]:
        """The products of the last round."""
        self.sizes.check_rank()
        return {"outer": self._merge_of(self.last_round)}

    def check(self) -> list[str]:
        """See :meth:`Recovery.check`: of the last round; 10e checked those before."""
        doubts = super().check()
        last = type(self)(self.recorded, self.sizes, self.store, self.last_round, self.start)
        self.remeasured = compare_ways(last, self.merges)
        return doubts

    @property
    def facts(self) -> dict[str, Any]:
        """The provenance of the last round, and its sizes."""
        return self._provenance(self.last_round) | self.sizes.in_analysis

    @contextmanager
    def solved(self, stage: Stage) -> Iterator[Eigh]:
        """Yield the leading eigenpairs, from the products with the last block."""
        stage(events.SOLVING)
        planned = self.sizes.num_rounds - self.basis_begin
        num_products = self.columns_up_to(self.last_round)
        next_one = self.last_round + 1
        why = self._why_ended(next_one) if next_one < self.sizes.num_rounds else None
        with ExitStack() as stack:
            products = stack.enter_context(self.merges["outer"].open())["data"]
            blocks, steps = stack.enter_context(self._basis(self.last_round))
            yield solve_rayleigh_ritz(
                blocks,
                products,
                steps,
                self.sizes.rank,
                num_rounds=planned,
                num_products=num_products,
                ended=why or "",
                memory_budget=self.store.budget,
                device=self.recorded.problem.device,
            )
