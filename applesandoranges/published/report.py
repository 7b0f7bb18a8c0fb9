"""Tables that show how far a run is from the published results."""

from __future__ import annotations

import pandas as pd
from rich.table import Table

from .compare import ALLOWED


def number(row: pd.Series) -> str:
    """Return a difference and how much is explained, and the verdict if it is not met."""
    if row["quantity"] == "mask":
        text = f"{row['ours']:.0f} of {row['published']:.0f}"
    else:
        text = f"{row['difference']:.1e} of {row['explained']:.0e}"
    return text if row["verdict"] in ("met", "none") else f"{text} {row['verdict']}"


def overall(verdicts: pd.Series) -> str:
    """Return the worst verdict."""
    return next(v for v in ("DIFFERS", "none", "explained", "met") if v in set(verdicts))


def reasons(rows: pd.DataFrame) -> str:
    """Return what explains the rows."""
    return "; ".join(dict.fromkeys(rows["by"]))


def hessian_table(rows: pd.DataFrame) -> Table:
    """Return a table by step and split: differences of what is explained, shared parameters."""
    quantities = [quantity for quantity in ALLOWED if quantity in set(rows["quantity"])]
    table = Table("step", "split", *quantities, "verdict", "explained by", box=None)
    for (step, split), some in rows.groupby(["step", "split"], sort=False):
        by_name = {row["quantity"]: number(row) for _, row in some.iterrows()}
        cells = [by_name.get(quantity, "-") for quantity in quantities]
        table.add_row(str(step), split, *cells, overall(some["verdict"]), reasons(some))
    return table


def training_table(rows: pd.DataFrame) -> Table:
    """Return a table of the farthest number of each loss and accuracy."""
    table = Table(
        "training", "steps", "numbers", "farthest at", "ours", "published", "difference",
        "verdict", "explained by", box=None,
    )  # fmt: skip
    for _, row in rows.iterrows():
        values = [f"{row['ours']:.6g}", f"{row['published']:.6g}", number(row)]
        counts = [str(row[name]) for name in ("step", "count", "at")]
        table.add_row(row["name"], *counts, *values, row["verdict"], row["by"])
    return table
