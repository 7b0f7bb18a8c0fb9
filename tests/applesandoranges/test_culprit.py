"""Which mini-batch makes a product NaN or infinite."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from applesandoranges.measurement.recorded_hessian import RecordedHessian

DIM = 17


def recorded(bad):
    """Three mini-batches of a network with 17 parameters, of which some make products infinite."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(2, 3), nn.Tanh(), nn.Linear(3, 2))
    batches = [(torch.randn(4, 2), torch.arange(4) % 2) for _ in range(3)]
    for number in bad:
        batches[number][0][1, 0] = torch.inf

    def hessian_data(split, num_data):
        assert (split, num_data) == ("test", 12)
        return batches

    problem = SimpleNamespace(
        net=net, criterion=nn.CrossEntropyLoss(), batch_size=4, hessian_data=hessian_data
    )
    return SimpleNamespace(problem=problem, identity={"split": "test"}, num_data=12)


@pytest.mark.parametrize("bad", [(0,), (1,), (2,), (1, 2)], ids=str)
def test_the_first_bad_mini_batch_is_named(bad):
    text = RecordedHessian.culprit(recorded(bad), torch.ones(DIM))
    assert text == f"mini-batch {bad[0]} (of 4 data points)"


def test_a_sum_of_good_mini_batches_is_named_as_such():
    text = RecordedHessian.culprit(recorded(()), torch.ones(DIM))
    assert text == "their sum over mini-batches"
