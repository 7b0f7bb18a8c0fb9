"""The errors that this package raises on purpose."""

from __future__ import annotations

import re
from collections.abc import Sequence


class SkerchError(Exception):
    """Base class of the errors that this package raises on purpose."""


class InputError(SkerchError, ValueError):
    """The caller asked for something impossible; nothing was changed."""


class StoreError(SkerchError, RuntimeError):
    """A measurement store is incomplete, inconsistent or damaged."""


class NumericalError(SkerchError, ArithmeticError):
    """A computation produced or received values that cannot be trusted.

    Args:
        message: What happened.
        indices: Of the measurements that are concerned, if any.
    """

    def __init__(self, message: str, indices: Sequence[int] = ()):
        super().__init__(message)
        self.indices = tuple(indices)


#: What errors of other software say where the machine has no more of something to give: memory of
#: PyTorch and of C++, address space of shared objects, threads, files.
_NO_MORE = re.compile(
    "can't allocate memory|cannot allocate memory|out of memory|bad_alloc|failed to map segment"
    "|can't start new thread|Resource temporarily unavailable|Too many open files",
    re.IGNORECASE,
)


def expected(error: BaseException) -> bool:
    """Say whether an error is one that a program ends with in one line, without a traceback.

    Those of this package, those of the system (a full disk), and limits of the machine.
    """
    if isinstance(error, (SkerchError, OSError, MemoryError)):
        return True
    return isinstance(error, (RuntimeError, ImportError)) and bool(_NO_MORE.search(str(error)))


def one_line(error: BaseException) -> str:
    """Return the message of ``error`` on one line."""
    text = " ".join(str(error).split())
    if isinstance(error, MemoryError):
        return f"out of memory: {text}" if text else "out of memory"
    return text or type(error).__name__
