"""Numbers that a problem's file reads elsewhere are part of what it is."""

import re

import numpy as np
import pytest
import torch
from torch import nn

from applesandoranges.problems.constants import constants_hash
from tests.conftest import Pipeline

WEIGHTED = """\
from pathlib import Path

import torch
from torch.utils.data import TensorDataset

weight = torch.load(Path(__file__).parent / "w.pt")
settings = {{"batch_size": 5, "num_epochs": 2, "SGD": {{"opt_hpars": {{"lr": 0.1}}}}}}


def network():
    return torch.nn.Linear(3, 3)


{loss}


def data(split):
    x = torch.linspace(-1, 1, 60).reshape(20, 3)
    return TensorDataset(x, torch.arange(20) % 3)
"""
A_FUNCTION = """\
def loss(outputs, targets):
    return torch.nn.functional.cross_entropy(outputs, targets, weight.to(outputs))"""
LOSSES = {
    "module": "loss = torch.nn.CrossEntropyLoss(weight)\ndel weight",
    "function": A_FUNCTION,
}


@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
def test_another_weight_of_the_loss_is_another_problem(tmp_path, monkeypatch, capsys, loss):
    monkeypatch.chdir(tmp_path)
    (problem := tmp_path / "weighted.py").write_text(WEIGHTED.format(loss=loss))
    torch.save(torch.ones(3), tmp_path / "w.pt")
    pipeline = Pipeline(
        tmp_path, None, 6, 12, dim=12, record=(0, 3), num_hessian=15, extra=[f"PROBLEM={problem}"]
    )
    assert pipeline.train() == 0
    store = pipeline.lay_out()
    assert pipeline.measure(store, STEP=3) == 0
    torch.save(torch.tensor([100.0, 1.0, 0.01]), tmp_path / "w.pt")
    problem.touch()  # imported anew
    capsys.readouterr()
    assert pipeline.analyse(store, STEP=3) == 2
    assert re.search(
        r"is not what was trained .*: problem_constants_sha256", capsys.readouterr().err
    )


class Masked(nn.Linear):
    def __init__(self, mask, scale):
        super().__init__(2, 2)
        self.mask, self.scale = mask, scale


def hashed(net=None, loss=None, **others):
    return constants_hash([], net or Masked(torch.ones(2), 1.0), loss or nn.MSELoss(), others)


@pytest.mark.parametrize(
    "other",
    [
        {"net": Masked(torch.zeros(2), 1.0)},
        {"net": Masked(torch.ones(2), 2.0)},
        {"net": Masked(np.ones(2), 1.0)},
        {"net": Masked(torch.ones(2), [1.0, 2.0])},
        {"loss": nn.CrossEntropyLoss(torch.ones(2))},
        {"loss": nn.CrossEntropyLoss(label_smoothing=0.1)},
        {"scale": torch.ones((), dtype=torch.bfloat16)},
    ],
    ids=["mask", "scale", "array", "list", "weight", "smoothing", "attribute"],
)
def test_each_number_counts(other):
    assert hashed(**other) != hashed()


def test_what_is_trained_and_texts_do_not_count():
    net = Masked(torch.ones(2), 1.0)
    with torch.no_grad():
        net.weight += 1
    net.note = "a path"
    assert hashed(net.eval(), path="another") == hashed()
