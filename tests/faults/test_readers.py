"""Readers that go away, terminals that are full, and limits under which nothing can be loaded."""

import os
import re
import subprocess
import sys
from dataclasses import dataclass

import pytest

from applesandoranges.app.keys import run_script
from tests.conftest import ANALYSE, MEASURE, TRAIN, Pipeline
from tests.faults.conftest import results
from tests.faults.processes import finish
from tests.script_loader import REPOSITORY

pytestmark = pytest.mark.xdist_group("faults_readers")

PLAN = ["skerch", "plan", "--shape", "7030,7030", "--k", 20, "--products", 100]


def nobody_reads():
    """Let standard output be a pipe whose reader is gone, as after ``| head -1``."""
    reading, writing = os.pipe()
    os.close(reading)
    os.dup2(writing, 1)


def nobody_reads_errors_either():
    nobody_reads()
    os.dup2(1, 2)


def is_full():
    os.dup2(os.open("/dev/full", os.O_WRONLY), 1)


def closed():
    os.close(1)
    sys.stdout = sys.__stdout__ = None


@pytest.fixture(scope="module")
def words(tmp_path_factory, trained, measured):
    """Command lines that work, by script."""
    root = tmp_path_factory.mktemp("readers")
    pipeline = Pipeline(trained.root, trained.datasets, trained.outer, trained.inner)
    new = Pipeline(root, trained.datasets, 6, 12)
    training = [
        f"OBS_DATASETS={new.datasets}", f"OUTPUT_DIR={root / 'output'}", "RECORD_STEPS=0",
        "MAX_STEPS=0", "NUM_HESSIAN_DATAPOINTS=20", "DEVICE=cpu", "RANDOM_SEED=1",
    ]  # fmt: skip
    return {
        "09a": ["09a_prepare_datasets.py", f"OBS_DATASETS={root / 'new'}", "SOURCE=synthetic",
                "DATASETS=MNIST", "NUM_SYNTHETIC_TRAIN=20", "NUM_SYNTHETIC_TEST=20"],
        "10a": [TRAIN, *training],
        "10c": [MEASURE, *pipeline.measurement_words(measured)],
        "13a": ["13a_plot_overlap.py", f"LOGS={trained.run_dir}", f"OUTPUT_DIR={root / 'figures'}",
                "FIGURES=run_times", "OVERWRITE=true"],
        "help": [ANALYSE, "--help"],
        "skerch": PLAN,
        "skerch --help": ["skerch", "--help"],
    }  # fmt: skip


@pytest.mark.parametrize(
    ("name", "before"),
    [(name, nobody_reads) for name in ("09a", "10a", "10c", "help", "skerch", "skerch --help")]
    + [("13a", nobody_reads_errors_either), ("10c", nobody_reads_errors_either),
       ("10c", closed), ("13a", closed), ("skerch", closed)],
)  # fmt: skip
def test_a_reader_that_goes_away_changes_nothing(words, tmp_path, name, before):
    assert finish(words[name], tmp_path / "terminal", before) == 0
    said = (tmp_path / "terminal").read_text()
    assert not [word for word in ("Traceback", "Errno", "Exception") if word in said]


def alike(one, other):
    """Say whether two values of a log are the same, up to how sums are split over threads."""
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(alike(one[key], other[key]) for key in one)
    if isinstance(one, list):
        return len(one) == len(other) and all(map(alike, one, other))
    return (
        one == pytest.approx(other, rel=1e-5, abs=1e-9) if isinstance(one, float) else one == other
    )


def test_an_analysis_that_nobody_reads_has_all_its_results(trained, store, analysed, tmp_path):
    output = tmp_path / "terminal"
    assert finish([ANALYSE, *trained.analysis_words(store)], output, nobody_reads) == 0
    assert alike(results(trained.logs(ANALYSE)[-1]), analysed)
    assert output.read_text() == ""


@pytest.mark.parametrize("name", ["10a", "13a", "help", "skerch"])
def test_output_that_cannot_be_written_is_one_line(words, tmp_path, name):
    assert finish(words[name], tmp_path / "terminal", is_full) == 1
    said = (tmp_path / "terminal").read_text()
    assert said.endswith("No space left on device\n")
    assert said.count("Errno") == 1
    assert "Traceback" not in said


@pytest.mark.skipif(sys.platform != "linux", reason="address space is limited on Linux alone")
@pytest.mark.parametrize(
    "command",
    [["10a_gather_params_grads.py", "RECORD_STEPS=0", "NUM_HESSIAN_DATAPOINTS=1"],
     ["-m", *map(str, PLAN)]],
    ids=["10a", "skerch"],
)  # fmt: skip
def test_too_little_address_space_to_load_packages_is_one_line(command):
    done = subprocess.run(
        ["bash", "-c", 'ulimit -v 700000; exec "$@"', "bash", sys.executable, *command],
        capture_output=True, text=True, cwd=REPOSITORY, env=os.environ | {"OMP_NUM_THREADS": "1"},
        check=False,
    )  # fmt: skip
    assert done.returncode == 1
    *loading, line = done.stderr.splitlines()
    assert all(" loading PyTorch" in before for before in loading)
    assert re.search("cannot be started|out of memory|failed to map segment", line)


@pytest.mark.parametrize(
    "error",
    [MemoryError(), RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"),
     RuntimeError("can't start new thread"), RuntimeError("std::bad_alloc"),
     OSError(24, "Too many open files")],
)  # fmt: skip
def test_a_limit_of_the_machine_is_one_line(capsys, error):
    def main(config):
        raise error

    assert run_script("99_x.py", Nothing, main, []) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("99_x.py: ")


@dataclass
class Nothing:
    """A script without keys."""
