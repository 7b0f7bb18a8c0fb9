"""How long the rest of an experiment takes, from logs whose times are made up."""

from types import SimpleNamespace

import pytest

from applesandoranges.app.log import read_log
from applesandoranges.cluster.status import HessianProgress, seconds_left
from tests.small_logs import BEGIN, Writer

EXPERIMENT = SimpleNamespace(sizes=SimpleNamespace(total=12))


def log_of(directory, name, begin, end, measured=0, last=("INFO", ["Other"])):
    """Write a log from one second to another, with so many measurements."""
    log = Writer(directory, f"[10c_x.py]{name}")
    times = [begin, *[begin] * measured, end]
    events = [("CONFIG", {}), *[("INFO", ["Measurement successful!", {}])] * measured, last]
    for second, event in zip(times, events, strict=True):
        # A writer adds ten seconds to each.
        log.time = BEGIN.replace(minute=0) + (second - 10) * (BEGIN.resolution * 10**6)
        log(*event)
    return read_log(log.path)


def progress(measured=0, analysed=False):
    return HessianProgress((0, "train"), analysed, frozenset(range(measured)))


@pytest.mark.parametrize(
    ("spans", "busy"),
    [
        ([(0, 40)], 40),
        ([(0, 40), (40, 60)], 60),
        ([(0, 40), (100, 120)], 60),  # a pause does not count
        ([(0, 40), (10, 50)], 50),  # nor does what overlaps, twice
        ([(0, 40), (10, 30)], 40),
        ([(0, 40), (10, 30), (20, 50), (45, 48)], 50),
        ([(10, 50), (0, 40)], 50),
    ],
    ids=str,
)
def test_time_of_jobs_side_by_side_counts_once(tmp_path, spans, busy):
    logs = [log_of(tmp_path, n, *span, measured=1) for n, span in enumerate(spans)]
    left = seconds_left(EXPERIMENT, [progress(8)], logs, [])
    assert left == pytest.approx(4 * busy / len(spans))


def test_analyses_that_are_missing_take_their_mean_time(tmp_path):
    measuring = [log_of(tmp_path, "a", 0, 30, measured=3)]
    analysing = [
        log_of(tmp_path, "b", 0, 5, last=("INFO", ["Analysis done"])),
        log_of(tmp_path, "c", 0, 8, last=("INFO", ["Analysis done"])),
        log_of(tmp_path, "d", 0, 90),  # did not come to its end
    ]
    hessians = [progress(12), progress(2), progress(analysed=True)]
    left = seconds_left(EXPERIMENT, hessians, measuring, analysing)
    assert left == pytest.approx(10 * 10 + 2 * 6.5)
    assert seconds_left(EXPERIMENT, hessians, measuring, []) == pytest.approx(100)


def test_nothing_is_known_before_the_first_measurement(tmp_path):
    assert seconds_left(EXPERIMENT, [progress()], [], []) is None
    assert seconds_left(EXPERIMENT, [progress()], [log_of(tmp_path, "a", 0, 9)], []) is None


@pytest.mark.parametrize(
    ("facts", "state"),
    [
        ({}, "not begun"), ({"failed": {1}}, "incomplete"), ({"measured": {1}}, "incomplete"),
        ({"measured": {1, 2, 3}}, "measured"), ({"measured": {1, 2, 3}, "queued": True}, "queued"),
        ({"running": {1}, "queued": True}, "measuring"),
        ({"analysing": True, "running": {1}}, "analysing"),
        ({"analysed": True, "analysing": True}, "analysed"),
    ],
    ids=str,
)  # fmt: skip
def test_state_in_one_word(facts, state):
    assert HessianProgress((0, "test"), **{"analysed": False} | facts).state(3) == state
