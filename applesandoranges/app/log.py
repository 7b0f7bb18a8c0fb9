"""Logs of one JSON line per event: ``["2026-01-31_12:34:56.789", ["HEADER", {body}]]``.

The file is for machines; the terminal shows the same text in colour, very long lines cut short.
:func:`read_log` turns a log, ours or a published one, back into events and pandas tables.
"""

from __future__ import annotations

import contextlib
import json
import logging
import math
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import coloredlogs
import pandas as pd
from humanfriendly.terminal import terminal_supports_colors

from skerch.errors import InputError

from . import events
from .signals import Interrupted, interruptible, uninterrupted

TIME_FORMAT = "%Y-%m-%d_%H:%M:%S.%f"
#: Seconds that time stamps are cut to.
TIME_RESOLUTION = 1e-3
#: Longer lines are cut on the terminal (spectra have thousands of numbers); the file has them all.
TERMINAL_WIDTH = 400


def file_stamp() -> str:
    """Return the present time as it stands in file names: ``YYYY_MM_DD_HH_MM_SS.mmm``."""
    return datetime.now().strftime("%Y_%m_%d_%H_%M_%S.%f")[:-3]


_LEVELS = {events.ERROR: logging.ERROR, events.WARNING: logging.WARNING}


class JsonLog:
    """Appends events to a file and to the terminal.

    The file is created with the first event, so that a script which refuses its input leaves none.

    Args:
        path: The log file; must not exist, unless
        resume: it is the log of a process that goes on here. A last line which that process could
            not finish is ended, so that readers leave out this line alone.
    """

    def __init__(self, path: Path, resume: bool = False):
        self.path = Path(path)
        self._mode = "a" if resume else "x"
        #: For :func:`tqdm.contrib.logging.logging_redirect_tqdm`.
        self.logger = logging.getLogger(f"applesandoranges.app.log.{id(self)}")
        self.logger.propagate = False
        self.logger.setLevel(logging.DEBUG)
        self._handlers: list[logging.Handler] = []

    def __call__(self, header: str, body: Any) -> None:
        """Log one event; NaN and infinities become ``null``."""
        if not self._handlers:
            self._open()
        stamp = datetime.now().strftime(TIME_FORMAT)[:-3]
        line = json.dumps([stamp, [header, _plain(body)]], allow_nan=False)
        with uninterrupted():  # handlers have locks, and other threads may log too
            self.logger.log(_LEVELS.get(header, logging.INFO), "%s", line)

    def info(self, text: str, body: dict[str, Any]) -> None:
        """Log what happens: one of :mod:`~applesandoranges.app.events`, with its facts."""
        self(events.INFO, [text, body])

    def warning(self, text: str, body: dict[str, Any]) -> None:
        """Log what a user should know of."""
        self(events.WARNING, [text, body])

    def _open(self) -> None:
        if self._mode == "a" and not self.path.read_bytes().endswith(b"\n"):
            with self.path.open("a") as unfinished:
                unfinished.write("\n")
        file = _File(self.path, mode=self._mode)
        terminal = logging.StreamHandler(sys.stdout)
        colours = terminal_supports_colors(sys.stdout)
        terminal.setFormatter(_TerminalFormatter(None if colours else {}))
        self._handlers = [file, terminal]
        for handler in self._handlers:
            self.logger.addHandler(handler)

    def close(self) -> None:
        """Close the file."""
        for handler in self._handlers:
            self.logger.removeHandler(handler)
            handler.close()
        self._handlers = []

    def __enter__(self) -> JsonLog:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def as_logged(body: dict[str, Any]) -> dict[str, Any]:
    """Return a body as a reader of the log will see it."""
    return json.loads(json.dumps(_plain(body), allow_nan=False))


@contextlib.contextmanager
def logs_stop(log: JsonLog, summary: Callable[[], dict[str, Any]]) -> Iterator[None]:
    """Log a signal that ends what is inside (Ctrl-C, SIGTERM), with what is done by then."""
    try:
        with interruptible():
            yield
    except Interrupted as stop:
        log.info(events.STOPPED, {"by": str(stop)} | summary())
        raise


class _File(logging.FileHandler):
    """Raises what goes wrong (a full disk): results must not be lost silently."""

    def handleError(self, record: logging.LogRecord) -> None:
        raise


class _TerminalFormatter(coloredlogs.ColoredFormatter):
    """Cuts long lines; colours by level, unless it is given no styles."""

    def __init__(self, level_styles: dict[str, Any] | None):
        super().__init__(fmt="%(message)s", level_styles=level_styles)

    def format(self, record: logging.LogRecord) -> str:
        short, message = logging.makeLogRecord(vars(record)), record.getMessage()
        if len(message) > TERMINAL_WIDTH:
            short.msg, short.args = (
                f"{message[:TERMINAL_WIDTH]} ... [{len(message)} characters]",
                (),
            )
        return super().format(short)


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
    """One line of a log; ``text`` is set where the body was ``[text, {body}]``."""

    time: datetime
    header: str
    text: str
    body: dict[str, Any]


@dataclass(frozen=True)
class Log:
    """A log that was read; ``left_out`` says which lines could not be."""

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


def _parse(line: str) -> Event | None:
    try:
        stamp, (header, body) = json.loads(line)
        text, body = _text_and_body(body)
        time = datetime.strptime(stamp, TIME_FORMAT)
    except (ValueError, TypeError, RecursionError):
        return None
    if not (isinstance(header, str) and isinstance(text, str) and isinstance(body, dict)):
        return None
    return Event(time, header, text, body)


def _text_and_body(body: Any) -> tuple[Any, Any]:
    """Split ``{body}``, ``[text, {body}]``, and ``[text]`` or ``text`` as in published logs."""
    if isinstance(body, list):
        text, *rest = body
        (body,) = rest or ({},)
        return text, body
    return (body, {}) if isinstance(body, str) else ("", body)
