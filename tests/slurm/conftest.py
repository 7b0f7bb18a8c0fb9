"""A Slurm cluster for the session, and experiments of 11m on it."""

from __future__ import annotations

import os
import shutil

import pytest

from tests.conftest import ANALYSE
from tests.experiments import Experiment, analysis, small_environment
from tests.slurm.cluster import INSTALL, missing_programs, start_cluster, wait_until


def pytest_runtest_setup(item):
    """Skip here, not in the fixture: pytest then reports all these tests in one line."""
    missing = missing_programs()
    if missing:
        pytest.skip(f"left out: no {', '.join(missing)} here; {INSTALL} installs them")


@pytest.fixture(scope="session")
def cluster():
    running = start_cluster()
    yield running
    running.__exit__()


@pytest.fixture(scope="session")
def empty_store(trained):
    """A store as 10b makes it, but for the monolithic files, which 10d makes if need be."""
    return trained.lay_out("empty")


@pytest.fixture
def experiment(cluster, trained, empty_store, digits, tmp_path):
    """A training that is done, of whose first Hessian 12 measurements in two tasks are wanted."""
    directory = tmp_path / trained.run_dir.name
    trained.copy_training(directory)
    shutil.copytree(empty_store, directory / "measurements")
    yield Experiment(
        small_environment(digits) | cluster.environment, directory, directory / "measurements",
        tmp_path / "fault",
        {
            "RUN_DIR": directory, "MAX_RECORD_STEP": 0, "SPLITS": "train",
            "NUM_OUTER": trained.outer, "NUM_INNER": trained.inner, "MEAS_PER_JOB": 6,
        },
    )  # fmt: skip
    cluster.run("scancel", "-u", str(os.getuid()))
    wait_until(lambda: not cluster.is_busy(), "the jobs of this test are over")


@pytest.fixture(scope="session")
def expected(trained):
    """What the sequential commands find for the first Hessian."""
    store = trained.lay_out("for_slurm")
    before = trained.logs(ANALYSE)
    assert trained.measure(store) == 0
    assert trained.analyse(store) == 0
    (log,) = set(trained.logs(ANALYSE)) - set(before)
    return analysis([log], 0, False)
