"""What an analysis estimates, within its memory budget."""

from types import SimpleNamespace

import pytest
import torch

from applesandoranges.analysis.report import estimate_errors
from skerch.core.row_blocks import RowBlocks
from skerch.errors import InputError
from skerch.results import Eigh

D, NUM, RANKS = 100, 7, [2, 1]
#: Bytes of a vector: two of them, its product, and what is made of it, in single precision.
PER_VECTOR = 4 * 4 * D


class Recorded:
    """A diagonal operator that records how many vectors each of its products has."""

    def __init__(self):
        self.diagonal, self.widths = torch.arange(1.0, D + 1).flip(0), []

    def __matmul__(self, X):
        self.widths.append(X.shape[1])
        return self.diagonal[:, None] * X


def estimated(budget, vectors=128):
    """Return the errors within a budget, and how many vectors each product had."""
    operator, V = Recorded(), torch.eye(D, 2, dtype=torch.float64)
    S, eye = operator.diagonal[:2].double(), torch.eye(2, dtype=torch.float64)
    eigh = Eigh(S, eye, RowBlocks(V, memory_budget=budget), eye)
    hessian = SimpleNamespace(operator=operator, vectors=vectors, seed=5)
    return estimate_errors(eigh, hessian, NUM, RANKS), operator.widths


@pytest.mark.parametrize(
    ("budget", "vectors", "widths"),
    [
        (2 * 3 * PER_VECTOR, 128, [3, 3, 1]),
        (2 * 4 * PER_VECTOR - 1, 128, [3, 3, 1]),
        (2 * 4 * PER_VECTOR, 128, [4, 3]),
        (10**9, 2, [2, 2, 2, 1]),
    ],
)
def test_errors_are_the_same_in_as_many_products_as_half_the_budget_asks_for(
    budget, vectors, widths
):
    errors, found = estimated(budget, vectors)
    at_once, one_product = estimated(10**9)
    assert (found, one_product) == (widths, [NUM])
    for k in RANKS:
        assert errors[k].means == pytest.approx(at_once[k].means)
        assert errors[k].standard_errors == pytest.approx(at_once[k].standard_errors)


def test_a_budget_for_no_vector_is_refused_with_what_one_needs():
    with pytest.raises(InputError, match=f"one vector: one row needs {PER_VECTOR} bytes"):
        estimated(2 * PER_VECTOR - 1)
