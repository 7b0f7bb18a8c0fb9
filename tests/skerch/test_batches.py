"""How many vectors are multiplied at once: as many as asked, or as many as fit."""

import pytest
import torch

from skerch import block_krylov, hmt, nystrom, seigh, ssvd
from skerch.decompositions import _fitting_batch

DIM = 60
DIAGONAL = 1 / torch.arange(1, DIM + 1)

SOLVERS = {
    "seigh": lambda op, **keys: seigh(op, 10, 20, **keys),
    "hmt": lambda op, **keys: hmt(op, 10, **keys),
    "nystrom": lambda op, **keys: nystrom(op, 10, **keys),
    "block_krylov": lambda op, **keys: block_krylov(op, 10, 2, **keys),
    "ssvd": lambda op, **keys: ssvd(op, 10, 20, **keys),
}


class Watched:
    """A diagonal matrix that keeps how many vectors came at once."""

    shape, dtype = (DIM, DIM), torch.float32

    def __init__(self):
        self.widths = []

    def __matmul__(self, X):
        self.widths.append(X.shape[1])
        return DIAGONAL[:, None] * X

    def __rmatmul__(self, X):
        self.widths.append(X.shape[0])
        return DIAGONAL * X


@pytest.mark.parametrize("name", SOLVERS)
@pytest.mark.parametrize("batch_size", [1, 3, 7])
def test_as_many_as_asked(name, batch_size):
    op = Watched()
    SOLVERS[name](op, batch_size=batch_size)
    assert max(op.widths) == batch_size
    assert op.widths.count(batch_size) >= len(op.widths) // 2


@pytest.mark.parametrize(
    ("left", "dtype", "fitting"),
    [(3 * 4 * DIM * 4, torch.float32, 3), (3 * 4 * DIM * 4 - 1, torch.float32, 2),
     (3 * 4 * DIM * 8, torch.float64, 3), (10**9, torch.float32, 7), (0, torch.float32, 1)],
)  # fmt: skip
def test_as_many_as_fit_four_times(left, dtype, fitting):
    """A vector, its product, and two that are on their way."""
    assert _fitting_batch(7, left, DIM, dtype) == fitting
