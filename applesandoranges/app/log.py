"""Logs of one JSON line per event: ``["2026-01-31_12:34:56.789+0100", ["HEADER", {body}]]``.

The time is that of the clock on the wall, with its offset to UTC, so that logs of several time
zones have an order, and those of the hour that a change of the clock repeats. Earlier and
published logs have no offset: their times are taken for UTC, which is right for differences.

The file is for machines; what the screen shows of it is in :mod:`~applesandoranges.app.screen`.
:func:`read_log` turns a log, ours or a published one, back into events and pandas tables.
"""

from __future__ import annotations

import contextlib
import json
import logging
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, BinaryIO

import pandas as pd

from skerch import heartbeat
from skerch.errors import InputError

from . import events, screen
from .alone import take_lock
from .signals import Interrupted, interruptible, uninterrupted
from .user_code import UserCodeError, full, in_words

TIME_FORMAT = "%Y-%m-%d_%H:%M:%S.%f"
#: Length of such a text with milliseconds; what follows is the offset.
_LENGTH = len("2026-01-31_12:34:56.789")
#: Seconds that time stamps are cut to.
TIME_RESOLUTION = 1e-3


def file_stamp() -> str:
    """Return the present time as it stands in file names: ``YYYY_MM_DD_HH_MM_SS.mmm``."""
    return datetime.now().strftime("%Y_%m_%d_%H_%M_%S.%f")[:-3]


def time_stamp() -> str:
    """Return the present time as it stands in logs: ``YYYY-MM-DD_HH:MM:SS.mmm+HHMM``."""
    now = datetime.now().astimezone()
    return f"{now.strftime(TIME_FORMAT)[:_LENGTH]}{now:%z}"


def parse_time(text: str) -> tuple[datetime, bool]:
    """Return the time that a log names, in UTC, and whether the log names its offset.

    Raises:
        ValueError: If it is none.
    """
    try:
        return datetime.strptime(text, f"{TIME_FORMAT}%z").astimezone(timezone.utc), True
    except ValueError:
        return datetime.strptime(text, TIME_FORMAT).replace(tzinfo=timezone.utc), False


_LEVELS = {events.ERROR: logging.ERROR, events.WARNING: logging.WARNING}


class JsonLog:
    """Appends events to a file, and shows them on the screen.

    The file is created with the first event, so that a script which refuses its input leaves none.

    Args:
        path: The log file; must not exist, unless
        resume: it is the log of a process that goes on here. A last line which that process could
            not finish is ended, so that readers leave out this line alone.
        alone: Only one process at a time may write it. Where it goes on, the lock is taken at once.

    Raises:
        InputError: If another process has the lock.
    """

    def __init__(self, path: Path, resume: bool = False, alone: bool = False):
        self.path = Path(path)
        self._mode = "a" if resume else "x"
        self._alone = alone
        self._lock: BinaryIO | None = None
        if alone and resume:
            self._take_lock()
        self.logger = logging.getLogger(f"applesandoranges.app.log.{id(self)}")
        self.logger.propagate = False
        self.logger.setLevel(logging.DEBUG)
        self._handlers: list[logging.Handler] = []

    def __call__(self, header: str, body: Any) -> None:
        """Log one event; NaN and infinities become ``null``."""
        if not self._handlers:
            self._open()
        event = time_stamp(), header, _plain(body)
        line = json.dumps([event[0], list(event[1:])], allow_nan=False)
        with uninterrupted():  # handlers have locks, and other threads may log too
            level = _LEVELS.get(header, logging.INFO)
            self.logger.log(level, "%s", line, extra={"event": event})

    def info(self, text: str, body: dict[str, Any]) -> None:
        """Log what happens: one of :mod:`~applesandoranges.app.events`, with its facts."""
        self(events.INFO, [text, body])
        if text not in events.OF_EACH_PRODUCT:
            heartbeat.doing(text)

    def warning(self, text: str, body: dict[str, Any]) -> None:
        """Log what a user should know of."""
        self(events.WARNING, [text, body])

    def _open(self) -> None:
        if self._mode == "a" and not self.path.read_bytes().endswith(b"\n"):
            with self.path.open("a") as unfinished:
                unfinished.write("\n")
        file = _File(self.path, mode=self._mode)
        if self._alone and self._lock is None:
            self._take_lock()
        self._inode = self.path.stat().st_ino
        self._handlers = [file, screen.make_handler()]
        for handler in self._handlers:
            self.logger.addHandler(handler)

    def _take_lock(self) -> None:
        self._lock = take_lock(self.path, f"{self.path}: is being written")

    def close(self) -> None:
        """Close the file."""
        if self._lock is not None:
            self._lock.close()
            self._lock = None
        for handler in self._handlers:
            self.logger.removeHandler(handler)
            handler.close()
        self._handlers = []

    def __enter__(self) -> JsonLog:
        return self

    def _is_lost(self) -> bool:
        """Say whether the file that was written is there no more under its name."""
        try:
            return self.path.stat().st_ino != self._inode
        except FileNotFoundError:
            return True

    def __exit__(self, *exception: object) -> None:
        lost = bool(self._handlers) and self._is_lost()
        self.close()
        if lost and exception[0] is None:
            raise OSError(f"{self.path}: was removed or replaced while it was written")


def as_logged(body: dict[str, Any]) -> dict[str, Any]:
    """Return a body as a reader of the log will see it."""
    return json.loads(json.dumps(_plain(body), allow_nan=False))


@contextlib.contextmanager
def logs_stop(log: JsonLog, summary: Callable[[], dict[str, Any]]) -> Iterator[None]:
    """Log what ends what is inside.

    That is a signal (Ctrl-C, SIGTERM), with what is done by then, or an error inside of a file of
    the user, with its traceback.

    Raises:
        UserCodeError: In place of such an error.
    """
    try:
        with interruptible():
            yield
    except Interrupted as stop:
        log.info(events.STOPPED, {"by": str(stop)} | summary())
        raise
    except Exception as error:
        words = in_words(error)
        if words is None:
            raise
        log(events.ERROR, [events.FAILED, {"error": words, "traceback": full(error)}])
        raise UserCodeError(f"{words} (traceback: the last line of {log.path})") from error


class _File(logging.FileHandler):
    """Raises what goes wrong (a full disk): results must not be lost silently."""

    def handleError(self, record: logging.LogRecord) -> None:
        raise


def _plain(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {str(name): _plain(item) for name, item in value.items()}
    if isinstance(value, (list, tuple, range)):
        return [_plain(item) for item in value]
    if hasattr(value, "tolist"):
        return _plain(value.tolist())
    return str(value) if isinstance(value, Path) else value


@dataclass(frozen=True)
class Event:
    """One line of a log; ``text`` is set where the body was ``[text, {body}]``.

    ``time`` is in UTC if ``has_offset``, otherwise that of a clock in an unknown time zone.
    """

    time: datetime
    header: str
    text: str
    body: dict[str, Any]
    has_offset: bool = False


@dataclass(frozen=True, eq=False)
class Log:
    """A log that was read, equal to itself alone; ``left_out`` says which lines could not be."""

    path: Path
    events: list[Event]
    left_out: list[str] = field(default_factory=list)

    def bodies(self, header: str) -> list[dict[str, Any]]:
        """Return the bodies of all events with this header, in order."""
        return [event.body for event in self.events if event.header == header]

    def first(self, header: str) -> dict[str, Any]:
        """Return the body of the first event with this header.

        Raises:
            InputError: If there is none.
        """
        for event in self.events:
            if event.header == header:
                return event.body
        raise InputError(f"{self.path}: no {header} line; is it the log of another script?")

    def tables(self) -> dict[str, pd.DataFrame]:
        """Return one table for each header, a row for each event, with its time first."""
        rows: dict[str, list[dict[str, Any]]] = {}
        for event in self.events:
            row: dict[str, Any] = {"time": event.time}
            if event.text:
                row["text"] = event.text
            rows.setdefault(event.header, []).append(row | event.body)
        return {header: pd.DataFrame(items) for header, items in rows.items()}


def read_log(path: Path) -> Log:
    """Read a log; lines that are cut or foreign are left out and named in the result.

    Raises:
        InputError: If the file is missing or holds not a single event.
    """
    path = Path(path)
    try:
        lines = path.read_text(errors="replace").splitlines()
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None
    events, left_out = [], []
    for number, line in enumerate(lines, start=1):
        event = _parse(line)
        if event is not None:
            events.append(event)
        elif line.strip():
            left_out.append(f"line {number} is not a log event: {line[:60]!r}")
    if not events:
        reason = "it is empty" if not any(map(str.strip, lines)) else left_out[0]
        raise InputError(f"{path}: not a log of these scripts ({reason})")
    return Log(path, events, left_out)


def is_cut_at_once(path: Path) -> bool:
    """Say whether a log has not even one whole line: of a process killed in that very moment."""
    lines = [line for line in path.read_bytes().splitlines() if line.strip()]
    return all(b'["'.startswith(line[:2]) and not line.endswith(b"]]") for line in lines)


def _parse(line: str) -> Event | None:
    try:
        stamp, (header, body) = json.loads(line)
        text, body = _text_and_body(body)
        time, has_offset = parse_time(stamp)
    except (ValueError, TypeError, RecursionError, OverflowError):
        return None
    if not (isinstance(header, str) and isinstance(text, str) and isinstance(body, dict)):
        return None
    return Event(time, header, text, body, has_offset)


def _text_and_body(body: Any) -> tuple[Any, Any]:
    """Split ``{body}``, ``[text, {body}]``, and ``[text]`` or ``text`` as in published logs."""
    if isinstance(body, list):
        text, *rest = body
        (body,) = rest or ({},)
        return text, body
    return (body, {}) if isinstance(body, str) else ("", body)
