"""Files of columns with metadata."""

import ast

import h5py
import pytest
import torch

from applesandoranges.training.params_file import IncrementalHDF5
from skerch.utils import InputError, NumericalError, StoreError

A, B = torch.arange(6.0), torch.arange(6.0).reshape(6, 1) + torch.tensor([[10.0, 20.0]])
STATISTICS = {"bn.running_mean": torch.tensor([1.5, 2.5]), "bn.num_batches": torch.tensor(7)}


@pytest.fixture
def file(tmp_path):
    file = IncrementalHDF5.create(tmp_path / "p.h5", 6, torch.float32, {"run_id": "abc"})
    file.append(A, {"step": 0})
    file.append(B, {"step": 100, "note": "it's [odd]"}, STATISTICS)
    return file


def test_layout_on_disk_is_the_documented_one(file):
    with h5py.File(file.path) as h5:
        torch.testing.assert_close(torch.from_numpy(h5["data"][:]), torch.cat([A[:, None], B], 1))
        assert h5["data_idxs"][:].tolist() == [[0, 1], [1, 3]]
        assert [ast.literal_eval(text) for text in h5["metadata"].asstr()[:]] == [
            {"step": 0}, {"step": 100, "note": "it's [odd]"},
        ]  # fmt: skip


def test_find_gives_back_what_was_appended(file):
    entry = file.find(step=100)
    torch.testing.assert_close(entry.data, B)
    torch.testing.assert_close(entry.extras, STATISTICS)
    assert file.find(step=0).extras == {}
    assert file.attributes() == {"run_id": "abc"}


def test_the_last_of_equal_entries_counts(file):
    file.append(-A, {"step": 0})
    torch.testing.assert_close(file.find(step=0).data[:, 0], -A)


def test_entry_that_is_not_there_names_those_that_are(file):
    with pytest.raises(InputError, match=r"step 7 was not recorded; there are \[0, 100\]"):
        file.find(step=7)


def test_existing_file_is_not_overwritten(file):
    before = file.path.read_bytes()
    with pytest.raises(InputError, match="exists already"):
        IncrementalHDF5.create(file.path, 6, torch.float32, {})
    assert file.path.read_bytes() == before


def test_values_that_are_not_finite_are_refused_unwritten(file):
    before = file.path.read_bytes()
    with pytest.raises(NumericalError, match="1 of 6 values"):
        file.append(torch.tensor([0, 1, 2, 3, 4, float("inf")]), {"step": 200})
    assert file.path.read_bytes() == before


def test_metadata_are_never_executed(file):
    with h5py.File(file.path, "r+") as h5:
        h5["metadata"][0] = "__import__('os').abort()"
    with pytest.raises(StoreError, match="metadata cannot be read"):
        file.metadata()


def test_names_with_slashes_are_names(file):
    extras = {"a/b.mean": torch.ones(2), "a": torch.zeros(()), "a%2Fb": torch.ones(1), "..": A}
    file.append(A, {"step": 7}, extras)
    found = file.find(step=7).extras
    assert found.keys() == extras.keys()
    assert all(torch.equal(found[name], value) for name, value in extras.items())


def test_what_stays_the_same_is_stored_once(file):
    large = torch.arange(100_000.0)
    changes = [torch.zeros(1), torch.zeros(1).double(), torch.ones(1).double(), torch.ones(2)]
    sizes = []
    for step, small in enumerate(changes, start=1000):
        file.append(A, {"step": step}, {"large": large, "small": small})
        sizes.append(file.path.stat().st_size)
    assert sizes[-1] - sizes[0] < large.nbytes / 2
    for step, small in enumerate(changes, start=1000):
        found = file.find(step=step).extras
        assert torch.equal(found["large"], large)
        assert found["small"].dtype == small.dtype
        assert torch.equal(found["small"], small)
