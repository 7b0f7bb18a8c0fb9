"""Signs of life: a line at the bottom of a terminal, elsewhere one as soon as it is silent."""

import io
import itertools
import sys
import time

import pytest

from skerch import heartbeat
from skerch.heartbeat import FIRST_SILENCE, SILENCE, TICK, Heartbeat


class Clock:
    def __init__(self):
        self.now = 100.0

    def monotonic(self):
        return self.now

    def strftime(self, form):
        return "12:00:00"


class Terminal(io.StringIO):
    def isatty(self):
        return True

    def screen(self):
        """Return the lines as they are seen."""
        lines = []
        for line in self.getvalue().split("\n"):
            seen = ""
            for part in line.split("\r"):
                seen = part + seen[len(part) :]
            lines.append(seen.rstrip())
        return lines


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(heartbeat, "time", clock)
    monkeypatch.setenv("COLUMNS", "40")
    return clock


def test_a_line_comes_within_a_second_and_then_every_ten(clock):
    out, err = io.StringIO(), io.StringIO()
    beat, times = Heartbeat("merging", out, err), []
    for _ in range(round(60 / TICK)):
        clock.now += TICK
        before = err.getvalue()
        beat.look()
        if err.getvalue() != before:
            times.append(clock.now - 100)
    assert times[0] <= 1
    assert max(b - a for a, b in itertools.pairwise(times)) <= 10
    assert len(times) < 60 / SILENCE + 2
    lines = err.getvalue().splitlines()
    assert lines[0] == "12:00:00  merging (0:00:01)"
    assert lines[1] == "12:00:00  merging (0:00:09)"
    assert out.getvalue() == ""


def test_it_beats_by_itself(monkeypatch):
    monkeypatch.setattr(heartbeat, "TICK", 0.01)
    monkeypatch.setattr(heartbeat, "FIRST_SILENCE", 0.0)
    err = io.StringIO()
    beat = Heartbeat("merging", io.StringIO(), err)
    beat.start()
    try:
        begin = time.monotonic()
        while not err.getvalue() and time.monotonic() < begin + 60:
            time.sleep(0.01)
    finally:
        beat.stop()
    assert "  merging" in err.getvalue()


def test_who_prints_is_not_silent(clock):
    out, err = io.StringIO(), io.StringIO()
    beat = Heartbeat("merging", out, err)
    for _ in range(20):
        clock.now += SILENCE / 2
        beat.write(out, "news\n", on_terminal=False)
        beat.look()
    assert err.getvalue() == ""


def test_what_is_printed_stands_above_the_line_at_the_bottom(clock):
    screen = Terminal()
    beat = Heartbeat("merging", screen, screen)
    beat.look()
    assert screen.screen()[-1].endswith(" merging")
    beat.write(screen, "first", on_terminal=True)
    beat.look()  # not into a line that somebody has begun
    beat.write(screen, " line\n", on_terminal=True)
    clock.now += 3
    beat.doing("solving")
    clock.now += 61
    beat.look()
    first, bottom = screen.screen()
    assert first == "first line"
    assert bottom.endswith(" solving (0:01:01)")


def test_the_line_is_as_wide_as_the_terminal_and_goes_away(clock):
    screen = Terminal()
    beat = Heartbeat("x" * 100, screen, screen)
    beat.look()
    assert len(screen.screen()[-1]) == 39
    beat.doing("short")
    beat.look()
    assert screen.screen()[-1].endswith(" short")
    with beat.paused():
        beat.look()
        assert screen.screen() == [""]


def test_streams_are_watched_and_given_back(monkeypatch):
    out, err = io.StringIO(), io.StringIO()
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setattr(sys, "stderr", err)
    with heartbeat.alive("") as beat:
        beat.say("loading")
        print("result")
        assert heartbeat.doing("next") == "loading"
        assert sys.stdout is not out
    assert sys.stdout is out
    assert sys.stderr is err
    assert out.getvalue() == "result\n"
    assert err.getvalue().endswith("  loading\n")
    assert heartbeat.doing("nobody shows it") == ""


def test_full_terminals_end_nothing(clock):
    class Full(io.StringIO):
        def write(self, text):
            raise OSError(28, "No space left on device")

    clock.now += FIRST_SILENCE
    Heartbeat("merging", io.StringIO(), Full()).look()
