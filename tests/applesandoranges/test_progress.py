"""Progress of an experiment, from logs, store and queue."""

import dataclasses
import re
import subprocess
import sys

import pytest

from applesandoranges.app.log import JsonLog, read_log
from applesandoranges.app.verdicts import Verdict
from applesandoranges.cluster.__main__ import main as cluster
from applesandoranges.cluster.experiment import Experiment
from applesandoranges.cluster.progress import make_plan, measured_indices
from applesandoranges.cluster.queue import Queued
from applesandoranges.cluster.settings import OF_ONE_RUN, Caller, load_settings, save_settings
from applesandoranges.cluster.status import (
    print_status,
    progress_of_hessians,
    seconds_left,
    verdicts_in_words,
)
from applesandoranges.results.collect import read_logs
from skerch.__main__ import main as skerch
from skerch.utils import InputError
from tests.conftest import ANALYSE, run
from tests.script_loader import REPOSITORY
from tests.scripts.test_whole_screens import SCREENS

SETTINGS = {
    "SCRIPT": "11m.sh", "PROBLEM": "mnist_mini", "NUM_PARAMS": 7030, "RECORD_BEGINNING": 0,
    "RECORD_EVERY": 2, "MAX_RECORD_STEP": 2, "SPLITS": "train test", "NUM_OUTER": 6,
    "NUM_INNER": 12, "MEAS_PER_JOB": 5, "MEAS_FLAG": "measured", "RECOVERY": "seigh",
    "NUM_ROUNDS": 1, "RANDOM_SEED": 1, "OBS_DATASETS_PATH": "/data", "NUM_HESSIAN_DATAPOINTS": 8,
    "LAUNCHER": "local",
}  # fmt: skip


def keep(directory, **changes):
    """Keep settings in the directory of an experiment."""
    values = SETTINGS | changes
    entries = [f"{name}={value}\0" for name, value in values.items()]
    (directory / "settings").write_text("".join(entries))


def started(directory, **changes):
    """Keep settings in the directory of an experiment, and return that experiment."""
    keep(directory, **changes)
    return Experiment.as_started(directory, Caller("11s_status.sh", {}))


@pytest.fixture
def pipeline(trained, tmp_path):
    """The training with a run directory of its own, without logs of 10c and 10d."""
    pipeline = dataclasses.replace(trained, root=tmp_path)
    trained.copy_training(tmp_path / "output" / trained.run_dir.name)
    return pipeline


@pytest.fixture
def experiment(pipeline):
    """Two measurements of step 0, three of step 2 (test), one after the other in one store."""
    store = pipeline.lay_out()
    assert pipeline.measure(store, MEASUREMENT_IDXS=[0, 1, 2, 3]) == 0
    assert pipeline.measure(store, MEASUREMENT_IDXS=[2, 3, 11], STEP=2, TEST_HESSIAN=1) == 0
    return started(pipeline.run_dir, MEAS_DIR=store)


def run_id(pipeline):
    return read_log(pipeline.log).first("GLOBALS")["run_id"]


def test_store_is_read_by_hessian(experiment, pipeline):
    assert measured_indices(experiment, run_id(pipeline)) == {
        (0, "train"): {0, 1},
        (2, "test"): {2, 3, 11},
    }
    assert measured_indices(experiment, "another run") == {}


@pytest.mark.parametrize("changes", [{"CURVATURE": "ggn"}, {"PARAMETERS": "weights"}])
def test_measurements_of_another_curvature_do_not_count(experiment, pipeline, changes):
    store = experiment.store
    other = started(pipeline.run_dir, MEAS_DIR=store, **changes)
    assert measured_indices(other, run_id(pipeline)) == {}


def test_damaged_and_missing_files_do_not_count(experiment, pipeline):
    directory = experiment.store
    (directory / "inner_0000000000.h5").write_bytes(b"damaged")
    (directory / "leftouter_0000000001.h5").unlink()
    assert measured_indices(experiment, run_id(pipeline)) == {(2, "test"): {2, 3, 11}}


def test_plan_begins_with_what_the_store_holds(experiment):
    plan = make_plan(experiment)
    assert plan.training.state == "done"
    assert plan.store_ready
    pending = list(plan.tasks.items())
    assert pending[0] == ((2, "test"), (0, [1, 2, 3]))
    assert all(tasks == (0, [1, 2, 3]) for _, tasks in pending[1:])


def test_plan_lists_only_tasks_with_missing_measurements(experiment, pipeline):
    store = experiment.store
    assert pipeline.measure(store, MEASUREMENT_IDXS=[5, 6, 7, 8, 9], STEP=2, TEST_HESSIAN=1) == 0
    assert make_plan(experiment).tasks[2, "test"] == (0, [1, 3])


@pytest.mark.parametrize(
    ("measured", "blocks", "expected"),
    [
        ([[]], 0, (0, [1, 2, 3])),
        ([[0, 1, 2]], 0, (0, [2, 3])),
        ([[0, 1, 2, 3, 4, 5]], 0, (0, [])),
        ([[0, 1, 2, 3, 4, 5]], 1, (0, [])),
        ([[0, 1, 2, 3, 4, 5], [2, 3]], 1, (1, [1, 3])),
    ],
    ids=["nothing", "half a round", "a round", "a round and its block", "into the next round"],
)
def test_plan_of_a_recovery_in_rounds(pipeline, measured, blocks, expected):
    store = pipeline.root / "rounds"
    words = "--shape 7030,7030 --outer 6 --inner 0 --sym"
    assert skerch(["create_hdf5_layout", "--hdf5dir", str(store), *words.split()]) == 0
    keys = {"RECOVERY": "krylov", "NUM_ROUNDS": 2, "BLOCK_SIZE": 6}
    for number, idxs in enumerate(measured):
        if idxs:
            assert pipeline.measure(store, ROUND=number, MEASUREMENT_IDXS=idxs, **keys) == 0
        if number < blocks:
            block = {"MEASUREMENTS_DIR": store, "ROUND": number, **keys}
            words = pipeline.recorded_words(**block)
            assert run("10e_next_krylov_block.py", *words) == 0
    changes = {"MEAS_DIR": store, "MEAS_PER_JOB": 2} | keys
    plan = make_plan(started(pipeline.run_dir, **changes))
    assert plan.tasks[0, "train"] == expected
    assert plan.tasks[2, "test"] == (0, [1, 2, 3])


def test_plan_of_an_experiment_that_goes_on(experiment, pipeline):
    (experiment.store / "leftouter_0000000003.h5").unlink()
    store = pipeline.lay_out("done")
    for hessian in ({"STEP": 0}, {"STEP": 2, "TEST_HESSIAN": 1}):
        assert pipeline.measure(store, **hessian) == 0
    assert pipeline.analyse(store, STEP=2, TEST_HESSIAN=1) == 0
    plan = make_plan(started(pipeline.run_dir, MEAS_DIR=store))
    assert (plan.training.state, plan.store_ready) == ("done", True)
    assert plan.analysed == [(2, "test")]
    assert len(plan.tasks) + len(plan.analysed) == 4


@pytest.mark.parametrize("cut", [False, True], ids=["complete", "cut"])
def test_only_complete_analyses_of_this_size_count(pipeline, tmp_path, cut):
    store = pipeline.lay_out()
    assert pipeline.measure(store, STEP=2) == 0
    assert pipeline.analyse(store, STEP=2) == 0
    log = pipeline.logs(ANALYSE)[-1]
    if cut:
        log.write_text("".join(log.read_text().splitlines(keepends=True)[:-1]))
    for changes, analysed in (({}, not cut), ({"NUM_INNER": 11}, False)):
        where = store if not changes else tmp_path / "none"
        plan = make_plan(started(pipeline.run_dir, MEAS_DIR=where, **changes))
        assert ((2, "train") in plan.analysed) == analysed


def test_training_that_has_not_begun_or_not_ended(pipeline, tmp_path):
    directory = tmp_path / "experiment"
    cut = directory / "run"
    cut.mkdir(parents=True)
    plan = make_plan(started(directory))
    assert (plan.training.state, plan.store_ready) == ("absent", False)
    lines = pipeline.log.read_text().splitlines(keepends=True)
    (cut / pipeline.log.name).write_text("".join(lines[:-1]))
    plan = make_plan(started(directory))
    assert plan.training.state == "unfinished"
    assert plan.tasks[2, "test"] == (0, [1, 2, 3])


def test_queue_tells_running_from_failed(experiment):
    queue = [
        Queued.parse("10c_step2_test\tRUNNING\t1\t77\n"),
        Queued.parse("10c_step2_test_from2\tPENDING\t1\t78\n"),
        Queued.parse("10d_step2_test\tPENDING\t\t79\n"),
        Queued.parse("remove_measurements\tPENDING\t\t80\n"),
    ]
    logs = read_logs(str(experiment.run_dir)).measuring
    own = {h.key: h for h in progress_of_hessians(experiment, queue, logs)}
    second = own[2, "test"]
    assert second.running == {0, 1, 4}
    assert second.measured == {2, 3, 11}
    assert second.state(12) == "measuring"
    assert own[2, "train"].state(12) == "not begun"
    later = Queued.parse("10c_step2_test_from2\tRUNNING\t1\t78\n")
    (found,) = [h for h in progress_of_hessians(experiment, [later], logs) if h.key == (2, "test")]
    assert found.running == {10}


def test_begun_and_not_measured_is_failed(experiment, pipeline):
    logs = read_logs(str(pipeline.run_dir)).measuring
    before = {h.key: h for h in progress_of_hessians(experiment, [], logs)}
    assert before[0, "train"].failed == {2, 3}
    assert before[0, "train"].state(12) == "incomplete"


def test_time_left_is_proportional_to_what_is_missing(experiment, pipeline):
    logs = read_logs(str(pipeline.run_dir)).measuring
    hessians = progress_of_hessians(experiment, [], logs)
    one = seconds_left(experiment, hessians[:1], logs, [])
    all_four = seconds_left(experiment, hessians, logs, [])
    missing = [12 - len(hessian.measured) for hessian in hessians]
    assert all_four == pytest.approx(one * sum(missing) / missing[0])
    assert seconds_left(experiment, hessians, [], []) is None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"PROBLEM": "fmnist_mlp"}, "expected PROBLEM=fmnist_mlp, found mnist_mini"),
        ({"NUM_PARAMS": 12}, "expected NUM_PARAMS=12, found 7030"),
        ({"MAX_RECORD_STEP": 4}, "steps [4] were not recorded; there are [0, 2]"),
        ({"NUM_INNER": 13}, "expected shape (13, 13)"),
        ({"NUM_INNER": "x"}, "not the settings of an 11x script"),
        ({"RECORD_EVERY": 0}, "not the settings of an 11x script"),
    ],
    ids=str,
)
def test_settings_that_do_not_fit_are_refused(experiment, capsys, changes, message):
    keep(experiment.directory, **{"MEAS_DIR": experiment.store} | changes)
    capsys.readouterr()
    assert cluster(["status", "11s_status.sh", str(experiment.directory)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line


def test_settings_file_of_something_else(tmp_path):
    (tmp_path / "settings").write_text("hello")
    with pytest.raises(InputError, match="not the settings of an 11x script"):
        Experiment.as_started(tmp_path, Caller("11s_status.sh", {}))


def test_settings_come_back_as_they_were_kept(tmp_path):
    directory = tmp_path / "with = and\nnew line"
    directory.mkdir()
    given = {"WITH_EVAL": "false", "SYMMETRIZE_CORE": "false", "EIGENVECTORS": 3, "SPLITS": "test"}
    experiment = started(directory, **given, SBATCH_OPTIONS="--qos a=b\n", MEAS_DIR=directory)
    file = directory / "settings"
    before = load_settings(file)
    save_settings(file, experiment.script, experiment.settings)
    after = load_settings(file)
    assert before.items() <= after.items()
    assert after["SBATCH_OPTIONS"] == "--qos a=b\n"
    assert not after.keys() & {*OF_ONE_RUN}
    again = Experiment.as_started(directory, Caller("11s_status.sh", {}))
    assert again.settings == experiment.settings


def test_status_for_people(experiment, capsys):
    queue = [Queued.parse("10c_step2_test\tRUNNING\t1\t77\n")]
    capsys.readouterr()
    print_status(experiment, queue, "RUN_DIR=[x] ./11m.sh")
    out = capsys.readouterr().out
    assert "Training: done" in out
    (row,) = (line.split() for line in out.splitlines() if "step 2, test" in line)
    assert row[3:6] == ["measuring", "3", "0"]
    assert "Jobs: 1 running, 0 waiting" in out
    assert re.search(r"^Time left: .*\d.* by the rate so far$", out, re.MULTILINE)
    assert out.rstrip().endswith("RUN_DIR=[x] ./11m.sh")


def test_the_whole_screen(experiment, capsys):
    """Times, counts and names of nobody but this experiment's are in it."""
    queue = [
        Queued.parse(line)
        for line in ("10c_step2_test\tRUNNING\t1\t77\n", "10d_step2_test\tPENDING\t\t78\n")
    ]
    capsys.readouterr()
    print_status(experiment, queue, "RUN_DIR=[x] ./11m.sh")
    out = re.sub(r"(?<=Time left: ).*(?= by the rate)", "TIME", capsys.readouterr().out)
    out = out.replace(str(experiment.store), "STORE").replace(str(experiment.run_dir), "RUN")
    assert out == (SCREENS / "11s.txt").read_text()


def analysed(directory, name, **body):
    """Write a log of 10d with a verdict."""
    with JsonLog(directory / name) as log:
        log("GLOBALS", {"step": body.pop("step"), "split": "train"})
        log("RESULT", {"core_S": [1.0]})
        log("RESULT", body)
    return read_log(directory / name)


def test_verdicts_are_those_of_the_last_analyses(tmp_path):
    readable = {"trustworthy": True, "readable_overlap": None, "usable_overlap": [1, 100]}
    logs = [
        analysed(tmp_path, "a", step=0, verdict="no", trustworthy=False),
        analysed(tmp_path, "b", step=2, verdict="no", trustworthy=False),
        analysed(tmp_path, "c", step=0, verdict="yes", **readable),
        analysed(tmp_path, "d", step=4, num_products=3),
        analysed(tmp_path, "e", step=6, verdict="yes", overlap_error=0.04, wanted=0.05, **readable),
        analysed(
            tmp_path, "f", step=8, verdict="no", trustworthy=False, overlap_error=None, wanted=0.05
        ),
    ]
    assert verdicts_in_words(logs) == {
        (0, "train"): "k = 1 ... 100 within 20%", (2, "train"): "not readable",
        (6, "train"): "k = 1 ... 100 within 20%; ACCURACY=0.05 reached",
        (8, "train"): "not readable; ACCURACY=0.05 not reached",
    }  # fmt: skip


def test_status_shows_the_verdict_of_what_is_analysed(experiment, pipeline, capsys):
    assert pipeline.measure(experiment.store) == 0
    assert pipeline.analyse(experiment.store) == 0
    log = read_log(pipeline.logs(ANALYSE)[-1])
    (verdict,) = (Verdict.of(body) for body in log.bodies("RESULT") if "verdict" in body)
    capsys.readouterr()
    print_status(experiment, [], "RUN_DIR=[x] ./11m.sh")
    rows = [line for line in capsys.readouterr().out.splitlines() if line.startswith("step ")]
    (row,) = (row for row in rows if row.startswith("step 0, train"))
    assert row.split(maxsplit=8)[3:] == ["analysed", "12", "0", "0", "12", verdict.words]
    assert [row.split()[-1] for row in rows if row is not rows[0]] == ["12"] * 3


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        ([], "unknown, nothing runs"),
        (["10c_step2_test\tPENDING\t1\t77\n"], "unknown, nothing runs"),
        (["10a_train\tRUNNING\t\t77\n"], "unknown before the first measurement"),
    ],
    ids=["nothing", "waiting", "no rate yet"],
)
def test_time_left_is_unknown_without_a_rate(pipeline, capsys, lines, words):
    experiment = started(pipeline.run_dir, MEAS_DIR=pipeline.lay_out())
    capsys.readouterr()
    print_status(experiment, [Queued.parse(line) for line in lines], "go on")
    assert f"\nTime left: {words}\n" in capsys.readouterr().out


def test_time_left_is_unknown_when_nothing_runs_any_more(experiment, capsys):
    capsys.readouterr()
    print_status(experiment, [], "go on")
    assert "\nTime left: unknown, nothing runs\n" in capsys.readouterr().out


@pytest.mark.parametrize(
    "given",
    [{}, {"ACTIVATE": "source 'my env'/bin/activate", "JOB_PYTHON": "/opt/python"},
     {"JOB_PYTHON": "python3.12"}],
    ids=["nothing", "both", "python"],
)  # fmt: skip
def test_the_command_to_go_on_is_the_one_that_was_printed(tmp_path, given):
    """Whatever the environment of 11s makes of Python."""
    values = {name: str(value) for name, value in SETTINGS.items()} | given
    names = " ".join(name for name in values if name != "JOB_PYTHON")
    environ = values | {"OUTPUT_DIR": str(tmp_path), "GIVEN": names, "PROJECT_DIR": "/project"}
    begun = Experiment.of_run(Caller("11m.sh", environ))
    begun.begin().close()
    other = {"ACTIVATE": "another", "GIVEN": "ACTIVATE", "JOB_PYTHON": "other"}
    seen = Experiment.as_started(begun.directory, Caller("11s_status.sh", other))
    assert seen.resume_command() == begun.resume_command()
    assert ("ACTIVATE=" in seen.resume_command()) == ("ACTIVATE" in given)
    assert ("PYTHON=" in seen.resume_command()) == ("JOB_PYTHON" in given)


def test_it_does_without_what_takes_seconds_to_import():
    code = "import sys, applesandoranges.cluster.run as _; "
    code += "print({'torch', 'torchvision'} & set(sys.modules))"
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
