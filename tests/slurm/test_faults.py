"""What can go wrong on a cluster; each ends in the numbers of an undisturbed run."""

import os
import re
import subprocess

import pytest

from skerch.store.measurements import DistributedHDF5
from tests.conftest import ANALYSE
from tests.experiments import Experiment, small_environment
from tests.slurm.cluster import wait_until

pytestmark = pytest.mark.slurm


def job_of(cluster, name: str) -> str:
    """Return the newest job whose name begins with ``name``."""
    return max((job for job, _, found, _ in cluster.queue() if found.startswith(name)), key=int)


def are_measured(experiment, *idxs: int) -> bool:
    """Say whether the store holds these measurements."""
    files = [experiment.store / f"inner_{idx:010d}.h5" for idx in idxs]
    return all(file.exists() and DistributedHDF5.load(file).flag == "measured" for file in files)


def test_measurement_killed_in_the_middle_of_a_write(cluster, experiment, expected):
    fault = experiment.stop_in_the_middle("10c", "inner_0000000002.h5", "kill")
    screen = experiment.command("--wait", status=1, **fault)
    assert "1 completed, 1 failed" in screen
    assert "1 of 1 Hessians are not analysed" in screen
    assert f"RUN_DIR={experiment.directory}" in screen.splitlines()[-1]
    assert not experiment.logs(ANALYSE)
    assert are_measured(experiment, 0, 1, *range(6, 12))
    (row,) = (line for line in experiment.status().splitlines() if "step 0" in line)
    assert row.split() == ["step", "0,", "train", "incomplete", "8", "4", "0", "12"]

    analysis = experiment.submit(experiment.dry_run()["10d_step0_train"])
    wait_until(lambda: cluster.states(analysis) == ["FAILED"], "the analysis has refused")
    (log,) = experiment.directory.glob(f"slurm_logs/10d_*{analysis}.log")
    assert "4 of 12 measurements cannot be used: 2-5 (not measured)" in log.read_text()
    assert not experiment.logs(ANALYSE)

    screen = experiment.command("--wait")
    assert "10c_step0_train, tasks 1\n" in screen
    assert experiment.measured(since=2) == [2, 3, 4, 5]
    experiment.assert_result(expected)
    assert not experiment.store.exists()


@pytest.fixture
def untrained(cluster, digits, tmp_path):
    """An experiment with one Hessian whose training has not begun."""
    output = tmp_path / "output"
    settings = {
        "OUTPUT_DIR": output, "MAX_RECORD_STEP": 0, "MAX_STEPS": 2, "SPLITS": "train",
        "NUM_OUTER": 6, "NUM_INNER": 12, "MEAS_PER_JOB": 12,
    }  # fmt: skip
    environment = small_environment(digits) | cluster.environment
    return Experiment(environment, output, output, tmp_path / "fault", settings)


def test_training_killed_in_the_middle_of_a_checkpoint(untrained, expected):
    fault = untrained.stop_in_the_middle("10a", "__checkpoint.h5", "kill")
    screen = untrained.command("--wait", status=1, **fault)
    assert "10a_train: 1 failed" in screen
    run_dir = untrained.run_dir
    (untrained.directory,) = untrained.directory.iterdir()
    assert "Training: unfinished" in untrained.status()
    untrained.command("--wait", RUN_DIR=untrained.directory)
    assert untrained.run_dir == run_dir
    untrained.assert_result(expected)


def test_training_requeued(cluster, untrained, expected):
    """The second attempt goes on in the run directory of the first one."""
    untrained.command(**untrained.stop_in_the_middle("10a", "__checkpoint.h5", "pause"))
    untrained.wait_for_fault()
    run_dir = untrained.run_dir
    cluster.run("scontrol", "requeue", job_of(cluster, "10a_train"))
    wait_until(lambda: not cluster.is_busy(), "the chain is done")
    (untrained.directory,) = untrained.directory.iterdir()
    assert untrained.run_dir == run_dir
    untrained.assert_result(expected)
    assert not (untrained.directory / "measurements").exists()


def test_daemon_of_a_node_stopped_while_its_task_runs(cluster, experiment, expected):
    """The task runs again elsewhere, and the first one goes on too: two writers of one file."""
    experiment.command(**experiment.stop_in_the_middle("10c", "inner_0000000002.h5", "pause"))
    _, node = experiment.wait_for_fault()
    cluster.stop_node(node)
    job = job_of(cluster, "10c_step0")
    wait_until(lambda: cluster.states(job) == ["COMPLETED"] * 2, "the task has run elsewhere")
    experiment.release()
    cluster.start_node(node)
    wait_until(lambda: not cluster.is_busy(), "the chain is done")
    assert experiment.measured().count(2) == 2
    experiment.assert_result(expected)
    assert not experiment.store.exists()


def test_task_hits_its_time_limit(cluster, experiment, expected):
    fault = experiment.stop_in_the_middle("10c", "inner_0000000008.h5", "pause")
    screen = experiment.command("--wait", status=1, TIME_MEASURE=1, **fault)
    assert "1 completed, 1 timeout" in screen
    assert "DUE TO TIME LIMIT" in screen
    assert not experiment.logs(ANALYSE)
    assert are_measured(experiment, *range(8))
    experiment.command("--wait", TIME_MEASURE=5)
    assert experiment.measured(since=2) == [8, 9, 10, 11]
    experiment.assert_result(expected)


def test_whole_array_cancelled(cluster, experiment, expected):
    """Six tasks, one more than this cluster allows in an array."""
    fault = experiment.stop_in_the_middle("10c", "inner_0000000005.h5", "pause")
    screen = experiment.command(MEAS_PER_JOB=2, **fault)
    assert "10c_step0_train, tasks 1-5\n" in screen
    assert "10c_step0_train_from5, tasks 1\n" in screen
    experiment.wait_for_fault()
    wait_until(lambda: are_measured(experiment, *range(5), *range(6, 12)), "the others are done")
    (row,) = (line for line in experiment.status().splitlines() if "step 0" in line)
    assert row.split() == ["step", "0,", "train", "measuring", "11", "0", "1", "12"]
    assert "run or wait already" in experiment.command("--wait", status=2)

    cluster.run("scancel", job_of(cluster, "10c_step0_train."))
    wait_until(lambda: not cluster.is_busy(), "the chain has ended")
    assert not experiment.logs(ANALYSE)
    assert experiment.store.exists()

    screen = experiment.command("--wait", MEAS_PER_JOB=2)
    assert "10c_step0_train, tasks 3\n" in screen
    experiment.assert_result(expected)
    assert not experiment.store.exists()


def test_analysis_killed_while_merging(cluster, experiment, expected):
    fault = experiment.stop_in_the_middle("10d", "leftouter_MERGED.h5", "kill")
    assert "10d_step0_train: 1 failed" in experiment.command("--wait", status=1, **fault)
    assert "measured" in experiment.status()
    screen = experiment.command("--wait")
    assert "submitted job" in screen
    assert "10c_step0_train" not in screen
    experiment.assert_result(expected)
    assert not experiment.store.exists()


def test_same_array_submitted_twice_at_once(cluster, experiment, expected):
    commands = experiment.dry_run()
    fault = experiment.stop_in_the_middle("10c", "inner_0000000002.h5", "pause")
    experiment.environment |= fault
    arrays = [experiment.submit(commands["10c_step0_train"]) for _ in range(2)]
    states = [state for array in arrays for state in cluster.states(array)]
    assert len(states) == 4
    wait_until(
        lambda: sum(cluster.states(array).count("COMPLETED") for array in arrays) == 3,
        "all tasks but the held one are done",
    )
    experiment.release()
    wait_until(lambda: not cluster.is_busy(), "the held task is done")
    assert experiment.measured().count(2) == 2
    assert "10c_step0_train" not in experiment.command("--wait")
    experiment.assert_result(expected)


@pytest.fixture
def small_disk(cluster):
    """A disk of 280 kB, below the cluster's directory: no failure leaves it mounted."""
    disk = cluster.root / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=280k", "tmpfs", str(disk)]
    if os.getuid() != 0 or subprocess.run(mount, capture_output=True).returncode != 0:
        pytest.skip("left out: a small disk can be mounted by root only")
    yield disk
    subprocess.run(["umount", "--lazy", str(disk)], check=True)


def test_full_disk(small_disk, cluster, experiment, expected):
    experiment.settings["MEAS_DIR"] = experiment.store = small_disk / "store"
    screen = experiment.command("--wait", status=1)
    assert re.search("No space left on device|only [0-9]+ of [0-9]+ bytes were written", screen)
    assert not experiment.logs(ANALYSE)
    subprocess.run(["mount", "-o", "remount,size=10m", str(small_disk)], check=True)
    experiment.command("--wait")
    experiment.assert_result(expected)
    assert not experiment.store.exists()


def test_store_of_an_earlier_hessian_left_behind(cluster, experiment, expected):
    later = {"RECORD_BEGINNING": 2, "MAX_RECORD_STEP": 2}
    experiment.command("--wait", KEEP_MEASUREMENTS="true", **later)
    assert are_measured(experiment, *range(12))
    fault = experiment.stop_in_the_middle("10c", "inner_0000000002.h5", "kill")
    experiment.command("--wait", status=1, RECORD_BEGINNING=0, **fault)
    assert are_measured(experiment, *range(12))

    analysis = experiment.submit(experiment.dry_run(RECORD_BEGINNING=0)["10d_step0_train"])
    wait_until(lambda: cluster.states(analysis) == ["FAILED"], "the analysis has refused")
    (log,) = experiment.directory.glob(f"slurm_logs/10d_*{analysis}.log")
    assert "4 of 12 measurements cannot be used: 2-5 (of another Hessian" in log.read_text()

    screen = experiment.command("--wait", RECORD_BEGINNING=0, KEEP_MEASUREMENTS="false")
    assert "10c_step0_train, tasks 1\n" in screen
    assert experiment.measured(since=4) == [2, 3, 4, 5]
    experiment.assert_result(expected)
    assert not experiment.store.exists()
