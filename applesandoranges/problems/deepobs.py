"""The one place that touches DeepOBS: its networks, transforms and L2 groups.

The top-level ``__init__`` of DeepOBS imports TensorFlow, which nothing here needs. So the package
is registered without running that ``__init__``; its submodules, such as ``deepobs.config``, are
then found as usual. It is imported when something of it is wanted: mnist_mini needs nothing of it.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
import warnings
from collections.abc import Callable
from types import ModuleType
from typing import Any

from torch import Tensor, nn

from skerch.errors import InputError


def _import_deepobs(name: str) -> ModuleType:
    """Import ``deepobs.pytorch.<name>`` without running ``deepobs/__init__.py``."""
    if "deepobs" not in sys.modules:
        spec = importlib.util.find_spec("deepobs")
        if spec is None:
            raise InputError(
                "DeepOBS is not installed: pip install --no-deps --only-binary=deepobs deepobs"
            )
        sys.modules["deepobs"] = importlib.util.module_from_spec(spec)
    with warnings.catch_warnings():
        # Newer Python versions object to escape sequences in sources of 2021.
        warnings.simplefilter("ignore")
        return importlib.import_module(f"deepobs.pytorch.{name}")


def network(name: str, **options: int) -> nn.Module:
    """Build the network ``net_<name>`` of DeepOBS."""
    return getattr(_import_deepobs("testproblems.testproblems_modules"), f"net_{name}")(**options)


def training_transform(dataset: str, augmented: bool) -> Callable[[Any], Tensor]:
    """Return DeepOBS's transform of the training data of ``cifar10`` or ``cifar100``."""
    name = "training_transform_augmented" if augmented else "training_transform_not_augmented"
    return getattr(_import_deepobs(f"datasets.{dataset}"), name)


def l2_penalty(testproblem: str, net: nn.Module) -> tuple[float, list[nn.Parameter]]:
    """Return DeepOBS's default L2 factor of a test problem and the parameters it penalises.

    Args:
        testproblem: Name of the test problem in DeepOBS, such as ``cifar10_3c3d``.
        net: The network of that test problem.
    """
    problem = getattr(_import_deepobs("testproblems"), testproblem)(batch_size=1)
    problem.net = net
    groups = problem.get_regularization_groups()
    factor = max(groups)
    return factor, groups[factor] if factor > 0 else []
