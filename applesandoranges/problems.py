"""The problems: network, data, loss and L2 term of each, rebuilt identically from a seed."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, Sampler, Subset

from skerch.errors import InputError

from . import deepobs_adapter as deepobs
from .datasets import DATASETS, DatasetPair, Transform, load_dataset
from .names import check_name
from .samplers import EpochSampler, balanced_indices, split_indices

Batch = tuple[Tensor, Tensor]


def net_mnist_mini() -> nn.Sequential:
    """Return the MLP 256-20-20-20-20-20-10 with tanh, initialised twice.

    The second initialisation is part of the published experiments: it decides which weights a seed
    gives.
    """
    widths = (256, 20, 20, 20, 20, 20, 10)
    layers: list[nn.Module] = [nn.Flatten()]
    for fan_in, fan_out in pairwise(widths):
        layers += [nn.Linear(fan_in, fan_out), nn.Tanh()]
    net = nn.Sequential(*layers[:-1])
    for layer in net:
        if isinstance(layer, nn.Linear):
            layer.reset_parameters()
    return net


@dataclass(frozen=True)
class ProblemSpec:
    """What a problem is made of.

    Attributes:
        data: Key of :data:`applesandoranges.datasets.DATASETS`.
        network: Builds the network; draws its weights from torch's global generator.
        num_params: Number of parameters ``D``.
        transform: Makes the transform from images to tensors, deterministic.
        augmentation: Makes the random transform of the training data; without one they are
            deterministic.
        deepobs: Test problem in DeepOBS that says which parameters the L2 term penalises; without
            one there is no such term.
        l2: Factor of the L2 term; without one it is DeepOBS's own.
    """

    data: str
    network: Callable[[], nn.Module]
    num_params: int
    transform: Callable[[], Transform]
    augmentation: Callable[[], Transform] | None = None
    deepobs: str | None = None
    l2: float | None = None


# torchvision takes seconds to import; it is, like DeepOBS, when a problem is built.


def _to_tensor() -> Transform:
    from torchvision import transforms

    return transforms.ToTensor()


def _shrunk_to_tensor() -> Transform:
    from torchvision import transforms

    return transforms.Compose([transforms.Resize((16, 16)), transforms.ToTensor()])


def _imagenet_transform() -> Transform:
    from torchvision import transforms

    return transforms.Compose(
        [
            transforms.Resize(256),
            transforms.CenterCrop(224),
            transforms.ToTensor(),
            transforms.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
        ]
    )


def _resnet(name: str) -> nn.Module:
    from torchvision import models

    return getattr(models, name)(num_classes=1000)


def _cifar(augmented: bool, **options: Any) -> ProblemSpec:
    dataset = options["data"].lower()
    augmentation = partial(deepobs.training_transform, dataset, augmented=True)
    return ProblemSpec(
        transform=partial(deepobs.training_transform, dataset, augmented=False),
        augmentation=augmentation if augmented else None,
        **options,
    )


def _cifar10(augmented: bool, l2: float | None) -> ProblemSpec:
    return _cifar(
        augmented,
        data="CIFAR10",
        network=partial(deepobs.network, "cifar10_3c3d", num_outputs=10),
        num_params=895_210,
        deepobs="cifar10_3c3d",
        l2=l2,
    )


def _cifar100(augmented: bool) -> ProblemSpec:
    return _cifar(
        augmented,
        data="CIFAR100",
        network=partial(deepobs.network, "cifar100_allcnnc"),
        num_params=1_387_108,
        deepobs="cifar100_allcnnc",
    )


PROBLEMS: dict[str, ProblemSpec] = {
    "mnist_mini": ProblemSpec("MNIST", net_mnist_mini, 7_030, _shrunk_to_tensor),
    "fmnist_mlp": ProblemSpec(
        "FashionMNIST",
        partial(deepobs.network, "mlp", num_outputs=10),
        1_336_610,
        _to_tensor,
        deepobs="fmnist_mlp",
    ),
    "fmnist_2c2d": ProblemSpec(
        "FashionMNIST",
        partial(deepobs.network, "mnist_2c2d", num_outputs=10),
        3_274_634,
        _to_tensor,
        deepobs="fmnist_2c2d",
    ),
    "cifar10_3c3d": _cifar10(augmented=True, l2=None),
    "cifar10det_3c3d": _cifar10(augmented=False, l2=0.1),
    "cifar100_allcnnc": _cifar100(augmented=True),
    "cifar100det_allcnnc": _cifar100(augmented=False),
    "imagenetdet_resnet18": ProblemSpec(
        "ImageNet", partial(_resnet, "resnet18"), 11_689_512, _imagenet_transform
    ),
    "imagenetdet_resnet50": ProblemSpec(
        "ImageNet", partial(_resnet, "resnet50"), 25_557_032, _imagenet_transform
    ),
}

_NOT_USED = "no experiment used it: it has neither training settings nor a Hessian that was checked"
_RANDOM_LOSS = "its loss draws random numbers, and so its Hessian is random"
_NO_PYTORCH = "DeepOBS 1.1.2 has no PyTorch version of it"

#: Test problems of DeepOBS that are none here, with the reason.
REFUSED: dict[str, str] = {
    "mnist_logreg": _NOT_USED,
    "mnist_mlp": _NOT_USED,
    "mnist_2c2d": _NOT_USED,
    "cifar100_3c3d": _NOT_USED,
    "svhn_wrn164": f"{_NOT_USED}; 09a does not prepare SVHN",
    "mnist_vae": _RANDOM_LOSS,
    "fmnist_vae": _RANDOM_LOSS,
    "quadratic_deep": "it has no classes, of which Hessians here take equally many data points",
    **dict.fromkeys(
        (
            "fmnist_logreg", "svhn_3c3d", "cifar10_vgg16", "cifar10_vgg19", "cifar100_vgg16",
            "cifar100_vgg19", "cifar100_wrn404", "imagenet_vgg16", "imagenet_vgg19",
            "imagenet_inception_v3", "tolstoi_char_rnn", "two_d_beale", "two_d_branin",
            "two_d_rosenbrock",
        ),
        _NO_PYTORCH,
    ),
}  # fmt: skip


def check_problem(name: str, where: str = "") -> None:
    """Check that ``name`` is a problem.

    Args:
        name: The name.
        where: What it stands in, for the error message.

    Raises:
        InputError: If not; in one line with the reason, if it is a test problem of DeepOBS, and
            with all problems there are.
    """
    if name in REFUSED:
        raise InputError(
            f"problem{where} {name!r}: {REFUSED[name]}; there are {', '.join(PROBLEMS)}"
        )
    check_name(f"problem{where}", name, PROBLEMS)


class DeviceBatches:
    """The mini-batches of a loader on a device, drawn anew in each iteration."""

    def __init__(self, loader: DataLoader, device: torch.device):
        self.loader = loader
        self.device = device

    def __iter__(self) -> Iterator[Batch]:
        for X, y in self.loader:
            yield X.to(self.device), y.to(self.device)

    def __len__(self) -> int:
        return len(self.loader)


class Problem:
    """A network with its loss, L2 term and data.

    Attributes:
        name: Key of :data:`PROBLEMS`.
        net: The network, on ``device``.
        criterion: The loss, a mean over the mini-batch, without the L2 term.
        device: Where the network is.
        batch_size: Data points per mini-batch.
    """

    def __init__(
        self,
        name: str,
        net: nn.Module,
        data: DatasetPair | None,
        seed: int,
        batch_size: int,
        device: torch.device,
    ):
        self.name = name
        self.net = net.to(device)
        self.criterion = nn.CrossEntropyLoss()
        self.device = device
        self.batch_size = batch_size
        self._data = data
        self._seed = seed
        self._spec = PROBLEMS[name]
        self._kept_batches: dict[tuple[str, int], list[Batch]] = {}
        self.l2, self._penalised = 0.0, list[nn.Parameter]()
        if self._spec.deepobs is not None:
            own_l2, self._penalised = deepobs.l2_penalty(self._spec.deepobs, self.net)
            self.l2 = own_l2 if self._spec.l2 is None else self._spec.l2

    @property
    def data(self) -> DatasetPair:
        """The data.

        Raises:
            InputError: If the problem was built without them.
        """
        if self._data is None:
            raise InputError(f"{self.name} was built without its data")
        return self._data

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        return DATASETS[self._spec.data].num_classes

    @property
    def random_augmentation(self) -> bool:
        """Whether the training data, and so the training Hessian, are random."""
        return self._spec.augmentation is not None

    @property
    def steps_per_epoch(self) -> int:
        """Full mini-batches of training data."""
        return len(self._split[0]) // self.batch_size

    def regularization(self) -> Tensor:
        """Return the L2 term ``0.5 * l2 * sum w^2`` over the penalised weights, a scalar."""
        total = torch.zeros((), device=self.device)
        for weight in self._penalised:
            total = total + weight.square().sum()
        return 0.5 * self.l2 * total

    def num_valid(self, of_full: int | None = None) -> int:
        """Return how many of the training data validate.

        Args:
            of_full: How many of a full data set do; without it, what the data set says.
        """
        n, dataset = len(self.data.train_labels), DATASETS[self._spec.data]
        most = dataset.num_valid if of_full is None else of_full
        return min(most, round(most * n / dataset.num_train))

    @cached_property
    def _split(self) -> tuple[Tensor, Tensor]:
        """Training and validation indices of the training data."""
        return split_indices(len(self.data.train_labels), self._seed, self.num_valid())

    def train_loader(self, epoch: int, skip: int = 0) -> DataLoader:
        """Return the mini-batches of an epoch, counted from 0; the last partial one is dropped.

        Args:
            epoch: Which epoch.
            skip: Mini-batches to leave out at its beginning.
        """
        sampler = EpochSampler(self._split[0], self._seed)
        sampler.set_epoch(epoch, skip * self.batch_size)
        return self._loader(self.data.train, sampler=sampler, drop_last=True)

    def eval_loader(self, which: str) -> DataLoader:
        """Return the mini-batches of an evaluation set, in fixed order.

        Args:
            which: ``train_eval``, a class-balanced subset of the training data of about the size of
                the validation data; ``valid``; or ``test``. The last partial mini-batch is dropped
                unless it is the only one.
        """
        check_name("evaluation set", which, ("train_eval", "valid", "test"))
        valid = self._split[1]
        dataset: Dataset = self.data.train_eval
        if which == "train_eval":
            per_class = max(1, len(valid) // self.num_classes)
            idxs = balanced_indices(self.data.train_labels, per_class * self.num_classes)
        elif which == "valid":
            idxs = valid
        else:
            dataset, idxs = self.data.test, torch.arange(len(self.data.test_labels))
        drop_last = len(idxs) >= self.batch_size
        return self._loader(Subset(dataset, idxs.tolist()), drop_last=drop_last)

    def hessian_subset(self, split: str, size: int) -> Tensor:
        """Return the class-balanced indices of a Hessian: the lowest ones of each class, ascending.

        Raises:
            InputError: If ``size`` is no multiple of the number of classes, or larger than the data
                allow.
        """
        self._check_split(split)
        labels = self.data.train_labels if split == "train" else self.data.test_labels
        return balanced_indices(labels, size)

    def hessian_data(self, split: str, size: int) -> Iterable[Batch]:
        """Return the mini-batches of a Hessian on ``device``, to be iterated again and again.

        They are loaded once and kept, except for randomly augmented training data: their Hessian is
        random too. The last partial mini-batch is kept.
        """
        idxs = self.hessian_subset(split, size)
        random_data = split == "train" and self.random_augmentation
        dataset = self.data.train if random_data else self.deterministic_data(split)
        loader = self._loader(Subset(dataset, idxs.tolist()), drop_last=False)
        batches = DeviceBatches(loader, self.device)
        if random_data:
            return batches
        if (split, size) not in self._kept_batches:
            self._kept_batches[split, size] = list(batches)
        return self._kept_batches[split, size]

    def deterministic_data(self, split: str) -> Dataset:
        """Return the data of ``split`` without random augmentation."""
        self._check_split(split)
        return self.data.train_eval if split == "train" else self.data.test

    def _loader(
        self, dataset: Dataset, drop_last: bool, sampler: Sampler[int] | None = None
    ) -> DataLoader:
        return DataLoader(
            dataset,
            batch_size=self.batch_size,
            sampler=sampler,
            drop_last=drop_last,
            # Without a generator of its own, each iteration would draw from the global one.
            generator=torch.Generator(),
        )

    @staticmethod
    def _check_split(split: str) -> None:
        check_name("split", split, ("train", "test"))


def build_problem(
    name: str,
    root: Path,
    seed: int,
    batch_size: int,
    device: torch.device | str = "cpu",
    load_data: bool = True,
) -> Problem:
    """Build a problem, seeding all global generators, so that a seed gives the same one everywhere.

    Args:
        name: Key of :data:`PROBLEMS`.
        root: Directory of the data sets.
        seed: Seed of weights, validation split and training order.
        batch_size: Data points per mini-batch.
        device: Where the network goes, and the data of Hessians.
        load_data: Whether the data are needed; the network is the same without them.

    Raises:
        InputError: If there is no such problem, its data are missing or ``batch_size`` is larger
            than the training data.
    """
    check_problem(name)
    spec = PROBLEMS[name]
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
    data = None
    if load_data:
        augmentation = None if spec.augmentation is None else spec.augmentation()
        data = load_dataset(spec.data, root, spec.transform(), augmentation)
    problem = Problem(name, spec.network(), data, seed, batch_size, torch.device(device))
    if load_data and problem.steps_per_epoch < 1:
        raise InputError(
            f"{name}: the batch size {batch_size} is larger than its training data "
            f"({len(problem.data.train_labels)} images, some of them for validation)"
        )
    return problem
