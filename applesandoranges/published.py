"""The published results of mnist_mini, and how far a run of 12a is from them.

The tables in ``published_results`` come from logs published with arXiv 2504.14701.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from skerch.errors import InputError

from .jsonlog import Log
from .results import HessianResult, LogSet

TABLES = Path(__file__).parent / "published_results"

#: Settings of the published run, as 12a calls them.
SETTINGS: dict[str, Any] = {
    "PROBLEM": "mnist_mini",
    "OPTIMIZER": "SGD",
    "RANDOM_SEED": 12345,
    "NUM_HESSIAN_DATAPOINTS": 500,
    "NUM_OUTER": 355,
    "NUM_INNER": 710,
    "SYMMETRIZE_CORE": False,
}
#: Steps whose Hessians were published, of the training split.
STEPS = (0, 500, 1000)

#: Largest differences that float32 arithmetic on other hardware explains: relative ones of
#: eigenvalues, absolute ones of the others. Sketched eigenvalues count relative to the largest of
#: their step, as their errors are of that scale: the core's least squares magnify rounding.
TOLERANCES = {
    "eigenvalue": 1e-4,
    "sketched eigenvalue": 1e-3,
    "overlap": 2e-4,
    "loss": 1e-4,
    "accuracy": 1e-3,
}

KEYS = ["quantity", "name", "step"]


def setting_differences(log: Log) -> list[str]:
    """Return what makes a run of 12a another experiment than the published one, in words."""
    config = log.first("CONFIG")
    source = log.first("GLOBALS").get("data_source", "full")
    words = [] if source == "full" else [f"the data are {source}, not the full MNIST"]
    return words + [
        f"{name}={config[name]}, published {value}"
        for name, value in SETTINGS.items()
        if config.get(name, value) != value
    ]


def compare(logs: LogSet) -> pd.DataFrame:
    """Return every published number that a run of 12a has as well, beside the run's own.

    Args:
        logs: The log of one run.

    Returns:
        A row for each number: ``quantity, name, step, at, ours, published, difference, allowed``;
        ``at`` is the rank or ``k`` of a number of a Hessian, and the step of a number of the
        training, whose ``step`` is ``"each"``. Differences of eigenvalues are relative.

    Raises:
        InputError: If the run and the published tables have nothing in common.
    """
    rows = pd.concat([_spectra(logs.results), _overlaps(logs.results), _trainings(logs.training)])
    if not len(rows):
        raise InputError(
            "the log has none of the published steps; Hessians were published of the training "
            f"split at {', '.join(map(str, STEPS))}, evaluations of each epoch"
        )
    absolute = (rows["ours"] - rows["published"]).abs()
    return rows.assign(
        difference=absolute / rows.pop("scale"), allowed=rows["quantity"].map(TOLERANCES)
    ).reset_index(drop=True)


def worst(table: pd.DataFrame) -> pd.DataFrame:
    """Return, for each quantity and step of :func:`compare`, the row that is farthest off.

    Adds ``count``, the number of rows, and ``met``, whether all of them are within what is allowed.
    A number that is not finite is farther off than any other.
    """
    table = table.assign(difference=table["difference"].fillna(np.inf))
    groups = table.groupby(KEYS, sort=False)["difference"]
    rows = table.loc[groups.idxmax()].assign(count=groups.size().to_numpy())
    return rows.assign(met=rows["difference"] <= rows["allowed"]).reset_index(drop=True)


def _read(name: str) -> pd.DataFrame:
    return pd.read_csv(TABLES / f"mnist_mini_{name}.csv")


def _rows(quantity: str, name: str, step: Any, at: Any, pair: Any, scale: Any) -> pd.DataFrame:
    ours, published = pair
    return pd.DataFrame(
        {
            "quantity": quantity, "name": name, "step": step, "at": at,
            "ours": ours, "published": published, "scale": scale,
        }
    )  # fmt: skip


def _common(
    results: list[HessianResult], table: pd.DataFrame, quantity: str, at: str
) -> list[tuple[int, pd.DataFrame, np.ndarray]]:
    """Return step, published rows and our values at their ranks for each Hessian in common."""
    found = []
    for result in results:
        if result.split == "train" and quantity in result.quantities:
            values = result.array(quantity)
            rows = table[(table["step"] == result.step) & (table[at] <= len(values))]
            found.append((result.step, rows, values[rows[at] - 1]))
    return found


def _spectra(results: list[HessianResult]) -> pd.DataFrame:
    # By magnitude: of two eigenvalues of nearly the same size and opposite sign, either may come
    # first.
    table, parts = _read("spectrum"), []
    for step, rows, ours in _common(results, table, "H_eigvals", "rank"):
        published = rows["true_eigval_by_desc_magnitude"].abs()
        pair = np.abs(ours), published
        parts.append(_rows("eigenvalue", "|eigenvalue|", step, rows["rank"], pair, published))
    for step, rows, ours in _common(results, table, "core_S", "rank"):
        pair = np.abs(ours), rows["core_S"].abs()
        largest = rows["core_S"].abs().max()
        parts.append(_rows("sketched eigenvalue", "|core_S|", step, rows["rank"], pair, largest))
    return pd.concat(parts) if parts else pd.DataFrame()


def _overlaps(results: list[HessianResult]) -> pd.DataFrame:
    parts = [
        _rows("overlap", "overlap", step, rows["k"], (ours / rows["k"], rows["overlap"]), 1.0)
        for step, rows, ours in _common(results, _read("overlap"), "frob_Qtop^2", "k")
    ]
    return pd.concat(parts) if parts else pd.DataFrame()


def _trainings(logs: list[Log]) -> pd.DataFrame:
    parts = []
    for table, headers in (
        ("evaluations", ("EVAL ROUND", "FINAL EVALUATION")),
        ("recorded_steps", ("TRAINING BATCH",)),
    ):
        published = _read(table)
        bodies = [body for log in logs for header in headers for body in log.bodies(header)]
        ours = pd.DataFrame(bodies, columns=["global_step", *_numbers(published)])
        both = ours.merge(published, on="global_step", suffixes=("", "_published"))
        for name in _numbers(published):
            quantity = "accuracy" if name.endswith("_acc") else "loss"
            pair = both[name], both[f"{name}_published"]
            parts.append(_rows(quantity, name, "each", both["global_step"], pair, 1.0))
    return pd.concat(parts)


def _numbers(table: pd.DataFrame) -> list[str]:
    return [name for name in table.columns if name.endswith(("_loss", "_acc"))]
