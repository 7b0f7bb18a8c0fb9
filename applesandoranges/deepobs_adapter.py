"""The one place that touches DeepOBS: its networks, transforms and L2 groups.

The top-level ``__init__`` of DeepOBS imports TensorFlow, which nothing here needs. So the package
is registered without running that ``__init__``; its submodules, such as ``deepobs.config``, are
then found as usual.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
import warnings
from types import ModuleType

from torch import nn

from skerch.utils import InputError


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


_modules = _import_deepobs("testproblems.testproblems_modules")
_testproblems = _import_deepobs("testproblems")
_cifar10 = _import_deepobs("datasets.cifar10")
_cifar100 = _import_deepobs("datasets.cifar100")

net_mlp = _modules.net_mlp
net_fmnist_2c2d = _modules.net_mnist_2c2d
net_cifar10_3c3d = _modules.net_cifar10_3c3d
net_cifar100_allcnnc = _modules.net_cifar100_allcnnc

cifar10_transform = _cifar10.training_transform_not_augmented
cifar10_augmentation = _cifar10.training_transform_augmented
cifar100_transform = _cifar100.training_transform_not_augmented
cifar100_augmentation = _cifar100.training_transform_augmented


def l2_penalty(testproblem: str, net: nn.Module) -> tuple[float, list[nn.Parameter]]:
    """Return DeepOBS's default L2 factor of a test problem and the parameters it penalises.

    Args:
        testproblem: Name of the test problem in DeepOBS, such as ``cifar10_3c3d``.
        net: The network of that test problem.
    """
    problem = getattr(_testproblems, testproblem)(batch_size=1)
    problem.net = net
    groups = problem.get_regularization_groups()
    factor = max(groups)
    return factor, groups[factor] if factor > 0 else []
