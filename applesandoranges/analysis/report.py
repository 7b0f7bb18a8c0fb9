"""Numbers that 10d and 12a log for an eigendecomposition: errors, scree bounds, overlap."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from skerch import heartbeat
from skerch.a_posteriori import (
    APosterioriError,
    a_posteriori_error_bounds,
    gaussian_test_vectors,
    scree_bounds,
    truncation_errors,
)
from skerch.budget import rows_within
from skerch.results import Eigh

from ..app import events
from ..app.log import JsonLog
from ..app.screen import Bar
from ..subspaces.angles import principal_angles_of_ranks
from .keys import AnalysisConfig
from .layers import Shapes, layer_results
from .overlap import (
    all_masks,
    largest_parameters,
    mask_curve,
    mask_rows,
    random_masks,
    truncation_ranks,
)
from .ties import find_ties, tied_curves
from .uncertainty import OverlapBand, overlap_band
from .verdict import verdict

#: Relative errors of the a-posteriori estimate whose probabilities are logged.
BOUND_ERRORS = (0.25, 0.5, 0.75, 1.0)
#: How often scree bounds hold at least, for all ranks together; and the level of the intervals of
#: squared norms that it takes, as these are of few and skewed estimates.
SCREE_LEVEL, SCREE_INTERVALS = 0.95, 0.975
#: What published logs say of a line, word by word.
INFO = {
    "errors": "Frob^2 of Hessian, corresponding k-rank reconstruction H_k and residual (H - H_k)",
    "scree": "Scree lower and upper bounds by increasing k",
    "frob_Qtop^2": "Frob(Q[largest_absparams,:k])^2 ordered by increasing k",
    "frob_Qchance^2": "Mean and standard deviation of random masks, by increasing k",
    "frob_Qtop^2_lowest": "Estimated ends between which the exact overlap lies, by increasing k",
    "num_tied": "Parameters as large as the k-th, and the overlap over their orders",
    "largest_absparams": "Indices of k largest parameters, by descending magnitude",
}
#: Offset of the seeds of the random masks from RANDOM_SEED, clear of every other use.
RANDOM_MASK_SEED = 10_000_000
#: The same of the combinations of vectors that estimate the uncertainty.
COMBINATIONS_SEED = 20_000_000


@dataclass(frozen=True)
class AnalysedHessian:
    """What the analysis needs to know of a Hessian.

    Attributes:
        operator: The ``[D, D]`` operator.
        params: The parameters, ``[D]``.
        seed: RANDOM_SEED of the run; test vectors and random masks are derived from it.
        vectors: Vectors per product that fit into the memory budget.
        shapes: Shapes of the parameter tensors by name, in their order in ``params``.
    """

    operator: Any
    params: Tensor
    seed: int
    vectors: int
    shapes: Shapes


def log_analysis(
    log: JsonLog,
    header: str,
    where: dict[str, Any],
    eigh: Eigh,
    hessian: AnalysedHessian,
    config: AnalysisConfig,
) -> None:
    """Log everything about an eigendecomposition, each body beginning with ``where``."""
    log(header, where | {"core_S": eigh.S, "diagnostics": eigh.diagnostics})
    log(header, where | {"num_products": eigh.num_products})
    if eigh.residual_norms is not None:
        log(header, where | {"residual_norms": eigh.residual_norms})
    if config.WITH_A_POSTERIORI:
        log.info(events.ESTIMATING, where)
        for body in a_posteriori_results(eigh, hessian, config.NUM_A_POSTERIORI):
            log(header, where | body)
    log.info(events.OVERLAP, where)
    for body in overlap_results(eigh, hessian.params, config.NUM_RANDOM_MASKS, hessian.seed):
        log(header, where | body)
    mask = largest_parameters(hessian.params, len(eigh.S))
    for body in layer_results(eigh, mask, hessian.shapes, truncation_ranks(len(eigh.S))):
        log(header, where | body)
    heartbeat.doing("estimating how uncertain the overlap is")
    (rows,) = mask_rows(eigh, [mask])
    band = overlap_band(
        eigh,
        mask,
        rows,
        hessian.operator,
        num=config.NUM_A_POSTERIORI if config.WITH_A_POSTERIORI else 0,
        seed=hessian.seed + COMBINATIONS_SEED,
        vectors=hessian.vectors,
    )
    if band is not None:
        log(header, where | _band_results(band))
    num_tied = _tied_at_most(hessian.params, len(eigh.S))
    if num_tied:
        log.warning(events.TIES.format(num_tied), where)
    log(header, where | verdict(eigh, band, num_tied))


def estimate_errors(
    eigh: Eigh, hessian: AnalysedHessian, num: int, ranks: list[int]
) -> dict[int, APosterioriError]:
    """Estimate the errors of all truncations by the same ``num`` products.

    As many vectors at once as the budget of ``eigh`` allows, with a pass over the measurements for
    each block of them.

    Raises:
        InputError: If not even one fits; the line says what is needed.
    """
    per_vector = 4 * torch.float32.itemsize * eigh.shape[0]
    fitting = rows_within(eigh.Y.budget / 2, per_vector, "estimating errors with one vector")
    per_step = min(num, hessian.vectors, fitting)
    errors: dict[int, APosterioriError] = {}
    with Bar("estimating the error", "product", num) as bar:
        for begin in range(0, num, per_step):
            size = min(per_step, num - begin)
            seed = hessian.seed + 2 + begin
            G = gaussian_test_vectors(eigh.shape[0], size, seed, torch.float32, eigh.Y.device)
            some = truncation_errors(eigh, G, hessian.operator @ G, ranks)
            errors = {k: errors[k].joined(some[k]) if errors else some[k] for k in ranks}
            bar.advance(size)
    return errors


def a_posteriori_results(
    eigh: Eigh, hessian: AnalysedHessian, num: int
) -> Iterator[dict[str, Any]]:
    """Yield error estimates for ranks ``n_o``, half and a twentieth of it, bounds, and scree.

    Cost: ``num`` products serve every rank.
    """
    n = len(eigh.S)
    ranks = truncation_ranks(n)
    errors = estimate_errors(eigh, hessian, num, ranks)
    names = ("Frob(H)^2", "Frob(H_K)^2", "Frob(H-H_K)^2")
    published = {
        name.replace("K", str(k)): mean
        for k in ranks
        for name, mean in zip(names, errors[k].means, strict=True)
    }
    yield {"info": INFO["errors"], **published}
    for k in ranks:
        yield {
            "K": k,
            "num_a_posteriori": num,
            **dict(zip(names, errors[k].means, strict=True)),
            "standard_errors": dict(zip(names, errors[k].standard_errors, strict=True)),
        }
    bounds: dict[str, float] = {}
    for error in BOUND_ERRORS:
        bounds |= a_posteriori_error_bounds(num, error)
    yield bounds
    if num > 1 and errors[n].means[0] > 0:
        frob_sq, _, residual_sq = errors[n].intervals(SCREE_INTERVALS)
        lower, upper = scree_bounds(eigh.S, frob_sq, residual_sq)
        yield {
            "info": INFO["scree"],
            "scree_lower": lower,
            "scree_upper": upper,
            "scree_level": SCREE_LEVEL,
        }


def overlap_results(
    eigh: Eigh, params: Tensor, num_random_masks: int, seed: int
) -> Iterator[dict[str, Any]]:
    """Yield the overlap curves of the magnitude mask, the best mask and random masks.

    And the principal angles between the magnitude mask and the eigenspace at some ranks, what
    chance gives, and where parameters tie at a cut, what their order does.
    """
    n, dim = len(eigh.S), len(params)
    magnitude = largest_parameters(params, n)
    masks = random_masks(dim, n, num_random_masks, seed + RANDOM_MASK_SEED)
    rows = mask_rows(eigh, [magnitude, *masks])
    of_magnitude = next(rows)
    curve = mask_curve(of_magnitude)
    yield {"frob_Qtop^2": curve, "info": INFO["frob_Qtop^2"]}
    yield {
        "angles_with": "mask",
        "principal_angles": principal_angles_of_ranks(of_magnitude, truncation_ranks(n)),
    }
    random_curves = [mask_curve(part) for part in rows]
    yield {"largest_absparams": magnitude, "info": INFO["largest_absparams"]}
    yield {"largest_absparams_magnitudes": params[magnitude].abs()}
    yield from _tie_results(eigh, params, of_magnitude)
    every = all_masks(eigh)
    yield {"frob_Qbest^2": every.best}
    yield {"orthogonality": every.orthogonality}
    yield {
        "frob_Qchance^2": every.mean,
        "frob_Qchance^2_std": every.std,
        "z_scores": every.z_scores(curve),
        "info": INFO["frob_Qchance^2"],
    }
    if random_curves:
        yield {"frob_Qrandom^2": torch.stack(random_curves)}


def _tied_at_most(params: Tensor, n: int) -> int:
    """Return the most parameters that tie at a cut; 0 if the masks are unique."""
    return max((len(tie.idxs) for tie in find_ties(params, n)), default=0)


def _band_results(band: OverlapBand) -> dict[str, Any]:
    """Return between which ends the exact overlap lies, and how that was found."""
    return {
        "frob_Qtop^2_lowest": band.lowest,
        "frob_Qtop^2_highest": band.highest,
        "eigval_errors_estimated": band.eigenvalue_errors,
        "estimated_by": band.method,
        "estimated_with_products": band.num_products,
        "info": INFO["frob_Qtop^2_lowest"],
    }


def _tie_results(eigh: Eigh, params: Tensor, of_magnitude: Tensor) -> Iterator[dict[str, Any]]:
    """Yield what the order of equally large parameters does to the overlap, if there are any."""
    ties = find_ties(params, len(eigh.S))
    if ties:
        tied = tied_curves(eigh, ties, of_magnitude)
        yield {
            "num_tied": tied.num_tied,
            "frob_Qtied^2": tied.mean,
            "frob_Qtied^2_lowest": tied.lowest,
            "frob_Qtied^2_highest": tied.highest,
            "info": INFO["num_tied"],
        }
