"""Sizes of an experiment against the data that are there, before anything runs."""

import dataclasses

import pytest

from applesandoranges.cluster.fitting import MissingDataError, fit_to_data
from applesandoranges.cluster.settings import Settings
from applesandoranges.problems.extent import Extent, extent_of
from applesandoranges.problems.problem import build_problem
from applesandoranges.problems.sources import write_synthetic
from skerch.errors import InputError
from tests.script_loader import REPOSITORY

#: Of 11m.
DEFAULTS = {
    "PROBLEM": "mnist_mini", "OPTIMIZER": "SGD", "NUM_PARAMS": 7030, "RANDOM_SEED": 1,
    "NUM_HESSIAN_DATAPOINTS": 500, "RECORD_BEGINNING": 0, "RECORD_EVERY": 100,
    "MAX_RECORD_STEP": 1000, "MAX_STEPS": 1000, "SPLITS": "test", "NUM_OUTER": 355,
    "NUM_INNER": 710, "MEAS_PER_JOB": 71, "FIT_DEFAULTS": True,
}  # fmt: skip


@pytest.fixture(scope="module")
def few(tmp_path_factory):
    """Sixty synthetic digits to train on, of which ten validate, and twenty for tests."""
    root = tmp_path_factory.mktemp("few")
    write_synthetic("MNIST", root, 60, 20)
    return root


def settings(root, **changes):
    return Settings(OBS_DATASETS_PATH=root, **DEFAULTS | changes)


def tuning(tmp_path, batch_size, num_epochs, problem="mnist_mini"):
    path = tmp_path / "settings.yaml"
    path.write_text(
        f"{problem}: {{batch_size: {batch_size}, num_epochs: {num_epochs}, "
        "SGD: {opt_hpars: {lr: 0.1}}}"
    )
    return path


def test_extent_of_a_known_problem_is_that_of_the_built_one(few):
    extent, problem = extent_of("mnist_mini", few, 7), build_problem("mnist_mini", few, 1, 7)
    assert extent == Extent(steps_per_epoch=7, multiple=10, most_points=20)
    assert problem.steps_per_epoch == 7
    assert len(problem.hessian_subset("train", 20)) == len(problem.hessian_subset("test", 20)) == 20
    with pytest.raises(InputError, match="at most 20"):
        problem.hessian_subset("test", 30)


def test_extent_of_the_digits(digits):
    assert extent_of("mnist_mini", digits, 500) == Extent(6, 10, 1000)


def test_extent_of_a_file(tmp_path):
    problem = f"{REPOSITORY / 'examples' / 'sequence_transformer.py'}"
    extent, built = extent_of(problem, tmp_path, 8), build_problem(problem, None, 0, 8)
    assert extent.steps_per_epoch == built.steps_per_epoch
    for split in ("train", "test"):
        assert len(built.hessian_subset(split, extent.most_points)) == extent.most_points


def test_defaults_become_what_the_digits_can_serve(digits):
    fitted, words = fit_to_data(settings(digits), ())
    assert (fitted.MAX_RECORD_STEP, fitted.MAX_STEPS, fitted.RECORD_EVERY) == (300, 300, 100)
    assert words == [
        "MAX_RECORD_STEP=300 instead of 1000",
        "MAX_STEPS=300 instead of 1000 (the last step is 300, of 50 epochs of 6 steps)",
    ]
    assert fit_to_data(fitted, ()) == (fitted, [])


def test_a_short_training_is_recorded_at_both_ends(few, tmp_path):
    conf = tuning(tmp_path, batch_size=10, num_epochs=6)
    fitted, _ = fit_to_data(settings(few, TUNING_CONF=conf), ())
    assert [*fitted.steps] == [0, 30]
    assert (fitted.MAX_STEPS, fitted.NUM_HESSIAN_DATAPOINTS) == (30, 20)
    fitted, _ = fit_to_data(settings(few, TUNING_CONF=conf), {"RECORD_EVERY"})
    assert [*fitted.steps] == [0]


@pytest.mark.parametrize(
    ("given", "steps", "last"),
    [
        ({"MAX_STEPS": 250}, [0, 100, 200], 250),
        ({"MAX_STEPS": 299}, [0, 100, 200, 300], 299),  # all updates are made
        ({"RECORD_EVERY": 7, "RECORD_BEGINNING": 290}, [290, 297], 297),
        ({"MAX_RECORD_STEP": 390}, [0, 100, 200, 300], 1000),  # 390 itself is none of the steps
    ],
    ids=str,
)
def test_what_is_given_stays(digits, given, steps, last):
    fitted, _ = fit_to_data(settings(digits, **given), given)
    assert [*fitted.steps] == steps
    assert last == fitted.MAX_STEPS
    assert given.items() <= dataclasses.asdict(fitted).items()


@pytest.mark.parametrize(
    ("given", "line"),
    [
        ({"MAX_RECORD_STEP": 400}, "MAX_RECORD_STEP=400: the last step is 300, of 50 epochs of 6 "
                                   "steps; set MAX_RECORD_STEP=300"),
        ({"MAX_RECORD_STEP": 400, "RECORD_EVERY": 90}, "set MAX_RECORD_STEP=270"),
        ({"MAX_RECORD_STEP": 200, "MAX_STEPS": 150}, "the last step is 150, of 50 epochs of 6 "
                                                     "steps and MAX_STEPS=150; set MAX_RECORD_STEP"
                                                     "=100"),
        ({"RECORD_BEGINNING": 301}, "set RECORD_BEGINNING=300"),
        ({"FIT_DEFAULTS": False}, "set MAX_RECORD_STEP=300"),
        ({"NUM_HESSIAN_DATAPOINTS": 505}, "NUM_HESSIAN_DATAPOINTS=505: both splits allow 10, 20, "
                                          "..., 1000 data points of a Hessian; set "
                                          "NUM_HESSIAN_DATAPOINTS=500"),
        ({"NUM_HESSIAN_DATAPOINTS": 1010}, "set NUM_HESSIAN_DATAPOINTS=1000"),
        ({"NUM_HESSIAN_DATAPOINTS": 0}, "set NUM_HESSIAN_DATAPOINTS=10"),
        ({"NUM_PARAMS": 12}, "NUM_PARAMS=12: mnist_mini has 7030; leave it out"),
        ({"PROBLEM": "vit"}, "a path that ends in .py"),
        ({"OPTIMIZER": "SDG"}, "the nearest valid one is SGD"),
    ],
    ids=str,
)  # fmt: skip
def test_what_was_chosen_and_cannot_be_is_refused(digits, given, line):
    with pytest.raises(InputError) as refusal:
        fit_to_data(settings(digits, **given), given)
    assert line in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_a_batch_that_the_data_do_not_fill(few, tmp_path):
    conf = tuning(tmp_path, batch_size=51, num_epochs=1)
    with pytest.raises(InputError, match=r"batch size 51 is larger .* batch_size in TUNING_CONF"):
        fit_to_data(settings(few, TUNING_CONF=conf), ())


def test_no_data(tmp_path):
    with pytest.raises(MissingDataError, match="SOURCE=embedded"):
        fit_to_data(settings(tmp_path), ())


def test_a_problem_of_a_file(tmp_path):
    problem = tmp_path / "mine.py"
    problem.write_text(
        "import torch\n"
        "def network(): return torch.nn.Linear(3, 2)\n"
        "loss = torch.nn.functional.mse_loss\n"
        "def data(split):\n"
        "    n = 40 if split == 'train' else 12\n"
        "    return torch.utils.data.TensorDataset(torch.ones(n, 3), torch.ones(n, 2))\n"
        "settings = {'batch_size': 8, 'num_epochs': 3, 'SGD': {'opt_hpars': {'lr': 0.1}}}\n"
    )
    changes = {"PROBLEM": str(problem), "NUM_PARAMS": 8}
    fitted, words = fit_to_data(settings(tmp_path, **changes), ())
    assert [*fitted.steps] == [0, 15]
    assert fitted.NUM_HESSIAN_DATAPOINTS == 12
    assert "at most 12 data points" in words[-1]
