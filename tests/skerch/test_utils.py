from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from skerch.budget import default_memory_budget, resolve_budget, rows_within
from skerch.ssrft import SSRFT
from skerch.utils import (
    InputError,
    NumericalError,
    SkerchError,
    StoreError,
    check_finite,
    gaussian_noise,
    rademacher,
    randperm,
    uniform_noise,
)

pytestmark = pytest.mark.numerical

VECTORS = json.loads((Path(__file__).parents[1] / "vectors" / "noise.json").read_text())

DRAWN = {
    "uniform_f64_seed7_n6": lambda: uniform_noise(6, 7),
    "gaussian_f64_seed7_n6": lambda: gaussian_noise(6, 7),
    "gaussian_f32_seed7_n6": lambda: gaussian_noise(6, 7, dtype=torch.float32),
    "randperm_seed7_n12": lambda: randperm(12, 7),
    "randperm_inverse_seed7_n12": lambda: randperm(12, 7, inverse=True),
    "rademacher_mask_seed7_n16": lambda: rademacher(16, 7),
}
NOISE = {
    "uniform": uniform_noise,
    "gaussian": gaussian_noise,
    "rademacher": rademacher,
}


def test_every_reference_vector_is_covered():
    assert set(DRAWN) == set(VECTORS)


@pytest.mark.parametrize("name", DRAWN)
def test_noise_matches_the_reference(name, assert_close):
    assert_close(DRAWN[name](), VECTORS[name], tol=1e-12)


@pytest.mark.parametrize("noise", NOISE.values(), ids=NOISE)
class TestNoise:
    def test_an_integer_is_a_shape(self, noise):
        assert torch.equal(noise(5, 3), noise((5,), 3))

    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
    def test_shape_and_dtype(self, noise, dtype):
        drawn = noise((2, 3), 3, dtype=dtype)
        assert drawn.shape == (2, 3)
        assert drawn.dtype == dtype

    def test_same_seed_same_numbers_other_seed_others(self, noise):
        assert torch.equal(noise(40, 3), noise(40, 3))
        assert not torch.equal(noise(40, 3), noise(40, 4))

    def test_the_global_generator_is_left_alone(self, noise):
        before = torch.get_rng_state()
        noise(40, 3)
        assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("seed", [1.5, 2**64, -(2**63) - 1, "3", None], ids=str)
def test_a_seed_is_a_whole_number_of_64_bits(seed):
    for draw in (lambda: gaussian_noise(3, seed), lambda: SSRFT((2, 5), seed)):
        with pytest.raises(InputError, match=r"^seed: expected a"):
            draw()


def test_a_seed_may_be_any_integer():
    assert torch.equal(gaussian_noise(3, np.int32(7)), gaussian_noise(3, 7))


@pytest.mark.parametrize("budget", [0, -1, math.nan, math.inf])
def test_a_budget_is_a_number_of_bytes(budget):
    with pytest.raises(InputError, match=r"^memory_budget: expected a number of bytes"):
        resolve_budget(budget)


def test_uniform_noise_lies_in_the_unit_interval():
    drawn = uniform_noise(10_000, 1)
    assert 0 <= float(drawn.min()) < 0.01
    assert 0.99 < float(drawn.max()) < 1


def test_gaussian_mean_and_std_shift_and_scale(assert_close):
    expected = -2.0 + 3.0 * gaussian_noise((4, 5), 9)
    assert_close(gaussian_noise((4, 5), 9, mean=-2.0, std=3.0), expected)


@pytest.mark.parametrize(
    ("noise", "mean", "variance", "fourth"),
    [
        (uniform_noise, 1 / 2, 1 / 12, 1 / 80),
        (gaussian_noise, 0, 1, 3),
        (rademacher, 0, 1, 1),
    ],
    ids=NOISE,
)
def test_moments_within_four_standard_errors(noise, mean, variance, fourth):
    n = 40_000
    drawn = noise(n, 5).double()
    assert abs(float(drawn.mean()) - mean) < 4 * math.sqrt(variance / n)
    spread = (drawn - mean).square().mean()
    error = math.sqrt((fourth - variance**2) / n)
    assert abs(float(spread) - variance) <= 4 * error


def test_rademacher_holds_signs_only():
    assert set(rademacher(100, 2, dtype=torch.int8).tolist()) == {-1, 1}


def test_rademacher_signs_do_not_depend_on_the_dtype():
    assert torch.equal(rademacher(50, 2, dtype=torch.int8), rademacher(50, 2).to(torch.int8))


@pytest.mark.parametrize("n", [1, 2, 17])
def test_inverse_permutation_undoes_the_permutation(n):
    permutation, inverse = randperm(n, 3), randperm(n, 3, inverse=True)
    assert permutation.dtype == inverse.dtype == torch.int64
    assert torch.equal(permutation[inverse], torch.arange(n))
    assert torch.equal(inverse[permutation], torch.arange(n))


def test_check_finite_accepts_finite_values():
    check_finite(torch.tensor([0.0, -1e300], dtype=torch.float64), "numbers")


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf], ids=str)
def test_check_finite_counts_what_is_wrong(bad):
    with pytest.raises(NumericalError, match="numbers: 2 of 3 values"):
        check_finite(torch.tensor([bad, 0.0, bad]), "numbers")


@pytest.mark.parametrize(
    ("budget", "row_bytes", "rows"),
    [(100, 10, 10), (109, 10, 10), (10, 10, 1), (25.5, 8, 3)],
    ids=["exact", "rounds-down", "one-row", "fractional"],
)
def test_rows_within(budget, row_bytes, rows):
    assert rows_within(budget, row_bytes, "block") == rows


@pytest.mark.parametrize("budget", [9, 0, -1])
def test_rows_within_names_what_is_needed(budget):
    with pytest.raises(InputError, match=f"block: one row needs 10 bytes.*{budget}"):
        rows_within(budget, 10, "block")


def test_default_memory_budget_is_a_quarter_of_the_machine():
    fields = Path("/proc/meminfo").read_text().split()
    total = 1024 * int(fields[fields.index("MemTotal:") + 1])
    assert default_memory_budget() == pytest.approx(total / 4, rel=0.01)


@pytest.mark.parametrize(
    ("error", "builtin"),
    [(InputError, ValueError), (StoreError, RuntimeError), (NumericalError, ArithmeticError)],
    ids=["input", "store", "numerical"],
)
def test_errors_are_ours_and_of_a_builtin_kind(error, builtin):
    assert issubclass(error, SkerchError)
    assert issubclass(error, builtin)
