"""SIGTERM as an exception, so that what is being written is cleaned up before the process ends."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator
from typing import Any


class Interrupted(BaseException):
    """Raised in the main thread when the process is asked to end; its text names the signal."""


@contextlib.contextmanager
def sigterm_raises() -> Iterator[None]:
    """Raise :class:`Interrupted` inside the block on SIGTERM; Ctrl-C raises as ever."""
    try:
        previous = signal.signal(signal.SIGTERM, _interrupt)
    except ValueError:  # not in the main thread: the caller handles signals
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)


def _interrupt(number: int, frame: Any) -> None:
    raise Interrupted(signal.Signals(number).name)


def stopped_by(stop: BaseException) -> tuple[str, int]:
    """Return what ended a process and its exit status, from the exception that it raised."""
    return (str(stop), 143) if isinstance(stop, Interrupted) else ("Ctrl-C", 130)
