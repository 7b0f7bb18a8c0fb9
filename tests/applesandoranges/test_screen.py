"""The key SCREEN: words for people, or the lines of the log; and bars."""

import json
from dataclasses import dataclass

import pytest

from applesandoranges.app import events, screen
from applesandoranges.app.keys import run_script
from applesandoranges.app.log import JsonLog
from skerch import heartbeat


@dataclass
class Config:
    """A script without keys of its own."""


@pytest.fixture
def log_of(tmp_path, capsys):
    """Runs a script that logs; returns its status, what it printed, and the lines of its log."""

    def run(*words):
        path = tmp_path / "a.log"

        def main(config):
            with JsonLog(path) as log:
                log.info(events.MEASURED, {"idx": 1})
                log(events.RESULT, {"numbers": list(range(1000))})

        status = run_script("99_x.py", Config, main, list(words))
        lines = path.read_text().splitlines() if path.exists() else []
        return status, capsys.readouterr(), lines

    return run


def test_json_is_the_lines_of_the_log_whole(log_of):
    status, printed, lines = log_of("SCREEN=json")
    assert status == 0
    assert printed.out.splitlines() == lines
    assert json.loads(lines[1])[1][1]["numbers"][-1] == 999


@pytest.mark.parametrize("words", [[], ["SCREEN=people"]], ids=["default", "people"])
def test_people_get_short_lines_without_colours(log_of, words):
    status, printed, lines = log_of(*words)
    assert status == 0
    assert len(lines) == 2  # the file has them all
    measured, result = printed.out.splitlines()
    assert measured[8:] == "  1 measured, indices 1 ... 1, in 0.0 s"
    assert result.endswith("numbers 1,000 values, 0 ... 999")
    assert "\x1b" not in printed.out


@pytest.mark.parametrize("terminal", [False, True])
def test_warnings_stand_in_the_output_of_jobs_as_in_the_log(
    tmp_path, capsys, monkeypatch, terminal
):
    monkeypatch.setattr(screen.sys.stdout, "isatty", lambda: terminal)
    monkeypatch.setenv("TERM", "dumb")
    with JsonLog(tmp_path / "a.log") as log:
        log.warning("something is odd", {"step": 3})
        log.info("something else", {})
    out, (line, _) = capsys.readouterr().out, (tmp_path / "a.log").read_text().splitlines()
    assert "Warning: something is odd" in out
    assert (line in out.splitlines()) == (not terminal)
    assert out.count("odd") == (1 if terminal else 2)


def test_other_screens_are_refused(log_of):
    status, printed, lines = log_of("SCREEN=blue")
    assert (status, printed.out, lines) == (2, "", [])
    assert "unknown SCREEN 'blue'" in printed.err
    assert "people, json" in printed.err


def test_help_has_the_key(capsys):
    assert run_script("99_x.py", Config, print, ["--help"]) == 0
    assert "SCREEN" in capsys.readouterr().out


def test_json_lines_are_cut_on_a_terminal_alone(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    with screen.shown_as(screen.JSON), JsonLog(tmp_path / "a.log") as log:
        log(events.RESULT, {"numbers": list(range(1000))})
    (line,) = capsys.readouterr().out.splitlines()
    (whole,) = (tmp_path / "a.log").read_text().splitlines()
    assert f"[{len(whole)} characters]" in line
    assert len(line) < screen.TERMINAL_WIDTH + 100


@pytest.fixture
def clock(monkeypatch):
    class Clock:
        now = 0.0

        def monotonic(self):
            return self.now

    clock = Clock()
    monkeypatch.setattr(screen, "time", clock)
    return clock


def test_bars_say_rate_and_time_left(clock):
    with screen.Bar("measuring", "product", 100, done=20) as bar:
        clock.now = 10.0
        bar.advance(40)
        text = bar(79)
        assert len(text) == 79
        assert text.startswith("measuring:  60%|")
        assert "60/100 [00:10<00:10,  4.00product/s]" in text
        assert bar(None) == "measuring: 60 of 100,  4.00product/s, 00:10 left"


def test_what_is_done_after_a_bar_is_what_was_done_before(monkeypatch):
    beat = heartbeat.Heartbeat("before")
    monkeypatch.setattr(heartbeat, "_current", [beat])
    with screen.Bar("measuring", "product", 3) as bar:
        heartbeat.doing("something else meanwhile")
        bar.advance()
        assert beat.activity is bar
    assert beat.activity == "before"
