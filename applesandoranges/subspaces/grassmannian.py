"""Metrics between subspaces, and what they say about random ones.

Notation: ``A``, ``B`` are orthonormal bases ``[D, k]`` of two ``k``-dimensional subspaces, ``t``
their principal angles, ``[k]`` in ``[0, pi/2]``. Every metric is a function of ``t`` (Edelman,
Arias and Smith 1998, "The geometry of algorithms with orthogonality constraints", section 4.3).
To compare them, distances are divided by the largest value that they can take and flipped, so that
1 means equal subspaces and 0 means as far apart as can be (arXiv 2504.14701).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
import pandas as pd
from tqdm import tqdm

from skerch.errors import InputError

from .angles import mask_angles, masks_angles, principal_angles
from .chance import chance_level, chance_variance

#: Kinds of random pairs: a Haar-distributed subspace (O) or a random mask of coordinates (B).
CASES = {"OO": "two random subspaces", "OB": "random subspace and mask", "BB": "two random masks"}


def haar_basis(dim: int, k: int, rng: np.random.Generator) -> np.ndarray:
    """Return a Haar-distributed orthonormal basis, ``[dim, k]``.

    The QR decomposition of a Gaussian matrix, with the signs fixed: LAPACK alone prefers some
    signs (Mezzadri 2007, "How to generate random matrices from the classical compact groups").
    """
    Q, R = np.linalg.qr(rng.standard_normal((dim, k)))
    return Q * np.where(np.diagonal(R) < 0, -1.0, 1.0)


def random_mask(dim: int, k: int, rng: np.random.Generator) -> np.ndarray:
    """Return a mask ``[dim]`` (``bool``) of ``k`` coordinates, each choice equally likely."""
    mask = np.zeros(dim, dtype=bool)
    mask[rng.choice(dim, k, replace=False)] = True
    return mask


def mask_basis(mask: np.ndarray) -> np.ndarray:
    """Return the basis of a mask: the columns of the identity that it chooses, ``[D, k]``."""
    return np.eye(len(mask))[:, mask]


def random_angles(case: str, dim: int, k: int, rng: np.random.Generator) -> np.ndarray:
    """Return the principal angles of a random pair of ``k``-dimensional subspaces, ``[k]``.

    Beyond ``k = D/2``, the complements are drawn: they are random in the same way, are smaller, and
    have the same angles, apart from the ``2k - D`` dimensions that the subspaces must share.
    """
    if 2 * k > dim:
        shared = np.zeros(2 * k - dim)
        return np.append(shared, random_angles(case, dim, dim - k, rng)) if k < dim else shared
    if case == "OO":
        return principal_angles(haar_basis(dim, k, rng), haar_basis(dim, k, rng))
    if case == "OB":
        return mask_angles(haar_basis(dim, k, rng), random_mask(dim, k, rng))
    if case == "BB":
        return masks_angles(random_mask(dim, k, rng), random_mask(dim, k, rng))
    raise InputError(f"expected a case of {', '.join(CASES)}, got {case!r}")


def expected_overlap(dim: int, k: int) -> float:
    """Return the mean overlap of a random pair, ``k/D`` in every case."""
    return float(chance_level(k, dim))


def overlap_variance(case: str, dim: int, k: int) -> float:
    """Return the variance of the overlap of a random pair.

    ``2 (D-k)^2 / (D^2 (D-1) (D+2))`` if a subspace is Haar-distributed; for two masks, whose common
    coordinates are hypergeometric, ``(D-k)^2 / (D^2 (D-1))``.
    """
    if case == "BB":
        return (dim - k) ** 2 / (dim**2 * (dim - 1))
    return float(chance_variance(k, dim))


@dataclass(frozen=True)
class Metric:
    """One way to compare subspaces.

    Attributes:
        name: As in tables.
        label: As in figures.
        of_angles: The metric from principal angles.
        of_bases: The same from two bases, by a formula that knows no angles; ``None`` where there
            is no such formula.
        largest: Largest value for ``k``-dimensional subspaces (orthogonal ones, for distances).
        is_distance: Whether 0 means equal.
    """

    name: str
    label: str
    of_angles: Callable[[np.ndarray], float]
    of_bases: Callable[[np.ndarray, np.ndarray], float] | None
    largest: Callable[[int], float]
    is_distance: bool = True

    def similarity(self, value: float, k: int) -> float:
        """Return a value as a similarity in ``[0, 1]``: 1 for equal subspaces."""
        return 1 - value / self.largest(k) if self.is_distance else value


def _fubini_study(t: np.ndarray) -> float:
    # The product of many cosines underflows, so take logarithms; of a product close to 1, the
    # arccos would lose half the digits, and 1 - product^2 is had without cancellation.
    sin_sq = np.sin(t) ** 2
    log_cos = np.where(
        sin_sq < 0.5, 0.5 * np.log1p(-np.minimum(sin_sq, 0.5)), np.log(np.abs(np.cos(t)))
    )
    total = float(log_cos.sum())
    return float(np.arctan2(np.sqrt(-np.expm1(2 * total)), np.exp(total)))


def _fubini_study_of_bases(A: np.ndarray, B: np.ndarray) -> float:
    return float(np.arccos(min(1.0, np.exp(np.linalg.slogdet(A.T @ B).logabsdet))))


def _procrustes_difference(A: np.ndarray, B: np.ndarray) -> np.ndarray:
    """Return ``A U - B V``, the difference after the rotations that bring both bases closest."""
    U, _, Vt = np.linalg.svd(A.T @ B)
    return A @ U - B @ Vt.T


def _projector_difference(A: np.ndarray, B: np.ndarray) -> np.ndarray:
    return A @ A.T - B @ B.T


def _iou(overlap: float) -> float:
    return overlap / (2 - overlap)


def _iou_of_bases(A: np.ndarray, B: np.ndarray) -> float:
    """Return intersection over union of the coordinates that two mask bases touch."""
    mask, other = A.any(axis=1), B.any(axis=1)
    return float((mask & other).sum() / (mask | other).sum())


def _overlap(t: np.ndarray) -> float:
    return float(np.mean(np.cos(t) ** 2))


METRICS = {
    metric.name: metric
    for metric in (
        Metric(
            "geodesic",
            "geodesic",
            lambda t: float(np.linalg.norm(t)),
            None,
            lambda k: float(np.pi / 2 * np.sqrt(k)),
        ),
        Metric(
            "chordal_2",
            "chordal, 2-norm",
            lambda t: float(np.max(2 * np.sin(t / 2))),
            lambda A, B: float(np.linalg.norm(_procrustes_difference(A, B), 2)),
            lambda k: float(np.sqrt(2)),
        ),
        Metric(
            "chordal_F",
            "chordal, Frobenius",
            lambda t: float(np.linalg.norm(2 * np.sin(t / 2))),
            lambda A, B: float(np.linalg.norm(_procrustes_difference(A, B))),
            lambda k: float(np.sqrt(2 * k)),
        ),
        Metric(
            "projection_2",
            "projection, 2-norm",
            lambda t: float(np.max(np.sin(t))),
            lambda A, B: float(np.linalg.norm(_projector_difference(A, B), 2)),
            lambda k: 1.0,
        ),
        Metric(
            "projection_F",
            "projection, Frobenius",
            lambda t: float(np.linalg.norm(np.sin(t))),
            lambda A, B: float(np.linalg.norm(_projector_difference(A, B)) / np.sqrt(2)),
            lambda k: float(np.sqrt(k)),
        ),
        Metric(
            "fubini_study",
            "Fubini-Study",
            _fubini_study,
            _fubini_study_of_bases,
            lambda k: float(np.pi / 2),
        ),
        Metric(
            "overlap",
            "overlap",
            _overlap,
            lambda A, B: float(np.linalg.norm(A.T @ B) ** 2 / A.shape[1]),
            lambda k: 1.0,
            is_distance=False,
        ),
        Metric(
            "iou",
            "IoU",
            lambda t: _iou(_overlap(t)),
            _iou_of_bases,
            lambda k: 1.0,
            is_distance=False,
        ),
    )
}
#: Metrics that are defined for masks only.
MASK_METRICS = ("iou",)


def metrics_of(case: str) -> list[Metric]:
    """Return the metrics that a kind of pairs has."""
    return [m for m in METRICS.values() if case == "BB" or m.name not in MASK_METRICS]


@dataclass(frozen=True)
class Grid:
    """The cells of a study: dimensions and ratios ``k/D``, all combinations.

    Attributes:
        against: ``"dim"`` or ``"ratio"``, the one that figures have on their horizontal axis.
        dims: Values of ``D``.
        ratios: Values of ``r``; ``k = max(round(r D), 1)``.
    """

    against: str
    dims: tuple[int, ...]
    ratios: tuple[float, ...]

    def cells(self) -> list[tuple[int, float, int]]:
        """Return ``(D, r, k)`` of each cell."""
        return [(D, r, max(round(r * D), 1)) for D in self.dims for r in self.ratios]


AGAINST_DIM = Grid("dim", tuple(2**i for i in range(4, 12)), (0.4, 0.2, 0.05, 0.01))
AGAINST_RATIO = Grid(
    "ratio", (128, 256, 512, 1024), (1, 0.99, 0.95, 0.9, 0.6, 0.3, 0.1, 0.05, 0.01, 0.005)
)


def every_pair(case: str, dim: int, k: int) -> int:
    """Return 50, the number of pairs in each cell of the full study; minutes on two cores."""
    return 50


def fewer_large_pairs(case: str, dim: int, k: int) -> int:
    """Return 50 pairs where they are cheap, down to 5 where they are not.

    What is expensive is large, and what is large varies little from pair to pair.
    """
    smaller = min(k, dim - k)
    return 50 if case == "BB" or smaller == 0 else int(np.clip(1e8 // (dim * smaller**2), 5, 50))


def study(
    grid: Grid,
    case: str,
    num_pairs: Callable[[str, int, int], int] = every_pair,
    seed: int = 12345,
) -> pd.DataFrame:
    """Sample random pairs and measure them with every metric.

    A cell draws from a generator of its own, seeded by ``(seed, case, D, k)``: its numbers are the
    same in any grid.

    Args:
        grid: The cells.
        case: One of :data:`CASES`.
        num_pairs: Number of pairs from case, ``D`` and ``k``.
        seed: Of the whole study.

    Returns:
        A row for each cell, pair and metric: ``case, dim, ratio, k, pair, metric, value,
        similarity``; the similarity is normalised, and 1 for equal subspaces.
    """
    rows = []
    for dim, ratio, k in tqdm(grid.cells(), desc=case, unit="cell", disable=None):
        rng = np.random.default_rng([seed, list(CASES).index(case), dim, k])
        for pair in range(num_pairs(case, dim, k)):
            t = random_angles(case, dim, k, rng)
            for metric in metrics_of(case):
                value = metric.of_angles(t)
                similarity = metric.similarity(value, k)
                rows.append((case, dim, ratio, k, pair, metric.name, value, similarity))
    columns = ["case", "dim", "ratio", "k", "pair", "metric", "value", "similarity"]
    return pd.DataFrame(rows, columns=columns)


def summarise(table: pd.DataFrame) -> pd.DataFrame:
    """Return the median and the 5 and 95 % quantiles of the similarity of each cell and metric."""
    groups = table.groupby(["case", "dim", "ratio", "k", "metric"], sort=False)["similarity"]
    quantiles = groups.quantile([0.05, 0.5, 0.95]).unstack()
    quantiles.columns = ["low", "median", "high"]
    return quantiles.reset_index()


def overlap_z_scores(table: pd.DataFrame) -> pd.DataFrame:
    """Return how many exact standard errors each cell's mean overlap is from ``k/D``.

    Cells whose overlap is certain (``k = D``) have no standard error and are left out.
    """
    overlap = table[(table["metric"] == "overlap") & (table["k"] < table["dim"])]
    cells = overlap.groupby(["case", "dim", "ratio", "k"], sort=False)["value"]
    means = cells.agg(["mean", "count"]).reset_index()
    standard_errors = [
        np.sqrt(overlap_variance(row.case, row.dim, row.k) / row.count)
        for row in means.itertuples(index=False)
    ]
    return means.assign(z=(means["mean"] - means["k"] / means["dim"]) / standard_errors)


def inconsistencies(pairs: Iterable[tuple[np.ndarray, np.ndarray]]) -> pd.DataFrame:
    """Return the largest difference between both formulas of each metric over pairs of bases.

    Metrics for masks alone are compared on pairs of mask bases alone.
    """
    rows = []
    for A, B in pairs:
        t = principal_angles(A, B)
        masks = all(np.isin(X, (0, 1)).all() for X in (A, B))
        for metric in metrics_of("BB" if masks else "OO"):
            if metric.of_bases is not None:
                rows.append((metric.label, abs(metric.of_angles(t) - metric.of_bases(A, B))))
    table = pd.DataFrame(rows, columns=["metric", "difference"])
    return table.groupby("metric", sort=False)["difference"].max().reset_index()
