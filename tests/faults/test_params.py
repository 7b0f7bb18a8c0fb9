"""Params files, gradients and training logs that were damaged, edited or exchanged."""

import json

import h5py
import numpy as np
import pytest
import torch

from applesandoranges.app.log import read_log
from applesandoranges.training.params_file import IncrementalHDF5
from skerch.errors import StoreError
from tests import damage
from tests.conftest import MEASURE, Pipeline
from tests.faults.trees import tree

ALLOWED = {"ALLOW_UNKNOWN_PROVENANCE": True}


@pytest.fixture
def run_dir(trained, tmp_path):
    """A copy of the run directory."""
    copy = tmp_path / "run" / trained.run_dir.name
    trained.copy_training(copy)
    return copy


@pytest.fixture
def words(trained, run_dir):
    """Words of the scripts for the copy; step 2 is not measured in ``store``."""
    log, params = run_dir / trained.log.name, run_dir / trained.params.name
    return {"TRAINING_LOGPATH": log, "PARAMS_PATH": params, "STEP": 2}


def change(path, name, index, function):
    with h5py.File(path, "r+") as file:
        file[name][index] = function(file[name][index])


DAMAGE = {
    "a bit of a weight": lambda path: change(
        path, "data", (5000, 1), lambda x: (x.view(np.uint32) ^ np.uint32(1)).view(np.float32)
    ),
    "columns": lambda path: change(path, "data_idxs", (slice(None), 1), lambda x: x - 1),
    "the hash": lambda path: change(
        path, "sha256", 1, lambda x: (b"0" if x[:1] != b"0" else b"1") + x[1:]
    ),
    "another step's name": lambda path: change(path, "metadata", 0, lambda x: b"{'step': 2 }"),
}


@pytest.mark.parametrize("harm", DAMAGE.values(), ids=DAMAGE.keys())
def test_a_damaged_step_is_refused_by_everyone(trained, store, words, capsys, harm):
    harm(words["PARAMS_PATH"])
    if "name" in next(name for name, value in DAMAGE.items() if value is harm):
        change(words["PARAMS_PATH"], "metadata", 1, lambda x: b"{'step': 9 }")
    before = tree(store.parent)
    capsys.readouterr()
    assert trained.measure(store, **words) == 1
    assert trained.analyse(store, **words, **ALLOWED) == 1
    lines = capsys.readouterr().err.splitlines()
    assert [" does not match its hash: the file was" in line for line in lines] == [True, True]
    assert tree(store.parent) == before


def rewritten(path, function):
    """Write an entry anew, with a hash that is right."""
    with h5py.File(path) as file:
        data, idxs = torch.from_numpy(file["data"][:]), file["data_idxs"][:]
        texts, attributes = file["metadata"].asstr()[:], dict(file.attrs)
    path.unlink()
    new = IncrementalHDF5.create(path, len(data), torch.float32, attributes)
    for (begin, end), text in zip(idxs.T, texts, strict=True):
        new.append(function(data[:, begin:end]), {"step": int(text.split(":")[1].strip(" }"))})


def test_a_step_that_is_not_the_logged_one_is_refused(trained, store, words, capsys):
    """Its own hash is right: the log knows another one."""
    rewritten(words["PARAMS_PATH"], lambda data: 1.01 * data)
    assert trained.measure(store, **words) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "step 2 is not the one that the training recorded" in line


def without_lines(log, wanted):
    lines = [line for line in log.read_text().splitlines(keepends=True) if not wanted(line)]
    log.write_text("".join(lines))


def test_a_log_that_ends_before_the_step_leaves_a_warning(trained, store, words):
    """10a was killed between the two; the file has a hash of its own."""
    without_lines(words["TRAINING_LOGPATH"], lambda line: '"HDF5"' in line)
    assert trained.measure(store, **words) == 0
    log = max(path for path in words["TRAINING_LOGPATH"].parent.glob(f"*[[]{MEASURE[:3]}*"))
    (warning,) = (event.text for event in read_log(log).events if event.header == "WARNING")
    assert warning.endswith("does not say the hash of step 2")


@pytest.mark.parametrize("lacks", ["log", "params file and log"])
def test_a_run_of_an_earlier_version_needs_permission(trained, store, words, capsys, lacks):
    log, lines = words["TRAINING_LOGPATH"], []
    for line in log.read_text().splitlines():
        stamp, (header, body) = json.loads(line)
        if header == "HDF5":
            del body["sha256"]
        lines.append(json.dumps([stamp, [header, body]]) + "\n")
    log.write_text("".join(lines))
    if "params" in lacks:
        with h5py.File(words["PARAMS_PATH"], "r+") as file:
            del file["sha256"]
    before = tree(store.parent)
    assert trained.measure(store, **words) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "does not say the hash of step 2, as those of earlier versions" in line
    assert tree(store.parent) == before
    assert trained.measure(store, **words, **ALLOWED) == 0


def test_gradients_have_hashes_that_the_log_knows(digits, tmp_path):
    pipeline = Pipeline(tmp_path, digits, 6, 12, record=(0, 1), extra=["STORE_GRADS=true"])
    assert pipeline.train() == 0
    logged = {
        (body["matrix"], body["global_step"]): body["sha256"]
        for body in read_log(pipeline.log).bodies("HDF5")
    }
    for split in ("train", "test"):
        (path,) = pipeline.run_dir.glob(f"*__gradients_{split}.h5")
        for step in (0, 1):
            entry = IncrementalHDF5(path).find(step=step)
            assert (entry.sha256, entry.is_verified) == (logged[f"{split}_gradient", step], True)
        damage.flipped_bit_of_column(path, 1)
        with pytest.raises(StoreError, match="does not match its hash"):
            IncrementalHDF5(path).find(step=1)
        IncrementalHDF5(path).find(step=0)
