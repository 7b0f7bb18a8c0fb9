"""Costs by hand for small sizes, recommendations, and reading and writing of bytes."""

import pytest

from skerch.planning import format_bytes, parse_bytes, plan
from skerch.utils import InputError

SHAPE, GB = (7030, 7030), 10**9


def costs(*args, **kwargs):
    return {cost.name: cost for cost in plan(*args, **kwargs).costs}


class TestCosts:
    @pytest.mark.parametrize(
        ("name", "products", "passes", "in_sequence", "columns", "stored"),
        [
            ("seigh", 710, 1, 10, 355, 4 * (7030 * 355 + 710**2)),
            ("hmt", 710, 2, 10, 710, 4 * 7030 * 710),
            ("krylov with 4 rounds of 177", 708, 4, 12, 885, 4 * 7030 * 885),
            ("krylov with 10 rounds of 71", 710, 10, 10, 781, 4 * 7030 * 781),
        ],
    )
    def test_by_hand(self, name, products, passes, in_sequence, columns, stored):
        found = costs(SHAPE, 355, 710, jobs=71, budget=GB)[name]
        assert found.products == products
        assert found.num_rounds == passes
        assert found.products_in_sequence == in_sequence
        assert found.stored_columns == columns
        assert found.stored_bytes == stored
        assert found.within_budget
        assert not found.problem

    def test_double_precision_stores_twice_as_much(self):
        single, double = (costs(SHAPE, 355, 710, budget=GB, itemsize=i)["hmt"] for i in (4, 8))
        assert double.stored_bytes == 2 * single.stored_bytes

    @pytest.mark.parametrize("jobs", [1, 7, 100, 5000])
    def test_jobs_share_the_products_of_a_pass(self, jobs):
        for cost in plan(SHAPE, 100, 710, jobs=jobs, budget=GB).costs:
            busiest = max(len(range(i, cost.block_size, jobs)) for i in range(jobs))
            assert cost.products_in_sequence == cost.num_rounds * busiest

    def test_the_peak_is_what_decides_about_the_budget(self):
        found = costs(SHAPE, 355, 710, budget=15 * 10**6)
        assert {name: cost.within_budget for name, cost in found.items()} == {
            name: cost.peak_memory <= 15 * 10**6 for name, cost in found.items()
        }
        assert found["hmt"].within_budget
        assert not found["krylov with 10 rounds of 71"].within_budget

    def test_what_is_impossible_is_said(self):
        found = costs(SHAPE, 400, 710, budget=GB)
        assert found["hmt"].problem == "needs 800 products"
        assert not found["krylov with 10 rounds of 71"].problem
        assert costs(SHAPE, 709, 710)["krylov with 4 rounds of 177"].problem.endswith("less than k")


class TestRecommendation:
    @pytest.mark.parametrize(
        ("options", "recommended", "reason"),
        [
            ({"jobs": 1}, "krylov with 10 rounds of 71", "hardly take longer"),
            ({"jobs": 71}, "krylov with 10 rounds of 71", "10 products one after the other, 10"),
            ({"jobs": 200}, "krylov with 5 rounds of 142", "5 products one after the other, 4"),
            ({"jobs": 710}, "krylov with 4 rounds of 177", "rounds are worth it"),
            ({"max_passes": 3}, "krylov with 3 rounds of 236", "hardly take longer"),
            ({"max_passes": 2}, "hmt", "hardly better with two rounds"),
            ({"max_passes": 2, "rank": 400}, "krylov with 2 rounds of 355", "hardly take longer"),
            ({"max_passes": 1}, "seigh", "one pass is all that is allowed"),
            ({"budget": 15 * 10**6}, "hmt", "block Krylov does not fit"),
            ({"budget": 21 * 10**6, "rank": 400}, "seigh", "neither block Krylov nor"),
        ],
        ids=lambda value: str(value) if isinstance(value, dict) else "",
    )
    def test_rule_of_thumb(self, options, recommended, reason):
        found = plan(**{"shape": SHAPE, "rank": 355, "products": 710, "budget": GB} | options)
        assert found.recommended.name == recommended
        assert reason in found.reason
        assert found.recommended.within_budget
        assert not found.recommended.problem

    @pytest.mark.parametrize(
        ("num", "recommended"), [(355, "krylov with 5 rounds of 71"), (353, "seigh")]
    )
    def test_as_many_products_as_pairs(self, num, recommended):
        """A basis needs blocks of the same size with as many columns; 353 is a prime."""
        assert plan(SHAPE, num, num, budget=GB).recommended.name == recommended

    def test_plain_values_for_machines(self):
        found = plan(SHAPE, 355, 710, budget=GB)
        assert found.as_dict()["recommended"] == found.recommended.name
        assert [c["name"] for c in found.as_dict()["recoveries"]] == [c.name for c in found.costs]

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"shape": (7030, 10)}, "square"),
            ({"rank": 0}, "1 <= k <= products <= 7030"),
            ({"products": 354}, "k=355 and products=354"),
            ({"products": 7031}, "products=7031"),
            ({"jobs": 0}, "at least 1"),
            ({"max_passes": 0}, "at least 1"),
            ({"budget": 1000}, "budget of 1 KB is too small: hmt needs"),
        ],
        ids=lambda value: str(value) if isinstance(value, dict) else "",
    )
    def test_impossible_input(self, options, message):
        with pytest.raises(InputError, match=message):
            plan(**{"shape": SHAPE, "rank": 355, "products": 710, "budget": GB} | options)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1", 1), ("8000000000", 8 * GB), ("8e9", 8 * GB), ("8GB", 8 * GB), ("1.5 gb", 1.5 * GB),
        (" 2TB ", 2000 * GB), ("3KB", 3000), ("250MB", GB / 4),
    ],
)  # fmt: skip
def test_bytes_are_read(text, expected):
    assert parse_bytes(text) == expected


@pytest.mark.parametrize("text", ["", "GB", "8G", "-1", "1e999", "8 bytes", "nan", "1.2.3"])
def test_bytes_that_are_none(text):
    with pytest.raises(InputError, match="expected bytes such as 8e9 or 8GB"):
        parse_bytes(text)


@pytest.mark.parametrize(
    ("num", "text"),
    [
        (0, "0 bytes"),
        (999, "999 bytes"),
        (1500, "1.5 KB"),
        (2.34567e9, "2.35 GB"),
        (5e15, "5e+03 TB"),
    ],
)
def test_bytes_are_written(num, text):
    assert format_bytes(num) == text
