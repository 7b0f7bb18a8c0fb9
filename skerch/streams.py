"""Standard output and error that outlive their reader, as of ``COMMAND | head -1``."""

from __future__ import annotations

import errno
import io
import os
import sys
from types import TracebackType
from typing import Any, TextIO

from .errors import expected, one_line

#: What writing says once nobody reads any more: a pipe was closed, or a terminal.
NOBODY_READS = (errno.EPIPE, errno.EIO)


#: What helps where a package is not there.
HINT = "; activate the environment (source .venv/bin/activate), or pip install -r requirements.txt"


class _Unread(io.FileIO):
    """A file that swallows what is written after the first time that it could not be."""

    def write(self, data: Any, /) -> int:
        """Write some of ``data`` and return how much.

        Raises:
            OSError: The first time that it cannot be written, unless that is as nobody reads it.
        """
        try:
            return super().write(data)
        except OSError as error:
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self.fileno())  # also for whatever else writes there
            os.close(nowhere)
            if error.errno not in NOBODY_READS:
                raise
        return memoryview(data).nbytes


def outlive_readers() -> None:
    """Let the process go on when whoever reads its standard output or error goes away.

    What it prints from then on is lost, and nothing else: files are written as ever. Streams that
    somebody has replaced are left as they are, and those that were closed at the start go nowhere.
    """
    sys.stdout = _outliving(sys.stdout, sys.__stdout__, 1)
    sys.stderr = _outliving(sys.stderr, sys.__stderr__, 2)


def _outliving(stream: TextIO | None, original: TextIO | None, number: int) -> TextIO:
    if stream is None:
        return open(os.devnull, "w")
    if stream is not original or not isinstance(stream, io.TextIOWrapper):
        return stream
    stream.flush()
    return io.TextIOWrapper(
        io.BufferedWriter(_Unread(number, "w", closefd=False)),
        encoding=stream.encoding,
        errors=stream.errors,
        line_buffering=stream.line_buffering or number == 2,
        write_through=stream.write_through,
    )


def flushed(name: str, status: int) -> int:
    """Write what is left and return the exit status: 1 instead of 0 if that cannot be written."""
    try:
        sys.stdout.flush()
    except OSError as error:
        print(f"{name}: standard output: {one_line(error)}", file=sys.stderr)
        return status or 1
    return status


def failures_to_load_in_one_line(name: str) -> None:
    """Say in one line what ends the program ``name`` while it loads packages, if the machine does.

    Too little memory or address space (``ulimit -v``), too few files, a library that is not there.
    All other errors show their traceback as ever.
    """

    def say(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        if expected(error) or isinstance(error, ImportError):
            hint = "" if not isinstance(error, ModuleNotFoundError) else HINT
            print(f"{name}: cannot be started: {one_line(error)}{hint}", file=sys.stderr)
        else:
            sys.__excepthook__(kind, error, trace)

    sys.excepthook = say
