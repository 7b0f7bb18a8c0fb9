"""Monolithic files of another Hessian, or of measurements that were made again since."""

import shutil

import h5py
import numpy as np
import pytest

from applesandoranges.app.log import read_log
from skerch.errors import StoreError
from skerch.store.measurements import DistributedHDF5
from skerch.store.merge import load_merged
from tests import damage
from tests.conftest import ANALYSE
from tests.faults.conftest import results

ALLOWED = {"ALLOW_UNKNOWN_PROVENANCE": True}


@pytest.fixture(scope="module")
def second(trained, tmp_path_factory):
    """A measured store of step 2, and its analysis."""
    store = trained.lay_out(tmp_path_factory.mktemp("second") / "store")
    assert trained.measure(store, STEP=2) == 0
    analysed = store.with_name("analysed")
    shutil.copytree(store, analysed)
    assert trained.analyse(analysed, STEP=2) == 0
    return store, results(trained.logs(ANALYSE)[-1])


def make_foreign(store):
    for path in store.glob("*_0*.h5"):
        damage.without_attributes(path)


@pytest.mark.parametrize("measured_by", ["other tools", "10c"])
def test_a_stale_merge_of_unknown_origin_is_never_taken(trained, store, second, measured_by):
    """Other tools measure step 0, it is analysed, and step 2 is measured into the same store."""
    make_foreign(store)
    assert trained.analyse(store, **ALLOWED) == 0
    for path in second[0].glob("*_0*.h5"):
        shutil.copy(path, store)
    if measured_by == "other tools":
        make_foreign(store)
    assert trained.analyse(store, STEP=2, **ALLOWED) == 0
    log = trained.logs(ANALYSE)[-1]
    assert results(log) == second[1]
    texts = [event.text for event in read_log(log).events if event.header == "WARNING"]
    assert sum(text.endswith("of which Hessian it is; merged anew") for text in texts) == 2


def test_what_is_left_of_an_unknown_store_is_of_the_hessian_that_it_was_taken_for(
    trained, store, analysed, capsys
):
    make_foreign(store)
    assert trained.analyse(store, **ALLOWED, DELETE_MERGED_SUBFILES=True) == 0
    assert trained.analyse(store, **ALLOWED) == 0
    assert results(trained.logs(ANALYSE)[-1]) == analysed
    capsys.readouterr()
    assert trained.analyse(store, STEP=2, **ALLOWED) == 1
    assert "12 of 12 measurements cannot be used: 0-11 (missing)" in capsys.readouterr().err


def test_a_merge_that_does_not_say_what_it_is_of_is_not_taken(trained, store, analysed, capsys):
    """As other tools, or merge_hdf5 without a flag on files of other tools, leave it."""
    assert trained.analyse(store) == 0
    for name in ("inner_MERGED.h5", "leftouter_MERGED.h5"):
        with h5py.File(store / name, "r+") as file:
            file["data"][0] += 1
            for attribute in list(file.attrs):
                del file.attrs[attribute]
    assert trained.analyse(store, **ALLOWED) == 0
    assert results(trained.logs(ANALYSE)[-1]) == analysed


def test_measurements_made_again_since_are_merged_again(trained, store, capsys):
    """Inner and outer measurements must be of the same products."""
    assert trained.analyse(store) == 0
    path = store / "leftouter_0000000001.h5"
    good = DistributedHDF5.load(path)
    changed = good.data * np.float32(1.0001)
    DistributedHDF5.write(path, changed, good.flag, good.provenance)
    capsys.readouterr()
    assert trained.analyse(store) == 0
    assert capsys.readouterr().out.count("were merged before") == 1  # the inner ones
    with load_merged(store / "leftouter_MERGED.h5", "measured") as file:
        np.testing.assert_array_equal(file["data"][:, 1], changed)


def test_a_merge_of_another_kind_is_refused(store, trained, capsys):
    assert trained.analyse(store) == 0
    shutil.copy(store / "inner_MERGED.h5", store / "rightouter_MERGED.h5")
    with (
        pytest.raises(StoreError, match="holds measurements of 'inner', which its name denies"),
        load_merged(store / "rightouter_MERGED.h5", "measured"),
    ):
        pass
