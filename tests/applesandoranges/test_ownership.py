"""Clean-up and locks of experiments: nothing of others is removed, overwritten or run twice."""

import dataclasses
import errno
import fcntl
import json
import os
import pathlib
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
from skerch.store import files
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


def refuse_to_open(path, monkeypatch):
    """Let the system refuse to read a file, as for one of another user, or a stale NFS."""
    real = pathlib.Path.open

    def refusing(self, *args, **kwargs):
        if self == path:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(self))
        return real(self, *args, **kwargs)

    monkeypatch.setattr(pathlib.Path, "open", refusing)


@pytest.mark.parametrize("how", ["not permitted", "truncated", "empty", "virtual"])
def test_what_cannot_be_read_is_left_alone_by_a_clean_up(
    pipeline,  # noqa: F811
    measured,
    capsys,
    monkeypatch,
    how,
):
    name = "inner_ALL.h5" if how == "virtual" else "inner_0000000001.h5"
    if how != "not permitted":
        (damage.truncated if how == "truncated" else damage.empty)(measured / name)
    before = tree(measured)
    with monkeypatch.context() as patch:
        if how == "not permitted":
            refuse_to_open(measured / name, patch)
        assert remove([str(measured), str(pipeline.log)]) == 0
    assert tree(measured) == before
    (line,) = capsys.readouterr().out.splitlines()[-1:]
    assert "1 files cannot be read" in line
    assert f"such as {name} (" in line
    assert "remove it by hand if nobody needs it" in line
    (measured / name).unlink()
    assert remove([str(measured), str(pipeline.log)]) == 0
    assert not measured.exists()


def test_damaged_measurements_are_made_again_and_what_may_not_be_read_is_somebodys(
    pipeline,  # noqa: F811
    measured,
    monkeypatch,
):
    path, own = measured / "inner_0000000001.h5", run_id(pipeline)
    with monkeypatch.context() as patch:
        refuse_to_open(path, patch)
        assert list(foreign_files(measured, own)) == [path]
    damage.truncated(path)
    assert list(foreign_files(measured, own)) == []


def test_names_that_look_alike_are_of_others(pipeline, measured, capsys):  # noqa: F811
    """Notes, and what another machine or a living process is about to write."""
    parts = stale_aside(measured, 1).split(".")
    names = {
        "inner_notes.h5",
        "inner_3.h5",
        ".inner_0000000003.h5.otherhost-1234.77.abcdef01.tmp",
        ".".join([*parts[:4], str(os.getpid()), *parts[5:]]),
        "." + stale_aside(measured, 1)[1:].replace("inner_0000000001", "inner_notes"),
    }
    for name in {*names, stale_aside(measured, 1)}:
        (measured / name).write_text("mine")
    assert remove([str(measured), str(pipeline.log)]) == 0
    assert {path.name for path in measured.iterdir()} == names
    assert f"such as {min(names)}; remove them by hand" in capsys.readouterr().out


def stale_aside(store, number):
    """Return the name of what a process of this machine that is gone left aside."""
    with pytest.raises(InterruptedError), files.replacing(store / f"inner_{number:010d}.h5") as at:
        raise InterruptedError
    return at.name.replace(f".{os.getpid()}.", ".999999999.")


def test_a_log_of_an_earlier_version_says_not_whose_measurements_they_are(
    pipeline,  # noqa: F811
    measured,
    capsys,
):
    lines = [json.loads(line) for line in pipeline.log.read_text().splitlines()]
    for _, (header, body) in lines:
        if header == "GLOBALS":
            del body["run_id"]
    pipeline.log.write_text("".join(json.dumps(line) + "\n" for line in lines))
    before = tree(measured)
    assert remove([str(measured), str(pipeline.log)]) == 2
    (line,) = capsys.readouterr().err.splitlines()[-1:]
    assert f"{pipeline.log}: expected the run_id of a training, found none" in line
    assert tree(measured) == before


@pytest.mark.parametrize("words", [[], ["store"], ["store", "log", "more"]])
def test_a_clean_up_takes_two_words(words, capsys):
    assert remove(words) == 2
    expected = f"removal: expected two words, STORE LOG, got {len(words)}\n"
    assert capsys.readouterr().err == expected


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
