"""From measurements to eigenpairs, by any recovery: what 10d merges and solves."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from skerch.core.orthogonal import householder_basis, orthogonalize
from skerch.core.products import innermeas_batch_torch
from skerch.core.row_blocks import RowBlocks
from skerch.core.sketch import budget_beside_core, solve_core_seigh
from skerch.errors import InputError
from skerch.results import Eigh

from ..app import events
from .merge import Merge, sketch_sizes
from .recorded import DTYPE, RecordedHessian
from .recoveries import check_rank
from .rounds import RoundStore
from .sketches import sketch_matrices, sketch_provenance

#: How far, relatively, a stored product may differ from the same one made here. Two engines on one
#: machine differ by 1e-7, other machines by up to 1e-4, and convolutions of GPUs in TF32, with ten
#: bits of mantissa, by a few 1e-3; products of the other split, or of a step that is two away, by
#: 6e-2 and more.
SAME_PRODUCT = 1e-2

#: Told the name of each stage when it begins.
Stage = Callable[[str], None]


@dataclass(frozen=True)
class Paths:
    """Virtual and monolithic files of a store; the inner ones are for SEIGH only."""

    outer_virtual: Path
    outer_monolithic: Path
    inner_virtual: Path | None = None
    inner_monolithic: Path | None = None


class Solver(ABC):
    """Eigenpairs of a Hessian from its measurements.

    Attributes:
        merges: What must be merged before, by name.
        provenance: What the measurements carry.
        remeasured: Of measurements that do not say of which Hessian they are: which were made again
            in :meth:`check`, and how far they were off.
    """

    merges: dict[str, Merge]
    provenance: dict[str, Any]
    remeasured: dict[str, Any] | None = None

    def check(self) -> list[str]:
        """Check the measurements, changing nothing; return what could not be verified.

        Raises:
            StoreError: If measurements cannot be used.
            InputError: If some that do not say of which Hessian they are belong to another one.
        """
        return [doubt for merge in self.merges.values() for doubt in merge.check()]

    @abstractmethod
    def solved(self, stage: Stage) -> Any:
        """Return a context that gives the :class:`~skerch.results.Eigh`."""


class SeighSolver(Solver):
    """SEIGH, from the outer and inner measurements of a sketch."""

    def __init__(
        self,
        recorded: RecordedHessian,
        paths: Paths,
        flag: str,
        budget: int,
        allow_unknown: bool,
        symmetrize: bool,
    ):
        assert paths.inner_virtual is not None
        assert paths.inner_monolithic is not None
        sizes = sketch_sizes(paths.outer_virtual, paths.inner_virtual, recorded.dim)
        self.recorded, self.symmetrize = recorded, symmetrize
        self.streaming = budget_beside_core(budget, *sizes)
        self.provenance = sketch_provenance(recorded, *sizes)
        how = (flag, self.provenance, budget, allow_unknown)
        self.merges = {
            "inner": Merge(paths.inner_virtual, paths.inner_monolithic, *how),
            "outer": Merge(paths.outer_virtual, paths.outer_monolithic, *how),
        }

    def check(self) -> list[str]:
        """See :meth:`Solver.check`; costs up to three products if any provenance is unknown."""
        doubts = super().check()
        if doubts:
            self.remeasured = self._remeasure()
        return doubts

    def _remeasure(self) -> dict[str, Any]:
        """Make the first and the last measurement of either kind again, and compare.

        Raises:
            InputError: If one of them is another product.
        """
        n_o, n_i = self.provenance["num_outer"], self.provenance["num_inner"]
        matrices = sketch_matrices(self.recorded, n_i)
        chosen = sorted({0, n_o - 1, n_i - 1})
        largest = 0.0
        for idx in chosen:  # one by one: there is memory for one vector at least
            made = innermeas_batch_torch([idx], self.recorded.operator, *matrices, DTYPE)
            here = {"inner": made.inner[:, 0]} | ({"outer": made.outer[:, 0]} if idx < n_o else {})
            for name, product in here.items():
                stored = torch.from_numpy(self.merges[name].stored(idx))
                difference = _relative_difference(stored, product)
                if not difference <= SAME_PRODUCT:
                    raise InputError(self._of_another(name, idx, difference))
                largest = max(largest, difference)
        return {
            "idxs": chosen, "largest_relative_difference": largest, "allowed": SAME_PRODUCT,
        }  # fmt: skip

    def _of_another(self, name: str, idx: int, difference: float) -> str:
        return (
            f"{self.merges[name].virtual}: these are measurements of another Hessian: number {idx} "
            f"differs by {difference:.2g} (relative) from the product with that of "
            f"{self.recorded.where}, expected at most {SAME_PRODUCT:g}; give STEP, TEST_HESSIAN, "
            "PARAMS_PATH and TRAINING_LOGPATH that they were made with, or measure again (10c)"
        )

    @contextmanager
    def solved(self, stage: Stage) -> Iterator[Eigh]:
        """Yield the eigenpairs, all ``n_o`` of them.

        With one triangle of the core only, in the basis of a pivoted QR, as in published runs.
        """
        with self.merges["inner"].open() as inner, self.merges["outer"].open() as outer:
            device = self.recorded.problem.device
            W = torch.from_numpy(inner["data"][:]).to(device, torch.float64)
            Y = RowBlocks(outer["data"], self.streaming, device)
            stage(events.ORTHOGONALISING)
            factor = orthogonalize(Y, W[:, : Y.shape[1]])
            if not self.symmetrize:
                factor = householder_basis(factor, pivoting=True)
            stage(events.SOLVING)
            _, Psi = sketch_matrices(self.recorded, len(W))
            yield solve_core_seigh(Y, W, Psi, self.symmetrize, factor)


def _relative_difference(stored: Tensor, product: Tensor) -> float:
    """Return ``|stored - product| / |product|``, both ``[dim]``; 0 if they are equal."""
    product = product.cpu().double()
    difference = float((stored.double() - product).norm())
    # Infinity where the product is zero, NaN where a stored value is.
    return difference / max(float(product.norm()), 1e-300) if difference else 0.0


class RoundsSolver(Solver):
    """Rayleigh-Ritz on the basis of all rounds, from the products of the last one."""

    def __init__(self, store: RoundStore, paths: Paths, rank: int | None):
        last = store.last_round()
        self.store = store
        self.rank = store.recovery.num_products // 2 if rank is None else rank
        check_rank(store.recovery, self.rank)
        sizes = {"num_outer": self.rank, "num_rounds": store.recovery.num_rounds}
        self.provenance = store.provenance(last) | sizes
        merge = store.merge(last, paths.outer_virtual, paths.outer_monolithic)
        self.merges = {"outer": merge}

    @contextmanager
    def solved(self, stage: Stage) -> Iterator[Eigh]:
        """Yield the leading eigenpairs."""
        stage(events.SOLVING)
        with self.store.solved(self.rank, self.merges["outer"]) as eigh:
            yield eigh
