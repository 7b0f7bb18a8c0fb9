"""SEIGH: one pass of outer and inner measurements [TYUC2019, section 2]."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from skerch import INNER_FMT, LO_FMT
from skerch.core.orthogonal import householder_basis, orthogonalize
from skerch.core.products import innermeas_batch_torch
from skerch.core.row_blocks import RowBlocks
from skerch.core.sketch import budget_beside_core, solve_core_seigh
from skerch.errors import InputError
from skerch.results import Eigh
from skerch.ssrft import SSRFT
from skerch.store.measurements import DistributedHDF5
from skerch.store_names import kind_of_files

from ..app import events
from .merge import Merge
from .recorded_hessian import TORCH_DTYPE, RecordedHessian
from .recovery import Recovery, Stage, Store
from .sizes import Sizes
from .ways import compare_ways


class Seigh(Recovery):
    """Products ``H psi_i`` (outer, the first ``n_o``) and ``Phi H psi_i`` (inner, all ``n_i``).

    Args:
        recorded: The Hessian.
        sizes: Its sizes; :func:`sketch_sizes` says those of a store.
        store: Where measurements are.
        number: The round, 0.
        symmetrize: Average the two triangles of the core. Otherwise one triangle alone is read, in
            the basis of a pivoted QR, as in published runs.
    """

    def __init__(
        self,
        recorded: RecordedHessian,
        sizes: Sizes,
        store: Store,
        number: int = 0,
        symmetrize: bool = True,
    ):
        super().__init__(recorded, sizes, store, number)
        self.symmetrize = symmetrize

    @cached_property
    def _matrices(self) -> tuple[SSRFT, SSRFT]:
        return sketch_matrices(self.recorded, self.sizes.per_round)

    def vectors(self, idxs: Sequence[int]) -> Tensor:
        """Return rows ``idxs`` of ``Psi``, ``[K, D]``."""
        return self._matrices[1].rows(idxs, TORCH_DTYPE)

    def measure(self, idxs: Sequence[int]) -> list[Tensor]:
        """Return ``H psi_i`` (``[D, K]``) and ``Phi H psi_i`` (``[n_i, K]``)."""
        result = innermeas_batch_torch(idxs, self.recorded.operator, *self._matrices, TORCH_DTYPE)
        return [result.outer, result.inner]

    @cached_property
    def merges(self) -> dict[str, Merge]:
        """Inner and outer measurements."""
        unknown = {"allow_unknown": self.store.allow_unknown}
        return {
            name: self._merge(fmt, self.provenance, **unknown)
            for name, fmt in (("inner", INNER_FMT), ("outer", LO_FMT))
        }

    @property
    def facts(self) -> dict[str, Any]:
        """The provenance of the sketch."""
        return self.provenance

    @cached_property
    def _streaming(self) -> int:
        """Bytes for blocks of rows, beside the core."""
        return budget_beside_core(self.store.budget, self.sizes.rank, self.sizes.per_round)

    def check(self) -> list[str]:
        """See :meth:`Recovery.check`; makes some measurements again where there is a doubt.

        Up to three if any provenance is unknown, and one of each way in which they were computed,
        if there are several (another engine, TensorFloat-32 in some jobs only).

        Raises:
            InputError: Also if the core does not fit into the budget.
        """
        assert self._streaming
        doubts, n_o, n_i = super().check(), self.sizes.rank, self.sizes.per_round
        doubtful = {0, n_o - 1, n_i - 1} if doubts else set()
        self.remeasured = compare_ways(self, self.merges, doubtful)
        return doubts

    @contextmanager
    def solved(self, stage: Stage) -> Iterator[Eigh]:
        """Yield the eigenpairs, all ``n_o`` of them."""
        with self.merges["inner"].open() as inner, self.merges["outer"].open() as outer:
            device = self.recorded.problem.device
            W = torch.from_numpy(inner["data"][:]).to(device, torch.float64)
            Y = RowBlocks(outer["data"], self._streaming, device)
            stage(events.ORTHOGONALISING)
            factor = orthogonalize(Y, W[:, : Y.shape[1]])
            if not self.symmetrize:
                factor = householder_basis(factor, pivoting=True)
            stage(events.SOLVING)
            yield solve_core_seigh(Y, W, self._matrices[1], self.symmetrize, factor)


def sketch_matrices(recorded: RecordedHessian, inner: int) -> tuple[SSRFT, SSRFT]:
    """Return ``(Phi, Psi)`` of a sketch, both ``[inner, D]``."""
    shape, device = (inner, recorded.dim), recorded.problem.device
    return SSRFT(shape, recorded.seed + 1, device), SSRFT(shape, recorded.seed + 2, device)


def sketch_sizes(store: Store, dim: int) -> tuple[int, int]:
    """Return ``(n_o, n_i)`` of a store.

    Raises:
        InputError: If the files are missing, or not those of a sketch of a ``[dim, dim]`` matrix.
    """
    paths = store.virtual[LO_FMT], store.virtual[INNER_FMT]
    for path in paths:
        if not path.is_file():
            raise InputError(f"{path}: no such virtual file")
    outer, inner = (
        DistributedHDF5.load_virtual(path).require_kind(kind_of_files(fmt))
        for path, fmt in zip(paths, (LO_FMT, INNER_FMT), strict=True)
    )
    if outer.shape[0] != dim or inner.shape[0] != inner.shape[1] or outer.dtype != inner.dtype:
        raise InputError(
            f"expected outer measurements ({dim}, n_o) and inner ones (n_i, n_i) of one dtype, "
            f"found {outer.shape} {outer.dtype} in {paths[0]} and {inner.shape} {inner.dtype} in "
            f"{paths[1]}; D is {dim} here"
        )
    return outer.shape[1], inner.shape[1]
