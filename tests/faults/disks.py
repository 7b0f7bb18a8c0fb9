"""Disks that are full, of space or of files (inodes)."""

from __future__ import annotations

import os
import subprocess
from functools import partial

import pytest

from tests.faults.processes import limit_file_size

NO_SPACE = ("No space left", "File too large", "errno = 28", "errno = 27")


def is_about_space(line):
    return any(text in line for text in NO_SPACE)


def last_line(output):
    text = output.read_text()
    assert "Traceback" not in text, text
    return text.splitlines()[-1]


def mount(directory, options):
    """Make ``directory`` a disk of its own, or skip the test."""
    words = ["mount", "-t", "tmpfs", "-o", options, "faults", str(directory)]
    if os.geteuid() != 0 or subprocess.run(words, capture_output=True).returncode != 0:
        pytest.skip("only root can make a small disk, and not everywhere")


def unmount(directory):
    subprocess.run(["umount", str(directory)], check=True)


class SmallDisk:
    """A directory that is a disk of its own."""

    before = None

    def __init__(self, directory):
        self.directory, self.filler = directory, directory / "filler"

    def fill(self, leave):
        free = os.statvfs(self.directory)
        self.filler.write_bytes(b"\0" * max(free.f_bavail * free.f_frsize - leave, 0))

    def empty(self):
        self.filler.unlink()


class FewFiles:
    """The same, but what is used up is the number of files that it may have."""

    before = None

    def __init__(self, directory):
        self.directory, self.fillers = directory, []

    def fill(self, leave):
        for number in range(os.statvfs(self.directory).f_ffree - leave):
            self.fillers.append(self.directory / f"filler{number}")
            self.fillers[-1].touch()

    def empty(self):
        while self.fillers:
            self.fillers.pop().unlink()


class LimitedDisk:
    """Stands in for a full disk where none can be made: large files fail in the same way."""

    def __init__(self, directory):
        self.directory, self.before = directory, None

    def fill(self, leave):
        self.before = partial(limit_file_size, leave)

    def empty(self):
        self.before = None
