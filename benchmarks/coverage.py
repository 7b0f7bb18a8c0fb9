"""How often the two ends of the overlap hold the exact one, and how far apart they are."""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from applesandoranges.analysis.exact import dense_matrix, exact_eigh
from applesandoranges.analysis.overlap import largest_parameters, mask_curve
from applesandoranges.analysis.uncertainty import overlap_band
from applesandoranges.analysis.verdict import verdict
from applesandoranges.measurement.recorded_hessian import (
    RecordedHessianConfig,
    load_recorded_hessian,
)
from skerch.decompositions import block_krylov, hmt, nystrom, seigh
from skerch.results import Eigh
from skerch.utils import gaussian_noise

from .harness import case, scratch
from .pipeline import train_mnist_mini
from .synthetic import SEED

F64 = torch.float64
#: Products that estimate the uncertainty where the recovery does not tell.
PRODUCTS = 30


def _random_signs(values: Tensor, seed: int) -> Tensor:
    return values * gaussian_noise((len(values),), seed).sign()


def _outliers_and_bulk(dim: int, n: int, seed: int) -> Tensor:
    bulk = (0.5 * gaussian_noise((dim,), seed)).sort(descending=True).values
    return torch.cat([torch.linspace(10, 3, n // 4, dtype=F64), bulk])[:dim]


def _clustered(dim: int, n: int, seed: int) -> Tensor:
    clusters = torch.tensor([5, 3, 2, 1.5], dtype=F64).repeat_interleave(n // 8)
    return torch.cat([clusters, torch.arange(1, dim + 1, dtype=F64) ** -0.7])[:dim]


def _equal_outliers(dim: int, n: int, seed: int) -> Tensor:
    tail = 1e-9 * torch.arange(1, dim + 1, dtype=F64) ** -0.5
    return torch.cat([torch.ones(10, dtype=F64), tail])[:dim]


Spectra = dict[str, Callable[[int, int, int], Tensor]]

#: Eigenvalues by dimension, number of pairs and seed.
SPECTRA: Spectra = {
    "exponential": lambda dim, n, seed: 10.0 ** (-torch.arange(dim, dtype=F64) / n),
    "polynomial": lambda dim, n, seed: 1 / torch.arange(1, dim + 1, dtype=F64),
    "outliers and bulk": _outliers_and_bulk,
    "clustered": _clustered,
    "indefinite": lambda dim, n, seed: _random_signs(
        torch.arange(1, dim + 1, dtype=F64) ** -0.8, seed
    ),
}


#: Those whose first pairs a sketch finds up to round-off.
EASY_SPECTRA: Spectra = {
    "low rank": lambda dim, n, seed: _random_signs(
        (torch.arange(dim) < n // 2) / torch.arange(1, dim + 1, dtype=F64), seed
    ),
    "fast decay": lambda dim, n, seed: _random_signs(
        10.0 ** (-24 * torch.arange(dim, dtype=F64) / n), seed
    ),
    "equal outliers": _equal_outliers,
}


@dataclass(frozen=True)
class Draw:
    """A symmetric matrix whose first eigenvectors are known.

    Attributes:
        H: ``[D, D]`` float64.
        S: The first eigenvalues by descending magnitude, ``[n]``.
        V: Their vectors, localised as those of networks are, ``[D, n]``.
        seed: Of masks and recoveries.
        params: What masks are made of; ``None`` makes them from the vectors.
    """

    H: Tensor
    S: Tensor
    V: Tensor
    seed: int
    params: Tensor | None = None

    @classmethod
    def make(cls, spectrum: str, dim: int, n: int, seed: int) -> Draw:
        """Draw one with a spectrum of :data:`SPECTRA`."""
        S = (SPECTRA | EASY_SPECTRA)[spectrum](dim, n, seed)
        scales = torch.exp(1.2 * gaussian_noise((dim, 1), seed + 1))
        V = torch.linalg.qr(scales * gaussian_noise((dim, dim), seed + 2)).Q
        order = S.abs().argsort(descending=True, stable=True)[:n]
        return cls((V * S) @ V.T, S[order], V[:, order], seed)


def _magnitude_like(draw: Draw) -> Tensor:
    """Return coordinates by leverage, disturbed: they fit the vectors somewhat."""
    if draw.params is not None:
        return largest_parameters(draw.params, len(draw.S))
    noise = torch.exp(gaussian_noise((len(draw.V),), draw.seed + 3))
    return largest_parameters(draw.V.square().sum(1) * noise, len(draw.S))


def _random(draw: Draw) -> Tensor:
    return gaussian_noise((len(draw.V),), draw.seed + 4).argsort()[: len(draw.S)]


def _leverage(draw: Draw) -> Tensor:
    return largest_parameters(draw.V.square().sum(1), len(draw.S))


MASKS: dict[str, Callable[[Draw], Tensor]] = {
    "magnitude-like": _magnitude_like,
    "random": _random,
    "leverage": _leverage,
}


def _sketch(draw: Draw) -> Eigh:
    n = len(draw.S)
    return seigh(draw.H, n, 2 * n, draw.seed, draw.H.dtype)


def _range_finder(draw: Draw) -> Eigh:
    return hmt(draw.H, len(draw.S), draw.seed, draw.H.dtype)


def _one_pass(draw: Draw) -> Eigh:
    n = len(draw.S)
    return nystrom(draw.H, n, draw.seed, 2 * n, draw.H.dtype)


def _krylov(rounds: int) -> Callable[[Draw], Eigh]:
    def recover(draw: Draw) -> Eigh:
        n = len(draw.S)
        return block_krylov(draw.H, n, rounds, 2 * n // rounds, draw.seed, draw.H.dtype)

    return recover


#: All with ``2 n`` products.
RECOVERIES: dict[str, Callable[[Draw], Eigh]] = {
    "SEIGH": _sketch,
    "HMT": _range_finder,
    "Nystrom": _one_pass,
    "Krylov, 4 rounds": _krylov(4),
    "Krylov, 10 rounds": _krylov(10),
}


@dataclass(frozen=True)
class Covered:
    """What became of one draw, mask and recovery; arrays are ``[n]``.

    Attributes:
        inside: Whether the exact overlap lies between the ends.
        half_width: Half of the distance of the ends, relative to the exact overlap.
        error: Relative error of the recovered overlap.
        wrong_and_readable: Whether it is off by more than a tenth at a ``k`` that the verdict calls
            readable.
        trusted: What the verdict says.
        exact: Whether the curve is off by less than a hundredth at every ``k``.
    """

    inside: np.ndarray
    half_width: np.ndarray
    error: np.ndarray
    wrong_and_readable: bool
    trusted: bool
    exact: bool


def cover(draw: Draw, mask: str, found: Eigh) -> Covered:
    """Compare the ends of the overlap of a recovery with the exact one."""
    n = len(found.S)  # fewer than there are, if the recovery says that the others are round-off
    idxs = MASKS[mask](draw)[:n]
    exact = mask_curve(draw.V[idxs, :n])
    rows = found.vector_rows(idxs)
    band = overlap_band(
        found, idxs, rows, draw.H.float(), num=PRODUCTS, seed=draw.seed + 5, vectors=PRODUCTS
    )
    assert band is not None
    inside = (band.lowest <= exact) & (exact <= band.highest)
    error = (band.curve / exact - 1).abs()
    judged = verdict(found, band)
    first, last = judged["readable_overlap"] or (1, 0)
    return Covered(
        inside=inside.numpy(),
        half_width=((band.highest - band.lowest) / 2 / exact).numpy(),
        error=error.numpy(),
        wrong_and_readable=bool((error[first - 1 : last] > 0.1).any()),
        trusted=judged["trustworthy"],
        exact=bool((error < 0.01).all()),
    )


def table(found: list[Covered]) -> dict[str, Any]:
    """Return coverage, widths and errors of many draws of about one ``n``, as JSON holds them."""
    shares = {"n/4": 0.25, "n/2": 0.5, "n": 1.0}

    def at(part: str) -> dict[str, np.ndarray]:
        values = [getattr(one, part) for one in found]
        return {
            name: np.array([v[max(0, int(share * len(v)) - 1)] for v in values])
            for name, share in shares.items()
        }

    def medians(part: str) -> dict[str, float]:
        return {name: float(np.median(values)) for name, values in at(part).items()}

    return {
        "recoveries": len(found),
        "coverage": float(np.mean([f.inside.mean() for f in found])),
        "coverage_at": {name: float(held.mean()) for name, held in at("inside").items()},
        "median_half_width_at": medians("half_width"),
        "median_error_at": medians("error"),
        "wrong_and_readable": sum(f.wrong_and_readable for f in found),
        "trusted": sum(f.trusted for f in found),
        "exact": sum(f.exact for f in found),
        "exact_but_distrusted": sum(f.exact and not f.trusted for f in found),
    }


def covered_by_recovery(draws: Iterator[tuple[str, Draw]]) -> dict[str, Any]:
    """Return a :func:`table` of each recovery, and of each kind of draw."""
    found: dict[str, dict[str, list[Covered]]] = {name: {} for name in RECOVERIES}
    for kind, draw in draws:
        for name, recover in RECOVERIES.items():
            eigh = recover(draw)
            found[name].setdefault(kind, []).extend(cover(draw, mask, eigh) for mask in MASKS)
    return {
        name: {"all": table([one for part in kinds.values() for one in part])}
        | {kind: table(part) for kind, part in kinds.items()}
        for name, kinds in found.items()
    }


#: Of mnist_mini; its Hessian, of 210 parameters, takes no time.
LAST_LAYER = "11"


@case(
    "overlap_coverage",
    "how often both ends of the overlap hold the exact one, on synthetic operators",
    full={"draws": 20, "dim": 1200, "n": 80},
    tiny={"draws": 1, "dim": 120, "n": 16},
    long=True,
)
def overlap_coverage(draws: int, dim: int, n: int) -> dict[str, Any]:
    """Draw operators of each spectrum, recover, and compare."""
    return covered_by_recovery(
        (spectrum, Draw.make(spectrum, dim, n, SEED + 100 * number))
        for spectrum in SPECTRA
        for number in range(draws)
    )


@case(
    "overlap_coverage_exact",
    "whether recoveries that are right are called so, on synthetic operators of low rank",
    full={"draws": 10, "dim": 1200, "n": 80},
    tiny={"draws": 1, "dim": 120, "n": 16},
    long=True,
)
def overlap_coverage_exact(draws: int, dim: int, n: int) -> dict[str, Any]:
    """Draw operators of each easy spectrum, recover, and compare."""
    return covered_by_recovery(
        (spectrum, Draw.make(spectrum, dim, n, SEED + 100 * number))
        for spectrum in EASY_SPECTRA
        for number in range(draws)
    )


@case(
    "overlap_coverage_mnist",
    "the same on exact Hessians of mnist_mini: embedded digits, and the full MNIST of $MNIST_ROOT",
    full={
        "embedded": [0, 100, 300],
        "whole": [0, 100, 300, 1000],
        "num_data": 500,
        "n": 355,
        "parameters": "*",
    },
    tiny={"embedded": [1], "whole": [1], "num_data": 20, "n": 8, "parameters": LAST_LAYER},
    long=True,
)
def overlap_coverage_mnist(
    embedded: list[int], whole: list[int], num_data: int, n: int, parameters: str
) -> dict[str, Any]:
    """Train, decompose exactly, recover, and compare; the embedded digits make 300 updates."""
    sources: dict[str, tuple[str | None, list[int]]] = {"embedded digits": (None, embedded)}
    if os.environ.get("MNIST_ROOT"):
        sources["full MNIST"] = os.environ["MNIST_ROOT"], whole
    with scratch() as temporary, contextlib.redirect_stdout(io.StringIO()):
        return covered_by_recovery(
            (kind, draw)
            for kind, (root, steps) in sources.items()
            for draw in exact_draws(Path(temporary) / kind, root, steps, num_data, n, parameters)
        )


def exact_draws(
    directory: Path,
    root: str | None,
    steps: list[int],
    num_data: int,
    n: int,
    parameters: str,
    splits: Sequence[bool] = (False, True),
) -> Iterator[Draw]:
    """Train mnist_mini, and yield its Hessians with their exact first pairs.

    Args:
        directory: Where to train.
        root: Data sets; ``None`` takes the embedded digits.
        steps: Recorded steps.
        num_data: Images of each Hessian.
        n: Pairs.
        parameters: Which of the network's span the Hessians.
        splits: Whether the Hessian is of test data, for each Hessian of a step.
    """
    words = train_mnist_mini(directory, steps, num_data, root)
    for step in steps:
        for test in splits:
            config = RecordedHessianConfig(
                OBS_DATASETS=words["OBS_DATASETS"],
                PARAMS_PATH=words["PARAMS_PATH"],
                TRAINING_LOGPATH=words["TRAINING_LOGPATH"],
                STEP=step,
                TEST_HESSIAN=test,
                DEVICE="cpu",
                PARAMETERS=parameters,
            )
            recorded = load_recorded_hessian(config)
            operator = recorded.operator
            exact = exact_eigh(dense_matrix(operator, operator.plan.vectors), n)
            yield Draw(exact.H.float(), exact.S[:n], exact.V, recorded.seed, recorded.params)
