"""20a, run in this process on real digits and synthetic images."""

import dataclasses

import pytest
import torch
from torch import nn

from applesandoranges.problems.datasets import DATASETS
from applesandoranges.problems.registry import PROBLEMS
from applesandoranges.problems.sources import write_synthetic
from tests.conftest import run
from tests.script_loader import load_script

CHECK = "20a_curvlinops_checks.py"
CHECKS = ("determinism", "finite values", "symmetry", "agreement with float64", "cost", "memory")


@pytest.fixture(scope="module")
def root(tmp_path_factory, digits):
    """Real digits and a few synthetic images; of CIFAR-100 with ten classes, to save time."""
    root = tmp_path_factory.mktemp("datasets")
    (root / "MNIST").symlink_to(digits / "MNIST")
    with pytest.MonkeyPatch.context() as patch:
        cifar100 = dataclasses.replace(DATASETS["CIFAR100"], num_classes=10)
        patch.setitem(DATASETS, "CIFAR100", cifar100)
        write_synthetic("CIFAR10", root, 100, 20)
        write_synthetic("CIFAR100", root, 100, 20)
        yield root


def check(root, problem, num, *words):
    return run(
        CHECK, f"OBS_DATASETS={root}", f"PROBLEM={problem}", f"NUM_HESSIAN_DATAPOINTS={num}",
        "DEVICE=cpu", *words,
    )  # fmt: skip


@pytest.fixture
def small_batches(tmp_path):
    """Settings with batches that small data sets can fill."""
    path = tmp_path / "small.yaml"
    path.write_text(
        "".join(
            f"{name}: {{batch_size: 16, num_epochs: 1, SGD: {{opt_hpars: {{lr: 0.1}}}}}}\n"
            for name in PROBLEMS
        )
    )
    return f"TUNING_CONF={path}"


def verdicts(out):
    """Return ``{(split, check): ok}`` from the table."""
    found = {}
    for line in out.splitlines():
        split, _, rest = line.partition(" ")
        for name in CHECKS:
            if split in ("train", "test") and rest.strip().startswith(name):
                found[split, name] = rest.split(name, 1)[1].split()[0]
    return found


def all_ok(**changes):
    return {(split, name): "ok" for split in ("train", "test") for name in CHECKS} | changes


DETERMINISTIC = [
    pytest.param("mnist_mini", 20, "embedded", id="mnist_mini"),
    pytest.param("cifar10det_3c3d", 10, "synthetic", id="cifar10det_3c3d"),
    pytest.param(
        "cifar100det_allcnnc", 10, "synthetic", id="cifar100det_allcnnc", marks=pytest.mark.slow
    ),
]


@pytest.mark.parametrize(("problem", "num", "source"), DETERMINISTIC)
def test_deterministic_problems_pass(root, small_batches, capsys, problem, num, source):
    before = sorted(root.rglob("*"))
    assert check(root, problem, num, small_batches) == 0
    out, err = capsys.readouterr()
    assert verdicts(out) == all_ok()
    assert out.splitlines()[0].startswith(f"{problem}: {source} data, seed ")
    assert "all checks hold, the loss is deterministic" in out
    assert err == ""
    assert max(map(len, out.splitlines())) <= 100
    assert sorted(root.rglob("*")) == before


def test_random_augmentation_is_named(root, small_batches, capsys):
    assert check(root, "cifar10_3c3d", 10, small_batches) == 1
    out, err = capsys.readouterr()
    found = verdicts(out)
    assert found["train", "determinism"] == "FAILED"
    assert {found["test", name] for name in CHECKS} == {"ok"}, "test data are not augmented"
    (line,) = err.splitlines()
    assert line.startswith(f"{CHECK}: cifar10_3c3d: ")
    assert "train, determinism: " in line
    assert "random augmentation in the transform of the data" in line
    assert max(map(len, out.splitlines())) <= 100
    words = " ".join(out.split())
    assert "remedy: use a deterministic transform: cifar10det_3c3d instead of" in words
    assert "remedy: use a deterministic transform: cifar10det_3c3d instead" in line


@pytest.mark.parametrize(
    ("layer", "cause"),
    [(nn.BatchNorm1d(20), "BatchNorm in training mode"), (nn.Dropout(0.5), "dropout in training")],
    ids=["batch norm", "dropout"],
)
def test_training_mode_is_named(root, small_batches, capsys, monkeypatch, layer, cause):
    """As if building the Hessian did not put the network into evaluation mode."""
    module = load_script(CHECK)
    true_build, true_hessian = module.build_problem, module.make_hessian

    def build(*args):
        problem = true_build(*args)
        problem.net.insert(2, layer)
        return problem

    def in_training_mode(net, *args, **keys):
        operator = true_hessian(net, *args, **keys)
        net.train()
        return operator

    monkeypatch.setattr(module, "build_problem", build)
    monkeypatch.setattr(module, "make_hessian", in_training_mode)
    assert check(root, "mnist_mini", 20, small_batches) == 1
    out, err = capsys.readouterr()
    found = verdicts(out)
    assert found["train", "determinism"] == found["test", "determinism"] == "FAILED"
    assert cause in err
    assert "put the network into evaluation mode, net.eval()" in err


def test_nan_is_named(root, small_batches, capsys, monkeypatch):
    module = load_script(CHECK)
    true_build = module.build_problem

    def build(*args):
        problem = true_build(*args)
        with torch.no_grad():
            next(problem.net.parameters())[0, 0] = float("nan")
        return problem

    monkeypatch.setattr(module, "build_problem", build)
    assert check(root, "mnist_mini", 20, small_batches) == 1
    out, err = capsys.readouterr()
    assert verdicts(out)["train", "determinism"] == "ok", "NaN is not random"
    assert "train, finite values: NaN or infinite: loss 1 of 1" in err


@pytest.mark.parametrize(
    ("problem", "num", "words", "message"),
    [
        (
            "mnist_mini",
            15,
            [],
            "expected a positive multiple of 10 (the number of classes), got 15",
        ),
        ("mnist_mini", 0, [], "expected a positive multiple of 10"),
        ("mnist_mini", 5000, [], "expected at most"),
        ("mnist_mimi", 10, [], "unknown problem 'mnist_mimi'; the nearest valid one is mnist_mini"),
        ("mnist_mini", 10, ["OPTIMIZER=Adam"], "no settings for mnist_mini with Adam"),
        ("mnist_mini", 10, ["RANDOM_SEED=-1"], "RANDOM_SEED must lie in"),
        ("fmnist_mlp", 10, [], "FashionMNIST"),
        ("mnist_mini", 10, ["SEED=1"], "unknown key 'SEED'; the nearest valid one is"),
        ("mnist_mini", "ten", [], "key NUM_HESSIAN_DATAPOINTS: expected int, got 'ten'"),
    ],
)
def test_wrong_input_is_refused(root, small_batches, capsys, problem, num, words, message):
    assert check(root, problem, num, small_batches, *words) == 2
    assert message in capsys.readouterr().err.splitlines()[0]
