"""Transforms in passes, against SciPy's; short lengths take several passes and steps as well."""

from __future__ import annotations

import pytest
import scipy.fft
import torch

from skerch import dct
from skerch.dct import DCT, Scratch, SelectedDCT, SignedGather

pytestmark = pytest.mark.numerical

CPU = torch.device("cpu")
DIMS = [1, 2, 3, 7, 8, 15, 16, 30, 97, 100, 360, 385]
#: The longest single pass, and the numbers of a step.
PASSES = {
    "single": (2**14, 2**20),
    "two": (1, 2**20),
    "two-in-steps": (1, 50),
    "one-by-one": (1, 1),
}


@pytest.fixture(params=PASSES.values(), ids=PASSES)
def _passes(request, monkeypatch):
    longest, numbers = request.param
    monkeypatch.setattr(dct, "MAX_SINGLE_PASS", longest)
    monkeypatch.setattr(dct, "STEP_NUMBERS", numbers)
    monkeypatch.setattr(SelectedDCT, "MIN_LENGTH", longest)


def scratch(dtype=torch.float64):
    return Scratch(dtype, CPU)


def oracle(X):
    return scipy.fft.dct(X.double().numpy(), axis=0, norm="ortho")


def dense(gather, size):
    return gather(torch.eye(size, dtype=torch.float64))


@pytest.mark.usefixtures("_passes")
@pytest.mark.parametrize("dim", DIMS)
class TestDCT:
    def test_forward(self, dim, gaussian, assert_close):
        X, whole = gaussian(dim, 3), DCT(dim, CPU)
        Z = whole.forward(X, whole.order, scratch())
        assert_close(whole.outputs(Z), oracle(X), tol=1e-13)

    def test_inverse(self, dim, gaussian, assert_close):
        X, whole = gaussian(dim, 3), DCT(dim, CPU)
        found = whole.inverse(torch.as_tensor(oracle(X)), whole.spectrum, scratch())
        assert_close(whole.order.inverse()(found), X, tol=1e-13)

    def test_single_precision(self, dim, gaussian, assert_close):
        X, whole = gaussian(dim, 3).float(), DCT(dim, CPU)
        C = whole.outputs(whole.forward(X, whole.order, scratch(torch.float32)))
        assert C.dtype == torch.float32
        assert_close(C, oracle(X), tol=5e-6)
        found = whole.inverse(C, whole.spectrum, scratch(torch.float32))
        assert_close(whole.order.inverse()(found), X, tol=5e-6)

    def test_inputs_are_gathered(self, dim, gaussian, assert_close):
        X, whole = gaussian(dim, 2), DCT(dim, CPU)
        backwards = SignedGather(torch.arange(dim).flip(0).int(), -torch.ones(dim).char())
        Z = whole.forward(X, backwards.then(whole.order), scratch())
        assert_close(whole.outputs(Z), oracle(-X.flip(0)), tol=1e-13)


@pytest.mark.usefixtures("_passes")
@pytest.mark.parametrize("dim", DIMS)
@pytest.mark.parametrize("choice", ["first", "last", "some", "all"])
class TestSelectedDCT:
    @pytest.fixture
    def selected(self, dim, choice):
        order = torch.randperm(dim, generator=torch.Generator().manual_seed(dim))
        some = torch.cat([order[: max(1, dim // 4)], torch.tensor([0, dim // 2])]).unique()
        return {"first": order[:0].new_tensor([0]), "last": order.new_tensor([dim - 1]),
                "some": some.flip(0), "all": order}[choice]  # fmt: skip

    def test_forward(self, dim, selected, gaussian, assert_close):
        X, few = gaussian(dim, 3), SelectedDCT(selected, dim, CPU)
        assert_close(few.forward(X, few.order), oracle(X)[selected.numpy()], tol=1e-13)

    def test_adjoint(self, dim, selected, gaussian, assert_close):
        Y, few = gaussian(len(selected), 3), SelectedDCT(selected, dim, CPU)
        found = few.order.inverse()(few.adjoint(Y, scratch()))
        rows = oracle(torch.eye(dim))[selected.numpy()]
        assert_close(found, rows.T @ Y.numpy(), tol=1e-13)


@pytest.mark.parametrize("dim", [20_000, 2**15, 3 * 5 * 7 * 11 * 13, 16_411], ids=str)
def test_lengths_of_two_passes_as_they_are(dim, gaussian, assert_close):
    X, whole = gaussian(dim, 2).float(), DCT(dim, CPU)
    few = SelectedDCT(torch.tensor([0, dim // 2, dim - 1, 17]), dim, CPU)
    Z = whole.forward(X, whole.order, scratch(torch.float32))
    assert_close(whole.outputs(Z), oracle(X), tol=5e-6)
    assert_close(few.forward(X, few.order), oracle(X)[few.selected.numpy()], tol=5e-6)


@pytest.mark.parametrize(
    ("dim", "length"),
    [(1, 1), (10_000, 10_000), (10**6, 1000), (4 * 10**6, 2000), (895_210, 179_042),
     (1_387_108, 1202), (15_015 * 17, 561), (1_000_003, 1_000_003)],
)  # fmt: skip
def test_length_of_the_first_pass(dim, length):
    assert DCT(dim, CPU).length == length


class TestSignedGather:
    FIRST = SignedGather(torch.tensor([2, 0, 1, 1]).int(), torch.tensor([1, -1, 0, 1]).char())
    SECOND = SignedGather(torch.tensor([3, 3, 1]).int(), torch.tensor([-1, 1, -1]).char())

    def test_rows_are_signed_and_chosen(self):
        X = torch.tensor([[1.0, 2], [3, 4], [5, 6]])
        assert self.FIRST(X).tolist() == [[5, 6], [-1, -2], [0, 0], [3, 4]]
        assert self.FIRST(X, slice(1, 3)).tolist() == [[-1, -2], [0, 0]]

    def test_one_after_another(self):
        both = dense(self.SECOND, 4) @ dense(self.FIRST, 3)
        assert torch.equal(dense(self.FIRST.then(self.SECOND), 3), both)

    def test_inverse(self):
        gather = SignedGather(torch.tensor([2, 0, 1]).int(), torch.tensor([1, -1, -1]).char())
        product = dense(gather.inverse(), 3) @ dense(gather, 3)
        assert torch.equal(product, torch.eye(3, dtype=torch.float64))


class TestScratch:
    def test_memory_is_used_again(self):
        hand_out = scratch()
        first, smaller = hand_out("a", 3, 4), hand_out("a", 2, 5)
        assert first.shape == (3, 4)
        assert smaller.shape == (2, 5)
        assert smaller.data_ptr() == first.data_ptr()

    def test_names_do_not_share(self):
        hand_out = scratch()
        one, other = hand_out("a", 4).fill_(1), hand_out("b", 4).fill_(2)
        assert one.tolist() == [1] * 4
        assert other.tolist() == [2] * 4

    def test_more_is_made_where_it_is_too_small(self):
        hand_out = scratch(torch.float32)
        hand_out("a", 2)
        more = hand_out("a", 7)
        assert more.shape == (7,)
        assert more.dtype == torch.float32


def test_steps_do_not_matter(monkeypatch, gaussian, assert_close):
    X, selected, found = gaussian(360, 4).float(), torch.arange(0, 360, 7), []
    monkeypatch.setattr(SelectedDCT, "MIN_LENGTH", 1)
    for numbers in (1, 10**3, 10**6):
        monkeypatch.setattr(dct, "STEP_NUMBERS", numbers)
        few = SelectedDCT(selected, 360, CPU)
        found.append(few.forward(X, few.order))
    assert_close(found[1], found[0], tol=5e-6)
    assert_close(found[2], found[0], tol=5e-6)
