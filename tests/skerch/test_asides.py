"""What a killed process left behind is removed by the next that writes there."""

import os
import subprocess
import sys

import numpy as np
import pytest

from skerch.store.files import replacing
from skerch.store.layout import create_hdf5_layout
from skerch.store.measurements import DistributedHDF5
from skerch.store.merge import merge_all

LEAVE = """
import os, sys
from pathlib import Path
from skerch.store.files import replacing
with replacing(Path(sys.argv[1]), durable=False) as aside:
    aside.write_text("half")
    os._exit(0)
"""


@pytest.fixture
def left_behind(tmp_path):
    """A half-written file beside a store of two measurements."""
    store = tmp_path / "store"
    create_hdf5_layout(store, (3, 3), np.dtype("f4"), 2, 2, symmetric=True)
    for idx in range(2):
        path = DistributedHDF5.subpath(store, "inner_{}.h5", idx)
        values = np.full(2, idx, "f4")
        DistributedHDF5.write(path, values, "measured", {})
    words = [sys.executable, "-c", LEAVE, str(store / "other.h5")]
    subprocess.run(words, check=True, cwd=os.getcwd())
    (left,) = [path for path in store.iterdir() if "other" in path.name]
    return store, left


def test_merging_removes_it(left_behind):
    store, left = left_behind
    merge_all(store / "inner_ALL.h5", store / "inner_MERGED.h5", ok_flag="measured")
    assert not left.exists()
    assert (store / "inner_MERGED.h5").is_file()


def test_what_a_running_process_writes_stays(tmp_path):
    store = tmp_path / "store"
    create_hdf5_layout(store, (3, 3), np.dtype("f4"), 2, 2, symmetric=True)
    for idx in range(2):
        path = DistributedHDF5.subpath(store, "inner_{}.h5", idx)
        DistributedHDF5.write(path, np.zeros(2, "f4"), "measured", {})
    with replacing(store / "other.h5", durable=False) as aside:
        aside.write_text("half")
        merge_all(store / "inner_ALL.h5", store / "inner_MERGED.h5", ok_flag="measured")
        assert aside.exists()
