"""Checkpoints of other trainings are loaded as they are, or not at all."""

import pytest
import torch
from torch import nn

from applesandoranges.training.state_files import load_into
from skerch.errors import SkerchError


def network():
    return nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))


def saved(tmp_path, change):
    state = network().state_dict()
    state["0.weight"] = change(state["0.weight"])
    torch.save(state, path := tmp_path / "step_1.pt")
    return path


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_floating_point_numbers_are_taken(tmp_path, dtype):
    path = saved(tmp_path, lambda weight: torch.ones_like(weight, dtype=dtype) / 4)
    load_into(net := network(), path)
    assert torch.equal(net[0].weight, torch.full((3, 2), 0.25))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda w: w.to(torch.complex64), "expected 0.weight in torch.float32, found .*complex64"),
        (lambda w: w.to(torch.int64), "expected 0.weight in torch.float32, found torch.int64"),
        (lambda w: w / 0, "0.weight: 6 of 6 values are NaN or infinite"),
    ],
    ids=["complex", "integer", "not finite"],
)
def test_other_numbers_are_refused_and_change_nothing(tmp_path, change, message):
    net = network()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    with pytest.raises(SkerchError, match=message):
        load_into(net, saved(tmp_path, change))
    assert all(torch.equal(before[name], value) for name, value in net.state_dict().items())
