"""From measurements to eigenpairs, by any recovery: what 10d merges and solves."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from skerch.distributed_decompositions import (
    Eigh,
    budget_beside_core,
    orthogonalize,
    solve_core_seigh,
)
from skerch.row_blocks import RowBlocks

from .merging import Merge, sketch_sizes
from .recorded_hessian import RecordedHessian
from .recoveries import check_rank
from .rounds import RoundStore
from .sketches import sketch_matrices, sketch_provenance

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
    """

    merges: dict[str, Merge]
    provenance: dict[str, Any]

    @abstractmethod
    def solved(self, stage: Stage) -> Any:
        """Return a context that gives the :class:`~skerch.distributed_decompositions.Eigh`."""


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

    @contextmanager
    def solved(self, stage: Stage) -> Iterator[Eigh]:
        """Yield the eigenpairs, all ``n_o`` of them."""
        with self.merges["inner"].open() as inner, self.merges["outer"].open() as outer:
            device = self.recorded.problem.device
            W = torch.from_numpy(inner["data"][:]).to(device, torch.float64)
            Y = RowBlocks(outer["data"], self.streaming, device)
            stage("Orthogonalising")
            factor = orthogonalize(Y, W[:, : Y.shape[1]])
            stage("Solving the core")
            _, Psi = sketch_matrices(self.recorded, len(W))
            yield solve_core_seigh(Y, W, Psi, self.symmetrize, factor)


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
        stage("Solving the core")
        with self.store.solved(self.rank, self.merges["outer"]) as eigh:
            yield eigh
