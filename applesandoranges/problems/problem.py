"""A problem: network, data, loss and L2 term, rebuilt identically from a seed."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, Sampler, Subset

from skerch.errors import InputError

from ..app.names import check_name
from . import deepobs
from .datasets import DATASETS, DatasetPair, load_dataset
from .registry import PROBLEMS, check_problem
from .samplers import EpochSampler, balanced_indices, split_indices

Batch = tuple[Tensor, Tensor]


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
