"""Progress of an experiment, from logs, store and queue."""

import dataclasses
import shutil
import subprocess
import sys

import pytest

from applesandoranges.app.log import read_log
from applesandoranges.cluster.progress import (
    Experiment,
    Queued,
    make_plan,
    measured_indices,
    progress_of_hessians,
    seconds_left,
)
from applesandoranges.cluster.progress import main as progress
from applesandoranges.results.collect import read_logs
from skerch.__main__ import main as skerch
from skerch.utils import InputError
from tests.conftest import ANALYSE, run
from tests.script_loader import REPOSITORY

SETTINGS = {
    "SCRIPT": "11m.sh", "PROBLEM": "mnist_mini", "NUM_PARAMS": 7030, "RECORD_BEGINNING": 0,
    "RECORD_EVERY": 2, "MAX_RECORD_STEP": 2, "SPLITS": "train test", "NUM_OUTER": 6,
    "NUM_INNER": 12, "MEAS_PER_JOB": 5, "MEAS_FLAG": "measured", "RECOVERY": "seigh",
    "NUM_ROUNDS": 1, "PER_ROUND": 12,
}  # fmt: skip


@pytest.fixture
def settings(tmp_path):
    def write(**changes):
        path = tmp_path / "settings"
        values = SETTINGS | changes
        path.write_text("".join(f"{name}={value}\0" for name, value in values.items()))
        return path

    return write


@pytest.fixture
def pipeline(trained, tmp_path):
    """The training with a run directory of its own, without logs of 10c and 10d."""
    pipeline = dataclasses.replace(trained, root=tmp_path)
    shutil.copytree(
        trained.run_dir,
        tmp_path / "output" / trained.run_dir.name,
        ignore=shutil.ignore_patterns("*.py[]]__*.log"),
    )
    return pipeline


@pytest.fixture
def experiment(settings, pipeline):
    """Two measurements of step 0, three of step 2 (test), one after the other in one store."""
    store = pipeline.lay_out()
    assert pipeline.measure(store, MEASUREMENT_IDXS=[0, 1, 2, 3]) == 0
    assert pipeline.measure(store, MEASUREMENT_IDXS=[2, 3, 11], STEP=2, TEST_HESSIAN=1) == 0
    return Experiment.read(settings(), str(pipeline.run_dir), str(store))


def run_id(pipeline):
    return read_log(pipeline.log).first("GLOBALS")["run_id"]


def test_store_is_read_by_hessian(experiment, pipeline):
    assert measured_indices(experiment, run_id(pipeline)) == {
        (0, "train"): {0, 1},
        (2, "test"): {2, 3, 11},
    }
    assert measured_indices(experiment, "another run") == {}


def test_damaged_and_missing_files_do_not_count(experiment, pipeline):
    directory = experiment.store.directory
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
    store = experiment.store.directory
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
def test_plan_of_a_recovery_in_rounds(settings, pipeline, measured, blocks, expected):
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
    file = settings(RECOVERY="krylov", NUM_ROUNDS=2, PER_ROUND=6, MEAS_PER_JOB=2)
    plan = make_plan(Experiment.read(file, str(pipeline.run_dir), str(store)))
    assert plan.tasks[0, "train"] == expected
    assert plan.tasks[2, "test"] == (0, [1, 2, 3])


def test_plan_for_the_shell(experiment, settings, pipeline, capsys):
    (experiment.store.directory / "leftouter_0000000003.h5").unlink()
    store = pipeline.lay_out("done")
    for hessian in ({"STEP": 0}, {"STEP": 2, "TEST_HESSIAN": 1}):
        assert pipeline.measure(store, **hessian) == 0
    assert pipeline.analyse(store, STEP=2, TEST_HESSIAN=1) == 0
    capsys.readouterr()
    words = ["--settings", str(settings()), "--run_dir", str(pipeline.run_dir)]
    assert progress(["plan", *words, "--store", str(store)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[:2] == ["training done", "store ready"]
    assert "hessian 2 test done" in lines
    assert len(lines) == 2 + 4


@pytest.mark.parametrize("cut", [False, True], ids=["complete", "cut"])
def test_only_complete_analyses_of_this_size_count(settings, pipeline, tmp_path, cut):
    store = pipeline.lay_out()
    assert pipeline.measure(store, STEP=2) == 0
    assert pipeline.analyse(store, STEP=2) == 0
    log = pipeline.logs(ANALYSE)[-1]
    if cut:
        log.write_text("".join(log.read_text().splitlines(keepends=True)[:-1]))
    for changes, analysed in (({}, not cut), ({"NUM_INNER": 11}, False)):
        where = str(store) if not changes else str(tmp_path / "none")
        plan = make_plan(Experiment.read(settings(**changes), str(pipeline.run_dir), where))
        assert ((2, "train") in plan.analysed) == analysed


def test_training_that_has_not_begun_or_not_ended(settings, pipeline, tmp_path):
    store = str(tmp_path / "store")
    plan = make_plan(Experiment.read(settings(), "", store))
    assert (plan.training.state, plan.store_ready) == ("absent", False)
    cut = tmp_path / "run"
    cut.mkdir()
    lines = pipeline.log.read_text().splitlines(keepends=True)
    (cut / pipeline.log.name).write_text("".join(lines[:-1]))
    plan = make_plan(Experiment.read(settings(), str(cut), store))
    assert plan.training.state == "unfinished"
    assert plan.lines()[-1] == "hessian 2 test todo 1-3 0"


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
def test_settings_that_do_not_fit_are_refused(
    experiment, settings, pipeline, capsys, changes, message
):
    words = ["--run_dir", str(pipeline.run_dir), "--store", str(experiment.store.directory)]
    capsys.readouterr()
    assert progress(["plan", "--settings", str(settings(**changes)), *words]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line


def test_settings_file_of_something_else(tmp_path):
    path = tmp_path / "settings"
    path.write_text("hello")
    with pytest.raises(InputError, match="not the settings of an 11x script"):
        Experiment.read(path, "", "store")


def test_status_for_people(experiment, settings, pipeline, tmp_path, capsys):
    queue = tmp_path / "queue"
    queue.write_text("10c_step2_test\tRUNNING\t1\t77\n")
    words = ["--settings", str(settings()), "--run_dir", str(pipeline.run_dir)]
    words += ["--store", str(experiment.store.directory), "--queue", str(queue)]
    capsys.readouterr()
    assert progress(["status", *words, "--resume_command", "RUN_DIR=[x] ./11m.sh"]) == 0
    out = capsys.readouterr().out
    assert "Training: done" in out
    (row,) = (line.split() for line in out.splitlines() if "step 2, test" in line)
    assert row[3:6] == ["measuring", "3", "0"]
    assert "Jobs: 1 running, 0 waiting" in out
    assert "Time left by the rate so far:" in out
    assert out.rstrip().endswith("RUN_DIR=[x] ./11m.sh")


def test_it_does_without_what_takes_seconds_to_import():
    code = "import sys, applesandoranges.cluster.progress as _; "
    code += "print({'torch', 'torchvision'} & set(sys.modules))"
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
