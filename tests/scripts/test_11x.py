"""The orchestration without a cluster: its plans, its refusals, and LAUNCHER=local."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from applesandoranges.cluster.experiment import as_pattern
from applesandoranges.cluster.jobs import format_tasks, split_tasks
from tests.conftest import ANALYSE, MEASURE, Pipeline
from tests.experiments import (
    TRACKED,
    Experiment,
    analysis,
    assert_krylov,
    assert_tracked,
    small_environment,
)
from tests.faults.trees import tree
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


def head(screen):
    """Return what stands before the first command of a dry run, without what is being done."""
    lines = screen.partition("\n\n# ")[0].splitlines()
    first = next(i for i, line in enumerate(lines) if "would do this" in line)
    return lines[first:]


def test_a_dry_run_says_first_what_would_happen(call):
    given = {"LAUNCHER": "slurm", "PARTITION": "gpu", "GRES": "gpu:1"}
    lines = head(call(CIFAR10, "--dry-run", **given))
    assert len(lines) == 10
    assert max(map(len, lines[:-1])) <= 100
    assert lines[0] == f"{CIFAR10} would do this; nothing is done now, the commands follow:"
    said = dict(line.split(maxsplit=1) for line in lines[1:])
    assert said["problem"] == "cifar10det_3c3d, 895,210 parameters, seed 12345, SGD"
    assert said["training"] == "runs to step 8,001, recorded at steps 0, 2,000, ..., 8,000"
    assert said["Hessians"].startswith("10 of 10 to do: steps 0, 2,000, ..., 8,000; train and test")
    assert said["sketch"] == "seigh, n_o = 1,000 outer, n_i = 2,000 inner"
    assert said["products"] == "20,000 in all; the 2,000 of each Hessian in 5 tasks of up to 400"
    assert "WITH_A_POSTERIORI=true" in said["analysis"]
    assert said["jobs"] == (
        "on Slurm (gpu): 1 training, 1 store, 10 arrays (50 tasks), 10 analyses, 1 clean-up"
    )
    assert "measure 12:00:00 16G" in said["limits"]
    assert "gres gpu:1, CPUs 4" in said["limits"]
    assert "3.6 GB of measurements" in said["place"]  # 4 bytes, 1,000 columns and 2,000^2


def test_a_dry_run_of_rounds_counts_the_products_of_all(call):
    given = {"MAX_RECORD_STEP": "0", "SPLITS": "test", "RECOVERY": "krylov", "NUM_OUTER": "50",
             "NUM_INNER": "120", "MEAS_PER_JOB": "10", "LAUNCHER": "local"}  # fmt: skip

    def outline(**more):
        screen = call(MNIST, "--dry-run", **given, **more)
        return dict(line.split(maxsplit=1) for line in head(screen)[1:])

    fewer, said = outline(ACCURACY="0.05"), outline()
    assert fewer["sketch"] == "krylov, up to 4 rounds of 30 products, 50 eigenpairs"
    assert fewer["products"].startswith("at most 120 in all; ")
    assert said["Hessians"] == "1 of 1 to do: step 0; test, 500 data points each"
    assert said["sketch"] == "krylov, 4 rounds of 30 products, 50 eigenpairs"
    assert said["products"] == "120 in all; the 30 of each round in 3 tasks of up to 10"
    assert said["jobs"] == (
        "on this machine: 1 training, 1 store, 4 arrays (12 tasks), 3 next blocks, 1 analysis, "
        "1 clean-up"
    )
    assert said["limits"] == "1 task at a time (LOCAL_JOBS)"


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


@pytest.mark.parametrize("launcher", ["slurm", "local"])
def test_screen_is_passed_on_to_the_jobs(call, launcher):
    screen = call(MNIST, "--dry-run", LAUNCHER=launcher, SCREEN="json", RECOVERY="krylov")
    parts = [part for part in screen.split("\n# ") if re.match("10[acde]_", part)]
    assert len(parts) > 50
    assert all(" SCREEN=json " in part.replace("\n", " ") for part in parts)
    assert "SCREEN" not in call(MNIST, "--dry-run", LAUNCHER=launcher)


def test_other_screens_are_refused_before_anything_is_launched(call, tmp_path):
    screen = call(MNIST, LAUNCHER="local", SCREEN="blue", status=2)
    assert "unknown SCREEN 'blue'" in screen
    assert not (tmp_path / "out").exists()


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


@pytest.fixture
def kept(tmp_path):
    """Keeps settings in an experiment of ``script`` and returns its directory."""

    def write(script, **settings):
        directory = tmp_path / "experiment"
        directory.mkdir()
        texts = {"SCRIPT": script} | settings
        entries = [f"{name}={text}\0" for name, text in texts.items()]
        (directory / "settings").write_text("".join(entries))
        return str(directory)

    return write


def test_the_switch_is_kept_with_the_experiment(call, kept):
    directory = kept(IMAGENET, WITH_EVAL="true")
    screen = call(IMAGENET, "--dry-run", LAUNCHER="slurm", RUN_DIR=directory)
    assert job(screen, "10a_train")["WITH_EVAL"] == "true"


def test_what_is_given_goes_before_what_is_kept_and_that_before_the_script(call, kept):
    directory = kept(MNIST, OPTIMIZER="Adam", RANDOM_SEED="7", DEVICE="cuda", SPLITS="")
    given = {"RANDOM_SEED": "8", "DEVICE": "", "NUM_OUTER": "", "MAX_RECORD_STEP": "0"}
    screen = call(MNIST, "--dry-run", LAUNCHER="slurm", RUN_DIR=directory, **given)
    training = job(screen, "10a_train")
    assert training["OPTIMIZER"] == "Adam"
    assert training["RANDOM_SEED"] == "8"
    assert "DEVICE" not in training
    analyses = [job(screen, f"10d_step0_{split}") for split in ("train", "test")]
    assert [analysis["NUM_OUTER"] for analysis in analyses] == ["355", "355"]


def test_another_recovery_has_other_rounds(call, kept):
    directory = kept(MNIST, RECOVERY="krylov", NUM_ROUNDS="5", BLOCK_SIZE="142", PER_ROUND="142")
    given = {"LAUNCHER": "slurm", "RUN_DIR": directory, "MAX_RECORD_STEP": "0"}
    screen = call(MNIST, "--dry-run", **given)
    assert job(screen, "10d_step0_train")["NUM_ROUNDS"] == "5"
    screen = call(MNIST, "--dry-run", **given, RECOVERY="nystrom")
    analysis = job(screen, "10d_step0_train")
    assert (analysis["NUM_ROUNDS"], analysis["BLOCK_SIZE"]) == ("1", "710")
    assert "10e_" not in screen


def test_each_hessian_starts_from_the_step_before(call):
    given = {"RECOVERY": "krylov", "NUM_ROUNDS": "2", "EIGENVECTORS": "9", "SPLITS": "train test"}
    screen = call(
        MNIST, "--dry-run", LAUNCHER="slurm", TRACK="true", MAX_RECORD_STEP="200", **given
    )
    assert "step0_train_start" not in screen
    assert "START" not in job(screen, "10d_step0_train")
    for step, before in ((100, 0), (200, 100)):
        for split, test in (("train", "False"), ("test", "True")):
            start = job(screen, f"10e_step{step}_{split}_start")
            assert start["ROUND"] == "-1"
            pattern = f"*__eigenvectors__step={before}__test={test}*.h5"
            parts = ("10e_{}_start", "10c_{}_round0", "10e_{}_round0", "10c_{}_round1", "10d_{}")
            for part in parts:
                name = part.format(f"step{step}_{split}")
                (text,) = (p for p in screen.split("\n# ") if re.match(rf"{name}\b", p))
                (word,) = (word for word in text.split() if "START=" in word)
                assert word.strip("'").endswith(pattern)
    assert "START=" not in call(MNIST, "--dry-run", LAUNCHER="slurm", **given)


def test_rounds_that_may_end_before(call):
    given = {"RECOVERY": "krylov", "NUM_ROUNDS": "3", "SPLITS": "train", "ACCURACY": "0.05"}
    screen = call(MNIST, "--dry-run", LAUNCHER="slurm", MAX_RECORD_STEP="0", **given)
    for name in ("10e_step0_train_round0", "10e_step0_train_round1", "10d_step0_train"):
        variables = job(screen, name)
        assert variables["ACCURACY"] == "0.05"
        assert variables["NUM_OUTER"]
    assert "ACCURACY" not in job(screen, "10c_step0_train_round0")


def test_defaults_that_fit_the_data_and_are_said(call, tmp_path, digits):
    """The embedded digits give 300 steps; the defaults of 11m are for full MNIST."""
    screen = call(MNIST, "--dry-run", LAUNCHER="local", OBS_DATASETS_PATH=str(digits))
    assert "the data are too few for the defaults: MAX_RECORD_STEP=300 instead of 1000" in screen
    training = job(screen, "10a_train")
    expected = {"MAX_RECORD_STEP": "300", "RECORD_EVERY": "100", "MAX_STEPS": "300"}
    assert {name: training[name] for name in expected} == expected
    assert len(re.findall("^# 10d_step", screen, re.MULTILINE)) == 8
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"MAX_RECORD_STEP": "400"}, "MAX_RECORD_STEP=400: the last step is 300"),
        ({"MAX_RECORD_STEP": "400", "LAUNCHER": "slurm"}, "set MAX_RECORD_STEP=300"),
        ({"FIT_DEFAULTS": "false"}, "set MAX_RECORD_STEP=300"),
        ({"NUM_HESSIAN_DATAPOINTS": "1010"}, "set NUM_HESSIAN_DATAPOINTS=1000"),
        ({"TUNING_CONF": "{large}"}, "the batch size 5000 is larger than its training data"),
        ({"PROBLEM": "fmnist_mlp"}, "FashionMNIST: "),
        ({"OPTIMIZER": "SDG"}, "unknown optimizer 'SDG'"),
    ],
    ids=str,
)
def test_what_the_data_cannot_serve_is_refused_before_anything_runs(
    call, tmp_path, digits, given, message
):
    large = tmp_path / "large.yaml"
    large.write_text("mnist_mini: {batch_size: 5000, num_epochs: 1, SGD: {opt_hpars: {lr: 0.1}}}")
    (tmp_path / "sbatch").write_text("#!/bin/sh\nexit 1\n")
    (tmp_path / "sbatch").chmod(0o755)
    given = {name: text.format(large=large) for name, text in given.items()}
    given = {"LAUNCHER": "local", "PATH": f"{tmp_path}:{os.environ['PATH']}"} | given
    screen = call(MNIST, status=2, OBS_DATASETS_PATH=str(digits), **given)
    says, line = screen.splitlines()
    assert "checking" in says
    assert line.startswith(f"{MNIST}: ")
    assert message in line
    assert not (tmp_path / "out").exists()


def test_another_problem_has_its_own_number_of_parameters(call, digits):
    screen = call(MNIST, "--dry-run", LAUNCHER="slurm", PROBLEM="fmnist_2c2d")
    assert job(screen, "10b_layout")["NUM_PARAMS"] == "3274634"


def test_jobs_of_slurm_may_have_data_that_this_machine_has_not(call, tmp_path):
    (tmp_path / "empty").mkdir()
    given = {"LAUNCHER": "slurm", "OBS_DATASETS_PATH": str(tmp_path / "empty")}
    screen = call(MNIST, "--dry-run", MAX_RECORD_STEP="0", **given)
    assert "note: MNIST: " in screen
    assert "(jobs look for it where they run)" in screen
    assert "10d_step0_train" in screen


def test_an_experiment_of_another_script(call, kept):
    assert f"is an experiment of {CIFAR10}" in call(MNIST, status=2, RUN_DIR=kept(CIFAR10))


@pytest.fixture
def trained_by_11m(kept):
    """An experiment whose training is done, or has only begun."""

    def write(lines=None, **settings):
        directory = kept(MNIST, MAX_RECORD_STEP="2", RECORD_EVERY="2", **settings)
        run_dir = Path(directory) / "2026_01_01_00_00_00.000__mnist_mini__12345"
        run_dir.mkdir()
        config = {"PROBLEM": "mnist_mini", "RANDOM_SEED": 12345, "OPTIMIZER": "SGD",
                  "NUM_HESSIAN_DATAPOINTS": 500, "MAX_STEPS": 2}  # fmt: skip
        facts = {"run_id": "a", "num_params": 7030, "record_steps": [0, 2]}
        events = [["CONFIG", config], ["GLOBALS", facts], ["INFO", ["Training done", {}]]]
        texts = [json.dumps(["2026-01-01_00:00:00.000+0000", event]) for event in events[:lines]]
        (run_dir / "x[10a_gather_params_grads.py].log").write_text("\n".join(texts))
        return directory

    return write


@pytest.mark.parametrize("lines", [1, 2, 3], ids=["cut", "begun", "done"])
@pytest.mark.parametrize(
    ("name", "other", "same"),
    [("RANDOM_SEED", "999", "12345"), ("NUM_HESSIAN_DATAPOINTS", "100", "500"),
     ("OPTIMIZER", "Adam", "SGD"), ("MAX_STEPS", "7", "2")],
)  # fmt: skip
def test_settings_of_a_training_stay(call, trained_by_11m, name, other, same, lines):
    directory = trained_by_11m(lines, **{name: same})
    before = tree(Path(directory))
    given = {"LAUNCHER": "local", "RUN_DIR": directory}
    (line,) = call(MNIST, status=2, **given, **{name: other}).splitlines()
    assert f"is of a training with {name}={same}, not {other}; leave it out" in line
    assert tree(Path(directory)) == before
    assert call(MNIST, "--dry-run", **given, **{name: same}).count("# 10d_") == 4


def test_a_training_says_its_settings_where_nothing_else_does(call, trained_by_11m):
    """Those of a run that 10a made by hand, or that were kept wrongly."""
    directory = trained_by_11m(2, RANDOM_SEED="999")
    screen = call(MNIST, "--dry-run", LAUNCHER="slurm", RUN_DIR=directory)
    assert job(screen, "10a_train")["RANDOM_SEED"] == "12345"


@pytest.mark.parametrize("name", ["params.h5", "x[10a_gather_params_grads.py].log"])
def test_a_requeued_training_goes_on_as_soon_as_it_has_a_log(call, tmp_path, name):
    show = tmp_path / "show"
    show.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    show.chmod(0o755)
    run_dir = tmp_path / "out" / "2026__mnist_mini__1__3"
    run_dir.mkdir(parents=True)
    (run_dir / name).touch()
    screen = call(
        "10a_gather_params_grads.slurm", PYTHON=str(show), PROBLEM="mnist_mini", RANDOM_SEED="1",
        SLURM_JOB_ID="3", SLURM_RESTART_COUNT="1", RECORD_BEGINNING="0", RECORD_EVERY="2",
        MAX_RECORD_STEP="4", NUM_HESSIAN_DATAPOINTS="20",
    )  # fmt: skip
    assert (f"RESUME={run_dir}" in screen.splitlines()) == name.endswith(".log")


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
    assert screen.count(r"'ACTIVATE=source '\''my env'\'") == 5


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


def test_the_triangle_of_the_core_is_kept_with_the_experiment(call, kept):
    directory = kept(MNIST, SYMMETRIZE_CORE="false", MAX_RECORD_STEP="0")
    screen = call(MNIST, "--dry-run", LAUNCHER="slurm", RUN_DIR=directory)
    assert job(screen, "10d_step0_train")["SYMMETRIZE_CORE"] == "false"


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
        ({"NUM_OUTER": "many"}, "NUM_OUTER: expected a whole number of at least 1, got 'many'"),
        ({"NUM_OUTER": "-3"}, "NUM_OUTER: expected a whole number of at least 1, got '-3'"),
        ({"NUM_INNER": "a[$(touch x)]"}, "NUM_INNER: expected a whole number"),
        ({"MEAS_PER_JOB": "0"}, "MEAS_PER_JOB: expected a whole number of at least 1"),
        ({"RECORD_BEGINNING": "2000"}, "MAX_RECORD_STEP is below RECORD_BEGINNING"),
        ({"SPLITS": "train tset"}, "SPLITS: expected train, test or both, got 'train tset'"),
        ({"SPLITS": "train train"}, "SPLITS: expected train, test or both, got 'train train'"),
        ({"DTYPE": "float64"}, "DTYPE: Hessians are measured in float32, got 'float64'"),
        ({"NUM_A_POSTERIORI": "abc"}, "NUM_A_POSTERIORI: expected a whole number of at least 1"),
        ({"WITH_A_POSTERIORI": "maybe"}, "WITH_A_POSTERIORI: expected true or false, got 'maybe'"),
        ({"CURVATURE": "GGN"}, "unknown CURVATURE 'GGN'"),
        ({"VECTORS_PER_PRODUCT": "-1"}, "VECTORS_PER_PRODUCT: expected a whole number"),
        ({"MEMORY_BUDGET_GB": "1e9999"}, "MEMORY_BUDGET_GB"),
        ({"MEMORY_BUDGET_GB": "0"}, "MEMORY_BUDGET_GB must be a positive number"),
        ({"MEAS_FLAG": "initialized"}, "MEAS_FLAG cannot be 'initialized'"),
        ({"LAUNCHER": "pbs"}, "LAUNCHER: expected slurm or local, got 'pbs'"),
        ({"LOCAL_JOBS": "0"}, "LOCAL_JOBS: expected a whole number of at least 1"),
        ({"KEEP_MEASUREMENTS": "yes"}, "KEEP_MEASUREMENTS: expected true or false, got 'yes'"),
        ({"EIGENVECTORS": "all"}, "EIGENVECTORS: expected a whole number of at least 0, got 'all'"),
        ({"TRACK": "true"}, "TRACK: RECOVERY=seigh has no START; hmt and krylov have"),
        ({"TRACK": "true", "RECOVERY": "hmt"}, "of the step before: set EIGENVECTORS=k"),
        ({"ACCURACY": "0.05"}, "ACCURACY ends rounds when they are enough, and RECOVERY=seigh"),
        ({"ACCURACY": "good"}, "ACCURACY: expected a number such as 0.05, got 'good'"),
        ({"ACCURACY": "0_05"}, "ACCURACY: expected a number such as 0.05, got '0_05'"),
        ({"ACCURACY": "\u0660.\u0665"}, "ACCURACY: expected a number such as 0.05, got"),
        ({"ACCURACY": "0", "RECOVERY": "krylov"}, "ACCURACY must be a relative error, such as"),
        ({"TRACK": "yes"}, "TRACK: expected true or false, got 'yes'"),
        ({"SYMMETRIZE_CORE": "yes"}, "SYMMETRIZE_CORE: expected true or false, got 'yes'"),
        ({"OBS_DATASETS_PATH": "nowhere"}, "nowhere: no such directory; 09a_prepare_datasets.py"),
        ({"WITH_EVAL": "yes"}, "WITH_EVAL: expected true or false, got 'yes'"),
        ({"RUN_DIR": "nowhere"}, "nowhere: no such directory; give the run directory of 10a, or"),
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
    (line,) = call(MNIST, "--dryrun", status=2).splitlines()
    assert line.startswith(f"{MNIST}: unknown option '--dryrun'; see --help")


@pytest.mark.parametrize("script", [CIFAR10, CIFAR100, IMAGENET, MNIST])
def test_help(call, script):
    assert f"./{script} [--dry-run] [--wait]" in call(script, "--help")


def test_status_needs_an_experiment(call, tmp_path):
    (line,) = call(STATUS, status=2).splitlines()
    assert line == "11s_status.sh: expected one RUN_DIR, got 0; see --help"
    assert "Usage: ./11s_status.sh RUN_DIR" in call(STATUS, "--help")
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
    ranges = [[int(end) for end in part.split("-")] for part in tasks.split(",")]
    numbers = [task for ends in ranges for task in range(ends[0], ends[-1] + 1)]
    parts = split_tasks(numbers, most)
    assert [f"{offset} {format_tasks(part)}" for offset, part in parts.items()] == expected


@pytest.mark.parametrize(
    "name", ["plain", "a b", "[10a]", "q?*", "back\\slash", "nl\nnl", 'it\'s "x"']
)
def test_a_pattern_matches_the_directory_it_was_made_of(tmp_path, name):
    directory = tmp_path / name
    for other in (directory, tmp_path / "1", tmp_path / "qxx"):
        other.mkdir()
        (other / "file.h5").touch()
    command = 'source slurm/job.sh; P=$1; resolve P; printf "%s" "$P"'
    words = ["bash", "-c", command, "test", f"{as_pattern(str(directory))}/*.h5"]
    done = subprocess.run(words, cwd=REPOSITORY, check=True, text=True, stdout=subprocess.PIPE)
    assert done.stdout == str(directory / "file.h5")


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
    assert "10c_step0_test: 1 task\n" in again.stdout
    assert "all 1 Hessians are analysed" in again.stdout
    assert re.search(r"^step 0, test +not readable$", again.stdout, re.MULTILINE)
    assert len(experiment.logs(MEASURE)) == 3
    assert not (experiment.directory / "measurements").exists()

    pipeline = Pipeline(tmp_path / "sequential", digits, 6, 12)
    assert pipeline.train() == 0
    store = pipeline.lay_out()
    assert pipeline.measure(store, TEST_HESSIAN=1) == 0
    assert pipeline.analyse(store, TEST_HESSIAN=1) == 0
    experiment.assert_result(analysis(pipeline.logs(ANALYSE), 0, True), test=True)


@pytest.mark.slow
def test_the_steps_that_the_digits_have(digits, tmp_path):
    """Of 11m all but the sizes of the sketch is left to its defaults; 11s says the same."""
    output = tmp_path / "output"
    environment = {k: v for k, v in small_environment(digits).items() if k != "RECORD_EVERY"}
    settings = {"LAUNCHER": "local", "OUTPUT_DIR": output, "SPLITS": "test", "NUM_OUTER": 6,
                "NUM_INNER": 12, "MEAS_PER_JOB": 12}  # fmt: skip
    experiment = Experiment(environment, output, output, tmp_path / "fault", settings)
    fault = experiment.stop_in_the_middle("10d_step200", "leftouter_MERGED.h5", "kill")
    screen = experiment.command(status=1, ACTIVATE="export SOME='thing'", **fault)
    assert "MAX_RECORD_STEP=300 instead of 1000" in screen
    (experiment.directory,) = output.iterdir()
    status = experiment.status()
    assert "Time left: unknown, nothing runs" in status
    resume = screen.splitlines()[-1].strip()
    assert "ACTIVATE=" in resume
    assert status.splitlines()[-1].endswith(f": {resume}")
    assert "all 4 Hessians are analysed" in experiment.command(RUN_DIR=experiment.directory)
    for step in (0, 100, 200, 300):
        assert len(analysis(experiment.logs(ANALYSE), step, True)["core_S"]) == 6


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


@pytest.mark.slow
def test_a_tracked_training_on_this_machine(digits, tmp_path):
    """The second Hessian starts from the eigenvectors of the first; the end is that in memory."""
    output = tmp_path / "output"
    settings = TRACKED | {"LAUNCHER": "local", "LOCAL_JOBS": 2, "OUTPUT_DIR": output}
    environment = small_environment(digits)
    experiment = Experiment(environment, output, output, tmp_path / "fault", settings)
    fault = experiment.stop_in_the_middle(
        "10c_step2_train_round0", "leftouter_0000000002.h5", "kill"
    )
    experiment.command(status=1, **fault)
    (experiment.directory,) = output.iterdir()
    assert "all 2 Hessians are analysed" in experiment.command(RUN_DIR=experiment.directory)
    assert_tracked(experiment, digits)
