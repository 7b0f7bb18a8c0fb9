"""Damaged measurements and stores: 10d and merge refuse them, 10c measures them again."""

import json
import os
import shutil
from functools import partial

import numpy as np
import pytest

from skerch.__main__ import main as skerch
from skerch.store.measurements import DistributedHDF5
from tests import damage
from tests.faults.trees import tree

IDX = 2
OUTER, INNER = (f"{name}_{IDX:010d}.h5" for name in ("leftouter", "inner"))
NOT_HDF5 = r"not a readable HDF5 file"

#: Damage, and what is said about measurement 2.
CASES = {
    "missing": (damage.missing, "missing"),
    "empty": (damage.empty, NOT_HDF5),
    "other shape": (damage.other_shape, "expected data of shape"),
    "other dtype": (damage.other_dtype, "expected dtype float32, found float64"),
    "other run": (damage.other_run, "of another Hessian: run_id: expected"),
    "never written": (damage.never_written, "flagged, but never written"),
    "external link": (damage.external_link, "data set 'data' is missing or a link"),
    "copy of another": (damage.copy_of_another, "holds measurement 3 of "),
    "without place": (damage.without_place, "does not say which measurement it holds"),
}
TRUNCATED = {f"truncated {i}": (partial(damage.truncated, seed=i), NOT_HDF5) for i in range(10)}
FLIPPED = {f"flipped bit {i}": (partial(damage.flipped_bit, seed=i), "") for i in range(3)}


def parametrise(cases):
    return pytest.mark.parametrize(("harm", "message"), cases.values(), ids=cases.keys())


@pytest.mark.parametrize("name", [OUTER, INNER])
@parametrise(CASES | TRUNCATED)
def test_merge_refuses_and_lists_the_index(store, capsys, name, harm, message):
    harm(store / name)
    before, fmt = tree(store), name.partition("_")[0]
    words = ["--in_path", f"{store}/{fmt}_ALL.h5", "--out_path", f"{store}/{fmt}_MERGED.h5"]
    assert skerch(["merge_hdf5", *words, "--ok_flag", "measured"]) == 1
    err = capsys.readouterr().err
    assert f"measurements cannot be used: {IDX} ({message}" in err
    assert err.count("\n") == 1
    assert tree(store) == before


@pytest.mark.parametrize("name", [OUTER, INNER])
@parametrise(FLIPPED)
def test_merge_finds_a_flipped_bit(store, capsys, name, harm, message):
    harm(store / name)
    before, fmt = tree(store), name.partition("_")[0]
    words = ["--in_path", f"{store}/{fmt}_ALL.h5", "--out_path", f"{store}/{fmt}_MERGED.h5"]
    assert skerch(["merge_hdf5", *words, "--ok_flag", "measured"]) == 1
    assert f"the checksum does not match for measurements {IDX}." in capsys.readouterr().err
    assert tree(store) == before


@parametrise(CASES | {"truncated": TRUNCATED["truncated 0"]})
def test_10d_refuses_and_changes_nothing(trained, store, capsys, harm, message):
    harm(store / OUTER)
    before = tree(store), tree(trained.run_dir)
    assert trained.analyse(store) == 1
    err = capsys.readouterr().err
    assert f"1 of 6 measurements cannot be used: {IDX} ({message}" in err
    assert err.count("\n") == 1
    assert (tree(store), tree(trained.run_dir)) == before


def test_measurements_that_changed_places_are_found(trained, measured, store, capsys):
    """By merge, 10d and inspect; 10c measures them again."""
    for name in (OUTER, INNER):
        damage.changed_places(store / name)
    before = tree(store), tree(trained.run_dir)
    merge = ["--in_path", f"{store}/inner_ALL.h5", "--out_path", f"{store}/merged.h5"]
    for words in (merge, [*merge, "--ok_flag", "measured"]):
        assert skerch(["merge_hdf5", *words]) == 1
        assert "holds measurement 3 of 'inner' instead" in capsys.readouterr().err
    assert trained.analyse(store) == 1
    assert "2 of 12 measurements cannot be used: 2 (holds measurement 3 of" in (
        capsys.readouterr().err
    )
    assert skerch(["inspect", str(store), "--json"]) == 0
    states = json.loads(capsys.readouterr().out)["leftouter_ALL.h5"]
    assert states["first_inconsistency"].startswith("measurement 2: holds measurement 3 of")
    assert (tree(store), tree(trained.run_dir)) == before
    assert trained.measure(store) == 0
    assert "2 measured, indices 2 ... 3" in capsys.readouterr().out
    found, expected = (DistributedHDF5.load(where / OUTER) for where in (store, measured))
    np.testing.assert_allclose(found.data, expected.data, rtol=1e-4, atol=1e-8)


@pytest.mark.parametrize(
    ("order", "message"),
    [
        ([1, 0, *range(2, 12)], "column 0 is 'inner_0000000001.h5', expected measurement 0"),
        ([0, 0, *range(2, 12)], "column 1 is 'inner_0000000000.h5', expected measurement 1"),
    ],
    ids=["changed places", "twice"],
)
def test_the_columns_of_a_virtual_file_are_those_of_their_numbers(
    trained, store, capsys, order, message
):
    damage.other_order(store / "inner_ALL.h5", order)
    before = tree(store), tree(trained.run_dir)
    merge = ["--in_path", f"{store}/inner_ALL.h5", "--out_path", f"{store}/merged.h5"]
    assert trained.measure(store) == 1
    assert trained.analyse(store) == 1
    assert skerch(["merge_hdf5", *merge]) == 1
    assert [message in line for line in capsys.readouterr().err.splitlines()] == [True] * 3
    assert (tree(store), tree(trained.run_dir)) == before


def test_the_virtual_file_of_another_kind_is_refused(trained, store, capsys):
    """Outer for inner measurements of an operator whose sketch is as large as itself."""
    shutil.copy(store / "inner_ALL.h5", store / "leftouter_ALL.h5")
    assert skerch(["inspect", str(store / "leftouter_ALL.h5")]) == 1
    message = "holds measurements of 'inner', which its name denies"
    assert message in capsys.readouterr().err
    assert trained.measure(store) == 1
    assert message in capsys.readouterr().err
    (store / "leftouter_ALL.h5").rename(store / "other.h5")
    assert trained.analyse(store, OUTER_VIRTUAL=store / "other.h5") == 1
    assert "expected measurements of 'leftouter', not 'inner'" in capsys.readouterr().err


def test_10d_finds_a_flipped_bit_and_keeps_the_old_merge(trained, store, capsys):
    merged = store / "leftouter_MERGED.h5"
    assert skerch(["merge_hdf5", "--in_path", f"{store}/leftouter_ALL.h5",
                   "--out_path", str(merged)]) == 0  # fmt: skip
    assert trained.measure(store, STEP=2) == 0
    damage.flipped_bit(store / OUTER)
    before = merged.read_bytes()
    capsys.readouterr()
    assert trained.analyse(store, STEP=2) == 1
    assert f"the checksum does not match for measurements {IDX}." in capsys.readouterr().err
    assert merged.read_bytes() == before
    assert not list(store.glob(".*.tmp"))


@pytest.mark.parametrize(
    ("name", "harm"),
    [
        *(pytest.param(OUTER, harm, id=f"outer {what}")
          for what, (harm, _) in (CASES | FLIPPED).items()),
        pytest.param(INNER, TRUNCATED["truncated 1"][0], id="inner truncated"),
        pytest.param(INNER, damage.missing, id="inner missing"),
        *(pytest.param(OUTER, harm, id=f"outer {what}", marks=pytest.mark.slow)
          for what, (harm, _) in TRUNCATED.items()),
    ],
)  # fmt: skip
def test_10c_measures_it_again(trained, measured, store, capsys, name, harm):
    harm(store / name)
    untouched = {p: v for p, v in tree(store).items() if p.name not in (OUTER, INNER)}
    assert trained.measure(store) == 0
    out = capsys.readouterr().out
    assert "11 measurements are done already" in out
    assert "1 measured, indices" in out
    for file in (OUTER, INNER):
        found, expected = (DistributedHDF5.load(where / file) for where in (store, measured))
        np.testing.assert_allclose(found.data, expected.data, rtol=1e-4, atol=1e-8)
        assert (found.flag, found.provenance) == (expected.flag, expected.provenance)
    assert {p: v for p, v in tree(store).items() if p.name not in (OUTER, INNER)} == untouched


def test_read_only_measurements_are_read_and_replaced_only_where_they_are_stale(
    trained, store, analysed
):
    for path in store.iterdir():
        path.chmod(0o444)
    before = tree(store)
    assert trained.measure(store) == 0
    assert tree(store) == before
    damage.other_run(store / OUTER)
    (store / OUTER).chmod(0o444)
    assert trained.measure(store) == 0
    assert trained.analyse(store) == 0
    assert {p for p, v in tree(store).items() if before.get(p) != v} == {
        store / name for name in (OUTER, INNER, "inner_MERGED.h5", "leftouter_MERGED.h5")
    }


@pytest.mark.parametrize(
    "source", ["../elsewhere/inner_{:010d}.h5", "/elsewhere/inner_{:010d}.h5"],
    ids=["beside", "absolute"],
)  # fmt: skip
def test_a_virtual_file_that_points_elsewhere_is_refused(trained, store, capsys, source):
    shutil.copytree(store, store.with_name("elsewhere"))
    damage.points_elsewhere(store / "inner_ALL.h5", source)
    before = tree(store.parent), tree(trained.run_dir)
    merge = ["--in_path", f"{store}/inner_ALL.h5", "--out_path", f"{store}/merged.h5"]
    assert trained.measure(store) == 1
    assert trained.analyse(store) == 1
    assert skerch(["merge_hdf5", *merge]) == 1
    message = "inner_ALL.h5: data set 'data' points outside its directory"
    assert [message in line for line in capsys.readouterr().err.splitlines()] == [True] * 3
    assert (tree(store.parent), tree(trained.run_dir)) == before


def test_absolute_paths_into_its_own_directory_are_fine(store):
    before = DistributedHDF5.load_virtual(store / "inner_ALL.h5")
    damage.points_elsewhere(store / "inner_ALL.h5", f"{store}{os.sep}inner_{{:010d}}.h5")
    assert DistributedHDF5.load_virtual(store / "inner_ALL.h5").subpaths == before.subpaths
