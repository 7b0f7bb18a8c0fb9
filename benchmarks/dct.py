"""The transforms of this package against those of SciPy, as an SSRFT uses them."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import scipy.fft
import torch
from torch import Tensor

from skerch.ssrft import BATCH_VECTORS, SSRFT
from skerch.utils import rademacher, randperm

from .harness import case, seconds, summary


class ScipySSRFT:
    """The same operator, one vector after the other through ``scipy.fft.dct``, on all cores.

    Args:
        shape: ``(k, D)``.
        seed: As of :class:`~skerch.ssrft.SSRFT`.
        workers: Threads.
    """

    def __init__(self, shape: tuple[int, int], seed: int, workers: int):
        num_rows, dim = shape
        self.workers = workers
        self.orders = [randperm(dim, seed + shift) for shift in (0, 2)]
        self.inverses = [order.argsort() for order in self.orders]
        self.signs = [rademacher(dim, seed + shift) for shift in (1, 3)]
        self.rows = randperm(dim, seed + 4)[:num_rows]

    def forward(self, X: Tensor) -> Tensor:
        """Apply it along the last dimension of ``[B, D]``."""
        for order, signs in zip(self.orders, self.signs, strict=True):
            X = self._transform(scipy.fft.dct, X[:, order].mul_(signs))
        return X[:, self.rows]

    def adjoint(self, Y: Tensor) -> Tensor:
        """Apply the transposed operator along the last dimension of ``[B, k]``."""
        X = Y.new_zeros(len(Y), len(self.signs[0]))
        X[:, self.rows] = Y
        for inverse, signs in zip(self.inverses[::-1], self.signs[::-1], strict=True):
            X = self._transform(scipy.fft.idct, X).mul_(signs)[:, inverse]
        return X

    def _transform(self, dct: Callable[..., np.ndarray], X: Tensor) -> Tensor:
        values = dct(X.numpy(), norm="ortho", workers=self.workers, overwrite_x=True)
        return torch.from_numpy(values)


@case(
    "dct",
    "SSRFTs by our DCT and by scipy.fft.dct, at the sizes of the problems",
    full={"dims": [7030, 895210, 1387108, 3274634, 11689512], "rows": 1000, "repeats": 3,
          "vectors": BATCH_VECTORS, "threads": 2},
    tiny={"dims": [7030], "rows": 10, "repeats": 1, "vectors": 2},
)  # fmt: skip
def transforms(
    dims: list[int], rows: int, repeats: int, vectors: int, threads: int
) -> dict[str, Any]:
    """Time both directions in turns, float32; random numbers are drawn before."""
    torch.set_num_threads(threads)
    found = {}
    for dim in dims:
        ours, theirs = SSRFT((rows, dim), 0), ScipySSRFT((rows, dim), 0, threads)
        X, Y = torch.randn(vectors, dim), torch.randn(vectors, rows)
        differences = {
            name: float((a - b).norm() / b.norm())
            for name, a, b in (
                ("forward", ours.forward(X), theirs.forward(X)),
                ("adjoint", ours.adjoint(Y), theirs.adjoint(Y)),
            )
        }
        times: dict[str, list[float]] = {}
        for _ in range(repeats):
            for direction, values in (("forward", X), ("adjoint", Y)):
                for name, operator in (("ours", ours), ("scipy", theirs)):
                    took = seconds(partial(getattr(operator, direction), values))
                    times.setdefault(f"{direction}_{name}", []).append(took / vectors)
        found[str(dim)] = {
            "differences": differences,
            "seconds_per_vector": {name: summary(values) for name, values in times.items()},
            "scipy_by_ours": {
                direction: statistics.median(times[f"{direction}_scipy"])
                / statistics.median(times[f"{direction}_ours"])
                for direction in ("forward", "adjoint")
            },
        }
    return {"dims": found}
