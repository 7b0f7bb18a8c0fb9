"""The verdict on a recovery: what speaks against it, and what to raise."""

import math

import pytest
import torch

from applesandoranges.analysis.uncertainty import OverlapBand
from applesandoranges.analysis.verdict import leading, runs_of, verdict
from skerch.core.row_blocks import RowBlocks
from skerch.results import Eigh

pytestmark = pytest.mark.numerical


def recovered(residuals=None, **diagnostics):
    eye = torch.eye(4, dtype=torch.float64)
    norms = None if residuals is None else torch.tensor(residuals, dtype=torch.float64)
    S = torch.tensor([8.0, -4.0, 2.0, 1.0], dtype=torch.float64)
    return Eigh(S, eye, RowBlocks(eye), eye, diagnostics, norms)


GOOD = {"core_condition": 6.0, "core_asymmetry": 0.1}
AGAINST = {
    "condition": (recovered(core_condition=1e3), "ill-conditioned", "NUM_INNER"),
    "condition is NaN": (recovered(core_condition=math.nan), "ill-conditioned", "NUM_INNER"),
    "asymmetry": (recovered(core_asymmetry=0.9), "far from symmetric", "20a"),
    "residual": (recovered([0.1, 1.0, 0.0, 0.0]), "not converged", "NUM_ROUNDS"),
}


@pytest.mark.parametrize("case", AGAINST.values(), ids=AGAINST.keys())
def test_concerns_are_named_with_a_remedy(case):
    eigh, what, remedy = case
    body = verdict(eigh, None)
    assert body["trustworthy"] is False
    assert what in body["verdict"]
    assert remedy in body["remedies"][0]
    assert len(body["remedies"]) == 1


@pytest.mark.parametrize(
    "eigh",
    # The trailing half of a Krylov basis need not be converged.
    [recovered(**GOOD), recovered([0.0, 0.1, 5.0, 5.0])],
    ids=["sketch", "leading half converged"],
)
def test_nothing_speaks_against_it(eigh):
    body = verdict(eigh, None)
    assert body["trustworthy"] is True
    assert "its error was not estimated" in body["verdict"]
    assert body["remedies"] == []


def band(below, above, eigenvalues=(0.0, 0.0, 0.0, 0.0)):
    """Return a band by relative distances of both ends."""
    curve = torch.tensor([0.5, 1.0, 1.5, 2.0], dtype=torch.float64)
    below, above, errors = (
        torch.tensor(x, dtype=torch.float64) for x in (below, above, eigenvalues)
    )
    lowest, highest = curve * (1 - below), curve * (1 + above)
    return OverlapBand(curve, lowest, highest, "subspace iteration", 30, errors)


@pytest.mark.parametrize(
    ("ends", "overlap", "eigenvalues", "texts"),
    [
        (band([0.0] * 4, [0.04] * 4), (1, 4), 4, ["overlap can be read within 5% for k = 1 ... 4"]),
        (
            band([0.15, 0.01, 0.0, 0.1], [0.0, 0.02, 0.049, 0.0], [0.01, 0.02, 0.3, 0.01]),
            (2, 3), 2,
            ["within 5% for k = 2 ... 3", "within 20% for k = 1 ... 4", "eigenvalues can be read"],
        ),
        (
            band([0.15] * 4, [0.0] * 4, [0.1] * 4), None, 0,
            ["within 20% for k = 1 ... 4", "overlap nowhere within 5%", "eigenvalues nowhere"],
        ),
    ],
    ids=["everywhere", "in the middle", "roughly"],
)  # fmt: skip
@pytest.mark.parametrize("diagnostics", [GOOD, {"core_asymmetry": 0.9}], ids=["good", "asymmetric"])
def test_what_can_be_read(ends, overlap, eigenvalues, texts, diagnostics):
    """A recovery that can be read is trusted; what its core looks like is said beside."""
    body = verdict(recovered(**diagnostics), ends)
    assert body["trustworthy"] is True
    assert (
        bool(body["remedies"])
        == ("far from symmetric" in body["verdict"])
        == (diagnostics is not GOOD)
    )
    assert (body["readable_overlap"], body["readable_eigenvalues"]) == (overlap, eigenvalues)
    assert all(text in body["verdict"] for text in texts)


def test_nothing_can_be_read():
    body = verdict(recovered(**GOOD), band([0.3] * 4, [0.1, 0.5, 0.5, 0.5]))
    assert body["trustworthy"] is False
    assert "known to 20% for hardly any k" in body["verdict"]
    assert "at k = 4 it lies between 0.35 and 0.75" in body["verdict"]
    (remedy,) = body["remedies"]
    assert "RECOVERY=krylov" in remedy
    assert (body["readable_overlap"], body["readable_eigenvalues"]) == (None, 4)


@pytest.mark.parametrize("begin", [0, 14, 18])
@pytest.mark.parametrize(("length", "trusted"), [(1, False), (2, True)])
def test_a_tenth_of_all_k_must_be_of_use(begin, length, trusted):
    """Of twenty pairs, two in a row, wherever they are."""
    n = 20
    curve = torch.ones(n, dtype=torch.float64)
    above = torch.full((n,), 0.9, dtype=torch.float64)
    above[begin : begin + length] = 0.1
    ends = OverlapBand(curve, curve, curve + above, "by hand", 30, torch.zeros(n))
    eye = torch.eye(n, dtype=torch.float64)
    eigh = Eigh(torch.arange(n, 0, -1).double(), eye, RowBlocks(eye), eye, GOOD)
    assert verdict(eigh, ends)["trustworthy"] == trusted


@pytest.mark.parametrize(
    ("errors", "runs", "number"),
    [
        ([0, 0, 0], [(1, 3)], 3),
        ([1, 0, 0, 1, 0], [(2, 3), (5, 5)], 0),
        ([0, 1, 0, 0, 0], [(1, 1), (3, 5)], 1),
        ([1, 1], [], 0),
        ([], [], 0),
        ([math.nan, 0], [(2, 2)], 0),
    ],
)
def test_runs(errors, runs, number):
    errors = torch.tensor(errors, dtype=torch.float64)
    assert (runs_of(errors, 0.5), leading(errors, 0.5)) == (runs, number)


NARROW = band([0.0] * 4, [0.0] * 4)


@pytest.mark.parametrize("ends", [None, NARROW], ids=["no band", "band"])
def test_nothing_is_readable_of_a_cluster_as_wide_as_a_block(ends):
    body = verdict(recovered(cluster_wider_than_block=12.0, **GOOD), ends)
    assert body["trustworthy"] is False
    assert "12 eigenvalues are equal" in body["verdict"]
    assert body["remedies"][0] == "raise BLOCK_SIZE, with fewer rounds"
    assert not body.get("readable_overlap")
    assert not body.get("readable_eigenvalues")


@pytest.mark.parametrize("ends", [None, NARROW], ids=["no band", "band"])
def test_ties_are_told(ends):
    body = verdict(recovered(**GOOD), ends, num_tied=4800)
    assert body["trustworthy"] is True
    assert "up to 4800 parameters are equally large" in body["verdict"]


def test_pairs_that_are_not_converged_are_not_readable():
    """The third residual is a tenth of the largest eigenvalue."""
    body = verdict(recovered([0.0, 0.1, 0.8, 0.0]), NARROW)
    assert (body["readable_overlap"], body["readable_eigenvalues"]) == ((1, 2), 2)
    assert body["trustworthy"] is True
    body = verdict(recovered([0.0, 0.8, 0.0, 0.0]), NARROW)
    assert (body["readable_overlap"], body["readable_eigenvalues"]) == ((1, 1), 1)
    assert "not converged" in body["verdict"]
    assert body["remedies"] == ["raise NUM_ROUNDS"]


def test_a_narrow_band_is_not_called_wide_where_pairs_are_not_converged():
    residuals = [0.0, *[0.8] * 19]
    eye = torch.eye(20, dtype=torch.float64)
    S = torch.linspace(8, 1, 20, dtype=torch.float64)
    norms = torch.tensor(residuals, dtype=torch.float64)
    zeros = torch.zeros(20, dtype=torch.float64)
    ends = OverlapBand(S, S, S, "fewer columns", 0, zeros)
    body = verdict(Eigh(S, eye, RowBlocks(eye), eye, {}, norms), ends)
    assert body["trustworthy"] is False
    assert "for hardly any k up to 1, beyond which pairs are not converged" in body["verdict"]
    assert "it lies between" not in body["verdict"]
    assert body["remedies"] == ["raise NUM_ROUNDS"]
