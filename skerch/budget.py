"""Memory budgets: how much a routine may hold at once."""

from __future__ import annotations

import math
import os

from .errors import InputError


def default_memory_budget() -> int:
    """Return a quarter of this machine's memory, in bytes."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 4


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
