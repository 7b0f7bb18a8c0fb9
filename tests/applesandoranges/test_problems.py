import importlib.util
import json
import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn.utils import parameters_to_vector

from applesandoranges.problems import deepobs as deepobs_adapter
from applesandoranges.problems.problem import build_problem
from applesandoranges.problems.registry import PROBLEMS
from applesandoranges.problems.registry import REFUSED as REFUSED_PROBLEMS
from applesandoranges.problems.sources import write_embedded, write_synthetic
from skerch.utils import InputError

REPOSITORY = Path(__file__).parents[2]
INIT = json.loads((REPOSITORY / "tests" / "vectors" / "training.json").read_text())[
    "mnist_mini_init"
]

#: Table of the specification: number of parameters, L2 factor.
TABLE = {
    "mnist_mini": (7_030, 0.0),
    "fmnist_mlp": (1_336_610, 0.0),
    "fmnist_2c2d": (3_274_634, 0.0),
    "cifar10_3c3d": (895_210, 0.002),
    "cifar10det_3c3d": (895_210, 0.1),
    "cifar100_allcnnc": (1_387_108, 5e-4),
    "cifar100det_allcnnc": (1_387_108, 5e-4),
    "imagenetdet_resnet18": (11_689_512, 0.0),
    "imagenetdet_resnet50": (25_557_032, 0.0),
}
#: Problems on small synthetic data, with their shapes.
SHAPES = {
    "mnist_mini": (1, 16, 16),
    "fmnist_2c2d": (1, 28, 28),
    "cifar10_3c3d": (3, 32, 32),
    "cifar10det_3c3d": (3, 32, 32),
    "cifar100_allcnnc": (3, 32, 32),
    "cifar100det_allcnnc": (3, 32, 32),
    "imagenetdet_resnet18": (3, 224, 224),
}
AUGMENTED = ["cifar10_3c3d", "cifar100_allcnnc"]


@pytest.fixture(scope="session")
def root(tmp_path_factory):
    """Real digits, and synthetic images for all other problems."""
    root = tmp_path_factory.mktemp("datasets")
    write_embedded(root)
    write_synthetic("FashionMNIST", root, 240, 40)
    write_synthetic("CIFAR10", root, 240, 40)
    write_synthetic("CIFAR100", root, 400, 100)
    write_synthetic("ImageNet", root, 1000, 1000)
    return root


@pytest.fixture(scope="session")
def mnist_mini(root):
    """Tests must not change it."""
    return build_problem("mnist_mini", root, 12345, 500)


@pytest.fixture(scope="session")
def cifar10det(root):
    """Tests must not change it."""
    return build_problem("cifar10det_3c3d", root, 12345, 32)


def weights(problem):
    return parameters_to_vector(problem.net.parameters()).detach()


def test_the_table_covers_every_problem():
    assert {name: spec.num_params for name, spec in PROBLEMS.items()} == {
        name: num_params for name, (num_params, _) in TABLE.items()
    }


@pytest.mark.parametrize(("name", "expected"), TABLE.items(), ids=TABLE)
def test_parameters_and_l2(tmp_path, name, expected):
    problem = build_problem(name, tmp_path, 1, 2, load_data=False)
    assert (len(weights(problem)), problem.l2) == expected


@pytest.mark.parametrize("load_data", [True, False])
def test_mnist_mini_meets_the_reference_weights(root, load_data):
    problem = build_problem("mnist_mini", root, INIT["seed"], 500, load_data=load_data)
    w = weights(problem)
    assert w[:8].tolist() == pytest.approx(INIT["first_8"], rel=1e-6)
    assert w[-5:].tolist() == pytest.approx(INIT["last_5"], rel=1e-6)
    assert w.norm().item() == pytest.approx(INIT["norm"], rel=1e-6)
    assert [list(p.shape) for p in problem.net.parameters()] == INIT["param_shapes"]


@pytest.mark.parametrize("name", ["fmnist_mlp", "cifar10_3c3d", "cifar100det_allcnnc"])
def test_a_seed_gives_the_same_weights_with_and_without_data(root, name):
    first = weights(build_problem(name, root, 7, 8))
    assert torch.equal(first, weights(build_problem(name, root, 7, 8, load_data=False)))
    assert not torch.equal(first, weights(build_problem(name, root, 8, 8, load_data=False)))


def test_building_seeds_every_global_generator(tmp_path):
    def draws():
        build_problem("mnist_mini", tmp_path, 3, 1, load_data=False)
        return random.random(), np.random.rand(), torch.rand(1).item()

    assert draws() == draws()


def test_cifar10det_starts_where_the_published_training_did(tmp_path):
    # Published initial loss, with the L2 term, at this seed: 65.3387. The loss of a network that
    # knows nothing is about log 10 = 2.30 of it, which leaves the L2 term.
    problem = build_problem("cifar10det_3c3d", tmp_path, 12345, 128, load_data=False)
    assert problem.regularization().item() == pytest.approx(65.3387 - np.log(10), abs=0.1)


@pytest.mark.parametrize("name", ["cifar10det_3c3d", "cifar100det_allcnnc"])
def test_regularization_is_over_weights_alone(tmp_path, name):
    problem = build_problem(name, tmp_path, 5, 8, load_data=False)
    matrices = [p for p in problem.net.parameters() if p.ndim > 1]
    squares = sum(p.detach().double().square().sum().item() for p in matrices)
    assert problem.regularization().item() == pytest.approx(0.5 * TABLE[name][1] * squares)
    problem.regularization().backward()
    torch.testing.assert_close(matrices[0].grad, TABLE[name][1] * matrices[0].detach())


@pytest.mark.parametrize("name", ["mnist_mini", "fmnist_mlp", "fmnist_2c2d"])
def test_unregularised_problems(tmp_path, name):
    problem = build_problem(name, tmp_path, 5, 8, load_data=False)
    assert problem.regularization().item() == 0
    assert problem.regularization().shape == ()


@pytest.mark.parametrize(
    ("testproblem", "default"),
    [("cifar10_3c3d", 0.002), ("cifar100_allcnnc", 5e-4), ("fmnist_mlp", 0), ("fmnist_2c2d", 0)],
)
def test_deepobs_own_l2(testproblem, default):
    factor, penalised = deepobs_adapter.l2_penalty(testproblem, torch.nn.Linear(2, 3))
    assert factor == default
    assert [tuple(p.shape) for p in penalised] == [(3, 2)] * (default > 0)


def test_deepobs_comes_without_tensorflow():
    code = (
        "import sys\n"
        "from applesandoranges.problems.deepobs import network\n"
        "network('mlp', num_outputs=10)\n"
        "print([m for m in ('tensorflow', 'deepobs.tensorflow') if m in sys.modules])"
    )
    command = [sys.executable, "-W", "error", "-c", code]
    result = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert (result.stdout.strip(), result.stderr) == ("[]", "")


@pytest.mark.parametrize(("name", "shape"), SHAPES.items(), ids=SHAPES)
def test_batches_go_through_the_network(root, name, shape):
    problem = build_problem(name, root, 0, 4)
    X, y = next(iter(problem.train_loader(0)))
    assert (X.shape, y.shape, y.dtype) == ((4, *shape), (4,), torch.int64)
    problem.net.eval()
    with torch.no_grad():
        outputs = problem.net(X)
    assert outputs.shape == (4, problem.num_classes)
    assert torch.isfinite(problem.criterion(outputs, y))


def test_training_order(mnist_mini):
    def labels(epoch):
        return torch.cat([y for _, y in mnist_mini.train_loader(epoch)])

    # 4000 digits of 60000: 667 of them validate; 3333 train, of which 6 mini-batches of 500.
    permutation = torch.randperm(4000, generator=torch.Generator().manual_seed(12345))
    train = permutation[667:]
    generator = torch.Generator().manual_seed(12345 + 4933327 + 2)
    order = train[torch.randperm(3333, generator=generator)][:3000]
    assert torch.equal(labels(2), mnist_mini.data.train_labels[order])
    assert mnist_mini.steps_per_epoch == len(mnist_mini.train_loader(2)) == 6
    assert not torch.equal(labels(2), labels(0))


def test_validation_data(mnist_mini):
    permutation = torch.randperm(4000, generator=torch.Generator().manual_seed(12345))
    labels = torch.cat([y for _, y in mnist_mini.eval_loader("valid")])
    assert torch.equal(labels, mnist_mini.data.train_labels[permutation[:500]])


@pytest.mark.parametrize(
    ("which", "num"),
    [("train_eval", 640), ("valid", 640), ("test", 960)],
    # of 660 (the 667 that validate, rounded down), 667 and 1000
)
def test_evaluation_drops_the_last_partial_batch(root, which, num):
    problem = build_problem("mnist_mini", root, 12345, 64)
    assert sum(len(y) for _, y in problem.eval_loader(which)) == num


@pytest.mark.parametrize(("which", "num"), [("train_eval", 660), ("valid", 667), ("test", 1000)])
def test_evaluation_keeps_an_only_partial_batch(root, which, num):
    problem = build_problem("mnist_mini", root, 12345, 3000)
    assert [len(y) for _, y in problem.eval_loader(which)] == [num]


def test_train_eval_is_balanced(root):
    problem = build_problem("mnist_mini", root, 12345, 660)
    (_, y), *_ = problem.eval_loader("train_eval")
    assert y.bincount().tolist() == [66] * 10


@pytest.mark.parametrize("which", ["train_eval", "valid", "test"])
def test_evaluation_is_deterministic_despite_augmentation(root, which):
    problem = build_problem("cifar10_3c3d", root, 0, 8)
    first, second = (torch.cat([X for X, _ in problem.eval_loader(which)]) for _ in range(2))
    assert torch.equal(first, second)


@pytest.mark.parametrize("split", ["train", "test"])
def test_hessian_subset(cifar10det, split):
    idxs = cifar10det.hessian_subset(split, 40)
    labels = getattr(cifar10det.data, f"{split}_labels").tolist()
    expected = [i for i, label in enumerate(labels) if labels[:i].count(label) < 4]
    assert idxs.tolist() == expected


@pytest.mark.parametrize("split", ["train", "test"])
def test_hessian_data(cifar10det, split):
    batches = cifar10det.hessian_data(split, 40)
    assert [len(y) for _, y in batches] == [32, 8], "the last partial mini-batch is kept"
    dataset = cifar10det.deterministic_data(split)
    idxs = cifar10det.hessian_subset(split, 40).tolist()
    assert torch.equal(
        torch.cat([X for X, _ in batches]), torch.stack([dataset[i][0] for i in idxs])
    )
    assert torch.cat([y for _, y in batches]).tolist() == [dataset[i][1] for i in idxs]


@pytest.mark.parametrize("name", ["mnist_mini", "cifar10det_3c3d", "cifar100det_allcnnc"])
def test_deterministic_hessian_data_are_loaded_once(root, name):
    problem = build_problem(name, root, 0, 8)
    first, again = (problem.hessian_data("train", problem.num_classes) for _ in range(2))
    assert first is again
    assert not problem.random_augmentation


@pytest.mark.parametrize(("split", "same"), [("train", False), ("test", True)])
@pytest.mark.parametrize("name", AUGMENTED)
def test_augmented_training_hessian_is_random(root, name, split, same):
    problem = build_problem(name, root, 0, 64)
    batches = problem.hessian_data(split, problem.num_classes)
    first, second = (torch.cat([X for X, _ in batches]) for _ in range(2))
    assert torch.equal(first, second) == same
    assert len(batches) == len(list(batches))
    assert problem.random_augmentation


def test_loaders_leave_the_global_generator_alone(mnist_mini):
    before = torch.get_rng_state()
    next(iter(mnist_mini.train_loader(0)))
    next(iter(mnist_mini.eval_loader("test")))
    list(mnist_mini.hessian_data("train", 10))
    assert torch.equal(before, torch.get_rng_state())


def test_training_on_synthetic_data_lowers_the_loss(root):
    problem = build_problem("cifar10det_3c3d", root, 0, 24)
    optimizer = torch.optim.SGD(problem.net.parameters(), lr=0.05)
    losses = []
    for X, y in [*problem.train_loader(0), *problem.train_loader(1), *problem.train_loader(2)]:
        loss = problem.criterion(problem.net(X), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert np.mean(losses[-5:]) < 0.9 * np.mean(losses[:5])


def test_source(mnist_mini, cifar10det):
    assert (mnist_mini.data.source, cifar10det.data.source) == ("embedded", "synthetic")


REFUSED = {
    "unknown problem": (
        lambda root: build_problem("mnist_mimi", root, 0, 1),
        "unknown problem 'mnist_mimi'; the nearest valid one is mnist_mini, all: mnist_mini, fm",
    ),
    "large batch": (
        lambda root: build_problem("mnist_mini", root, 0, 3334),
        "batch size 3334 is larger than its training data",
    ),
    "missing data": (
        lambda root: build_problem("mnist_mini", root / "nowhere", 0, 1),
        "train-images-idx3-ubyte not found",
    ),
    "no data": (
        lambda root: build_problem("mnist_mini", root, 0, 1, load_data=False).data,
        "mnist_mini was built without its data",
    ),
    "Hessian size": (
        lambda root: build_problem("mnist_mini", root, 0, 1).hessian_data("train", 15),
        "expected a positive multiple of 10 .*, got 15",
    ),
    "split": (
        lambda root: build_problem("mnist_mini", root, 0, 1).hessian_subset("valid", 10),
        "unknown split 'valid'",
    ),
    "evaluation set": (
        lambda root: build_problem("mnist_mini", root, 0, 1).eval_loader("train"),
        "unknown evaluation set 'train'; the nearest valid one is train_eval",
    ),
}


@pytest.mark.parametrize(("call", "message"), REFUSED.values(), ids=REFUSED)
def test_refused(root, call, message):
    with pytest.raises(InputError, match=message):
        call(root)


#: Test problems of DeepOBS that are problems here; cifar10det_3c3d and others are variants of them.
OURS = {"fmnist_mlp", "fmnist_2c2d", "cifar10_3c3d", "cifar100_allcnnc"}


def test_every_problem_of_deepobs_is_here_or_refused():
    package = Path(importlib.util.find_spec("deepobs").origin).parent
    files = package.glob("*/testproblems/[!_]*.py")
    theirs = {p.stem for p in files if not p.stem.startswith("testproblem")}
    assert len(theirs) > 20
    assert theirs == REFUSED_PROBLEMS.keys() | OURS
    assert not REFUSED_PROBLEMS.keys() & PROBLEMS.keys()


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("svhn_wrn164", "no experiment used it: .* does not prepare SVHN"),
        ("mnist_mlp", "no experiment used it"),
        ("fmnist_vae", "its loss draws random numbers"),
        ("quadratic_deep", "it has no classes"),
        ("tolstoi_char_rnn", "DeepOBS 1.1.2 has no PyTorch version of it"),
        ("cifar10_vgg16", "DeepOBS 1.1.2 has no PyTorch version of it"),
    ],
)
def test_refused_problems_of_deepobs(tmp_path, name, reason):
    with pytest.raises(InputError, match=f"^problem '{name}': {reason}.*; there are mnist_mini, "):
        build_problem(name, tmp_path, 0, 1)


def test_refused_problems_without_a_pytorch_version_have_none():
    package = Path(importlib.util.find_spec("deepobs").origin).parent
    there = {p.stem for p in (package / "pytorch" / "testproblems").glob("*.py")}
    assert not {name for name, reason in REFUSED_PROBLEMS.items() if "no PyTorch" in reason} & there


@pytest.mark.gpu
def test_device(root):
    problem = build_problem("mnist_mini", root, INIT["seed"], 500, "cuda")
    (X, y), *_ = problem.hessian_data("train", 10)
    devices = {X.device.type, y.device.type, problem.regularization().device.type}
    assert devices | {w.device.type for w in problem.net.parameters()} == {"cuda"}
    assert weights(problem)[:8].tolist() == pytest.approx(INIT["first_8"], rel=1e-6)
