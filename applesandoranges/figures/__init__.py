"""The figures of the paper, from logs. Nothing here computes what the logs should hold.

A function takes logs and options and returns a figure and the tables that it shows, or raises
:class:`MissingInLogsError` where the logs lack what it needs.
"""

from __future__ import annotations

import matplotlib.pyplot as plt

from skerch.errors import InputError

from ..results.collect import LogSet
from .common import Draw, Drawing, MissingInLogsError, Options
from .layers import layers
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

__all__ = ["FIGURES", "Drawing", "MissingInLogsError", "Options", "draw", "parts"]

#: Figures with a panel or a series for each run, by the name under which they are written.
ACROSS_RUNS: dict[str, Draw] = {
    "overlap_over_k": overlap_over_k,
    "overlap_over_steps": overlap_over_steps,
    "ratio_over_k": ratio_over_k,
    "ratio_over_steps": ratio_over_steps,
    "run_times": run_times,
}
#: Figures of one run and recovery; of several there are as many figures.
PER_RECOVERY: dict[str, Draw] = {
    "overview": overview,
    "exact_and_sketched_overlap": exact_and_sketched_overlap,
    "exact_against_sketched": exact_against_sketched,
    "recoveries": recoveries,
    "errors": errors,
    "layers": layers,
    "masks": masks,
    "mask_stabilisation": mask_stabilisation,
    "eigenspace_stabilisation": eigenspace_stabilisation,
    "grassmannian_along_training": grassmannian_along_training,
}
#: Figures of one training.
PER_RUN: dict[str, Draw] = {"training": training}
FIGURES = ACROSS_RUNS | PER_RECOVERY | PER_RUN


def parts(name: str, logs: LogSet) -> list[tuple[str, LogSet]]:
    """Return what a figure is drawn of, one by one, each with what is to be added to its name."""
    if name in ACROSS_RUNS:
        return [("", logs)]
    found = logs.parts(by_recovery=name in PER_RECOVERY)
    return found if len(found) > 1 else [("", logs)]


def draw(name: str, logs: LogSet, options: Options) -> Drawing:
    """Draw a figure by its name; matplotlib does not keep it open.

    Raises:
        MissingInLogsError: If the logs lack what it needs.
        InputError: If it shows one run and recovery, and the logs have several; see :func:`parts`.
    """
    there = sorted({f"{r.facts.label}, {r.recovery}" for r in logs.results})
    if name in PER_RECOVERY and len(there) > 1:
        raise InputError(f"{name} shows one run and recovery, got {'; '.join(there)}")
    figure, tables = FIGURES[name](logs, options)
    plt.close(figure)
    return figure, tables
