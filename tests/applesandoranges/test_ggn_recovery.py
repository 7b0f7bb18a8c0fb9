"""Recoveries of generalised Gauss-Newton matrices, which are positive semi-definite."""

from __future__ import annotations

import pytest
import torch
from curvlinops import GGNLinearOperator
from torch import nn
from torch.func import functional_call, hessian, jacrev

from skerch.decompositions import block_krylov, nystrom
from skerch.utils import gaussian_noise

N, SIZES, TOP = 30, [12, 12, 6], 10
LOSSES = {
    "cross-entropy": (nn.CrossEntropyLoss(), lambda: torch.arange(N) % 4),
    "mse": (nn.MSELoss(), lambda: gaussian_noise((N, 4), 1)),
}
SEEDS = pytest.mark.parametrize("seed", range(3))


@pytest.fixture(params=LOSSES.values(), ids=LOSSES)
def problem(request):
    """The GGN of a small network as an operator, and densely by torch.func."""
    torch.manual_seed(0)
    criterion, targets = request.param
    net = nn.Sequential(nn.Linear(8, 10), nn.Tanh(), nn.Linear(10, 4)).double()
    X, y = gaussian_noise((N, 8), 0), targets()
    params = {name: p.detach() for name, p in net.named_parameters()}
    outputs = net(X).detach()
    J = jacrev(lambda p: functional_call(net, p, (X,)))(params)
    J = torch.cat([j.reshape(outputs.numel(), -1) for j in J.values()], dim=1)
    curvature = hessian(lambda out: criterion(out, y))(outputs).reshape(len(J), len(J))
    batches = list(zip(X.split(SIZES), y.split(SIZES), strict=True))
    operator = GGNLinearOperator(
        net, criterion, list(net.parameters()), batches, check_deterministic=False
    )
    return operator, J.T @ curvature @ J


def test_the_operator_is_the_dense_matrix(problem):
    operator, G = problem
    eye = torch.eye(len(G), dtype=torch.float64)
    torch.testing.assert_close(operator @ eye, G, rtol=0, atol=1e-12)


@SEEDS
def test_nystrom_and_block_krylov_agree(problem, seed):
    operator, G = problem
    one, other = nystrom(operator, TOP, seed, 100), block_krylov(operator, TOP, 4, 20, seed)
    torch.testing.assert_close(one.S, other.S, rtol=1e-3, atol=0)
    exact = torch.linalg.eigvalsh(G).flip(0)[:TOP]
    torch.testing.assert_close(one.S, exact, rtol=1e-3, atol=0)
    torch.testing.assert_close(other.S, exact, rtol=1e-3, atol=0)


@SEEDS
def test_nystrom_never_exceeds_the_operator(problem, seed):
    """``0 <= Y B^-1 Y^T <= G`` in exact arithmetic, so eigenvalues come from below."""
    operator, G = problem
    found, exact = nystrom(operator, TOP, seed, 20), torch.linalg.eigvalsh(G).flip(0)[:TOP]
    assert float((found.S - exact).max()) <= 1e-12
    assert bool((found.S >= 0).all())
