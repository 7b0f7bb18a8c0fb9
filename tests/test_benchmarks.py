"""The benchmarks run, at tiny size; their numbers mean nothing here."""

import json

import pytest

from benchmarks import __main__, report
from benchmarks.harness import cases, run_here

SLOW = {
    "peers",
    "measurement_allcnnc",
    "pipeline",
    "analysis_memory",
    "analysis_3c3d",
    "measurement_resnet18",
}
NAMES = [pytest.param(n, marks=pytest.mark.slow) if n in SLOW else n for n in cases()]


@pytest.mark.parametrize("name", NAMES)
def test_case_runs(name, tmp_path):
    path = run_here(cases()[name], "tiny", tmp_path)
    record = json.loads(path.read_text())
    assert record["case"] == name
    assert record["results"]
    assert len(record["commit"]) == 40
    assert record["peak_rss_bytes"] > 0
    assert {"processor", "cores", "threads", "packages"} <= record["environment"].keys()


def test_both_analyses_agree(tmp_path):
    results = json.loads(run_here(cases()["analysis_naive"], "tiny", tmp_path).read_text())[
        "results"
    ]
    assert results["eigenvalue_difference"] < 1e-4
    assert results["curve_difference"] < 1e-4


def test_list_names_every_case(capsys):
    assert __main__.main(["--list"]) == 0
    listed = [line.split()[0] for line in capsys.readouterr().out.splitlines()]
    assert listed == list(cases())


def test_unknown_cases_are_refused(capsys):
    with pytest.raises(SystemExit) as stopped:
        __main__.main(["nothing"])
    assert stopped.value.code == 2
    assert (
        "unknown cases nothing; there are analysis_3c3d, analysis_growth" in capsys.readouterr().err
    )


def test_a_case_runs_in_a_process_of_its_own(tmp_path):
    assert __main__.main(["--size", "tiny", "--output", str(tmp_path), "analysis_naive"]) == 0
    assert (tmp_path / "analysis_naive.json").is_file()


def test_report_has_the_sections_whose_results_are_there(tmp_path):
    for name in ("analysis_naive", "analysis_growth", "measurement_mnist_mini"):
        path = run_here(cases()[name], "tiny", tmp_path)
        path.write_text(path.read_text().replace('"size": "tiny"', '"size": "full"'))
    text = report.write(tmp_path, tmp_path / "docs").read_text()
    assert "## Against the naive way" in text
    assert "| mnist_mini | 7,030 |" in text
    assert "## Other eigensolvers" not in text
    assert (tmp_path / "docs" / "performance_growth.png").read_bytes().startswith(b"\x89PNG")


def test_report_refuses_tiny_results(tmp_path):
    run_here(cases()["analysis_naive"], "tiny", tmp_path)
    with pytest.raises(SystemExit, match="no results of full size"):
        report.write(tmp_path, tmp_path / "docs")
