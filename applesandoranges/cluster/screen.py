"""What people read: lines with the time, commands as they could be typed, ends of logs."""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Iterable
from pathlib import Path

from skerch.errors import SkerchError

from ..app import screen

_PLAIN = re.compile(r"[A-Za-z0-9_./:=,%+-]+")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


class ClusterError(SkerchError):
    """A job failed, or Slurm does not do what it should."""


class StopError(Exception):
    """The end of a run that did not do all it should, with several lines for people.

    Attributes:
        status: Exit status.
    """

    def __init__(self, status: int, text: str):
        super().__init__(text)
        self.status = status


def say(text: str) -> None:
    """Print a line with the time; on a terminal it is broken below its beginning."""
    screen.say(f"{time.strftime('%H:%M:%S')}  {text}", margin=screen.MARGIN)


def note(script: str, text: str) -> None:
    """Print what does not stop a script, but should be known, on standard error."""
    screen.say(f"{script}: note: {text}", sys.stderr)


def quote(word: str) -> str:
    """Return a word as it is typed in bash, on one line whatever it holds."""
    if _PLAIN.fullmatch(word):
        return word
    if not _CONTROL.search(word):
        return "'" + word.replace("'", r"'\''") + "'"
    word = re.sub(r"['\\]", r"\\\g<0>", word)
    return "$'" + _CONTROL.sub(lambda match: f"\\{ord(match[0]):03o}", word) + "'"


def print_command(title: str, words: Iterable[str]) -> None:
    """Print a command as it could be typed."""
    lines = [""]
    for word in map(quote, words):
        if len(lines[-1]) + len(word) > 98 or word == "sbatch":
            lines.append("   ")
        lines[-1] += f"{' ' if lines[-1] else ''}{word}"
    print(f"\n# {title}\n" + " \\\n".join(lines))


def show_end(log: Path, what: str) -> None:
    """Print the last lines of the log of a job that went wrong."""
    print(f"\n{what}; the end of {quote(str(log))}:", file=sys.stderr)
    if log.exists():
        for line in log.read_text(errors="replace").splitlines()[-5:]:
            print(f"    {line[:300]}", file=sys.stderr)
