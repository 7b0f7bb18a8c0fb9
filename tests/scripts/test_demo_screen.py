"""The demonstration, as it is seen on a terminal."""

import fcntl
import os
import re
import struct
import subprocess
import sys
import tempfile
import termios

import pytest

from tests.script_loader import REPOSITORY
from tests.scripts.test_whole_screens import SCREENS, without_numbers

pytestmark = pytest.mark.slow

LINES, COLUMNS = 100, 100


def on_terminal(words, **variables):
    """Run a command on a terminal of 100 columns; return its status and what it wrote."""
    ours, its = os.openpty()
    fcntl.ioctl(its, termios.TIOCSWINSZ, struct.pack("HHHH", LINES, COLUMNS, 0, 0))
    environment = os.environ | {"TERM": "xterm", "OMP_NUM_THREADS": "1"} | variables
    for name in ("COLUMNS", "NO_COLOR", "PYTHON"):
        environment.pop(name, None)
    process = subprocess.Popen(
        words, cwd=REPOSITORY, stdin=its, stdout=its, stderr=its,
        env=environment | {"PYTHON": sys.executable},
    )  # fmt: skip
    os.close(its)
    written = bytearray()
    while True:
        try:
            part = os.read(ours, 65536)
        except OSError:  # Linux says so when nobody has it open any more
            break
        if not part:
            break
        written += part
    os.close(ours)
    return process.wait(), written.decode()


def seen(text):
    """Return the rows of the screen: after returns of the carriage, and broken at its width."""
    rows = []
    for line in re.sub(r"\x1b\[[0-9;]*[a-zA-Z]", "", text).replace("\r\n", "\n").split("\n"):
        row = ""
        for part in line.split("\r"):
            row = part + row[len(part) :]
        row = row.rstrip()
        rows += [row[at : at + COLUMNS] for at in range(0, len(row), COLUMNS)] or [""]
    return rows


def of_any_machine(screen):
    """Leave out what depends on the processor, the time, or the directory."""
    text = without_numbers(re.sub(r"\n {4}(?=\S)", " ", screen))
    text = re.sub(r"(the overlap|eigenvalues|nothing) can be read.*", "VERDICT", text)
    text = re.sub(r"(not readable|within #%)$", "READABLE", text, flags=re.MULTILINE)
    # What is only said where it takes time.
    text = re.sub(r"^.* (Merging|merging) .*\n", "", text, flags=re.MULTILINE)
    text = re.sub(r"(.* Epoch #: .*\n)+", r"\1", text)
    return re.sub(r"(?<=/)\S*[^\s/]*(?=/(figures|measurements|datasets|#_))", "DIR", text)


def test_it_fits_on_two_screens():
    # Names no longer than that of the default, output/demo, which others may be using.
    with tempfile.TemporaryDirectory(prefix="demo_", dir="/tmp") as directory:
        status, text = on_terminal(["bash", "demo.sh", directory])
    rows = seen(text)
    screen = "\n".join(rows)
    assert status == 0, screen
    assert 40 < len(rows) <= LINES, screen
    assert "\x1b[" in text  # colours
    assert "loading PyTorch" in text
    assert "loading PyTorch" not in screen  # it goes away
    assert "products/s" in text or "product/s" in text  # a bar
    assert screen.count("710 measured, indices 0 ... 709") == 2
    assert screen.count("Verdict: ") == 2
    assert '["INFO"' not in screen
    assert of_any_machine(screen) == (SCREENS / "demo.txt").read_text()
