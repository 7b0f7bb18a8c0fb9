"""What every problem is: a network with its loss, L2 term and data."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sized
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, Sampler, Subset

from ..app.spelling import check_name
from .data_files import DataFiles, check_files
from .minibatch import Batch, to_device
from .samplers import EpochSampler


class DeviceBatches:
    """Mini-batches on a device, drawn anew in each iteration.

    Args:
        batches: Iterable again and again.
        device: Where they go.
    """

    def __init__(self, batches: Iterable[Batch], device: torch.device):
        self.batches = batches
        self.device = device

    def __iter__(self) -> Iterator[Batch]:
        for inputs, targets in self.batches:
            yield to_device(inputs, self.device), to_device(targets, self.device)

    def __len__(self) -> int:
        return len(cast(Sized, self.batches))


#: What to do about a batch size that is too large, for messages.
SMALLER = "; it is batch_size in TUNING_CONF, or BATCH_SIZE where nothing is trained"


class Problem(ABC):
    """A network with its loss, L2 term and data.

    Attributes:
        name: Name of the problem.
        net: The network, on ``device``.
        criterion: The loss, a mean over the mini-batch, without the L2 term.
        device: Where the network is.
        batch_size: Data points per mini-batch.
        known: Whether it is of a published experiment, so that its Hessian was checked before.
    """

    known = False

    def __init__(
        self,
        name: str,
        net: nn.Module,
        criterion: nn.Module,
        seed: int,
        batch_size: int,
        device: torch.device,
    ):
        self.name = name
        self.net = net.to(device)
        self.criterion = criterion.to(device)
        self.device = device
        self.batch_size = batch_size
        self._seed = seed
        self._kept_batches: dict[tuple[str, int], list[Batch]] = {}

    # ------------------------------------------------------------------------------ its data

    @property
    @abstractmethod
    def source(self) -> str:
        """Where the data come from: full, embedded, synthetic, or the user's own."""

    @property
    @abstractmethod
    def data_files(self) -> DataFiles:
        """All data, of training and test: which files, or how many points, with hashes."""

    def check_data_files(self, expected: Any, where: str, quick: bool = False) -> None:
        """Raise :class:`InputError` unless all data are the expected ones.

        Args:
            expected: :attr:`data_files` as it was written down.
            where: What wrote it down, for the message.
            quick: Only what takes no pass over the data; :meth:`subset_hash` says all about those
                that a Hessian needs.
        """
        check_files(expected, self.data_files, where)

    @property
    @abstractmethod
    def steps_per_epoch(self) -> int:
        """Mini-batches of training data in an epoch."""

    @abstractmethod
    def num_valid(self, of_full: int | None = None) -> int:
        """Return how many of the training data validate.

        Args:
            of_full: How many of a full data set do, where the problem knows such a one; default
                what it says itself.
        """

    @abstractmethod
    def hessian_sizes(self, split: str) -> tuple[int, int]:
        """Return which sizes of :meth:`hessian_subset` there are.

        Returns:
            What they are multiples of, and the largest one.
        """

    @abstractmethod
    def hessian_subset(self, split: str, size: int) -> Tensor:
        """Return the indices of the data points of a Hessian, ascending.

        Raises:
            InputError: If there is no subset of that size.
        """

    @abstractmethod
    def subset_hash(self, split: str, size: int) -> str:
        """Return a SHA-256 over the data of a Hessian, without random augmentation."""

    @abstractmethod
    def train_loader(self, epoch: int, skip: int = 0) -> Iterable[Batch]:
        """Return the mini-batches of an epoch.

        Args:
            epoch: Which epoch, counted from 0.
            skip: Mini-batches to leave out at its beginning.
        """

    @abstractmethod
    def eval_loader(self, which: str) -> Iterable[Batch] | None:
        """Return the mini-batches of an evaluation set, in fixed order; ``None`` if it has none.

        Args:
            which: ``train_eval``, a subset of the training data of about the size of the set that
                it is compared with; ``valid``; or ``test``.
        """

    @abstractmethod
    def _hessian_loader(self, split: str, size: int) -> Iterable[Batch]:
        """Return the mini-batches of a Hessian."""

    @property
    def random_augmentation(self) -> bool:
        """Whether the training data, and so the training Hessian, are random."""
        return False

    def hessian_data(self, split: str, size: int) -> Iterable[Batch]:
        """Return the mini-batches of a Hessian on ``device``, to be iterated again and again.

        They are loaded once and kept, except for randomly augmented training data: their Hessian is
        random too. The last partial mini-batch is kept.
        """
        self._check_split(split)
        if split == "train" and self.random_augmentation:
            return DeviceBatches(self._hessian_loader(split, size), self.device)
        if (split, size) not in self._kept_batches:
            batches = DeviceBatches(self._hessian_loader(split, size), self.device)
            self._kept_batches[split, size] = list(batches)
        return self._kept_batches[split, size]

    @staticmethod
    def _check_split(split: str) -> None:
        check_name("split", split, ("train", "test"))

    # ------------------------------------------------------------------------------ its loss

    def regularization(self) -> Tensor:
        """Return the L2 term, a scalar."""
        return torch.zeros((), device=self.device)

    @abstractmethod
    def num_right(self, outputs: Any, targets: Any) -> float | None:
        """Return how many points of a mini-batch are classified rightly.

        Returns:
            ``None`` where there is nothing to classify.
        """

    def facts(self) -> dict[str, Any]:
        """Return what else identifies the problem, for the log and for provenance."""
        return {}

    # ------------------------------------------------------------------------------ loaders

    def _shuffled(self, dataset: Dataset, idxs: Tensor, epoch: int, skip: int) -> DataLoader:
        """Return the full mini-batches of an epoch."""
        sampler = EpochSampler(idxs, self._seed)
        sampler.set_epoch(epoch, skip * self.batch_size)
        return self._loader(dataset, drop_last=True, sampler=sampler)

    def _subset_loader(self, dataset: Dataset, idxs: Tensor, drop_last: bool) -> DataLoader:
        return self._loader(Subset(dataset, idxs.tolist()), drop_last)

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
