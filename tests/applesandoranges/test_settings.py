from pathlib import Path

import pytest

from applesandoranges.problems.registry import PROBLEMS
from applesandoranges.training.settings import TrainingSettings, load_settings
from skerch.utils import InputError

BASIC_CONFIG = Path(__file__).parents[2] / "config" / "basic_config.yaml"

#: Table of the specification: batch size, epochs, learning rate of SGD.
PUBLISHED = {
    "mnist_mini": (500, 50, 0.3),
    "fmnist_mlp": (500, 50, 0.1),
    "fmnist_2c2d": (128, 100, 0.216053242325031),
    "cifar10_3c3d": (128, 100, 0.022610510812765),
    "cifar10det_3c3d": (128, 100, 0.022610510812765),
    "cifar100_allcnnc": (256, 350, 0.16579130972807002),
    "cifar100det_allcnnc": (256, 350, 0.16579130972807002),
    "imagenetdet_resnet18": (150, 50, 0.1),
    "imagenetdet_resnet50": (150, 50, 0.1),  # not published: those of ResNet-18
}


@pytest.fixture
def written(tmp_path):
    """``written(text)``: the path of a settings file with that text."""

    def write(text):
        path = tmp_path / "conf.yaml"
        path.write_text(text)
        return path

    return write


def problem_text(sgd, head="batch_size: 4, num_epochs: 1"):
    return f"mnist_mini: {{{head}, SGD: {sgd}}}"


def test_the_table_covers_every_problem():
    assert PUBLISHED.keys() == PROBLEMS.keys()


@pytest.mark.parametrize(("problem", "expected"), PUBLISHED.items(), ids=PUBLISHED)
def test_basic_config_has_the_published_settings(problem, expected):
    batch_size, num_epochs, lr = expected
    settings = load_settings(BASIC_CONFIG, problem, "SGD")
    assert settings == TrainingSettings(batch_size, num_epochs, "SGD", {"lr": lr}, None, {})


@pytest.mark.parametrize("problem", PUBLISHED)
def test_basic_config_has_adam(problem):
    settings = load_settings(BASIC_CONFIG, problem, "Adam")
    expected = {"lr": 0.001, "beta1": 0.9, "beta2": 0.999, "eps": 1e-8}
    assert (settings.opt_name, settings.opt_hpars) == ("Adam", expected)


@pytest.mark.parametrize(
    ("schedule", "name", "hpars"),
    [
        ("null", None, {}),
        ("{name: cosine}", "cosine", {"warmup_ratio": 0.0, "final_lr_ratio": 0.0}),
        (
            "{name: cosine_restarts, period: 10, warmup_ratio: 0.1}",
            "cosine_restarts",
            {"period": 10, "mult": 1, "warmup_ratio": 0.1, "final_lr_ratio": 0.0},
        ),
        (
            "{name: trapezoidal, warmup_ratio: 0.1, cooldown_ratio: 0.3}",
            "trapezoidal",
            {"warmup_ratio": 0.1, "cooldown_ratio": 0.3},
        ),
    ],
)
def test_schedules(written, schedule, name, hpars):
    path = written(problem_text(f"{{lr_schedule: {schedule}, opt_hpars: {{lr: 1}}}}"))
    settings = load_settings(path, "mnist_mini", "SGD")
    assert (settings.sched_name, settings.sched_hpars) == (name, hpars)


def test_momentum_is_kept_when_given(written):
    path = written(problem_text("{opt_hpars: {lr: 1e-2, momentum: 0.9}}"))
    settings = load_settings(path, "mnist_mini", "SGD")
    assert settings.opt_hpars == {"lr": 0.01, "momentum": 0.9}


MISTAKES = {
    "refused problem": ("mnist_mlp: {}", "problem in .*conf.yaml 'mnist_mlp': no experiment used"),
    "problem": ("mnist_mimi: {}", "unknown problem .*'mnist_mimi'; the nearest .* mnist_mini,"),
    "optimiser": (
        "mnist_mini: {batch_size: 4, num_epochs: 1, SDG: {}}",
        "unknown key in .*: mnist_mini 'SDG'; the nearest valid one is SGD",
    ),
    "schedule": (
        problem_text("{lr_schedule: {name: cosin}, opt_hpars: {lr: 1}}"),
        "unknown schedule name .*'cosin'; the nearest valid one is cosine",
    ),
    "schedule without name": (
        problem_text("{lr_schedule: {period: 3}, opt_hpars: {lr: 1}}"),
        "unknown schedule name .*'None'",
    ),
    "hyper-parameter": (
        problem_text("{opt_hpars: {lr: 1, momentun: 0}}"),
        "'momentun'; the nearest valid one is momentum",
    ),
    "zero lr": (problem_text("{opt_hpars: {lr: 0}}"), "lr: expected a positive finite number"),
    "infinite lr": (problem_text("{opt_hpars: {lr: .inf}}"), "lr: expected .*, got inf"),
    "nan lr": (problem_text("{opt_hpars: {lr: .nan}}"), "lr: expected .*, got nan"),
    "text lr": (problem_text("{opt_hpars: {lr: fast}}"), "lr: expected float, got 'fast'"),
    "no lr": (problem_text("{opt_hpars: {}}"), "SGD.opt_hpars: missing lr"),
    "no hyper-parameters": (problem_text("{}"), "SGD: missing opt_hpars"),
    "momentum": (problem_text("{opt_hpars: {lr: 1, momentum: 1}}"), r"momentum: .*got 1\.0"),
    "batch size": (
        problem_text("{opt_hpars: {lr: 1}}", "batch_size: 0, num_epochs: 1"),
        "batch_size: expected at least 1, got 0",
    ),
    "epochs": (
        problem_text("{opt_hpars: {lr: 1}}", "batch_size: 1, num_epochs: 0"),
        "num_epochs: expected at least 1, got 0",
    ),
    "no epochs": (problem_text("{opt_hpars: {lr: 1}}", "batch_size: 1"), "missing num_epochs"),
    "no batch size": (
        "mnist_mini: {num_epochs: 1}",
        "mnist_mini: missing batch_size",
    ),
    "period": (
        problem_text("{lr_schedule: {name: cosine_restarts, period: 0}, opt_hpars: {lr: 1}}"),
        "period: expected at least 1 step, got 0",
    ),
    "ratios": (
        problem_text(
            "{lr_schedule: {name: trapezoidal, warmup_ratio: 0.6, cooldown_ratio: 0.5},"
            " opt_hpars: {lr: 1}}"
        ),
        r"warmup_ratio \+ cooldown_ratio: expected at most 1",
    ),
    "ratio": (
        problem_text("{lr_schedule: {name: cosine, warmup_ratio: -1}, opt_hpars: {lr: 1}}"),
        r"warmup_ratio: expected a number in \[0, 1\], got -1",
    ),
    "no mapping": ("mnist_mini: 3", "expected keys with values, got 3"),
    "a list": ("[1, 2]", "expected settings by problem, got a list"),
    "not YAML": ("mnist_mini: {", "not a readable YAML file"),
    "interpolation": ("mnist_mini: ${nothing}", "not a readable YAML file"),
    "other problem only": (
        "fmnist_mlp: {batch_size: 1, num_epochs: 1, SGD: {opt_hpars: {lr: 1}}}",
        "no settings for mnist_mini with SGD; there is fmnist_mlp with SGD",
    ),
}


@pytest.mark.parametrize(("text", "message"), MISTAKES.values(), ids=MISTAKES)
def test_mistakes_name_the_file(written, text, message):
    path = written(text)
    with pytest.raises(InputError, match=message) as error:
        load_settings(path, "mnist_mini", "SGD")
    assert str(path) in str(error.value)


def test_missing_file(tmp_path):
    with pytest.raises(InputError, match=r"nowhere\.yaml: no such settings file"):
        load_settings(tmp_path / "nowhere.yaml", "mnist_mini", "SGD")


@pytest.mark.parametrize(
    ("problem", "optimizer", "message"),
    [
        ("mnist_minni", "SGD", "the nearest valid one is mnist_mini"),
        ("mnist_mini", "adam", "the nearest valid one is Adam"),
    ],
)
def test_unknown_requests(problem, optimizer, message):
    with pytest.raises(InputError, match=message):
        load_settings(BASIC_CONFIG, problem, optimizer)
