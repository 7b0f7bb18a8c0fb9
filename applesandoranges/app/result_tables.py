"""Values of logs in a few words, and results as small tables."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rich.table import Table

Body = Mapping[str, Any]

#: Numbers of a list that are all shown; of longer ones the first and the last.
SHORT_LIST = 4
#: Facts of an event that has no words of its own.
SHOWN_FACTS = 3


def in_words(value: Any) -> str:
    """Return a value of a log in a few words: ``355 values, 7.1 ... 0.02``."""
    if value is None:
        return "unknown"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:.3g}"
    if isinstance(value, Mapping):
        return facts_in_words(value)
    if isinstance(value, list):
        return _list_in_words(value)
    return str(value)


def _list_in_words(values: list[Any]) -> str:
    if len(values) <= SHORT_LIST and not any(isinstance(v, (list, Mapping)) for v in values):
        return ", ".join(map(in_words, values)) or "none"
    if all(v is None or isinstance(v, (int, float)) for v in values):
        return f"{len(values):,} values, {in_words(values[0])} ... {in_words(values[-1])}"
    return f"{len(values):,} of them"


def facts_in_words(body: Body, but: frozenset[str] = frozenset()) -> str:
    """Return the first facts of an event, and how many more there are."""
    found = [f"{name} {in_words(value)}" for name, value in body.items() if name not in but]
    more = [f"{len(found) - SHOWN_FACTS} more"] if len(found) > SHOWN_FACTS else []
    return ", ".join(found[:SHOWN_FACTS] + more)


@dataclass(frozen=True)
class Rows:
    """Results that come one after the other and make a table.

    Attributes:
        mark: The name that such a result has, and no other.
        columns: Titles by name.
    """

    mark: str
    columns: dict[str, str]

    def table(self, bodies: list[Body]) -> Table:
        """Return a row for each."""
        table = _table(*self.columns.values())
        for body in bodies:
            table.add_row(*(in_words(body.get(name)) for name in self.columns))
        return table


#: Of results that come one after the other.
ROWS = (
    Rows("subspace_alignment", {
        "K": "k", "subspace_alignment": "alignment with the exact space",
        "rel_frob_error": "error", "best_rel_frob_error": "best possible",
    }),
    Rows("half_alignment", {
        "recovery": "recovery", "num_rounds": "rounds", "num_products": "products",
        "rel_frob_error": "error", "best_rel_frob_error": "best possible",
        "half_alignment": "alignment", "seconds": "seconds",
    }),
)  # fmt: skip


def _table(*titles: str) -> Table:
    table = Table(box=None, pad_edge=False)
    for title in titles:
        table.add_column(title, justify="right", no_wrap=True)
    return table


class Analysis:
    """The results of one analysis, from its eigenvalues to its verdict."""

    def __init__(self) -> None:
        self.found: dict[str, Any] = {}
        self.errors: dict[int, float] = {}

    def add(self, body: Body) -> None:
        """Take one result."""
        total = body.get("Frob(H)^2")
        if "K" in body and total and body.get("Frob(H-H_K)^2") is not None:
            self.errors[body["K"]] = math.sqrt(max(0.0, body["Frob(H-H_K)^2"]) / total)
        self.found |= body

    def title(self, where: str) -> str:
        """Return the line above the table."""
        products = self.found.get("num_products")
        made = f", of {in_words(products)} products" if products else ""
        S = self.found["core_S"]
        ends = f"{in_words(S[0])} ... {in_words(S[-1])}" if S else "none"
        return f"{where}: {len(S):,} eigenvalues, {ends}{made}"

    def _mean(self, name: str, k: int) -> str:
        """Return a quantity that adds up to at most ``k``, as a share of it."""
        curve = self.found.get(name) or []
        return f"{curve[k - 1] / k:.3g}" if k <= len(curve) and curve[k - 1] is not None else "-"

    def table(self) -> Table:
        """Return eigenvalues, overlap, chance and errors for some ``k``."""
        S = self.found["core_S"]
        table = _table("k", "eigenvalue", "overlap", "at least", "at most", "chance", "error")
        ranks = {1, *(self.errors or (len(S) // 20, len(S) // 2, len(S)))}
        for k in sorted(k for k in ranks if 1 <= k <= len(S)):
            curves = (f"frob_Q{name}" for name in
                      ("top^2", "top^2_lowest", "top^2_highest", "chance^2"))  # fmt: skip
            error = f"{self.errors[k]:.2g}" if k in self.errors else "-"
            table.add_row(str(k), in_words(S[k - 1]), *(self._mean(c, k) for c in curves), error)
        return table
