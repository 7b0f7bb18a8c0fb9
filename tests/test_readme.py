"""The command sequences of the README run as they stand there."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.script_loader import REPOSITORY

pytestmark = [pytest.mark.slow]


def commands(heading: str) -> str:
    """Return the code block below a heading of the README."""
    section = (REPOSITORY / "README.md").read_text().partition(f"## {heading}\n")[2]
    return section.partition("```\n")[2].partition("```")[0]


@pytest.fixture
def shell(tmp_path):
    """Runs commands in a directory that looks like a fresh clone, with a home of its own."""
    clone, home, programs = tmp_path / "clone", tmp_path / "home", tmp_path / "bin"
    for directory in (clone, home, programs):
        directory.mkdir()
    for path in REPOSITORY.iterdir():
        if path.suffix == ".py" or path.name in ("skerch", "applesandoranges", "config"):
            (clone / path.name).symlink_to(path)
    # The very interpreter that runs the tests, under the name that users type.
    python = programs / "python"
    python.write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    python.chmod(0o755)
    path = f"{programs}{os.pathsep}{os.environ['PATH']}"
    environment = os.environ | {"HOME": str(home), "PATH": path}

    def run(script: str) -> str:
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", script],
            cwd=clone, env=environment, capture_output=True, text=True,
        )  # fmt: skip
        assert done.returncode == 0, f"{done.stdout[-2000:]}\n{done.stderr[-2000:]}"
        assert "Warning" not in done.stderr
        return done.stdout

    run.clone = clone
    return run


def test_distributed_experiment_and_its_rerun(shell):
    script = commands("A distributed experiment, command by command")
    assert "--outer 50 --inner 100" in script
    measure = re.search(r"^python 10c.*$", script, re.MULTILINE)[0]
    again = "\n".join(
        line for line in script.splitlines() if re.match(r"\w+=", line)
    )  # the variables
    shell(script)
    (figure,) = Path(shell.clone).glob("output/*/figures/overview.png")
    assert figure.stat().st_size > 10_000
    assert "Nothing to measure: all requested measurements are done" in shell(f"{again}\n{measure}")


def test_every_script_of_the_repository_is_described():
    readme = (REPOSITORY / "README.md").read_text()
    names = [
        p.name for p in REPOSITORY.iterdir() if re.match(r"\d\d[a-z]_.*\.(py|sh|ipynb)", p.name)
    ]
    assert names
    assert [name for name in names if name not in readme] == []
