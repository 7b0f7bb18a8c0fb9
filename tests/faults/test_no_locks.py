"""File systems without locks (NFS, Lustre): ``flock`` fails, and nothing here may need it."""

import ast
import os
import re
import shutil
import subprocess
import sys

import pytest

from tests.conftest import ANALYSE, MEASURE, TRAIN
from tests.script_loader import REPOSITORY

FLOCK = "#include <errno.h>\nint flock(int f, int o) { errno = ENOLCK; return -1; }\n"


@pytest.fixture(scope="module")
def without_locks(tmp_path_factory):
    """Environment of a process in which no file can be locked, though HDF5 is told to lock."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None or not sys.platform.startswith("linux"):
        pytest.skip("needs a C compiler, and LD_PRELOAD")
    library = tmp_path_factory.mktemp("locks") / "nolock.so"
    words = [compiler, "-w", "-shared", "-fPIC", "-o", library, "-x", "c", "-"]
    subprocess.run(words, input=FLOCK, text=True, check=True)
    return os.environ | {
        "LD_PRELOAD": str(library), "HDF5_USE_FILE_LOCKING": "TRUE", "OMP_NUM_THREADS": "1",
        "PYTHONPATH": str(REPOSITORY),
    }  # fmt: skip


def run(environment, *words):
    done = subprocess.run(
        [sys.executable, *map(str, words)], cwd=REPOSITORY, env=environment, capture_output=True,
        text=True,
    )  # fmt: skip
    signs_of_life = re.compile(r"\d\d:\d\d:\d\d  .*\n")
    return done.returncode, signs_of_life.sub("", done.stderr)


def test_the_library_forbids_locks(without_locks, tmp_path):
    """Otherwise the other tests would say nothing."""
    code = f"import h5py; h5py.File({str(tmp_path / 'a.h5')!r}, 'w')"
    status, err = run(without_locks, "-c", code)
    assert status != 0
    assert "unable to lock file" in err


def test_layout_and_merge(without_locks, tmp_path):
    store = tmp_path / "store"
    sizes = ["--shape", "9,9", "--outer", 2, "--inner", 4, "--sym"]
    merge = ["--in_path", store / "inner_ALL.h5", "--out_path", store / "inner_MERGED.h5"]
    for words in (["create_hdf5_layout", "--hdf5dir", store, *sizes], ["merge_hdf5", *merge],
                  ["inspect", store]):  # fmt: skip
        assert run(without_locks, "-m", "skerch", *words) == (0, "")


@pytest.mark.slow
def test_training_measurements_and_analysis(without_locks, trained, tmp_path):
    store = trained.lay_out(tmp_path / "store")
    train = [
        f"OBS_DATASETS={trained.datasets}", "RECORD_STEPS=[0]", "MAX_STEPS=0", "DEVICE=cpu",
        "NUM_HESSIAN_DATAPOINTS=20", f"OUTPUT_DIR={tmp_path / 'output'}", "STORE_GRADS=true",
    ]  # fmt: skip
    for words in (
        [TRAIN, *train],
        [MEASURE, *trained.measurement_words(store)],
        [ANALYSE, *trained.analysis_words(store, EIGENVECTORS=2)],
    ):
        assert run(without_locks, *words)[0] == 0


def calls_of_h5py_file(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "h5py.File":
            yield node


@pytest.mark.parametrize("package", ["skerch", "applesandoranges"])
def test_every_file_is_opened_without_a_lock(package):
    found = [
        (path.name, node.lineno, {word.arg: ast.unparse(word.value) for word in node.keywords})
        for path in (REPOSITORY / package).rglob("*.py")
        for node in calls_of_h5py_file(path)
    ]
    assert found
    assert not [call for call in found if call[2].get("locking") != "False"]
