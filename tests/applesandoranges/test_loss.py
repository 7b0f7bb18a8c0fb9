"""Value and gradient of the loss, bit for bit as the training has always computed them."""

import pytest
import torch

from applesandoranges.hessian.loss import Loss
from applesandoranges.problems.parameters import trainable
from applesandoranges.problems.problem import build_problem

pytestmark = pytest.mark.numerical

SIZE = 70


@torch.no_grad()
def former_value(problem, split):
    total = sum(
        float(problem.criterion(problem.net(X), y)) * len(y)
        for X, y in problem.hessian_data(split, SIZE)
    )
    return total / SIZE


def former_gradient(problem, split):
    params, total = list(trainable(problem.net).values()), 0.0
    for X, y in problem.hessian_data(split, SIZE):
        loss = problem.criterion(problem.net(X), y) * (len(y) / SIZE)
        total = total + torch.cat([g.flatten() for g in torch.autograd.grad(loss, params)])
    return total


@pytest.mark.parametrize("split", ["train", "test"])
@pytest.mark.parametrize("batch_size", [16, 35, 100])
def test_as_in_every_training(digits, split, batch_size):
    problem = build_problem("mnist_mini", digits, 3, batch_size)
    problem.net.eval()
    loss = Loss.of(problem, split, SIZE)
    assert loss.value().item() == former_value(problem, split)
    assert torch.equal(loss.gradient(), former_gradient(problem, split))


def test_data_points_are_counted_if_nobody_says_how_many(digits):
    problem = build_problem("mnist_mini", digits, 3, 16)
    data = problem.hessian_data("train", SIZE)
    found = Loss(problem.net, problem.criterion, data).gradient()
    assert torch.equal(found, former_gradient(problem, "train"))
