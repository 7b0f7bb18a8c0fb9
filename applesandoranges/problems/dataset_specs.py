"""The data sets that are known, as they lie on disk. Needs no torch."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class DatasetSpec:
    """A data set as it lies on disk.

    Attributes:
        folder: Where it lies, below the root.
        files: What must be in that folder.
        shape: Shape of its images; of ImageNet, whose images differ, the one of synthetic images.
        num_classes: Number of classes.
        num_train: Number of training images of the full data set.
        num_test: Number of test images of the full data set.
        num_valid: Training images of the full data set that validate, as in the published
            experiments; smaller data sets have fewer, in proportion.
    """

    folder: str
    files: tuple[str, ...]
    shape: tuple[int, ...]
    num_classes: int
    num_train: int
    num_test: int
    num_valid: int = 10_000

    def valid_of(self, num: int, of_full: int | None = None) -> int:
        """Return how many of ``num`` training images validate.

        Args:
            num: Number of training images.
            of_full: How many of the full data set do; default ``num_valid``.
        """
        most = self.num_valid if of_full is None else of_full
        return min(most, round(most * num / self.num_train))


_IDX_FILES = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)

DATASETS = {
    "MNIST": DatasetSpec("MNIST/raw", _IDX_FILES, (28, 28), 10, 60_000, 10_000),
    "FashionMNIST": DatasetSpec("FashionMNIST/raw", _IDX_FILES, (28, 28), 10, 60_000, 10_000),
    "CIFAR10": DatasetSpec(
        "cifar-10-batches-py",
        (*(f"data_batch_{i}" for i in range(1, 6)), "test_batch", "batches.meta"),
        (32, 32, 3), 10, 50_000, 10_000,
    ),
    "CIFAR100": DatasetSpec(
        "cifar-100-python", ("train", "test", "meta"), (32, 32, 3), 100, 50_000, 10_000
    ),
    "ImageNet": DatasetSpec(
        "imagenet", ("train", "val"), (64, 64, 3), 1000, 1_281_167, 50_000, num_valid=50_000
    ),
}  # fmt: skip
