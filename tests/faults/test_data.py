"""Data that were damaged, exchanged or removed between 09a, 10a and 10c."""

import json
import os
import shutil

import pytest
from PIL import Image
from torchvision.transforms import ToTensor

from applesandoranges.app.log import read_log
from applesandoranges.problems import data_files, datasets
from applesandoranges.problems.data_files import NOTE_FILE, hash_images
from applesandoranges.problems.dataset_specs import DatasetSpec
from applesandoranges.problems.datasets import DATASETS, load_dataset
from applesandoranges.problems.sources import write_embedded, write_synthetic
from skerch.errors import InputError
from tests.conftest import TRAIN, run
from tests.faults.trees import tree


def flip(path, where=-1):
    """Flip a bit; by default of the last byte, of an image that is in no Hessian."""
    content = bytearray(path.read_bytes())
    content[where] ^= 1
    path.write_bytes(content)


SETS = {
    "embedded": ("MNIST", write_embedded, "MNIST/raw/train-images-idx3-ubyte"),
    "synthetic": ("CIFAR10", lambda root: write_synthetic("CIFAR10", root, 50, 20),
                  "CIFAR10_synthetic/images.npz"),
}  # fmt: skip


@pytest.fixture(params=SETS)
def prepared(request, tmp_path):
    """Name and root of a data set, and one of its files."""
    name, write, file = SETS[request.param]
    write(tmp_path)
    return name, tmp_path, tmp_path / file


def test_data_that_differ_from_their_note_are_refused(prepared):
    name, root, file = prepared
    load_dataset(name, root, ToTensor())
    flip(file, len(file.read_bytes()) // 2)
    said = f"{NOTE_FILE}.*: {file.name} was .* bytes, sha256"
    if name == "CIFAR10":
        said = f"{file.name}: damaged"  # by the checksum of the archive, before
    with pytest.raises(InputError, match=said):
        load_dataset(name, root, ToTensor())


def test_a_note_of_an_earlier_version_is_completed_by_09a(prepared):
    name, root, file = prepared
    note = file.parent / NOTE_FILE
    whole = note.read_bytes()
    facts = json.loads(whole)
    del facts["files"]
    note.write_text(json.dumps(facts))
    load_dataset(name, root, ToTensor())
    _, write, _ = next(entry for entry in SETS.values() if entry[0] == name)
    assert "already there" in write(root)
    assert note.read_bytes() == whole


@pytest.fixture
def own_data(trained, tmp_path):
    """A copy of the data of the training, without a note that would say that they are damaged."""
    root = tmp_path / "data"
    shutil.copytree(trained.datasets, root)
    (root / "MNIST" / "raw" / NOTE_FILE).write_text(
        json.dumps({"source": "embedded", "num_train": 4000, "num_test": 1000})
    )
    return root


@pytest.mark.parametrize("file", ["train-images-idx3-ubyte", "t10k-labels-idx1-ubyte"])
def test_10c_and_10d_refuse_other_data_though_the_hessian_needs_them_not(
    trained, store, own_data, capsys, file
):
    path = own_data / "MNIST" / "raw" / file
    flip(path)
    before = tree(store.parent / "store"), tree(trained.run_dir)
    assert trained.measure(store, STEP=2, OBS_DATASETS=own_data) == 2
    assert trained.analyse(store, OBS_DATASETS=own_data) == 2
    lines = capsys.readouterr().err.splitlines()
    message = f"not the data of the training ({trained.log}): {file} was"
    assert [message in line for line in lines] == [True, True]
    assert (tree(store.parent / "store"), tree(trained.run_dir)) == before


def test_resume_refuses_other_data(trained, own_data, tmp_path, capsys):
    words = [
        "RANDOM_SEED=12345", "RECORD_STEPS=[0,2]", "MAX_STEPS=2", "NUM_HESSIAN_DATAPOINTS=20",
        "DEVICE=cpu",
    ]  # fmt: skip
    copy = tmp_path / "runs" / trained.run_dir.name
    trained.copy_training(copy)
    log = copy / trained.log.name
    lines = [x for x in log.read_text().splitlines(keepends=True) if "Training done" not in x]
    log.write_text("".join(lines[:4]))
    resume = [TRAIN, *words, f"RESUME={copy}", f"OBS_DATASETS={own_data}"]
    flip(own_data / "MNIST" / "raw" / "train-images-idx3-ubyte")
    before = tree(copy)
    assert run(*resume) == 2
    assert "not the data of the training" in capsys.readouterr().err
    assert tree(copy) == before
    flip(own_data / "MNIST" / "raw" / "train-images-idx3-ubyte")
    assert run(*resume) == 0


def test_a_log_that_does_not_know_its_data_needs_permission(trained, store, tmp_path, capsys):
    log = tmp_path / "run" / trained.log.name
    log.parent.mkdir()
    lines = []
    for line in trained.log.read_text().splitlines():
        stamp, (header, body) = json.loads(line)
        if header == "GLOBALS":
            del body["data_files"]
        lines.append(json.dumps([stamp, [header, body]]) + "\n")
    log.write_text("".join(lines))
    words = {"STEP": 2, "TRAINING_LOGPATH": log}
    assert trained.measure(store, **words) == 2
    assert "does not say which data files it is of" in capsys.readouterr().err
    assert trained.measure(store, **words, ALLOW_UNKNOWN_PROVENANCE=True) == 0


def test_data_that_change_while_they_are_read_are_refused(prepared, monkeypatch):
    name, root, file = prepared
    true_hash = datasets.hash_files

    def hash_and_change(folder, names):
        found = true_hash(folder, names)
        flip(file)
        return found

    monkeypatch.setattr(datasets, "hash_files", hash_and_change)
    with pytest.raises(InputError, match="was changed while it was read"):
        load_dataset(name, root, ToTensor())


# ------------------------------------------------------------------------------ folders of images


@pytest.fixture
def imagenet(tmp_path, monkeypatch):
    """Folders of images of two classes."""
    tiny = DatasetSpec("imagenet", ("train", "val"), (64, 64, 3), 2, 6, 4)
    monkeypatch.setitem(DATASETS, "ImageNet", tiny)
    for part, num in (("train", 3), ("val", 2)):
        for number, name in enumerate(("n01", "n02")):
            directory = tmp_path / "imagenet" / part / name
            directory.mkdir(parents=True)
            for i in range(num):
                color = (40 * i, 100 * number, 7)
                Image.new("RGB", (64, 48), color).save(directory / f"{i}.jpg")
    return tmp_path


def facts(root):
    return load_dataset("ImageNet", root, ToTensor()).files


def lengthen(path):
    path.write_bytes(path.read_bytes() + b"\0")


def swap(one, other):
    aside = one.with_suffix(".aside")
    one.rename(aside)
    other.rename(one)
    aside.rename(other)


CHANGES = {
    "a byte": lambda train: flip(train / "n01" / "1.jpg"),
    "a name": lambda train: (train / "n01" / "1.jpg").rename(train / "n01" / "9.jpg"),
    "a class": lambda train: swap(train / "n01" / "1.jpg", train / "n02" / "1.jpg"),
    "one less": lambda train: (train / "n01" / "1.jpg").unlink(),
    "longer": lambda train: lengthen(train / "n01" / "1.jpg"),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_the_manifest_of_a_folder_covers(imagenet, change):
    before = facts(imagenet)
    assert (before["train"]["files"], before["val"]["files"]) == (6, 4)
    assert before["train"]["contents"]
    change(imagenet / "imagenet" / "train")
    after = facts(imagenet)
    assert after["train"]["sha256"] != before["train"]["sha256"]
    assert after["val"] == before["val"]


@pytest.mark.parametrize("change", ["a name", "one less", "longer"])
def test_the_manifest_of_a_large_folder_covers_names_and_sizes(imagenet, monkeypatch, change):
    monkeypatch.setattr(data_files, "MAX_HASHED_BYTES", 100)
    before = facts(imagenet)["train"]
    assert not before["contents"]
    CHANGES[change](imagenet / "imagenet" / "train")
    assert facts(imagenet)["train"]["sha256"] != before["sha256"]


def test_a_manifest_does_not_depend_on_where_the_folder_lies(tmp_path):
    found = []
    for name in ("a", "b"):
        path = tmp_path / name / "n01" / "x.jpg"
        path.parent.mkdir(parents=True)
        path.write_bytes(b"image")
        found.append(hash_images(tmp_path / name, [(str(path), 0)]))
    assert found[0] == found[1]


@pytest.mark.parametrize("harm", ["truncated", "no image", "removed"])
def test_an_image_that_cannot_be_read_is_named(imagenet, harm):
    data, path = (
        load_dataset("ImageNet", imagenet, ToTensor()),
        (imagenet / "imagenet" / "train" / "n01" / "1.jpg"),
    )
    content = path.read_bytes()
    if harm == "removed":
        path.unlink()
    else:
        path.write_bytes(content[: len(content) // 2] if harm == "truncated" else b"no image")
    data.train[0]
    with pytest.raises(InputError, match=r"n01/1\.jpg: not a readable image \("):
        data.train[1]


def test_images_that_are_not_sorted_into_classes_are_no_damage(imagenet):
    val = imagenet / "imagenet" / "val"
    for path in list(val.rglob("*.jpg")):
        path.rename(val / f"{path.parent.name}_{path.name}")
    shutil.rmtree(val / "n01")
    shutil.rmtree(val / "n02")
    with pytest.raises(InputError, match="the images of val are not sorted into folders"):
        load_dataset("ImageNet", imagenet, ToTensor())


# ------------------------------------------------------------------------------ own data

PROBLEM = """
import pathlib, torch
from torch import nn
from torch.utils.data import TensorDataset

loss = nn.CrossEntropyLoss()
settings = {"batch_size": 10, "num_epochs": 1,
            "SGD": {"lr_schedule": None, "opt_hpars": {"lr": 0.1}}}
X = torch.load(pathlib.Path(__file__).with_name("X.pt"))

def network():
    return nn.Linear(3, 2)

def data(split):
    return TensorDataset(X, (X.sum(1) > 0).long())
"""


@pytest.fixture
def own_problem(tmp_path):
    import torch

    (tmp_path / "own.py").write_text(PROBLEM)
    torch.save(torch.linspace(-1, 1, 120).reshape(40, 3), tmp_path / "X.pt")
    return tmp_path


def test_own_data_are_hashed_too(own_problem, capsys):
    import torch

    words = [
        TRAIN, f"PROBLEM={own_problem / 'own.py'}", "RECORD_STEPS=[0]", "MAX_STEPS=0",
        "NUM_HESSIAN_DATAPOINTS=10", "DEVICE=cpu", f"OUTPUT_DIR={own_problem / 'output'}",
        "RANDOM_SEED=1",
    ]  # fmt: skip
    assert run(*words) == 0
    (run_dir,) = (own_problem / "output").iterdir()
    (log,) = run_dir.glob("*.log")
    files = read_log(log).first("GLOBALS")["data_files"]
    assert [files[split]["points"] for split in ("train", "test")] == [40, 40]
    log.write_text("".join(log.read_text().splitlines(keepends=True)[:3]))
    X = torch.load(own_problem / "X.pt")
    X[39, 0] += 1  # in no Hessian
    torch.save(X, own_problem / "X.pt")
    os.utime(own_problem / "own.py")  # a new process would import it anew
    assert run(*words, f"RESUME={run_dir}") == 2
    assert "not the data of the training" in capsys.readouterr().err
