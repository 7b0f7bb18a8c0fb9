"""SEIGH beside other eigensolvers: the same Hessian of mnist_mini, the same number of pairs."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse.linalg
import torch

from applesandoranges.analysis.exact import ExactEigh, dense_matrix, exact_eigh
from applesandoranges.hessian.curvatures import BlockOperator
from applesandoranges.measurement.recorded_hessian import (
    RecordedHessianConfig,
    load_recorded_hessian,
)
from skerch.a_priori import block_size
from skerch.decompositions import block_krylov, seigh

from .harness import Stages, case, scratch
from .pipeline import train_mnist_mini
from .synthetic import SEED

#: Eigenvalues ``[k]`` and eigenvectors ``[D, k]``, float64, in any order.
Pairs = tuple[np.ndarray, np.ndarray]


class Counted:
    """A SciPy operator that counts the vectors it is multiplied with."""

    def __init__(self, operator: BlockOperator):
        self.inner, self.products = operator.to_scipy(), 0

    def as_scipy(self) -> scipy.sparse.linalg.LinearOperator:
        """Return the counting operator."""
        return scipy.sparse.linalg.LinearOperator(
            self.inner.shape, matvec=self._multiply, matmat=self._multiply, dtype=np.float32
        )

    def _multiply(self, X: np.ndarray) -> np.ndarray:
        self.products += 1 if X.ndim == 1 else X.shape[1]
        return self.inner @ X.astype(np.float32)


def solve_seigh(operator: BlockOperator, k: int) -> tuple[Pairs, int]:
    """SEIGH with ``n_i = 2 k``."""
    found = seigh(
        operator,
        k,
        2 * k,
        SEED,
        torch.float32,
        device=operator.device,
        batch_size=operator.plan.vectors,
    )
    return (found.S.numpy(), found.vectors().numpy()), 2 * k


def solve_krylov(rounds: int) -> Callable[[BlockOperator, int], tuple[Pairs, int]]:
    """Block Krylov with about ``2 k`` products."""

    def solve(operator: BlockOperator, k: int) -> tuple[Pairs, int]:
        found = block_krylov(
            operator,
            k,
            rounds,
            block_size(2 * k, rounds),
            SEED,
            torch.float32,
            device=operator.device,
            batch_size=operator.plan.vectors,
        )
        return (found.S.numpy(), found.vectors().numpy()), int(found.num_products or 0)

    return solve


def solve_eigsh(tol: float) -> Callable[[BlockOperator, int], tuple[Pairs, int]]:
    """Implicitly restarted Lanczos of ARPACK through CurvLinOps' SciPy export."""

    def solve(operator: BlockOperator, k: int) -> tuple[Pairs, int]:
        counted = Counted(operator)
        pairs = scipy.sparse.linalg.eigsh(counted.as_scipy(), k, which="LM", tol=tol)
        return pairs, counted.products

    return solve


def solve_lobpcg(operator: BlockOperator, k: int) -> tuple[Pairs, int]:
    """LOBPCG on ``H^2``, whose largest pairs are those of largest magnitude; Rayleigh quotients."""
    counted = Counted(operator)
    H = counted.as_scipy()
    squared = scipy.sparse.linalg.LinearOperator(
        H.shape, matvec=lambda x: H @ (H @ x), matmat=lambda X: H @ (H @ X), dtype=np.float32
    )
    start = np.random.default_rng(SEED).standard_normal((H.shape[0], k))
    _, V = scipy.sparse.linalg.lobpcg(squared, start, largest=True, maxiter=10, tol=1e-6)
    V = np.linalg.qr(V)[0]
    S, U = np.linalg.eigh(V.T @ (H @ V))
    return (S, V @ U), counted.products


#: Add further methods here: ``(operator, k) -> (pairs, number of products)``.
PEERS: dict[str, Callable[[BlockOperator, int], tuple[Pairs, int]]] = {
    "SEIGH": solve_seigh,
    "block Krylov, 4 rounds": solve_krylov(4),
    "block Krylov, 10 rounds": solve_krylov(10),
    "eigsh": solve_eigsh(0.0),
    "eigsh, tol 1e-3": solve_eigsh(1e-3),
    "LOBPCG, 10 iterations": solve_lobpcg,
}


def errors(pairs: Pairs, exact: ExactEigh) -> dict[str, float]:
    """Compare pairs with the exact ones of largest magnitude."""
    S, V = (torch.as_tensor(np.asarray(x, dtype=np.float64)) for x in pairs)
    order = S.abs().argsort(descending=True)
    S, V, k = S[order], V[:, order], len(S)
    residual = (exact.H - (V * S) @ V.T).square().sum()
    best = exact.S[k:].square().sum()
    true = exact.of_same_sign(S)
    relative = (S - true).abs() / true.abs()
    return {
        "half_eigenvalue_error": float(relative[: k // 2].max()),
        "half_eigenvalue_error_median": float(relative[: k // 2].median()),
        "eigenvalue_error": float((S - true).abs().max() / exact.S[0].abs()),
        "subspace_overlap": float((exact.V.T @ V).square().sum() / k),
        "residual_over_best_residual": float((residual / best).sqrt()),
    }


@case(
    "peers",
    "SEIGH, block Krylov, Lanczos (ARPACK) and LOBPCG: the same k of the same mnist_mini Hessian",
    full={"k": 355, "steps": 300, "num_data": 500, "names": list(PEERS), "exact": True},
    tiny={"k": 4, "steps": 1, "num_data": 20, "exact": False,
          "names": ["SEIGH", "block Krylov, 4 rounds", "eigsh, tol 1e-3"]},
)  # fmt: skip
def peers(k: int, steps: int, num_data: int, names: list[str], exact: bool) -> dict[str, Any]:
    """Train, decompose exactly (minutes; the errors need it), then by each method."""
    with scratch() as temporary, contextlib.redirect_stdout(io.StringIO()):
        words = train_mnist_mini(Path(temporary), [steps], num_data)
        config = RecordedHessianConfig(
            OBS_DATASETS=words["OBS_DATASETS"],
            PARAMS_PATH=words["PARAMS_PATH"],
            TRAINING_LOGPATH=words["TRAINING_LOGPATH"],
            STEP=steps,
            DEVICE="cpu",
        )
        operator = load_recorded_hessian(config).operator
        plan = operator.plan
        found: dict[str, Any] = {}
        stage = Stages()
        if exact:
            H = stage("products", lambda: dense_matrix(operator, plan.vectors))
            whole = stage("eigh", lambda: exact_eigh(H, k))
        for name in names:
            pairs, products = stage(name, partial(PEERS[name], operator, k))
            found[name] = {"seconds": stage.seconds[name], "products": products}
            if exact:
                found[name] |= errors(pairs, whole)
    return {
        "num_params": operator.shape[0],
        "plan": plan.summary(),
        "exact_seconds": {name: stage.seconds[name] for name in ("products", "eigh") if exact},
        "methods": found,
    }
