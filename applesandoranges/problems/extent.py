"""What the data of a problem can serve: how many steps, and Hessians of how many data points.

For what has to be known before anything starts. Known problems are not built for it: the classes
of their data are enough.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from .datasets import dataset_spec, load_labels
from .definition import is_file
from .known import check_batch_size
from .problem import build_problem
from .registry import PROBLEMS, check_problem
from .samplers import balanced_sizes


@dataclass(frozen=True)
class Extent:
    """What the data can serve.

    Attributes:
        steps_per_epoch: Mini-batches of training data, at least one.
        multiple: The number of data points of a Hessian must be a multiple of it.
        most_points: The largest such number, for both splits.
    """

    steps_per_epoch: int
    multiple: int
    most_points: int


def extent_of(name: str, root: Path, batch_size: int) -> Extent:
    """Return the extent of a problem's data.

    Args:
        name: As :func:`~.problem.build_problem` takes it.
        root: Directory of the data sets; problems of a file find their own.
        batch_size: Data points per mini-batch.

    Raises:
        InputError: If there is no such problem, its data are missing or damaged, or do not fill a
            mini-batch.
    """
    if is_file(name):
        problem = build_problem(name, None, 0, batch_size)
        steps, sizes = problem.steps_per_epoch, [*map(problem.hessian_sizes, ("train", "test"))]
    else:
        check_problem(name)
        data = PROBLEMS[name].data
        labels = load_labels(data, root)
        num, sizes = len(labels[0]), [*map(balanced_sizes, labels)]
        steps = (num - dataset_spec(data).valid_of(num)) // batch_size
        check_batch_size(name, batch_size, num, steps)
    multiple = math.lcm(*(each for each, _ in sizes))
    return Extent(steps, multiple, min(most for _, most in sizes) // multiple * multiple)
