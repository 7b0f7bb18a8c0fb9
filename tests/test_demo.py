"""The demo ends with results that can be read, and says so."""

import os
import re
import subprocess

import pytest

from tests.script_loader import REPOSITORY

pytestmark = [pytest.mark.slow]


def test_the_last_lines_of_the_demo_have_the_verdicts(shell):
    lines = shell("PYTHON=python ./demo.sh demo").splitlines()
    *_, first, last, empty, done, logs, figures = lines
    for step, line in ((0, first), (300, last)):
        assert line.startswith(f"step {step}, train: ")
        assert re.search(r"within 20% for k = .*(355|other k)", line)
    assert (empty, done) == ("", "== Done")
    assert logs.startswith("logs:")
    (figure,) = shell.clone.glob("demo/*/figures/overview.png")
    assert figures.endswith(str(figure.relative_to(shell.clone)))


def test_a_screen_that_there_is_not_is_refused_before_anything_is_written(tmp_path):
    environ = {**os.environ, "SCREEN": "loud"}
    words = ["bash", str(REPOSITORY / "demo.sh"), str(tmp_path / "demo")]
    found = subprocess.run(words, env=environ, capture_output=True, text=True, check=False)
    assert found.returncode == 2
    assert found.stderr == "demo.sh: expected SCREEN=people or SCREEN=json, got loud\n"
    assert not (tmp_path / "demo").exists()
