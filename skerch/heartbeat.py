"""Signs of life on standard error of a program that computes and says nothing.

On a terminal they are one line at its bottom, which says what is being done and for how long;
whatever is printed appears above it. Elsewhere a line is printed, as soon as nothing was printed
for :data:`SILENCE` seconds. A program has one :class:`Heartbeat`; without one :func:`doing` does
nothing.
"""

from __future__ import annotations

import atexit
import contextlib
import shutil
import sys
import threading
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any, TextIO

#: A line is printed after so many seconds without one, and in the beginning after so many.
SILENCE, FIRST_SILENCE = 8.0, 0.7
#: Seconds between two looks, and between two drawings of the line at the bottom.
TICK = 0.5
SPINNER = "|/-\\"

#: What is being done: a text, or a function of the width that there is (``None``: any).
Activity = str | Callable[[int | None], str]


class Heartbeat:
    """Says what is being done, from :meth:`start` to :meth:`stop`.

    Args:
        what: What is being done at first.
        out: Standard output.
        err: Standard error, where signs of life go.
    """

    def __init__(self, what: Activity, out: TextIO | None = None, err: TextIO | None = None):
        self.out, self.err = out or sys.stdout, err or sys.stderr
        self._is_terminal = self.err.isatty()
        self.activity, self.since = what, time.monotonic()
        self._silent_since, self._silence = self.since, FIRST_SILENCE
        self._drawn = 0  # characters of the line at the bottom
        self._in_line = False  # somebody has begun a line on the terminal
        self._paused = False
        # Reentrant: a signal may leave the main thread at any point, and it goes on printing.
        self._lock = threading.RLock()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="heartbeat", daemon=True)

    def start(self) -> None:
        """Begin; whatever is printed from now on is noticed."""
        sys.stdout, sys.stderr = _Watched(self.out, self), _Watched(self.err, self)
        if self._is_terminal:
            self.look()
        self._thread.start()
        atexit.register(self.stop)

    def stop(self) -> None:
        """Take the line at the bottom away, and the streams back as they were."""
        atexit.unregister(self.stop)
        self._ended.set()
        self._thread.join(2 * TICK)
        self._clear()
        for name, stream in (("stdout", self.out), ("stderr", self.err)):
            if isinstance(getattr(sys, name), _Watched):
                setattr(sys, name, stream)

    def doing(self, what: Activity) -> Activity:
        """Say what is being done from now on, and return what was before."""
        before, self.activity, self.since = self.activity, what, time.monotonic()
        return before

    def say(self, what: str) -> None:
        """The same, and show it at once."""
        self.doing(what)
        self._silence = 0.0
        self.look()

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Leave the screen to another program."""
        with self._lock:
            self._clear()
            self._paused = True
        try:
            yield
        finally:
            self._paused = False

    def look(self) -> None:
        """Draw the line at the bottom, or print one if it is time."""
        with self._lock, contextlib.suppress(OSError, ValueError):  # full, or closed meanwhile
            if self._paused or not self.activity:
                return
            if self._is_terminal:
                if not self._in_line:
                    self._draw()
            elif time.monotonic() - self._silent_since >= self._silence:
                print(f"{time.strftime('%H:%M:%S')}  {self._text(None)}", file=self.err, flush=True)
                self._noticed()

    def _beat(self) -> None:
        while not self._ended.wait(TICK):
            self.look()

    def _text(self, width: int | None) -> str:
        if callable(self.activity):
            return self.activity(width)
        seconds = int(time.monotonic() - self.since)
        return f"{self.activity} ({timedelta(seconds=seconds)})" if seconds else self.activity

    def _draw(self) -> None:
        width = shutil.get_terminal_size().columns - 1
        sign = SPINNER[int(time.monotonic() / TICK) % len(SPINNER)]
        text = f"{sign} {self._text(width - 2)}"[:width]
        self.err.write(f"\r{text.ljust(self._drawn)}")
        self.err.flush()
        self._drawn = len(text)

    def _clear(self) -> None:
        with self._lock, contextlib.suppress(OSError, ValueError):
            if self._drawn:
                self.err.write(f"\r{' ' * self._drawn}\r")
                self.err.flush()
                self._drawn = 0

    def _noticed(self) -> None:
        self._silent_since, self._silence = time.monotonic(), SILENCE

    def write(self, stream: TextIO, text: str, on_terminal: bool) -> int:
        """Write to a stream; on a terminal above the line at the bottom."""
        with self._lock:
            if text and on_terminal:
                self._clear()
                self._in_line = not text.endswith("\n")
            self._noticed()
            return stream.write(text)


class _Watched:
    """A stream whose heartbeat knows when something is written."""

    def __init__(self, stream: TextIO, heartbeat: Heartbeat):
        self._stream, self._heartbeat, self._is_terminal = stream, heartbeat, stream.isatty()

    def write(self, text: str) -> int:
        return self._heartbeat.write(self._stream, text, self._is_terminal)

    def writelines(self, lines: list[str]) -> None:
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


_current: list[Heartbeat] = []


@contextlib.contextmanager
def alive(what: str) -> Iterator[Heartbeat]:
    """Give the program a heartbeat until the end of the block."""
    heartbeat = begin(what)
    try:
        yield heartbeat
    finally:
        end()


def begin(what: str) -> Heartbeat:
    """Give the program a heartbeat, unless it has one."""
    if not _current:
        _current.append(Heartbeat(what))
        _current[0].start()
    return _current[0]


def end() -> None:
    """End it."""
    while _current:
        _current.pop().stop()


def doing(what: Activity) -> Activity:
    """Say what the program does from now on, and return what it did before."""
    return _current[0].doing(what) if _current else ""


def say(what: str) -> None:
    """The same, shown at once."""
    if _current:
        _current[0].say(what)


@contextlib.contextmanager
def paused() -> Iterator[None]:
    """Leave the screen to another program."""
    with _current[0].paused() if _current else contextlib.nullcontext():
        yield
