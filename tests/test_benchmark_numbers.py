"""What the benchmarks report, against numbers worked out by hand and clocks that are set."""

import json
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch

from benchmarks import analysis, harness, measurement, report
from benchmarks.dct import ScipySSRFT
from benchmarks.naive import naive_overlap
from benchmarks.synthetic import known_operator, problem_batches
from skerch.ssrft import SSRFT


class Clock:
    """Shows the times that it is given, one after the other."""

    def __init__(self, *times):
        self.times = iter(times)

    def perf_counter(self):
        return next(self.times)


@pytest.fixture
def clock(monkeypatch):
    def put(*times):
        monkeypatch.setattr(harness, "time", Clock(*times))

    return put


# ----------------------------------------------------------- times


def test_seconds_are_those_of_one_call(clock):
    clock(3.0, 10.5)
    called = []
    assert harness.seconds(lambda: called.append(1)) == 7.5
    assert called == [1]


def test_stages_add_up(clock):
    clock(1.0, 4.0, 10.0, 30.0, 40.0, 41.0)
    stages = harness.Stages()
    assert stages("a", lambda: "result") == "result"
    stages("b", lambda: None)
    stages("a", lambda: None)
    assert stages.seconds == {"a": 4.0, "b": 20.0}


PEAKS = """
import numpy as np
from benchmarks.harness import Stages

stages = Stages()
stages("small", lambda: None)
stages("large", lambda: np.ones(200 * 2**20, np.uint8))
print(stages.peak_rss_bytes["large"] - stages.peak_rss_bytes["small"])
"""


def test_peak_memory_of_a_stage_is_what_it_holds():
    """In a process of its own: what tests before it freed would be counted."""
    done = subprocess.run([sys.executable, "-c", PEAKS], capture_output=True, text=True, check=True)
    assert 0.8 * 200 * 2**20 < int(done.stdout) < 2 * 200 * 2**20


def test_summary():
    values = {"median": 2.0, "min": 1.0, "max": 7.0, "runs": 3}
    assert harness.summary([7.0, 1.0, 2.0]) == values


@pytest.mark.parametrize(("power", "factor"), [(1, 1), (1.5, 3), (2, 0.1)])
def test_fitted_power(power, factor):
    sizes = [10, 20, 50, 100]
    times = [factor * size**power for size in sizes]
    assert analysis.fitted_power(sizes, times) == pytest.approx(power)


def test_a_tiny_case_takes_what_it_does_not_change_from_the_full_one():
    for case in harness.cases().values():
        assert case.parameters["tiny"].keys() == case.parameters["full"].keys()


def test_costs_of_a_measurement_are_relative_to_the_median_gradient():
    times = {"gradient": [4.0, 2.0, 3.0], "product": [6.0, 9.0], "transforms": [3.0, 1.5],
             "computing": [9.0, 12.0], "measuring": [10.0, 15.0]}  # fmt: skip
    plan = SimpleNamespace(summary=lambda: {"engine": "vmap"})
    recorded = SimpleNamespace(dim=7, operator=SimpleNamespace(plan=plan))
    turns = SimpleNamespace(
        times=times, recorded=recorded, drawing=0.5, storing=[1.0, 3.0], waiting=[0.25]
    )
    found = measurement._Turns.summary(turns)
    assert found["num_params"] == 7
    assert found["per_gradient"]["product"] == {"median": 2.5, "min": 2.0, "max": 3.0, "runs": 2}
    assert found["per_gradient"]["transforms"]["median"] == 0.75
    assert found["per_gradient"].keys() == times.keys() - {"gradient"}
    assert found["seconds"]["measuring"]["median"] == 12.5
    added = {"median": 2.0, "min": 1.0, "max": 3.0, "runs": 2}
    assert found["storing_added_seconds"] == added
    assert found["storing_alone_seconds"]["median"] == 2.0
    assert found["waiting_for_storing_seconds"]["median"] == 0.25


# ----------------------------------------------------------- what is computed


def test_known_operator_has_the_eigenvalues_it_says():
    values = (known_operator(50) @ torch.eye(50)).diagonal()
    largest = values.abs().sort(descending=True).values
    torch.testing.assert_close(largest, 1 / torch.arange(1, 51))
    assert 0 < (values < 0).sum() < 50


def test_sketch_in_memory_is_the_sketch_of_the_known_operator():
    dim, outer, inner = 40, 3, 8
    Y, W, params = analysis.sketch_in_memory(dim, outer, inner)
    H = torch.diag(params).double()
    eye = torch.eye(dim, dtype=torch.float64)
    Phi, Psi = (SSRFT((inner, dim), analysis.SEED + n) @ eye for n in (0, 1))
    torch.testing.assert_close(Y.double(), (H @ Psi.T)[:, :outer], atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(W.double(), Phi @ H @ Psi.T, atol=1e-5, rtol=1e-4)


def test_naive_overlap_is_that_of_the_largest_parameters():
    V = torch.linalg.qr(torch.randn(9, 3, generator=torch.Generator().manual_seed(0))).Q
    params = torch.tensor([0.1, -5, 0.2, 3, 0, 0, -4, 0.3, 0.4])
    rows = [1, 6, 3]
    expected = [float(V[rows[:k], :k].square().sum()) for k in (1, 2, 3)]
    assert naive_overlap(V, params).tolist() == pytest.approx(expected)


def test_errors_of_an_analysis_are_those_of_known_eigenvalues():
    S = [1.02, -0.49, *(1 / k for k in range(3, 20)), 0.9]  # of twenty, two are the top tenth
    rest, whole = (sum(1 / k**2 for k in range(first, 41)) for first in (21, 1))
    found = analysis.errors({"S": S, "Frob(H-H_K)^2": 4 * rest, "Frob(H)^2": 9 * whole}, 40)
    assert found["top_tenth"] == pytest.approx(0.02, rel=1e-5)
    assert found["residual_over_best_residual"] == pytest.approx(2)
    assert found["estimated_over_true_norm"] == pytest.approx(3)


def test_batches_hold_as_many_points_as_asked():
    _, batches = problem_batches("mnist_mini", 10, 4)
    assert [(len(X), len(y)) for X, y in batches] == [(4, 4), (4, 4), (2, 2)]
    assert torch.cat([y for _, y in batches]).tolist() == list(range(10))


@pytest.mark.parametrize("direction", ["forward", "adjoint"])
def test_the_transform_of_scipy_is_the_same_operator(direction):
    ours, theirs = SSRFT((5, 30), 3), ScipySSRFT((5, 30), 3, 1)
    X = torch.randn(2, 30 if direction == "forward" else 5)
    found = getattr(theirs, direction)(X.clone())
    torch.testing.assert_close(found, getattr(ours, direction)(X), atol=1e-5, rtol=1e-4)


# ----------------------------------------------------------- what is written


@pytest.mark.parametrize(
    ("values", "unit", "factor", "text"),
    [
        ({"median": 2.0, "min": 1.0, "max": 4.0, "runs": 3}, " s", 1, "2 s (1 to 4)"),
        ({"median": 0.002, "min": 0.001, "max": 0.0041, "runs": 2}, " ms", 1e3, "2 ms (1 to 4.1)"),
        ({"median": 2.0, "min": 2.0, "max": 2.0, "runs": 1}, "", 1, "2"),
    ],
)
def test_spread(values, unit, factor, text):
    assert report.spread(values, unit, factor) == text


def test_tables_and_gigabytes():
    assert report.gigabytes(2.348e9) == "2.35 GB"
    rows = [{"a": 1, "b": "x"}, {"a": 2, "b": "y"}]
    assert report.table(rows) == "| a | b |\n| --- | --- |\n| 1 | x |\n| 2 | y |"


def test_sections_say_the_numbers_of_their_records(tmp_path):
    once = {"median": 3.0, "min": 3.0, "max": 3.0, "runs": 1}
    naive = {"seconds": once, "naive_seconds": 60.0, "ratio": 20.0, "eigenvalue_difference": 2e-6}
    sizes = {"dim": 1000, "outer": 4, "inner": 8}
    text = report.naive_section(
        {"analysis_naive": {"results": naive, "parameters": sizes}}, tmp_path
    )
    assert "At D = 1,000, n_o = 4, n_i = 8" in text
    assert "take 3 s;" in text
    assert "take 60.0 s: **20 times** as long" in text
    assert "up to 2e-06 of the largest" in text
    pipeline = {"seconds": {"10c": 30.0, "10d": 10.0}, "shares": {"10c": 0.75, "10d": 0.25},
                "total_seconds": 40.0}  # fmt: skip
    parameters = {"num_data": 5, "steps": 2, "outer": 3, "inner": 6}
    text = report.pipeline_section(
        {"pipeline": {"results": pipeline, "parameters": parameters}}, tmp_path
    )
    assert "| 10c | 30.0 | 75 % |\n| 10d | 10.0 | 25 % |" in text
    assert "n_o = 3, n_i = 6: 40 s in all" in text
    costs = {"measurement_3c3d": {"results": {"seconds": {"measuring": {"median": 1.5}}}}}
    stages = {"merging": 60.0, "core": 60.0, "checking Q": 1e9}
    of_analysis = {"outer": 20, "inner": 80, "num_a_posteriori": 30}
    run = {"parameters": of_analysis, "results": {"run": {"seconds": stages}}}
    text = report._full_estimate(costs | {"analysis_3c3d": run})
    assert "80 x 1.50 s = 2 minutes of measuring, 30 more products" in text
    assert "and 2.0 minutes of analysis" in text


def test_one_pass_and_start_say_the_numbers_of_their_records(tmp_path):
    def run(seconds):
        return {"seconds": {"a": seconds, "b": 1.0}, "peak_rss_bytes": 1.25e9,
                "rss_at_start_bytes": 6e8}  # fmt: skip

    errors = {"top_tenth": 0.02, "residual_over_best_residual": 1.5}
    results = {
        "runs": {"seigh": run(9.0), "nystrom": run(19.0)}, "time_ratio": 2.0,
        "measuring_ratio": 0.55, "errors": {"seigh": errors, "nystrom": errors},
        "making_seconds": {"seigh": {"computing": 40.0}, "nystrom": {"computing": 22.0}},
    }  # fmt: skip
    parameters = {"dim": 4000, "outer": 20, "inner": 40, "budget": 10**9}
    record = {"results": results, "parameters": parameters}
    text = report.one_pass_section({"analysis_one_pass": record}, tmp_path)
    assert "| seigh | 20 | 40 s | 10 s | 1.25 GB | 0.60 GB | 2 % | 1.50 |" in text
    assert "| nystrom | 40 | 22 s | 20 s |" in text
    assert "**2.00 times** as long" in text
    assert "**0.55 times**" in text
    took = {"median": 0.2, "min": 0.1, "max": 0.3, "runs": 3}
    names = ("first_output", "loaded", "help", "refusal")
    found = {f"{name}_seconds": took | {"median": 0.2 * n} for n, name in enumerate(names, 1)}
    text = report.start_section({"start": {"results": {"10a.py": found}}}, tmp_path)
    assert "| 10a.py | 0.2 (0.1 to 0.3) | 0.4 (0.1 to 0.3) | 0.6 (0.1 to 0.3) |" in text


def test_growth_compares_with_what_is_allowed(tmp_path):
    def part(D, n, value):
        took = {"median": value, "min": value, "max": value, "runs": 1}
        return {"D": D, "n_o": n, "seconds": {"core": took}}

    def results(power):
        rows = [part(10, 5, 1.0), part(100, 5, 20.0)]
        return {
            "D": {"rows": rows, "power": power, "allowed_power": 1.2},
            "n_o": {"rows": [part(10, 5, 1.0)] * 2, "power": 1.9, "allowed_power": 2.0},
        }

    for power, met in ((1.1, True), (1.3, False)):
        records = {"analysis_growth": {"results": results(power)}}
        text = report.growth_section(records, tmp_path)
        assert f"Over D, total time grows with the power {power:.2f}" in text
        assert ("is **not met**" not in text) == met
        assert "| 100 | 5 | 20 s |" in text


def test_tiny_results_and_unknown_cases_are_left_out(tmp_path):
    for name, size in (("dct", "full"), ("analysis_naive", "tiny"), ("unknown", "full")):
        (tmp_path / f"{name}.json").write_text(json.dumps({"size": size}))
    assert list(report.read_records(tmp_path)) == ["dct"]
