"""The errors that this package raises on purpose."""

from __future__ import annotations

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
