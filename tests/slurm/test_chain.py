"""A whole experiment on a cluster, from training to clean-up."""

import pytest

from tests.conftest import ANALYSE, Pipeline
from tests.experiments import (
    TRACKED,
    Experiment,
    analysis,
    assert_krylov,
    assert_same,
    assert_tracked,
    small_environment,
)

pytestmark = pytest.mark.slurm

HESSIANS = [(step, test) for step in (0, 2) for test in (False, True)]


@pytest.fixture(scope="module")
def sequential(tmp_path_factory, digits):
    """The analyses of the sequential commands."""
    pipeline = Pipeline(tmp_path_factory.mktemp("sequential"), digits, outer=20, inner=40)
    assert pipeline.train() == 0
    store = pipeline.lay_out()
    for step, test in HESSIANS:
        assert pipeline.measure(store, STEP=step, TEST_HESSIAN=test) == 0
        assert pipeline.analyse(store, STEP=step, TEST_HESSIAN=test) == 0
    return pipeline.logs(ANALYSE)


def test_whole_experiment(cluster, digits, sequential, tmp_path):
    output = tmp_path / 'it\'s an "output"\n[directory], 100%'
    settings = {
        "OUTPUT_DIR": output, "MAX_RECORD_STEP": 2, "NUM_OUTER": 20, "NUM_INNER": 40,
        "MEAS_PER_JOB": 8,
    }  # fmt: skip
    experiment = Experiment(
        small_environment(digits) | cluster.environment,
        output,
        output,
        tmp_path / "fault",
        settings,
    )
    planned = experiment.command("--dry-run")
    assert planned.count("sbatch --parsable") == 1 + 1 + 2 * 4 + 1
    assert not output.exists()

    screen = experiment.command("--wait")
    assert "all 4 Hessians are analysed" in screen
    (directory,) = output.iterdir()
    assert not (directory / "measurements").exists()
    for step, test in HESSIANS:
        assert_same(
            analysis(experiment.logs(ANALYSE), step, test), analysis(sequential, step, test)
        )

    experiment.directory = directory
    assert "All Hessians are analysed." in experiment.status()
    again = experiment.command("--wait", RUN_DIR=directory)
    assert "0 of 4 Hessians to do" in again
    assert "submitted" not in again


def test_a_recovery_in_rounds(cluster, digits, tmp_path):
    output = tmp_path / "output"
    settings = {
        "OUTPUT_DIR": output, "MAX_RECORD_STEP": 0, "SPLITS": "train", "NUM_OUTER": 6,
        "NUM_INNER": 12, "MEAS_PER_JOB": 3, "RECOVERY": "krylov", "NUM_ROUNDS": 2,
    }  # fmt: skip
    environment = small_environment(digits) | cluster.environment
    experiment = Experiment(environment, output, output, tmp_path / "fault", settings)
    assert "all 1 Hessians are analysed" in experiment.command("--wait")
    (experiment.directory,) = output.iterdir()
    assert not (experiment.directory / "measurements").exists()
    assert_krylov(analysis(experiment.logs(ANALYSE), 0, False), tmp_path / "in memory", digits)


def test_a_tracked_training(cluster, digits, tmp_path):
    output = tmp_path / "output"
    environment = small_environment(digits) | cluster.environment
    settings = TRACKED | {"OUTPUT_DIR": output}
    experiment = Experiment(environment, output, output, tmp_path / "fault", settings)
    assert "all 2 Hessians are analysed" in experiment.command("--wait")
    (experiment.directory,) = output.iterdir()
    assert_tracked(experiment, digits)
