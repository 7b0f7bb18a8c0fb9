"""The Nystrom approximation of a positive semi-definite Hessian, from one pass [TYUC2017]."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from skerch.core.rayleigh_ritz import solve_nystrom
from skerch.results import Eigh
from skerch.store.basis import new_block

from ..app import events
from .recovery import NUMPY_DTYPE, Stage
from .rounds import Krylov


class Nystrom(Krylov):
    """One round of products with an SSRFT; their orthonormal basis is written beside them.

    For Hessians without negative eigenvalues, as of a convex loss: it refuses others where they
    show themselves.
    """

    @contextmanager
    def solved(self, stage: Stage) -> Iterator[Eigh]:
        """Yield the leading eigenpairs.

        Raises:
            NumericalError: If the Hessian shows itself not to be positive semi-definite.
        """
        stage(events.SOLVING)
        with ExitStack() as stack:
            products = stack.enter_context(self.merges["outer"].open())["data"]
            (start,), _ = stack.enter_context(self._basis(0))
            path = self._block_path(1)
            file = stack.enter_context(new_block(path, self._block_identity(1)))

            def create(width: int) -> Any:
                return file.create_dataset("data", (self.sizes.dim, width), NUMPY_DTYPE)

            yield solve_nystrom(
                products, start, self.sizes.rank, create, self.store.budget,
                self.recorded.problem.device,
            )  # fmt: skip
