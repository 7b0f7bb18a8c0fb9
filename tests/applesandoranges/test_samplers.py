import json
from pathlib import Path

import pytest
import torch

from applesandoranges.problems.samplers import EpochSampler, balanced_indices, split_indices
from skerch.utils import InputError

VECTORS = json.loads((Path(__file__).parents[1] / "vectors" / "training.json").read_text())


def test_split_meets_the_reference_numbers():
    vector = VECTORS["split_permutation"]
    train, valid = split_indices(vector["n"], vector["seed"])
    assert valid[:10].tolist() == vector["first_10"]
    assert train[-3:].tolist() == vector["last_3"]
    assert (len(train), len(valid)) == (50_000, 10_000)
    assert train.dtype == valid.dtype == torch.int64


def test_split_has_every_index_once():
    train, valid = split_indices(50, seed=3, num_valid=8)
    assert sorted(torch.cat([train, valid]).tolist()) == list(range(50))


@pytest.mark.parametrize("num_valid", [-1, 20, 21])
def test_split_leaves_something_to_train_on(num_valid):
    with pytest.raises(InputError, match=f"got {num_valid}"):
        split_indices(20, 0, num_valid)


@pytest.mark.parametrize("epoch", [0, 1, 2])
def test_epochs_meet_the_reference_numbers(epoch):
    vector = VECTORS["training_sampler"]
    sampler = EpochSampler(torch.tensor(vector["indices"]), vector["initial_seed"])
    sampler.set_epoch(epoch)
    expected = vector[f"epoch_{epoch + 1}"]  # the file counts from 1
    assert list(sampler) == expected
    assert list(sampler) == expected, "iterating must not advance the epoch"


def test_orders_leave_the_global_generator_alone():
    before = torch.get_rng_state()
    list(EpochSampler(torch.arange(9), 5))
    split_indices(9, 5, 2)
    assert torch.equal(before, torch.get_rng_state())


def test_balanced_meets_the_reference_numbers():
    vector = VECTORS["balanced"]
    indices = balanced_indices(torch.tensor(vector["labels"]), vector["size"])
    assert indices.tolist() == vector["indices"]
    assert indices.dtype == torch.int64


@pytest.mark.parametrize(
    ("size", "expected"),
    [(3, [0, 1, 5]), (6, [0, 1, 2, 3, 5, 6])],
    ids=["one per class", "two per class"],
)
def test_balanced_takes_the_lowest_of_each_class(size, expected):
    assert balanced_indices(torch.tensor([2, 0, 0, 2, 2, 1, 1, 1]), size).tolist() == expected


@pytest.mark.parametrize(
    ("size", "message"),
    [
        (4, "expected a positive multiple of 3 .*, got 4"),
        (0, "expected a positive multiple of 3 .*, got 0"),
        (9, "expected at most 6 class-balanced data points, got 9"),
    ],
)
def test_balanced_refuses_impossible_sizes(size, message):
    with pytest.raises(InputError, match=message):
        balanced_indices(torch.tensor([2, 0, 0, 2, 2, 1, 1, 1]), size)
