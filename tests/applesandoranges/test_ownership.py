"""Clean-up and locks of experiments: nothing of others is removed, overwritten or run twice."""

import dataclasses
import errno
import fcntl
import os
import shutil
import signal
import threading

import pytest

from applesandoranges.app.alone import take_lock
from applesandoranges.cluster.experiment import Experiment
from applesandoranges.cluster.ownership import foreign_files
from applesandoranges.cluster.progress import make_plan
from applesandoranges.cluster.removal import main as remove
from applesandoranges.cluster.run import Run
from applesandoranges.cluster.settings import Caller
from skerch.errors import InputError
from tests import damage

# Fixtures by their names.
from tests.applesandoranges.test_progress import (
    SETTINGS,
    keep,
    pipeline,  # noqa: F401
    run_id,
    started,
)
from tests.faults.trees import tree


@pytest.fixture
def measured(pipeline):  # noqa: F811
    """A store with two measurements of the run, a monolithic file and room for ten more."""
    store = pipeline.lay_out()
    assert pipeline.measure(store, MEASUREMENT_IDXS=[0, 1]) == 0
    return store


def as_other_run(path):
    """Let a measurement be one of another run."""
    damage.other_run(path)


def without_provenance(path):
    damage.without_attributes(path)


@pytest.mark.parametrize("names", [["inner_0000000001.h5"], ["leftouter_0000000000.h5"]])
@pytest.mark.parametrize("how", [as_other_run, without_provenance])
def test_measurements_of_others_are_found(pipeline, measured, names, how):  # noqa: F811
    own = run_id(pipeline)
    assert list(foreign_files(measured, own)) == []
    assert len(list(foreign_files(measured, "another"))) == 4
    assert len(list(foreign_files(measured, None))) == 4
    for name in names:
        how(measured / name)
    assert [path.name for path in foreign_files(measured, own)] == names


def test_a_new_layout_is_nobodys(pipeline):  # noqa: F811
    assert list(foreign_files(pipeline.lay_out(), None)) == []


def test_own_measurements_are_removed(pipeline, measured, capsys):  # noqa: F811
    assert remove([str(measured), str(pipeline.log)]) == 0
    assert not measured.exists()
    assert remove([str(measured), str(pipeline.log)]) == 0
    assert capsys.readouterr().out.splitlines()[-2:] == [
        f"{measured}: removed", f"{measured}: is gone already",
    ]  # fmt: skip


@pytest.mark.parametrize("how", [as_other_run, without_provenance])
def test_a_store_with_measurements_of_others_is_left_alone(pipeline, measured, capsys, how):  # noqa: F811
    how(measured / "inner_0000000001.h5")
    before = tree(measured)
    assert remove([str(measured), str(pipeline.log)]) == 0
    assert "1 files are not of run" in capsys.readouterr().out
    assert tree(measured) == before


def test_other_files_in_a_store_stay(pipeline, measured):  # noqa: F811
    (measured / "notes.txt").write_text("mine")
    assert remove([str(measured), str(pipeline.log)]) == 0
    assert [path.name for path in measured.iterdir()] == ["notes.txt"]


def test_a_directory_that_is_no_store_is_left_alone(pipeline, tmp_path):  # noqa: F811
    other = tmp_path / "other"
    other.mkdir()
    (other / "inner_results.h5").write_text("mine")
    assert remove([str(other), str(pipeline.log)]) == 0
    assert (other / "inner_results.h5").read_text() == "mine"


def test_of_directories_beside_it_only_unfinished_layouts_are_removed(pipeline, measured):  # noqa: F811
    new = pipeline.lay_out("new")
    names = {
        "killed": "store.partial.local17.999999999",
        "alive": f"store.partial.17.{os.getpid()}",
        "measured": "store.partial.18.999999999",
        "notes": "store.partial.19.999999999",
    }
    for what, name in names.items():
        shutil.copytree(measured if what == "measured" else new, measured.parent / name)
    (measured.parent / names["notes"] / "notes.txt").touch()
    backup = measured.parent / "store.partial.backup"
    backup.mkdir()
    assert remove([str(measured), str(pipeline.log)]) == 0
    left = {path.name for path in measured.parent.glob("store*")}
    assert left == {*names.values(), backup.name} - {names["killed"]}


def test_an_experiment_does_not_overwrite_measurements_of_others(pipeline, measured):  # noqa: F811
    as_other_run(measured / "inner_0000000001.h5")
    before = tree(pipeline.root)
    keep(pipeline.run_dir, MEAS_DIR=measured, OBS_DATASETS_PATH=pipeline.datasets)
    expected = tree(pipeline.root)
    environ = {"RUN_DIR": str(pipeline.run_dir), "PROJECT_DIR": "."}
    with pytest.raises(InputError, match=r"holds 1 measurements of another run, such as inner_"):
        Run(Caller("11m.sh", environ), dry_run=False)(wait=False)
    assert tree(pipeline.root) == expected
    assert expected != before


def test_a_plan_removes_what_is_its_own_alone(pipeline, measured):  # noqa: F811
    assert make_plan(started(pipeline.run_dir, MEAS_DIR=measured)).leftover
    as_other_run(measured / "inner_0000000001.h5")
    plan = make_plan(started(pipeline.run_dir, MEAS_DIR=measured))
    assert (plan.leftover, len(plan.foreign)) == (False, 1)


# ------------------------------------------------------------------ one process at a time


def test_the_second_process_is_refused_until_the_first_has_ended(tmp_path):
    path = tmp_path / "lock"
    refused = pytest.raises(InputError, match=r"^x: runs already, in another process; wait")
    with take_lock(path, "x: runs"), refused:
        take_lock(path, "x: runs")
    take_lock(path, "x: runs").close()
    assert path.read_bytes() == b""


def test_a_lock_ends_with_its_process_however_that_ends(tmp_path):
    path, (reading, writing) = tmp_path / "lock", os.pipe()
    pid = os.fork()
    if pid == 0:
        held = take_lock(path, "x")
        os.write(writing, b"." if held else b"")
        signal.pause()
    os.read(reading, 1)
    os.close(reading)
    os.close(writing)
    try:
        with pytest.raises(InputError, match="already"):
            take_lock(path, "x")
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    take_lock(path, "x").close()


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP])
def test_file_systems_without_locks_do_without(tmp_path, monkeypatch, number):
    def refuse(file, operation):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", refuse)
    take_lock(tmp_path / "lock", "x").close()


@pytest.fixture
def begun(tmp_path):
    """An experiment that is about to begin."""
    environ = {name: str(value) for name, value in SETTINGS.items() if name != "SCRIPT"}
    environ |= {"OUTPUT_DIR": str(tmp_path / "output"), "PROJECT_DIR": "."}
    return Experiment.of_run(Caller("11m_x.sh", environ | {"OBS_DATASETS_PATH": str(tmp_path)}))


def test_an_experiment_appears_with_its_settings(begun):
    begun.begin().close()
    (directory,) = begun.directory.parent.iterdir()
    assert directory == begun.directory
    there = Experiment.as_started(directory, Caller("11s.sh", {})).settings
    assert there == dataclasses.replace(begun.settings, OUTPUT_DIR=None)


def test_two_experiments_of_one_second(begun):
    before = (begun.begin().close(), tree(begun.directory.parent))[1]
    with pytest.raises(InputError, match="in this very second"):
        begun.begin()
    assert tree(begun.directory.parent) == before


@pytest.mark.parametrize("first", ["begin", "lock"])
def test_an_experiment_is_run_once_at_a_time(begun, capsys, first):
    """The second one says that it waits, and changes nothing until the first has ended."""
    if first == "lock":
        begun.begin().close()
    lock, ended = getattr(begun, first)(), threading.Event()
    before = tree(begun.directory)

    def second():
        with begun.lock():
            ended.set()

    thread = threading.Thread(target=second)
    thread.start()
    line, shown = "an 11x script runs this already, in another process; waiting until", ""
    while line not in shown and thread.is_alive():
        shown += capsys.readouterr().out
    assert not ended.is_set()
    assert tree(begun.directory) == before
    lock.close()
    thread.join()
    assert ended.is_set()
