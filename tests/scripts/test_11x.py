"""The orchestration without a cluster: its plans, its refusals, and LAUNCHER=local."""

import os
import re
import subprocess
import sys

import pytest

from tests.conftest import ANALYSE, MEASURE, Pipeline
from tests.experiments import Experiment, analysis, assert_krylov, small_environment
from tests.script_loader import REPOSITORY

CIFAR10 = "11a_run_sketched_overlap_cifar10_3c3d.sh"
CIFAR100 = "11b_run_sketched_overlap_cifar100_allcnnc.sh"
IMAGENET = "11c_run_sketched_overlap_imagenet_resnet18.sh"
MNIST = "11m_run_sketched_overlap_mnist_mini.sh"
STATUS = "11s_status.sh"


@pytest.fixture
def call(tmp_path):
    """Runs a script of the repository with a few variables only."""

    def run(script, *words, status=0, cwd=REPOSITORY, **variables):
        given = {
            "PATH": os.environ["PATH"], "HOME": str(tmp_path), "OUTPUT_DIR": str(tmp_path / "out"),
            "OBS_DATASETS_PATH": str(tmp_path), "PYTHON": sys.executable,
        } | variables  # fmt: skip
        done = subprocess.run(
            ["bash", str(REPOSITORY / script), *words], cwd=cwd, env=given, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=60,
        )  # fmt: skip
        assert done.returncode == status, done.stdout
        return done.stdout

    return run


def shell(command: str, *words: str) -> str:
    """Run a command with the functions of the orchestration."""
    return subprocess.run(
        ["bash", "-c", f"source slurm/orchestration.sh; {command}", "test", *words],
        cwd=REPOSITORY, check=True, text=True, stdout=subprocess.PIPE,
    ).stdout  # fmt: skip


@pytest.mark.parametrize(
    ("script", "hessians", "tasks", "words"),
    [
        (CIFAR10, 10, 5, ["PROBLEM=cifar10det_3c3d", "NUM_PARAMS=895210", "NUM_OUTER=1000",
                          "NUM_INNER=2000", "MEAS_PER_JOB=400", "NUM_HESSIAN_DATAPOINTS=500",
                          "RECORD_EVERY=2000", "MAX_RECORD_STEP=8000"]),
        (CIFAR100, 5, 6, ["PROBLEM=cifar100_allcnnc", "NUM_PARAMS=1387108", "NUM_OUTER=1000",
                          "NUM_INNER=2000", "MEAS_PER_JOB=340", "NUM_HESSIAN_DATAPOINTS=1000"]),
        (IMAGENET, 5, 30, ["PROBLEM=imagenetdet_resnet18", "NUM_PARAMS=11689512", "NUM_OUTER=1500",
                           "NUM_INNER=3000", "MEAS_PER_JOB=100", "NUM_HESSIAN_DATAPOINTS=5000"]),
        (MNIST, 22, 10, ["PROBLEM=mnist_mini", "NUM_PARAMS=7030", "NUM_OUTER=355",
                         "NUM_INNER=710", "MEAS_PER_JOB=71", "NUM_HESSIAN_DATAPOINTS=500",
                         "RECORD_EVERY=100", "MAX_RECORD_STEP=1000"]),
    ],
    ids=["11a", "11b", "11c", "11m"],
)  # fmt: skip
def test_defaults_of_the_experiments(call, tmp_path, script, hessians, tasks, words):
    screen = call(script, "--dry-run", LAUNCHER="slurm")
    assert screen.count("sbatch --parsable") == 3 + 2 * hessians
    assert screen.count(f"--array=1-{tasks} ") == hessians
    for word in [*words, "RANDOM_SEED=12345", "OPTIMIZER=SGD"]:
        assert f" {word} " in screen.replace("\n", " ")
    assert not (tmp_path / "out").exists()


#: CONFIG of the published logs of 10a, where WITH_EVAL says whether they have evaluations.
PUBLISHED = {
    CIFAR10: {
        "PROBLEM": "cifar10det_3c3d", "NUM_HESSIAN_DATAPOINTS": "500", "WITH_EVAL": "true",
    },
    CIFAR100: {
        "PROBLEM": "cifar100_allcnnc", "NUM_HESSIAN_DATAPOINTS": "1000", "WITH_EVAL": "true",
    },
    IMAGENET: {
        "PROBLEM": "imagenetdet_resnet18", "NUM_HESSIAN_DATAPOINTS": "5000", "WITH_EVAL": "false",
    },
}  # fmt: skip
OF_ALL = {
    "OPTIMIZER": "SGD", "RANDOM_SEED": "12345", "MAX_STEPS": "8001", "RECORD_BEGINNING": "0",
    "RECORD_EVERY": "2000", "MAX_RECORD_STEP": "8000",
}  # fmt: skip


def job(screen, name):
    """Return the variables that a dry run gives to a job."""
    (part,) = (part for part in screen.split("\n# ") if re.match(rf"{name}\b", part))
    return dict(word.split("=", 1) for word in part.split() if re.match(r"[A-Z_]+=", word))


@pytest.mark.parametrize(("script", "config"), PUBLISHED.items(), ids=["11a", "11b", "11c"])
def test_defaults_are_the_published_experiments(call, script, config):
    screen = call(script, "--dry-run", LAUNCHER="slurm")
    training, analysis = job(screen, "10a_train"), job(screen, "10d_step8000_test")
    expected = config | OF_ALL
    assert {name: training.get(name) for name in expected} == expected
    assert analysis["WITH_A_POSTERIORI"] == "false"
    assert ("10c_step0_train" in screen) == (script == CIFAR10)


@pytest.mark.parametrize("script", [CIFAR10, CIFAR100, IMAGENET])
@pytest.mark.parametrize(
    ("given", "expected"),
    [({"MAX_RECORD_STEP": "4000"}, "4001"), ({"MAX_STEPS": "9000"}, "9000")],
    ids=["one after the last recorded step", "given"],
)
def test_last_step_of_the_training(call, script, given, expected):
    screen = call(script, "--dry-run", LAUNCHER="slurm", **given)
    assert job(screen, "10a_train")["MAX_STEPS"] == expected


@pytest.mark.parametrize("script", [CIFAR10, CIFAR100, IMAGENET, MNIST])
@pytest.mark.parametrize("value", ["true", "false"])
def test_evaluations_are_switched_by_a_variable(call, script, value):
    screen = call(script, "--dry-run", LAUNCHER="slurm", MAX_RECORD_STEP="0", WITH_EVAL=value)
    assert job(screen, "10a_train")["WITH_EVAL"] == value
    assert screen.count("WITH_EVAL=") == 1


def test_the_switch_reaches_10a(call, tmp_path):
    show = tmp_path / "show"
    show.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    show.chmod(0o755)
    screen = call(
        "10a_gather_params_grads.slurm", PYTHON=str(show), PROBLEM="mnist_mini", RANDOM_SEED="1",
        SLURM_JOB_ID="3", RECORD_BEGINNING="0", RECORD_EVERY="2", MAX_RECORD_STEP="4",
        NUM_HESSIAN_DATAPOINTS="20", MAX_STEPS="5", WITH_EVAL="false",
    )  # fmt: skip
    words = screen.splitlines()
    assert {"WITH_EVAL=false", "MAX_STEPS=5", "RECORD_STEPS=[0,2,4]"} <= {*words}


def test_the_switch_is_kept_with_the_experiment(tmp_path):
    settings = tmp_path / "experiment" / "settings"
    settings.parent.mkdir()
    settings.write_text("SCRIPT=11c\0WITH_EVAL=true\0")
    command = 'EXPERIMENT_DIR=$1; load_settings; print_settings | tr "\\0" "\\n"'
    assert "WITH_EVAL=true" in shell(command, str(settings.parent)).splitlines()


def test_each_job_comes_after_the_one_before(call):
    screen = call(MNIST, "--dry-run", LAUNCHER="slurm", MAX_RECORD_STEP="0")
    names = re.findall(r"^# ([\w]+)", screen, re.MULTILINE)
    assert names == [
        "10a_train", "10b_layout", "10c_step0_train", "10d_step0_train", "10c_step0_test",
        "10d_step0_test", "remove_measurements",
    ]  # fmt: skip
    after = re.findall(r"--dependency=afterok:JOB_ID_OF_(\w+)", screen)
    assert after == names[:-1]
    assert screen.count("--kill-on-invalid-dep=yes") == len(names)


def test_resources_become_options(call):
    screen = call(
        MNIST, "--dry-run", LAUNCHER="slurm", MAX_RECORD_STEP="0", SPLITS="test", PARTITION="gpu",
        ACCOUNT="me", GRES="gpu:1", TIME_MEASURE="2-0", MEM_ANALYSE="9G", MAX_RUNNING="3",
        SBATCH_OPTIONS="--qos=long --exclude=n1", ACTIVATE="source 'my env'",
    )  # fmt: skip
    assert screen.count("--partition=gpu") == screen.count("--account=me") == 5
    assert screen.count("--qos=long") == screen.count("--exclude=n1") == 5
    assert screen.count("--gres=gpu:1") == 3
    assert screen.count("--time=2-0") == screen.count("--mem=9G") == 1
    assert "--array=1-10%3 " in screen
    assert screen.count(r"'ACTIVATE=source '\''my env'\'") == 4


@pytest.mark.parametrize(("given", "word"), [({}, "true"), ({"SYMMETRIZE_CORE": "false"}, "false")])
@pytest.mark.parametrize("script", [CIFAR10, CIFAR100, IMAGENET, MNIST])
def test_the_triangle_of_the_core_reaches_the_analyses_alone(call, script, given, word):
    screen = call(
        script, "--dry-run", LAUNCHER="slurm", MAX_RECORD_STEP="0", SPLITS="test", **given
    )
    (analysis,) = (part for part in screen.split("\n# ") if part.startswith("10d_"))
    assert f" SYMMETRIZE_CORE={word} " in analysis.replace("\n", " ")
    assert screen.count("SYMMETRIZE_CORE=") == 1


@pytest.mark.parametrize(("given", "word"), [({}, "0"), ({"EIGENVECTORS": "50"}, "50")])
@pytest.mark.parametrize("script", [CIFAR10, CIFAR100, IMAGENET, MNIST])
def test_eigenvectors_are_asked_of_the_analyses_alone(call, script, given, word):
    screen = call(
        script, "--dry-run", LAUNCHER="slurm", MAX_RECORD_STEP="0", SPLITS="test", **given
    )
    (analysis,) = (part for part in screen.split("\n# ") if part.startswith("10d_"))
    assert re.search(rf"\bEIGENVECTORS={word}\b", analysis)
    assert screen.count("EIGENVECTORS=") == 1


def test_the_triangle_of_the_core_is_kept_with_the_experiment(call, tmp_path):
    settings = tmp_path / "experiment" / "settings"
    settings.parent.mkdir()
    settings.write_text("SCRIPT=11m\0SYMMETRIZE_CORE=false\0")
    command = 'EXPERIMENT_DIR=$1; load_settings; print_settings | tr "\\0" "\\n"'
    assert "SYMMETRIZE_CORE=false" in shell(command, str(settings.parent)).splitlines()


def test_the_triangle_of_the_core_reaches_10d(call, tmp_path):
    show = tmp_path / "show"
    show.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    show.chmod(0o755)
    variables = {
        "PYTHON": show, "PARAMS_PATH": show, "LOG_PATH": show, "MEAS_FLAG": "ok", "STEP": "7",
        "TEST_HESSIAN": "true", "OUTER_VIRTUAL": "o", "OUTER_MONOLITHIC": "p",
        "INNER_VIRTUAL": "i", "INNER_MONOLITHIC": "j", "SYMMETRIZE_CORE": "false",
        "EIGENVECTORS": "9",
    }  # fmt: skip
    screen = call("10d_core_and_analysis.slurm", **{k: str(v) for k, v in variables.items()})
    assert {"SYMMETRIZE_CORE=false", "EIGENVECTORS=9"} <= set(screen.splitlines())


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"NUM_OUTER": "many"}, "NUM_OUTER: expected a whole number, got 'many'"),
        ({"NUM_INNER": "a[$(touch x)]"}, "NUM_INNER: expected a whole number"),
        ({"MEAS_PER_JOB": "0"}, "MEAS_PER_JOB must be at least 1"),
        ({"RECORD_BEGINNING": "2000"}, "MAX_RECORD_STEP is below RECORD_BEGINNING"),
        ({"SPLITS": "train tset"}, "SPLITS: expected train, test or both, got 'train tset'"),
        ({"LAUNCHER": "pbs"}, "LAUNCHER: expected slurm or local, got 'pbs'"),
        ({"LOCAL_JOBS": "0"}, "LOCAL_JOBS must be at least 1"),
        ({"KEEP_MEASUREMENTS": "yes"}, "KEEP_MEASUREMENTS: expected true or false, got 'yes'"),
        ({"EIGENVECTORS": "all"}, "EIGENVECTORS: expected a whole number, got 'all'"),
        ({"SYMMETRIZE_CORE": "yes"}, "SYMMETRIZE_CORE: expected true or false, got 'yes'"),
        ({"OBS_DATASETS_PATH": "nowhere"}, "nowhere: no such directory; 09a_prepare_datasets.py"),
        ({"WITH_EVAL": "yes"}, "WITH_EVAL: expected true or false, got 'yes'"),
        ({"RUN_DIR": "nowhere"}, "nowhere: no such directory"),
        ({"RUN_DIR": "."}, "expected a run directory of 10a or an experiment"),
        ({"OUTPUT_DIR": "back\\slash", "LAUNCHER": "slurm"}, "a path with a backslash"),
    ],
    ids=lambda value: str(value)[:40] if isinstance(value, dict) else "",
)
def test_wrong_settings_are_refused_in_one_line(call, tmp_path, variables, message):
    before = sorted(tmp_path.iterdir())
    screen = call(MNIST, status=2, cwd=tmp_path, **{"LAUNCHER": "local"} | variables)
    (line,) = screen.splitlines()
    assert line.startswith(f"{MNIST}: ")
    assert message in line
    assert sorted(tmp_path.iterdir()) == before


def test_unknown_option(call):
    screen = call(MNIST, "--dryrun", status=2)
    assert "Usage:" in screen
    assert "unknown option '--dryrun'" in screen


@pytest.mark.parametrize("script", [CIFAR10, CIFAR100, IMAGENET, MNIST])
def test_help(call, script):
    assert f"./{script} [--dry-run] [--wait]" in call(script, "--help")


def test_status_needs_an_experiment(call, tmp_path):
    assert "Usage: ./11s_status.sh RUN_DIR" in call(STATUS, status=2)
    assert "expected a run directory of 10a" in call(STATUS, str(tmp_path), status=2)


@pytest.mark.parametrize(
    ("tasks", "most", "expected"),
    [
        ("1-5", 5, ["0 1-5"]),
        ("1-6", 5, ["0 1-5", "5 1"]),
        ("1-12", 5, ["0 1-5", "5 1-5", "10 1-2"]),
        ("2,4-7,11", 5, ["0 2,4-5", "5 1-2", "10 1"]),
        ("3000", 1000, ["2000 1000"]),
    ],
    ids=str,
)
def test_large_arrays_are_split(tasks, most, expected):
    assert shell('split_tasks "$1" "$2"', tasks, str(most)).splitlines() == expected


@pytest.mark.parametrize(
    "name", ["plain", "a b", "[10a]", "q?*", "back\\slash", "nl\nnl", 'it\'s "x"']
)
def test_a_pattern_matches_the_directory_it_was_made_of(tmp_path, name):
    directory = tmp_path / name
    for other in (directory, tmp_path / "1", tmp_path / "qxx"):
        other.mkdir()
        (other / "file.h5").touch()
    command = 'as_pattern "$1"; P=$REPLY/*.h5; resolve P; printf "%s" "$P"'
    assert shell(command, str(directory)) == str(directory / "file.h5")


def test_a_pattern_must_match_one_file(call, tmp_path):
    variables = {
        "PARAMS_PATH": f"{tmp_path}/*.h5", "LOG_PATH": "x", "MEAS_DIR": "x", "MEAS_FLAG": "x",
        "STEP": "0", "TEST_HESSIAN": "0", "MEAS_ARRSIZE": "2", "MEAS_PER_JOB": "2",
        "NUM_INNER": "3", "NUM_OUTER": "2", "SLURM_ARRAY_TASK_ID": "1",
    }  # fmt: skip
    script = "10c_hessian_hdf5_measurements.slurm"
    assert "expected one file, found 0" in call(script, status=2, **variables)
    for name in ("a.h5", "b.h5"):
        (tmp_path / name).touch()
    assert "expected one file, found 2" in call(script, status=2, **variables)
    variables |= {"PARAMS_PATH": "", "STEP": ""}
    assert "set these variables: PARAMS_PATH STEP" in call(script, status=2, **variables)


@pytest.mark.parametrize(
    ("task", "expected"), [(1, "[0,1]"), (2, "[2]")], ids=["first", "last, shorter"]
)
def test_indices_of_a_task(call, tmp_path, task, expected):
    show = tmp_path / "show"
    show.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    show.chmod(0o755)
    screen = call(
        "10c_hessian_hdf5_measurements.slurm", PYTHON=str(show), PARAMS_PATH=str(show),
        LOG_PATH=str(show), MEAS_DIR="x", MEAS_FLAG="ok", STEP="7", TEST_HESSIAN="true",
        MEAS_ARRSIZE="2", MEAS_PER_JOB="2", NUM_INNER="3", NUM_OUTER="2",
        SLURM_ARRAY_TASK_ID=str(task), SLURM_MEM_PER_NODE="4096",
    )  # fmt: skip
    words = screen.splitlines()
    assert f"MEASUREMENT_IDXS={expected}" in words
    assert {"STEP=7", "TEST_HESSIAN=true", "SUCCESS_FLAG=ok", "MEMORY_BUDGET_GB=2.048"} <= {*words}


def test_task_beyond_the_last_measurement(call, tmp_path):
    assert "task 3 has no measurements" in call(
        "10c_hessian_hdf5_measurements.slurm", status=2, PARAMS_PATH=str(tmp_path),
        LOG_PATH=str(tmp_path), MEAS_DIR="x", MEAS_FLAG="ok", STEP="7", TEST_HESSIAN="true",
        MEAS_ARRSIZE="2", MEAS_PER_JOB="2", NUM_INNER="3", NUM_OUTER="2", SLURM_ARRAY_TASK_ID="3",
    )  # fmt: skip


def test_job_files_do_not_depend_on_where_slurm_copies_them():
    for path in REPOSITORY.glob("*.slurm"):
        assert "$0" not in path.read_text()


@pytest.mark.slow
def test_on_this_machine_with_a_failure_and_its_resume(digits, tmp_path):
    """From training to clean-up; the second command is the one that the first one prints."""
    output = tmp_path / 'it\'s an "output"\n[directory], 100% \\o/'
    environment = small_environment(digits)
    experiment = Experiment(
        environment, output, output, tmp_path / "fault",
        {
            "LAUNCHER": "local", "LOCAL_JOBS": 2, "OUTPUT_DIR": output, "MAX_RECORD_STEP": 0,
            "SPLITS": "test", "NUM_OUTER": 6, "NUM_INNER": 12, "MEAS_PER_JOB": 6,
        },
    )  # fmt: skip
    fault = experiment.stop_in_the_middle("10c", "inner_0000000002.h5", "kill")
    screen = experiment.command(status=1, **fault)
    assert "10c_step0_test failed; the end of" in screen
    assert "Killed" in screen
    assert not experiment.logs(ANALYSE)
    (experiment.directory,) = output.iterdir()
    (row,) = (line for line in experiment.status().splitlines() if "step 0" in line)
    *words, failed, running, total = row.split()
    assert words == ["step", "0,", "test", "incomplete", "8"]
    assert (running, total) == ("0", "12")
    assert 1 <= int(failed) <= 4  # computing is ahead of writing

    resume = screen.splitlines()[-1].strip()
    again = subprocess.run(
        ["bash", "-c", resume], cwd=REPOSITORY, env=environment, text=True, capture_output=True
    )
    assert again.returncode == 0, again.stderr
    assert "10c_step0_test: 1 tasks" in again.stdout
    assert "all 1 Hessians are analysed" in again.stdout
    assert len(experiment.logs(MEASURE)) == 3
    assert not (experiment.directory / "measurements").exists()

    pipeline = Pipeline(tmp_path / "sequential", digits, 6, 12)
    assert pipeline.train() == 0
    store = pipeline.lay_out()
    assert pipeline.measure(store, TEST_HESSIAN=1) == 0
    assert pipeline.analyse(store, TEST_HESSIAN=1) == 0
    experiment.assert_result(analysis(pipeline.logs(ANALYSE), 0, True), test=True)


@pytest.mark.slow
def test_a_recovery_in_rounds_on_this_machine(digits, tmp_path):
    """Stopped between two rounds, it goes on; the end is that of the recovery in memory."""
    output = tmp_path / "output"
    settings = {
        "LAUNCHER": "local", "LOCAL_JOBS": 2, "OUTPUT_DIR": output, "MAX_RECORD_STEP": 0,
        "SPLITS": "train", "NUM_OUTER": 6, "NUM_INNER": 12, "MEAS_PER_JOB": 3,
        "RECOVERY": "krylov", "NUM_ROUNDS": 2,
    }  # fmt: skip
    environment = small_environment(digits)
    experiment = Experiment(environment, output, output, tmp_path / "fault", settings)
    fault = experiment.stop_in_the_middle("10e", "basis_0000000001.h5", "kill")
    assert "10e_step0_train_round0 failed" in experiment.command(status=1, **fault)
    (experiment.directory,) = output.iterdir()
    screen = experiment.command(RUN_DIR=experiment.directory)
    assert "10c_step0_train_round0" not in screen
    assert "10c_step0_train_round1: 2 tasks" in screen
    assert "all 1 Hessians are analysed" in screen

    assert_krylov(analysis(experiment.logs(ANALYSE), 0, False), tmp_path / "in memory", digits)
