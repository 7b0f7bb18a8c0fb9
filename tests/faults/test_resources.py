"""Too few open files, full disks, directories that cannot be written to."""

import shutil
from functools import partial

import h5py
import numpy as np
import pytest

from skerch.store.measurements import DistributedHDF5
from skerch.store.merge import load_merged
from tests.conftest import ANALYSE, MEASURE, TRAIN, Pipeline
from tests.faults.conftest import results
from tests.faults.disks import (
    LimitedDisk,
    SmallDisk,
    is_about_space,
    last_line,
    mount,
    unmount,
)
from tests.faults.processes import SAME_NUMBERS, finish, limit_open_files, without_privileges
from tests.faults.trees import tree

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("faults_resources")]


# --------------------------------------------------------------- 64 open files, 300 measurements


def test_more_measurements_than_files_may_be_open(trained, tmp_path):
    """All stages with 300 inner measurements and 64 open files, and the same without a limit."""
    pipeline = Pipeline(tmp_path, trained.datasets, 70, 300)
    trained.copy_training(tmp_path / "output" / trained.run_dir.name)
    few, output = partial(limit_open_files, 64), tmp_path / "terminal"
    analyses = []
    for name, before in (("limited", few), ("free", None)):
        store = tmp_path / name
        words = ["--shape", "7030,7030", "--outer", 70, "--inner", 300, "--sym"]
        commands = (
            ["skerch", "create_hdf5_layout", "--hdf5dir", store, *words],
            [MEASURE, *pipeline.measurement_words(store, **SAME_NUMBERS)],
            ["skerch", "merge_hdf5", "--in_path", store / "inner_ALL.h5", "--out_path",
             store / "inner_MERGED.h5", "--ok_flag", "measured"],
            [ANALYSE, *pipeline.analysis_words(store, **SAME_NUMBERS)],
            ["skerch", "inspect", store, "--verify"],
        )  # fmt: skip
        for command in commands:
            assert finish(command, output, before) == 0, output.read_text()
        analyses.append(results(pipeline.logs(ANALYSE)[-1]))
    assert analyses[0] == analyses[1]
    expected = np.stack(
        [
            DistributedHDF5.load(DistributedHDF5.subpath(tmp_path / "free", "inner_{}.h5", i)).data
            for i in range(300)
        ],
        axis=1,
    )
    assert np.abs(expected).max(0).all()
    with load_merged(tmp_path / "limited" / "inner_MERGED.h5", "measured") as file:
        np.testing.assert_array_equal(file["data"][:], expected)


# ------------------------------------------------------------------------------------ full disk


@pytest.fixture(params=["small disk", "limited files"])
def disk(request, tmp_path):
    directory = tmp_path / "disk"
    directory.mkdir()
    if request.param == "limited files":
        yield LimitedDisk(directory)
        return
    mount(directory, "size=4m")
    yield SmallDisk(directory)
    unmount(directory)


def test_10a_on_a_full_disk(digits, disk, tmp_path):
    output, undisturbed = tmp_path / "terminal", tmp_path / "output"
    words = [
        f"OBS_DATASETS={digits}", "RANDOM_SEED=12345", "RECORD_STEPS=[0,2]", "MAX_STEPS=2",
        "NUM_HESSIAN_DATAPOINTS=20", "DEVICE=cpu",
    ]  # fmt: skip
    assert finish([TRAIN, *words, f"OUTPUT_DIR={undisturbed}"], output) == 0
    words.append(f"OUTPUT_DIR={disk.directory / 'output'}")
    disk.fill(leave=16_384)
    assert finish([TRAIN, *words], output, disk.before) == 1
    assert is_about_space(last_line(output))
    assert not list(disk.directory.rglob(".*.tmp"))
    disk.empty()
    (run_dir,) = (disk.directory / "output").iterdir()
    assert finish([TRAIN, *words, f"RESUME={run_dir}"], output) == 0
    found, expected = (next(p.rglob("*__params.h5")) for p in (run_dir, undisturbed))
    with h5py.File(found) as resumed, h5py.File(expected) as whole:
        np.testing.assert_array_equal(resumed["data"][:], whole["data"][:])


@pytest.mark.parametrize("stage", ["10c", "10d", "merge"])
def test_a_store_on_a_full_disk(trained, measured, disk, tmp_path, stage):
    store, output = disk.directory / "store", tmp_path / "terminal"
    run_dir = tmp_path / "run"
    trained.copy_training(run_dir)
    (log,) = run_dir.glob("*[[]10a*.log")
    shutil.copytree(measured, store)
    merge = ["--in_path", store / "leftouter_ALL.h5", "--out_path", store / "leftouter_MERGED.h5"]
    command = {
        "10c": [MEASURE, *trained.measurement_words(store, TRAINING_LOGPATH=log, STEP=2)],
        "10d": [ANALYSE, *trained.analysis_words(store, TRAINING_LOGPATH=log)],
        "merge": ["skerch", "merge_hdf5", *merge, "--ok_flag", "measured"],
    }[stage]
    disk.fill(leave=8192)
    before = tree(store)
    assert finish(command, output, disk.before) == 1
    assert is_about_space(last_line(output))
    after = tree(store)
    if stage != "10d":  # which may have merged the inner measurements
        assert after == before
    assert {path: after[path] for path in before} == before
    assert not list(store.glob(".*.tmp"))
    disk.empty()
    assert finish(command, output) == 0, output.read_text()


# ---------------------------------------------------------------------------- read-only directory


@pytest.fixture
def read_only(store):
    store.chmod(0o555)
    yield store
    store.chmod(0o755)


def command_of(pipeline, store, stage):
    merge = ["--in_path", store / "inner_ALL.h5", "--out_path", store / "merged.h5"]
    return {
        "10a": [TRAIN, f"OBS_DATASETS={pipeline.datasets}", f"OUTPUT_DIR={store / 'new'}",
                "RECORD_STEPS=[0]", "MAX_STEPS=0", "NUM_HESSIAN_DATAPOINTS=20", "DEVICE=cpu"],
        "10c": [MEASURE, *pipeline.measurement_words(store, STEP=2)],
        "10d": [ANALYSE, *pipeline.analysis_words(store)],
        "merge": ["skerch", "merge_hdf5", *merge],
        "layout": ["skerch", "create_hdf5_layout", "--hdf5dir", store / "new", "--shape", "9,9",
                   "--outer", 2, "--inner", 4],
    }[stage]  # fmt: skip


@pytest.mark.parametrize(
    ("stage", "status", "message"),
    [
        ("10a", 1, "Permission denied"),
        ("10c", 2, "/store: nothing can be written there"),
        ("10d", 2, "/store: nothing can be written there"),
        ("merge", 2, "/store: nothing can be written there"),
        ("layout", 1, "Permission denied"),
    ],
)
def test_a_read_only_directory_is_refused_before_anything_is_done(
    trained, read_only, tmp_path, stage, status, message
):
    before, output = (tree(read_only), tree(trained.root)), tmp_path / "terminal"
    assert finish(command_of(trained, read_only, stage), output, without_privileges) == status
    assert message in last_line(output)
    assert (tree(read_only), tree(trained.root)) == before
