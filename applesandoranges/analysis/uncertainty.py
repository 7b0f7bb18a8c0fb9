"""How far a recovered overlap can be from the exact one: two ends for each ``k``.

A recovered subspace is not only random, it is biased: part of each vector lies outside of the exact
ones, where a mask that fits them has less. So there is no symmetric band; what tells the direction
is the recovery itself:

* of block Krylov, the curve from a basis with about ``n / 2`` columns less (:attr:`~skerch.results.
  Eigh.coarser`), for no product: what the last columns changed, the next ones would hardly exceed;
* of others, a step of subspace iteration, for some products: ``H V_g w`` with random combinations
  ``w`` of the vectors of a few groups ``g`` moves each group towards the exact one, and shows what
  that does to its share in the mask (:func:`stepped_curve`).

Between eigenvalues that nearly agree, either order of the vectors, and any rotation, is as good
(:func:`rotation_range`). How the ends are made of these was chosen on synthetic operators and on
exact Hessians of mnist_mini, and is measured by ``python -m benchmarks overlap_coverage``.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from skerch.budget import rows_within
from skerch.results import Eigh
from skerch.utils import gaussian_noise

from .overlap import mask_curve

#: Groups of vectors that are stepped; of equal size on a logarithmic scale of ``k``.
GROUPS = 10
#: Beyond so many pairs, ranges of rotations are interpolated.
GRID = 500


@dataclass(frozen=True)
class Rule:
    """How two ends follow from a change that was seen.

    Attributes:
        window: The change at ``k`` is the largest, or the mean, of ``k (1 - window)`` to
            ``k (1 + window)``.
        towards: Share of the change by which the end in its direction lies beyond.
        against: The same of the other end.
        at_the_end: ``towards`` grows by this share up to ``k = n``, where the vectors are worst.
        noise: Share of the spread of the change within the window that is added to both ends.
        least: Relative distance of both ends at least.
        near: Relative distance of eigenvalues that may as well be exchanged.
    """

    window: float
    towards: float
    against: float
    at_the_end: float
    noise: float
    least: float
    near: float


#: Of the last columns of a Krylov basis; its largest change within the window counts.
KRYLOV = Rule(
    window=0.125, towards=1.0, against=0.5, at_the_end=0.6, noise=0.0, least=2e-4, near=0.01
)
#: Of a step of subspace iteration; the mean change within the window counts, and its spread.
STEPPED = Rule(
    window=0.2, towards=1.4, against=0.4, at_the_end=0.4, noise=0.8, least=0.03, near=0.08
)
#: The same of a subspace that was made by such a step: one more changes less of what is left.
STEPPED_AGAIN = replace(STEPPED, towards=2.4, against=0.9)
#: The same of a damped Nystrom approximation: between both.
STEPPED_ONCE = replace(STEPPED, towards=1.9, against=0.6, noise=1.0, least=0.035)
#: By how much larger errors of eigenvalues may be than the estimate by products, and at least.
EIGENVALUE_FACTOR, EIGENVALUE_LEAST = 3.0, 0.02


@dataclass(frozen=True)
class OverlapBand:
    """Both ends between which the exact overlap lies, as ``k * overlap(k)``, ``[n]`` each.

    Attributes:
        curve: The recovered one, between both ends.
        lowest: The lower end.
        highest: The upper end.
        method: How it was found.
        num_products: Products that this took.
        eigenvalue_errors: Estimated relative error of each eigenvalue, ``[n]``.
    """

    curve: Tensor
    lowest: Tensor
    highest: Tensor
    method: str
    num_products: int
    eigenvalue_errors: Tensor

    @property
    def errors(self) -> Tensor:
        """Relative distance of the farther end, ``[n]``."""
        distance = torch.maximum(self.highest - self.curve, self.curve - self.lowest)
        return torch.where(distance > 0, distance / self.curve, torch.zeros_like(distance))


def overlap_band(
    eigh: Eigh, mask: Tensor, rows: Tensor, operator: Any, *, num: int, seed: int, vectors: int
) -> OverlapBand | None:
    """Return between which ends the exact overlap with nested masks lies.

    Cost: ``num`` products with the operator, unless a coarser recovery says it for none.

    Args:
        eigh: The recovered eigenpairs.
        mask: Indices of the ``n`` largest parameters in their order.
        rows: Rows ``mask`` of the eigenvectors, ``[n, n]``.
        operator: ``[D, D]``.
        num: Products to spend; none, and no coarser recovery, give no band.
        seed: Of random combinations.
        vectors: Vectors per product.
    """
    curve = mask_curve(rows).cpu().numpy()
    near = KRYLOV.near if eigh.coarser is not None else STEPPED.near
    below, above = rotation_range(rows.cpu(), eigh.S.cpu(), near)
    if eigh.coarser is not None:
        coarser = mask_curve(eigh.coarser.vector_rows(mask[: len(eigh.coarser.S)])).cpu().numpy()
        down, up = ends_of_coarser(curve, coarser)
        method, spent, errors = "fewer columns", 0, _errors_of_coarser(eigh.S, eigh.coarser.S)
    elif num > 0:
        steps = _step(eigh, mask, operator, num, seed, vectors)
        stepped = stepped_curve(rows.cpu(), steps).numpy()
        down, up = _ends_of_step(curve, stepped, _rule_of_step(eigh))
        method, spent = "subspace iteration", num
        errors = errors_by_step(steps)
    else:
        return None
    bound = angle_bound(eigh)
    down, up = (np.minimum(np.hypot(end * curve, turned), bound)
                for end, turned in ((down, below), (up, above)))  # fmt: skip
    lowest = np.maximum(curve - down, 0)
    highest = np.minimum(curve + up, np.arange(1, len(curve) + 1))
    return OverlapBand(
        curve=torch.from_numpy(curve),
        lowest=torch.from_numpy(lowest),
        highest=torch.from_numpy(highest),
        method=method,
        num_products=spent,
        eigenvalue_errors=errors,
    )


# ------------------------------------------------------------------------------ from two curves


def _windowed(values: np.ndarray, window: float, take: Callable[[np.ndarray], Any]) -> np.ndarray:
    """Return ``take`` of the values around each ``k``, ``window * k`` to both sides, 2 at least."""
    halves = [max(2, int(window * k)) for k in range(1, len(values) + 1)]
    return np.array([take(values[max(0, i - h) : i + h + 1]) for i, h in enumerate(halves)])


def _relative_change(curve: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Return ``other / curve - 1``; 0 where the curve is 0, of which nothing can be said so."""
    return np.divide(other, curve, out=np.ones_like(curve), where=curve > 0) - 1


def _towards_the_end(rule: Rule, n: int) -> np.ndarray:
    return rule.at_the_end * (np.arange(1, n + 1) / n) ** 4


def ends_of_coarser(curve: np.ndarray, coarser: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the relative distance of both ends, from the curve of a coarser recovery."""
    rule, n = KRYLOV, len(curve)
    change = -_relative_change(curve[: len(coarser)], coarser)
    change = np.concatenate([change, np.full(n - len(change), change[-1])])
    size = _windowed(np.abs(change), rule.window, np.max) * (1 + _towards_the_end(rule, n))
    rising = _windowed(change, rule.window, np.mean) >= 0
    up = np.where(rising, rule.towards, rule.against) * size + rule.least
    down = np.where(rising, rule.against, rule.towards) * size + rule.least
    return down, up


def _rule_of_step(eigh: Eigh) -> Rule:
    """Return the rule: the closer vectors are to the exact ones, the less a step tells of them."""
    if eigh.residual_norms is not None:
        return STEPPED_AGAIN
    return STEPPED_ONCE if "held_out_error" in eigh.diagnostics else STEPPED


def _ends_of_step(
    curve: np.ndarray, stepped: np.ndarray, rule: Rule
) -> tuple[np.ndarray, np.ndarray]:
    """Return the relative distance of both ends, from the curve after a step."""
    n = len(curve)
    change = _relative_change(curve, stepped)
    mean = _windowed(change, rule.window, np.mean)
    noise = rule.noise * _windowed(np.abs(change - mean), rule.window, np.max) + rule.least
    rise, fall = np.maximum(mean, 0), np.maximum(-mean, 0)
    towards = rule.towards + _towards_the_end(rule, n)
    return fall * towards + rise * rule.against + noise, (
        rise * towards + fall * rule.against + noise
    )


def angle_bound(eigh: Eigh) -> np.ndarray:
    """Bound by how much ``k * overlap(k)`` can be off, from residuals and gaps, ``[n]``.

    With the residuals ``R`` of the first ``k`` pairs, and ``delta`` from ``|s_k|`` down to the next
    eigenvalue, ``||sin(angles)||_F <= ||R||_F / delta`` [Davis and Kahan 1970, sin theta theorem],
    and the traces of two projectors in a mask differ by at most ``sqrt(k) ||sin(angles)||_F``. Of
    use where residuals are far smaller than gaps, as in an invariant basis; infinite where the
    recovery has no residuals.
    """
    n, S = len(eigh.S), eigh.S.abs().cpu().numpy()
    if eigh.residual_norms is None:
        return np.full(n, np.inf)
    residuals = eigh.residual_norms.cpu().numpy()
    beyond = np.append(S[1:] + residuals[1:], S[-1])
    if _has_all_pairs(eigh):
        beyond[-1] = 0.0
    gaps = np.maximum(S - beyond, 0)
    norms = np.sqrt(np.cumsum(residuals**2) * np.arange(1, n + 1))
    return np.divide(norms, gaps, out=np.full(n, np.inf), where=gaps > 0)


def _has_all_pairs(eigh: Eigh) -> bool:
    """Say whether the operator has no more eigenvalues than these: the basis had room for more."""
    found, n = eigh.diagnostics, len(eigh.S)
    invariant = str(found.get("early_stop", "no")).startswith("invariant")
    had_room = found.get("basis_columns", 0) != n or invariant
    return found.get("numerical_rank") == n and had_room


def rotation_range(rows: Tensor, S: Tensor, near: float) -> tuple[np.ndarray, np.ndarray]:
    """Return how far the curve can fall and rise if eigenvectors of near eigenvalues are rotated.

    Of a cluster of equal eigenvalues any orthonormal basis is as good as another. Where ``k`` cuts
    through one, its first vectors may have from the sum of the smallest to that of the largest
    eigenvalues of ``C^T C``, with the rows ``C`` of the whole cluster in the mask.

    Args:
        rows: Rows of the eigenvectors in the order in which the masks grow, ``[n, n]``.
        S: Eigenvalues by descending magnitude, ``[n]``.
        near: Relative distance up to which two of them count as equal.

    Cost: an eigendecomposition for each of at most ``2 * GRID`` values of ``k``.

    Returns:
        Both ``[n]`` and not negative, in units of ``k * overlap(k)``.
    """
    n, magnitudes = len(S), S.abs()
    begins = torch.searchsorted(-magnitudes, -magnitudes * (1 + near)).tolist()
    ends = torch.searchsorted(-magnitudes, -magnitudes * (1 - near), right=True).tolist()
    masses = rows.square().cumsum(0).cumsum(1)
    below, above = np.zeros(n), np.zeros(n)
    ks = np.unique(np.append(np.arange(1, n + 1, max(1, n // GRID)), n))
    for k in ks.tolist():
        begin, end = begins[k - 1], ends[k - 1]
        if end <= k:
            continue
        C = rows[:k, begin:end]
        shares = torch.linalg.eigvalsh(C.T @ C).clamp_min(0)  # ascending
        own = masses[k - 1, k - 1] - (masses[k - 1, begin - 1] if begin else 0)
        below[k - 1] = max(0.0, float(own - shares[: k - begin].sum()))
        above[k - 1] = max(0.0, float(shares[begin - k :].sum() - own))
    every = np.arange(1, n + 1)
    return np.interp(every, ks, below[ks - 1]), np.interp(every, ks, above[ks - 1])


# ------------------------------------------------------------------------------ from products


@dataclass(frozen=True)
class Steps:
    """Random combinations ``x = V_g S w`` of the vectors of each group, and ``y = H V_g w``.

    Attributes:
        groups: Range of vectors of each group.
        group: Group of each combination, ``[num]``.
        before: Rows of ``x`` in the mask, ``[n, num]``.
        after: Rows of ``y`` in the mask, ``[n, num]``.
        norms_before: ``||x||^2``, ``[num]``.
        norms_after: ``||y||^2``, ``[num]``.
        products: ``x^T y``, ``[num]``.
    """

    groups: list[range]
    group: Tensor
    before: Tensor
    after: Tensor
    norms_before: Tensor
    norms_after: Tensor
    products: Tensor

    def sum_by_group(self, values: Tensor) -> Tensor:
        """Sum the last dimension of ``[..., num]`` over the combinations of each group."""
        result = values.new_zeros(*values.shape[:-1], len(self.groups))
        return result.index_add_(-1, self.group, values)


def groups_of(n: int, num: int) -> list[range]:
    """Return at most ``min(GROUPS, num)`` consecutive ranges of ``n`` vectors."""
    ends = np.geomspace(min(n, max(2, n // 40)), n, min(GROUPS, num)).astype(int)
    bounds = np.unique(np.concatenate([[0], ends[:-1], [n]]))
    return [range(a, b) for a, b in itertools.pairwise(bounds)]


def _step(eigh: Eigh, mask: Tensor, operator: Any, num: int, seed: int, vectors: int) -> Steps:
    """Multiply ``num`` random combinations of the eigenvectors, as many at once as fit."""
    n, device = len(eigh.S), eigh.Y.device
    groups = groups_of(n, num)
    group = torch.arange(num, device=device) % len(groups)
    W = gaussian_noise((n, num), seed, device=device)
    index = torch.arange(n, device=device)[:, None]
    begins, ends = (
        torch.tensor([end(g) for g in groups], device=device)[group]
        for end in (lambda g: g.start, lambda g: g.stop)
    )
    W = W * ((begins <= index) & (index < ends))
    per_vector = 4 * W.itemsize * eigh.shape[0]
    fitting = rows_within(eigh.Y.budget / 2, per_vector, "the uncertainty with one vector")
    parts: list[tuple[Tensor, ...]] = []
    for some in W.split(min(vectors, fitting), dim=1):
        X = eigh.Y.matmul(eigh.basis @ (eigh.S[:, None] * some))
        Y = (operator @ eigh.Y.matmul(eigh.basis @ some).float()).double()
        at = mask.to(X.device)
        parts.append((X[at], Y[at], X.square().sum(0), Y.square().sum(0), (X * Y).sum(0)))
    joined = [torch.cat(part, dim=-1).cpu() for part in zip(*parts, strict=True)]
    return Steps(groups, group.cpu(), *joined)


def stepped_curve(rows: Tensor, steps: Steps) -> Tensor:
    """Return the curve after a step of subspace iteration, ``[n]``.

    The share of each group in the mask is scaled by what the step did to that of its combinations.

    Args:
        rows: Rows of the eigenvectors in the order in which the masks grow, ``[n, n]``.
        steps: Combinations before and after.
    """
    n = len(rows)
    shares = [
        steps.sum_by_group(part.square().cumsum(0)) / steps.sum_by_group(norms)
        for part, norms in (
            (steps.before, steps.norms_before),
            (steps.after, steps.norms_after),
        )
    ]
    gain = shares[1] / shares[0].clamp_min(1e-300)  # [n, groups]
    masses, k = rows.square().cumsum(0), torch.arange(n)
    result = torch.zeros(n, dtype=rows.dtype)
    for number, group in enumerate(steps.groups):
        own = masses[:, group.start : group.stop].cumsum(1)
        reached = k[group.start :]
        last = (reached - group.start).clamp_max(len(group) - 1)
        result[group.start :] += gain[reached, number] * own[reached, last]
    return result


# ------------------------------------------------------------------------------ eigenvalues


def _errors_of_coarser(S: Tensor, coarser: Tensor) -> Tensor:
    """Estimate relative errors of eigenvalues by what the last columns of the basis changed."""
    rule = KRYLOV
    change = (1 - coarser.abs() / S[: len(coarser)].abs()).abs().cpu().numpy()
    change = np.concatenate([change, np.full(len(S) - len(change), change[-1])])
    size = _windowed(change, rule.window, np.max) * (1 + _towards_the_end(rule, len(S)))
    return torch.from_numpy(size)


def errors_by_step(steps: Steps) -> Tensor:
    """Estimate relative errors of eigenvalues by group, from ``H V_g w`` beside ``V_g S w``.

    Returns:
        One for each vector of the groups, ``[n]``.
    """
    norms = steps.sum_by_group(steps.norms_before)
    by_product = 1 - steps.sum_by_group(steps.products) / norms
    by_norm = 1 - (steps.sum_by_group(steps.norms_after) / norms).sqrt()
    errors = EIGENVALUE_FACTOR * torch.maximum(by_product.abs(), by_norm.abs()) + EIGENVALUE_LEAST
    # The last ones of a group weigh little in it; they are as good as the next group at least.
    following = torch.maximum(errors, torch.cat([errors[1:], 2 * errors[-1:]]))
    halves = [(len(group) + 1) // 2 for group in steps.groups]
    parts = [
        torch.cat([errors[g].expand(half), following[g].expand(len(steps.groups[g]) - half)])
        for g, half in enumerate(halves)
    ]
    return torch.cat(parts)
