from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse
import torch
from scipy.sparse.linalg import aslinearoperator, eigsh, svds

from skerch.linops import (
    CompositeLinOp,
    DiagonalLinOp,
    LinOp,
    SymmetricLinOp,
    TorchLinOpWrapper,
    TransposedLinOp,
    adjoint_mismatch,
    to_scipy,
)
from skerch.ssrft import SSRFT
from skerch.utils import InputError

pytestmark = pytest.mark.numerical

TALL = torch.arange(1.0, 16.0, dtype=torch.float64).reshape(5, 3).sin()
WIDE = torch.arange(1.0, 13.0, dtype=torch.float64).reshape(3, 4).cos()
SYMMETRIC = TALL @ TALL.T - torch.eye(5, dtype=torch.float64)
DIAGONAL = torch.tensor([2.0, -1.0, 0.0], dtype=torch.float64)


class LeftProductsOnly:
    """An operator that only knows ``A @ X``, like a Hessian."""

    def __init__(self, A):
        self.A, self.shape = A, A.shape

    def __matmul__(self, X):
        return self.A @ X


#: name: (operator, the same as a dense matrix).
OPERATORS = {
    "transposed-tensor": (TransposedLinOp(TALL), TALL.T),
    "transposed-property": (CompositeLinOp(TALL, WIDE).T, (TALL @ WIDE).T),
    "transposed-twice": (CompositeLinOp(TALL).T.T, TALL),
    "composite-of-one": (CompositeLinOp(TALL), TALL),
    "composite-of-tensors": (CompositeLinOp(TALL, WIDE), TALL @ WIDE),
    "composite-of-operators": (
        CompositeLinOp(TALL, DiagonalLinOp(DIAGONAL), TransposedLinOp(WIDE.T)),
        TALL @ torch.diag(DIAGONAL) @ WIDE,
    ),
    "diagonal": (DiagonalLinOp(DIAGONAL), torch.diag(DIAGONAL)),
    "symmetric": (SymmetricLinOp(LeftProductsOnly(SYMMETRIC)), SYMMETRIC),
    "wrapped-ndarray": (TorchLinOpWrapper(TALL.numpy()), TALL),
    "wrapped-scipy-operator": (TorchLinOpWrapper(aslinearoperator(TALL.numpy())), TALL),
    "wrapped-scipy-sparse": (TorchLinOpWrapper(scipy.sparse.csr_array(TALL.numpy())), TALL),
    "wrapped-there-and-back": (TorchLinOpWrapper(to_scipy(TALL)), TALL),
}


@pytest.mark.parametrize(("op", "dense"), OPERATORS.values(), ids=OPERATORS)
class TestEveryOperator:
    def test_shape(self, op, dense):
        assert op.shape == tuple(dense.shape)

    @pytest.mark.parametrize("columns", [(), (1,), (6,)], ids=["vector", "column", "matrix"])
    def test_products_from_the_left(self, op, dense, columns, gaussian, assert_close):
        X = gaussian(dense.shape[1], *columns)
        assert_close(op @ X, dense @ X)

    @pytest.mark.parametrize("rows", [(), (1,), (6,)], ids=["vector", "row", "matrix"])
    def test_products_from_the_right(self, op, dense, rows, gaussian, assert_close):
        X = gaussian(*rows, dense.shape[0])
        assert_close(X @ op, X @ dense)

    def test_adjoint(self, op, dense):
        assert adjoint_mismatch(op, seed=3) < 1e-14

    def test_transpose(self, op, dense, gaussian, assert_close):
        X = gaussian(dense.shape[0], 2)
        assert op.T.shape == (dense.shape[1], dense.shape[0])
        assert_close(op.T @ X, dense.T @ X)

    def test_scipy_products(self, op, dense, gaussian, assert_close):
        H, W = dense.shape
        x, y, X, Y = gaussian(W), gaussian(H), gaussian(W, 3), gaussian(H, 3)
        scipy_op = to_scipy(op)
        assert scipy_op.shape == op.shape
        assert_close(scipy_op.matvec(x.numpy()), dense @ x)
        assert_close(scipy_op.rmatvec(y.numpy()), dense.T @ y)
        assert_close(scipy_op.matmat(X.numpy()), dense @ X)
        assert_close(scipy_op.rmatmat(Y.numpy()), dense.T @ Y)

    @pytest.mark.parametrize(
        "shape", [(), (7,), (7, 2), (2, 2, 2)], ids=["scalar", "vector", "matrix", "3d"]
    )
    def test_wrong_shapes_raise(self, op, dense, shape):
        with pytest.raises(InputError, match="X has shape"):
            op @ torch.ones(shape, dtype=torch.float64)
        with pytest.raises(InputError, match="X has shape"):
            torch.ones(shape, dtype=torch.float64) @ op

    def test_repr_has_the_shape(self, op, dense):
        assert repr(op) == f"{type(op).__name__}{tuple(dense.shape)}"


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: LinOp((0, 3)), r"positive, got \(0, 3\)"),
        (lambda: LinOp((3, -1)), r"positive, got \(3, -1\)"),
        (lambda: CompositeLinOp(), "at least one factor"),
        (lambda: CompositeLinOp(TALL, TALL), r"do not chain.*\(5, 3\).*\(5, 3\)"),
        (lambda: SymmetricLinOp(TALL), r"square, got shape \(5, 3\)"),
    ],
    ids=["no-rows", "negative", "no-factors", "unchained", "symmetric-rectangle"],
)
def test_impossible_operators_raise(make, match):
    with pytest.raises(InputError, match=match):
        make()


def test_products_that_a_subclass_lacks_raise():
    with pytest.raises(TypeError, match="LinOp has no A @ X"):
        LinOp((2, 3)) @ torch.ones(3)
    with pytest.raises(TypeError, match="LinOp has no X @ A"):
        torch.ones(2) @ LinOp((2, 3))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_the_numpy_wrapper_answers_in_the_dtype_it_is_asked_in(dtype, assert_close):
    op = TorchLinOpWrapper(TALL.numpy())
    left, right = op @ torch.ones(3, dtype=dtype), torch.ones(5, dtype=dtype) @ op
    assert left.dtype == right.dtype == dtype
    assert_close(left, TALL.sum(1))
    assert_close(right, TALL.sum(0))


def test_the_numpy_wrapper_takes_vectors_that_require_gradients(assert_close):
    op = TorchLinOpWrapper(TALL.numpy())
    assert_close(op @ torch.ones(3, dtype=torch.float64, requires_grad=True), TALL.sum(1))


class TestSciPySolvers:
    def test_eigsh(self, assert_close):
        op = SymmetricLinOp(LeftProductsOnly(SYMMETRIC))
        found = eigsh(to_scipy(op), k=2, which="LM", v0=np.ones(5), return_eigenvectors=False)
        true = np.linalg.eigvalsh(SYMMETRIC.numpy())
        assert_close(np.sort(np.abs(found)), np.sort(np.abs(true))[-2:])

    def test_svds(self, assert_close):
        op = CompositeLinOp(TALL, WIDE)
        found = svds(to_scipy(op), k=2, v0=np.ones(4), return_singular_vectors=False)
        true = np.linalg.svd((TALL @ WIDE).numpy(), compute_uv=False)
        assert_close(np.sort(found), true[:2][::-1].copy())

    def test_dtype(self):
        found = to_scipy(TALL.float(), torch.float32)
        assert found.dtype == np.float32
        assert found.matvec(np.ones(3)).dtype == np.float32


class TestAdjointMismatch:
    def test_sees_a_wrong_adjoint(self):
        class Wrong(LinOp):
            def _matmat(self, X):
                return TALL @ X

            def _rmatmat(self, X):
                return X @ (1.01 * TALL)

        assert adjoint_mismatch(Wrong(TALL.shape)) > 1e-4

    def test_value(self, gaussian, assert_close):
        class Half(LinOp):
            def _matmat(self, X):
                return TALL @ X

            def _rmatmat(self, X):
                return X @ TALL / 2

        generator = torch.Generator()
        u = torch.randn(5, generator=generator.manual_seed(4), dtype=torch.float64)
        v = torch.randn(3, generator=generator.manual_seed(5), dtype=torch.float64)
        expected = abs(u @ TALL @ v) / 2 / (u.norm() * (TALL @ v).norm())
        assert adjoint_mismatch(Half(TALL.shape), seed=4) == pytest.approx(float(expected))

    def test_of_zero_is_zero(self):
        assert adjoint_mismatch(torch.zeros(4, 3, dtype=torch.float64)) == 0

    def test_in_single_precision(self):
        op = SSRFT((20, 50), seed=1)
        assert adjoint_mismatch(op, dtype=torch.float32) < 1e-6
