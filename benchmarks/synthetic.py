"""Problems without data, and operators whose eigenpairs are known."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from applesandoranges.hessian.engines import ProductPlan, ProductSettings
from applesandoranges.hessian.operator import make_hessian
from applesandoranges.measurement.recorded_hessian import RecordedHessian
from applesandoranges.problems.parameters import parameter_vector
from applesandoranges.problems.problem import Problem, build_problem
from skerch.linops import DiagonalLinOp
from skerch.utils import gaussian_noise, rademacher, randperm

SEED = 12345
IMAGES = {
    "mnist_mini": (1, 16, 16),
    "cifar10det_3c3d": (3, 32, 32),
    "cifar100det_allcnnc": (3, 32, 32),
    "imagenetdet_resnet18": (3, 224, 224),
}


def problem_batches(
    name: str, num_data: int, batch_size: int
) -> tuple[Problem, list[tuple[Tensor, Tensor]]]:
    """Return an initialised problem and mini-batches of random images."""
    problem = build_problem(name, Path(), SEED, batch_size, load_data=False)
    problem.net.eval()
    X = gaussian_noise((num_data, *IMAGES[name]), SEED, dtype=torch.float32)
    with torch.no_grad():
        num_classes = problem.net(X[:1]).shape[1]
    y = torch.arange(num_data) % num_classes
    return problem, list(zip(X.split(batch_size), y.split(batch_size), strict=True))


def synthetic_hessian(
    problem: Problem,
    data: list[tuple[Tensor, Tensor]],
    directory: Path,
    settings: ProductSettings,
    plan: ProductPlan | None,
) -> RecordedHessian:
    """Return what 10c measures, as if it had been recorded."""
    num_data = sum(len(y) for _, y in data)
    operator = make_hessian(
        problem.net, problem.criterion, data, num_data, settings, plan, known=True
    )
    identity: dict[str, Any] = {
        "run_id": "benchmark",
        "problem": problem.name,
        "step": 0,
        "split": "train",
        "params_sha256": "0" * 64,
        "data_sha256": "0" * 64,
    }
    params = parameter_vector(problem.net)
    return RecordedHessian(
        problem, operator, params, directory, "benchmark", SEED, 0, False, num_data, identity
    )


def known_operator(dim: int, decay: float = 1.0) -> DiagonalLinOp:
    """Return a diagonal matrix with entries ``+- k^-decay`` in random places, in float32.

    SSRFTs mix all coordinates, so that for a sketch it is as good as any other matrix with these
    eigenvalues, at no cost.
    """
    values = torch.arange(1, dim + 1, dtype=torch.float64).pow_(-decay)
    values *= rademacher(dim, SEED, torch.float64)
    return DiagonalLinOp(values[randperm(dim, SEED + 1)].float())
