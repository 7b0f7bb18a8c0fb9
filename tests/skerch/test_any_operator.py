"""Three lines for every kind of operator: ``result = seigh(A, 8); result.S, result.vectors(8)``.

The oracle is a matrix of rank 8 with known eigenpairs, which all methods recover up to round-off.
"""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse
import torch
from curvlinops import HessianLinearOperator, JacobianLinearOperator
from scipy.sparse.linalg import LinearOperator, aslinearoperator, eigsh
from torch import nn

from skerch import as_linop, block_krylov, hmt, nystrom, seigh, ssvd
from skerch.a_posteriori import a_posteriori_error, residual_norms
from skerch.linops import (
    AdaptedLinOp,
    CompositeLinOp,
    DiagonalLinOp,
    SymmetricLinOp,
    TorchLinOpWrapper,
    TransposedLinOp,
    adjoint_mismatch,
    to_scipy,
)
from skerch.ssrft import SSRFT
from skerch.utils import InputError

pytestmark = pytest.mark.numerical

F32, F64 = torch.float32, torch.float64
#: Relative to the norm: round-off, times the condition of the cores, with room.
TOLERANCE = {F32: 1e-4, F64: 1e-10}
D, W, K = 40, 30, 8
EIGENVALUES = torch.arange(K, 0, -1, dtype=F64)


def orthonormal(n, seed):
    return torch.linalg.qr(torch.from_numpy(np.random.default_rng(seed).normal(size=(n, K)))).Q


V, U = orthonormal(D, 0), orthonormal(W, 1)
H = (V * EIGENVALUES) @ V.T
#: Rectangular, with the same singular values.
A = (V * EIGENVALUES) @ U.T


def linear_model(X):
    """Return a model without bias, its parameters, and the data of which it is linear."""
    model = nn.Linear(X.shape[1], 1, bias=False, dtype=X.dtype)
    return model, list(model.parameters()), [(X, torch.zeros(len(X), 1, dtype=X.dtype))]


def curvlinops_hessian(matrix):
    """Least squares: the Hessian of the mean of ``(x w)^2`` is ``2 / N X^T X``."""
    X = ((K / 2) ** 0.5 * EIGENVALUES.sqrt()[:, None] * V.T).to(matrix)
    model, params, data = linear_model(X)
    return HessianLinearOperator(
        model, nn.MSELoss(), params, data, num_data=K, check_deterministic=False
    )


def curvlinops_jacobian(matrix):
    """Of a linear model it is the matrix of inputs."""
    model, params, data = linear_model(matrix)
    return JacobianLinearOperator(model, params, data, num_data=D, check_deterministic=False)


class Plain:
    """An object with a shape and ``@``, and no more."""

    def __init__(self, matrix):
        self.matrix, self.shape, self.products = matrix, matrix.shape, 0

    def __matmul__(self, X):
        self.products += 1
        return self.matrix @ X


class WithTransposed(Plain):
    @property
    def T(self):
        return Plain(self.matrix.T)


class WithLeft(Plain):
    def __rmatmul__(self, X):
        return X @ self.matrix


class OfNumPy(WithTransposed):
    """One that says a dtype of NumPy, and is multiplied with arrays."""

    def __init__(self, matrix):
        super().__init__(matrix)
        self.dtype = matrix.dtype

    @property
    def T(self):
        return OfNumPy(self.matrix.T)


def function(matrix):
    return as_linop(
        lambda X: matrix @ X, tuple(matrix.shape), matrix.dtype, adjoint=lambda X: matrix.T @ X
    )


def function_of_vectors(matrix):
    def f(x):
        assert x.ndim == 1
        return matrix @ x

    def g(x):
        assert x.ndim == 1
        return matrix.T @ x

    return as_linop(f, tuple(matrix.shape), per_vector=True, adjoint=g)


KINDS = {
    "tensor": lambda matrix: matrix,
    "sparse-tensor": lambda matrix: matrix.to_sparse(),
    "parameter": nn.Parameter,
    "numpy": lambda matrix: matrix.numpy(),
    "scipy-operator": lambda matrix: aslinearoperator(matrix.numpy()),
    "scipy-sparse": lambda matrix: scipy.sparse.csr_array(matrix.numpy()),
    "object-with-T": WithTransposed,
    "object-with-rmatmul": WithLeft,
    "object-of-numpy": lambda matrix: OfNumPy(matrix.numpy()),
    "function": function,
    "function-of-vectors": function_of_vectors,
    "as_linop-twice": lambda matrix: as_linop(as_linop(matrix)),
    "composite": lambda matrix: CompositeLinOp(matrix.numpy(), torch.eye(len(matrix.T)).to(matrix)),
}
SYMMETRIC = KINDS | {"curvlinops": curvlinops_hessian}
RECTANGULAR = KINDS | {"curvlinops": curvlinops_jacobian}
each_symmetric = pytest.mark.parametrize("kind", SYMMETRIC.values(), ids=SYMMETRIC)
each_rectangular = pytest.mark.parametrize("kind", RECTANGULAR.values(), ids=RECTANGULAR)
each_dtype = pytest.mark.parametrize("dtype", [F32, F64], ids=str)
each_solver = pytest.mark.parametrize("solve", [seigh, hmt, nystrom, block_krylov])


def close(found, expected, dtype):
    scale = float(EIGENVALUES[0])
    torch.testing.assert_close(
        found.double(), expected, rtol=0, atol=scale * TOLERANCE[dtype], check_device=False
    )


@each_symmetric
@each_dtype
@each_solver
def test_eigenpairs_in_three_lines(kind, dtype, solve):
    result = solve(kind(H.to(dtype)), K)
    close(result.S, EIGENVALUES, dtype)
    close(result.vectors(K) @ result.vectors(K).T, V @ V.T, dtype)
    assert result.provenance["dtype"] == str(dtype).removeprefix("torch.")


@each_rectangular
@each_dtype
def test_singular_triplets_in_three_lines(kind, dtype):
    result = ssvd(kind(A.to(dtype)), K)
    close(result.S, EIGENVALUES, dtype)
    close(result.to_dense(), A, dtype)


@each_rectangular
@each_dtype
def test_both_products_and_what_is_known(kind, dtype):
    op = as_linop(kind(A.to(dtype)))
    X, Y = torch.ones(W, 2, dtype=dtype), torch.ones(2, D, dtype=dtype)
    close(op @ X, A @ X.double(), dtype)
    close(Y @ op, Y.double() @ A, dtype)
    close(op @ X[:, 0], A @ X[:, 0].double(), dtype)
    close(op.T @ Y.T, A.T @ Y.T.double(), dtype)
    assert (op.shape, op.dtype) == ((D, W), dtype)
    assert not (op @ X).requires_grad
    assert adjoint_mismatch(op) < 10 * TOLERANCE[dtype]


@each_symmetric
@each_dtype
class TestOtherRoutines:
    def test_scipy(self, kind, dtype):
        op = to_scipy(kind(H.to(dtype)))
        assert op.dtype == torch.empty(0, dtype=dtype).numpy().dtype
        close(
            torch.from_numpy(eigsh(op, 2, return_eigenvectors=False)).flip(0),
            EIGENVALUES[:2],
            dtype,
        )

    def test_errors_and_residuals(self, kind, dtype):
        op = kind(H.to(dtype))
        result = seigh(op, K)
        assert a_posteriori_error(op, result, 3, 0).diff_sq.max().sqrt() < 300 * TOLERANCE[dtype]
        assert residual_norms(op, result).max() < 30 * TOLERANCE[dtype]

    def test_wrappers(self, kind, dtype):
        op, X = kind(H.to(dtype)), torch.ones(D, 1, dtype=dtype)
        for wrapped in (TransposedLinOp(op), SymmetricLinOp(op)):
            close(wrapped @ X, H @ X.double(), dtype)
            close(X.T @ wrapped, X.T.double() @ H, dtype)


class TestDefaults:
    def test_sizes(self):
        made = seigh(H, K).provenance
        assert (made["method"], made["outer"], made["inner"], made["seed"]) == (
            "seigh",
            K,
            2 * K,
            0,
        )
        assert seigh(H, 30).provenance["inner"] == D
        assert ssvd(A, 20).provenance["inner"] == W
        assert nystrom(H, K).provenance["num_products"] == 2 * K
        assert block_krylov(H, 2).provenance["block_size"] == 10
        assert block_krylov(H, 37, num_rounds=2).provenance["block_size"] == 37
        assert block_krylov(H[:6, :6], 2).provenance["block_size"] == 6
        assert block_krylov(H, 25, num_rounds=4).provenance["block_size"] == 13

    @pytest.mark.parametrize("dtype", [np.int64, np.int8, np.bool_])
    def test_integers_of_numpy_compute_in_double_precision(self, dtype):
        matrix = np.eye(12, dtype=dtype)
        for op in (matrix, aslinearoperator(matrix), scipy.sparse.csr_array(matrix)):
            result = seigh(op, 12)
            assert result.provenance["dtype"] == "float64"
            assert torch.allclose(result.to_dense(), torch.eye(12, dtype=F64))

    def test_a_wrapper_of_numpy_computes_in_the_dtype_that_is_given(self):
        op = TorchLinOpWrapper(H.float().numpy())
        assert as_linop(op).dtype == F32
        assert as_linop(op, dtype=F64).dtype == F64

    def test_operators_of_this_package(self):
        assert as_linop(DiagonalLinOp(EIGENVALUES.float())).dtype == F32
        assert as_linop(SSRFT((3, 5), 0)).dtype == F64
        assert as_linop(seigh(H, K)).dtype == F64

    def test_results_are_decomposed_again(self):
        close(hmt(seigh(H, K), K).S, EIGENVALUES, F64)


class TestDtypeIsFoundOut:
    @each_dtype
    def test_by_one_product_or_two(self, dtype):
        op = Plain(H.to(dtype))
        assert as_linop(op).dtype == dtype
        assert op.products == (1 if dtype == F64 else 2)

    def test_not_if_it_is_given(self):
        op = Plain(H)
        assert as_linop(op, dtype=F64).dtype == F64
        assert op.products == 0

    def test_what_converts_by_itself_computes_in_what_it_gives(self):
        assert as_linop(lambda X: H.float() @ X.float(), (D, D)).dtype == F32

    def test_abstract_properties_say_nothing(self):
        class Abstract(Plain):
            @property
            def dtype(self):
                raise NotImplementedError

            device = dtype

        assert as_linop(Abstract(H)).dtype == F64


class Failing:
    shape = (D, D)

    def __matmul__(self, X):
        raise ValueError("no\nproduct today")


class Strange(Plain):
    def __init__(self, **attributes):
        super().__init__(H)
        self.__dict__.update(attributes)


WITHOUT_RMATVEC = LinearOperator((D, W), matvec=lambda x: A.numpy() @ x, dtype=np.float64)
REFUSED = {
    "complex-curvature": (
        lambda: as_linop(Strange(dtype=torch.complex64)),
        r"of torch.complex64; .* A \+ iB has the eigenvalues of the real \[\[A, -B\]",
    ),
    "half": (
        lambda: as_linop(Strange(dtype=torch.float16)),
        "float32 or float64, got a .*Strange of torch.float16; convert it",
    ),
    "fails": (
        lambda: as_linop(Failing()),
        r"multiplied with a tensor \[40, 1\], got a .*float64: ValueError: no product today",
    ),
    "function-without-shape": (
        lambda: as_linop(abs),
        r"a function needs a shape: as_linop\(f, \(H, W\)\), got a ",
    ),
    "function-of-a-number": (lambda: as_linop(abs, 5), r"with a shape \(H, W\), got .* of 5"),
    "no-rows": (lambda: as_linop(abs, (0, 5)), r"with a shape \(H, W\), got .* of \(0, 5\)"),
    "other-shape": (
        lambda: as_linop(H, (D, W)),
        r"expected shape \(40, 30\), got a tensor \[40, 40\]",
    ),
    "list": (lambda: as_linop([[1.0]]), r"with a shape \(H, W\) and @, got a builtins.list"),
    "number": (lambda: seigh(3.0, 2), r"with a shape \(H, W\) and @, got a builtins.float"),
    "three-dimensions": (
        lambda: seigh(np.ones((2, 2, 2)), 2),
        r"with a shape \(H, W\), got a NumPy array \[2, 2, 2\]",
    ),
    "vector": (lambda: as_linop(torch.ones(3)), r"with a shape \(H, W\), got a tensor \[3\]"),
    "adjoint-of-an-operator": (
        lambda: as_linop(H, adjoint=abs),
        "per_vector and adjoint are for functions",
    ),
    "other-dtype": (
        lambda: seigh(H, K, dtype=F32),
        r"of torch.float64; .* operator.to\(torch.float32\), or dtype=torch.float64",
    ),
    "other-dtype-of-numpy": (
        lambda: seigh(H.numpy(), K, dtype=F32),
        r"got a NumPy array \[40, 40\] of float64, which computes in torch.float64",
    ),
    "other-dtype-of-curvlinops": (
        lambda: hmt(curvlinops_hessian(H.float()), K, dtype=F64),
        "HessianLinearOperator of torch.float32",
    ),
    "other-device": (
        lambda: seigh(H, K, device="cuda"),
        "operator: expected device cuda, got a tensor .* on cpu",
    ),
    "no-dtype": (
        lambda: seigh(H, K, dtype="float32"),
        "expected dtype torch.float32 or torch.float64, got float32",
    ),
    "raw-mismatch": (
        lambda: seigh(Plain(H.float()), K, dtype=F64),
        r"a tensor \[40, 16\] of torch.float64 on cpu failed \(RuntimeError: .*; say in what",
    ),
    "raw-mismatch-of-a-vector": (
        lambda: as_linop(Plain(H), dtype=F32) @ torch.ones(D),
        "failed .*; say in what",
    ),
    "vector-of-another-dtype": (
        lambda: as_linop(H) @ torch.ones(D),
        r"expected torch.float32, .* got a tensor .*or X.to\(torch.float64\)",
    ),
    "adjoint-missing": (
        lambda: ssvd(as_linop(lambda X: A @ X, (D, W)), K),
        r"without its adjoint; as_linop\(f, shape, adjoint=g\)",
    ),
    "left-product-missing": (
        lambda: ssvd(Plain(A), K),
        r"an operator with __rmatmul__, .T or .adjoint\(\), got a ",
    ),
    "left-product-of-scipy-missing": (
        lambda: ssvd(WITHOUT_RMATVEC, K),
        r"X @ A: expected an operator with",
    ),
    "product-of-numpy": (
        lambda: seigh(as_linop(lambda X: X.numpy(), (D, D)), K),
        "the operator's product: expected a torch tensor",
    ),
    "product-of-another-shape": (
        lambda: hmt(as_linop(lambda X: X[1:], (D, D), F64), K),
        r"expected shape \(40, 8\), got \(39, 8\)",
    ),
    "errors-of-different-shapes": (
        lambda: residual_norms(A, seigh(H, K)),
        r"the operator has shape \(40, 30\), its decomposition \(40, 40\)",
    ),
}


@pytest.mark.parametrize(("call", "message"), REFUSED.values(), ids=REFUSED)
def test_refused_in_one_line(call, message):
    with pytest.raises(InputError, match=message) as error:
        call()
    assert "\n" not in str(error.value)


def test_faults_of_the_operator_itself_keep_their_traceback():
    def broken(X):
        raise RuntimeError("out of memory")

    with pytest.raises(RuntimeError, match="out of memory"):
        hmt(as_linop(broken, (D, D), F64), K)


def test_what_is_made_twice_is_made_once():
    op = as_linop(H)
    assert as_linop(op) is op
    assert isinstance(op, AdaptedLinOp)
    assert repr(op) == "AdaptedLinOp((40, 40), torch.float64)"
