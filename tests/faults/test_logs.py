"""Training logs that were cut, edited or grew, and params files that do not belong to them."""

import json
import shutil

import numpy as np
import pytest

from skerch.store.measurements import DistributedHDF5
from tests.faults.trees import tree

LINE = '["2026-01-01_00:00:00.000", ["TRAINING BATCH", {"global_step": %d, "batch_loss": 2.3}]]\n'


@pytest.fixture
def log(trained, tmp_path):
    """A copy of the training log, in a directory of its own."""
    copy = tmp_path / "run" / trained.log.name
    copy.parent.mkdir()
    shutil.copy(trained.log, copy)
    return copy


def cut(log):
    """Cut the last line in its middle, as a full disk or a kill may."""
    lines = log.read_text().splitlines(keepends=True)
    log.write_text("".join(lines[:-1]) + lines[-1][: len(lines[-1]) // 2])


def foreign(log):
    lines = log.read_text().splitlines(keepends=True)
    strange = ["srun: warning: node 7\n", '{"a": 1}\n', "[[[\n", "\udcff\0\n", '["x", ["Y", {}]]\n']
    log.write_text("".join([*strange, *lines, *strange]), errors="surrogateescape")


def long(log):
    with log.open("a") as file:
        file.writelines(LINE % step for step in range(100_000))


def long_lines(log):
    """Lines of ten megabytes: an event, and none."""
    lines = log.read_text().splitlines(keepends=True)
    event = json.dumps(["2026-01-01_00:00:00.000", ["INFO", ["x" * 10**7, {}]]]) + "\n"
    log.write_text("".join([event, *lines, "[" * 10**7 + "\n", event]))


@pytest.mark.parametrize("change", [cut, foreign, long, long_lines])
def test_10c_measures_the_same(trained, measured, store, log, change):
    change(log)
    (store / "leftouter_0000000002.h5").unlink()
    assert trained.measure(store, TRAINING_LOGPATH=log) == 0
    found, expected = (
        DistributedHDF5.load(where / "leftouter_0000000002.h5") for where in (store, measured)
    )
    np.testing.assert_allclose(found.data, expected.data, rtol=1e-4, atol=1e-8)
    assert found.provenance == expected.provenance


def edited(log, header, name, value):
    lines = []
    for line in log.read_text().splitlines():
        stamp, (head, body) = json.loads(line)
        if head == header:
            body[name] = value
            if value is None:
                del body[name]
        lines.append(json.dumps([stamp, [head, body]]))
    log.write_text("\n".join(lines) + "\n")


@pytest.mark.parametrize(
    ("header", "name", "value", "message"),
    [
        ("CONFIG", "PROBLEM", None, "expected PROBLEM (a text) in its CONFIG line, found None"),
        ("CONFIG", "RANDOM_SEED", "12345", "expected RANDOM_SEED (a seed) in its CONFIG line"),
        ("CONFIG", "RANDOM_SEED", -1, "expected RANDOM_SEED (a seed) in its CONFIG line, found -1"),
        ("CONFIG", "RANDOM_SEED", 2**32, "expected RANDOM_SEED (a seed) in its CONFIG line"),
        ("CONFIG", "PROBLEM", "mnist", "unknown problem 'mnist'"),
        ("CONFIG", "PROBLEM", "cifar10_3c3d", "CIFAR10"),
        ("CONFIG", "NUM_HESSIAN_DATAPOINTS", 30, "these are not the data of the training"),
        ("CONFIG", "NUM_HESSIAN_DATAPOINTS", -10, "expected NUM_HESSIAN_DATAPOINTS (a number)"),
        ("GLOBALS", "batch_size", 0, "expected batch_size (a number) in its GLOBALS line, found 0"),
        ("GLOBALS", "batch_size", 10**9, "batch"),
        ("GLOBALS", "param_shapes", [[3, 3]], "its parameter shapes are not those of mnist_mini"),
        ("GLOBALS", "H_train_idxs", [0, 1], "these are not the data of the training"),
        ("GLOBALS", "H_train_sha256", "0", "these are not the data of the training"),
        ("GLOBALS", "H_train_sha256", None, "these are not the data of the training"),
        ("GLOBALS", "run_id", "0", "are of different runs"),
        ("GLOBALS", "run_id", None, "are of different runs"),
    ],
)
def test_10c_refuses_another_training(trained, store, log, capsys, header, name, value, message):
    edited(log, header, name, value)
    before = tree(store), tree(log.parent)
    assert trained.measure(store, TRAINING_LOGPATH=log, STEP=2) == 2
    err = capsys.readouterr().err
    assert message in err
    assert err.count("\n") == 1
    assert (tree(store), tree(log.parent)) == before


@pytest.mark.parametrize("kept", [0, 1], ids=["before CONFIG", "before GLOBALS"])
def test_a_log_that_was_cut_too_early_is_refused(trained, store, log, capsys, kept):
    lines = log.read_text().splitlines(keepends=True)
    log.write_text("".join(lines[:kept]) + lines[kept][:100])
    before = tree(store), tree(log.parent)
    assert trained.measure(store, TRAINING_LOGPATH=log) == 2
    message = "not a log of these scripts" if kept == 0 else "no GLOBALS line"
    assert message in capsys.readouterr().err
    assert (tree(store), tree(log.parent)) == before
