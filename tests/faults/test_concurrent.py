"""Processes that measure and merge the same store at the same time."""

import shutil
from functools import partial

import numpy as np
import pytest
import torch

from skerch.__main__ import main as skerch
from skerch.store.measurements import DistributedHDF5
from skerch.store.merge import load_merged, verify_merged
from tests import damage
from tests.conftest import ANALYSE, MEASURE, Pipeline
from tests.faults.conftest import results
from tests.faults.processes import SAME_NUMBERS, start, start_together
from tests.faults.trees import tree

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("faults_concurrent")]

OUTER, INNER = 60, 120


@pytest.fixture(scope="module")
def pipeline(trained, tmp_path_factory):
    """More measurements than those of the trained run, so that they take a while."""
    pipeline = Pipeline(tmp_path_factory.mktemp("concurrent"), trained.datasets, OUTER, INNER)
    trained.copy_training(pipeline.root / "output" / trained.run_dir.name)
    return pipeline


@pytest.fixture(scope="module")
def one_thread():
    """As in the processes that are started: sums over more threads end in other digits."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def stores(pipeline, one_thread):
    """The measured stores of steps 0 and 2."""
    found = {}
    for step in (0, 2):
        found[step] = pipeline.lay_out(f"step{step}")
        assert pipeline.measure(found[step], STEP=step, **SAME_NUMBERS) == 0
    return found


def columns(store, name="leftouter"):
    layout = DistributedHDF5.load_virtual(store / f"{name}_ALL.h5")
    return np.stack([DistributedHDF5.load(path).data for path in layout.subpaths], axis=1)


def merge_words(store, out, name="leftouter"):
    words = ["--in_path", store / f"{name}_ALL.h5", "--out_path", out, "--ok_flag", "measured"]
    return ["merge_hdf5", *map(str, words)]


def test_two_processes_measure_the_same_indices(pipeline, stores, tmp_path):
    store = tmp_path / "store"
    shutil.copytree(stores[2], store)  # stale: each process has to replace every measurement
    words = [MEASURE, *pipeline.measurement_words(store, STEP=0, **SAME_NUMBERS)]
    processes = start_together([words, words], tmp_path)
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0]
    for name in ("leftouter", "inner"):
        np.testing.assert_array_equal(columns(store, name), columns(stores[0], name))
    report = DistributedHDF5.analyze_virtual(store / "inner_ALL.h5", "measured")
    assert (len(report.measured), report.provenance["step"]) == (INNER, 0)
    assert len(list(store.iterdir())) == len(list(stores[0].iterdir()))


def test_one_merges_while_another_measures(pipeline, stores, tmp_path, capsys):
    """A merge gives the Hessian of before or the one of after, or it is refused."""
    store = tmp_path / "store"
    shutil.copytree(stores[2], store)
    words = [MEASURE, *pipeline.measurement_words(store, STEP=0, **SAME_NUMBERS)]
    expected = {step: columns(stores[step]) for step in stores}
    process, merges = start(words, tmp_path / "terminal"), []
    alive = True
    while alive:
        alive = process.is_alive()  # so that one merge comes after the last measurement
        out = tmp_path / f"merged{len(merges)}.h5"
        status = skerch(merge_words(store, out))
        if status == 0:
            with load_merged(out, "measured") as file:
                data = file["data"][:]
            merges.append(next(s for s in expected if np.array_equal(expected[s], data)))
            verify_merged(out)
        else:
            assert status == 1
            assert not out.exists()
            err = capsys.readouterr().err
            assert "of another Hessian: " in err or "was changed while it was merged" in err
            merges.append("refused")
    process.join()
    assert process.exitcode == 0
    assert merges[-1] == 0
    assert "refused" in merges


@pytest.mark.parametrize("round_", range(3))
def test_two_merges_at_once_give_one_right_file(stores, tmp_path, round_):
    """Both see that there is no file yet; the second one must not replace that of the first."""
    store, out = tmp_path / "store", tmp_path / "merged.h5"
    shutil.copytree(stores[0], store)
    before = tree(store)
    # The second store is another Hessian: who comes first is right, the other one is refused.
    commands = [["skerch", *merge_words(path, out)] for path in (store, stores[2])]
    processes = start_together(commands, tmp_path)
    for process in processes:
        process.join()
    assert sorted(process.exitcode for process in processes) == [0, 2]
    winner = stores[0] if processes[0].exitcode == 0 else stores[2]
    with load_merged(out, "measured") as file:
        np.testing.assert_array_equal(file["data"][:], columns(winner))
    verify_merged(out)
    assert tree(store) == before
    assert not list(tmp_path.glob(".*.tmp"))


def test_two_analyses_at_once(pipeline, stores, tmp_path):
    store = tmp_path / "store"
    shutil.copytree(stores[0], store)
    words = [ANALYSE, *pipeline.analysis_words(store, **SAME_NUMBERS)]
    processes = start_together([words, words], tmp_path)
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0]
    first, second = (results(log) for log in pipeline.logs(ANALYSE)[-2:])
    assert first == second
    for name in ("inner", "leftouter"):
        verify_merged(store / f"{name}_MERGED.h5")


@pytest.mark.parametrize(
    "harm",
    [damage.missing, damage.empty, partial(damage.flipped_bit, seed=1)],
    ids=["missing", "empty", "flipped bit"],
)
def test_two_processes_repair_the_same_measurement(pipeline, stores, tmp_path, harm):
    store = tmp_path / "store"
    shutil.copytree(stores[0], store)
    harm(store / "leftouter_0000000005.h5")
    words = [MEASURE, *pipeline.measurement_words(store, **SAME_NUMBERS)]
    processes = start_together([words, words], tmp_path)
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0]
    np.testing.assert_array_equal(columns(store), columns(stores[0]))


@pytest.mark.parametrize("allowed", [False, True], ids=["ours", "of other tools"])
def test_two_analyses_while_a_third_job_measures(pipeline, stores, tmp_path, allowed):
    """Each gives the Hessian that it was asked for, or says in one line why it cannot."""
    expected = {}
    for step, source in stores.items():
        store = tmp_path / f"undisturbed{step}"
        shutil.copytree(source, store)
        assert pipeline.analyse(store, STEP=step, **SAME_NUMBERS) == 0
        expected[step] = results(pipeline.logs(ANALYSE)[-1])
    store = tmp_path / "store"
    shutil.copytree(stores[0], store)
    if allowed:
        for path in store.glob("*_0*.h5"):
            damage.without_attributes(path)
    words = {"ALLOW_UNKNOWN_PROVENANCE": allowed, **SAME_NUMBERS}
    commands = [
        [ANALYSE, *pipeline.analysis_words(store, **words)],
        [ANALYSE, *pipeline.analysis_words(store, STEP=2, **words)],
        [MEASURE, *pipeline.measurement_words(store, STEP=2, **SAME_NUMBERS)],
    ]
    before = set(pipeline.logs(ANALYSE))
    processes = start_together(commands, tmp_path)
    for process in processes:
        process.join()
    assert processes[2].exitcode == 0
    for number, process in enumerate(processes[:2]):
        if process.exitcode != 0:
            text = (tmp_path / f"terminal{number}").read_text()
            assert "Traceback" not in text
            assert text.splitlines()[-1].startswith(f"{ANALYSE}: ")
    for log in set(pipeline.logs(ANALYSE)) - before:
        if "Analysis done" in log.read_text():
            step = 2 if "__step=2__" in log.name else 0
            assert results(log) == expected[step]
    assert pipeline.analyse(store, STEP=2, **SAME_NUMBERS) == 0
    assert results(pipeline.logs(ANALYSE)[-1]) == expected[2]
