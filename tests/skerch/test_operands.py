"""Dtypes, arrays and scales that are refused: one clear line from each entry point."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse
import torch
from scipy.sparse.linalg import aslinearoperator

from skerch.core.products import linmeas_batch_torch
from skerch.decompositions import block_krylov, hmt, nystrom, seigh, ssvd
from skerch.linops import (
    CompositeLinOp,
    DiagonalLinOp,
    SymmetricLinOp,
    TorchLinOpWrapper,
    TransposedLinOp,
    adjoint_mismatch,
    to_scipy,
)
from skerch.ssrft import SSRFT, ssrft, ssrft_adjoint
from skerch.synthmat import SynthMat
from skerch.utils import InputError, NumericalError

pytestmark = pytest.mark.numerical

F32, F64 = torch.float32, torch.float64
WRONG_DTYPES = [
    torch.float16, torch.bfloat16, torch.int8, torch.int32, torch.int64, torch.bool,
    torch.complex64, torch.complex128,
]  # fmt: skip
WRONG = {str(dtype): (dtype, dtype) for dtype in WRONG_DTYPES} | {
    f"numpy.{name}": (name, name) for name in ("float64", "float32", "int64", "complex128")
}
D, K = 12, 5
H = SynthMat.poly_decay((D, D), 1, 1.0, seed=0)
S = SSRFT((K, D), 3)

SOLVERS = {
    "seigh": lambda op, dtype=F64: seigh(op, 3, 6, 0, dtype),
    "seigh-one-triangle": lambda op, dtype=F64: seigh(op, 3, 6, 0, dtype, symmetrize=False),
    "ssvd": lambda op, dtype=F64: ssvd(op, 3, 6, 0, dtype),
    "hmt": lambda op, dtype=F64: hmt(op, 3, 0, dtype),
    "nystrom": lambda op, dtype=F64: nystrom(op, 3, 0, None, dtype),
    "block_krylov": lambda op, dtype=F64: block_krylov(op, 3, 3, 2, 0, dtype),
    "block_krylov-one-round": lambda op, dtype=F64: block_krylov(op, 3, 1, 6, 0, dtype),
}
#: What multiplies ones with an operator; given a function that makes them of a shape.
PRODUCTS = {
    "S@x": lambda ones: S @ ones(D),
    "S@X": lambda ones: S @ ones(D, 2),
    "x@S": lambda ones: ones(K) @ S,
    "X@S": lambda ones: ones(2, K) @ S,
    "S.T@x": lambda ones: S.T @ ones(K),
    "X@S.T": lambda ones: ones(2, D) @ S.T,
    "forward": lambda ones: S.forward(ones(2, D)),
    "adjoint": lambda ones: S.adjoint(ones(2, K)),
    "ssrft": lambda ones: ssrft(ones(2, D), K, 0),
    "ssrft_adjoint": lambda ones: ssrft_adjoint(ones(2, K), D, 0),
    "transposed": lambda ones: TransposedLinOp(H) @ ones(D),
    "composite": lambda ones: CompositeLinOp(H, H) @ ones(D),
    "x@composite": lambda ones: ones(D) @ CompositeLinOp(H, H),
    "diagonal": lambda ones: DiagonalLinOp(H[0]) @ ones(D),
    "x@diagonal": lambda ones: ones(D) @ DiagonalLinOp(H[0]),
    "symmetric": lambda ones: SymmetricLinOp(H) @ ones(D),
    "x@symmetric": lambda ones: ones(D) @ SymmetricLinOp(H),
    "wrapped": lambda ones: TorchLinOpWrapper(H.numpy()) @ ones(D),
    "x@wrapped": lambda ones: ones(D) @ TorchLinOpWrapper(H.numpy()),
    "diagonal-of": lambda ones: DiagonalLinOp(ones(D)),
}
#: What takes an operator.
OPERATORS = SOLVERS | {
    "transposed": TransposedLinOp,
    "composite": lambda op: CompositeLinOp(H, op),
    "symmetric": SymmetricLinOp,
    "linmeas": lambda op: linmeas_batch_torch([0], op, S, F64),
    "to_scipy": to_scipy,
    "adjoint_mismatch": adjoint_mismatch,
}
each_solver = pytest.mark.parametrize("solve", SOLVERS.values(), ids=SOLVERS)
each_product = pytest.mark.parametrize("multiply", PRODUCTS.values(), ids=PRODUCTS)
each_operator = pytest.mark.parametrize("take", OPERATORS.values(), ids=OPERATORS)
each_wrong = pytest.mark.parametrize(("dtype", "named"), WRONG.values(), ids=WRONG)


def ones_of(dtype):
    if isinstance(dtype, str):
        return lambda *shape: np.ones(shape, dtype)
    return lambda *shape: torch.ones(shape, dtype=torch.int8).to(dtype)


def one_line(error, *parts):
    text = str(error.value)
    assert "\n" not in text
    for part in parts:
        assert str(part) in text


@each_wrong
@each_product
def test_vectors_of_another_kind(multiply, dtype, named):
    with pytest.raises(InputError) as error:
        multiply(ones_of(dtype))
    one_line(error, "expected a torch tensor [", "of float32 or float64, got a ", named)
    advice = "real and its imaginary part" if "complex" in str(dtype) else "convert it: "
    one_line(error, advice)


WRONG_OPERATORS = {str(dtype): dtype for dtype in WRONG_DTYPES} | {
    f"numpy.{name}": name for name in ("float16", "complex64", "complex128", "object")
}


@pytest.mark.parametrize("dtype", WRONG_OPERATORS.values(), ids=WRONG_OPERATORS)
@each_operator
def test_operators_of_another_kind(take, dtype):
    with pytest.raises(InputError) as error:
        take(ones_of(dtype)(D, D))
    advice = "eigenvalues of the real [[A, -B]" if "complex" in str(dtype) else "convert it: "
    one_line(error, "operator: expected float32 or float64, got a ", f"of {dtype}", advice)


@pytest.mark.parametrize("wrap", [aslinearoperator, scipy.sparse.csr_array], ids=["op", "sparse"])
@each_operator
def test_complex_operators_of_scipy(take, wrap):
    with pytest.raises(InputError) as error:
        take(wrap(H.numpy() * 1j))
    one_line(error, "got a scipy.sparse", "of complex128", "eigenvalues of the real [[A, -B]")


@each_operator
def test_operators_that_are_none(take):
    with pytest.raises(InputError) as error:
        take([[1.0, 0.0], [0.0, 1.0]])
    one_line(error, "expected an operator with a shape (H, W) and @, got a builtins.list")


@each_solver
@pytest.mark.parametrize("dtype", WRONG_DTYPES, ids=str)
def test_dtypes_to_compute_in(solve, dtype):
    with pytest.raises(InputError) as error:
        solve(H, dtype)
    one_line(error, "expected dtype torch.float32 or torch.float64, got", dtype)
    with pytest.raises(InputError, match=r"expected dtype torch\.float32 or torch\.float64"):
        S.rows([0], dtype)


@each_solver
@pytest.mark.parametrize(("stored", "dtype"), [(F32, F64), (F64, F32)], ids=str)
def test_dense_operators_have_the_dtype_that_is_computed_in(solve, stored, dtype):
    with pytest.raises(InputError) as error:
        solve(H.to(stored), dtype)
    one_line(error, f"expected {dtype}", f"of {stored}", f"operator.to({dtype})")


class Answering:
    """An operator with products that are whatever it is told."""

    shape = (D, D)

    def __init__(self, answer):
        self.answer = answer

    def __matmul__(self, X):
        return self.answer(H @ X)

    def __rmatmul__(self, X):
        return self.answer(X @ H)


@each_solver
@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (lambda Y: Y.half(), "got a tensor [12, "),
        (lambda Y: Y.to(torch.complex128), "got a tensor [12, "),
        (lambda Y: Y.long(), "of torch.int64"),
        (lambda Y: Y.numpy(), "got a NumPy array [12, "),
        (lambda Y: Y[1:], "expected shape (12, "),
        (lambda Y: Y[:, 0], "expected shape (12, "),
    ],
    ids=["half", "complex", "integer", "numpy", "row-less", "vector"],
)
def test_products_of_another_kind(solve, answer, message):
    with pytest.raises(InputError) as error:
        solve(Answering(answer))
    one_line(error, "the operator's product: expected", message)


def test_complex_operators_of_numpy_are_not_wrapped():
    with pytest.raises(InputError, match="expected real numbers, got complex128"):
        TorchLinOpWrapper(H.numpy() * 1j)
    with pytest.raises(InputError, match="expected real numbers, got complex128"):
        to_scipy(H).matvec(np.ones(D) * 1j)
    with pytest.raises(InputError, match="expected real numbers, got complex128"):
        to_scipy(H).rmatvec(np.ones(D) * 1j)


class TestScales:
    @each_solver
    @pytest.mark.parametrize(
        ("dtype", "exponent"),
        [(F64, -320), (F64, -310), (F64, -307), (F64, -300), (F64, -140), (F64, 155), (F64, 300),
         (F64, 305), (F32, -40), (F32, -35)],
        ids=str,
    )  # fmt: skip
    def test_norms_at_the_limits_of_the_dtype(self, solve, dtype, exponent):
        """1e-310 ended in a message of LAPACK, 1e300 in "the operator vanishes on the basis"."""
        with pytest.raises(NumericalError) as error:
            solve((H * 10.0**exponent).to(dtype), dtype)
        one_line(error, "expected magnitudes of 1e-", f"for {dtype}, got ", "scale the operator")

    @each_solver
    def test_products_that_overflow(self, solve):
        with pytest.raises(NumericalError, match="NaN or infinite"):
            solve(torch.full((D, D), 1e308, dtype=F64))

    @each_solver
    @pytest.mark.parametrize(
        ("dtype", "exponent"),
        [(F64, -133), (F64, 149), (F32, -30), (F32, 36)], ids=str,
    )  # fmt: skip
    def test_all_other_norms_give_the_same_numbers(self, solve, dtype, exponent):
        expected, found = solve(H.to(dtype), dtype), solve((H * 10.0**exponent).to(dtype), dtype)
        tol = 1e-11 if dtype == F64 else 1e-4
        torch.testing.assert_close(found.S / 10.0**exponent, expected.S, rtol=tol, atol=tol)
        norms = getattr(expected, "residual_norms", None)
        if norms is not None:
            scaled = found.residual_norms / 10.0**exponent
            torch.testing.assert_close(scaled, norms, rtol=tol, atol=tol)
