"""Memory budgets: how much a routine may hold at once."""

from __future__ import annotations

import contextlib
import math
import os

import humanfriendly

from .errors import InputError
from .written import decimal_number


def default_memory_budget() -> int:
    """Return a quarter of this machine's memory, in bytes; of Slurm jobs, see ``slurm/job.sh``.

    Example:
        >>> from skerch.budget import default_memory_budget
        >>> default_memory_budget() > 0
        True
    """
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 4


def resolve_budget(memory_budget: int | None) -> int:
    """Return ``memory_budget`` in bytes, :func:`default_memory_budget` for ``None``.

    Example:
        >>> from skerch.budget import resolve_budget
        >>> resolve_budget(10**9)
        1000000000
    """
    if memory_budget is None:
        return default_memory_budget()
    if not 0 < memory_budget < math.inf:  # NaN, too
        raise InputError(f"memory_budget: expected a number of bytes, got {memory_budget}")
    return memory_budget


def parse_bytes(text: str) -> int:
    """Read a number of bytes such as ``8000000000``, ``8e9`` or ``8GB``.

    Raises:
        InputError: If it is none.

    Example:
        >>> from skerch.budget import parse_bytes
        >>> parse_bytes("8GB"), parse_bytes("8e9")
        (8000000000, 8000000000)
    """
    plain = text
    with contextlib.suppress(ValueError, OverflowError):  # humanfriendly knows no exponents
        plain = str(int(decimal_number(text)))
    try:
        return int(humanfriendly.parse_size(plain))
    except humanfriendly.InvalidSize:
        raise InputError(f"expected bytes such as 8e9 or 8GB, got {text!r}") from None


def rows_within(budget: float, row_bytes: int, what: str) -> int:
    """Return how many rows of ``row_bytes`` fit into ``budget`` bytes.

    Raises:
        InputError: If not even one row fits; the line says what is needed.
    """
    rows = math.floor(budget / row_bytes)
    if rows < 1:
        raise InputError(
            f"{what}: one row needs {row_bytes} bytes, the budget left is {budget:.0f}"
        )
    return rows
