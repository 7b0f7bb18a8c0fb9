"""Logs: one JSON line per event, and the reader's patience with damaged ones."""

import json
import re
import shutil
import subprocess
import time
from datetime import datetime, timezone

import pytest
import torch

from applesandoranges.app.log import JsonLog, read_log
from skerch.utils import InputError


@pytest.fixture
def log(tmp_path):
    with JsonLog(tmp_path / "a.log") as log:
        yield log


def test_line_has_time_header_and_body(log):
    log("GLOBALS", {"num_params": 7030, "S": torch.tensor([1.0, float("nan")])})
    stamp, (header, body) = json.loads(log.path.read_text())
    assert re.fullmatch(r"\d{4}-\d\d-\d\d_\d\d:\d\d:\d\d\.\d{3}[+-]\d{4}", stamp)
    assert abs(datetime.strptime(stamp, "%Y-%m-%d_%H:%M:%S.%f%z").timestamp() - time.time()) < 60
    assert (header, body) == ("GLOBALS", {"num_params": 7030, "S": [1.0, None]})


@pytest.mark.parametrize(
    ("zone", "offset"), [("UTC", "+0000"), ("Asia/Kolkata", "+0530"), ("Etc/GMT+5", "-0500")]
)
def test_lines_say_the_offset_of_their_clock(tmp_path, monkeypatch, zone, offset):
    """The same moment is the same time, whatever the clock on the wall shows."""
    begin = datetime.now(timezone.utc)
    monkeypatch.setenv("TZ", zone)
    time.tzset()
    try:
        with JsonLog(tmp_path / "a.log") as log:
            log("INFO", {})
    finally:
        monkeypatch.undo()
        time.tzset()
    assert json.loads(log.path.read_text())[0].endswith(offset)
    (event,) = read_log(log.path).events
    assert event.has_offset
    assert abs((event.time - begin).total_seconds()) < 60


@pytest.mark.parametrize(
    ("stamp", "utc", "has_offset"),
    [("2026-10-25_02:30:00.000+0200", "2026-10-25 00:30:00", True),
     ("2026-10-25_02:30:00.000+0100", "2026-10-25 01:30:00", True),  # an hour later
     ("2026-01-31_12:34:56.789-0330", "2026-01-31 16:04:56.789000", True),
     ("2024-02-01_12:55:00.609", "2024-02-01 12:55:00.609000", False)],
    ids=["before the clock goes back", "after it", "west", "published"],
)  # fmt: skip
def test_times_are_those_of_utc(tmp_path, stamp, utc, has_offset):
    path = tmp_path / "a.log"
    path.write_text(json.dumps([stamp, ["INFO", {}]]))
    (event,) = read_log(path).events
    assert (str(event.time), event.has_offset) == (f"{utc}+00:00", has_offset)


@pytest.mark.skipif(shutil.which("jq") is None, reason="needs jq (apt-get install jq)")
def test_jq_reads_it_as_documented(log):
    log("GLOBALS", {"num_params": 7030})
    done = subprocess.run(
        ["jq", "-c", ".[1][1].num_params", log.path], capture_output=True, text=True, check=True
    )
    assert done.stdout == "7030\n"


def test_no_event_no_file(tmp_path):
    with JsonLog(tmp_path / "a.log"):
        pass
    assert not (tmp_path / "a.log").exists()


def test_existing_log_is_not_overwritten(tmp_path):
    (tmp_path / "a.log").write_text("old")
    with pytest.raises(FileExistsError), JsonLog(tmp_path / "a.log") as log:
        log("INFO", {})
    assert (tmp_path / "a.log").read_text() == "old"


def test_tables_by_header(log):
    log("EVAL ROUND", {"epoch": 1, "test_loss": 2.5})
    log("EVAL ROUND", {"epoch": 2, "test_loss": None})
    log("INFO", ["Performing measurement", {"step": 0, "idx": 4}])
    tables = read_log(log.path).tables()
    assert set(tables) == {"EVAL ROUND", "INFO"}
    assert tables["EVAL ROUND"]["epoch"].tolist() == [1, 2]
    assert tables["EVAL ROUND"]["test_loss"].isna().tolist() == [False, True]
    assert tables["INFO"].loc[0, ["text", "step", "idx"]].tolist() == [
        "Performing measurement", 0, 4,
    ]  # fmt: skip


GOOD = '["2024-03-21_02:09:31.164", ["GLOBALS", {"num_params": 3}]]'


@pytest.mark.parametrize(
    "bad",
    [GOOD[:40], "Traceback (most recent call last):", "[1, 2]", '["x", ["A", {}]]', "{}", "null",
     '["2024-03-21_02:09:31.164", ["A", 3]]', '["2024-03-21_02:09:31.164", [4, {}]]', "[]"],
)  # fmt: skip
def test_bad_line_is_left_out_and_named(tmp_path, bad):
    path = tmp_path / "a.log"
    path.write_text(f"{GOOD}\n{bad}\n{GOOD}\n")
    log = read_log(path)
    assert [event.body["num_params"] for event in log.events] == [3, 3]
    assert len(log.left_out) == 1
    assert log.left_out[0].startswith("line 2 ")


@pytest.mark.parametrize(
    ("content", "why"), [("", "it is empty"), ("hello\n", "line 1 is not a log event: 'hello'")]
)
def test_file_that_is_no_log_is_named(tmp_path, content, why):
    path = tmp_path / "a.log"
    path.write_text(content)
    with pytest.raises(InputError, match=why) as error:
        read_log(path)
    assert str(path) in str(error.value)


def test_missing_log_is_named(tmp_path):
    with pytest.raises(InputError, match=r"no\.log: cannot be read"):
        read_log(tmp_path / "no.log")


def test_first_says_which_header_is_missing(tmp_path):
    path = tmp_path / "a.log"
    path.write_text(GOOD)
    assert read_log(path).first("GLOBALS") == {"num_params": 3}
    with pytest.raises(InputError, match="no CONFIG line"):
        read_log(path).first("CONFIG")
