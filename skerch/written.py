"""Numbers as they are written: decimal, whatever zeros they begin with, or refused.

Other readers take some of them for other numbers, in silence: YAML 1.1 reads ``010`` as 8 and
``1:30`` as 90, Python ``1_0`` as 10.
"""

from __future__ import annotations

import re

_WHOLE = re.compile(r"[+-]?[0-9]+")
_DECIMAL = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")
_NOT_FINITE = re.compile(r"[+-]?\.?inf|\.?nan", re.IGNORECASE)


def whole_number(text: str) -> int:
    """Return the number of decimal digits, perhaps with a sign.

    Raises:
        ValueError: If it is written in another way, or longer than Python reads.
    """
    if not _WHOLE.fullmatch(text):
        raise ValueError(f"expected a whole number, got {text!r}")
    return int(text)


def decimal_number(text: str) -> float:
    """Return the number: decimal digits, a point, an exponent; or ``inf``, ``nan``, ``.inf``.

    Raises:
        ValueError: If it is written in another way.
    """
    if _NOT_FINITE.fullmatch(text):
        return float(text.replace(".", ""))
    if not _DECIMAL.fullmatch(text):
        raise ValueError(f"expected a number, got {text!r}")
    return float(text)
