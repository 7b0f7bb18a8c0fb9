"""What the screen shows: events in words or as the lines of the log, and bars at its bottom.

Which of both is the key SCREEN, which every script has. Lines go to standard output; signs of life
(:mod:`skerch.heartbeat`) to standard error. A bar is drawn on a terminal; elsewhere a line says now
and then how far it is.
"""

from __future__ import annotations

import contextlib
import logging
import shutil
import sys
import textwrap
import time
from collections.abc import Iterable, Iterator
from typing import Any, TextIO

import coloredlogs
from humanfriendly.terminal import terminal_supports_colors
from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from skerch import heartbeat

from .words import Line, Narrator

#: Values of the key SCREEN.
SCREENS = PEOPLE, JSON = "people", "json"
#: Longer JSON lines are cut on a terminal (spectra have thousands of numbers).
TERMINAL_WIDTH = 400
#: Columns of what is no terminal, and of the times before each line.
PLAIN_WIDTH, MARGIN = 100, 10

_shown = [PEOPLE]


@contextlib.contextmanager
def shown_as(how: str) -> Iterator[None]:
    """Show events as ``how`` says (:data:`PEOPLE` or :data:`JSON`) until the end of the block."""
    _shown.append(how)
    try:
        yield
    finally:
        _shown.pop()


def make_handler() -> logging.Handler:
    """Return what shows the events of one log on the standard output of this moment."""
    return _JsonLines() if _shown[-1] == JSON else _Words()


def show(console: Console, lines: Iterable[Line | Table]) -> None:
    """Print lines and tables."""
    for line in lines:
        if isinstance(line, Line):
            words = _wrapped(line.text, console.width) if console.is_terminal else line.text
            text = Text.assemble((line.time, "dim"), "  ", (words, line.style))
            console.print(text, soft_wrap=True)
        else:
            console.print(Padding(line, (0, 0, 0, MARGIN), expand=False))


def _wrapped(text: str, width: int, margin: int = MARGIN) -> str:
    """Break a text at its blanks, below its beginning; paths stay whole."""
    lines = textwrap.wrap(
        text, max(width - margin, margin), break_long_words=False, break_on_hyphens=False
    )
    return f"\n{' ' * margin}".join(lines)


def say(text: str, file: TextIO | None = None, margin: int = 4) -> None:
    """Print a text that is no event, on a terminal broken at its blanks; the rest is indented."""
    file = file or sys.stdout
    width = shutil.get_terminal_size().columns
    print(_wrapped(text, width, margin) if file.isatty() else text, file=file, flush=True)


class _Words(logging.Handler):
    """Shows events in words. What goes wrong with it is raised, as in :class:`_JsonLines`."""

    def __init__(self) -> None:
        super().__init__()
        width = None if sys.stdout.isatty() else PLAIN_WIDTH
        self._console = Console(file=sys.stdout, width=width, highlight=False)
        self._narrator = Narrator()

    def emit(self, record: logging.LogRecord) -> None:
        show(self._console, self._narrator.tell(*record.event))  # type: ignore[attr-defined]
        if record.levelno == logging.WARNING and not self._console.is_terminal:
            # The output of jobs is searched: one pattern finds warnings there and in logs.
            self._console.print(record.getMessage(), soft_wrap=True, markup=False)

    def close(self) -> None:
        show(self._console, self._narrator.end())
        super().close()


class _JsonLines(logging.StreamHandler):
    """Shows the lines of the log, whole unless they go to a terminal, which has colours, too."""

    def __init__(self) -> None:
        super().__init__(sys.stdout)
        on_terminal = sys.stdout.isatty()
        styles: dict[str, Any] | None = None if terminal_supports_colors(sys.stdout) else {}
        self.setFormatter(_Formatter(styles, TERMINAL_WIDTH if on_terminal else None))

    def handleError(self, record: logging.LogRecord) -> None:
        raise


class _Formatter(coloredlogs.ColoredFormatter):
    """Cuts long lines; colours by level, unless it is given no styles."""

    def __init__(self, level_styles: dict[str, Any] | None, width: int | None):
        super().__init__(fmt="%(message)s", level_styles=level_styles)
        self._width = width

    def format(self, record: logging.LogRecord) -> str:
        short, message = logging.makeLogRecord(vars(record)), record.getMessage()
        if self._width is not None and len(message) > self._width:
            cut = f"{message[: self._width]} ... [{len(message)} characters]"
            short.msg, short.args = cut, ()
        return super().format(short)


class Bar:
    """How far a loop is, its rate and the time left, at the bottom of the screen.

    Args:
        what: What the loop does, e.g. ``"measuring"``.
        unit: What it counts.
        total: How many there are.
        done: How many are done already, by others.
    """

    def __init__(self, what: str, unit: str, total: int, done: int = 0):
        self.what, self.unit, self.total, self.begun_at, self.done = what, unit, total, done, done
        self._begin = time.monotonic()
        self._before = heartbeat.doing(self)

    def advance(self, number: int = 1) -> None:
        """Count; whatever was said to be done meanwhile is over."""
        self.done += number
        heartbeat.doing(self)

    def __call__(self, width: int | None) -> str:
        """Return the bar within so many columns; without them how far it is in words."""
        from tqdm import tqdm

        plain = "{desc}: {n_fmt} of {total_fmt}, {rate_fmt}, {remaining} left"
        return tqdm.format_meter(
            self.done,
            self.total,
            time.monotonic() - self._begin,
            ncols=width,
            prefix=self.what,
            unit=self.unit,
            initial=self.begun_at,
            bar_format=plain if width is None else None,
        )

    def __enter__(self) -> Bar:
        return self

    def __exit__(self, *exception: object) -> None:
        heartbeat.doing(self._before)
