"""Errors inside of what users wrote, in one line: which line of theirs it was, and what it said.

Files of users are known here once they were imported (:func:`remember`).
"""

from __future__ import annotations

import os
import tempfile
import traceback
from collections.abc import Iterable
from pathlib import Path

from skerch.errors import SkerchError, expected

_files: set[str] = set()


class UserCodeError(SkerchError):
    """An error inside of a file of the user, in one line that says where its traceback is."""


def remember(files: Iterable[Path]) -> None:
    """Take note of files of the user."""
    _files.update(str(file) for file in files)


def in_words(error: BaseException) -> str | None:
    """Return what went wrong in a file of the user, and in which line.

    Returns:
        ``None`` for errors that such files have nothing to do with, or that are one line already.
    """
    if expected(error):
        return None
    own = [f for f in traceback.extract_tb(error.__traceback__) if f.filename in _files]
    if not own:
        return None
    said = " ".join(traceback.format_exception_only(error)[-1].split())
    return f"{own[-1].filename}, line {own[-1].lineno}, in {own[-1].name}: {said}"


def full(error: BaseException) -> str:
    """Return the traceback of an error."""
    return "".join(traceback.format_exception(type(error), error, error.__traceback__))


def in_one_line(error: Exception) -> Exception:
    """Return an error inside of a file of the user as one of one line; any other one as it is.

    The traceback goes into a file of its own.
    """
    words = in_words(error)
    if words is None:
        return error
    handle, path = tempfile.mkstemp(prefix="traceback-", suffix=".txt")
    with os.fdopen(handle, "w") as file:
        file.write(full(error))
    return UserCodeError(f"{words} (traceback: {path})")
