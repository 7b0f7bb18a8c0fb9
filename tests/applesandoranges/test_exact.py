"""Comparisons with exact eigenpairs, on matrices whose answer is known in closed form."""

import math

import pytest
import torch

from applesandoranges.analysis.exact import exact_eigh, exact_results
from skerch.core.row_blocks import RowBlocks
from skerch.results import Eigh

pytestmark = pytest.mark.numerical

D = 12


def values(*numbers):
    return torch.tensor(numbers, dtype=torch.float64)


@pytest.fixture(scope="module")
def exact():
    S = values(5, -5, 3, -2, 1, *[0.1] * (D - 5))
    return exact_eigh(torch.diag(S), 4)


def rotated(exact, angle, signs=(1, 1, 1, 1), S=(5, -5, 3, -2)):
    """Return the exact vectors, the third of them turned by an angle out of their span."""
    V = torch.eye(D, dtype=torch.float64)[:, :4] * values(*signs)
    V[:, 2] = math.cos(angle) * V[:, 2] + math.sin(angle) * torch.eye(D).double()[:, -1]
    # The exact solver may have either of 5 and -5 first.
    first = [0, 1] if exact.S[0] > 0 else [1, 0]
    V, S = V[:, [*first, 2, 3]], values(*S)[[*first, 2, 3]]
    return Eigh(S, torch.eye(4, dtype=torch.float64), RowBlocks(V), torch.eye(4).double())


def results(exact, sketch):
    bodies = list(exact_results(exact, sketch))
    flat = {name: value for body in bodies if "K" not in body for name, value in body.items()}
    return flat, {body["K"]: body for body in bodies if "K" in body}


@pytest.mark.parametrize("signs", [(1, 1, 1, 1), (-1, 1, -1, 1), (-1, -1, -1, -1)], ids=str)
@pytest.mark.parametrize("angle", [0.0, 0.1, math.pi / 3, math.pi / 2])
def test_distance_of_vectors_is_that_of_the_better_sign(exact, angle, signs):
    """Of unit vectors at an angle t: ``2 sin(t / 2)``."""
    flat, by_rank = results(exact, rotated(exact, angle, signs))
    expected = [0, 0, 2 * math.sin(angle / 2), 0]
    assert flat["eigvec_resnorm"].tolist() == pytest.approx(expected, abs=1e-7)
    assert max(by_rank[4]["principal_angles"]) == pytest.approx(angle, abs=1e-7)
    assert by_rank[4]["subspace_alignment"] == pytest.approx((3 + math.cos(angle) ** 2) / 4)


def test_vectors_that_are_longer_than_one_by_round_off_are_no_error(exact):
    """Of the exact vectors themselves, in single precision: cosines above 1 have no arc."""
    sketch = rotated(exact, 0.0)
    longer = Eigh(sketch.S, sketch.U * (1 + 1e-7), sketch.Y, sketch.factor)
    flat, _ = results(exact, longer)
    assert flat["eigvec_resnorm"].tolist() == [0, 0, 0, 0]


def test_exchanged_signs_are_no_error_of_eigenvalues(exact):
    """Of +5 and -5 the sketch has the other one first: by rank alone the error would be 10."""
    sketch = rotated(exact, 0.0)
    exchanged = Eigh(sketch.S[[1, 0, 2, 3]], sketch.U[:, [1, 0, 2, 3]], sketch.Y, sketch.factor)
    flat, _ = results(exact, exchanged)
    assert flat["eigval_errors"].tolist() == pytest.approx([0, 0, 0, 0], abs=1e-12)


def test_frobenius_errors_in_closed_form(exact):
    _, by_rank = results(exact, rotated(exact, math.pi / 2))
    total = 2 * 25 + 9 + 4 + 1 + (D - 5) * 0.01
    # The third pair, 3 u u^T with H u = 0.1 u, takes nothing away and adds (3 - 0.1)^2 - 0.1^2.
    left = total - 2 * 25 - 4 + (3 - 0.1) ** 2 - 0.1**2
    assert by_rank[4]["rel_frob_error"] == pytest.approx((left / total) ** 0.5, rel=1e-9)
    best = 1 + (D - 5) * 0.01
    assert by_rank[4]["best_rel_frob_error"] == pytest.approx((best / total) ** 0.5, rel=1e-9)
