"""Eigenspaces of two steps: closed forms and SciPy on dense matrices; their files."""

import json
import re

import h5py
import numpy as np
import pytest
import torch
from scipy.linalg import subspace_angles

from applesandoranges.analysis.eigenspaces import (
    EigenvectorFiles,
    compare_eigenspaces,
    keep_eigenvectors,
)
from applesandoranges.analysis.starts import start_options
from applesandoranges.app import events
from applesandoranges.subspaces.angles import principal_angles_of_ranks
from skerch.decompositions import seigh
from skerch.errors import InputError, StoreError
from skerch.synthmat import SynthMat
from skerch.utils import gaussian_noise
from tests import damage
from tests.skerch.test_measurement_store import snapshot

pytestmark = pytest.mark.numerical

D, N = 60, 10
SHAPES = {"0.weight": [4, 2, 6], "0.bias": [11], "scale": []}
FACTS = {
    "run_id": "a", "problem": "p", "split": "test", "data_sha256": "d", "params_sha256": "x",
}  # fmt: skip
SEIGH = {"recovery": "seigh", "num_outer": 10, "num_inner": 20, "seed_psi": 7, "dtype": "float32"}
KRYLOV = {"recovery": "krylov", "num_outer": 10, "block_size": 5, "num_rounds": 4, "seed_psi": 7}


@pytest.fixture(scope="module", params=[None, 40_000], ids=["one block", "several blocks"])
def eigh(request):
    op = SynthMat.exp_decay((D, D), 4, 0.2, seed=3, psd=False)
    return seigh(op, N, 2 * N, seed=1, memory_budget=request.param)


@pytest.fixture(scope="module")
def other():
    return torch.linalg.qr(gaussian_noise((D, N), 5)).Q


def files(directory, step, recovery=SEIGH, state_hash=None, **changes):
    facts = FACTS | {"step": step} | changes
    return EigenvectorFiles(directory, facts, SHAPES, recovery, state_hash)


def test_vectors_are_shown_by_parameter_name_and_shape(tmp_path, eigh):
    path = files(tmp_path, 0).save(eigh, 3)
    moved = path.rename(tmp_path / "elsewhere.h5")
    V = eigh.vectors(3).float().numpy()
    with h5py.File(moved) as file:
        shown = {name: file[f"parameters/{name}"][...] for name in SHAPES}
    assert {name: list(values.shape[:-1]) for name, values in shown.items()} == SHAPES
    flat = [values.reshape(-1, 3) for values in shown.values()]
    np.testing.assert_array_equal(np.concatenate(flat), V)


@pytest.mark.parametrize("k", [1, 4, N])
def test_overlap_and_angles_of_two_eigenspaces(eigh, other, k):
    (body,) = compare_eigenspaces(eigh, {7: other}, [1, 4, N])
    V = eigh.vectors()
    expected = subspace_angles(V[:, :k].numpy(), other[:, :k].numpy())
    assert body["other_step"] == 7
    assert float(body["frob_VtV^2"][k - 1]) == pytest.approx(np.sum(np.cos(expected) ** 2))
    np.testing.assert_allclose(body["principal_angles"][str(k)], expected[::-1], atol=1e-7)


def test_an_eigenspace_overlaps_wholly_with_itself(eigh):
    (body,) = compare_eigenspaces(eigh, {0: eigh.vectors()}, [N])
    np.testing.assert_allclose(body["frob_VtV^2"], np.arange(1, N + 1), rtol=1e-12)
    assert body["principal_angles"][str(N)].max() < 1e-6


def test_fewer_vectors_on_one_side_end_the_curve(eigh, other):
    (body,) = compare_eigenspaces(eigh, {0: other[:, :4]}, [2, N])
    assert len(body["frob_VtV^2"]) == 4
    assert list(body["principal_angles"]) == ["2"]


def test_angles_of_a_rotation_are_that_of_the_rotation():
    t = torch.tensor([0.1, 0.4, 1.2], dtype=torch.float64)
    found = principal_angles_of_ranks(torch.diag(t.cos()), [1, 3])
    np.testing.assert_allclose(found["3"], t)
    np.testing.assert_allclose(found["1"], t[:1])


def test_files_hold_vectors_and_are_found_by_other_steps(eigh, other, tmp_path):
    first, *none = keep_eigenvectors(files(tmp_path, 0), eigh, 6)
    assert first["eigenvectors"] == 6
    assert not none
    with h5py.File(first["eigenvectors_path"]) as file:
        np.testing.assert_allclose(file["data"], eigh.vectors(6), atol=1e-6)
        np.testing.assert_allclose(file["eigenvalues"], eigh.S[:6])
        assert file["data"].dtype == np.float32
    _, body = keep_eigenvectors(files(tmp_path, 100), eigh, 1000)
    assert body["other_step"] == 0
    np.testing.assert_allclose(body["frob_VtV^2"], np.arange(1, 7), rtol=1e-5)


def test_other_splits_are_not_compared(eigh, tmp_path):
    list(keep_eigenvectors(files(tmp_path, 0, split="train"), eigh, 2))
    assert len(list(keep_eigenvectors(files(tmp_path, 100), eigh, 2))) == 1


@pytest.mark.parametrize("name", ["run_id", "problem", "data_sha256"])
def test_vectors_of_something_else_are_refused(eigh, tmp_path, name):
    list(keep_eigenvectors(files(tmp_path, 0, **{name: "another"}), eigh, 2))
    with pytest.raises(StoreError, match=f"another Hessian \\({name}: expected"):
        list(keep_eigenvectors(files(tmp_path, 100), eigh, 2))


def test_a_file_under_the_name_of_another_step_is_refused(eigh, tmp_path):
    here = files(tmp_path, 0)
    path = here.save(eigh, 2)
    path.rename(here.path(50))
    with pytest.raises(StoreError, match="of step 0"):
        list(keep_eigenvectors(files(tmp_path, 100), eigh, 2))


def test_a_damaged_file_is_named_and_left_alone(eigh, tmp_path):
    path = files(tmp_path, 0).save(eigh, 2)
    path.write_bytes(path.read_bytes()[:100])
    before = snapshot(tmp_path)
    with (
        pytest.raises(StoreError, match=r"step=0__test=True\.h5"),
        files(tmp_path, 100).of_other_steps(),
    ):
        pass
    assert snapshot(tmp_path) == before


def test_a_flipped_bit_of_the_vectors_is_found(eigh, tmp_path):
    path = files(tmp_path, 0).save(eigh, 2)
    damage.flipped_bit_of(path, "data")
    with pytest.raises(StoreError, match="the checksum of its vectors does not match"):
        list(keep_eigenvectors(files(tmp_path, 100), eigh, 2))


def test_vectors_without_a_checksum_are_refused(eigh, tmp_path):
    path = files(tmp_path, 0).save(eigh, 2)
    with h5py.File(path, "r+") as file:
        del file.attrs["crc32"]
    with pytest.raises(StoreError, match="has no checksum, as those of earlier versions; remove"):
        list(keep_eigenvectors(files(tmp_path, 100), eigh, 2))


def edited(path, **changes):
    """Change facts of a file, and nothing else."""
    with h5py.File(path, "r+") as file:
        file.attrs["provenance"] = json.dumps(json.loads(file.attrs["provenance"]) | changes)


def of_before(path):
    """Leave out what earlier versions did not write."""
    with h5py.File(path, "r+") as file:
        del file.attrs["recovery"], file.attrs["crc32_facts"]


@pytest.mark.parametrize("other", [KRYLOV, SEIGH | {"num_inner": 30}], ids=["recovery", "sizes"])
def test_vectors_of_another_recovery_are_said_to_be_of_one(eigh, tmp_path, other):
    files(tmp_path, 0, other).save(eigh, 2)
    files(tmp_path, 50).save(eigh, 2)
    here = files(tmp_path, 100)
    ((text, facts),) = here.check()
    assert (text, facts["other_step"]) == (events.OTHER_RECOVERY, 0)
    assert "expected 20, found" in facts["recovery"]
    _, of_another, of_same = keep_eigenvectors(here, eigh, 2)
    assert of_another["other_recovery"] == other
    assert "other_recovery" not in of_same


def test_what_differs_by_nature_is_no_other_recovery(eigh, tmp_path):
    """A start is that of the step before, blocks are those of the Hessian."""
    files(tmp_path, 0, KRYLOV | {"start": "a", "name": "b"}).save(eigh, 2)
    here = files(tmp_path, 100, KRYLOV | {"start": "c", "name": "d"})
    assert here.check() == []


def test_vectors_of_another_recovery_are_not_replaced_in_silence(eigh, tmp_path):
    path = files(tmp_path, 0, KRYLOV).save(eigh, 2)
    assert files(tmp_path, 0, KRYLOV).check() == []
    ((text, facts),) = files(tmp_path, 0).check()
    assert (text, facts["path"]) == (events.REPLACING_EIGENVECTORS, str(path))
    assert facts["recovery"].startswith("recovery: expected 'seigh', found 'krylov'")
    path.write_bytes(b"damaged")
    assert files(tmp_path, 0).check() == []


@pytest.mark.parametrize("attribute", ["provenance", "recovery"])
def test_facts_of_vectors_have_a_checksum(eigh, tmp_path, attribute):
    path = files(tmp_path, 0).save(eigh, 2)
    with h5py.File(path, "r+") as file:
        file.attrs[attribute] = file.attrs[attribute].replace("e", "i")
    expected = "the checksum of what it says of its vectors does not match; remove the file"
    with pytest.raises(StoreError, match=expected):
        files(tmp_path, 100).check()
    with pytest.raises(StoreError, match=expected):
        start_options(str(path), D)


@pytest.mark.parametrize("before", [False, True], ids=["with checksum", "of an earlier version"])
def test_a_copy_of_another_step_is_refused(eigh, tmp_path, before):
    """Its name and its step being right: those of before are known by their parameters."""
    here = files(tmp_path, 0)
    path = here.save(eigh, 2)
    edited(path.rename(here.path(3)), step=3)
    if before:
        of_before(here.path(3))
    states = {0: "x", 3: "y", 100: "z"}
    with pytest.raises(StoreError, match="checksum" if not before else "params_sha256: expected"):
        files(tmp_path, 100, state_hash=states.get).check()
    del states[3]
    with pytest.raises(StoreError, match="checksum" if not before else "recorded no step 3"):
        files(tmp_path, 100, state_hash=states.get).check()


def test_vectors_of_an_earlier_version_are_compared_and_this_is_said(eigh, tmp_path):
    of_before(files(tmp_path, 0).save(eigh, 2))
    here = files(tmp_path, 100, state_hash={0: "x"}.get)
    ((_, facts),) = here.check()
    assert facts["recovery"].startswith("recovery: expected 'seigh', found none")
    _, body = keep_eigenvectors(here, eigh, 2)
    assert body["other_recovery"] == "unknown"


@pytest.mark.parametrize("part", ["facts", "vectors"])
def test_what_is_refused_is_refused_before_anything_is_written(eigh, tmp_path, part):
    path = files(tmp_path, 0).save(eigh, 2)
    edited(path, run_id="another") if part == "facts" else damage.flipped_bit_of(path, "data")
    before = snapshot(tmp_path)
    with pytest.raises(StoreError):
        list(keep_eigenvectors(files(tmp_path, 100), eigh, 2))
    assert snapshot(tmp_path) == before


def test_the_name_of_a_start_is_that_of_its_vectors(eigh, tmp_path):
    """Stores that were made of a file of before go on with it when it was written again."""
    path = files(tmp_path, 0).save(eigh, 2)
    name = start_options(str(path), D)["start"].name
    of_before(path)
    assert start_options(str(path), D)["start"].name == name
    files(tmp_path, 0, SEIGH | {"num_inner": 30}).save(eigh, 2)
    assert start_options(str(path), D)["start"].name == name
    files(tmp_path, 0).save(eigh, 3)
    assert start_options(str(path), D)["start"].name != name


@pytest.mark.parametrize(("k", "dim"), [(0, D), (2, D + 1)], ids=["none", "of another network"])
def test_a_start_needs_vectors_of_as_many_parameters(eigh, tmp_path, k, dim):
    path = files(tmp_path, 0).save(eigh, k)
    expected = re.escape(f"expected eigenvectors of {dim} parameters, found shape ({D}, {k})")
    with pytest.raises(InputError, match=expected):
        start_options(str(path), dim)
