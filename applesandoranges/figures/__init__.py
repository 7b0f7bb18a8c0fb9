"""The figures of the paper, from logs. Nothing here computes what the logs should hold.

A function takes logs and options and returns a figure and the tables that it shows, or raises
:class:`MissingInLogsError` where the logs lack what it needs.
"""

from __future__ import annotations

import matplotlib.pyplot as plt

from ..results.collect import LogSet
from .common import Draw, Drawing, MissingInLogsError, Options
from .masks import eigenspace_stabilisation, grassmannian_along_training, mask_stabilisation, masks
from .overlap import (
    exact_and_sketched_overlap,
    overlap_over_k,
    overlap_over_steps,
    ratio_over_k,
    ratio_over_steps,
)
from .spectra import errors, exact_against_sketched, overview, recoveries
from .training import run_times, training

__all__ = ["FIGURES", "PER_RUN", "Drawing", "MissingInLogsError", "Options", "draw"]

#: Figures with a panel or a series for each run, by the name under which they are written.
ACROSS_RUNS: dict[str, Draw] = {
    "overlap_over_k": overlap_over_k,
    "overlap_over_steps": overlap_over_steps,
    "ratio_over_k": ratio_over_k,
    "ratio_over_steps": ratio_over_steps,
    "run_times": run_times,
}
#: Figures of one run; of several runs there are as many figures.
PER_RUN: dict[str, Draw] = {
    "overview": overview,
    "exact_and_sketched_overlap": exact_and_sketched_overlap,
    "exact_against_sketched": exact_against_sketched,
    "recoveries": recoveries,
    "errors": errors,
    "masks": masks,
    "mask_stabilisation": mask_stabilisation,
    "eigenspace_stabilisation": eigenspace_stabilisation,
    "grassmannian_along_training": grassmannian_along_training,
    "training": training,
}
FIGURES = ACROSS_RUNS | PER_RUN


def draw(name: str, logs: LogSet, options: Options) -> Drawing:
    """Draw a figure by its name; matplotlib does not keep it open.

    Raises:
        MissingInLogsError: If the logs lack what it needs.
    """
    figure, tables = FIGURES[name](logs, options)
    plt.close(figure)
    return figure, tables
