r"""Other packages on the same network: each by a program of its own, in a process of its own.

They are installed where they cannot meet the packages of this repository::

    pip install --target benchmarks/.peers --no-deps hessian-eigenthings==1.0.0a5 \
        PyHessian==0.1 skerch==1.2.0

``PEER_PACKAGES`` names another directory. What is not installed, or fails, is named with the
reason.
"""

from __future__ import annotations

import copy
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from curvlinops import HessianLinearOperator
from torch import nn

from applesandoranges.analysis.exact import exact_eigh

from .harness import ROOT, case, scratch
from .peers import errors
from .synthetic import SEED

PROGRAMS = Path(__file__).with_name("peer_programs")
INSTALLED = Path(os.environ.get("PEER_PACKAGES", ROOT / "benchmarks" / ".peers"))


@dataclass(frozen=True)
class Program:
    """A program of :data:`PROGRAMS`.

    Attributes:
        file: Its name.
        package: The directory of the package that it is about.
        where: Where that is installed; ``None`` if in the environment of this process.
    """

    file: str
    package: str
    where: Path | None

    @property
    def path(self) -> Path:
        """The program."""
        return PROGRAMS / self.file

    @property
    def lines(self) -> int:
        """Lines that are not empty: what a user writes."""
        return sum(bool(line.strip()) for line in self.path.read_text().splitlines())


PACKAGES = {
    "skerch (this one) with CurvLinOps": Program("with_this_skerch.py", "skerch", ROOT),
    "CurvLinOps with SciPy's eigsh": Program("with_curvlinops_eigsh.py", "curvlinops", None),
    "hessian-eigenthings 1.0.0a5": Program(
        "with_hessian_eigenthings.py", "hessian_eigenthings", INSTALLED
    ),
    "PyHessian 0.1, two iterations": Program("with_pyhessian.py", "pyhessian", INSTALLED),
    "PyHessian 0.1, its defaults": Program(
        "with_pyhessian_to_convergence.py", "pyhessian", INSTALLED
    ),
    "skerch 1.2.0 of PyPI with CurvLinOps": Program("with_skerch_of_pypi.py", "skerch", INSTALLED),
}


def run_program(
    name: str,
    net: nn.Module,
    loss: nn.Module,
    batch: tuple[Any, Any],
    k: int,
    repeats: int,
    directory: Path,
) -> tuple[dict[str, Any], tuple[np.ndarray, np.ndarray] | None]:
    """Run a program of :data:`PACKAGES` on one mini-batch.

    Returns:
        Seconds, products and lines of code, and the pairs; or ``not_run`` with the reason.
    """
    program = PACKAGES[name]
    if program.where is not None and not (program.where / program.package).is_dir():
        return {"not_run": f"{program.package} is not installed in {program.where.name}"}, None
    source, target = directory / "given.pt", directory / "found.npz"
    torch.save({"net": net, "loss": loss, "X": batch[0], "y": batch[1]}, source)
    environment = os.environ | {"PYTHONPATH": str(program.where or "")}
    done = subprocess.run(
        [sys.executable, PROGRAMS / "run.py", program.path, source, target, str(k), str(repeats)],
        cwd=directory, env=environment, capture_output=True, text=True,
    )  # fmt: skip
    if done.returncode != 0:
        last = (done.stderr.strip() or f"exit status {done.returncode}").splitlines()[-1]
        return {"not_run": last[:300]}, None
    with np.load(target) as found:
        products = int(found["products"])
        result = {
            "seconds": float(found["seconds"]),
            "products": None if products < 0 else products,
            "lines": program.lines,
        }
        return result, (found["S"], found["V"])


def trained_network(
    steps: int, num_data: int
) -> tuple[nn.Module, tuple[torch.Tensor, torch.Tensor]]:
    """Return an MLP 30-24-24-5 after some steps of Adam on labels of another one, and the data."""
    torch.manual_seed(SEED)
    teacher, net = (
        nn.Sequential(nn.Linear(30, 24), nn.Tanh(), nn.Linear(24, 24), nn.Tanh(), nn.Linear(24, 5))
        for _ in range(2)
    )
    X = torch.randn(num_data, 30)
    y = teacher(X).argmax(dim=1)
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-2)
    for _ in range(steps):
        optimizer.zero_grad()
        nn.functional.cross_entropy(net(X), y).backward()
        optimizer.step()
    net.zero_grad()
    return net, (X, y)


@case(
    "peer_packages",
    "other packages beside skerch: the same k of the same MLP's Hessian, a program for each",
    full={"k": 50, "steps": 50, "num_data": 1000, "repeats": 3, "names": list(PACKAGES)},
    tiny={"k": 3, "steps": 1, "num_data": 20, "repeats": 1,
          "names": ["skerch (this one) with CurvLinOps", "CurvLinOps with SciPy's eigsh"]},
)  # fmt: skip
def peer_packages(
    k: int, steps: int, num_data: int, repeats: int, names: list[str]
) -> dict[str, Any]:
    """Train, decompose exactly in float64, then by each program; its fastest run counts."""
    net, (X, y) = trained_network(steps, num_data)
    loss = nn.CrossEntropyLoss()
    twin = copy.deepcopy(net).double()
    operator = HessianLinearOperator(
        twin, loss, list(twin.parameters()), [(X.double(), y)], num_data=num_data
    )
    exact = exact_eigh(operator @ torch.eye(operator.shape[0], dtype=torch.float64), k)
    found: dict[str, Any] = {}
    with scratch() as temporary:
        for name in names:
            found[name], pairs = run_program(name, net, loss, (X, y), k, repeats, Path(temporary))
            if pairs is not None:
                found[name] |= errors(pairs, exact)
    return {"num_params": operator.shape[0], "programs": found}
