"""One pass over a symmetric operator: what the literature has, on Hessians of networks.

Every approximation is made of the same ``n = 2 k`` products ``Y = H W`` with an SSRFT ``W``, cut to
``k`` pairs and compared with the best ``k`` pairs. In the basis ``Q R = Y`` all but SEIGH are a
small core: ``H ~ Q C Q^T``.
"""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from applesandoranges.hessian.engines import ProductSettings
from applesandoranges.hessian.operator import make_hessian
from skerch.decompositions import block_krylov, hmt, nystrom, seigh
from skerch.results import Eigh
from skerch.ssrft import SSRFT
from skerch.utils import gaussian_noise

from .coverage import LAST_LAYER, exact_draws
from .harness import case, scratch
from .synthetic import SEED, problem_batches

F64 = torch.float64
#: Vectors that estimate the error where there is no matrix.
TEST_VECTORS = 20


@dataclass(frozen=True)
class Judged:
    """A Hessian, and how well ``k`` pairs of it can be approximated.

    Attributes:
        H: ``[D, D]`` operator, a tensor where the errors are exact.
        S: Its first eigenvalues, ``[k]``.
        V: Their vectors, ``[D, k]``.
        best: Error of the best ``k`` pairs.
        tests: Test vectors and their products, ``[D, t]`` each; ``None`` where ``H`` is a tensor.
    """

    H: Any
    S: Tensor
    V: Tensor
    best: float
    tests: tuple[Tensor, Tensor] | None = None

    @classmethod
    def of_matrix(cls, H: Tensor, S: Tensor, V: Tensor) -> Judged:
        """Judge by the exact pairs of a matrix."""
        total = float(H.double().square().sum())
        return cls(H, S, V, ((total - float(S.square().sum())) / total) ** 0.5)

    @classmethod
    def of_operator(cls, H: Any, k: int, rounds: int) -> Judged:
        """Judge by test vectors, and by block Krylov of so many rounds of ``k``."""
        found = block_krylov(H, k, rounds, k, SEED + 7, torch.float32)
        G = gaussian_noise((H.shape[0], TEST_VECTORS), SEED + 8, dtype=torch.float32)
        judged = cls(H, found.S, found.vectors(k), 1.0, (G, H @ G))
        return cls(H, found.S, judged.V, judged.error(found.S, judged.V), judged.tests)

    def error(self, S: Tensor, V: Tensor) -> float:
        """Return ``||H - V S V^T||_F / ||H||_F``."""
        if self.tests is None:
            H = self.H.double()
            return float((H - (V * S) @ V.T).norm() / H.norm())
        G, HG = self.tests
        left = HG.double() - (V * S) @ (V.T @ G.to(V))
        return float(left.norm() / HG.double().norm())

    def eigenvalue_error(self, S: Tensor) -> float:
        """Return the median relative error of the leading half of the eigenvalues."""
        half = min(len(self.S) // 2, len(S))
        return float((S[:half] / self.S[:half] - 1).abs().median())

    def alignment(self, V: Tensor) -> float:
        """Return the mean squared cosine of the angles between the leading halves."""
        half = self.V.shape[1] // 2
        return float((self.V[:, :half].T.double() @ V[:, :half]).square().sum() / half)


@dataclass(frozen=True)
class Pass:
    """What one pass leaves, in the basis of the products.

    Attributes:
        R: ``Q^T Y``, triangular, ``[n, n]``.
        B: ``W^T Y``, symmetric, ``[n, n]``.
        X: ``Q^T W``, ``[n, n]``.
    """

    R: Tensor
    B: Tensor
    X: Tensor


Core = Callable[[Pass], Tensor]


def by_magnitude(A: Tensor) -> tuple[Tensor, Tensor]:
    """Return eigenvalues by descending magnitude, and their vectors."""
    S, U = torch.linalg.eigh((A + A.T) / 2)
    order = S.abs().argsort(descending=True)
    return S[order], U[:, order]


def cut_core(share: float) -> Core:
    """Nystrom with the core cut to a share of its eigenvalues [arXiv 2212.01127]."""

    def core(found: Pass) -> Tensor:
        S, U = by_magnitude(found.B)
        r = round(share * len(S))
        Z = found.R @ U[:, :r]
        return (Z / S[:r]) @ Z.T

    return core


def damped_core(share: float, power: int) -> Core:
    """Nystrom with eigenvalues of the core damped from a rank on, by a filter of this power."""

    def core(found: Pass) -> Tensor:
        S, U = by_magnitude(found.B)
        limit = float(S[min(len(S), round(share * len(S))) - 1].abs())
        Z = found.R @ U
        inverse = S.sign() * S.abs() ** (power - 1) / (S.abs() ** power + limit**power)
        return (Z * inverse) @ Z.T

    return core


def least_squares(share: float) -> Core:
    """The symmetric ``C`` that fits ``C Q^T W = Q^T Y`` best, Q cut [HMT2011, 5.5]."""

    def core(found: Pass) -> Tensor:
        P = torch.linalg.svd(found.R).U[:, : round(share * len(found.R))]
        X, Y = P.T @ found.X, P.T @ found.R
        S, U = torch.linalg.eigh(X @ X.T)
        right = U.T @ (Y @ X.T + X @ Y.T) @ U
        C = U @ (right / (S[:, None] + S[None, :])) @ U.T
        return P @ C @ P.T

    return core


def generalised(share: float) -> Core:
    """``Y_1 (W^T Y_1)^+ Y^T`` of the first columns ``Y_1``, symmetrised [arXiv 2009.11392]."""

    def core(found: Pass) -> Tensor:
        some = round(share * len(found.R))
        C = found.R[:, :some] @ torch.linalg.lstsq(found.B[:, :some], found.R.T).solution
        return (C + C.T) / 2

    return core


def oblique(share: float) -> Core:
    """As SEIGH, but with the left test matrix equal to the right one: all products are both."""

    def core(found: Pass) -> Tensor:
        P = torch.linalg.svd(found.R).U[:, : round(share * len(found.R))]
        left = torch.linalg.pinv(found.X.T @ P)
        C = left @ found.B @ left.T
        return P @ C @ P.T

    return core


#: By name, with the share of the ``n`` products that the core is cut to.
CORES: dict[str, Core] = {
    "nystrom, not cut": cut_core(1.0),
    "nystrom, cut to k": cut_core(0.5),
    "nystrom, cut to 1.1 k": cut_core(0.55),
    "nystrom, cut to 1.3 k": cut_core(0.65),
    "nystrom, damped from 1.1 k": damped_core(0.55, 4),
    "nystrom, damped from 1.3 k": damped_core(0.65, 4),
    "nystrom, damped from 1.3 k (Tikhonov)": damped_core(0.65, 2),
    "symmetric least squares, basis of k": least_squares(0.5),
    "symmetric least squares, basis of 1.1 k": least_squares(0.55),
    "generalised nystrom, k + 2 k": generalised(0.5),
    "generalised nystrom, 1.3 k + 2 k": generalised(0.65),
    "two-sided core, basis of k": oblique(0.5),
    "two-sided core, basis of 1.1 k": oblique(0.55),
}


def compare(judged: Judged, k: int, seed: int) -> dict[str, dict[str, float]]:
    """Return error and alignment of every approximation, by name."""
    D, n = judged.H.shape[0], 2 * k
    Psi = SSRFT((n, D), seed + 1)
    W = Psi.rows(range(n), torch.float64).T
    Y = (judged.H @ W.to(torch.float32)).double()
    Q, R = torch.linalg.qr(Y)
    found = Pass(R, W.T @ Y, Q.T @ W)
    rows: dict[str, dict[str, float]] = {}

    def row(name: str, S: Tensor, V: Tensor, products: int, columns: int) -> None:
        rows[name] = {
            "products": products,
            "columns": columns,
            "error_to_best": judged.error(S, V) / judged.best,
            "alignment": judged.alignment(V),
            "eigenvalue_error": judged.eigenvalue_error(S),
        }

    def row_of(name: str, eigh: Eigh, columns: int) -> None:
        assert eigh.num_products is not None
        found = min(k, len(eigh.S))  # damped, of few columns, there are fewer
        row(name, eigh.S[:k], eigh.vectors(found), eigh.num_products, columns)

    for name, core in CORES.items():
        S, U = by_magnitude(core(found))
        row(name, S[:k], Q @ U[:, :k], n, n)
    dtype = torch.float32
    row_of("nystrom, as it is here", nystrom(judged.H, k, seed, n, dtype), n)
    row_of("nystrom, k columns", nystrom(judged.H, k, seed, k, dtype), k)
    row_of("seigh", seigh(judged.H, k, n, seed, dtype), k)
    row_of("seigh, 2 k columns", seigh(judged.H, n, 2 * n, seed, dtype), n)
    row_of("hmt (two passes)", hmt(judged.H, k, seed, dtype), n)
    return rows


def _mnist(
    steps: list[int], num_data: int, k: int, parameters: str
) -> Iterator[tuple[str, Judged]]:
    root = os.environ.get("MNIST_ROOT")
    with scratch() as temporary:
        draws = exact_draws(Path(temporary), root, steps, num_data, k, parameters, (False,))
        for step in steps:
            with contextlib.redirect_stdout(io.StringIO()):
                draw = next(draws)
            yield f"mnist_mini, step {step}", Judged.of_matrix(draw.H, draw.S, draw.V)


def _at_the_start(problem: str, k: int, num_data: int, rounds: int) -> tuple[str, Judged]:
    built, data = problem_batches(problem, num_data, num_data)
    H = make_hessian(built.net, built.criterion, data, num_data, ProductSettings("graph", 4))
    return f"{problem}, before training", Judged.of_operator(H, k, rounds)


@case(
    "one_pass",
    "what one pass can give: the literature on mnist_mini, of $MNIST_ROOT if set, 3c3d, ResNet",
    full={
        "steps": [0, 100, 300, 1000], "num_data": 500, "k": 355, "parameters": "*",
        "large": {"cifar10det_3c3d": [40, 64, 4], "imagenetdet_resnet18": [8, 2, 4]},
    },
    tiny={"steps": [1], "num_data": 20, "k": 8, "parameters": LAST_LAYER,
          "large": {"cifar10det_3c3d": [2, 2, 2]}},
    long=True,
)  # fmt: skip
def one_pass(
    steps: list[int], num_data: int, k: int, parameters: str, large: dict[str, list[int]]
) -> dict[str, Any]:
    """Compare on each Hessian.

    Args:
        steps: Of mnist_mini, training Hessians: exact.
        num_data: Images of each of its Hessians.
        k: Pairs of them.
        parameters: Which of mnist_mini's span the Hessians.
        large: Other networks, with random images: pairs, images, and the rounds of block Krylov
            that they are compared with.
    """
    rows = {
        name: compare(judged, k, SEED) for name, judged in _mnist(steps, num_data, k, parameters)
    }
    for problem, (pairs, images, rounds) in large.items():
        name, judged = _at_the_start(problem, pairs, images, rounds)
        rows[name] = compare(judged, pairs, SEED)
    return {"hessians": rows}
