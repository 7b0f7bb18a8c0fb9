"""Lines that show how far they can be read: beyond that they are pale and dashed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from numpy.typing import ArrayLike

from .style import FAINT, INK


def draw_line(ax: Axes, x: ArrayLike, y: ArrayLike, known_within: ArrayLike, **look: Any) -> None:
    """Draw a line; what lies beyond the readable points, and leads to it, pale and dashed.

    Args:
        ax: Where.
        x: ``[n]``.
        y: ``[n]``.
        known_within: Relative error of each point, infinite where the verdict does not vouch for
            it; NaN where no verdict is, as in published logs: drawn as any other.
        look: Properties of the line.
    """
    x, y = np.asarray(x), np.asarray(y, dtype=float)
    hidden = np.isinf(np.asarray(known_within, dtype=float))
    if not hidden.any():
        ax.plot(x, y, **look)
        return
    if not hidden.all():
        ax.plot(x, np.where(hidden, np.nan, y), **look)
        look["label"] = "_"  # it stands in the legend already
    connected = look.get("linestyle") != "none"
    faint = FAINT if connected else FAINT | {"linestyle": "none"}
    leading = hidden.copy()
    leading[1:] |= hidden[:-1]
    leading[:-1] |= hidden[1:]
    points = [int(i) for i in np.flatnonzero(hidden)]
    ax.plot(x, np.where(leading, y, np.nan), **look | faint, markevery=points)


def name_unreadable(
    ax: Axes, tables: Sequence[pd.DataFrame], what: str = "overlap", connected: bool = True
) -> None:
    """Say in the legend to come what pale and dashed lines are, or pale points, if any are."""
    if any(np.isinf(table["known_within"]).any() for table in tables):
        points = {"linestyle": "none", "marker": "o", "ms": 4}
        look, how = (FAINT, "pale, dashed") if connected else (FAINT | points, "pale")
        ax.plot([], [], color=INK, **look, label=f"{how}: {what} not readable (verdict)")
