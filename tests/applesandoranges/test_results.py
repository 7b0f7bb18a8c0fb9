"""Results from logs: of published form, of several runs, of analyses that did not end."""

import json
import shutil

import numpy as np
import pytest

from applesandoranges.app.log import read_log
from applesandoranges.figures.training import measurement_times, stage_times
from applesandoranges.results.collect import read_logs
from skerch.errors import InputError
from tests.small_logs import (
    N,
    Writer,
    analysis_log,
    curve,
    exhaustive_log,
    measuring_log,
    run_directory,
    training_log,
)

#: The problems of which results were published.
DIMS = {
    "cifar10det_3c3d": 895_210,
    "cifar100_allcnnc": 1_387_108,
    "imagenetdet_resnet18": 11_689_512,
}


@pytest.mark.parametrize(("problem", "dim"), DIMS.items())
def test_analyses_state_step_and_split_in_config_only(tmp_path, problem, dim):
    directory = run_directory(tmp_path, problem)
    for step, test in ((0, False), (0, True), (2000, True)):
        analysis_log(directory, dim, step, test)
    logs = read_logs(str(tmp_path))
    assert [(r.step, r.split) for r in logs.results] == [(0, "train"), (0, "test"), (2000, "test")]
    assert {(r.problem, r.facts.seed, r.dim) for r in logs.results} == {(problem, 12345, dim)}
    np.testing.assert_allclose(logs.results[2].array("frob_Qtop^2"), curve(2000))
    assert logs.results[2].mask().tolist() == list(range(2000, 2000 + N))
    assert not logs.left_out


def test_training_without_evaluations_is_a_training(tmp_path):
    directory = run_directory(tmp_path, "imagenetdet_resnet18")
    training_log(directory, 11_689_512, evaluations=False)
    assert len(read_logs(str(tmp_path)).training) == 1


@pytest.mark.parametrize(
    "script", ["12b_mnist_mini_exhaustive_test.py", "20b_mnist_mini_random_masks.py"]
)
def test_names_and_keys_of_published_exhaustive_runs(tmp_path, script):
    exhaustive_log(run_directory(tmp_path, "mnist_mini"), 7030, script)
    logs = read_logs(str(tmp_path))
    assert [(r.step, r.split) for r in logs.results] == [
        (0, "train"), (100, "train"), (0, "test"), (100, "test"),
    ]  # fmt: skip
    result = logs.results[1]
    assert result.array("H_eigvals").tolist() == [4.0, -3.0, 2.0, -1.0, 0.5]
    np.testing.assert_allclose(result.array("frob_Qtop^2"), curve(100))
    np.testing.assert_allclose(result.array("frob_Qbest^2"), curve(99))
    np.testing.assert_allclose(result.array("frob_Qrandom^2")[2], curve(102))
    assert result.errors == [
        {"K": 8, "Frob(H)^2": 4.0, "Frob(H_K)^2": 3.0, "Frob(H-H_K)^2": 1.0},
        {"K": 4, "Frob(H)^2": 4.0, "Frob(H_K)^2": 2.0, "Frob(H-H_K)^2": 2.5},
    ]


def test_each_run_has_its_own_number_of_parameters(tmp_path):
    """Two runs of the same step and split: neither vanishes, each has its own chance level."""
    for problem, dim in DIMS.items():
        analysis_log(run_directory(tmp_path, problem), dim, 0, seed=1)
    logs = read_logs(str(tmp_path))
    assert len(logs.results) == len({r.facts.label for r in logs.results}) == 3
    for result in logs.results:
        table = result.overlap_table()
        expected = np.array(curve(1)) / np.arange(1, N + 1) ** 2 * DIMS[result.problem]
        np.testing.assert_allclose(table["ratio"], expected)


def test_runs_that_differ_only_in_their_suffix_have_different_labels(tmp_path):
    for suffix in ("1", "2"):
        analysis_log(run_directory(tmp_path, "cifar10det_3c3d", suffix=suffix), 895_210, 0)
    labels = [run.label for run, _ in read_logs(str(tmp_path)).runs]
    assert labels == ["cifar10det_3c3d, seed 12345, 1", "cifar10det_3c3d, seed 12345, 2"]


def test_logs_of_one_run_belong_together_by_its_identity(tmp_path):
    """The run directory was renamed after the training."""
    for name, header, body in (
        ("[10a_x.py]", "EVAL ROUND", {"global_step": 0}),
        ("[10d_x.py]", "RESULT", {"step": 0, "H_test": False, "frob_Qtop^2": [0.1]}),
    ):
        log = Writer(tmp_path, name)
        log("CONFIG", {"TRAINING_LOGPATH": "renamed/x.log"} if "10d" in name else {})
        facts = {"run_id": "abc"} | ({} if "10d" in name else {"run_dir": "old", "num_params": 50})
        log("GLOBALS", facts)
        log(header, body)
    logs = read_logs(str(tmp_path))
    assert [run.key for run, _ in logs.runs] == ["abc"]
    assert logs.results[0].dim == 50


def test_contradicting_numbers_of_parameters_are_refused(tmp_path):
    directory = run_directory(tmp_path, "cifar10det_3c3d")
    analysis_log(directory, 895_210, 0)
    analysis_log(directory, 895_211, 2000)
    with pytest.raises(InputError, match="different numbers of parameters, 895210, 895211"):
        read_logs(str(tmp_path))


def test_without_any_number_of_parameters_one_must_be_given(tmp_path):
    log = Writer(tmp_path, "[10d_x.py]")
    log("RESULT", {"step": 0, "frob_Qtop^2": [0.1]})
    with pytest.raises(InputError, match=r"no log of this run says num_params.*give NUM_PARAMS"):
        read_logs(str(tmp_path)).results[0].overlap_table()
    (result,) = read_logs(str(tmp_path), 20).results
    assert result.overlap_table()["ratio"].tolist() == pytest.approx([2.0])


def test_of_two_analyses_the_later_one_counts_and_this_is_said(tmp_path):
    directory = run_directory(tmp_path, "cifar10det_3c3d")
    first = analysis_log(directory, 895_210, 0, seed=1)
    second = directory / first.name.replace("2024_", "2026_")
    second.write_text(
        first.read_text().replace('["2024', '["2026').replace(str(curve(1)[0]), "9.5")
    )
    logs = read_logs(str(tmp_path))
    assert logs.results[0].array("frob_Qtop^2")[0] == 9.5
    assert logs.left_out == [f"{first}: a later analysis of step 0, test counts"]


@pytest.fixture
def whole_run(tmp_path):
    """A directory with the logs of a run: trained, measured, analysed."""
    directory = run_directory(tmp_path, "cifar10det_3c3d")
    training_log(directory, 895_210)
    measuring_log(directory)
    analysis_log(directory, 895_210, 0)
    return directory


def numbers_of(logs):
    return len(logs.training), len(logs.measuring), len(logs.analysing), len(logs.results)


@pytest.mark.parametrize(
    "form", ["{0}:{0}", "{0}:{0}/../{0.name}", "{0}:{1}"], ids=["twice", "another way", "link"]
)
def test_a_log_that_is_named_twice_counts_once(whole_run, tmp_path, form):
    link = tmp_path / "link"
    link.symlink_to(whole_run)
    logs = read_logs(form.format(whole_run, link))
    assert numbers_of(logs) == (1, 1, 1, 1)
    assert logs.left_out == logs.chosen == []


def test_a_copied_directory_counts_once_and_this_is_said(whole_run, tmp_path):
    shutil.copytree(whole_run, tmp_path / "z copy")
    logs = read_logs(str(tmp_path))
    assert numbers_of(logs) == (1, 1, 1, 1)
    (line,) = logs.left_out
    assert "a copy of" in line
    assert line.endswith("which counts once, and 2 more such copies")
    assert logs.chosen == []


def lines_at(path, stamps):
    """Give the events of a log, in order, the times of ``stamps``."""
    events = [json.loads(line)[1] for line in path.read_text().splitlines()]
    lines = [[stamps[min(i, len(stamps) - 1)], event] for i, event in enumerate(events)]
    path.write_text("\n".join(map(json.dumps, lines)) + "\n")


@pytest.mark.parametrize(
    ("first", "second"),
    [("2026-10-25_02:30:00.000+0200", "2026-10-25_02:10:00.000+0100"),
     ("2026-03-01_23:00:00.000+0900", "2026-03-01_15:00:00.000+0000"),
     ("2026-03-01_23:00:00.000+0000", "2026-03-01_23:00:00.001+0000")],
    ids=["the clock goes back", "another time zone", "a millisecond"],
)  # fmt: skip
def test_which_analysis_is_later_does_not_depend_on_clocks(tmp_path, first, second):
    """Nor on the names of the files, which have the time of the clock on the wall."""
    directory = run_directory(tmp_path, "cifar10det_3c3d")
    early = analysis_log(directory, 895_210, 0, seed=1)
    late = early.with_name(early.name.replace("2024_", "2023_"))
    late.write_text(early.read_text().replace(str(curve(1)[0]), "9.5"))
    lines_at(early, [first])
    lines_at(late, [second])
    logs = read_logs(str(tmp_path))
    assert logs.results[0].array("frob_Qtop^2")[0] == 9.5
    assert logs.left_out == [f"{early}: a later analysis of step 0, test counts"]
    (line,) = logs.chosen
    assert "of 2 analyses that which was begun last" in line
    assert f" UTC: {late.name}" in line


def test_an_analysis_of_ours_that_did_not_end_never_counts(tmp_path):
    log = Writer(tmp_path, "[10d_x.py]")
    log("GLOBALS", {"num_params": 50, "made_with": {}})
    log("RESULT", {"step": 0, "H_test": False, "frob_Qtop^2": [0.1]})
    logs = read_logs(str(tmp_path))
    assert not logs.results
    assert logs.left_out == [f"{log.path}: the analysis of step 0, train did not end"]
    log("INFO", ["Analysis done", {}])
    assert len(read_logs(str(tmp_path)).results) == 1


def test_recoveries_of_one_hessian_are_results_of_their_own(tmp_path):
    for number, recovery in enumerate(("seigh", "krylov", "nystrom")):
        log = Writer(tmp_path, f"[10d_x.py]{number}")
        log("CONFIG", {"RECOVERY": recovery})
        log("GLOBALS", {"run_id": "a", "num_params": 50})
        log("RESULT", {"step": 0, "H_test": False, "frob_Qtop^2": [0.1 * number]})
    logs = read_logs(str(tmp_path))
    assert {(r.recovery, r.quantities["frob_Qtop^2"][0]) for r in logs.results} == {
        ("seigh", 0.0), ("krylov", 0.1), ("nystrom", 0.2),
    }  # fmt: skip
    assert not logs.left_out
    assert len({r.label for r in logs.results}) == 3


@pytest.mark.parametrize("own_id", [True, False], ids=["with identity", "log without identity"])
def test_runs_in_directories_of_one_name_stay_apart(tmp_path, own_id):
    for number, place in enumerate(("a", "b")):
        log = Writer(tmp_path / place / "run", "[10d_x.py]")
        log("GLOBALS", {"run_id": f"{number}" * 32, "run_dir": "run", "num_params": 50})
        log("RESULT", {"step": 0, "H_test": False, "frob_Qtop^2": [0.1 * number]})
    if not own_id:
        log = Writer(tmp_path / "c" / "run", "[10d_x.py]")
        log("RESULT", {"step": 0, "H_test": False, "frob_Qtop^2": [0.5], "num_params": 50})
    logs = read_logs(str(tmp_path))
    assert len(logs.results) == len({r.facts.label for r in logs.results}) == 3 - own_id


@pytest.mark.parametrize("lines", [-2, -1], ids=["before the overlap", "published: no last line"])
def test_an_analysis_that_was_killed_hides_no_complete_one(tmp_path, lines):
    directory = run_directory(tmp_path, "cifar10det_3c3d")
    first = analysis_log(directory, 895_210, 0, seed=1)
    killed = directory / first.name.replace("2024_", "2026_")
    text = first.read_text().replace('["2024', '["2026').splitlines()
    killed.write_text("\n".join(text[:lines]))
    logs = read_logs(str(tmp_path))
    counts = killed if lines == -1 else first  # the overlap is there, only the mask is not
    assert logs.results[0].path == counts
    assert [log.path for log in logs.analysing] == [counts]
    assert len(logs.left_out) == 1


def test_an_analysis_that_did_not_end_counts_where_there_is_no_other(tmp_path):
    path = analysis_log(run_directory(tmp_path, "cifar10det_3c3d"), 895_210, 0)
    path.write_text("\n".join(path.read_text().splitlines()[:-2]))
    logs = read_logs(str(tmp_path))
    assert list(logs.results[0].quantities) == ["core_S"]
    assert logs.left_out == [f"{path}: the analysis of step 0, test did not end"]
    complete = analysis_log(run_directory(tmp_path, "cifar10det_3c3d"), 895_210, 2000)
    later = complete.with_name(complete.name.replace("step=2000", "step=0"))
    later.write_text(complete.read_text().replace('"STEP": 2000', '"STEP": 0'))
    assert read_logs(str(tmp_path)).results[0].path == later


def test_magnitudes_of_earlier_versions_are_no_indices(tmp_path):
    log = Writer(tmp_path, "[10d_x.py]")
    log("RESULT", {"step": 0, "frob_Qtop^2": [0.1, 0.2], "largest_absparams": [2.0, 1.5]})
    (result,) = read_logs(str(tmp_path), 20).results
    assert "largest_absparams" not in result.quantities
    assert result.quantities["largest_absparams_magnitudes"] == [2.0, 1.5]


def test_stages_of_published_logs(tmp_path):
    """Ten seconds each; the last result of the core ends it, and the overlap has no INFO line."""
    times = stage_times(read_log(analysis_log(run_directory(tmp_path, "x"), 100, 0)))
    assert times["stage"].tolist() == [
        "Building the problem", "Merging inner measurements", "Orthogonalising",
        "Solving the core", "Computing the overlap",
    ]  # fmt: skip
    assert set(times["seconds"]) == {10.0}


def test_times_of_measurements_and_of_all_in_sequence(tmp_path):
    rows = measurement_times(read_log(measuring_log(run_directory(tmp_path, "x"), num_inner=2000)))
    assert [(row["stage"], row["seconds"]) for row in rows] == [
        ("one measurement", 15.0), ("all measurements, in sequence", 30_000.0),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("body", "text", "facts"),
    [(["A"], "A", {}), (["A", {"b": 1}], "A", {"b": 1}), ("A", "A", {}), ({"b": 1}, "", {"b": 1})],
    ids=["a text alone", "text and body", "plain text", "body alone"],
)
def test_bodies_of_events(tmp_path, body, text, facts):
    path = tmp_path / "a.log"
    path.write_text(json.dumps(["2024-03-21_02:09:31.164", ["INFO", body]]))
    (event,) = read_log(path).events
    assert (event.text, event.body) == (text, facts)


@pytest.mark.parametrize("body", [[], ["A", {}, {}], [1], ["A", "B"]], ids=str)
def test_other_bodies_are_no_events(tmp_path, body):
    path = tmp_path / "a.log"
    good = '["2024-03-21_02:09:31.164", ["INFO", {}]]'
    path.write_text(f"{good}\n" + json.dumps(["2024-03-21_02:09:31.164", ["INFO", body]]))
    assert len(read_log(path).left_out) == 1


@pytest.mark.parametrize(
    ("name", "value", "what"),
    [
        ("num_tied", [None], "list of numbers"),
        ("core_S", [10**400], "list of numbers"),
        ("K", "a", "number"),
        ("num_selected_params", "7", "number"),
        ("usable_runs", [[1]], "pairs"),
        ("usable_runs", 7, "pairs"),
        ("usable_runs", [["a", 2]], "pairs"),
    ],
)
def test_single_numbers_and_counts_of_the_wrong_kind_are_left_out(tmp_path, name, value, what):
    log = Writer(tmp_path, "[10d_x.py]")
    log("RESULT", {"step": 0, "H_frob_Qtop^2": [0.1]})
    log("RESULT", {"step": 0, name: value, "frob_Qtop^2": [0.1]})
    logs = read_logs(str(tmp_path), 20)
    assert "frob_Qtop^2" not in logs.results[0].quantities
    assert f"({name} " in logs.left_out[0]
    assert logs.left_out[0].endswith(f"no {what})")


@pytest.mark.parametrize("value", ["x", None, {}, 3, ["a"], [[1.0]], []], ids=str)
@pytest.mark.parametrize("name", ["core_S", "frob_Qtop^2", "largest_absparams"])
def test_quantities_of_the_wrong_kind_are_left_out_and_named(tmp_path, name, value):
    log = Writer(tmp_path, "[10d_x.py]")
    log("RESULT", {"step": 0, "H_frob_Qtop^2": [0.1]})
    log("RESULT", {"step": 0, name: value})
    logs = read_logs(str(tmp_path), 20)
    assert name not in logs.results[0].quantities
    assert f"{log.path}: a result line is not as expected ({name} is no list" in logs.left_out[0]


@pytest.mark.parametrize("name", ["frob_Qchance^2_std", "frob_Qtop^2_lowest"])
def test_what_does_not_fit_the_overlap_is_left_out_and_named(tmp_path, name):
    log = Writer(tmp_path, "[10d_x.py]")
    for step in (0, 1):
        log("RESULT", {"step": step, "frob_Qtop^2": [0.1, 0.2, 0.3]})
        log("RESULT", {"step": step, name: [1, 2] if step else [1, 2, 3]})
    logs = read_logs(str(tmp_path), 20)
    assert [name in result.quantities for result in logs.results] == [True, False]
    assert [len(result.overlap_table()) for result in logs.results] == [3, 3]
    expected = "is not as expected (2 values, expected 3 as frob_Qtop^2)"
    assert logs.left_out == [f"{log.path}: {name} of step 1, train {expected}"]


@pytest.mark.parametrize(
    "facts", [{"num_params": "x"}, {"TRAINING_LOGPATH": [1]}, {"run_id": {}}, {"STEP": "abc"}],
    ids=str,
)  # fmt: skip
def test_facts_of_the_wrong_kind_are_as_good_as_none(tmp_path, facts):
    log = Writer(tmp_path, "[10d_x.py]")
    log("CONFIG", facts)
    log("RESULT", {"frob_Qtop^2": [0.1]} if "STEP" in facts else {"step": 0, "frob_Qtop^2": [0.1]})
    results = read_logs(str(tmp_path), 20).results
    assert [result.dim for result in results] == ([] if "STEP" in facts else [20])


def test_deep_nesting_is_no_event(tmp_path):
    path = tmp_path / "a.log"
    path.write_text("[" * 100_000)
    with pytest.raises(InputError, match="not a log of these scripts"):
        read_log(path)


@pytest.mark.parametrize(
    ("indices", "ordered"),
    [([5, 3, 9, 1, 7, 2, 8, 4, 6, 0, 11, 10], True), (list(range(12)), False),
     ([*range(1, 12), 0], False), ([3, 4], True)],
    ids=["by magnitude", "ascending", "ascending but for the last", "too few to tell"],
)  # fmt: skip
def test_masks_that_are_sets_are_recognised(tmp_path, indices, ordered):
    log = Writer(tmp_path, "[10d_x.py]")
    log("RESULT", {"step": 0, "largest_absparams": indices, "frob_Qtop^2": [0.1]})
    assert read_logs(str(tmp_path), 20).results[0].mask_is_ordered == ordered
