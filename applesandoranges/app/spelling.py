"""Look-ups by name that help who mistypes."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from skerch.errors import InputError

#: Names that resemble each other less are no slip of the finger.
LIKENESS = 0.4


def nearest(name: str, valid: Iterable[str]) -> str:
    """Return a hint at the one of ``valid`` that ``name`` resembles most; empty if none does."""
    found = difflib.get_close_matches(str(name), list(valid), n=1, cutoff=LIKENESS)
    return f"; the nearest valid one is {found[0]}" if found else ""


def check_name(what: str, name: str, valid: Iterable[str]) -> None:
    """Check that ``name`` is one of ``valid``.

    Raises:
        InputError: If not; in one line with all valid names, and the nearest if one is near.
    """
    names = list(valid)
    if name not in names:
        raise InputError(f"unknown {what} {name!r}{nearest(name, names)}, all: {', '.join(names)}")
