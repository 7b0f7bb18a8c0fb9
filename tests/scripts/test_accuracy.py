"""Rounds that end when the overlap is accurate enough: 10e and 10d with ACCURACY."""

from __future__ import annotations

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from applesandoranges.analysis.accuracy import Accuracy, overlap_error
from applesandoranges.analysis.overlap import largest_parameters, mask_curve
from applesandoranges.app.keys import parse_config
from applesandoranges.app.log import read_log
from applesandoranges.measurement.recorded_hessian import (
    RecordedHessianConfig,
    load_recorded_hessian,
)
from skerch.__main__ import main as skerch
from skerch.decompositions import block_krylov
from skerch.synthmat import SynthMat
from tests.conftest import ANALYSE, run

NEXT = "10e_next_krylov_block.py"
RANK, BLOCK, PLANNED = 2, 30, 6
SIZES = {"RECOVERY": "krylov", "NUM_ROUNDS": PLANNED, "BLOCK_SIZE": BLOCK, "NUM_OUTER": RANK}

# What is measured for several tests is measured once.
pytestmark = pytest.mark.xdist_group("accuracy")


@pytest.mark.parametrize(
    ("error", "before", "reached", "more"),
    [
        (0.04, None, True, 0),
        (0.05, None, True, 0),
        (0.4, None, False, None),
        (None, None, False, None),
        (0.2, 0.4, False, 2),
        (0.1, 0.4, False, 1),
        (0.4, 0.4, False, None),
        (0.5, 0.4, False, None),
        (math.inf, None, False, None),
    ],
)
def test_what_it_would_still_take(error, before, reached, more):
    """Halved by the last round: from 0.2 to 0.05 it takes two more."""
    found = Accuracy(k=9, wanted=0.05, error=error, before=before, num_products=18, per_round=6)
    assert found.is_reached is reached
    assert found.more_rounds == more
    assert found.body()["products_still_needed"] == (None if more is None else 6 * more)


@pytest.mark.numerical
def test_the_error_covers_the_exact_one_and_shrinks_with_rounds():
    H = SynthMat.exp_decay((400, 400), 5, 0.03, seed=3, psd=False)
    params = torch.randn(400, generator=torch.Generator().manual_seed(1))
    S, V = torch.linalg.eigh(H)
    order = S.abs().argsort(descending=True)
    k = 20
    mask = largest_parameters(params, k)
    exact = float(mask_curve(V[:, order[:k]][mask])[k - 1])
    errors = []
    for rounds in (4, 5, 6):
        found = block_krylov(H, k, rounds, 20, 5)
        error = overlap_error(found, params, k)
        recovered = float(mask_curve(found.vector_rows(mask))[k - 1])
        assert abs(recovered - exact) <= error * recovered + 1e-9
        errors.append(error)
    assert errors[0] > errors[1] > errors[2]
    assert overlap_error(block_krylov(H, k, 2, 20, 5), params, k) is None


class Rounds:
    """The rounds of one Hessian in a store of its own."""

    def __init__(self, trained, name):
        self.trained, self.store = trained, trained.root / name
        words = f"--shape 7030,7030 --outer {BLOCK} --inner 0 --sym"
        assert skerch(["create_hdf5_layout", "--hdf5dir", str(self.store), *words.split()]) == 0

    def measure(self, number):
        idxs = list(range(BLOCK))
        return self.trained.measure(
            self.store,
            STEP=2,
            ROUND=number,
            MEASUREMENT_IDXS=idxs,
            NUM_INNER=PLANNED * BLOCK,
            **SIZES,
        )

    def next_block(self, number, **changes):
        words = SIZES | {"MEASUREMENTS_DIR": self.store, "ROUND": number, "STEP": 2} | changes
        status = run(NEXT, *self.trained.recorded_words(**words))
        return status, self.last_log(NEXT)

    def analyse(self, **changes):
        words = {"STEP": 2, "INNER_VIRTUAL": None, "INNER_MONOLITHIC": None} | SIZES | changes
        return self.trained.analyse(self.store, **words), self.last_log(ANALYSE)

    def last_log(self, script):
        return read_log(self.trained.logs(script)[-1])


def texts(log):
    return [event.text for event in log.events]


def facts(log):
    return next(body for body in log.bodies("RESULT") if "overlap_error" in body)


@pytest.fixture(scope="module")
def ended(trained):
    """Three rounds have not converged, four are not enough, five are for what is asked then."""
    rounds = Rounds(trained, "accuracy")
    logs = []
    for number, wanted in enumerate((1e-9, 1e-9, 1e-9, 1e-9, 1e9)):
        assert rounds.measure(number) == 0
        status, log = rounds.next_block(number, ACCURACY=wanted)
        assert status == 0
        logs.append(log)
    return SimpleNamespace(rounds=rounds, logs=logs)


@pytest.mark.parametrize("number", range(4))
def test_a_round_that_is_not_enough_makes_the_next_block_and_says_so(ended, number):
    log, products = ended.logs[number], (number + 1) * BLOCK
    body = facts(log)
    assert (body["K"], body["num_products"], body["wanted"]) == (RANK, products, 1e-9)
    assert (body["overlap_error"] is None) == (number < 3)
    assert body["rounds_still_needed"] is None  # there is no other error to compare with
    assert "The overlap is not accurate enough yet" in texts(log)
    assert texts(log)[-1] == "Next block made"


def test_a_round_that_is_enough_ends_them(ended):
    body = facts(ended.logs[-1])
    assert (body["num_products"], body["rounds_still_needed"]) == (5 * BLOCK, 0)
    assert texts(ended.logs[-1])[-1] == "The overlap is accurate enough: no other round is needed"
    rounds = ended.rounds
    assert rounds.measure(5) == 0  # as a chain of jobs would
    measuring = rounds.last_log("10c_hessian_hdf5_measurements.py")
    assert "Nothing to measure: all requested measurements are done" in texts(measuring)
    status, log = rounds.next_block(5, ACCURACY=1e9)
    assert status == 0
    assert log.events[-1].text == "No round is left"
    assert log.events[-1].body["reason"] == "accurate enough"


@pytest.fixture(scope="module")
def recorded(trained):
    words = trained.recorded_words(STEP=2)
    return load_recorded_hessian(parse_config(RecordedHessianConfig, words))


def test_the_analysis_is_that_of_the_rounds_that_there_are(ended, recorded):
    status, log = ended.rounds.analyse(ACCURACY=1e9)
    assert status == 0
    found = {name: value for body in log.bodies("RESULT") for name, value in body.items()}
    seed, dtype = recorded.seed + 1, recorded.params.dtype
    expected = block_krylov(recorded.operator, RANK, 5, BLOCK, seed, dtype)
    np.testing.assert_allclose(found["core_S"], expected.S, rtol=1e-4)
    assert found["num_products"] == 5 * BLOCK
    assert found["diagnostics"]["early_stop"] == f"accurate enough after round 5 of {PLANNED}"
    error = overlap_error(expected, recorded.params, RANK)
    assert found["overlap_error"] == pytest.approx(error, rel=2e-2)
    assert facts(ended.logs[-1])["overlap_error"] == pytest.approx(error, rel=2e-2)


def test_the_analysis_says_what_it_would_still_take(ended):
    status, log = ended.rounds.analyse(ACCURACY=1e-9)
    assert status == 0
    before, now = facts(ended.logs[3])["overlap_error"], facts(log)["overlap_error"]
    assert now < before
    more = math.ceil(math.log(now / 1e-9) / math.log(before / now))
    assert facts(log)["rounds_still_needed"] == more
    assert facts(log)["products_still_needed"] == more * BLOCK
    assert "The overlap is not accurate enough yet" in texts(log)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"ACCURACY": 0}, "ACCURACY must be a relative error, such as 0.05, got 0"),
        ({"ACCURACY": -1}, "ACCURACY must be a relative error"),
        ({"ACCURACY": 0.1, "RECOVERY": "hmt", "NUM_ROUNDS": None}, "RECOVERY=hmt always has 2"),
    ],
)
def test_refusals(ended, capsys, changes, message):
    before = {p: p.read_bytes() for p in ended.rounds.store.iterdir()}
    capsys.readouterr()
    words = SIZES | {"MEASUREMENTS_DIR": ended.rounds.store, "ROUND": 0, "STEP": 2} | changes
    given = {name: value for name, value in words.items() if value is not None}
    assert run(NEXT, *ended.rounds.trained.recorded_words(**given)) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line
    assert {p: p.read_bytes() for p in ended.rounds.store.iterdir()} == before
