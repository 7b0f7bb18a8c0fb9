"""Logs, params files and stores in the published format, which carry no provenance."""

import json

import h5py
import numpy as np
import pytest

from applesandoranges.app.log import read_log
from skerch.store.measurements import DistributedHDF5
from tests import damage
from tests.conftest import ANALYSE, MEASURE, Pipeline
from tests.faults.conftest import results
from tests.faults.trees import tree

OURS = {
    "run_id",
    "made_with",
    "data_source",
    "data_files",
    "H_train_sha256",
    "H_test_sha256",
    "RESUME",
}
ALLOWED = {"ALLOW_UNKNOWN_PROVENANCE": True}


@pytest.fixture
def published(trained, tmp_path):
    """Words for log and params file as other software writes them: without what we add."""
    directory = tmp_path / "published"
    directory.mkdir()
    log, params = directory / trained.log.name, directory / trained.params.name
    with log.open("w") as file:
        for line in trained.log.read_text().splitlines():
            stamp, (header, body) = json.loads(line)
            if header in ("CONFIG", "GLOBALS"):
                body = {name: value for name, value in body.items() if name not in OURS}
            file.write(json.dumps([stamp, [header, body]]) + "\n")
    with h5py.File(trained.params) as ours, h5py.File(params, "w") as file:
        file.create_dataset("data", data=ours["data"][:], compression="lzf", chunks=(7030, 1))
        file.create_dataset("data_idxs", data=ours["data_idxs"][:])
        texts = ["{'step': 0}", "{'step': 2}"]
        file.create_dataset("metadata", data=texts, dtype=h5py.string_dtype())
    return {"TRAINING_LOGPATH": log, "PARAMS_PATH": params}


@pytest.fixture
def foreign(store):
    """A store as other software writes it."""
    for path in store.glob("*_0*.h5"):
        damage.without_attributes(path)
    return store


def warnings_of(directory, script):
    log = max(path for path in directory.iterdir() if f"[{script}]" in path.name)
    return [event.text for event in read_log(log).events if event.header == "WARNING"]


def test_10c_needs_permission_for_a_published_log(store, trained, published, capsys):
    before = tree(store.parent)
    assert trained.measure(store, **published) == 2
    err = capsys.readouterr().err
    assert "do not say of which run they are; ALLOW_UNKNOWN_PROVENANCE=true takes them" in err
    assert err.count("\n") == 1
    assert tree(store.parent) == before


def test_10c_and_10d_with_a_published_log_give_our_numbers(store, trained, published, analysed):
    directory = published["TRAINING_LOGPATH"].parent
    assert trained.measure(store, **published, **ALLOWED) == 0
    assert trained.analyse(store, **published, **ALLOWED) == 0
    for script in (MEASURE, ANALYSE):
        (warning,) = warnings_of(directory, script)
        assert warning.endswith("do not say of which run they are")
    found = results(max(directory.glob(f"*[[]{ANALYSE[:3]}*")))
    assert found == analysed


@pytest.mark.parametrize("log_of", ["ours", "published"])
def test_10d_needs_permission_for_a_store_of_other_tools(
    foreign, trained, published, capsys, log_of
):
    before = tree(foreign.parent), tree(trained.run_dir)
    assert trained.analyse(foreign, **(published if log_of == "published" else {})) != 0
    err = capsys.readouterr().err
    assert "do not say of which" in err
    assert "ALLOW_UNKNOWN_PROVENANCE=true takes them on trust" in err
    assert err.count("\n") == 1
    assert (tree(foreign.parent), tree(trained.run_dir)) == before


@pytest.mark.parametrize("log_of", ["ours", "published"])
def test_10d_with_a_store_of_other_tools_gives_our_numbers(
    foreign, trained, published, analysed, log_of
):
    words = published if log_of == "published" else {"TRAINING_LOGPATH": trained.log}
    assert trained.analyse(foreign, **words, **ALLOWED) == 0
    directory = words["TRAINING_LOGPATH"].parent
    texts = warnings_of(directory, ANALYSE)
    assert sum("the measurements do not say of which Hessian" in text for text in texts) == 2
    assert results(max(directory.glob(f"*[[]{ANALYSE[:3]}*"))) == analysed


def remeasured(directory):
    """Return what the latest analysis says about measurements that it made again."""
    log = max(path for path in directory.iterdir() if f"[{ANALYSE}]" in path.name)
    return [event for event in read_log(log).events if event.text.startswith("Some measurements")]


def test_10d_makes_measurements_of_other_tools_again_and_says_so(foreign, trained):
    assert trained.analyse(foreign, **ALLOWED, DELETE_MERGED_SUBFILES=True) == 0
    (event,) = remeasured(trained.run_dir)
    assert event.body["idxs"] == [0, 5, 11]
    assert 0 <= event.body["largest_relative_difference"] < 1e-5
    assert event.body["allowed"] == 1e-2
    # Again, with nothing left but the monolithic files.
    assert trained.analyse(foreign, **ALLOWED) == 0
    assert [event.body for event in remeasured(trained.run_dir)] == [event.body]


def test_10d_does_not_measure_again_what_says_where_it_is_from(store, trained):
    assert trained.analyse(store, **ALLOWED) == 0
    assert not remeasured(trained.run_dir)


def assert_refused(trained, store, file, capsys):
    """Ended by one line that names the file, and nothing changed."""
    before = tree(store.parent), tree(trained.run_dir)
    capsys.readouterr()
    assert trained.analyse(store, **ALLOWED) == 2
    err = capsys.readouterr().err
    assert f"{store / file}: these are measurements of another Hessian: number" in err
    assert "step 0, train, expected at most 0.01; give STEP, TEST_HESSIAN" in err
    assert err.count("\n") == 1
    assert (tree(store.parent), tree(trained.run_dir)) == before


@pytest.fixture(params=["split", "step", "seed"])
def other(request, trained, digits, tmp_path):
    """A store of another Hessian, as other software writes it."""
    changes = {"split": {"TEST_HESSIAN": True}, "step": {"STEP": 2}, "seed": {}}[request.param]
    pipeline = trained
    if request.param == "seed":
        pipeline = Pipeline(tmp_path / "seed", digits, 6, 12, record=(0,), seed=54321)
        assert pipeline.train() == 0
    (tmp_path / "other").mkdir()
    directory = pipeline.lay_out(f"other_{request.param}")
    directory = directory.rename(tmp_path / "other" / directory.name)
    assert pipeline.measure(directory, **changes) == 0
    for path in directory.glob("*_0*.h5"):
        damage.without_attributes(path)
    return directory


def test_10d_refuses_a_store_of_another_hessian_even_with_permission(other, trained, capsys):
    assert_refused(trained, other, "inner_ALL.h5", capsys)


def test_10d_refuses_it_once_it_is_merged_too(other, trained, capsys):
    for name in ("inner", "leftouter"):
        DistributedHDF5.merge_all(other / f"{name}_ALL.h5", other / f"{name}_MERGED.h5", "measured")
    assert_refused(trained, other, "inner_ALL.h5", capsys)


def change(path, new_values):
    good = DistributedHDF5.load(path)
    DistributedHDF5.write(path, new_values(good.data), good.flag, {})
    damage.without_attributes(path)


@pytest.mark.parametrize(
    "file", ["leftouter_0000000000", "leftouter_0000000005", "inner_0000000000", "inner_0000000011"]
)
def test_both_ends_of_either_file_are_made_again(foreign, trained, capsys, file):
    change(foreign / f"{file}.h5", np.zeros_like)
    assert_refused(trained, foreign, f"{file.partition('_')[0]}_ALL.h5", capsys)


def test_round_off_is_allowed_and_no_more(foreign, trained, capsys):
    path = foreign / "leftouter_0000000005.h5"
    change(path, lambda data: data * np.float32(1.003))
    assert trained.analyse(foreign, **ALLOWED) == 0
    (event,) = remeasured(trained.run_dir)
    assert event.body["largest_relative_difference"] == pytest.approx(3e-3, rel=1e-2)
    for merged in foreign.glob("*_MERGED.h5"):
        merged.unlink()
    change(path, lambda data: data * np.float32(1.02))
    assert_refused(trained, foreign, "leftouter_ALL.h5", capsys)


def test_other_tools_read_our_store(store):
    """As published software does: through the virtual file, by names alone."""
    with h5py.File(store / "leftouter_ALL.h5") as file:
        assert file["data"].shape == (7030, 6)
        assert set(file["flags"].asstr()[:]) == {"measured"}
        assert np.abs(file["data"][:]).max(0).all()


def test_foreign_measurements_among_ours_are_refused_even_with_permission(store, trained, capsys):
    damage.without_attributes(store / "leftouter_0000000003.h5")
    before = tree(store)
    assert trained.analyse(store, **ALLOWED) == 1
    assert "1 of 6 measurements cannot be used: 3 (of another Hessian" in capsys.readouterr().err
    assert tree(store) == before
