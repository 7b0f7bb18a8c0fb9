"""When one pass of Cholesky QR is trusted."""

import pytest
import torch

from skerch.core.orthogonal import cholesky_qr, orthogonalize, tsqr
from skerch.core.row_blocks import RowBlocks

pytestmark = pytest.mark.numerical

D, N = 200, 4


def orthonormal(seed):
    generator = torch.Generator().manual_seed(seed)
    return torch.linalg.qr(torch.randn(D, N, dtype=torch.float64, generator=generator)).Q


def preconditioner(condition):
    """One that leaves an orthonormal basis with this condition number, and its Gram matrix with
    the square of it.
    """
    return torch.diag(torch.logspace(0, torch.tensor(condition).log10().item(), N).double())


@pytest.mark.parametrize("condition", [10, 1e3])
def test_a_gram_matrix_that_is_good_enough_is_taken(condition):
    Y = orthonormal(0)
    factor = cholesky_qr(RowBlocks(Y), preconditioner(condition))
    Q = Y @ factor.T
    round_off = torch.finfo(torch.float64).eps * condition**2
    assert (Q.T @ Q - torch.eye(N)).abs().max() < 10 * N * round_off
    torch.testing.assert_close(Q @ factor.R, Y, rtol=0, atol=10 * N * round_off)


@pytest.mark.parametrize("condition", [1e5, 1e6, 1e7])
def test_one_that_loses_half_of_the_digits_is_not(condition):
    """Up to condition 1e8 of the Gram matrix, 1e4 of the basis, half of them are left."""
    assert cholesky_qr(RowBlocks(orthonormal(0)), preconditioner(condition)) is None


def test_the_stable_way_takes_its_place():
    Y = orthonormal(1)
    factor = orthogonalize(RowBlocks(Y), preconditioner(1e6))
    assert factor.method == "tsqr"
    Q = Y @ factor.T
    assert (Q.T @ Q - torch.eye(N)).abs().max() < 1e-13


@pytest.mark.parametrize(("smallest", "rank"), [(4.0, 64), (0.25, 63)])
def test_a_direction_counts_above_the_round_off_of_what_is_stored(smallest, rank):
    """``sqrt(n) eps ||Y||``: the norm of the rounding errors of ``n`` columns of the same norm."""
    n = 64
    threshold = n**0.5 * torch.finfo(torch.float32).eps
    generator = torch.Generator().manual_seed(0)
    U = torch.linalg.qr(torch.randn(D, n, dtype=torch.float64, generator=generator)).Q
    S = torch.ones(n, dtype=torch.float64)
    S[-1] = smallest * threshold
    assert tsqr(RowBlocks((U * S).float())).T.shape[1] == rank
