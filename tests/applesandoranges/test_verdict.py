"""The verdict on a recovery: what speaks against it, and what to raise."""

import math

import pytest
import torch

from applesandoranges.analysis.verdict import verdict
from skerch.core.row_blocks import RowBlocks
from skerch.results import Eigh


def recovered(residuals=None, **diagnostics):
    eye = torch.eye(4, dtype=torch.float64)
    norms = None if residuals is None else torch.tensor(residuals, dtype=torch.float64)
    S = torch.tensor([8.0, -4.0, 2.0, 1.0], dtype=torch.float64)
    return Eigh(S, eye, RowBlocks(eye), eye, diagnostics, norms)


GOOD = {"core_condition": 6.0, "core_asymmetry": 0.1}
AGAINST = {
    "condition": (recovered(core_condition=1e3), 0.1, "ill-conditioned", "NUM_INNER"),
    "condition is NaN": (recovered(core_condition=math.nan), 0.1, "ill-conditioned", "NUM_INNER"),
    "asymmetry": (recovered(core_asymmetry=0.9), 0.1, "far from symmetric", "20a"),
    "error": (recovered(**GOOD), 0.6, "explain too little", "RECOVERY=krylov"),
    "error is NaN": (recovered(**GOOD), math.nan, "explain too little", "RECOVERY=krylov"),
    "residual": (recovered([0.1, 1.0, 0.0, 0.0]), 0.1, "not converged", "NUM_ROUNDS"),
}


@pytest.mark.parametrize("case", AGAINST.values(), ids=AGAINST.keys())
def test_concerns_are_named_with_a_remedy(case):
    eigh, error, what, remedy = case
    body = verdict(eigh, error)
    assert body["trustworthy"] is False
    assert what in body["verdict"]
    assert remedy in body["remedies"][0]
    assert len(body["remedies"]) == 1


@pytest.mark.parametrize(
    ("eigh", "error", "text"),
    [
        (recovered(**GOOD), 0.1, "good: estimated relative error 0.1"),
        (recovered(**GOOD), 0.4, "good for the leading pairs"),
        (recovered(**GOOD), None, "its error was not estimated"),
        # The trailing half of a Krylov basis need not be converged.
        (recovered([0.0, 0.1, 5.0, 5.0]), 0.1, "good: estimated"),
    ],
    ids=["good", "usable", "not estimated", "leading half converged"],
)
def test_nothing_speaks_against_it(eigh, error, text):
    body = verdict(eigh, error)
    assert body["trustworthy"] is True
    assert text in body["verdict"]
    assert body["remedies"] == []
