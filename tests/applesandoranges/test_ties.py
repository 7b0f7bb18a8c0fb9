"""Ties of parameters, against all orders of them."""

from itertools import permutations

import numpy as np
import pytest
import torch

from applesandoranges.analysis.overlap import largest_parameters, mask_curve
from applesandoranges.analysis.ties import find_ties, tied_curves
from skerch.decompositions import seigh
from skerch.synthmat import SynthMat

pytestmark = pytest.mark.numerical

D, N = 40, 8
#: Magnitudes by rank: none ties, a few in the middle, several groups, some ties beyond n, all.
MAGNITUDES = {
    "no ties": (range(D, 0, -1), []),
    "three": ([9, 8, 7, 7, 7, 6, 5, 4, 3], [0, 0, 3, 3, 0, 0, 0, 0]),
    "groups": ([9, 9, 7, 7, 7, 6, 5, 5, 3], [2, 0, 3, 3, 0, 0, 2, 0]),
    "beyond n": ([9, 8, 7, 6, 5, 4, 3, 2, 2, 2], [0, 0, 0, 0, 0, 0, 0, 3]),
    "ends at n": ([9, 8, 7, 6, 5, 4, 2, 2], [0, 0, 0, 0, 0, 0, 2, 0]),
    "from the largest": ([9, 9, 9, 9, 9, 4, 3, 2], [5, 5, 5, 5, 0, 0, 0, 0]),
}


@pytest.fixture(scope="module", params=[None, 20_000], ids=["one block", "24-row blocks"])
def eigh(request):
    op = SynthMat.exp_decay((D, D), 4, 0.2, seed=3, psd=False)
    return seigh(op, N, 2 * N, seed=1, memory_budget=request.param)


def parameters(magnitudes):
    """Return ``D`` parameters of these magnitudes in a random order, with random signs."""
    rng = np.random.default_rng(5)
    values = np.r_[list(magnitudes), np.linspace(1, 0.1, D)][:D]
    return torch.from_numpy(rng.permutation(values * rng.choice([-1, 1], D)))


def all_orders(params):
    """Yield every order of the parameters by magnitude, up to the ``N``-th."""
    order = largest_parameters(params, D)
    tied = [[int(i) for i in order if params[i].abs() == value] for value in params.abs().unique()][
        ::-1
    ]

    def extend(begin, groups):
        if len(begin) >= N or not groups:
            yield begin[:N]
        else:
            for some in permutations(groups[0]):
                yield from extend(begin + list(some), groups[1:])

    return list(extend([], tied))


@pytest.mark.parametrize("name", MAGNITUDES)
def test_all_orders_of_tied_parameters(eigh, name):
    magnitudes, num_tied = MAGNITUDES[name]
    params, V = parameters(magnitudes), eigh.vectors()
    ties = find_ties(params, N)
    if not num_tied:
        assert ties == []
        return
    found = tied_curves(eigh, ties, V[largest_parameters(params, N)])
    curves = torch.stack([mask_curve(V[order]) for order in all_orders(params)])
    assert found.num_tied.tolist() == num_tied
    torch.testing.assert_close(found.mean, curves.mean(0))
    torch.testing.assert_close(found.lowest, curves.min(0).values)
    torch.testing.assert_close(found.highest, curves.max(0).values)


def test_a_tie_of_all_parameters(eigh):
    """As at the initialisation of a network of constants: the mean is what chance gives."""
    params = torch.full((D,), -0.5)
    (tie,) = find_ties(params, N)
    found = tied_curves(eigh, [tie], eigh.vectors()[:N])
    k = torch.arange(1, N + 1)
    torch.testing.assert_close(found.mean, k**2 / D, check_dtype=False)
    assert found.num_tied.tolist() == [D] * N
