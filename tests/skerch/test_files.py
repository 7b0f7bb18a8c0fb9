"""Files that are written aside: whose they are."""

import os
from pathlib import Path

import h5py
import pytest

from skerch.errors import StoreError
from skerch.store import files
from skerch.store.files import own_dataset, remove_stale_asides, replacing


@pytest.mark.parametrize("differs", ["/etc/machine-id", "/proc/self/ns/pid"])
def test_a_process_id_of_another_machine_of_the_same_name_is_another_process(
    tmp_path, monkeypatch, differs
):
    """As in containers, or on clones of a machine: there, the process may be alive."""
    here, read, link = files._host(), Path.read_text, os.readlink
    monkeypatch.setattr(Path, "read_text", lambda p: "other" if str(p) == differs else read(p))
    monkeypatch.setattr(os, "readlink", lambda p: "other" if p == differs else link(p))
    files._host.cache_clear()
    try:
        there = files._host()
        assert there != here
        with replacing(tmp_path / "a.h5") as aside:
            aside.touch()
            dead = aside.with_name(aside.name.replace(str(os.getpid()), "4194304"))
            aside.rename(dead)
            files._host.cache_clear()
            monkeypatch.undo()
            remove_stale_asides(tmp_path)
            assert dead.exists()
            dead.rename(aside)
    finally:
        files._host.cache_clear()


def _external(file: h5py.File) -> None:
    file.create_dataset("data", (3,), "float32", external=[("elsewhere.bin", 0, 12)])


@pytest.mark.parametrize(
    "make",
    [lambda file: file.create_group("data"), _external],
    ids=["a group", "numbers in another file"],
)
def test_what_does_not_hold_its_data_itself_is_refused(tmp_path, make):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        make(file)
        with pytest.raises(StoreError, match="data set 'data' does not hold its data itself"):
            own_dataset(file, "data")
