"""Problems of a file: what it may define, what is made of it, and what is refused in one line."""

import itertools
from pathlib import Path

import pytest
import torch
from torch.nn.utils import parameters_to_vector

from applesandoranges.problems.definition import absolute, is_file, load_definition, short_name
from applesandoranges.problems.minibatch import first_points, hash_of, num_points
from applesandoranges.problems.problem import build_problem, num_params
from applesandoranges.training.settings import DEFAULT_SETTINGS, load_settings
from skerch.errors import InputError

EXAMPLES = Path(__file__).parents[2] / "examples"

GOOD = {
    "head": "import torch\nfrom torch import nn\nfrom torch.utils.data import TensorDataset\n"
    "X, y = torch.arange(24.).reshape(12, 2), torch.arange(12) % 3",
    "network": "def network():\n    return nn.Linear(2, 3)",
    "loss": "loss = nn.CrossEntropyLoss()",
    "data": "def data(split):\n    return TensorDataset(X, y)",
}
#: In place of ``data``: mini-batches of inputs that are dictionaries.
MINI_BATCHES = """
def data(split):
    return [({"x": X[i : i + 5], "name": "a"}, y[i : i + 5]) for i in (0, 5, 10)]
"""


@pytest.fixture
def write(tmp_path):
    numbers = itertools.count()

    def write(**changes):
        path = tmp_path / f"problem_{next(numbers)}.py"
        parts = GOOD | changes
        path.write_text("\n\n\n".join(part for part in parts.values() if part is not None))
        return str(path)

    return write


def build(name, batch_size=4, seed=1, **options):
    return build_problem(name, None, seed, batch_size, **options)


@pytest.mark.parametrize(
    ("name", "file", "short"),
    [
        ("mnist_mini", False, "mnist_mini"),
        ("a/b/net.py", True, "net"),
        ("net.py:small", True, "net-small"),
        ("a:b/net.py", True, "net"),
        ("a:b/net.py:small", True, "net-small"),
    ],
)
def test_names(name, file, short):
    assert (is_file(name), short_name(name)) == (file, short)
    assert absolute(name).endswith(name)
    assert Path(absolute(name)).is_absolute() == file


def test_a_seed_gives_the_same_network_and_order(write):
    path = write(num_valid="num_valid = 2")
    weights = [parameters_to_vector(build(path, seed=s).net.parameters()) for s in (1, 1, 2)]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])
    orders = [torch.cat([X for X, _ in build(path).train_loader(0)]) for _ in range(2)]
    assert torch.equal(*orders)
    assert len(orders[0]) == 8  # 12 less 2 that validate, in full mini-batches of 4


def test_an_epoch_is_cut_without_and_with_skipping(write):
    for data in (GOOD["data"], MINI_BATCHES):
        problem = build(write(data=data))
        assert problem.steps_per_epoch == 3
        whole = [y for _, y in problem.train_loader(1)]
        assert [y.tolist() for _, y in problem.train_loader(1, skip=2)] == [whole[2].tolist()]


def test_hessians_take_the_first_points_or_equally_many_of_each_class(write):
    path = write()
    assert build(path).hessian_subset("train", 5).tolist() == [0, 1, 2, 3, 4]
    classes = "def classes(split):\n    return torch.arange(12) // 4"
    balanced = build(write(classes=classes)).hessian_subset("test", 6)
    assert balanced.tolist() == [0, 1, 4, 5, 8, 9]
    with pytest.raises(InputError, match="multiple of 3"):
        build(write(classes=classes)).hessian_subset("test", 5)
    with pytest.raises(InputError, match="expected 1 to 12 data points"):
        build(path).hessian_subset("train", 13)


def test_mini_batches_are_taken_as_they_come_and_the_last_is_cut(write):
    problem = build(write(data=MINI_BATCHES))
    batches = problem.hessian_data("train", 7)
    assert [len(y) for _, y in batches] == [5, 2]
    assert [inputs["name"] for inputs, _ in batches] == ["a", "a"]
    assert problem.subset_hash("train", 7) != problem.subset_hash("train", 8)


def test_evaluation_sets(write):
    problem = build(write(num_valid="num_valid = 3"))
    sizes = {
        which: sum(len(y) for _, y in problem.eval_loader(which))
        for which in ("train_eval", "valid", "test")
    }
    assert sizes == {"train_eval": 12, "valid": 3, "test": 12}
    assert build(write()).eval_loader("valid") is None


def test_accuracy_is_counted_where_targets_are_classes(write):
    outputs, targets = torch.eye(3), torch.tensor([0, 1, 1])
    assert build(write()).num_right(outputs, targets) == 2
    assert build(write()).num_right(outputs, torch.rand(3, 3)) is None
    own = "def accuracy(outputs, targets):\n    return 0.5"
    assert build(write(accuracy=own)).num_right(outputs, torch.rand(3, 3)) == 1.5


def test_regularization_is_that_of_the_file(write):
    assert float(build(write()).regularization()) == 0
    term = "def regularization(net):\n    return net.weight.square().sum()"
    problem = build(write(regularization=term))
    assert torch.equal(problem.regularization(), problem.net.weight.square().sum())


def test_a_name_in_the_file(tmp_path):
    path = tmp_path / "many.py"
    body = "\n".join(f"    {line}" for part in list(GOOD.values())[1:] for line in part.split("\n"))
    body = body.replace("network()", "network(self)").replace("data(split)", "data(self, split)")
    path.write_text(f"{GOOD['head']}\n\nclass small:\n{body}\n")
    assert build(f"{path}:small").name == "many-small"
    with pytest.raises(InputError, match="the nearest valid one is small"):
        build(f"{path}:smal")


def test_what_it_imports_from_its_directory_is_part_of_its_hash(tmp_path):
    path, other = tmp_path / "problem.py", tmp_path / "my_own_layers.py"
    other.write_text("WIDTH = 2")
    path.write_text("\n\n".join(["import my_own_layers", *GOOD.values()]))
    first = load_definition(str(path)).sha256
    other.write_text("WIDTH = 3 ")
    path.touch()
    assert load_definition(str(path)).sha256 != first


def test_settings_are_those_of_the_file_unless_tuning_conf_has_them(write, tmp_path):
    path = write(
        settings="settings = {'batch_size': 4, 'num_epochs': 2, 'SGD': "
        "{'lr_schedule': None, 'opt_hpars': {'lr': 0.5}}}"
    )
    assert load_settings(DEFAULT_SETTINGS, path, "SGD").opt_hpars["lr"] == 0.5
    conf = tmp_path / "conf.yaml"
    conf.write_text(
        f"{short_name(path)}:\n  batch_size: 3\n  num_epochs: 1\n"
        "  SGD: {lr_schedule: null, opt_hpars: {lr: 0.25}}\n"
    )
    assert load_settings(conf, path, "SGD").opt_hpars["lr"] == 0.25
    with pytest.raises(InputError, match=r"no settings for SGD, .*settings = .*BATCH_SIZE alone"):
        load_settings(DEFAULT_SETTINGS, write(), "SGD")


def test_num_params(write):
    assert num_params("mnist_mini") == 7030
    assert num_params(write()) == 9


REFUSED = {
    "no file": (None, "no such file"),
    "raises on import": ({"head": "1 / 0"}, r"ZeroDivisionError: division by zero \(line 1 of"),
    "syntax": ({"head": "def"}, r"SyntaxError: .*\(line 1\)"),
    "no network": ({"network": "def netwrk(): pass"}, "nearest valid one is netwrk"),
    "no module": ({"network": "def network():\n    return 3"}, "to return a torch.nn.Module, got"),
    "network raises": (
        {"network": "def network():\n    return nn.Linear()"},
        r"network\(\): TypeError: .*\(line 8 of",
    ),
    "double": (
        {"network": "def network():\n    return nn.Linear(2, 3).double()"},
        "parameters of torch.float32, got torch.float64",
    ),
    "nothing to train": ({"network": "def network():\n    return nn.Tanh()"}, "none that is"),
    "one pass": (
        {"data": "def data(split):\n    return iter([(X, y)])"}, "end after one pass; expected",
    ),
    "no data": ({"data": "def data(split):\n    return []"}, "expected data points, got none"),
    "no iterable": ({"data": "def data(split):\n    return 3"}, "to be iterated, got a int"),
    "triples": ({"data": "def data(split):\n    return [(X, y, y)]"}, "got 3 values"),
    "a dictionary alone": ({"data": "def data(split):\n    return [{'x': X}]"}, "got a dict"),
    "lengths": ({"data": "def data(split):\n    return [(X, y[:3])]"}, "data points as first dim"),
    "data raise": (
        {"data": "def data(split):\n    raise OSError('gone')"}, r"data\('train'\): OSError: gone",
    ),
    "few data": (
        {"data": "def data(split):\n    return TensorDataset(X[:3], y[:3])"}, "batch size 4",
    ),
    "valid of mini-batches": ({"data": MINI_BATCHES, "v": "num_valid = 2"}, "takes a Dataset"),
    "classes of mini-batches": (
        {"data": MINI_BATCHES, "v": "def classes(split):\n    return y"}, "classes takes a Dataset",
    ),
    "lazy": ({"network": "def network():\n    return nn.LazyLinear(3)"}, "without a shape"),
    "num_valid": ({"v": "num_valid = 'few'"}, "expected num_valid to be a number"),
}  # fmt: skip


@pytest.mark.parametrize(("changes", "message"), REFUSED.values(), ids=REFUSED)
def test_refusals(write, tmp_path, changes, message):
    path = str(tmp_path / "none.py") if changes is None else write(**changes)
    with pytest.raises(InputError, match=message) as refusal:
        build(path)
    assert "\n" not in str(refusal.value)


def test_random_data_are_refused_for_hessians(write):
    shuffled = (
        "def data(split):\n    from torch.utils.data import DataLoader\n"
        "    return DataLoader(TensorDataset(X, y), 4, shuffle=True)"
    )
    with pytest.raises(InputError, match="gives other data at each pass"):
        build(write(data=shuffled)).subset_hash("train", 4)


def test_nested_mini_batches():
    batch = ({"a": torch.arange(4), "b": [torch.ones(4, 2)]}, torch.zeros(4))
    assert num_points(batch) == 4
    parts = list(first_points([batch, batch, batch], 6))
    assert [num_points(part) for part in parts] == [4, 2]
    assert torch.equal(parts[1][0]["b"][0], torch.ones(2, 2))
    assert hash_of([batch]) == hash_of([batch]) != hash_of([(batch[0], torch.ones(4))])
    with pytest.raises(InputError, match="numbers or texts"):
        hash_of([object()])


@pytest.mark.parametrize("name", ["digits_mlp", "sequence_transformer"])
def test_examples_are_built(name):
    problem = build(str(EXAMPLES / f"{name}.py"), batch_size=50)
    assert len(problem.hessian_subset("test", 100)) == 100
    X, y = next(iter(problem.train_loader(0)))
    assert torch.isfinite(problem.criterion(problem.net(X), y))
