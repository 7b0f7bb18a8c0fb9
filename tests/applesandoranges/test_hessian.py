"""The Hessian operator against torch.func.hessian in float64, and its state."""

import pytest
import torch
from torch import nn
from torch.func import functional_call

from applesandoranges.hessian.operator import make_hessian
from applesandoranges.problems.parameters import (
    load_state,
    parameter_vector,
    tensor_hash,
    trainable,
    untrained_state,
)
from skerch.linops import SymmetricLinOp, adjoint_mismatch
from skerch.utils import InputError, gaussian_noise

pytestmark = pytest.mark.numerical


def mlp():
    return nn.Sequential(nn.Flatten(), nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 3))


def convolutional():
    return nn.Sequential(
        nn.Conv2d(1, 2, 2), nn.BatchNorm2d(2), nn.ReLU(), nn.Dropout(0.5), nn.Flatten(),
        nn.Linear(4, 3),
    )  # fmt: skip


def half_frozen():
    net = mlp()
    net[1].weight.requires_grad_(False)
    return net


CASES = {"mlp": mlp, "conv, batch norm, dropout": convolutional, "frozen weights": half_frozen}
SIZES = [4, 4, 3]


def dense_hessian(net, criterion, X, y):
    names, shapes = list(trainable(net)), [p.shape for p in trainable(net).values()]

    def loss(vector):
        parts = vector.split([shape.numel() for shape in shapes])
        params = {n: p.reshape(s) for n, p, s in zip(names, parts, shapes, strict=True)}
        return criterion(functional_call(net, params, (X,)), y)

    return torch.func.hessian(loss)(parameter_vector(net))


@pytest.fixture(params=CASES.values(), ids=CASES.keys())
def case(request):
    torch.manual_seed(3)
    net = request.param().double().train()
    X = gaussian_noise((sum(SIZES), 1, 2, 3), 0)
    y = torch.arange(sum(SIZES)) % 3
    batches = list(zip(X.split(SIZES), y.split(SIZES), strict=True))
    criterion = nn.CrossEntropyLoss()
    operator = make_hessian(net, criterion, batches, sum(SIZES))
    return net, operator, dense_hessian(net.eval(), criterion, X, y)


def test_operator_equals_the_dense_hessian(case):
    _, operator, H = case
    eye = torch.eye(len(H), dtype=torch.float64)
    assert tuple(operator.shape) == tuple(H.shape)
    torch.testing.assert_close(operator @ eye, H, rtol=0, atol=1e-12)


def test_operator_is_symmetric(case):
    _, operator, _ = case
    assert adjoint_mismatch(SymmetricLinOp(operator)) < 1e-12


@pytest.mark.parametrize("mode", [True, False], ids=["training", "evaluation"])
def test_products_are_those_of_evaluation_mode_and_leave_the_network_as_it_is(case, mode):
    net, operator, H = case
    net.train(mode)
    net[0].train(not mode)  # modules may differ
    before, buffers = [module.training for module in net.modules()], untrained_state(net)
    v = gaussian_noise(operator.shape[0], 5)
    torch.testing.assert_close(operator @ v, H @ v, rtol=0, atol=1e-12)
    assert [module.training for module in net.modules()] == before
    assert all(torch.equal(value, buffers[name]) for name, value in net.named_buffers())


def test_state_is_restored_with_buffers():
    torch.manual_seed(0)
    net, other = convolutional(), convolutional()
    net(torch.randn(8, 1, 2, 3))  # moves the statistics of BatchNorm
    load_state(other, parameter_vector(net), untrained_state(net))
    X = torch.randn(4, 1, 2, 3)
    torch.testing.assert_close(other.eval()(X), net.eval()(X), rtol=0, atol=0)
    assert parameter_vector(other).equal(parameter_vector(net))


def test_parameters_without_their_buffers_are_refused():
    net = convolutional()
    with pytest.raises(InputError, match="recorded buffers and frozen parameters are not those"):
        load_state(net, parameter_vector(net), {})


def test_parameters_of_another_network_are_refused():
    with pytest.raises(InputError, match=r"expected 53 parameters, got \(4,\)"):
        load_state(mlp(), torch.zeros(4), {})


def test_hash_tells_values_shapes_and_dtypes_apart():
    a = torch.arange(6.0)
    different = [a, a + 1, a.reshape(2, 3), a.double()]
    assert len({tensor_hash(x) for x in different}) == 4
    assert tensor_hash(a) == tensor_hash(a.clone())
