"""The published results: tables, and the settings of the runs that they are of.

The tables in ``results`` are of logs published with arXiv 2504.14701.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
from torch import nn

from ..app.spelling import check_name
from ..problems.registry import PROBLEMS

TABLES = Path(__file__).parent / "results"

#: Keys of the training that all published runs share.
OPTIMIZER, SEED = "SGD", 12345


@dataclass(frozen=True, kw_only=True)
class PublishedRun:
    """Settings of a published run.

    Attributes:
        problem: Its name here.
        data: Its data set.
        num_hessian: Data points of the Hessians.
        batch_size: Data points per mini-batch.
        lr: Learning rate, to the six digits behind the point that were logged.
        outer: Outer measurements ``n_o`` of a sketch.
        inner: Inner measurements ``n_i``.
        splits: Splits with Hessians.
        exact: Whether exact eigenvalues were computed (12a), too; if not, 10d recovered them.
        ordered: Whether masks are ordered by magnitude; otherwise they are sets.
        batch_norm: Whether the network has BatchNorm.
    """

    problem: str
    data: str
    num_hessian: int
    batch_size: int
    lr: float
    outer: int
    inner: int
    splits: tuple[str, ...]
    exact: bool = False
    ordered: bool = True
    batch_norm: bool = False

    @property
    def steps(self) -> tuple[int, ...]:
        """Steps with Hessians."""
        return tuple(sorted(int(step) for step in table("spectrum", self.problem)["step"].unique()))


RUNS = {
    run.problem: run
    for run in (
        PublishedRun(
            problem="mnist_mini", data="MNIST", num_hessian=500, batch_size=500, lr=0.3,
            outer=355, inner=710, splits=("train", "test"), exact=True,
            ordered=False,  # what topk left unsorted: n_o parameters in no particular order
        ),
        PublishedRun(
            problem="cifar10det_3c3d", data="CIFAR-10", num_hessian=500, batch_size=128,
            lr=0.022611, outer=1000, inner=2000, splits=("train", "test"),
        ),
        PublishedRun(
            problem="cifar100_allcnnc", data="CIFAR-100", num_hessian=1000, batch_size=256,
            lr=0.165791, outer=1000, inner=2000, splits=("test",),
        ),
        PublishedRun(
            problem="imagenetdet_resnet18", data="ImageNet", num_hessian=5000, batch_size=150,
            lr=0.1, outer=1500, inner=3000, splits=("test",), batch_norm=True,
        ),
    )
}  # fmt: skip


@cache
def _read(name: str) -> pd.DataFrame:
    return pd.read_csv(TABLES / f"{name}.csv.gz")


def table(name: str, problem: str) -> pd.DataFrame:
    """Return the rows of a published table that are of one problem.

    Args:
        name: ``"spectrum"``, ``"overlap"``, ``"largest_parameters"`` or ``"training"``.
        problem: Key of :data:`RUNS`.
    """
    check_name("problem with published results", problem, RUNS)
    rows = _read(name)
    return rows[rows["problem"] == problem].drop(columns="problem").reset_index(drop=True)


def _column(name: str, column: str, problem: str, split: str, step: int) -> np.ndarray:
    rows = table(name, problem)
    return rows.loc[(rows["split"] == split) & (rows["step"] == step), column].to_numpy()


@cache
def eigenvalues(problem: str, split: str, step: int) -> np.ndarray:
    """Return exact eigenvalues by descending magnitude, ``[n_o]``; NaN where not published."""
    return _column("spectrum", "eigenvalue", problem, split, step)


@cache
def core(problem: str, split: str, step: int) -> np.ndarray:
    """Return sketched eigenvalues by descending magnitude, ``[n_o]``."""
    return _column("spectrum", "sketched_eigenvalue", problem, split, step)


@cache
def overlap(problem: str, split: str, step: int) -> np.ndarray:
    """Return the overlap of sketched eigenspaces and magnitude masks, ``[n_o]``."""
    curve = _column("overlap", "k_times_overlap", problem, split, step)
    return curve / np.arange(1, len(curve) + 1)


@cache
def largest(problem: str, step: int) -> np.ndarray:
    """Return the indices of the largest parameters, ``[n_o]``, the same for both splits."""
    return _column("largest_parameters", "index", problem, "test", step)


@cache
def equal_at_start(problem: str) -> frozenset[int]:
    """Return the indices of BatchNorm's weights, all of which are exactly 1 before the training.

    Nothing in a network is larger then, so that a mask of step 0 is an arbitrary choice among them.
    """
    if not RUNS[problem].batch_norm:
        return frozenset()
    return frozenset(_batch_norm_weights(PROBLEMS[problem].network()))


def _batch_norm_weights(net: nn.Module) -> Iterator[int]:
    norms = {id(m.weight) for m in net.modules() if isinstance(m, nn.BatchNorm2d)}
    begin = 0
    for parameter in net.parameters():
        if id(parameter) in norms:
            yield from range(begin, begin + parameter.numel())
        begin += parameter.numel()
