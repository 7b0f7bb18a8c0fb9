"""How masks and eigenspaces spread over the layers, against dense sums."""

import math

import pytest
import torch

from applesandoranges.analysis.layers import layer_results, layer_shares
from skerch.decompositions import seigh
from skerch.errors import InputError
from skerch.synthmat import SynthMat
from skerch.utils import gaussian_noise

SHAPES = {"0.weight": [5, 6], "0.bias": [5], "scale": [], "1.weight": [4, 11]}
D, N = 80, 8


@pytest.fixture(scope="module", params=[None, 40_000], ids=["one block", "several blocks"])
def eigh(request):
    op = SynthMat.exp_decay((D, D), 4, 0.2, seed=3, psd=False)
    return seigh(op, N, 2 * N, seed=1, memory_budget=request.param)


@pytest.fixture(scope="module")
def mask():
    return gaussian_noise((D,), 5).abs().argsort(descending=True)[:N]


@pytest.mark.parametrize("k", [1, 4, N])
def test_shares_are_sums_of_leverage(eigh, mask, k):
    shares = layer_shares(eigh, mask, SHAPES, [1, 4, N])[k]
    leverage = eigh.vectors(k).square().sum(1)
    inside = torch.zeros(D, dtype=torch.bool)
    inside[mask[:k]] = True
    begin = 0
    for layer, shape in enumerate(SHAPES.values()):
        rows = slice(begin, begin + math.prod(shape))
        assert shares.mask[layer] == inside[rows].sum()
        torch.testing.assert_close(shares.eigenspace[layer], leverage[rows].sum())
        torch.testing.assert_close(shares.overlap[layer], leverage[rows][inside[rows]].sum())
        begin = rows.stop
    assert int(shares.mask.sum()) == k
    assert float(shares.eigenspace.sum()) == pytest.approx(k)


def test_bodies_name_the_layers(eigh, mask):
    bodies = list(layer_results(eigh, mask, SHAPES, [N, 4]))
    assert [body["K"] for body in bodies] == [N, 4]
    assert bodies[0]["layers"] == list(SHAPES)
    assert bodies[0]["layer_sizes"] == [30, 5, 1, 44]


def test_shapes_of_other_parameters_are_refused(eigh, mask):
    with pytest.raises(InputError, match="expected parameters of 80 values in all, got 5"):
        layer_shares(eigh, mask, {"bias": [5]}, [1])
