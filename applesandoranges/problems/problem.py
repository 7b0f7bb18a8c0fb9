"""Problems by their names: those of the published experiments, and those of a file."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import torch

from skerch import heartbeat
from skerch.errors import InputError

from .base import Batch, DeviceBatches, Problem
from .definition import is_file, load_definition, short_name
from .known import KnownProblem
from .own import OwnProblem
from .parameters import parameter_vector, select
from .registry import PROBLEMS, check_problem

__all__ = ["Batch", "DeviceBatches", "Problem", "build_problem", "num_params"]


def build_problem(
    name: str,
    root: Path | None,
    seed: int,
    batch_size: int,
    device: torch.device | str = "cpu",
    load_data: bool = True,
) -> Problem:
    """Build a problem, seeding all global generators, so that a seed gives the same one everywhere.

    Args:
        name: Key of :data:`~.registry.PROBLEMS`, or ``path/to/file.py`` or ``path/to/file.py:name``
            (see :mod:`~.definition`).
        root: Directory of the data sets; problems of a file find their own.
        seed: Seed of weights, validation split and training order.
        batch_size: Data points per mini-batch.
        device: Where the network goes, and the data of Hessians.
        load_data: Whether the data are needed; the network is the same without them.

    Raises:
        InputError: If there is no such problem, its data are missing or ``batch_size`` is larger
            than the training data.
    """
    definition = load_definition(name) if is_file(name) else None
    if definition is None:
        check_problem(name)
        if root is None and load_data:
            raise InputError(f"missing key OBS_DATASETS: {name} looks for its data there")
    heartbeat.doing(f"building {short_name(name)}, reading and hashing its data")
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
    if definition is not None:
        return OwnProblem(definition, seed, batch_size, torch.device(device), load_data)
    return KnownProblem.build(name, root, seed, batch_size, torch.device(device), load_data)


def num_params(name: str, parameters: str = "") -> int:
    """Return the number of parameters ``D`` of a problem.

    Args:
        name: As :func:`build_problem` takes it.
        parameters: Which ones count, see :func:`~.parameters.select`; default all.
    """
    if not is_file(name):
        check_problem(name)
        if not parameters.strip():
            return PROBLEMS[name].num_params
    net = build_problem(name, None, 0, 1, load_data=False).net
    return len(parameter_vector(net, select(net, parameters)))
