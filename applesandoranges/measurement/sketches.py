"""What 10c measures: a sketch for SEIGH in one round, or one round of hmt or krylov."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from torch import Tensor

from skerch import INNER_FMT, LO_FMT
from skerch.a_priori import check_sizes
from skerch.core.products import innermeas_batch_torch, linmeas_batch_torch
from skerch.ssrft import SSRFT

from .loop import Measurements
from .recorded import DTYPE, RecordedHessian
from .rounds import RoundStore


def sketch_provenance(recorded: RecordedHessian, outer: int, inner: int) -> dict[str, Any]:
    """Return the provenance that each measurement of an ``(outer, inner)`` sketch carries."""
    return recorded.identity | {
        "recovery": "seigh",
        "num_outer": outer,
        "num_inner": inner,
        "seed_phi": recorded.seed + 1,
        "seed_psi": recorded.seed + 2,
        "dtype": str(DTYPE).removeprefix("torch."),
    }


def sketch_matrices(recorded: RecordedHessian, inner: int) -> tuple[SSRFT, SSRFT]:
    """Return ``(Phi, Psi)`` of a sketch, both ``[inner, D]``."""
    shape, device = (inner, recorded.dim), recorded.problem.device
    return SSRFT(shape, recorded.seed + 1, device), SSRFT(shape, recorded.seed + 2, device)


@dataclass(frozen=True)
class SeighSketch(Measurements):
    """Products ``H psi_i`` (outer, the first ``num_outer``) and ``Phi H psi_i`` (inner, all)."""

    num_outer: int
    num_inner: int

    def __post_init__(self) -> None:
        check_sizes((self.recorded.dim, self.recorded.dim), self.num_outer, self.num_inner)

    @property
    def num(self) -> int:
        """How many measurements there are."""
        return self.num_inner

    @cached_property
    def provenance(self) -> dict[str, Any]:
        """What each of them carries."""
        return sketch_provenance(self.recorded, self.num_outer, self.num_inner)

    @property
    def layout(self) -> dict[str, tuple[int, int]]:
        """Outer measurements before inner ones: whoever finds the latter finds both."""
        return {
            LO_FMT: (self.recorded.dim, self.num_outer),
            INNER_FMT: (self.num_inner, self.num_inner),
        }

    @cached_property
    def _matrices(self) -> tuple[SSRFT, SSRFT]:
        return sketch_matrices(self.recorded, self.num_inner)

    def vectors(self, idxs: Sequence[int]) -> Tensor:
        """Return rows ``idxs`` of ``Psi``, ``[K, D]``."""
        return self._matrices[1].rows(idxs, DTYPE)

    def measure(self, idxs: Sequence[int]) -> list[Tensor]:
        """Return ``H psi_i`` (``[D, K]``) and ``Phi H psi_i`` (``[n_i, K]``)."""
        result = innermeas_batch_torch(idxs, self.recorded.operator, *self._matrices, DTYPE)
        return [result.outer, result.inner]


@dataclass(frozen=True)
class RoundMeasurements(Measurements):
    """Products of the Hessian with the block of one round.

    Attributes:
        store: The store of all rounds.
        number: The round.
    """

    store: RoundStore
    number: int

    @property
    def num(self) -> int:
        """Columns of a whole block."""
        return self.store.recovery.block_size

    def missing(self, idxs: Sequence[int]) -> list[int]:
        """Return those that are not measured.

        None once the next block is made of them: the following rounds use their files again. A
        block of dependent products has fewer columns than others.
        """
        if self.store.has_block(self.number + 1):
            return []
        width = self.store.width(self.number)
        return super().missing([idx for idx in idxs if idx < width])

    @cached_property
    def provenance(self) -> dict[str, Any]:
        """What each of them carries."""
        return self.store.provenance(self.number)

    @property
    def layout(self) -> dict[str, tuple[int, int]]:
        """One column for each product of a whole block."""
        return {LO_FMT: (self.recorded.dim, self.store.recovery.block_size)}

    def vectors(self, idxs: Sequence[int]) -> Tensor:
        """Return columns ``idxs`` of the block as rows, ``[K, D]``."""
        with self.store.vectors(self.number) as vectors:
            return vectors.rows(idxs, DTYPE)

    def measure(self, idxs: Sequence[int]) -> list[Tensor]:
        """Return the products, ``[D, K]``."""
        with self.store.vectors(self.number) as vectors:
            return [linmeas_batch_torch(idxs, self.recorded.operator, vectors, DTYPE)]
