"""Every writer on a disk without space, or on one that may not have another file."""

import shutil

import pytest

from tests.conftest import ANALYSE, MEASURE, TRAIN
from tests.faults.disks import FewFiles, SmallDisk, is_about_space, last_line, mount, unmount
from tests.faults.processes import finish
from tests.faults.trees import tree

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("faults_full")]

PREPARE, NEXT = "09a_prepare_datasets.py", "10e_next_krylov_block.py"
ROUNDS = {"RECOVERY": "krylov", "NUM_ROUNDS": 2, "BLOCK_SIZE": 6}


@pytest.fixture(params=["space", "inodes"])
def disk(request, tmp_path):
    directory = tmp_path / "disk"
    directory.mkdir()
    mount(directory, "size=24m" if request.param == "space" else "size=200m,nr_inodes=200")
    yield SmallDisk(directory) if request.param == "space" else FewFiles(directory)
    unmount(directory)


@pytest.fixture(scope="module")
def round_0(trained, tmp_path_factory):
    """A store of products of round 0."""
    store = tmp_path_factory.mktemp("rounds") / "store"
    command = ["skerch", "create_hdf5_layout", "--hdf5dir", store, "--shape", "7030,7030",
               "--outer", 6, "--inner", 0, "--sym"]  # fmt: skip
    assert finish(command, store.with_name("terminal")) == 0
    words = {"NUM_OUTER": 6, "NUM_INNER": 12, "MEASUREMENT_IDXS": list(range(6)), "STEP": 2}
    assert trained.measure(store, **words, **ROUNDS) == 0
    return store


def prepared(trained, measured, round_0, directory, writer):
    """Lay out what a writer needs on the disk and return its command."""
    store, run_dir = directory / "store", directory / "run"
    needs = {"10e": round_0, "10c": measured, "10d": measured, "merge": measured}
    if writer in needs:
        shutil.copytree(needs[writer], store)
        trained.copy_training(run_dir)
    log = next(run_dir.glob("*[[]10a*.log"), None)
    here = {"TRAINING_LOGPATH": log, "STEP": 2}
    data = f"OBS_DATASETS={directory / 'data'}"
    return {
        "embedded": [PREPARE, data, "SOURCE=embedded"],
        "synthetic": [PREPARE, data, "SOURCE=synthetic", "DATASETS=[CIFAR10]",
                      "NUM_SYNTHETIC_TRAIN=50", "NUM_SYNTHETIC_TEST=50"],
        "layout": ["skerch", "create_hdf5_layout", "--hdf5dir", store, "--shape", "40,40",
                   "--outer", 20, "--inner", 40, "--sym"],
        "10a": [TRAIN, f"OBS_DATASETS={trained.datasets}", f"OUTPUT_DIR={directory / 'output'}",
                "RECORD_STEPS=[0]", "MAX_STEPS=0", "NUM_HESSIAN_DATAPOINTS=20", "DEVICE=cpu",
                "STORE_GRADS=true", "RANDOM_SEED=1"],
        "10c": [MEASURE, *trained.measurement_words(store, **here)],
        "10d": [ANALYSE, *trained.analysis_words(store, EIGENVECTORS=4, **here | {"STEP": 0})],
        "10e": [NEXT, *trained.recorded_words(MEASUREMENTS_DIR=store, ROUND=0, **here, **ROUNDS)],
        "merge": ["skerch", "merge_hdf5", "--in_path", store / "inner_ALL.h5", "--out_path",
                  store / "inner_MERGED.h5", "--ok_flag", "measured"],
    }[writer]  # fmt: skip


WRITERS = ("embedded", "synthetic", "layout", "10a", "10c", "10d", "10e", "merge")


@pytest.mark.parametrize("leave", [0, 1, 2])
@pytest.mark.parametrize("writer", WRITERS)
def test_a_writer_says_in_one_line_that_the_disk_is_full(
    trained, measured, round_0, disk, tmp_path, writer, leave
):
    command, output = prepared(trained, measured, round_0, disk.directory, writer), tmp_path / "out"
    before = tree(disk.directory)
    disk.fill(leave=leave if isinstance(disk, FewFiles) else leave * 6000)
    status = finish(command, output)
    line = last_line(output)
    assert status == 1 or (leave and status == 0), line
    assert status == 0 or is_about_space(line), line
    after = tree(disk.directory)
    # Nothing that was there has changed but the log that grows, and measurements made so far.
    kept = {path for path in before if path.suffix != ".log" and "_00000" not in path.name}
    assert {path: after[path] for path in kept} == {path: before[path] for path in kept}
    assert not list(disk.directory.rglob(".*.tmp"))
    disk.empty()
    if status == 0:
        return
    for log in disk.directory.glob("output/*/*.log"):
        if "GLOBALS" in log.read_text():  # else the training had not begun
            command.append(f"RESUME={log.parent}")
    assert finish(command, output) == 0, output.read_text()
