"""A measured store that tests copy, damage and repair."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from applesandoranges.app.log import read_log
from tests.conftest import ANALYSE, Pipeline


def results(log: Path) -> list[dict]:
    """Return all results of an analysis."""
    return read_log(log).bodies("RESULT")


@pytest.fixture(scope="session")
def measured(trained: Pipeline) -> Path:
    """A store with all measurements of step 0; not to be changed."""
    store = trained.lay_out("faults_measured")
    assert trained.measure(store) == 0
    return store


@pytest.fixture(scope="session")
def analysed(trained: Pipeline, measured: Path) -> list[dict]:
    """The results that an undisturbed run gives."""
    store = trained.root / "faults_analysed"
    shutil.copytree(measured, store)
    assert trained.analyse(store) == 0
    return results(trained.logs(ANALYSE)[-1])


@pytest.fixture
def store(measured: Path, tmp_path: Path) -> Path:
    """A copy of the measured store."""
    copy = tmp_path / "store"
    shutil.copytree(measured, copy)
    return copy
