"""What 13a and 20a print, from beginning to end; ``python -m tests.screens`` writes none of these.

Where a text should change, what the failing test shows goes into the file, once it has been read.
"""

import re
import shutil
from pathlib import Path

import pytest

from tests.applesandoranges.test_words import SCREENS as LOGS
from tests.conftest import run

SCREENS = Path(__file__).parent / "screens"


def without_numbers(text: str) -> str:
    """Replace what depends on the processor, and the width of columns with it."""
    text = re.sub(r"-?\d+([.,]\d+)*(e[+-]?\d+)?", "#", text)
    text = re.sub(r" *\n {5,}", " ", text)  # where a line is broken depends on them, too
    text = re.sub(r"[kMGT]?B\b|KB\b", "B", text)
    return "".join(f"{re.sub('  +', '  ', line.rstrip())}\n" for line in text.splitlines())


@pytest.fixture
def logs(tmp_path):
    """The logs of a small run, under the names that scripts give them."""
    directory = tmp_path / "run"
    directory.mkdir()
    for script in ("10a", "10c", "10d"):
        name = f"2026_01_01_10_00_00.000__run[{script}_script.py]2026_01_01.log"
        shutil.copyfile(LOGS / f"{script}.log", directory / name)
    return directory


def test_13a(logs, tmp_path, capsys):
    assert run("13a_plot_overlap.py", f"LOGS={logs}", f"OUTPUT_DIR={tmp_path / 'figures'}") == 0
    out, err = capsys.readouterr()
    lines = [line.rstrip().replace(str(tmp_path), "DIR") for line in (err + out).splitlines()]
    assert lines == (SCREENS / "13a.txt").read_text().splitlines()


def test_20a(digits, capsys):
    words = [f"OBS_DATASETS={digits}", "NUM_HESSIAN_DATAPOINTS=20", "DEVICE=cpu"]
    assert run("20a_curvlinops_checks.py", *words) == 0
    out = capsys.readouterr().out
    assert all(len(line) <= 100 for line in out.splitlines())
    assert without_numbers(out) == (SCREENS / "20a.txt").read_text()
