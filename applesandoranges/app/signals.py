"""SIGTERM and Ctrl-C as one exception, so that what is being written is cleaned up at the end."""

from __future__ import annotations

import contextlib
import signal
import sys
import threading
from collections.abc import Iterator
from typing import Any

SECONDS_UNTIL_RAISED_AGAIN = 0.01


class Interrupted(KeyboardInterrupt):
    """The process was asked to end.

    Attributes:
        status: The exit status that says so, 128 plus the number of the signal.
    """

    def __init__(self, number: int):
        name = "Ctrl-C" if number == signal.SIGINT else signal.Signals(number).name
        super().__init__(name)
        self.status = 128 + number


class _Held:
    """What :func:`uninterrupted` holds back: how many blocks do so, and the signal that waits."""

    blocks = 0
    waiting: Interrupted | None = None


@contextlib.contextmanager
def uninterrupted() -> Iterator[None]:
    """Let :class:`Interrupted` wait until the end of the block; a second signal does not wait.

    For what takes locks that other threads need: an exception may come right after a lock was
    taken, before anything is prepared to release it. Does nothing in other threads than the main
    one, where no such exception comes.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    _Held.blocks += 1
    try:
        yield
    finally:
        _Held.blocks -= 1
        if _Held.blocks == 0 and _Held.waiting is not None:
            stop, _Held.waiting = _Held.waiting, None
            raise stop


@contextlib.contextmanager
def interruptible() -> Iterator[None]:
    """Raise :class:`Interrupted` inside the block on SIGTERM and Ctrl-C.

    It leaves the block as such, whatever becomes of it inside: Python that is called from C++
    (TorchScript, HDF5) may turn an exception into another one, or drop it. Where Python itself
    drops it (in a finaliser or the callback of a weak reference), it is raised again right after.
    """
    stop: Interrupted | None = None

    def interrupt(number: int, frame: Any) -> None:
        nonlocal stop
        if number != signal.SIGALRM or stop is None:
            stop = Interrupted(number)
        if _Held.blocks > 0 and _Held.waiting is None:
            _Held.waiting = stop
            return
        raise stop

    def dropped(unraisable: Any) -> None:
        if isinstance(unraisable.exc_value, Interrupted):
            # Raised here, it would be dropped again.
            signal.setitimer(signal.ITIMER_REAL, SECONDS_UNTIL_RAISED_AGAIN)
        else:
            previous_hook(unraisable)

    previous, previous_hook = {}, sys.unraisablehook
    # Not in the main thread: the caller handles signals.
    with contextlib.suppress(ValueError):
        for number in (signal.SIGTERM, signal.SIGINT):
            if signal.getsignal(number) != signal.SIG_IGN:  # as of nohup and background jobs
                previous[number] = signal.signal(number, interrupt)
        previous[signal.SIGALRM] = signal.signal(signal.SIGALRM, interrupt)
        sys.unraisablehook = dropped
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
        _Held.waiting = None
        if sys.unraisablehook is dropped:
            signal.setitimer(signal.ITIMER_REAL, 0)
            sys.unraisablehook = previous_hook
        for number, handler in previous.items():
            signal.signal(number, handler)
