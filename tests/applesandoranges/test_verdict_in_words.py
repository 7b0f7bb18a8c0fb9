"""What readers of a log make of its verdict."""

import json
import math

import pytest
import torch

from applesandoranges.analysis.uncertainty import OverlapBand
from applesandoranges.analysis.verdict import verdict
from applesandoranges.app.log import as_logged
from applesandoranges.app.verdicts import NOT_READABLE, READABLE, USABLE, Verdict, in_words
from skerch.core.row_blocks import RowBlocks
from skerch.results import Eigh

NUM = 10


def body(errors):
    """Return the verdict on ten pairs with these errors, as readers of the log see it."""
    curve, errors = torch.ones(NUM, dtype=torch.float64), torch.tensor(errors).double()
    band = OverlapBand(curve, curve, curve + errors, "by hand", 30, torch.zeros(NUM).double())
    eye = torch.eye(NUM, dtype=torch.float64)
    S = torch.arange(NUM, 0, -1, dtype=torch.float64)
    return as_logged(verdict(Eigh(S, eye, RowBlocks(eye), eye, {"core_condition": 6.0}), band))


GOOD, OF_USE, BAD = 0.01, 0.1, 0.9
CASES = {
    "all": ([GOOD] * NUM, "k = 1 ... 10 within 5%"),
    "of use only": ([OF_USE] * NUM, "k = 1 ... 10 within 20%"),
    "both": ([GOOD] * 4 + [OF_USE] * 3 + [BAD] * 3, "k = 1 ... 7 within 20%"),
    "in the middle": ([BAD] * 2 + [GOOD] * 5 + [BAD] * 3, "k = 3 ... 7 within 5%"),
    "none": ([BAD] * NUM, "not readable"),
}


@pytest.mark.parametrize(("errors", "words"), CASES.values(), ids=CASES)
@pytest.mark.parametrize("earlier", [False, True], ids=["ours", "of before"])
def test_words(errors, words, earlier):
    logged = body(errors)
    if earlier:  # such logs say it in the text alone
        for key in ("usable_overlap", "usable_runs"):
            logged.pop(key, None)
    found = Verdict.of(logged)
    assert found.words == words
    assert found.trustworthy == (words != "not readable")
    expected = {GOOD: READABLE, OF_USE: USABLE, BAD: NOT_READABLE}
    assert [found.error_at(k) for k in range(1, NUM + 1)] == [expected[e] for e in errors]


def test_words_of_one_rank():
    found = Verdict.of(body(CASES["both"][0]))
    assert found.words_at(4) == "within 5%"
    assert found.words_at(5) == "within 20%"
    assert found.words_at(8) == "not readable"
    assert found.eigenvalues == NUM


def test_every_rank_is_judged_by_its_own_error():
    """Not by those beside it; but within 5 % is only said of the longest run."""
    errors = [OF_USE, BAD, GOOD, OF_USE, OF_USE, BAD, GOOD, OF_USE, BAD, GOOD]
    found = Verdict.of(body(errors))
    expected = [NOT_READABLE if error == BAD else USABLE for error in errors]
    expected[2] = READABLE
    assert [found.error_at(k) for k in range(1, NUM + 1)] == expected
    assert found.words == "k = 3 ... 5 and 4 other k within 20%"
    assert "within 5% for k = 3; " in found.text
    assert "within 20% for k = 3 ... 5 and 4 other k; " in found.text


@pytest.mark.parametrize(
    ("runs", "words"),
    [
        ([(3, 3)], "k = 3"),
        ([(1, 17), (19, 355)], "k = 1 ... 17 and 19 ... 355"),
        ([(1, 1), (5, 9), (11, 12)], "k = 5 ... 9 and 3 other k"),
        ([(1, 2), (5, 6), (8, 8)], "k = 1 ... 2 and 3 other k"),
    ],
    ids=["one", "two", "three", "equally long"],
)
def test_runs_in_words(runs, words):
    assert in_words(runs) == words


def test_a_verdict_that_is_not_trusted_comes_with_what_helps():
    logged = body([BAD] * NUM)
    assert (
        Verdict.of(logged).full_text == f"{logged['verdict']}. What helps: {logged['remedies'][0]}"
    )
    assert Verdict.of(body([GOOD] * NUM)).full_text == body([GOOD] * NUM)["verdict"]


def test_a_short_run_in_a_result_that_is_not_trusted_is_not_readable():
    logged = body([BAD] * NUM) | {"readable_overlap": [1, 2]}
    assert logged["trustworthy"] is False
    assert Verdict.of(logged).error_at(1) == NOT_READABLE


def test_without_an_estimate_nothing_is_known():
    eye = torch.eye(NUM, dtype=torch.float64)
    eigh = Eigh(torch.arange(NUM, 0, -1).double(), eye, RowBlocks(eye), eye, {})
    found = Verdict.of(as_logged(verdict(eigh, None)))
    assert (found.words, found.words_at(1)) == ("error not estimated",) * 2
    assert math.isnan(found.error_at(1))
    assert found.eigenvalues is None


def test_published_logs_have_none():
    assert Verdict.of(json.loads('{"frob_Qtop^2": [0.5]}')) is None
