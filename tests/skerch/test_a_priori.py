from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from skerch.a_priori import a_priori_hyperparams
from skerch.utils import InputError

pytestmark = pytest.mark.numerical

CASES = json.loads((Path(__file__).parents[1] / "vectors" / "a_priori.json").read_text())


@pytest.mark.parametrize(
    "case", CASES, ids=lambda c: f"{c['shape'][0]}x{c['shape'][1]}-hermitian={c['hermitian']}"
)
def test_reference_numbers(case):
    found = a_priori_hyperparams(case["shape"], case["budget"], hermitian=case["hermitian"])
    assert list(found) == case["outer_inner"]


def outer_cost(shape, hermitian):
    """Numbers stored per outer measurement."""
    return shape[0] if hermitian else sum(shape)


@settings(derandomize=True, max_examples=300, deadline=None)
@given(
    height=st.integers(1, 10**10),
    width=st.integers(1, 10**10),
    outers=st.integers(1, 10**5),
    extra=st.integers(-3, 10**12),
    complex_data=st.booleans(),
    hermitian=st.booleans(),
)
def test_storage_fits_the_budget_and_is_maximal(
    height, width, outers, extra, complex_data, hermitian
):
    shape = (height, height if hermitian else width)
    alpha = 0 if complex_data else 1
    cost = outer_cost(shape, hermitian)
    # Near the budget at which one more outer measurement fits, where rounding would show.
    budget = outers * cost + (2 * outers + alpha) ** 2 + extra
    assume(budget >= cost + (2 + alpha) ** 2)
    outer, inner = a_priori_hyperparams(shape, budget, complex_data, hermitian)

    assert 1 <= outer <= inner <= min(shape)
    assert outer * cost + inner**2 <= budget
    # The largest "natural" outer size: there is room for 2 outer + alpha inner measurements, ...
    assert outer * cost + (2 * outer + alpha) ** 2 <= budget
    # ... of which there are not one more, ...
    more = outer + 1
    assert outer == min(shape) or more * cost + (2 * more + alpha) ** 2 > budget
    # ... and the inner measurements take what is left.
    assert inner == min(shape) or outer * cost + (inner + 1) ** 2 > budget


@pytest.mark.parametrize("hermitian", [False, True], ids=["general", "hermitian"])
@pytest.mark.parametrize("complex_data", [False, True], ids=["real", "complex"])
@pytest.mark.parametrize("D", [10, 7030, 11_689_512])
def test_smallest_budget(D, complex_data, hermitian):
    shape, inner = (D, D), 2 if complex_data else 3
    smallest = outer_cost(shape, hermitian) + inner**2
    assert a_priori_hyperparams(shape, smallest, complex_data, hermitian) == (1, inner)
    with pytest.raises(InputError, match=rf"at least {smallest} are needed"):
        a_priori_hyperparams(shape, smallest - 1, complex_data, hermitian)


@pytest.mark.parametrize(("left", "inner"), [(80**2 - 1, 79), (80**2, 80), (81**2 - 1, 80)])
def test_inner_measurements_take_what_is_left(left, inner):
    assert a_priori_hyperparams((7030, 7030), 3 * 7030 + left, hermitian=True) == (3, inner)


def test_no_more_measurements_than_dimensions():
    assert a_priori_hyperparams((6, 4), 10**9) == (4, 4)


@pytest.mark.parametrize("dim", [291_069_958, 7_204_545_304])
def test_no_rounding_in_large_dimensions(dim):
    # Found by comparison with integer arithmetic: square roots in float64 gave one too many.
    budget = 7 * 2 * dim + 15**2 - 1
    assert a_priori_hyperparams((dim, dim), budget)[0] == 6
    assert a_priori_hyperparams((dim, dim), budget + 1)[0] == 7


@pytest.mark.parametrize(
    ("shape", "budget", "hermitian", "match"),
    [
        ((4, 5), 100, True, "square, got shape 4,5"),
        ((0, 5), 100, False, "positive, got 0,5"),
        ((4, -5), 100, False, "positive, got 4,-5"),
        ((4, 5), 0, False, "positive, got 4,5 and 0"),
    ],
    ids=["hermitian-rectangle", "no-rows", "negative-columns", "no-budget"],
)
def test_impossible_requests_raise(shape, budget, hermitian, match):
    with pytest.raises(InputError, match=match):
        a_priori_hyperparams(shape, budget, hermitian=hermitian)
