"""Choosing parameters by name."""

import pytest
import torch
from torch import nn

from applesandoranges.problems.parameters import (
    load_state,
    parameter_vector,
    select,
    state_hash,
    trainable,
    untrained_state,
)
from applesandoranges.training.params_file import IncrementalHDF5
from skerch.errors import InputError


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(2, 3, 2), nn.BatchNorm2d(3)
        self.head = nn.Sequential(nn.Linear(4, 3), nn.LayerNorm(3), nn.Linear(3, 2, bias=False))
        self.scale = nn.Parameter(torch.ones(()))
        self.conv.bias.requires_grad_(False)


ALL = [
    "scale", "conv.weight", "norm.weight", "norm.bias", "head.0.weight", "head.0.bias",
    "head.1.weight", "head.1.bias", "head.2.weight",
]  # fmt: skip


@pytest.mark.parametrize(
    ("patterns", "names"),
    [
        ("", ALL),
        ("*", ALL),
        ("weights", ["conv.weight", "head.0.weight", "head.2.weight"]),
        ("norms", ["norm.weight", "norm.bias", "head.1.weight", "head.1.bias"]),
        ("biases", ["scale", "head.0.bias"]),
        ("head", ["head.0.weight", "head.0.bias", "head.1.weight", "head.1.bias", "head.2.weight"]),
        ("head.?.weight", ["head.0.weight", "head.1.weight", "head.2.weight"]),
        ("head,-norms,!head.2", ["head.0.weight", "head.0.bias"]),
        ("[head.2.weight, 'conv']", ["conv.weight", "head.2.weight"]),
        ("-head,-norms", ["scale", "conv.weight"]),
    ],
)
def test_patterns_choose_in_the_order_of_the_network(patterns, names):
    net = Net()
    assert select(net, patterns) == names
    own = trainable(net)
    expected = torch.cat([own[name].flatten() for name in names])
    assert torch.equal(parameter_vector(net, names), expected)


@pytest.mark.parametrize(
    ("patterns", "message"),
    [
        ("conv.bias", "PARAMETERS: 'conv.bias' matches none of the parameters scale, conv.weight"),
        ("head,-tail", "'-tail' matches none"),
        ("head,-*", "no parameters are left"),
    ],
)
def test_patterns_that_choose_nothing_are_refused(patterns, message):
    with pytest.raises(InputError, match=message) as refusal:
        select(Net(), patterns)
    assert "\n" not in str(refusal.value)


def test_a_state_has_the_hash_of_what_is_recorded_of_it(tmp_path):
    net = Net()
    net.norm.running_mean += 1.0
    dim = parameter_vector(net).numel()
    file = IncrementalHDF5.create(tmp_path / "params.h5", dim, torch.float32, {})
    file.append(parameter_vector(net), {"step": 0}, untrained_state(net))
    entry = file.find(step=0)
    assert list(entry.extras) != list(untrained_state(net))  # by name, not as in the network
    recorded = state_hash(entry.data[:, 0], entry.extras)
    assert recorded == state_hash(parameter_vector(net), untrained_state(net))
    net.norm.running_mean += 1.0
    assert recorded != state_hash(parameter_vector(net), untrained_state(net))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_frozen_parameters_are_part_of_a_state(dtype):
    net, other = Net(), Net()
    for each in (net, other):
        each.conv.bias.data = each.conv.bias.data.to(dtype)
    state = untrained_state(net)
    assert "conv.bias" in state
    load_state(other, parameter_vector(net), state)
    assert torch.equal(other.conv.bias, net.conv.bias)
    before = state_hash(parameter_vector(net), state)
    with torch.no_grad():
        net.conv.bias += 1
    assert torch.equal(state["conv.bias"].to(dtype), other.conv.bias)  # a copy
    assert state_hash(parameter_vector(net), untrained_state(net)) != before
