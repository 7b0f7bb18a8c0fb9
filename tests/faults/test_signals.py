"""SIGTERM and Ctrl-C end a stage cleanly, with a summary of what is done."""

import os
import signal
import subprocess
import sys
import time

import pytest

from applesandoranges.app.log import read_log
from skerch.store.measurements import DistributedHDF5
from skerch.store_names import INITIAL_FLAG
from tests.conftest import ANALYSE, MEASURE, TRAIN, Pipeline
from tests.faults.processes import SAME_NUMBERS, SignalAt, finish, start
from tests.faults.trees import tree
from tests.script_loader import REPOSITORY

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("faults_signals")]

SIGNALS = pytest.mark.parametrize(
    ("number", "name", "status"),
    [(signal.SIGTERM, "SIGTERM", 143), (signal.SIGINT, "Ctrl-C", 130)],
    ids=["SIGTERM", "Ctrl-C"],
)


def interrupt(words, tmp_path, number, when):
    """Start a command, send it a signal once ``when`` stands in what it prints."""
    output = tmp_path / "terminal"
    process = start(words, output)
    while process.is_alive() and not (output.exists() and when in output.read_text()):
        time.sleep(0.01)
    os.kill(process.pid, number)
    process.join(60)
    text = output.read_text()
    assert "Traceback" not in text
    return process.exitcode, text


def last_body(directory, script):
    log = max(p for p in directory.iterdir() if f"[{script}]" in p.name)
    event = read_log(log).events[-1]
    assert event.text == "Stopped before the end"
    return event.body


@SIGNALS
def test_10a(tmp_path, digits, number, name, status):
    words = [
        f"OBS_DATASETS={digits}", f"OUTPUT_DIR={tmp_path / 'output'}", "RANDOM_SEED=1",
        "RECORD_STEPS=[0,2,290]", "NUM_HESSIAN_DATAPOINTS=20", "DEVICE=cpu",
    ]  # fmt: skip
    found, text = interrupt([TRAIN, *words, "SCREEN=json"], tmp_path, number, '"global_step": 2')
    assert (found, text.splitlines()[-1]) == (status, f"{TRAIN}: stopped by {name}")
    (run_dir,) = (tmp_path / "output").iterdir()
    body = last_body(run_dir, TRAIN)
    assert (body["by"], body["recorded"]) == (name, [0, 2])
    assert body["to go on"].endswith(f"RESUME={run_dir}")
    assert not list(run_dir.glob(".*.tmp"))


@SIGNALS
def test_10c(tmp_path, trained, number, name, status):
    pipeline = Pipeline(tmp_path, trained.datasets, 3, 300)
    store = pipeline.lay_out()
    run_dir = tmp_path / "run"
    trained.copy_training(run_dir)
    (log,) = run_dir.glob("*[[]10a*.log")
    words = trained.measurement_words(
        store, TRAINING_LOGPATH=log, NUM_OUTER=3, NUM_INNER=300,
        MEASUREMENT_IDXS=list(range(300)), **SAME_NUMBERS,
    )  # fmt: skip
    found, text = interrupt(
        [MEASURE, *words, "SCREEN=json"], tmp_path, number, "Measurement successful!"
    )
    assert (found, text.splitlines()[-1]) == (status, f"{MEASURE}: stopped by {name}")
    flags = [DistributedHDF5.load(path).flag for path in store.glob("inner_0*.h5")]
    body, missing = last_body(run_dir, MEASURE), flags.count(INITIAL_FLAG)
    assert body == {"by": name, "measured": 300 - missing, "missing": missing}
    assert 0 < missing < 300
    assert not list(store.glob(".*.tmp"))


@SIGNALS
def test_10d(tmp_path, trained, store, number, name, status):
    run_dir = tmp_path / "run"
    trained.copy_training(run_dir)
    (log,) = run_dir.glob("*[[]10a*.log")
    words = trained.analysis_words(store, TRAINING_LOGPATH=log, NUM_A_POSTERIORI=20000)
    found, text = interrupt([ANALYSE, *words, "SCREEN=json"], tmp_path, number, "Solving the core")
    assert (found, text.splitlines()[-1]) == (status, f"{ANALYSE}: stopped by {name}")
    assert last_body(run_dir, ANALYSE) == {
        "by": name, "step": 0, "H_test": False, "merged": ["inner", "outer"],
    }  # fmt: skip


@SIGNALS
def test_merge(tmp_path, store, number, name, status):
    before, output = tree(store), tmp_path / "terminal"
    words = ["--in_path", store / "inner_ALL.h5", "--out_path", store / "merged.h5"]
    # When the new file is complete, but not under its name yet.
    found = finish(["skerch", "merge_hdf5", *words], output, SignalAt(store, 1, number))
    assert (found, output.read_text()) == (
        status, f"skerch: stopped by {name} before it was done\n",
    )  # fmt: skip
    assert tree(store) == before


def test_tests_pass_where_ctrl_c_is_ignored():
    """As of ``make test &`` in a script: shells let background jobs ignore Ctrl-C."""
    words = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    done = subprocess.run(
        ["bash", "-c", 'trap "" INT; exec "$@"', "bash", *words,
         "tests/applesandoranges/test_signals.py"],
        cwd=REPOSITORY, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
