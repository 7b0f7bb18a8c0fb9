"""Operators that are not what they are taken for: refused, or the numbers are right."""

from __future__ import annotations

import logging

import numpy as np
import pytest
import scipy.sparse
import torch
from scipy.sparse.linalg import LinearOperator

from skerch import as_linop, block_krylov, hmt, nystrom, seigh, ssvd
from skerch.a_posteriori import a_posteriori_error, residual_norms
from skerch.core.sketch import MAX_FIT_ERROR
from skerch.linops import SymmetricLinOp
from skerch.symmetry import MAX_ASYMMETRY, check_symmetric
from skerch.utils import InputError

pytestmark = pytest.mark.numerical

F64 = torch.float64
D = 60
DIAGONAL = 0.7 ** torch.arange(D, dtype=F64)
RECOVERIES = {"seigh": seigh, "hmt": hmt, "nystrom": nystrom, "block_krylov": block_krylov}
each_recovery = pytest.mark.parametrize("recover", RECOVERIES.values(), ids=RECOVERIES)


def function_with_a_buffer():
    buffer = torch.empty_like(DIAGONAL)
    return as_linop(lambda x: torch.mul(DIAGONAL, x, out=buffer), (D, D), F64, per_vector=True)


def scipy_matvec(spoils=False):
    buffer = np.empty(D)

    def matvec(x):
        x = x.reshape(-1)
        np.multiply(DIAGONAL.numpy(), x, out=buffer)
        if spoils:
            x[:] = 0
        return buffer

    return matvec


class ScipySubclass(LinearOperator):
    def __init__(self):
        super().__init__(np.float64, (D, D))
        self._product = scipy_matvec()

    def _matvec(self, x):
        return self._product(x)


REUSED = {
    "function": function_with_a_buffer,
    "scipy": lambda: LinearOperator((D, D), scipy_matvec(), dtype=np.float64),
    "scipy that changes its argument": lambda: LinearOperator(
        (D, D), scipy_matvec(spoils=True), dtype=np.float64
    ),
    "scipy subclass": ScipySubclass,
}


@pytest.mark.parametrize("make", REUSED.values(), ids=REUSED)
def test_products_that_share_their_memory_are_all_kept(make):
    found = block_krylov(make(), 3, num_rounds=3, block_size=8)
    torch.testing.assert_close(found.S, DIAGONAL[:3], rtol=1e-6, atol=0)
    right = a_posteriori_error(torch.diag(DIAGONAL), found, 5, 0).means
    torch.testing.assert_close(a_posteriori_error(make(), found, 5, 0).means, right)
    assert float(residual_norms(make(), found).max()) < 1e-3


def test_products_of_many_vectors_are_asked_for_where_there_are_some():
    calls = []

    def matmat(X):
        calls.append(X.shape[1])
        return DIAGONAL.numpy()[:, None] * X

    op = LinearOperator((D, D), scipy_matvec(), matmat=matmat, dtype=np.float64)
    hmt(op, 10)
    assert max(calls) == 10


CHANGES = {
    "block": lambda: as_linop(lambda X: X.mul_(DIAGONAL[:, None]), (D, D), F64),
    "NumPy": lambda: as_linop(
        lambda X: torch.as_tensor(np.multiply(X.numpy(), DIAGONAL[:, None], out=X.numpy())),
        (D, D),
        F64,
    ),
    "data": lambda: as_linop(lambda X: X.data.mul_(DIAGONAL[:, None]), (D, D), F64),
    "vector": lambda: as_linop(lambda x: x.mul_(DIAGONAL), (D, D), F64, per_vector=True),
}


@pytest.mark.parametrize("make", CHANGES.values(), ids=CHANGES)
def test_a_product_that_changes_its_vectors_is_refused(make):
    found = block_krylov(torch.diag(DIAGONAL), 5, num_rounds=3, block_size=8)
    for use in (
        lambda op: a_posteriori_error(op, found, 5, 0),
        lambda op: residual_norms(op, found),
        lambda op: hmt(op, 5),
    ):
        with pytest.raises(InputError, match="leaves its vectors as they are"):
            use(make())


TRIANGLE = np.triu(np.ones((30, 30)))
MATRICES = {
    "numpy": np.asarray,
    "torch": torch.as_tensor,
    "transposed": lambda A: torch.as_tensor(A).T,
    "single": lambda A: torch.as_tensor(A).float(),
    "coo": lambda A: torch.as_tensor(A).to_sparse(),
    "csr": lambda A: torch.as_tensor(A).to_sparse_csr(),
    "scipy": scipy.sparse.csr_array,
    "scipy coo": scipy.sparse.coo_matrix,
}
each_matrix = pytest.mark.parametrize("kind", MATRICES.values(), ids=MATRICES)


@each_recovery
@each_matrix
@pytest.mark.filterwarnings("ignore:Sparse CSR")
def test_a_matrix_that_is_not_symmetric_is_refused(recover, kind):
    with pytest.raises(InputError, match=r"A\^T\|\| = 1\.4 \|\|A\|\|; ssvd takes others"):
        recover(kind(TRIANGLE), 3)
    assert recover(kind(TRIANGLE + TRIANGLE.T), 3).S[0] > 10


def test_the_same_matrix_is_no_worse_for_a_singular_value_decomposition():
    assert ssvd(TRIANGLE, 3).S[0] > 10


@pytest.mark.parametrize(("share", "refused"), [(0.5, False), (2.0, True)])
@pytest.mark.parametrize("D", [50, 1500])  # one slice of rows, and several
def test_what_round_off_leaves_is_symmetric(share, refused, D):
    generator = torch.Generator().manual_seed(0)
    A = torch.randn(D, D, generator=generator, dtype=F64)
    symmetric, other = A + A.T, A - A.T
    # ||A - A^T|| = 2 ||other||
    A = symmetric + other * (share * MAX_ASYMMETRY / 2) * (symmetric.norm() / other.norm())
    if refused:
        with pytest.raises(InputError, match=r"= 0\.002 "):
            check_symmetric(A)
    else:
        check_symmetric(A)
    check_symmetric(torch.zeros(D, D))


@each_recovery
def test_an_operator_that_is_not_symmetric_is_a_warning(recover, caplog):
    for matrix, words in ((TRIANGLE, ["off by"]), (TRIANGLE + TRIANGLE.T, [])):
        A = torch.as_tensor(matrix)
        caplog.clear()
        with caplog.at_level(logging.WARNING, "skerch.symmetry"):
            recover(as_linop(lambda X, A=A: A @ X, A.shape, F64), 3)
        assert [r.message for r in caplog.records if "not symmetric" in r.message] == [
            r.message for r in caplog.records if any(word in r.message for word in words)
        ]
        assert any("not symmetric" in r.message for r in caplog.records) == bool(words)


@pytest.mark.parametrize("layout", ["to_sparse", "to_sparse_csr", "to_sparse_csc"])
@pytest.mark.filterwarnings("ignore:Sparse CS")
def test_sparse_tensors_are_decomposed_whatever_their_layout(layout):
    A = torch.zeros(50, 40, dtype=F64)
    A[:6, 3:9] = torch.diag(torch.arange(6.0, 0, -1, dtype=F64))
    found = ssvd(getattr(A, layout)(), 6)
    torch.testing.assert_close(found.S, torch.arange(6.0, 0, -1, dtype=F64))
    torch.testing.assert_close((found.left_vectors() * found.S) @ found.right_vectors().T, A)


@pytest.mark.parametrize(
    ("values", "sizes", "words"),
    [
        (torch.ones(50, dtype=F64), (3, 6), "lie outside of the bases"),
        (0.5 ** torch.arange(50, dtype=F64), (8, 8), "as many inner measurements as outer ones, 8"),
        (0.5 ** torch.arange(50, dtype=F64), (8, 16), None),
        (torch.ones(8, dtype=F64), (8, 8), None),
    ],
    ids=["flat", "few inner ones", "enough", "all"],
)
def test_singular_values_that_may_be_far_too_large_come_with_a_warning(
    caplog, values, sizes, words
):
    with caplog.at_level(logging.WARNING, "skerch.core.sketch"):
        found = ssvd(torch.diag(values), *sizes)
    assert [words in record.message for record in caplog.records] == ([True] if words else [])
    assert found.diagnostics["core_condition"] >= 1


@pytest.mark.parametrize("seed", range(5))
def test_the_error_of_a_fit_is_that_of_the_projection(seed):
    generator = torch.Generator().manual_seed(seed)
    A = torch.diag(1 / (1 + torch.arange(300, dtype=F64)))
    A = A @ torch.linalg.qr(torch.randn(300, 300, generator=generator, dtype=F64)).Q
    found = ssvd(A, 12, 36, seed=10 * seed)
    P, Q = found.Q_left, found.Q_right
    true = (A - P @ (P.T @ A @ Q) @ Q.T).norm() / A.norm()
    assert found.diagnostics["fit_error"] == pytest.approx(float(true), rel=0.25)


def test_a_matrix_that_is_not_symmetric_is_no_symmetric_operator():
    with pytest.raises(InputError, match="expected a symmetric matrix"):
        SymmetricLinOp(torch.tensor([[1.0, 2.0], [3.0, 4.0]]))


def test_a_start_that_is_differentiated_is_a_start():
    H = torch.diag(DIAGONAL)
    start = torch.eye(D, 5, dtype=F64)
    found = block_krylov(H, 5, start=start.clone().requires_grad_())
    assert not found.S.requires_grad
    assert torch.equal(found.S, block_krylov(H, 5, start=start).S)


@pytest.mark.parametrize("recover", [*RECOVERIES.values(), ssvd], ids=[*RECOVERIES, "ssvd"])
def test_the_default_device_of_torch_plays_no_role(recover):
    expected = recover(torch.diag(DIAGONAL), 5).S
    A = torch.diag(DIAGONAL)
    with torch.device("meta"):  # where nothing can be computed
        found = recover(A, 5)
    assert torch.equal(found.S, expected)
    assert found.S.device == A.device


@pytest.mark.parametrize("seed", range(0, 140, 7))
def test_singular_values_without_a_warning_are_not_far_too_large(seed):
    """At most 2.3 times with twice as many inner measurements; with the warning up to 45 times."""
    i = torch.arange(200, dtype=F64)
    powers = [(1 + i) ** -p for p in (0.5, 1, 2)]
    spectra = [*powers, 0.7**i, 0.9**i, 0.05 + 0.95 * (i < 10)]
    for S in spectra:
        for outer in (3, 10, 20):
            found = ssvd(torch.diag(S), outer, 2 * outer, seed)
            if found.diagnostics["fit_error"] <= MAX_FIT_ERROR:
                assert float(found.S[0] / S.max()) < 3
