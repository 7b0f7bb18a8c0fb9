"""SIGTERM and Ctrl-C as one exception, so that what is being written is cleaned up at the end."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator
from typing import Any


class Interrupted(KeyboardInterrupt):
    """The process was asked to end.

    Attributes:
        status: The exit status that says so, 128 plus the number of the signal.
    """

    def __init__(self, number: int):
        name = "Ctrl-C" if number == signal.SIGINT else signal.Signals(number).name
        super().__init__(name)
        self.status = 128 + number


@contextlib.contextmanager
def interruptible() -> Iterator[None]:
    """Raise :class:`Interrupted` inside the block on SIGTERM and Ctrl-C.

    It leaves the block as such, whatever becomes of it inside: Python that is called from C++
    (TorchScript, HDF5) may turn an exception into another one, or drop it.
    """
    stop: Interrupted | None = None

    def interrupt(number: int, frame: Any) -> None:
        nonlocal stop
        stop = Interrupted(number)
        raise stop

    previous = {}
    # Not in the main thread: the caller handles signals.
    with contextlib.suppress(ValueError):
        for number in (signal.SIGTERM, signal.SIGINT):
            if signal.getsignal(number) != signal.SIG_IGN:  # as of nohup and background jobs
                previous[number] = signal.signal(number, interrupt)
    try:
        yield
    except KeyboardInterrupt as error:
        raise (error if isinstance(error, Interrupted) else Interrupted(signal.SIGINT)) from None
    except BaseException:
        if stop is not None:
            raise stop from None
        raise
    else:
        if stop is not None:
            raise stop
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
