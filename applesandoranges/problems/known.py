"""The known problems: a data set of images, a network, cross-entropy, and DeepOBS's L2 term."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from skerch.errors import InputError

from ..app.spelling import check_name
from . import deepobs
from .base import SMALLER, Problem
from .data_files import DataFiles
from .datasets import DATASETS, DatasetPair, load_dataset, subset_hash
from .registry import PROBLEMS
from .samplers import balanced_indices, balanced_sizes, split_indices


def check_batch_size(name: str, batch_size: int, images: int, steps_per_epoch: int) -> None:
    """Raise :class:`InputError` unless the training data of a problem fill a mini-batch."""
    if steps_per_epoch < 1:
        raise InputError(
            f"{name}: the batch size {batch_size} is larger than its training data ({images} "
            f"images, some of them for validation){SMALLER}"
        )


class KnownProblem(Problem):
    """A problem that :data:`PROBLEMS` describes.

    Attributes:
        l2: Factor of the L2 term.
    """

    known = True

    def __init__(
        self,
        name: str,
        net: nn.Module,
        data: DatasetPair | None,
        seed: int,
        batch_size: int,
        device: torch.device,
    ):
        super().__init__(name, net, nn.CrossEntropyLoss(), seed, batch_size, device)
        self._data = data
        self._spec = PROBLEMS[name]
        self.l2, self._penalised = 0.0, list[nn.Parameter]()
        if self._spec.deepobs is not None:
            own_l2, self._penalised = deepobs.l2_penalty(self._spec.deepobs, self.net)
            self.l2 = own_l2 if self._spec.l2 is None else self._spec.l2

    @classmethod
    def build(
        cls,
        name: str,
        root: Path | None,
        seed: int,
        batch_size: int,
        device: torch.device,
        load_data: bool,
    ) -> KnownProblem:
        """Build it; the global generators decide on its weights."""
        spec, data = PROBLEMS[name], None
        if load_data and root is not None:
            augmentation = None if spec.augmentation is None else spec.augmentation()
            data = load_dataset(spec.data, root, spec.transform(), augmentation)
        problem = cls(name, spec.network(), data, seed, batch_size, device)
        if data is not None:
            check_batch_size(name, batch_size, len(data.train_labels), problem.steps_per_epoch)
        return problem

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
    def source(self) -> str:
        """Where the data come from: full, embedded, synthetic or partial."""
        return self.data.source

    @property
    def data_files(self) -> DataFiles:
        """The files that the data were loaded from, or the manifests of folders."""
        return self.data.files

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
        return DATASETS[self._spec.data].valid_of(len(self.data.train_labels), of_full)

    @cached_property
    def _split(self) -> tuple[Tensor, Tensor]:
        """Training and validation indices of the training data."""
        return split_indices(len(self.data.train_labels), self._seed, self.num_valid())

    def train_loader(self, epoch: int, skip: int = 0) -> DataLoader:
        """Return the mini-batches of an epoch; the last partial one is dropped."""
        return self._shuffled(self.data.train, self._split[0], epoch, skip)

    def eval_loader(self, which: str) -> DataLoader:
        """Return the mini-batches of an evaluation set.

        ``train_eval`` is class-balanced, of about the size of the validation data. The last partial
        mini-batch is dropped unless it is the only one.
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
        return self._subset_loader(dataset, idxs, drop_last=len(idxs) >= self.batch_size)

    def hessian_sizes(self, split: str) -> tuple[int, int]:
        """See :meth:`Problem.hessian_sizes`; subsets are class-balanced."""
        return balanced_sizes(self._labels(split))

    def hessian_subset(self, split: str, size: int) -> Tensor:
        """Return the class-balanced indices of a Hessian: the lowest ones of each class, ascending.

        Raises:
            InputError: If ``size`` is no multiple of the number of classes, or larger than the data
                allow.
        """
        return balanced_indices(self._labels(split), size)

    def _labels(self, split: str) -> Tensor:
        self._check_split(split)
        return self.data.train_labels if split == "train" else self.data.test_labels

    def subset_hash(self, split: str, size: int) -> str:
        """Return a SHA-256 over the data of a Hessian, without random augmentation."""
        return subset_hash(self.deterministic_data(split), self.hessian_subset(split, size))

    def _hessian_loader(self, split: str, size: int) -> DataLoader:
        random_data = split == "train" and self.random_augmentation
        dataset = self.data.train if random_data else self.deterministic_data(split)
        return self._subset_loader(dataset, self.hessian_subset(split, size), drop_last=False)

    def deterministic_data(self, split: str) -> Dataset:
        """Return the data of ``split`` without random augmentation."""
        self._check_split(split)
        return self.data.train_eval if split == "train" else self.data.test

    def num_right(self, outputs: Any, targets: Any) -> int:
        """Return how many points have their largest output at their class."""
        return int((outputs.argmax(1) == targets).sum())
