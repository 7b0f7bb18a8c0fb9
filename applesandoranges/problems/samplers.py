"""Which data points are used when: splits, the training order, class-balanced subsets.

Everything is drawn from CPU generators of its own, so that neither the device nor other consumers
of randomness change the order.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.utils.data import Sampler

from skerch.errors import InputError
from skerch.utils import randperm

#: Between the seed of the split and the one of the first epoch's order.
EPOCH_SEED_OFFSET = 4933327


def split_indices(n: int, seed: int, num_valid: int = 10_000) -> tuple[Tensor, Tensor]:
    """Split ``0 ... n-1`` at random into training and validation indices.

    Returns:
        ``(train, valid)``, ``int64``, of lengths ``n - num_valid`` and ``num_valid``.

    Raises:
        InputError: If nothing would be left to train on.
    """
    if not 0 <= num_valid < n:
        raise InputError(f"expected 0 <= validation points < {n} data points, got {num_valid}")
    permutation = randperm(n, seed)
    return permutation[num_valid:], permutation[:num_valid]


class EpochSampler(Sampler[int]):
    """Random order of ``indices``, a different one in each epoch, given by ``(seed, epoch)``.

    Epochs count from 0; :meth:`set_epoch` chooses the one that the next iteration goes through.
    ``start`` data points at its beginning are left out: a training goes on in the middle of it.
    """

    def __init__(self, indices: Tensor, seed: int):
        self.indices = indices
        self.seed = seed
        self.epoch = 0
        self.start = 0

    def set_epoch(self, epoch: int, start: int = 0) -> None:
        """Choose the epoch and how many of its data points are left out."""
        self.epoch, self.start = epoch, start

    def __iter__(self) -> Iterator[int]:
        order = randperm(len(self.indices), self.seed + EPOCH_SEED_OFFSET + self.epoch)
        return iter(self.indices[order][self.start :].tolist())

    def __len__(self) -> int:
        return len(self.indices) - self.start


def balanced_sizes(labels: Tensor) -> tuple[int, int]:
    """Return which sizes of :func:`balanced_indices` there are.

    Args:
        labels: Integer classes of all data points, ``[N]``.

    Returns:
        What they are multiples of, and the largest one.
    """
    counts = labels.unique(return_counts=True)[1]
    return len(counts), len(counts) * int(counts.min())


def balanced_indices(labels: Tensor, size: int) -> Tensor:
    """Return ``size`` indices with equally many of each class: its lowest ones, ascending.

    Args:
        labels: Integer classes of all data points, ``[N]``.
        size: Length of the result, a multiple of the number of classes.

    Raises:
        InputError: If ``size`` is not such a multiple or a class has too few data points.
    """
    counts, (multiple, most) = labels.unique(return_counts=True)[1], balanced_sizes(labels)
    per_class, remainder = divmod(size, multiple)
    if remainder or per_class < 1:
        raise InputError(
            f"expected a positive multiple of {multiple} (the number of classes), got {size}"
        )
    if size > most:
        raise InputError(f"expected at most {most} class-balanced data points, got {size}")
    # A stable sort keeps the indices of each class ascending.
    order, starts = labels.argsort(stable=True), counts.cumsum(0) - counts
    positions = starts[:, None] + torch.arange(per_class)
    return order[positions.flatten()].sort().values
