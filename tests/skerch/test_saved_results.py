"""Results as operators, and in files: the same numbers again, or one line that says why not."""

from __future__ import annotations

import importlib.metadata
import json
import os

import h5py
import numpy as np
import pytest
import torch

import skerch
from skerch import Eigh, Ssvd, block_krylov, hmt, nystrom, seigh, ssvd
from skerch.__main__ import main as skerch_command
from skerch.core.row_blocks import RowBlocks
from skerch.store.inspection import inspect_path
from skerch.synthmat import SynthMat
from skerch.utils import InputError, StoreError
from tests import damage

F32, F64 = torch.float32, torch.float64
D, H_, W = 60, 25, 18
MATRIX = SynthMat.poly_decay((D, D), 3, 1.0, seed=0)
RECTANGLE = SynthMat.exp_decay((H_, W), 3, 0.3, symmetric=False, seed=1)

RESULTS = {
    "seigh": lambda: seigh(MATRIX, 8),
    "seigh-single": lambda: seigh(MATRIX.float(), 8),
    "hmt": lambda: hmt(MATRIX, 8),
    "nystrom": lambda: nystrom(MATRIX, 8),
    "block_krylov": lambda: block_krylov(MATRIX, 8, 3, 10),
    "truncated": lambda: block_krylov(MATRIX, 8, 3, 10).truncated(3),
    "ssvd": lambda: ssvd(RECTANGLE, 6),
    "ssvd-truncated": lambda: ssvd(RECTANGLE, 6).truncated(2),
}
each_result = pytest.mark.parametrize("make", RESULTS.values(), ids=RESULTS)


def parts(result):
    """Return what unpacking gives, by contract."""
    return tuple(result)


def load_or_message(path):
    try:
        return skerch.load(path), ""
    except StoreError as error:
        return None, str(error)


def one_line(error):
    assert "\n" not in str(error.value)


@each_result
class TestOperators:
    def test_products_are_those_of_the_dense_matrix(self, make, assert_close):
        result = make()
        dense = result.to_dense()
        assert dense.shape == result.shape
        X = torch.ones(result.shape[1], 2, dtype=F64)
        Y = torch.ones(2, result.shape[0], dtype=F64)
        assert_close(result @ X, dense @ X, tol=1e-12)
        assert_close(result @ X[:, 0], dense @ X[:, 0], tol=1e-12)
        assert_close(Y @ result, Y @ dense, tol=1e-12)
        assert_close(Y[0] @ result, Y[0] @ dense, tol=1e-12)
        assert_close(result.T.to_dense(), dense.T, tol=1e-12)
        assert_close(result.T @ Y.T, dense.T @ Y.T, tol=1e-12)
        assert (result @ X.float()).dtype == F32

    def test_unpacking(self, make, assert_close):
        result = make()
        if isinstance(result, Eigh):
            S, V = result
            assert_close((V * S) @ V.T, result.to_dense(), tol=1e-12)
            assert_close(V.T @ V, torch.eye(len(S), dtype=F64), tol=1e-6)
        else:
            U, S, Vh = result
            assert_close((U * S) @ Vh, result.to_dense(), tol=1e-12)
            assert_close(U.T @ U, torch.eye(len(S), dtype=F64), tol=1e-12)
        assert S is result.S

    def test_vectors_of_another_kind_are_refused(self, make):
        result = make()
        n = result.shape[1]
        for X in (np.ones(n), torch.ones(n, dtype=torch.int64), torch.ones(n) * 1j):
            with pytest.raises(InputError, match="expected a torch tensor"):
                result @ X
        with pytest.raises(InputError, match="X has shape"):
            result @ torch.ones(n + 1)

    def test_short_repr_and_provenance(self, make):
        result = make()
        assert repr(result).startswith(f"{type(result).__name__}({result.shape[0]} x ")
        assert len(repr(result)) < 80
        assert {"method", "seed", "dtype"} <= set(result.provenance)
        assert result.num_products > 0

    def test_truncation(self, make, assert_close):
        result = make()
        dense = result.to_dense()
        U, S, Vh = torch.linalg.svd(dense)
        assert_close(result.truncated(2).to_dense(), (U[:, :2] * S[:2]) @ Vh[:2], tol=1e-6)
        with pytest.raises(InputError, match="truncation rank must lie in"):
            result.truncated(len(result.S) + 1)

    def test_saved_and_loaded(self, make, tmp_path):
        result, path = make(), tmp_path / "result.h5"
        result.save(path, provenance={"network": "mlp", "step": 3, "loss": 0.5, "test": True})
        found = skerch.load(path)
        assert type(found) is type(result)
        assert found.shape == result.shape
        for a, b in zip(parts(found), parts(result), strict=True):
            assert torch.equal(a, b)
        assert found.provenance == {
            **result.provenance, "network": "mlp", "step": 3, "loss": 0.5, "test": True,
        }  # fmt: skip
        assert found.num_products == result.num_products
        assert found.diagnostics == result.diagnostics
        assert os.listdir(tmp_path) == ["result.h5"]
        if getattr(result, "residual_norms", None) is not None:
            assert torch.equal(found.residual_norms, result.residual_norms)

    def test_loaded_and_saved_again(self, make, tmp_path):
        result = make()
        result.save(tmp_path / "a.h5")
        skerch.load(tmp_path / "a.h5").save(tmp_path / "b.h5")
        again = skerch.load(tmp_path / "b.h5")
        for a, b in zip(parts(again), parts(result), strict=True):
            assert torch.equal(a, b)
        assert again.provenance == result.provenance

    def test_every_flipped_bit_is_found_or_changes_nothing(self, make, tmp_path):
        """Some bytes of an HDF5 file mean nothing."""
        result, path = make(), tmp_path / "result.h5"
        result.save(path)
        content, expected = path.read_bytes(), parts(result)
        rng = np.random.default_rng(0)
        found = 0
        for at in rng.choice(len(content), 60, replace=False):
            damaged = bytearray(content)
            damaged[at] ^= 1 << rng.integers(8)
            path.write_bytes(damaged)
            loaded, message = load_or_message(path)
            if loaded is None:
                found += 1
                assert str(path) in message
                assert "\n" not in message
            else:
                assert all(torch.equal(a, b) for a, b in zip(loaded, expected, strict=True))
                assert loaded.provenance == result.provenance
        assert found > 0


class TestSaving:
    @pytest.fixture
    def path(self, tmp_path):
        path = tmp_path / "result.h5"
        seigh(MATRIX, 8).save(path)
        return path

    def test_existing_files_are_left_alone_unless_asked(self, path):
        before = path.read_bytes()
        with pytest.raises(InputError, match="exists already; overwrite=True replaces it"):
            seigh(MATRIX, 4).save(path)
        assert path.read_bytes() == before
        seigh(MATRIX, 4).save(path, overwrite=True)
        assert len(skerch.load(path).S) == 4

    def test_a_result_on_disk_replaces_its_own_file(self, path):
        expected = seigh(MATRIX, 8)
        found = skerch.load(path, memory_budget=5000)
        found.save(path, overwrite=True)
        assert torch.equal(skerch.load(path).vectors(), expected.vectors())
        assert torch.equal(found.vectors(), expected.vectors())

    @pytest.mark.parametrize(
        ("name", "message"),
        [("no/where.h5", "its directory does not exist"), ("", "found a directory")],
        ids=["no-directory", "directory"],
    )
    def test_impossible_paths(self, tmp_path, name, message):
        with pytest.raises(InputError, match=message):
            seigh(MATRIX, 4).save(tmp_path / name, overwrite=True)
        assert list(tmp_path.iterdir()) == []

    @pytest.mark.parametrize(
        ("provenance", "message"),
        [
            ({"data": [1, 2]}, r"texts, numbers and truth values by name, got 'data': \[1, 2\]"),
            ({3: "x"}, "by name, got 3: 'x'"),
            ({"seed": 5}, "'seed' is 0 already, got 5; choose another name"),
        ],
        ids=["list", "number-as-name", "hides-the-seed"],
    )
    def test_impossible_provenance(self, tmp_path, provenance, message):
        with pytest.raises(InputError, match=message):
            seigh(MATRIX, 4).save(tmp_path / "r.h5", provenance=provenance)
        assert list(tmp_path.iterdir()) == []

    def test_nothing_is_left_if_writing_fails(self, tmp_path, monkeypatch):
        class Failing(RowBlocks):
            def stored(self, rows):
                raise OSError("No space left on device")

        result = seigh(MATRIX, 4)
        broken = Eigh(result.S, result.U, Failing(result.Y.matrix), result.factor)
        with pytest.raises(OSError, match="No space left"):
            broken.save(tmp_path / "r.h5")
        assert list(tmp_path.iterdir()) == []

    def test_versions_are_written_down(self, path):
        with h5py.File(path) as file:
            assert {"skerch", "torch"} <= set(json.loads(file.attrs["made_with"]))

    def test_vectors_stream_within_the_budget(self, tmp_path):
        """Both ways; ``[D, k]`` is 16 MB, and 2 MB are allowed."""
        dim, k, budget = 100_000, 20, 2_000_000
        Y = torch.from_numpy(np.random.default_rng(0).normal(size=(dim, k)))
        eye = torch.eye(k, dtype=F64)
        widest = []

        class Watched(RowBlocks):
            def stored(self, rows):
                widest.append(rows.stop - rows.start)
                return super().stored(rows)

        path = tmp_path / "r.h5"
        Eigh(torch.arange(k, 0, -1.0).double(), eye, Watched(Y, budget), eye).save(path)
        assert max(widest) * k * 8 * RowBlocks.WORKING_COPIES <= budget
        found = skerch.load(path, memory_budget=budget)
        assert not found.Y.in_memory
        assert found.Y.block_rows * k * 8 * RowBlocks.WORKING_COPIES <= budget
        assert torch.equal(found.vector_rows(torch.tensor([99_999, 3])), Y[[99_999, 3]])
        assert skerch.load(path).Y.in_memory


def loaded_by_blocks(tmp_path):
    path = tmp_path / "result.h5"
    seigh(MATRIX, 8).save(path)
    found = skerch.load(path, memory_budget=5000)
    assert not found.Y.in_memory
    return path, found


@pytest.mark.parametrize("k", [8, 4], ids=["same shape", "other shape"])
def test_a_result_whose_file_was_replaced_is_refused(tmp_path, k):
    path, found = loaded_by_blocks(tmp_path)
    found.vectors()
    seigh(-MATRIX, k).save(path, overwrite=True)
    with pytest.raises(StoreError, match="the file was replaced in the meantime; load it"):
        found.vectors()
    assert len(skerch.load(path).S) == k


def test_a_result_whose_file_was_changed_in_place_is_refused(tmp_path):
    path, found = loaded_by_blocks(tmp_path)
    damage.flipped_bit_of(path, "vectors")
    with pytest.raises(StoreError, match="the checksum of its data does not match"):
        found.vectors()


def test_a_file_that_was_touched_or_copied_back_is_read(tmp_path):
    path, found = loaded_by_blocks(tmp_path)
    expected = seigh(MATRIX, 8).vectors()
    os.utime(path, (1, 1))
    assert torch.equal(found.vectors(), expected)
    content = path.read_bytes()
    path.unlink()
    path.write_bytes(content)
    assert torch.equal(found.vectors(), expected)


def overwrite_dataset(path, name, values):
    with h5py.File(path, "a") as file:
        del file[name]
        file[name] = values


def other_attribute(path, name, value):
    with h5py.File(path, "a") as file:
        file.attrs[name] = value


def without(path, name):
    with h5py.File(path, "a") as file:
        del file[name]


def linked(path):
    with h5py.File(path, "a") as file:
        file.move("vectors", "elsewhere")
        file["vectors"] = h5py.ExternalLink("other.h5", "vectors")


DAMAGED = {
    "missing": (lambda path: path.unlink(), "no such file"),
    "empty": (lambda path: path.write_bytes(b""), "not a readable HDF5 file"),
    "text": (lambda path: path.write_text("hello"), "not a readable HDF5 file"),
    "foreign": (lambda path: path.unlink() or h5py.File(path, "w").close(), "another HDF5 file"),
    "another-kind": (lambda path: other_attribute(path, "kind", "x"), "another HDF5 file"),
    "provenance": (lambda path: other_attribute(path, "provenance", np.bytes_("{}")), "checksum"),
    "provenance-of-another-type": (lambda path: other_attribute(path, "provenance", 3), "checksum"),
    "values": (lambda path: overwrite_dataset(path, "S", np.ones(8)), "checksum"),
    "vectors": (lambda path: overwrite_dataset(path, "vectors", np.ones((60, 8))), "checksum"),
    "fewer-values": (lambda path: overwrite_dataset(path, "S", np.ones(7)), "damaged .*vectors"),
    "single": (
        lambda path: overwrite_dataset(path, "vectors", np.ones((60, 8), "f4")), "of float32"
    ),
    "no-vectors": (lambda path: without(path, "vectors"), "'vectors' is missing"),
    "a-link": (linked, "a link to somewhere else"),
}  # fmt: skip


@pytest.mark.parametrize(("damage", "message"), DAMAGED.values(), ids=DAMAGED)
def test_damaged_files(tmp_path, damage, message):
    path = tmp_path / "result.h5"
    seigh(MATRIX, 8).save(path)
    damage(path)
    with pytest.raises(StoreError, match=message) as error:
        skerch.load(path)
    assert str(path) in str(error.value)
    one_line(error)


def test_a_file_that_vanishes_while_it_is_used(tmp_path):
    path = tmp_path / "result.h5"
    seigh(MATRIX, 8).save(path)
    found = skerch.load(path, memory_budget=5000)
    path.unlink()
    with pytest.raises(StoreError, match="no such file"):
        found.vectors()


def test_singular_vectors_need_memory(tmp_path):
    ssvd(RECTANGLE, 6).save(tmp_path / "r.h5")
    with pytest.raises(InputError, match="need twice 2064 bytes, the memory budget is 4000"):
        skerch.load(tmp_path / "r.h5", memory_budget=4000)
    assert isinstance(skerch.load(tmp_path / "r.h5", memory_budget=5000), Ssvd)


def test_inspect_says_what_a_file_is(tmp_path):
    path = tmp_path / "result.h5"
    seigh(MATRIX, 8).save(path, provenance={"network": "mlp"})
    found = inspect_path(path, "measured", verify=True)
    assert found["kind"] == "skerch eigenpairs 1"
    assert found["shape"] == [60, 8]
    assert found["provenance"]["network"] == "mlp"
    assert found["made_with"]["torch"] == importlib.metadata.version("torch")
    overwrite_dataset(path, "S", np.ones(8))
    with pytest.raises(StoreError, match="checksum"):
        inspect_path(path, "measured", verify=True)


def test_what_cannot_be_verified_is_not_passed_over(tmp_path, capsys):
    foreign, result = tmp_path / "foreign.h5", tmp_path / "result.h5"
    with h5py.File(foreign, "w") as file:
        file["data"] = np.ones(3)
    seigh(MATRIX, 8).save(result)
    assert skerch_command(["inspect", str(foreign)]) == 0
    assert "other HDF5 file" in capsys.readouterr().out
    assert skerch_command(["inspect", str(foreign), "--verify"]) == 2
    assert "found another HDF5 file" in capsys.readouterr().err
    assert skerch_command(["inspect", str(tmp_path), "--verify"]) == 0
    assert "not_verified: expected measurements" in capsys.readouterr().out


def test_inspect_verify_fails_where_something_is_damaged(tmp_path, capsys):
    seigh(MATRIX, 8).save(tmp_path / "result.h5")
    overwrite_dataset(tmp_path / "result.h5", "S", np.ones(8))
    assert skerch_command(["inspect", str(tmp_path)]) == 0
    assert skerch_command(["inspect", str(tmp_path), "--verify"]) == 1
    assert "first_inconsistency" in capsys.readouterr().out
