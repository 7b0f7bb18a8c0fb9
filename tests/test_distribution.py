"""The distribution says what it needs, and works where there is no repository."""

import shutil
import subprocess
import sys

import pytest

from tests.script_loader import REPOSITORY

SOURCES = ("pyproject.toml", "README.md", "LICENSE", "skerch", "applesandoranges")
USE = """
import importlib, pkgutil
from pathlib import Path
import torch
import skerch, applesandoranges

for package in (skerch, applesandoranges):
    assert Path(package.__file__).is_relative_to({target!r}), package.__file__
    for module in pkgutil.walk_packages(package.__path__, f"{{package.__name__}}."):
        importlib.import_module(module.name)

H = torch.diag(torch.tensor([3.0, -2.0, 1.0, 0, 0, 0, 0, 0], dtype=torch.float64))
found = skerch.seigh(H, 3, 6, 0).S
torch.testing.assert_close(found, torch.tensor([3.0, -2.0, 1.0], dtype=torch.float64))

from applesandoranges.published.tables import eigenvalues
assert len(eigenvalues("mnist_mini", "train", 0)) == 355

from applesandoranges.training.settings import DEFAULT_SETTINGS, load_settings
try:
    load_settings(DEFAULT_SETTINGS, "mnist_mini", "SGD")
except skerch.errors.InputError as error:
    assert "TUNING_CONF" in str(error), error
else:
    raise AssertionError("settings of the repository were found")
"""


def test_requirements_are_those_of_the_distribution():
    tomllib = pytest.importorskip("tomllib", reason="part of Python from 3.11 on")
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    lines = (REPOSITORY / "requirements.txt").read_text().splitlines()
    needed = [line for line in lines if not line.startswith(("#", "--"))]
    assert needed == project["dependencies"]


@pytest.mark.slow
def test_what_is_installed_works_on_its_own(tmp_path):
    source, wheels, target = (tmp_path / name for name in ("source", "wheels", "target"))
    source.mkdir()  # a copy: building leaves files behind
    for name in SOURCES:
        copy = shutil.copytree if (REPOSITORY / name).is_dir() else shutil.copy
        copy(REPOSITORY / name, source / name)
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", "--no-input"]
    offline = ["--no-deps", "--no-index"]
    run([*pip, "wheel", *offline, "--no-build-isolation", "-w", wheels, source], tmp_path)
    (wheel,) = wheels.iterdir()
    run([*pip, "install", *offline, "--target", target, wheel], tmp_path)
    assert {path.name for path in target.iterdir() if not path.name.endswith("dist-info")} == {
        "skerch", "applesandoranges",
    }  # fmt: skip
    use = f"import sys; sys.path.insert(0, {str(target)!r}){USE.format(target=str(target))}"
    run([sys.executable, "-W", "ignore", "-c", use], tmp_path)


def run(command, cwd):
    done = subprocess.run([*map(str, command)], cwd=cwd, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
