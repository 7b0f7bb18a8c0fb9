"""The damped Nystrom approximation of a Hessian, from one pass [NP2023]."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property

from skerch.core.nystrom import budget_beside_core, solve_nystrom
from skerch.core.row_blocks import RowBlocks
from skerch.results import Eigh

from ..app import events
from .recovery import Stage
from .rounds import Krylov


class Nystrom(Krylov):
    """One round of products with an SSRFT, all of which are kept; nothing else is written."""

    @cached_property
    def _streaming(self) -> int:
        """Bytes for blocks of rows, beside the core."""
        return budget_beside_core(self.store.budget, self.sizes.per_round)

    def check(self) -> list[str]:
        """See :meth:`Recovery.check`.

        Raises:
            InputError: Also if the core does not fit into the budget.
        """
        assert self._streaming
        return super().check()

    @contextmanager
    def solved(self, stage: Stage) -> Iterator[Eigh]:
        """Yield the leading eigenpairs."""
        stage(events.SOLVING)
        with self.merges["outer"].open() as outer:
            Y = RowBlocks(outer["data"], self._streaming, self.recorded.problem.device)
            yield solve_nystrom(Y, self._psi(), self.sizes.rank)
