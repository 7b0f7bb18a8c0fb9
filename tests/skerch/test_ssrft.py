from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from skerch import dct
from skerch import ssrft as ssrft_module
from skerch.linops import adjoint_mismatch
from skerch.ssrft import SSRFT, ssrft, ssrft_adjoint
from skerch.utils import InputError

pytestmark = pytest.mark.numerical

CASES = json.loads((Path(__file__).parents[1] / "vectors" / "ssrft.json").read_text())["cases"]
SHAPES = [(1, 1), (1, 2), (2, 2), (1, 7), (7, 7), (5, 16), (16, 16), (6, 15), (15, 15), (30, 97)]


def shape_id(shape):
    return f"{shape[0]}x{shape[1]}"


def eye(n, dtype=torch.float64):
    return torch.eye(n, dtype=dtype)


@pytest.fixture(params=["as-it-is", "several-passes"])
def _passes(request, monkeypatch):
    """Short transforms take one pass, unless told otherwise."""
    if request.param == "several-passes":
        monkeypatch.setattr(dct, "MAX_SINGLE_PASS", 1)
        monkeypatch.setattr(dct.SelectedDCT, "MIN_LENGTH", 1)
        monkeypatch.setattr(dct, "STEP_NUMBERS", 50)


@pytest.mark.usefixtures("_passes")
@pytest.mark.parametrize("case", CASES, ids=lambda c: shape_id(c["shape"]))
class TestReferenceNumbers:
    def test_forward(self, case, assert_close):
        x = torch.tensor(case["x"], dtype=torch.float64)
        S = SSRFT(case["shape"], case["seed"])
        assert_close(S @ x, case["forward_S_at_x"], tol=1e-12)
        assert_close(ssrft(x, case["shape"][0], case["seed"]), case["forward_S_at_x"], tol=1e-12)

    def test_adjoint(self, case, assert_close):
        y = torch.tensor(case["y"], dtype=torch.float64)
        found = ssrft_adjoint(y, case["shape"][1], case["seed"])
        assert_close(y @ SSRFT(case["shape"], case["seed"]), case["adjoint_y_at_S"], tol=1e-12)
        assert_close(found, case["adjoint_y_at_S"], tol=1e-12)

    def test_rows(self, case, assert_close):
        k = case["shape"][0]
        found = SSRFT(case["shape"], case["seed"]).rows([0, k - 1], torch.float64)
        assert_close(found, [case["row0"], case["row_last"]], tol=1e-12)


@pytest.mark.usefixtures("_passes")
@pytest.mark.parametrize("shape", SHAPES, ids=shape_id)
class TestAgainstExplicitMatrices:
    def test_forward(self, shape, dense_ssrft, assert_close):
        assert_close(SSRFT(shape, 5) @ eye(shape[1]), dense_ssrft(shape, 5), tol=1e-12)

    def test_adjoint(self, shape, dense_ssrft, assert_close):
        assert_close(eye(shape[0]) @ SSRFT(shape, 5), dense_ssrft(shape, 5), tol=1e-12)

    def test_rows(self, shape, dense_ssrft, assert_close):
        found = SSRFT(shape, 5).rows(range(shape[0]), torch.float64)
        assert_close(found, dense_ssrft(shape, 5), tol=1e-12)

    def test_functions(self, shape, dense_ssrft, gaussian, assert_close):
        k, D = shape
        x, y, S = gaussian(2, 3, D), gaussian(2, 3, k), dense_ssrft(shape, 5)
        assert_close(ssrft(x, k, 5), x @ S.T, tol=1e-12)
        assert_close(ssrft_adjoint(y, D, 5), y @ S, tol=1e-12)

    def test_orthonormal_rows(self, shape, assert_close):
        S = SSRFT(shape, 5)
        assert_close(S @ (eye(shape[0]) @ S).T, eye(shape[0]), tol=1e-12)

    def test_dot(self, shape):
        assert adjoint_mismatch(SSRFT(shape, 5), seed=2) < 1e-13

    def test_single_precision(self, shape, dense_ssrft, assert_close):
        S, dense = SSRFT(shape, 5), dense_ssrft(shape, 5)
        forward, adjoint = S @ eye(shape[1], torch.float32), eye(shape[0], torch.float32) @ S
        rows = S.rows(range(shape[0]))
        assert forward.dtype == adjoint.dtype == rows.dtype == torch.float32
        assert_close(forward, dense)
        assert_close(adjoint, dense)
        assert_close(rows, dense)


class TestBatches:
    S = SSRFT((9, 24), 8)

    @pytest.mark.parametrize("batch", [1, 2, 7, 20])
    def test_size_does_not_matter(self, batch, gaussian, assert_close):
        X, Y = gaussian(24, 20), gaussian(20, 9)
        forward = torch.cat([self.S @ part for part in X.split(batch, dim=1)], dim=1)
        adjoint = torch.cat([part @ self.S for part in Y.split(batch)])
        assert_close(forward, self.S @ X, tol=1e-14)
        assert_close(adjoint, Y @ self.S, tol=1e-14)

    @pytest.mark.parametrize("batch", [1, 7, 16])
    def test_batches_of_the_transforms(self, batch, gaussian, assert_close, monkeypatch):
        X, Y = gaussian(24, 20), gaussian(20, 9)
        forward, adjoint = self.S @ X, Y @ self.S
        monkeypatch.setattr(ssrft_module, "BATCH_VECTORS", batch)
        monkeypatch.setattr(ssrft_module, "FEW_NUMBERS", 0)
        assert_close(self.S @ X, forward, tol=1e-14)
        assert_close(self.S.forward(X.T), forward.T, tol=1e-14)
        assert_close(Y @ self.S, adjoint, tol=1e-14)

    @pytest.mark.parametrize("num", [0, 1])
    def test_none_or_one(self, num, gaussian):
        assert (self.S @ gaussian(24, num)).shape == (9, num)
        assert (gaussian(num, 9) @ self.S).shape == (num, 24)
        assert self.S.rows(range(num)).shape == (num, 24)

    def test_rows_in_any_order_and_repeated(self, dense_ssrft, assert_close):
        found = self.S.rows([8, 0, 3, 3], torch.float64)
        assert_close(found, dense_ssrft((9, 24), 8)[[8, 0, 3, 3]], tol=1e-12)

    def test_inputs_are_not_changed(self, gaussian):
        X, Y = gaussian(24, 3), gaussian(3, 9)
        X_before, Y_before = X.clone(), Y.clone()
        _ = self.S @ X, Y @ self.S
        assert torch.equal(X, X_before)
        assert torch.equal(Y, Y_before)


class TestRandomness:
    def test_does_not_depend_on_the_global_generator(self):
        first = SSRFT((4, 12), 6).rows(range(4))
        before = torch.manual_seed(99).get_state()
        again = SSRFT((4, 12), 6).rows(range(4))
        assert torch.equal(first, again)
        assert torch.equal(torch.get_rng_state(), before)

    def test_fewer_rows_are_the_first_of_more(self, assert_close):
        all_rows = SSRFT((12, 12), 6).rows(range(12), torch.float64)
        assert_close(SSRFT((4, 12), 6).rows(range(4), torch.float64), all_rows[:4], tol=1e-14)

    @pytest.mark.parametrize("other", [0, 5, 7, 11])
    def test_other_seeds_give_other_operators(self, other):
        difference = SSRFT((12, 12), 6).rows(range(12)) - SSRFT((12, 12), other).rows(range(12))
        assert float(difference.norm()) > 1


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: SSRFT((5, 4), 0), r"no more rows than columns, got shape \(5, 4\)"),
        (lambda: SSRFT((0, 4), 0), "positive"),
        (lambda: ssrft(torch.ones(4), 5, 0), r"got shape \(5, 4\)"),
        (lambda: ssrft_adjoint(torch.ones(5), 4, 0), r"got shape \(5, 4\)"),
        (lambda: SSRFT((3, 4), 0).rows([0, 3]), r"\[0, 3\), got \[3\]"),
        (lambda: SSRFT((3, 4), 0).rows([-1]), r"\[0, 3\), got \[-1\]"),
        (lambda: SSRFT((3, 4), 0).forward(torch.ones(2, 5)), r"\[\.\.\., 4\], got \(2, 5\)"),
        (lambda: SSRFT((3, 4), 0).adjoint(torch.ones(2, 1)), r"\[\.\.\., 3\], got \(2, 1\)"),
        (lambda: SSRFT((3, 4), 0) @ torch.ones(3), r"X has shape \(3,\)"),
        (lambda: torch.ones(4) @ SSRFT((3, 4), 0), r"X has shape \(4,\)"),
    ],
    ids=[
        "more-rows",
        "no-rows",
        "function-more-rows",
        "adjoint-more-rows",
        "row-too-large",
        "row-negative",
        "forward-too-long",
        "adjoint-would-broadcast",
        "left-product",
        "right-product",
    ],
)
def test_impossible_requests_raise(make, match):
    with pytest.raises(InputError, match=match):
        make()


@settings(derandomize=True, max_examples=30, deadline=None)
@given(D=st.integers(1, 70), data=st.data(), seed=st.integers(0, 10_000))
def test_adjoint_is_an_isometry_that_forward_undoes(D, data, seed):
    k = data.draw(st.integers(1, D), label="k")
    S = SSRFT((k, D), seed)
    y = torch.randn(k, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    x = y @ S
    assert float(x.norm()) == pytest.approx(float(y.norm()), rel=1e-12)
    assert float((S @ x - y).norm()) <= 1e-12 * float(y.norm())
    assert adjoint_mismatch(S, seed) < 1e-12


@pytest.mark.parametrize(
    ("dim", "device", "vectors"),
    [(100, "cpu", 2608), (7_030, "cpu", 32), (50_000, "cpu", 16), (4 * 10**6, "cpu", 16),
     (11_689_512, "cpu", 5), (10**9, "cpu", 1), (7_030, "cuda", 9536), (895_210, "cuda", 64)],
)  # fmt: skip
def test_vectors_of_a_batch(dim, device, vectors):
    assert ssrft_module._batch_vectors(dim, torch.device(device)) == vectors
