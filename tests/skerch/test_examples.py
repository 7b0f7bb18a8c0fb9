"""What the documents and the docstrings of skerch say runs as it stands there."""

from __future__ import annotations

import doctest
import importlib
import re
import subprocess
import sys

import pytest

import skerch
from tests.imports import modules_of
from tests.script_loader import REPOSITORY

MODULES = [
    f"skerch.{name}".removesuffix(".__init__") for name in modules_of(skerch) if name != "__main__"
]
#: Modules of which every public function and class has an example.
WITH_EXAMPLES = [
    "skerch.a_posteriori", "skerch.a_priori", "skerch.adapters", "skerch.budget",
    "skerch.decompositions", "skerch.linops", "skerch.planning", "skerch.results", "skerch.ssrft",
    "skerch.store.results", "skerch.synthmat", "skerch.utils",
]  # fmt: skip
#: What is used inside of the package alone, and what is shown by the class that returns it.
INSIDE = {
    "AdaptedLinOp", "LinOp", "adapt", "computing_in", "check_real", "check_sizes", "kind_of",
    "truncate_core", "work_bytes", "APosterioriError", "Cost", "Plan", "check_finite",
    "numerical_rank", "rows_within",
}  # fmt: skip


def public(module):
    """Yield functions and classes that a module defines, by name."""
    for name, value in vars(module).items():
        own = getattr(value, "__module__", None) == module.__name__
        if callable(value) and own and not name.startswith("_") and name not in INSIDE:
            yield name, value


def python_blocks(document):
    return re.findall(r"```python\n(.*?)```", document.read_text(), re.DOTALL)


def run(code, directory):
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code],
        cwd=directory, env={"PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"},
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("name", MODULES)
def test_doctests(name):
    assert doctest.testmod(importlib.import_module(name)).failed == 0


@pytest.mark.parametrize("name", WITH_EXAMPLES)
def test_everything_public_has_an_example(name):
    names = dict(public(importlib.import_module(name)))
    assert names
    assert [n for n, value in names.items() if ">>> " not in (value.__doc__ or "")] == []


def test_the_names_of_the_package_have_examples():
    named = [name for name in skerch.__all__ if callable(getattr(skerch, name))]
    assert {"seigh", "load", "Eigh"} <= set(named)
    assert [n for n in named if ">>> " not in (getattr(skerch, n).__doc__ or "")] == []


def test_the_tutorial_runs(tmp_path):
    blocks = python_blocks(REPOSITORY / "docs" / "skerch.md")
    assert len(blocks) >= 7
    out = run("\n".join(blocks), tmp_path)
    assert "Eigh(387 x 387, 20 pairs" in out
    assert {path.name for path in tmp_path.iterdir()} >= {"top.h5", "from_disk.h5", "store"}


def test_the_three_lines_of_the_readme_run(tmp_path):
    section = (REPOSITORY / "README.md").read_text().partition("## Three lines\n")[2]
    (code, *_) = re.findall(r"```python\n(.*?)```", section, re.DOTALL)
    given = "import torch; A = torch.diag(torch.arange(1.0, 201.0))\n"
    shown = "\nassert result.S.shape == (50,) and result.vectors(10).shape == (200, 10)\n"
    run(given + code + shown, tmp_path)


@pytest.mark.parametrize(
    "link", re.findall(r"\]\(([^)#:]+)\)", (REPOSITORY / "docs" / "skerch.md").read_text())
)
def test_links_of_the_tutorial(link):
    assert (REPOSITORY / "docs" / link).exists()
