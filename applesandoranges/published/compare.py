"""How far a run is from the published results, beside what rounding and hardware explain.

Each number of a run stands beside the published one, with two limits of their difference. Below
``allowed`` it is met: rounding alone is that large. Between ``allowed`` and ``explained`` the two
runs may differ for a reason that is stated, and above it they are different experiments.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd

from skerch.errors import InputError

from ..app import events
from ..app.log import Log
from ..results.collect import HessianResult, LogSet
from . import tables
from .tables import PublishedRun

#: Largest differences of a number that is met. The published products were computed on a GPU whose
#: convolutions and matrix products may round to TensorFloat-32, by 2^-11.
#:
#: - eigenvalue: relative, to each. Up to 4e-6 was seen with two threads. The number of threads
#:   alone, which orders the sums of the training, moved steps 200 to 400 by up to 4e-5: such runs
#:   are above the limit, and say so.
#: - core: relative to the largest of its step, as that is the scale of the errors of all: products
#:   with factors rounded by 2^-11 each, two of them.
#: - overlap: absolute. Products with errors of 2^-11 moved that of mnist_mini by up to 1.4e-4,
#:   where two eigenvalues of nearly one size may be mixed.
#: - mask: the share of its parameters that the other one lacks; equal masks lack none.
#: - training: of losses and accuracies, absolute, and relative where they are above 1.
ALLOWED = {"eigenvalue": 1e-5, "core": 1e-3, "overlap": 2e-4, "mask": 0.0, "training": 1e-5}

#: Quantities of a sketch, which depend on how its core was solved.
OF_SKETCH = ("core", "overlap")

ROUNDING = "rounding"
TIES = "equal weights: BatchNorm's are all 1"
CHAOS = "training amplifies rounding (distance of published steps)"
DROPPED = "other images left out"

#: Columns that tell groups apart: each is one line or cell of a report.
KEYS = ["quantity", "step", "split", "name"]
VERDICTS = ("met", "explained", "DIFFERS")
EVALUATIONS = (events.EVAL_ROUND, events.FINAL_EVALUATION)


def compare(logs: LogSet, run: PublishedRun) -> pd.DataFrame:
    """Return every published number that a run has as well, beside the run's own.

    Returns:
        A row for each number: ``quantity, name, step, split, at, ours, published, difference,
        allowed, explained, by``. ``at`` is the rank or ``k`` of a number of a Hessian, and the step
        of a number of the training; ``by`` says what explains differences up to ``explained``.
        Signs of eigenvalues are left out: of two that are nearly of one size, either may come
        first. A number of a mask is how many parameters two nested masks share.

    Raises:
        InputError: If the run and the published tables have nothing in common.
    """
    parts = [part for result in logs.results for part in _hessian(result, run)]
    parts += list(_training(logs.training[0], run))
    parts = [part for part in parts if len(part)]
    if not parts:
        raise InputError(
            f"{logs.training[0].path}: has none of the published steps; Hessians were published of "
            f"steps {', '.join(map(str, run.steps))}, split {' and '.join(run.splits)}"
        )
    return pd.concat(parts, ignore_index=True)


def worst(rows: pd.DataFrame) -> pd.DataFrame:
    """Return, for each quantity, step and split of :func:`compare`, the number farthest off.

    Adds ``count``, the number of rows, and ``verdict``: ``met``, ``explained`` or ``DIFFERS``. A
    number that is not finite is farther off than any other.
    """
    rows = rows.assign(difference=rows["difference"].fillna(np.inf))
    level = (rows["difference"] > rows["allowed"]).astype(int)
    level += rows["difference"] > rows["explained"]
    rows = rows.assign(level=level)
    order = rows.set_index(KEYS).index.unique()
    groups = rows.sort_values(["level", "difference"], kind="stable").groupby(KEYS, sort=False)
    found = groups.tail(1).set_index(KEYS).loc[order]
    found = found.assign(count=groups.size(), verdict=[VERDICTS[i] for i in found.pop("level")])
    return found.reset_index().sort_values(KEYS, key=_order, kind="stable", ignore_index=True)


def _order(column: pd.Series) -> pd.Series:
    """Return sort keys: Hessians by step and split before the training, in order of the tables."""
    if column.name == "quantity":
        return column == "training"
    if column.name == "step":
        return pd.to_numeric(column, errors="coerce").fillna(np.inf)
    return column != "train" if column.name == "split" else pd.Series(0, column.index)


def missing(rows: pd.DataFrame, run: PublishedRun, steps: Any, splits: Any) -> list[str]:
    """Return what was published and is not among the rows of :func:`compare`, in words."""
    there = {(r.step, r.split, r.quantity) for r in rows[KEYS].drop_duplicates().itertuples()}
    quantities = ["eigenvalue"] * run.exact + ["core", "overlap", "mask"]
    lacking: dict[str, list[str]] = {}
    for step in steps:
        for split in splits:
            names = [name for name in quantities if (step, split, name) not in there]
            lacking.setdefault(", ".join(names), []).append(f"step {step} {split}")
    words = [f"{names} of {', '.join(where)}" for names, where in lacking.items() if names]
    published = tables.table("training", run.problem)
    ours = rows[rows["quantity"] == "training"]
    found = set(zip(ours["name"], ours["at"], strict=True))
    numbers = zip(published["quantity"], published["global_step"], strict=True)
    absent = sorted({step for name, step in numbers if (name, step) not in found})
    if absent:
        words.append(
            f"losses or accuracies of {len(absent)} of the steps {absent[0]} ... {absent[-1]}"
        )
    return words


def _rows(
    quantity: str, name: str, pair: tuple[Any, Any], difference: Any, **others: Any
) -> pd.DataFrame:
    ours, published = pair
    return pd.DataFrame(
        {
            "quantity": quantity, "name": name, "ours": ours, "published": published,
            "difference": difference, "allowed": ALLOWED[quantity],
        } | others
    )  # fmt: skip


def _hessian(result: HessianResult, run: PublishedRun) -> Iterator[pd.DataFrame]:
    step, split = result.step, result.split
    if step not in run.steps or split not in run.splits:
        return
    where = (run.problem, split, step)
    curves = [("core", "core_S", "|core_S|", tables.core(*where))]
    if run.exact:
        exact = tables.eigenvalues(*where)
        curves.append(("eigenvalue", "H_eigvals", "|eigenvalue|", exact))
    curves.append(("overlap", "frob_Qtop^2", "overlap", tables.overlap(*where)))
    for quantity, key, name, published in curves:
        if key not in result.quantities:
            continue
        ours = np.full(len(published), np.nan)  # what a log lacks of a curve is no number
        given = result.array(key)[: len(ours)]
        ours[: len(given)] = given
        at = np.arange(1, len(ours) + 1)
        pair = (ours / at, published) if quantity == "overlap" else (abs(ours), abs(published))
        yield _rows(
            quantity, name, pair, difference(quantity, *pair), step=step, split=split, at=at,
            **_expected(quantity, run, split, step),
        )  # fmt: skip
    if "largest_absparams" in result.quantities:
        yield _mask(result, run)


def difference(quantity: str, ours: np.ndarray, published: np.ndarray) -> np.ndarray:
    """Return the differences of two curves, on the scale of :data:`ALLOWED`."""
    absolute = np.abs(ours - published)
    if quantity == "eigenvalue":
        return absolute / np.abs(published)
    if quantity == "core":
        return absolute / np.abs(published).max()
    if quantity == "training":
        return absolute / np.maximum(1, np.abs(published))
    return absolute


def common_parameters(ours: np.ndarray, published: np.ndarray) -> np.ndarray:
    """Return how many of the first ``k`` indices two masks share, for ``k = 1 ... n``."""
    rank = {int(index): i for i, index in enumerate(ours)}
    both = [max(rank[int(index)], i) for i, index in enumerate(published) if int(index) in rank]
    return np.bincount(both, minlength=len(published))[: len(published)].cumsum()


def _mask(result: HessianResult, run: PublishedRun) -> pd.DataFrame:
    """Compare nested masks for every ``k``, or whole ones where the published are not ordered."""
    published, ours = tables.largest(run.problem, result.step), result.mask()
    # A sketch of lower rank has fewer of them; those of sets cannot be told.
    n = min(len(published), len(ours)) if run.ordered else len(published)
    k = np.arange(1, n + 1)
    if result.step == 0 and (ties := tables.equal_at_start(run.problem)):
        common = np.cumsum([int(index) in ties for index in ours[:n]])
    else:
        common = common_parameters(ours[:n], published[:n])
    if not run.ordered:
        k, common = (k[-1:], common[-1:]) if len(ours) >= n else (k[:0], common[:0])
    return _rows(
        "mask", "mask", (common, k), (k - common) / n, step=result.step, split=result.split, at=k,
        **_expected("mask", run, result.split, result.step),
    )  # fmt: skip


def _expected(quantity: str, run: PublishedRun, split: str, step: int) -> dict[str, Any]:
    """Return how large a difference may be before it means another experiment, and why.

    The weights of step 0 depend on the seed alone. From there on the networks with convolutions
    diverge: sums on a GPU have no fixed order, and training amplifies it until two trainings of one
    seed are no closer than two states of one training. The distance of these is that of published
    steps. mnist_mini stays together for all of its recorded steps.
    """
    if step == 0 or run.exact:
        ties = quantity == "mask" and step == 0 and tables.equal_at_start(run.problem)
        if quantity == "overlap" and step == 0 and tables.equal_at_start(run.problem):
            # Overlaps of two choices of BatchNorm's weights: each lies between 0 and 1.
            return {"explained": 1.0, "by": TIES}
        return {"explained": ALLOWED[quantity], "by": TIES if ties else ROUNDING}
    later = [other for other in run.steps if other > 0]
    if quantity == "mask":
        masks = [tables.largest(run.problem, other) for other in later]
        n = len(masks[0])
        apart = [(np.arange(1, n + 1) - common_parameters(a, b)).max() / n
                 for a, b in combinations(masks, 2)]  # fmt: skip
    else:
        curve = {"core": tables.core, "overlap": tables.overlap}[quantity]
        curves = [np.abs(curve(run.problem, split, other)) for other in later]
        scale = np.abs(tables.core(run.problem, split, step)).max() if quantity == "core" else 1.0
        apart = [np.abs(a - b).max() / scale for a, b in combinations(curves, 2)]
    return {"explained": max(apart), "by": CHAOS}


def _training(log: Log, run: PublishedRun) -> Iterator[pd.DataFrame]:
    """Compare evaluations and recorded mini-batches, by quantity and step."""
    published = tables.table("training", run.problem)
    for headers in (EVALUATIONS, (events.TRAINING_BATCH,)):
        theirs = published[published["event"].isin(headers)]
        bodies = [body for header in headers for body in log.bodies(header)]
        ours = {body["global_step"]: body for body in bodies}  # a resumed one repeats steps
        for name, rows in theirs.groupby("quantity", sort=False):
            rows = rows[rows["global_step"].isin(ours)]
            values = [ours[step].get(name) for step in rows["global_step"]]
            pair = np.array(values, dtype=float), rows["value"].to_numpy()
            limits = _expected_training(str(name), run, rows, theirs)
            groups = "all" if run.exact else np.where(rows["global_step"] == 0, "0", "later")
            yield _rows(
                "training", str(name), pair, difference("training", *pair), step=groups, split="",
                at=rows["global_step"].to_numpy(), **limits,
            )  # fmt: skip


def _expected_training(
    name: str, run: PublishedRun, rows: pd.DataFrame, published: pd.DataFrame
) -> dict[str, Any]:
    """Return the same as :func:`_expected` for each of the rows of one quantity."""
    if run.exact or name == "lr":
        return {"explained": ALLOWED["training"], "by": ROUNDING}
    start = rows["global_step"].to_numpy() == 0
    later = published.loc[(published["quantity"] == name) & (published["global_step"] > 0), "value"]
    apart = (later.max() - later.min()) / np.maximum(1, rows["value"].abs().to_numpy())
    first, why = ALLOWED["training"], ROUNDING
    if name.startswith("xv_"):
        # 10,000 images, of which the last mini-batch, not full, is left out; the original shuffles
        # them. Losses of single images differ by less than 1 before the training.
        left_out = 10_000 % run.batch_size
        first, why = left_out / (10_000 - left_out), DROPPED
    return {"explained": np.where(start, first, apart), "by": np.where(start, why, CHAOS)}
