"""Costs by hand for small sizes, recommendations, and reading of bytes."""

import contextlib
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from skerch.budget import parse_bytes
from skerch.core import nystrom
from skerch.core.row_blocks import RowBlocks
from skerch.core.sketch import (
    apply_ssrft_to_columns,
    budget_beside_core,
    budget_beside_measurements,
)
from skerch.decompositions import seigh
from skerch.planning import LEAST_BLOCK, plan
from skerch.utils import InputError

SHAPE, GB = (7030, 7030), 10**9


def costs(*args, **kwargs):
    return {cost.name: cost for cost in plan(*args, **kwargs).costs}


def test_a_vector_of_a_large_network_needs_room_while_it_is_transformed():
    """64 bytes for each of its numbers, which is more than all small matrices."""
    found = costs((10**7, 10**7), 1, 20, memory_budget=10 * GB)
    assert found["hmt"].peak_memory == 64 * 10**7


class TestCosts:
    @pytest.mark.parametrize(
        ("name", "products", "passes", "in_sequence", "columns", "stored"),
        [
            ("seigh", 710, 1, 10, 355, 4 * (7030 * 355 + 710**2)),
            ("nystrom", 710, 1, 10, 710, 4 * 7030 * 710),
            ("hmt", 710, 2, 10, 710, 4 * 7030 * 710),
            ("krylov with 4 rounds of 178", 712, 4, 12, 890, 4 * 7030 * 890),
            ("krylov with 10 rounds of 71", 710, 10, 10, 781, 4 * 7030 * 781),
        ],
    )
    def test_by_hand(self, name, products, passes, in_sequence, columns, stored):
        found = costs(SHAPE, 355, 710, jobs=71, memory_budget=GB)[name]
        assert found.products == products
        assert found.num_rounds == passes
        assert found.products_in_sequence == in_sequence
        assert found.stored_columns == columns
        assert found.stored_bytes == stored
        assert found.within_budget
        assert not found.problem

    def test_double_precision_stores_twice_as_much(self):
        single, double = (
            costs(SHAPE, 355, 710, memory_budget=GB, itemsize=i)["hmt"] for i in (4, 8)
        )
        assert double.stored_bytes == 2 * single.stored_bytes

    @pytest.mark.parametrize("jobs", [1, 7, 100, 5000])
    def test_jobs_share_the_products_of_a_pass(self, jobs):
        for cost in plan(SHAPE, 100, 710, jobs=jobs, memory_budget=GB).costs:
            busiest = max(len(range(i, cost.block_size, jobs)) for i in range(jobs))
            assert cost.products_in_sequence == cost.num_rounds * busiest

    def test_the_peak_is_what_decides_about_the_budget(self):
        found = costs(SHAPE, 355, 710, memory_budget=15 * 10**6)
        assert {name: cost.within_budget for name, cost in found.items()} == {
            name: cost.peak_memory <= 15 * 10**6 for name, cost in found.items()
        }
        assert found["hmt"].within_budget
        assert not found["krylov with 10 rounds of 71"].within_budget

    def test_what_is_impossible_is_said(self):
        found = costs(SHAPE, 400, 710, memory_budget=GB)
        assert found["hmt"].problem == "needs 800 products"
        assert not found["krylov with 10 rounds of 71"].problem
        assert costs(SHAPE, 3, 3, memory_budget=GB)["krylov with 4 rounds of 1"].problem == (
            "needs 4 products"
        )


class Stop(Exception):
    """Everything was accepted."""


class Refusing:
    """A transform that is reached only where no budget was refused."""

    def __init__(self, *shape):
        self.shape = shape

    def __matmul__(self, X):
        raise Stop


def least_accepted(call):
    """Search the least budget with which ``call(budget)`` is not refused."""

    def accepted(budget):
        try:
            call(budget)
        except InputError:
            return False
        return True

    low, high = 0, 2**34
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if accepted(middle) else (middle, high)
    return high, accepted


def on_disk(D, outer, inner, dtype):
    """What 10d asks of a budget, without the data."""
    # Zeros that are not there: NumPy repeats one row, without ever being read here.
    stored = np.broadcast_to(np.zeros((), dtype), (D, outer))
    dataset = SimpleNamespace(shape=(D, outer), dtype=stored.dtype, __getitem__=stored.__getitem__)

    def call(budget):
        Y = RowBlocks(dataset, budget_beside_core(budget, outer, inner))
        Y.columns = lambda begin, end: None
        with contextlib.suppress(Stop):
            apply_ssrft_to_columns(Refusing(inner, D), Y)

    return call


def in_memory(D, outer, inner, dtype):
    """What seigh asks of a budget, without the products."""

    def call(budget):
        sizes = (D, D), outer, inner
        left = budget_beside_measurements(budget, *sizes, dtype=dtype, rows=D)
        with contextlib.suppress(Stop):
            Y = RowBlocks(torch.empty(1, 1, dtype=dtype).expand(D, outer), left)
            apply_ssrft_to_columns(Refusing(inner, D), Y)

    return call


@pytest.mark.parametrize("itemsize", [4, 8])
@pytest.mark.parametrize(
    ("D", "k", "num"),
    [(7030, 10, 20), (7030, 355, 710), (7030, 355, 360), (895_210, 10, 20),
     (895_210, 1000, 2000), (11_689_512, 5, 10), (300, 1, 2), (300, 150, 300)],
)  # fmt: skip
class TestMemoryOfSeigh:
    """It was low by up to 2.3 times for few pairs."""

    @pytest.mark.parametrize(
        ("ask", "planned"), [(on_disk, "peak_memory"), (in_memory, "in_memory")]
    )
    def test_is_what_the_functions_demand(self, D, k, num, itemsize, ask, planned):
        dtype = {4: torch.float32, 8: torch.float64}[itemsize]
        names = {torch.float32: "f4", torch.float64: "f8"}
        call = ask(D, k, num, names[dtype] if ask is on_disk else dtype)
        cost = costs((D, D), k, num, memory_budget=2**40, itemsize=itemsize)["seigh"]
        found = getattr(cost, planned)
        least, accepted = least_accepted(call)
        assert accepted(found)
        assert least <= found <= 1.1 * least


@pytest.mark.parametrize("itemsize", [4, 8])
@pytest.mark.parametrize(("D", "num"), [(7030, 20), (7030, 710), (895_210, 2000), (300, 300)])
def test_memory_of_nystrom_is_what_10d_demands(D, num, itemsize):
    stored = np.broadcast_to(np.zeros((), {4: "f4", 8: "f8"}[itemsize]), (D, num))
    dataset = SimpleNamespace(shape=stored.shape, dtype=stored.dtype)

    def call(budget):
        Y = RowBlocks(dataset, nystrom.budget_beside_core(budget, num))
        Y.columns = lambda begin, end: None
        with contextlib.suppress(Stop):
            apply_ssrft_to_columns(Refusing(num, D), Y)

    found = costs((D, D), num, num, memory_budget=2**40, itemsize=itemsize)["nystrom"].peak_memory
    least, accepted = least_accepted(call)
    assert accepted(found)
    assert least <= found <= 1.1 * least


@pytest.mark.parametrize(("D", "k", "num"), [(300, 1, 2), (300, 30, 60), (2000, 5, 10)])
def test_seigh_itself_takes_the_memory_that_is_planned(D, k, num):
    H = torch.eye(D, dtype=torch.float64)
    planned = costs((D, D), k, num, memory_budget=GB, itemsize=8)["seigh"].in_memory
    assert len(seigh(H, k, num, 0, memory_budget=planned).S) == k
    with pytest.raises(InputError, match="need"):
        seigh(H, k, num, 0, memory_budget=int(planned / 1.1))


class TestRecommendation:
    @pytest.mark.parametrize(
        ("options", "recommended", "reason"),
        [
            ({"jobs": 1}, "krylov with 10 rounds of 71", "hardly take longer"),
            ({"jobs": 71}, "krylov with 10 rounds of 71", "10 products one after the other, 10"),
            ({"jobs": 200}, "krylov with 5 rounds of 142", "5 products one after the other, 4"),
            ({"jobs": 710}, "krylov with 4 rounds of 178", "rounds are worth it"),
            ({"max_passes": 3}, "krylov with 3 rounds of 237", "hardly take longer"),
            ({"max_passes": 2}, "nystrom", "block Krylov would store more; nystrom keeps all"),
            ({"max_passes": 2, "memory_budget": 3 * 10**7}, "hmt", "two passes are better"),
            ({"max_passes": 1}, "nystrom", "one pass is all that is allowed; nystrom keeps all"),
            ({"memory_budget": 15 * 10**6}, "hmt", "block Krylov does not fit"),
            ({"memory_budget": 22 * 10**6, "rank": 400}, "seigh", "neither nystrom nor the range"),
            ({"rank": 20, "num_products": 40}, "krylov with 4 rounds of 10", "narrower than 10"),
            ({"rank": 20, "num_products": 30}, "krylov with 3 rounds of 10", "narrower than 10"),
            ({"rank": 5, "num_products": 10}, "krylov with 2 rounds of 5", "narrower than 5"),
            ({"rank": 6, "num_products": 12, "jobs": 12}, "krylov with 2 rounds of 6", "worth it"),
            ({"rank": 12, "num_products": 18}, "nystrom", "would be narrower than 10 columns"),
            ({"rank": 18, "num_products": 19}, "krylov with 2 rounds of 10", "narrower than 10"),
        ],
        ids=lambda value: str(value) if isinstance(value, dict) else "",
    )
    def test_rule_of_thumb(self, options, recommended, reason):
        found = plan(
            **{"shape": SHAPE, "rank": 355, "num_products": 710, "memory_budget": GB} | options
        )
        assert found.recommended.name == recommended
        assert reason in found.reason
        assert found.recommended.within_budget
        assert not found.recommended.problem

    def test_more_rounds_than_are_worth_it_if_fewer_do_not_fit(self):
        """25 = 5 * 5; blocks of two, three and four rounds have some columns more in all."""
        found = plan((25, 25), 5, 25, jobs=25, memory_budget=55_000)
        fitting = [cost.name for cost in found.costs if cost.within_budget]
        assert fitting == ["seigh", "hmt", "krylov with 5 rounds of 5"]
        assert found.recommended.name == "krylov with 5 rounds of 5"
        assert "5 products one after the other, 1 if there were one pass" in found.reason

    @pytest.mark.parametrize(
        ("num", "recommended"),
        [(355, "krylov with 10 rounds of 36"), (3, "krylov with 2 rounds of 2")],
    )
    def test_as_many_products_as_pairs(self, num, recommended):
        """Blocks are rounded up, to a few more products; a round has one at least."""
        assert plan(SHAPE, num, num, memory_budget=GB).recommended.name == recommended

    @pytest.mark.parametrize("num", [20, 40, 99, 150, 355])
    @pytest.mark.parametrize("jobs", [1, 7, 355])
    def test_no_recommended_block_is_narrower_than_ten(self, num, jobs):
        """It recommended 10 rounds of 4 for 40 products: see test_clusters."""
        found = plan(SHAPE, num // 2, num, jobs=jobs, memory_budget=GB)
        assert found.recommended.block_size >= LEAST_BLOCK == 10
        assert "no block is narrower than 10 columns" in found.reason

    @pytest.mark.parametrize(
        ("rank", "num", "warned"),
        [(355, 355, True), (355, 360, True), (100, 149, True), (100, 150, False), (1, 2, False)],
    )
    def test_as_many_inner_as_outer_measurements_are_a_warning(self, rank, num, warned):
        found = plan(SHAPE, rank, num, memory_budget=GB)
        assert bool(found.warning) == warned
        assert found.as_dict()["warning"] == found.warning
        if warned:
            assert f"n_i={num} products" in found.warning
            assert f"twice as many products as pairs, {2 * rank}" in found.warning

    def test_plain_values_for_machines(self):
        found = plan(SHAPE, 355, 710, memory_budget=GB)
        assert found.as_dict()["recommended"] == found.recommended.name
        assert [c["name"] for c in found.as_dict()["recoveries"]] == [c.name for c in found.costs]

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"shape": (7030, 10)}, "square"),
            ({"rank": 0}, "1 <= k <= products <= 7030"),
            ({"num_products": 354}, "k=355 and products=354"),
            ({"num_products": 7031}, "products=7031"),
            ({"jobs": 0}, "at least 1"),
            ({"max_passes": 0}, "at least 1"),
            ({"itemsize": 2}, r"itemsize of \[4, 8\] bytes, got 2"),
            ({"memory_budget": 1000}, "budget of 1 KB is too small: hmt needs"),
        ],
        ids=lambda value: str(value) if isinstance(value, dict) else "",
    )
    def test_impossible_input(self, options, message):
        with pytest.raises(InputError, match=message):
            plan(
                **{"shape": SHAPE, "rank": 355, "num_products": 710, "memory_budget": GB} | options
            )


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1", 1), ("8000000000", 8 * GB), ("8e9", 8 * GB), ("8GB", 8 * GB), ("1.5 gb", 1.5 * GB),
        (" 2TB ", 2000 * GB), ("3KB", 3000), ("250MB", GB / 4), ("8G", 8 * GB), ("8 bytes", 8),
    ],
)  # fmt: skip
def test_bytes_are_read(text, expected):
    assert parse_bytes(text) == expected


@pytest.mark.parametrize("text", ["", "GB", "-1", "1e999", "8 apples", "nan", "1.2.3"])
def test_bytes_that_are_none(text):
    with pytest.raises(InputError, match="expected bytes such as 8e9 or 8GB"):
        parse_bytes(text)
