"""What counts as an operator, and which devices are the same one."""

from types import SimpleNamespace

import pytest
import torch

from skerch import as_linop
from skerch.adapters import _same_device
from skerch.errors import InputError


@pytest.mark.parametrize(
    ("a", "b", "same"),
    [
        ("cuda", "cuda:0", True), ("cuda:1", "cuda", True), ("cuda:1", "cuda:1", True),
        ("cuda:0", "cuda:1", False), ("cpu", "cuda", False), ("cpu", "cpu", True),
    ],
)  # fmt: skip
def test_a_device_without_number_is_any_of_its_kind(a, b, same):
    assert _same_device(torch.device(a), torch.device(b)) == same


class OnlyProduct:
    def __matmul__(self, X):
        return X


@pytest.mark.parametrize("op", [SimpleNamespace(shape=(3, 3)), OnlyProduct()], ids=["shape", "@"])
def test_half_an_operator_is_none(op):
    with pytest.raises(InputError, match=r"expected an operator with a shape \(H, W\) and @"):
        as_linop(op)


def test_a_function_with_a_shape_of_its_own_is_a_function():
    def double(X):
        return 2 * X

    double.shape = (3, 3)
    A = as_linop(double, (3, 3))
    torch.testing.assert_close(A @ torch.ones(3, 1).double(), torch.full((3, 1), 2.0).double())
