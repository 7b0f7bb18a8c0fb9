"""Every problem of the specification: its layers, its training, its Hessian.

On small synthetic data, of CIFAR-100 with ten classes and of ImageNet with two: a class-balanced
Hessian of a thousand classes takes minutes. The networks are the full ones.
"""

import dataclasses

import h5py
import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from matplotlib.figure import Figure
from matplotlib.text import Text
from torch import nn

from applesandoranges.app.log import read_log
from applesandoranges.hessian.checks import check_operator, run_checks
from applesandoranges.hessian.loss import Loss
from applesandoranges.hessian.operator import make_hessian
from applesandoranges.measurement.recorded_hessian import (
    RecordedHessianConfig,
    load_recorded_hessian,
)
from applesandoranges.problems.datasets import DATASETS
from applesandoranges.problems.parameters import load_state, trainable, untrained_state
from applesandoranges.problems.problem import build_problem
from applesandoranges.problems.registry import PROBLEMS
from applesandoranges.problems.sources import write_synthetic
from applesandoranges.results.collect import read_logs
from skerch.utils import gaussian_noise
from tests.conftest import ANALYSE, TRAIN, Pipeline, run
from tests.script_loader import load_script

NUM_CLASSES, IMAGENET_CLASSES = 10, 2


def linear(*widths):
    """Return the shapes of dense layers with biases."""
    pairs = zip(widths[1:], widths[:-1], strict=True)
    return [shape for out, fan_in in pairs for shape in ((out, fan_in), (out,))]


def conv(out, fan_in, size):
    """Return the shapes of a convolution with bias."""
    return [(out, fan_in, size, size), (out,)]


def conv_bn(out, fan_in, size):
    """Return the shapes of a convolution without bias and of BatchNorm."""
    return [(out, fan_in, size, size), (out,), (out,)]


def resnet_stage(out, fan_in):
    """Return the shapes of two basic blocks; a 1x1 convolution where the width changes."""
    shortcut = conv_bn(out, fan_in, 1) if out != fan_in else []
    first = conv_bn(out, fan_in, 3) + conv_bn(out, out, 3) + shortcut
    return first + conv_bn(out, out, 3) + conv_bn(out, out, 3)


def bottlenecks(width, fan_in, num):
    """Return the shapes of bottleneck blocks: 1x1, 3x3, and 1x1 to four times the width."""
    shapes = []
    for block_in in [fan_in, *[4 * width] * (num - 1)]:
        shapes += conv_bn(width, block_in, 1) + conv_bn(width, width, 3)
        shapes += conv_bn(4 * width, width, 1)
        shapes += conv_bn(4 * width, block_in, 1) if block_in != 4 * width else []
    return shapes


NET_3C3D = [
    *conv(64, 3, 5), *conv(96, 64, 3), *conv(128, 96, 3), *linear(1152, 512, 256, 10),
]  # fmt: skip
NET_ALLCNNC = [
    *conv(96, 3, 3), *conv(96, 96, 3), *conv(96, 96, 3),
    *conv(192, 96, 3), *conv(192, 192, 3), *conv(192, 192, 3),
    *conv(192, 192, 3), *conv(192, 192, 1), *conv(100, 192, 1),
]  # fmt: skip

#: Number of parameters and their shapes.
LAYERS = {
    "mnist_mini": (7_030, linear(256, 20, 20, 20, 20, 20, 10)),
    "fmnist_mlp": (1_336_610, linear(784, 1000, 500, 100, 10)),
    "fmnist_2c2d": (
        3_274_634, [*conv(32, 1, 5), *conv(64, 32, 5), *linear(3136, 1024, 10)],
    ),
    "cifar10_3c3d": (895_210, NET_3C3D),
    "cifar10det_3c3d": (895_210, NET_3C3D),
    "cifar100_allcnnc": (1_387_108, NET_ALLCNNC),
    "cifar100det_allcnnc": (1_387_108, NET_ALLCNNC),
    "imagenetdet_resnet18": (
        11_689_512,
        [
            *conv_bn(64, 3, 7),
            *resnet_stage(64, 64), *resnet_stage(128, 64),
            *resnet_stage(256, 128), *resnet_stage(512, 256),
            *linear(512, 1000),
        ],
    ),
    "imagenetdet_resnet50": (
        25_557_032,
        [
            *conv_bn(64, 3, 7),
            *bottlenecks(64, 64, 3), *bottlenecks(128, 256, 4),
            *bottlenecks(256, 512, 6), *bottlenecks(512, 1024, 3),
            *linear(2048, 1000),
        ],
    ),
}  # fmt: skip
RANDOM = {"cifar10_3c3d", "cifar100_allcnnc"}
RESNETS = {"imagenetdet_resnet18", "imagenetdet_resnet50"}
SLOW = {"cifar100_allcnnc", "cifar100det_allcnnc", "imagenetdet_resnet18"}
#: Its Hessian needs 7 GB and many minutes: only its layers are looked at.
TOO_LARGE = {"imagenetdet_resnet50"}

#: Mini-batch and learning rates that lower the loss within few steps.
BATCH_SIZE = dict.fromkeys(RESNETS, 8)
#: Last recorded step; the deep tanh network starts on a plateau, and its steps cost nothing.
LAST_STEP = {"mnist_mini": 1000, "fmnist_mlp": 120, "cifar10_3c3d": 40, "cifar10det_3c3d": 40}
#: On its plateau, plain steps of sigmoids leave it to round-off when they find the way down.
MOMENTUM = {"mnist_mini": 0.9}
SGD_LR = {
    "mnist_mini": 0.05, "fmnist_mlp": 0.1, "fmnist_2c2d": 0.05, "cifar10_3c3d": 0.05,
    "cifar10det_3c3d": 0.05, "cifar100_allcnnc": 0.05, "cifar100det_allcnnc": 0.05,
}  # fmt: skip


def problems(*names):
    return [
        pytest.param(name, id=name, marks=[pytest.mark.slow] * (name in SLOW))
        for name in names or [name for name in LAYERS if name not in TOO_LARGE]
    ]


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Synthetic images for every problem, of few classes."""
    root = tmp_path_factory.mktemp("datasets")
    with pytest.MonkeyPatch.context() as patch:
        for name, spec in DATASETS.items():
            num = IMAGENET_CLASSES if name == "ImageNet" else NUM_CLASSES
            patch.setitem(DATASETS, name, dataclasses.replace(spec, num_classes=num))
            write_synthetic(name, root, 80 if name == "ImageNet" else 320, 20)
        yield root


def num_points(name):
    """Return the fewest data points of a Hessian."""
    return IMAGENET_CLASSES if name in RESNETS else NUM_CLASSES


def build(root, name, seed=12345):
    return build_problem(name, root, seed, BATCH_SIZE.get(name, 32))


def settings_file(path, name, optimizer="SGD", hpars=None, schedule=None):
    """Write settings for one problem and return the word that names them."""
    content = {
        "batch_size": BATCH_SIZE.get(name, 32),
        "num_epochs": LAST_STEP.get(name, 20) // 8 + 2,
        optimizer: {
            "opt_hpars": hpars
            or {"lr": SGD_LR.get(name, 0.02), "momentum": MOMENTUM.get(name, 0.0)},
            "lr_schedule": schedule,
        },
    }
    path.write_text(yaml.safe_dump({name: content}))
    return [f"PROBLEM={name}", f"OPTIMIZER={optimizer}", f"TUNING_CONF={path}"]


# ------------------------------------------------------------------------------ networks


def test_the_table_is_complete():
    assert LAYERS.keys() == PROBLEMS.keys()


@pytest.mark.parametrize("name", LAYERS)
def test_layer_shapes(tmp_path, name):
    num_params, shapes = LAYERS[name]
    net = build_problem(name, tmp_path, 1, 2, load_data=False).net
    assert [tuple(p.shape) for p in trainable(net).values()] == shapes
    assert sum(int(np.prod(shape)) for shape in shapes) == num_params


@pytest.mark.parametrize("name", LAYERS)
def test_only_resnets_have_batch_norm_and_no_parameter_is_frozen(tmp_path, name):
    net = build_problem(name, tmp_path, 1, 2, load_data=False).net
    buffers = {key.rpartition(".")[2] for key in untrained_state(net)}
    statistics = {"running_mean", "running_var", "num_batches_tracked"}
    assert buffers == (statistics if name in RESNETS else set())
    assert all(p.requires_grad for p in net.parameters())


# ------------------------------------------------------------------------------ training


@pytest.mark.parametrize("name", problems())
def test_sgd_lowers_the_loss(root, tmp_path, name):
    assert_training_lowers_the_loss(root, tmp_path, name)


ADAM = {"optimizer": "Adam", "hpars": {"lr": 0.001}}
SCHEDULES = {
    "cosine": {"name": "cosine", "warmup_ratio": 0.1},
    "cosine_restarts": {"name": "cosine_restarts", "period": 10},
    "trapezoidal": {"name": "trapezoidal", "warmup_ratio": 0.2, "cooldown_ratio": 0.3},
}


@pytest.mark.parametrize("name", ["mnist_mini", "cifar10det_3c3d"])
@pytest.mark.parametrize(
    "how",
    [ADAM, *({"schedule": schedule} for schedule in SCHEDULES.values())],
    ids=["Adam", *SCHEDULES],
)
def test_adam_and_schedules_lower_the_loss(root, tmp_path, name, how):
    log = assert_training_lowers_the_loss(root, tmp_path, name, **how)
    run_globals = log.first("GLOBALS")
    assert run_globals["opt_name"] == how.get("optimizer", "SGD")
    assert run_globals["sched_name"] == how.get("schedule", {}).get("name")
    rates = [body["lr"] for body in log.bodies("TRAINING BATCH")]
    assert (len(set(rates)) > 1) == ("schedule" in how)


def assert_training_lowers_the_loss(root, tmp_path, name, **how):
    """Train by 10a for a few epochs; compare the losses on the Hessian subsets; return the log."""
    words = settings_file(tmp_path / "settings.yaml", name, **how)
    pipeline = Pipeline(
        tmp_path,
        root,
        4,
        8,
        record=(0, 8, LAST_STEP.get(name, 20)),
        num_hessian=NUM_CLASSES,
        extra=words,
    )
    assert pipeline.train() == 0
    log = read_log(pipeline.log)
    assert log.first("GLOBALS")["data_source"] == "synthetic"
    assert log.first("GLOBALS")["num_params"] == LAYERS[name][0]
    first, *_, last = log.bodies("TRAINING BATCH")
    assert last["H_train_loss"] < 0.95 * first["H_train_loss"]
    if name not in RANDOM:
        assert last["H_test_loss"] < first["H_test_loss"]
    return log


# ------------------------------------------------------------------------------ Hessians


@pytest.mark.parametrize("split", ["train", "test"])
@pytest.mark.parametrize("name", problems())
def test_hessian_passes_the_checks(root, name, split):
    problem = build(root, name)
    problem.net.eval()  # as 20a does: a loss with dropout is random
    loss = Loss.of(problem, split, num_points(name))
    operator = make_hessian(problem.net, problem.criterion, loss.data, num_points(name))
    results = {result.name: result for result in run_checks(loss, operator)}
    failed = [name for name, result in results.items() if not result.ok]
    if name in RANDOM and split == "train":
        assert failed[0] == "determinism"
        assert "random augmentation" in results["determinism"].detail
    else:
        assert failed == [], results


@pytest.mark.slow
def test_the_hessian_of_resnet_is_restored_with_its_statistics(root, tmp_path, monkeypatch):
    """10a records, 10c's machinery rebuilds; parameters alone give another Hessian."""
    script, products = load_script(TRAIN), {}
    true_train = script.train
    v = gaussian_noise(LAYERS["imagenetdet_resnet18"][0], 5, dtype=torch.float32)

    def observed_train(run, on_record, *rest):
        def record(step):
            on_record(step)
            products[step] = hessian_of(run.problem) @ v

        true_train(run, record, *rest)

    monkeypatch.setattr(script, "train", observed_train)
    words = settings_file(tmp_path / "settings.yaml", "imagenetdet_resnet18")
    pipeline = Pipeline(
        tmp_path, root, 2, 4, record=(3,), num_hessian=IMAGENET_CLASSES, extra=words
    )
    assert pipeline.train() == 0
    config = RecordedHessianConfig(
        str(root), str(pipeline.params), str(pipeline.log), STEP=3, DEVICE="cpu"
    )
    recorded = load_recorded_hessian(config)
    check_operator(
        recorded.operator, Loss.of(recorded.problem, "train", IMAGENET_CLASSES), "step 3, train"
    )
    # Sums of float32 in another order: small entries are off by more than their own size.
    assert (recorded.operator @ v - products[3]).norm() < 1e-4 * products[3].norm()
    assert int(dict(recorded.problem.net.named_buffers())["bn1.num_batches_tracked"]) == 3

    fresh = build(root, "imagenetdet_resnet18")
    load_state(fresh.net, recorded.params, untrained_state(fresh.net))
    without = hessian_of(fresh) @ v
    assert (without - products[3]).norm() > 0.5 * products[3].norm()


def hessian_of(problem):
    data = problem.hessian_data("train", IMAGENET_CLASSES)
    return make_hessian(problem.net, problem.criterion, data, IMAGENET_CLASSES)


# ------------------------------------------------------------------------------ whole chain


@pytest.mark.parametrize("name", problems())
def test_the_whole_chain_ends_in_figures(root, tmp_path, name):
    """10a, 10c, 10d and 13a at the true number of parameters, on the test split."""
    dim, n = LAYERS[name][0], 2 if name in SLOW else 4
    words = settings_file(tmp_path / "settings.yaml", name)
    pipeline = Pipeline(
        tmp_path, root, n, 2 * n, dim, (0,), num_hessian=num_points(name), extra=words
    )
    assert pipeline.train() == 0
    store = pipeline.lay_out()
    assert pipeline.measure(store, TEST_HESSIAN=True, CHECK_OPERATOR=False) == 0
    options = {"TEST_HESSIAN": True, "WITH_A_POSTERIORI": False, "EIGENVECTORS": n}
    assert pipeline.analyse(store, **options) == 0
    figures = tmp_path / "f"
    assert run("13a_plot_overlap.py", f"LOGS={pipeline.run_dir}", f"OUTPUT_DIR={figures}") == 0

    with h5py.File(next(pipeline.run_dir.glob("*__eigenvectors__*"))) as file:
        V = file["data"][:].astype(float)
    with h5py.File(pipeline.params) as file:
        largest = np.argsort(-np.abs(file["data"][:, 0]), kind="stable")[:n]
    (result,) = read_logs(str(pipeline.run_dir)).results
    assert V.shape == (dim, n)
    assert result.mask().tolist() == largest.tolist()
    table = pd.read_csv(figures / "overlap_over_k_overlap.csv")
    k = np.arange(1, n + 1)
    overlap = [np.linalg.norm(V[largest[:i], :i]) ** 2 / i for i in k]
    np.testing.assert_allclose(table["overlap"], overlap, rtol=1e-3, atol=1e-12)
    np.testing.assert_allclose(table["chance"], k / dim)
    leverage = (V**2).cumsum(1)
    expected = np.sqrt((dim - k) / (dim - 1) / k * leverage.var(0))
    np.testing.assert_allclose(table["chance_std"], expected, rtol=1e-3)
    z_scores = (table["overlap"] - table["chance"]) / table["chance_std"]
    np.testing.assert_allclose(table["z_score"], z_scores)
    np.testing.assert_allclose(result.quantities["z_scores"], z_scores, rtol=1e-6)


# ------------------------------------------------------------------------------ labels


def test_synthetic_data_are_labelled_in_logs_and_figures(root, tmp_path, monkeypatch):
    words = settings_file(tmp_path / "settings.yaml", "mnist_mini")
    pipeline = Pipeline(tmp_path, root, 4, 8, record=(0,), num_hessian=NUM_CLASSES, extra=words)
    assert pipeline.train() == 0
    store = pipeline.lay_out()
    assert pipeline.measure(store) == pipeline.analyse(store) == 0
    (log,) = pipeline.logs(ANALYSE)
    assert read_log(pipeline.log).first("GLOBALS")["data_source"] == "synthetic"
    assert any(event.body.get("data_source") == "synthetic" for event in read_log(log).events)
    texts = []

    def observed(figure, *args, **kwargs):
        texts.append(" ".join(text.get_text() for text in figure.findobj(Text)))

    monkeypatch.setattr(Figure, "savefig", observed)
    assert run("13a_plot_overlap.py", f"LOGS={log}", f"OUTPUT_DIR={tmp_path / 'f'}") == 0
    assert texts
    assert all("synthetic data" in text for text in texts)


def test_networks_have_no_layer_that_is_random_in_evaluation_mode(tmp_path):
    dropouts = {
        name: sum(isinstance(m, nn.modules.dropout._DropoutNd) for m in net.modules())
        for name in LAYERS
        for net in [build_problem(name, tmp_path, 1, 2, load_data=False).net]
    }
    assert {name for name, num in dropouts.items() if num} == {
        "cifar100_allcnnc", "cifar100det_allcnnc",
    }  # fmt: skip
