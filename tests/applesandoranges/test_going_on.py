"""What counts as done when an experiment goes on with other settings, or was cut off at its end."""

import json

import h5py
import numpy as np
import pytest
from humanfriendly import format_size

from applesandoranges.analysis.starts import start_options
from applesandoranges.cluster.progress import make_plan, measured_indices
from applesandoranges.cluster.status import print_status
from skerch import BASIS_FMT, LO_FMT
from skerch.store.files import create_h5
from skerch.store.layout import create_hdf5_layout
from skerch.store.measurements import DistributedHDF5
from skerch.store_names import CHECKSUM, PROVENANCE
from tests.applesandoranges.test_progress import started
from tests.conftest import ANALYSE

DIM = 7030
KEYS = {"RECOVERY": "krylov", "NUM_ROUNDS": 2, "BLOCK_SIZE": 6, "SPLITS": "train"}
TRACKED = {"TRACK": "true", "EIGENVECTORS": 2}


@pytest.fixture
def run_dir(trained, tmp_path):
    """The run directory of a training, without later logs."""
    run_dir = tmp_path / "output" / trained.run_dir.name
    trained.copy_training(run_dir)
    return run_dir


@pytest.fixture
def store(tmp_path):
    """Room for rounds of six products."""
    create_hdf5_layout(tmp_path / "store", (DIM, DIM), np.dtype("float32"), 6, 0, symmetric=True)
    return tmp_path / "store"


def eigenvectors_of_step_0(run_dir):
    """Write them; return the name of the start that they are."""
    path = run_dir / f"{run_dir.name}__eigenvectors__step=0__test=False.h5"
    with create_h5(path) as file:
        file["data"] = np.ones((DIM, 2), np.float32)
        file.attrs[CHECKSUM], file.attrs[PROVENANCE] = 1, json.dumps({"step": 0})
    return start_options(str(path), DIM)["start"].name


def measure(store, run_id, step, start):
    """Write the products of a first round, and the block of the second one, of a Hessian."""
    said = {"run_id": run_id, "step": step, "split": "train", "recovery": "krylov",
            "block_size": 6, "round": 0, "start": start}  # fmt: skip
    for idx in range(6):
        path = DistributedHDF5.subpath(store, LO_FMT, idx)
        DistributedHDF5.write(path, np.ones(DIM, np.float32), "measured", said)
    with h5py.File(DistributedHDF5.subpath(store, BASIS_FMT, 1), "w") as file:
        file.attrs[PROVENANCE] = json.dumps(said | {"round": 1})


@pytest.mark.parametrize(
    ("step", "tracked", "said", "there", "counts"),
    [
        (2, False, None, True, True),
        (2, False, "own", True, False),
        (2, True, None, True, False),
        (2, True, "own", True, True),
        (2, True, "other", True, False),
        (2, True, "other", False, True),
        (2, True, None, False, False),
        (0, True, None, True, True),
        (0, True, "own", True, False),
    ],
)
def test_measurements_of_another_start_do_not_count(
    run_dir, store, step, tracked, said, there, counts
):
    name = eigenvectors_of_step_0(run_dir) if there else "x"
    start = name if said == "own" else said
    experiment = started(run_dir, MEAS_DIR=store, **KEYS, **(TRACKED if tracked else {}))
    run_id = make_plan(experiment).training.run_id
    measure(store, run_id, step, start)
    expected = {(step, "train"): {*range(6)}} if counts else {}
    assert measured_indices(experiment, run_id) == expected
    first = make_plan(experiment).tasks[step, "train"]
    assert first == ((0, []) if counts else (0, [1, 2]))


@pytest.mark.parametrize("kept", [False, True], ids=["left", "kept"])
def test_measurements_that_wait_for_the_clean_up_are_named(trained, run_dir, store, capsys, kept):
    """All Hessians are analysed, and the jobs were cut off before the last one."""
    experiment = started(
        run_dir, MEAS_DIR=store, MAX_RECORD_STEP=0, KEEP_MEASUREMENTS=str(kept).lower(), **KEYS
    )
    run_id = make_plan(experiment).training.run_id
    measure(store, run_id, 0, None)
    said = {"run_id": run_id, "step": 0, "split": "train", "recovery": "krylov", "block_size": 6,
            "num_outer": 6, "num_rounds": 2}  # fmt: skip
    events = [["GLOBALS", said], ["INFO", ["Analysis done", {}]]]
    lines = [json.dumps(["2026-01-01_00:00:00.000+0000", event]) for event in events]
    (run_dir / f"x[{ANALYSE}].log").write_text("\n".join(lines))
    capsys.readouterr()
    print_status(experiment, [], "RUN_DIR=[x] ./11m.sh")
    end = capsys.readouterr().out.partition("All Hessians are analysed.\n")[2]
    if kept:
        assert end == ""
        return
    size = format_size(sum(path.stat().st_size for path in store.iterdir()))
    assert end == (
        f"{size} of measurements in {store} wait for the clean-up; this removes them: "
        "RUN_DIR=[x] ./11m.sh\n"
    )
