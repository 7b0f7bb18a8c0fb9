"""Look-ups by name that help who mistypes."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from skerch.errors import InputError


def nearest(name: str, valid: Iterable[str]) -> str:
    """Return the one of ``valid`` that ``name`` resembles most."""
    return difflib.get_close_matches(str(name), list(valid), n=1, cutoff=0.0)[0]


def check_name(what: str, name: str, valid: Iterable[str]) -> None:
    """Check that ``name`` is one of ``valid``.

    Raises:
        InputError: If not; in one line with the nearest valid name and all of them.
    """
    names = list(valid)
    if name not in names:
        raise InputError(
            f"unknown {what} {name!r}; the nearest valid one is {nearest(name, names)}, "
            f"all: {', '.join(names)}"
        )
