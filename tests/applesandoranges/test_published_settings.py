"""GLOBALS of a training with the published keys on data of full size: the published numbers.

The numbers are those of the original logs. The images are not there: GLOBALS depend on how many
there are and of which class, not on what they show.
"""

import dataclasses

import pytest
import torch
from torch.utils.data import Dataset

from applesandoranges.app.keys import parse_config
from applesandoranges.app.log import read_log
from applesandoranges.problems import known
from applesandoranges.problems.datasets import DATASETS, DatasetPair
from applesandoranges.training.keys import TrainingConfig
from applesandoranges.training.run import prepare_run
from tests.script_loader import load_script

STEPS = [0, 2000, 4000, 6000, 8000]
NET_3C3D = [[64, 3, 5, 5], [64], [96, 64, 3, 3], [96], [128, 96, 3, 3], [128], [512, 1152], [512]]
NET_ALLCNNC = [[96, 3, 3, 3], [96], [96, 96, 3, 3], [96], [96, 96, 3, 3], [96], [192, 96, 3, 3]]
RESNET18 = [[64, 3, 7, 7], [64], [64], [64, 64, 3, 3], [64], [64], [64, 64, 3, 3], [64], [64]]
MNIST_MINI = [[20, 256], [20], [20, 20], [20], [20, 20], [20], [20, 20], [20], [20, 20], [20]]

#: PROBLEM: NUM_HESSIAN_DATAPOINTS, MAX_STEPS, RECORD_STEPS, and then of GLOBALS batch_size,
#: num_epochs, steps_per_epoch, lr (as rounded in the logs), num_params, the first param_shapes.
PUBLISHED = {
    "cifar10det_3c3d": (500, 8001, STEPS, 128, 100, 312, 0.022611, 895_210, NET_3C3D),
    "cifar100_allcnnc": (1000, 8001, STEPS, 256, 350, 156, 0.16579, 1_387_108, NET_ALLCNNC),
    "imagenetdet_resnet18": (5000, 8001, STEPS, 150, 50, 8207, 0.1, 11_689_512, RESNET18),
    "mnist_mini": (500, 16001, [*range(0, 1001, 100)], 500, 50, 100, 0.3, 7_030, MNIST_MINI),
}


class Labels(Dataset):
    """Data points that are nothing but their class."""

    def __init__(self, labels):
        self.labels = labels

    def __getitem__(self, idx):
        return torch.zeros(1), int(self.labels[idx])


def full_labels(name, num):
    """Return classes in turn; those of ImageNet one after the other, as ImageFolder does.

    Most classes of its training data have 1300 images; here the last 15 share what is left.
    """
    if name != "ImageNet":
        return torch.arange(num) % DATASETS[name].num_classes
    if num == 50_000:
        return torch.arange(1000).repeat_interleave(50)
    left = num - 985 * 1300
    few = 985 + torch.arange(left) * 15 // left
    return torch.cat([torch.arange(985).repeat_interleave(1300), few])


@pytest.fixture
def full_size(monkeypatch):
    """Make every data set one of full size without images."""

    def load(name, root, transform, augmentation=None):
        spec = DATASETS[name]
        train, test = (full_labels(name, num) for num in (spec.num_train, spec.num_test))
        data = Labels(train)
        return DatasetPair(data, data, Labels(test), train, test, spec.num_classes, "full")

    monkeypatch.setattr(known, "load_dataset", load)


@pytest.fixture
def run_globals(full_size, tmp_path):
    """``run_globals(problem)``: GLOBALS of a training with the published keys of a problem."""

    def prepare(problem):
        num_hessian, max_steps, record_steps, *_ = PUBLISHED[problem]
        words = [
            f"OBS_DATASETS={tmp_path}", f"OUTPUT_DIR={tmp_path / 'output'}", f"PROBLEM={problem}",
            "OPTIMIZER=SGD", "RANDOM_SEED=12345", f"MAX_STEPS={max_steps}", "DEVICE=cpu",
            f"RECORD_STEPS={record_steps}", f"NUM_HESSIAN_DATAPOINTS={num_hessian}",
        ]  # fmt: skip
        run = prepare_run(parse_config(TrainingConfig, words), "10a_gather_params_grads.py")
        run.log.close()
        return read_log(run.log.path).first("GLOBALS")

    return prepare


@pytest.mark.parametrize("problem", PUBLISHED)
def test_globals_are_the_published_ones(run_globals, problem):
    found = run_globals(problem)
    _, max_steps, record_steps, batch_size, epochs, per_epoch, lr, dim, shapes = PUBLISHED[problem]
    expected = {
        "batch_size": batch_size, "num_epochs": epochs, "max_steps": max_steps,
        "steps_per_epoch": per_epoch, "opt_name": "SGD", "sched_name": None, "sched_hpars": None,
        "num_params": dim, "record_steps": record_steps,
    }  # fmt: skip
    assert {name: found[name] for name in expected} == expected
    assert found["opt_hpars"] == {"lr": pytest.approx(lr, rel=5e-5)}
    assert found["param_shapes"][: len(shapes)] == shapes


def test_hessian_subsets_of_imagenet_are_the_published_ones(run_globals):
    found = run_globals("imagenetdet_resnet18")
    train, test = found["H_train_idxs"], found["H_test_idxs"]
    assert train[:12] == [0, 1, 2, 3, 4, 1300, 1301, 1302, 1303, 1304, 2600, 2601]
    assert test[:12] == [0, 1, 2, 3, 4, 50, 51, 52, 53, 54, 100, 101]
    assert (len(train), len(test)) == (5000, 5000)


@pytest.mark.parametrize(
    ("problem", "num_valid"),
    [("imagenetdet_resnet18", 50_000), ("cifar100_allcnnc", 10_000), ("mnist_mini", 10_000)],
)
def test_validation_points_of_full_data(run_globals, problem, num_valid):
    assert run_globals(problem)["num_valid"] == num_valid


RECORDED = {
    "OBS_DATASETS", "DEVICE", "PARAMS_PATH", "TRAINING_LOGPATH", "SUCCESS_FLAG", "TEST_HESSIAN",
    "STEP",
}  # fmt: skip
TRAINING = {
    "OBS_DATASETS", "TUNING_CONF", "OPTIMIZER", "PROBLEM", "RANDOM_SEED", "MAX_STEPS", "DEVICE",
    "OUTPUT_DIR", "OUTDIR_SUFFIX", "RECORD_STEPS", "NUM_HESSIAN_DATAPOINTS",
}  # fmt: skip
#: Keys of CONFIG in the published logs (12a's is called 12b there).
CONFIG_KEYS = {
    "10a_gather_params_grads.py": TRAINING | {"STORE_GRADS"},
    "10c_hessian_hdf5_measurements.py": RECORDED
    | {"MEASUREMENTS_DIR", "NUM_INNER", "NUM_OUTER", "MEASUREMENT_IDXS"},
    "10d_core_and_analysis.py": RECORDED
    | {
        "INNER_VIRTUAL", "OUTER_VIRTUAL", "INNER_MONOLITHIC", "OUTER_MONOLITHIC",
        "WITH_A_POSTERIORI", "NUM_A_POSTERIORI", "DELETE_MERGED_SUBFILES",
    },
    "12a_mnist_mini_exhaustive_test.py": TRAINING
    | {
        "WITH_TEST_HESSIAN", "WITH_TRAIN_HESSIAN", "NUM_OUTER", "NUM_INNER", "WITH_A_POSTERIORI",
        "NUM_A_POSTERIORI",
    },
}  # fmt: skip


@pytest.mark.parametrize(("script", "keys"), CONFIG_KEYS.items(), ids=list(CONFIG_KEYS))
def test_every_key_of_the_published_configurations_is_there(script, keys):
    ours = {field.name for field in dataclasses.fields(load_script(script).Config)}
    assert keys - ours == set()
