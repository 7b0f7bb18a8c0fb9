"""The store: layout, atomic writes, provenance, merging, and what it refuses."""

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import h5py
import numpy as np
import pytest

from skerch import INNER_FMT, LO_FMT, RO_FMT
from skerch.store import files, merge
from skerch.store.files import format_indices, remove_stale_asides, replacing
from skerch.store.inspection import inspect_path
from skerch.store.layout import create_hdf5_layout
from skerch.store.measurements import DistributedHDF5
from skerch.store.merge import load_merged, verify_merged
from skerch.store_names import INITIAL_FLAG
from skerch.utils import InputError, NumericalError, StoreError

DIM, NUM = 13, 5
PROVENANCE = {"run": "a", "step": 3}


def matrix(seed=0):
    return np.random.default_rng(seed).standard_normal((DIM, NUM)).astype("float32")


def fill(directory, values, provenance=PROVENANCE, flag="ok", idxs=None):
    for i in range(values.shape[1]) if idxs is None else idxs:
        path = DistributedHDF5.subpath(directory, LO_FMT, i)
        DistributedHDF5.write(path, values[:, i], flag, provenance)


@pytest.fixture
def store(tmp_path):
    directory = tmp_path / "with [brackets] and 'quotes'"
    directory.mkdir()
    return DistributedHDF5.create(directory, LO_FMT, NUM, DIM, np.dtype("float32"))


@pytest.fixture
def full(store):
    fill(store.parent, matrix())
    return store


@pytest.mark.parametrize("provenance", [PROVENANCE, {}], ids=["known", "unknown"])
def test_a_store_says_of_what_its_measurements_are(store, provenance):
    fill(store.parent, matrix(), provenance)
    found = inspect_path(store, "ok")
    assert found["kind"] == "store"
    assert found["states"] == {"ok": NUM}
    assert found.get("provenance", {}) == provenance
    assert ("provenance" in found) == bool(provenance)


def test_files_of_a_store_say_shape_and_dtype(full, tmp_path):
    merged = tmp_path / "merged.h5"
    DistributedHDF5.merge_all(full, merged, "ok")
    for path, shape in ((merged, [DIM, NUM]), (min(full.parent.glob("*_0*.h5")), [DIM])):
        found = inspect_path(path, "ok")
        assert (found["shape"], found["dtype"]) == (shape, "float32")


@pytest.mark.parametrize(
    "change",
    [{"values": matrix(1)}, {"flag": "other"}, {"provenance": PROVENANCE | {"step": 4}}],
    ids=lambda change: next(iter(change)),
)
def test_a_measurement_that_changes_while_it_is_merged_is_named(full, monkeypatch, change):
    """The third one, when five of its thirteen rows have been copied."""
    calls = []

    def examine(file, *args):
        calls.append(file)
        if len(calls) == NUM + 2:
            fill(full.parent, **{"values": matrix(), "idxs": [2]} | change)
        return original(file, *args)

    original = merge.examine
    monkeypatch.setattr(merge, "examine", examine)
    path, out = DistributedHDF5.subpath(full.parent, LO_FMT, 2), full.parent / "merged.h5"
    with pytest.raises(StoreError, match=f"{path.name}: was changed while it was merged"):
        DistributedHDF5.merge_all(full, out, "ok", memory_budget=4 * NUM * 4 * 5)
    assert not out.exists()


def test_a_merged_file_under_the_name_of_another_kind_is_refused(full):
    merged = full.parent / INNER_FMT.format("MERGED")
    DistributedHDF5.merge_all(full, full.parent / LO_FMT.format("MERGED"), "ok")
    (full.parent / LO_FMT.format("MERGED")).rename(merged)
    with pytest.raises(StoreError, match="which its name denies"), load_merged(merged, "ok"):
        pass


def snapshot(directory):
    return {p.name: (p.stat().st_mtime_ns, p.read_bytes()) for p in Path(directory).iterdir()}


def test_names_and_shapes_are_those_other_tools_expect(store):
    names = {p.name for p in store.parent.iterdir()}
    assert names == {"leftouter_ALL.h5"} | {f"leftouter_{i:010d}.h5" for i in range(NUM)}
    with h5py.File(store.parent / "leftouter_0000000002.h5") as file:
        assert file["data"].shape == (DIM,)
        assert file["flags"].shape == (1,)
        assert file["flags"].asstr()[0] == INITIAL_FLAG


def test_virtual_file_shows_all_measurements(full):
    with h5py.File(full) as file:
        np.testing.assert_array_equal(file["data"][:], matrix())
        assert list(file["flags"].asstr()[:]) == ["ok"] * NUM


def test_load_returns_what_was_written(full):
    found = DistributedHDF5.load(DistributedHDF5.subpath(full.parent, LO_FMT, 4))
    np.testing.assert_array_equal(found.data, matrix()[:, 4])
    assert (found.flag, found.provenance) == ("ok", PROVENANCE)


def test_threads_may_write_at_once(tmp_path):
    values = np.arange(40 * 2000, dtype="f4").reshape(2000, 40)
    paths = [tmp_path / f"{i}.h5" for i in range(40)]

    def write(i):
        DistributedHDF5.write(paths[i], values[:, i], "ok", PROVENANCE)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(write, range(40)))
    for i, path in enumerate(paths):
        np.testing.assert_array_equal(DistributedHDF5.load(path).data, values[:, i])


def test_files_that_follow_one_another_do_not_mix(tmp_path):
    """One file in memory serves many measurements, but not those with other facts."""
    facts = [("f4", "ok", PROVENANCE), ("f8", "ok", PROVENANCE), ("f4", "bad", PROVENANCE),
             ("f4", "ok", {"run": "b"})] * 3  # fmt: skip
    for i, (dtype, flag, provenance) in enumerate(facts):
        values = np.full(3 + i % 2, i, dtype)
        DistributedHDF5.write(tmp_path / f"{i}.h5", values, flag, provenance)
    for i, (dtype, flag, provenance) in enumerate(facts):
        found = DistributedHDF5.load(tmp_path / f"{i}.h5", 3 + i % 2, np.dtype(dtype))
        assert found.data.tolist() == [i] * (3 + i % 2)
        assert (found.flag, found.provenance) == (flag, provenance)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite_are_refused_and_the_old_file_stays(full, bad):
    before = snapshot(full.parent)
    values = matrix()[:, 0]
    values[3] = bad
    with pytest.raises(NumericalError, match="1 of 13 values are NaN or infinite"):
        DistributedHDF5.write(
            DistributedHDF5.subpath(full.parent, LO_FMT, 0), values, "ok", PROVENANCE
        )
    assert snapshot(full.parent) == before


def test_failed_write_leaves_the_old_file_and_nothing_else(full, monkeypatch):
    before = snapshot(full.parent)

    def fail(source, target):
        raise OSError("disk trouble")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="disk trouble"):
        fill(full.parent, matrix(1), idxs=[0])
    assert snapshot(full.parent) == before


@pytest.mark.parametrize("budget", [4 * NUM * 4, 5 * 4 * NUM * 4, None])
def test_merge_equals_the_matrix_for_any_budget(full, budget):
    out = full.parent / "merged.h5"
    DistributedHDF5.merge_all(full, out, "ok", PROVENANCE, memory_budget=budget)
    with load_merged(out, "ok", PROVENANCE) as file:
        np.testing.assert_array_equal(file["data"][:], matrix())
        assert file["data"].chunks is None
        assert list(file["flags"].asstr()[:]) == ["ok"] * NUM


def test_merge_with_a_budget_for_no_row_says_what_is_needed(full):
    with pytest.raises(InputError, match="one row needs 20 bytes"):
        DistributedHDF5.merge_all(full, full.parent / "m.h5", "ok", memory_budget=10)


def test_unmeasured_store_merges_into_zeros_that_are_not_taken_for_measurements(store):
    out = DistributedHDF5.merge_all(store, store.parent / "merged.h5")
    with h5py.File(out) as file:
        assert file["data"].shape == (DIM, NUM)
    with pytest.raises(StoreError, match=r"5 of 5 measurements .* 0-4"), load_merged(out, "ok"):
        pass


def test_existing_output_is_replaced_only_when_asked(full):
    out = DistributedHDF5.merge_all(full, full.parent / "merged.h5")
    before = snapshot(full.parent)
    with pytest.raises(InputError, match="exists already"):
        DistributedHDF5.merge_all(full, out)
    assert snapshot(full.parent) == before
    fill(full.parent, matrix(1), {"run": "b"})
    DistributedHDF5.merge_all(full, out, "ok", overwrite=True)
    with load_merged(out, "ok", {"run": "b"}) as file:
        np.testing.assert_array_equal(file["data"][:], matrix(1))


def test_file_that_is_not_a_merged_store_is_never_replaced(full):
    other = full.parent / "thesis.h5"
    other.write_bytes(b"years of work")
    with pytest.raises(InputError, match="not a merged store"):
        DistributedHDF5.merge_all(full, other, overwrite=True)
    assert other.read_bytes() == b"years of work"


def test_delete_subfiles_removes_them_after_success(full):
    out = DistributedHDF5.merge_all(full, full.parent / "m.h5", "ok", delete_subfiles=True)
    assert {p.name for p in full.parent.iterdir()} == {"leftouter_ALL.h5", "m.h5"}
    with load_merged(out, "ok") as file:
        np.testing.assert_array_equal(file["data"][:], matrix())


def replace_h5(path, write):
    path.unlink()
    with h5py.File(path, "w") as file:
        write(file)


def good_flags(file, flag="ok"):
    file.create_dataset("flags", data=[flag], dtype=h5py.string_dtype())


def missing(path):
    path.unlink()


def empty(path):
    path.write_bytes(b"")


def truncated(path):
    path.write_bytes(path.read_bytes()[:700])


def unmeasured(path):
    replace_h5(path, lambda f: (f.create_dataset("data", (DIM,), "f"), good_flags(f, INITIAL_FLAG)))


def stale(path):
    DistributedHDF5.write(path, np.zeros(DIM, "float32"), "ok", {"run": "a", "step": 2})


def other_flag(path):
    DistributedHDF5.write(path, np.zeros(DIM, "float32"), "failed", PROVENANCE)


def other_shape(path):
    DistributedHDF5.write(path, np.zeros(DIM + 1, "float32"), "ok", PROVENANCE)


def other_dtype(path):
    DistributedHDF5.write(path, np.zeros(DIM, "float64"), "ok", PROVENANCE)


def never_written(path):
    def write(file):
        file.create_dataset("data", (DIM,), "f")
        good_flags(file)
        file.attrs["provenance"] = '{"run": "a", "step": 3}'
        file.attrs["kind"], file.attrs["index"] = "leftouter", 2

    replace_h5(path, write)


def external_link(path):
    other = path.with_name("other.h5")
    path.rename(other)

    def write(file):
        file["data"] = h5py.ExternalLink(other.name, "data")
        good_flags(file)

    with h5py.File(path, "w") as file:
        write(file)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (missing, r"2 \(missing\)"),
        (empty, r"2 \(not a readable HDF5 file"),
        (truncated, r"2 \(not a readable HDF5 file"),
        (unmeasured, r"2 \(not measured\)"),
        (stale, r"2 \(of another Hessian: step: expected 3, found 2\)"),
        (other_flag, r"2 \(flag is 'failed' instead of 'ok'\)"),
        (other_shape, r"2 \(expected data of shape \(13,\), found \(14,\)\)"),
        (other_dtype, r"2 \(expected dtype float32, found float64\)"),
        (never_written, r"2 \(flagged, but never written\)"),
        (external_link, r"2 \(data set 'data' is missing or a link"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_merge_refuses_and_lists_the_index(full, damage, message):
    damage(DistributedHDF5.subpath(full.parent, LO_FMT, 2))
    out = full.parent / "merged.h5"
    with pytest.raises(StoreError, match=r"1 of 5 measurements cannot be used: " + message):
        DistributedHDF5.merge_all(full, out, "ok", PROVENANCE)
    assert not out.exists()


@pytest.mark.parametrize("column", [0, 3])
def test_flipped_bit_is_found_at_merge_and_at_load(full, column):
    path = DistributedHDF5.subpath(full.parent, LO_FMT, column)
    content = path.read_bytes()
    begin = content.index(matrix()[:, column].tobytes())
    path.write_bytes(content[: begin + 8] + bytes([content[begin + 8] ^ 1]) + content[begin + 9 :])
    with pytest.raises(StoreError, match=f"checksum does not match for measurements {column}"):
        DistributedHDF5.merge_all(full, full.parent / "merged.h5", "ok", PROVENANCE)
    with pytest.raises(StoreError, match="checksum"):
        DistributedHDF5.load(path)


@pytest.mark.parametrize("ok_flag", ["ok", None], ids=["flag checked", "flag not checked"])
def test_mixture_of_hessians_is_refused_even_without_expectation(full, ok_flag):
    fill(full.parent, matrix(1), {"run": "a", "step": 4}, idxs=[3])
    with pytest.raises(StoreError, match="step: expected 3, found 4"):
        DistributedHDF5.merge_all(full, full.parent / "merged.h5", ok_flag)


def test_failed_merge_leaves_the_old_monolithic_file(full):
    out = DistributedHDF5.merge_all(full, full.parent / "merged.h5", "ok")
    before = out.read_bytes()
    stale(DistributedHDF5.subpath(full.parent, LO_FMT, 1))
    with pytest.raises(StoreError):
        DistributedHDF5.merge_all(full, out, "ok", overwrite=True)
    assert out.read_bytes() == before


def test_more_subfiles_than_the_process_may_open(tmp_path):
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    values = np.random.default_rng(0).standard_normal((4, 300)).astype("float32")
    store = DistributedHDF5.create(tmp_path, LO_FMT, 300, 4, np.dtype("float32"))
    fill(tmp_path, values)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (64, hard))
        out = DistributedHDF5.merge_all(store, tmp_path / "merged.h5", "ok", PROVENANCE)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    with load_merged(out, "ok") as file:
        np.testing.assert_array_equal(file["data"][:], values)


def test_virtual_file_that_points_elsewhere_is_refused(full, tmp_path):
    layout = h5py.VirtualLayout((DIM, 1), "float32")
    layout[:, 0] = h5py.VirtualSource("/etc/secret.h5", "data", (DIM,), "float32")
    with h5py.File(tmp_path / "evil.h5", "w") as file:
        file.create_virtual_dataset("data", layout)
    with pytest.raises(StoreError, match="points outside"):
        DistributedHDF5.load_virtual(tmp_path / "evil.h5")


def foreign(directory, idx):
    """Replace a measurement by one of another tool, without our attributes."""
    path = DistributedHDF5.subpath(directory, LO_FMT, idx)
    replace_h5(path, lambda f: (f.create_dataset("data", data=matrix()[:, idx]), good_flags(f)))


def test_files_of_other_tools_need_permission(full, tmp_path):
    for idx in range(NUM):
        foreign(full.parent, idx)
    refused = DistributedHDF5.analyze_virtual(full, "ok", PROVENANCE)
    assert set(refused.problems.values()) == {"of another Hessian: it does not say of which"}
    allowed = DistributedHDF5.analyze_virtual(full, "ok", PROVENANCE, allow_unknown=True)
    assert not allowed.problems
    out = DistributedHDF5.merge_all(full, tmp_path / "m.h5", "ok", PROVENANCE, allow_unknown=True)
    with load_merged(out, "ok", PROVENANCE, allow_unknown=True) as file:
        np.testing.assert_array_equal(file["data"][:], matrix())
    with pytest.raises(StoreError, match="run: expected 'a'"), load_merged(out, "ok", PROVENANCE):
        pass


def test_files_of_other_tools_do_not_mix_with_ours(full):
    foreign(full.parent, 3)
    report = DistributedHDF5.analyze_virtual(full, "ok", PROVENANCE, allow_unknown=True)
    assert list(report.problems) == [3]


def test_damage_to_a_merged_file_is_found(full, tmp_path):
    out = DistributedHDF5.merge_all(full, tmp_path / "m.h5", "ok")
    verify_merged(out)
    with h5py.File(out, "r+") as file:
        file["data"][7, 2] += 1
    with pytest.raises(StoreError, match="checksum of its data does not match; merge it again"):
        verify_merged(out, memory_budget=100)


def test_a_checksum_does_not_depend_on_the_budget(full, tmp_path):
    out = DistributedHDF5.merge_all(full, tmp_path / "m.h5", "ok", memory_budget=200)
    verify_merged(out, memory_budget=80)


def test_what_a_killed_process_left_behind_is_removed(tmp_path):
    living = replacing(tmp_path / "a.h5")
    with living as aside:
        aside.touch()
        dead = aside.with_name(aside.name.replace(str(os.getpid()), "4194304"))
        elsewhere = aside.with_name(dead.name.replace(files._host(), "other-host"))
        for path in (dead, elsewhere):
            path.touch()
        remove_stale_asides(tmp_path)
        assert {p.name for p in tmp_path.iterdir()} == {aside.name, elsewhere.name}


@pytest.mark.parametrize(
    ("symmetric", "expected"),
    [(True, {"leftouter": LO_FMT, "inner": INNER_FMT}),
     (False, {"leftouter": LO_FMT, "inner": INNER_FMT, "rightouter": RO_FMT})],
)  # fmt: skip
def test_layout_has_the_files_of_a_sketch(tmp_path, symmetric, expected):
    paths = create_hdf5_layout(tmp_path / "m", (9, 9), np.dtype("float64"), 2, 4, symmetric)
    assert {name: path.name for name, path in paths.items()} == {
        name: fmt.format("ALL") for name, fmt in expected.items()
    }
    assert DistributedHDF5.load_virtual(paths["inner"]).shape == (4, 4)
    assert DistributedHDF5.load_virtual(paths["leftouter"]).shape == (9, 2)


@pytest.mark.parametrize(
    ("shape", "outer", "inner", "symmetric"),
    [((9, 9), 5, 4, True), ((9, 9), 2, 10, True), ((9, 9), 0, 4, True), ((9, 8), 2, 4, True)],
    ids=["inner < outer", "inner > D", "no outer", "not square"],
)
def test_impossible_layouts_create_nothing(tmp_path, shape, outer, inner, symmetric):
    with pytest.raises(InputError):
        create_hdf5_layout(tmp_path / "m", shape, np.dtype("f"), outer, inner, symmetric)
    assert not (tmp_path / "m").exists()


def test_layout_refuses_a_directory_with_content(tmp_path):
    (tmp_path / "notes.txt").write_text("keep me")
    with pytest.raises(InputError, match="expected a new or an empty directory"):
        create_hdf5_layout(tmp_path, (9, 9), np.dtype("f"), 2, 4)
    assert [p.name for p in tmp_path.iterdir()] == ["notes.txt"]


@pytest.mark.parametrize(
    ("idxs", "text"), [([0, 1, 2, 5], "0-2, 5"), ([7], "7"), ([3, 1], "1, 3"), ([], "")]
)
def test_format_indices(idxs, text):
    assert format_indices(idxs) == text
