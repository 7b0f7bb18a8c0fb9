"""Hessians along a training, each recovered from the one before, beside recoveries from scratch."""

from __future__ import annotations

import contextlib
import io
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from applesandoranges.analysis.overlap import largest_parameters, mask_curve
from skerch.decompositions import block_krylov, seigh
from skerch.results import Eigh

from .coverage import LAST_LAYER, Draw, exact_draws
from .harness import case, scratch

#: The overlap is compared from here on: of fewer pairs it is of few parameters.
LEAST_K = 10


def judge(found: Eigh, draw: Draw) -> dict[str, float]:
    """Return how far the overlap is off at some ``k``, and how far at most from LEAST_K on."""
    n = len(draw.S)
    assert draw.params is not None
    mask = largest_parameters(draw.params, n)
    exact, curve = mask_curve(draw.V[mask]), mask_curve(found.vector_rows(mask))
    errors = (curve / exact - 1).abs()
    ks = sorted({max(1, n // 10), n // 2, n})
    half = found.vectors(n // 2).double()
    return {
        "largest_error": float(errors[min(LEAST_K, n) - 1 :].max()),
        **{f"error_at_{k}": float(errors[k - 1]) for k in ks},
        "alignment": float((draw.V[:, : n // 2].T @ half).square().sum() / (n // 2)),
    }


@dataclass(frozen=True)
class Way:
    """How the Hessians of a training are recovered.

    Attributes:
        rounds: Rounds of block Krylov; 0 for SEIGH.
        block: Products of each round; all of SEIGH.
        track: Whether each but the first starts from the eigenvectors of the one before.
    """

    rounds: int
    block: int
    track: bool = False

    def recover(self, draw: Draw, before: Eigh | None) -> Eigh:
        """Recover the pairs of a Hessian."""
        n, seed, dtype = len(draw.S), draw.seed + 1, torch.float32
        if not self.rounds:
            return seigh(draw.H, n, self.block, seed, dtype)
        start = before.vectors(self.block).float() if before and self.track else None
        return block_krylov(draw.H, n, self.rounds, self.block, seed, dtype, start=start)


def along(draws: list[Draw], way: Way) -> dict[str, Any]:
    """Recover one Hessian after the other, in the order of the training."""
    rows: list[dict[str, float]] = []
    found: Eigh | None = None
    for draw in draws:
        found = way.recover(draw, found)
        assert found.num_products is not None
        rows.append({"products": found.num_products, **judge(found, draw)})
    return {
        "products": sum(row["products"] for row in rows),
        "largest_error": max(row["largest_error"] for row in rows),
        "steps": rows,
    }


@case(
    "tracking",
    "Hessians of five steps of mnist_mini ($MNIST_ROOT), from scratch and from the one before",
    full={
        "steps": [0, 100, 200, 300, 400], "num_data": 500, "n": 355, "parameters": "*",
        "ways": {
            "SEIGH": [0, 710], "Krylov, 4 rounds of 178": [4, 178],
            "Krylov, 2 rounds of 214": [2, 214], "the same, tracked": [2, 214, True],
            "Krylov, 4 rounds of 107": [4, 107], "the same 4, tracked": [4, 107, True],
            "Krylov, 6 rounds of 71": [6, 71], "the same 6, tracked": [6, 71, True],
        },
    },
    tiny={"steps": [0, 1], "num_data": 20, "n": 8, "parameters": LAST_LAYER,
          "ways": {"SEIGH": [0, 16], "Krylov": [4, 4], "tracked": [2, 4, True]}},
    long=True,
)  # fmt: skip
def tracking(
    steps: list[int], num_data: int, n: int, parameters: str, ways: dict[str, Any]
) -> dict[str, Any]:
    """Compare products and largest errors of the overlap, of training Hessians.

    Args:
        steps: Recorded steps.
        num_data: Images of each Hessian.
        n: Pairs.
        parameters: Which of the network's span the Hessians.
        ways: By name, the attributes of a :class:`Way`.
    """
    root = os.environ.get("MNIST_ROOT")
    with scratch() as temporary, contextlib.redirect_stdout(io.StringIO()):
        draws = list(exact_draws(Path(temporary), root, steps, num_data, n, parameters, (False,)))
    return {name: along(draws, Way(*way)) for name, way in ways.items()}
