"""Numbers that 10d and 12a log for an eigendecomposition: errors, scree bounds, overlap."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from skerch.a_posteriori import (
    APosterioriError,
    a_posteriori_error_bounds,
    gaussian_test_vectors,
    scree_bounds,
    truncation_errors,
)
from skerch.budget import rows_within
from skerch.errors import InputError
from skerch.results import Eigh

from ..app import events
from ..app.config import key
from ..app.log import JsonLog
from .eigenspaces import principal_angles_of_ranks
from .overlap import (
    best_mask_curve,
    largest_parameters,
    mask_curve,
    mask_rows,
    random_masks,
    truncation_ranks,
)
from .verdict import verdict

#: Relative errors of the a-posteriori estimate whose probabilities are logged.
BOUND_ERRORS = (0.25, 0.5, 0.75, 1.0)
#: What published logs say of a line, word by word.
INFO = {
    "errors": "Frob^2 of Hessian, corresponding k-rank reconstruction H_k and residual (H - H_k)",
    "scree": "Scree lower and upper bounds by increasing k",
    "frob_Qtop^2": "Frob(Q[largest_absparams,:k])^2 ordered by increasing k",
    "largest_absparams": "Indices of k largest parameters, by descending magnitude",
}
#: Offset of the seeds of the random masks from RANDOM_SEED, clear of every other use.
RANDOM_MASK_SEED = 10_000_000


@dataclass
class AnalysisConfig:
    """Keys of the scripts that analyse."""

    WITH_A_POSTERIORI: bool = key("estimate the error of the sketch", True)
    NUM_A_POSTERIORI: int = key("Hessian products for that estimate", 30)
    NUM_RANDOM_MASKS: int = key("random masks to compare with", 10)
    SYMMETRIZE_CORE: bool = key("average both triangles of the core (published runs: false)", True)


def check_analysis(config: AnalysisConfig) -> None:
    """Raise :class:`InputError` for numbers that cannot be."""
    if config.WITH_A_POSTERIORI and config.NUM_A_POSTERIORI < 1:
        raise InputError(f"NUM_A_POSTERIORI must be at least 1, got {config.NUM_A_POSTERIORI}")
    if config.NUM_RANDOM_MASKS < 0:
        raise InputError(f"NUM_RANDOM_MASKS must be at least 0, got {config.NUM_RANDOM_MASKS}")


@dataclass(frozen=True)
class AnalysedHessian:
    """What the analysis needs to know of a Hessian.

    Attributes:
        operator: The ``[D, D]`` operator.
        params: The parameters, ``[D]``.
        seed: RANDOM_SEED of the run; test vectors and random masks are derived from it.
        vectors: Vectors per product that fit into the memory budget.
    """

    operator: Any
    params: Tensor
    seed: int
    vectors: int


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
    relative_error = None
    if config.WITH_A_POSTERIORI:
        log.info(events.ESTIMATING, where)
        for body in a_posteriori_results(eigh, hessian, config.NUM_A_POSTERIORI):
            log(header, where | body)
            if body.get("K") == len(eigh.S) and body["Frob(H)^2"] > 0:
                relative_error = (body["Frob(H-H_K)^2"] / body["Frob(H)^2"]) ** 0.5
    log(header, where | verdict(eigh, relative_error))
    log.info(events.OVERLAP, where)
    for body in overlap_results(eigh, hessian.params, config.NUM_RANDOM_MASKS, hessian.seed):
        log(header, where | body)


def estimate_errors(
    eigh: Eigh, hessian: AnalysedHessian, num: int, ranks: list[int]
) -> dict[int, APosterioriError]:
    """Estimate the errors of all truncations by the same ``num`` products.

    As many vectors at once as the budget of ``eigh`` allows, with a pass over the measurements for
    each block of them.

    Raises:
        InputError: If not even one fits; the line says what is needed.
    """
    per_vector = 4 * torch.empty(0, dtype=torch.float32).element_size() * eigh.shape[0]
    fitting = rows_within(eigh.Y.budget / 2, per_vector, "estimating errors with one vector")
    per_step = min(num, hessian.vectors, fitting)
    errors: dict[int, APosterioriError] = {}
    for begin in range(0, num, per_step):
        size = min(per_step, num - begin)
        seed = hessian.seed + 2 + begin
        G = gaussian_test_vectors(eigh.shape[0], size, seed, torch.float32, eigh.Y.device)
        some = truncation_errors(eigh, G, hessian.operator @ G, ranks)
        errors = {k: errors[k].joined(some[k]) if errors else some[k] for k in ranks}
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
    frob_sq, _, residual_sq = errors[n].means
    if frob_sq > 0:
        lower, upper = scree_bounds(eigh.S, frob_sq, residual_sq)
        yield {"info": INFO["scree"], "scree_lower": lower, "scree_upper": upper}


def overlap_results(
    eigh: Eigh, params: Tensor, num_random_masks: int, seed: int
) -> Iterator[dict[str, Any]]:
    """Yield the overlap curves of the magnitude mask, the best mask and random masks.

    And the principal angles between the magnitude mask and the eigenspace at some ranks.
    """
    n, dim = len(eigh.S), len(params)
    magnitude = largest_parameters(params, n)
    masks = random_masks(dim, n, num_random_masks, seed + RANDOM_MASK_SEED)
    rows = mask_rows(eigh, [magnitude, *masks])
    of_magnitude = next(rows)
    yield {"frob_Qtop^2": mask_curve(of_magnitude), "info": INFO["frob_Qtop^2"]}
    yield {
        "angles_with": "mask",
        "principal_angles": principal_angles_of_ranks(of_magnitude, truncation_ranks(n)),
    }
    random_curves = [mask_curve(part) for part in rows]
    yield {"largest_absparams": magnitude, "info": INFO["largest_absparams"]}
    yield {"largest_absparams_magnitudes": params[magnitude].abs()}
    yield {"frob_Qbest^2": best_mask_curve(eigh)}
    if random_curves:
        yield {"frob_Qrandom^2": torch.stack(random_curves)}
