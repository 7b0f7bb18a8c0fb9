"""Files that somebody removes while they are needed."""

import itertools
import shutil

import numpy as np
import pytest

from skerch.__main__ import main as skerch
from skerch.errors import StoreError
from skerch.store import files
from skerch.store.measurements import DistributedHDF5
from tests.faults.trees import tree


def opened_files(monkeypatch, at=0, action=None):
    """Count the files that are opened; ``action`` comes just before the one of number ``at``."""
    counter, opened, open_h5 = itertools.count(1), [], files.open_h5

    def counted(path):
        opened.append(path)
        if next(counter) == at:
            action()
        return open_h5(path)

    monkeypatch.setattr(files, "open_h5", counted)
    return opened


@pytest.fixture(scope="module")
def num_opened(trained, measured, tmp_path_factory):
    """How many files an undisturbed analysis opens."""
    store = tmp_path_factory.mktemp("counted") / "store"
    shutil.copytree(measured, store)
    with pytest.MonkeyPatch.context() as monkeypatch:
        opened = opened_files(monkeypatch)
        assert trained.analyse(store) == 0
    return len(opened)


@pytest.mark.parametrize("share", [0.15, 0.4, 0.7, 0.95, 1.0])
def test_a_store_that_is_removed_during_an_analysis(
    trained, store, num_opened, monkeypatch, capsys, share
):
    """Nothing is reported, and one line says what is missing."""
    logs = set(trained.run_dir.iterdir())
    opened_files(monkeypatch, round(share * num_opened), lambda: shutil.rmtree(store))
    assert trained.analyse(store) in (1, 2)
    (line,) = capsys.readouterr().err.splitlines()
    assert "no such" in line.lower() or "(missing)" in line
    assert str(store) in line
    new = [path.read_text() for path in set(trained.run_dir.iterdir()) - logs]
    assert not [text for text in new if "core_S" in text or "Analysis done" in text]


def test_an_analysis_whose_log_is_removed_does_not_end_well(trained, store, monkeypatch, capsys):
    """Its results are in that log alone."""
    before = set(trained.run_dir.iterdir())
    opened = []

    def remove():
        (log,) = set(trained.run_dir.iterdir()) - before
        opened.append(log)
        log.unlink()

    number = len(opened_files(monkeypatch))
    assert number == 0
    monkeypatch.undo()
    real = files.open_h5

    def open_h5(path):
        if not opened and set(trained.run_dir.iterdir()) - before:
            remove()
        return real(path)

    monkeypatch.setattr(files, "open_h5", open_h5)
    assert trained.analyse(store) == 1
    err = capsys.readouterr().err.splitlines()[-1]
    assert f"{opened[0]}: was removed or replaced while it was written" in err


@pytest.mark.parametrize("command", ["merge", "inspect"])
@pytest.mark.parametrize("number", [2, 6, 12])
def test_a_measurement_that_is_removed_while_it_is_needed(
    store, monkeypatch, capsys, command, number
):
    path = store / "leftouter_0000000005.h5"
    before = {p: value for p, value in tree(store).items() if p != path}
    opened_files(monkeypatch, number, lambda: path.unlink(missing_ok=True))
    merge = ["--in_path", str(store / "leftouter_ALL.h5"), "--out_path", str(store / "m.h5")]
    words = {"merge": ["merge_hdf5", *merge], "inspect": ["inspect", str(store), "--verify"]}
    status = skerch(words[command])
    out, err = capsys.readouterr()
    assert "Traceback" not in err
    if command == "merge":
        assert status == 1
        assert path.name in err
    else:
        assert status == 1
        assert path.name in out or "measurement 5" in out
    assert {p: v for p, v in tree(store).items() if p != path} == before


def test_what_was_opened_before_it_was_removed_is_read_to_its_end(store, monkeypatch):
    path = store / "leftouter_0000000005.h5"
    expected, open_h5 = DistributedHDF5.load(path).data, files.open_h5

    def open_and_remove(wanted):
        file = open_h5(wanted)
        wanted.unlink()
        return file

    monkeypatch.setattr(files, "open_h5", open_and_remove)
    np.testing.assert_array_equal(DistributedHDF5.load(path).data, expected)
    with pytest.raises(StoreError, match="no such file"):
        DistributedHDF5.load(path)
