"""Whether a recovery can be trusted, in words, and what to raise if not."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from skerch.results import Eigh

#: Condition number of the left factor of the core, from which the core solve amplifies errors. With
#: twice as many inner as outer measurements it is about 6.
MAX_CORE_CONDITION = 100.0
#: A core less symmetric than this says that the sketch is too small, or the operator is random.
MAX_CORE_ASYMMETRY = 0.5
#: Relative Frobenius error, up to which the whole spectrum, or its leading half, can be read.
GOOD_ERROR, USABLE_ERROR = 0.2, 0.5
#: Residuals relative to the largest eigenvalue, beyond which a Ritz pair is not converged.
MAX_RESIDUAL = 0.05


@dataclass(frozen=True)
class Concern:
    """Something that speaks against a result, and what to do about it."""

    what: str
    remedy: str


def concerns(eigh: Eigh, relative_error: float | None) -> Iterator[Concern]:
    """Yield what speaks against a recovery.

    Args:
        eigh: The recovery.
        relative_error: A-posteriori estimate of ``||H - H_K||_F / ||H||_F``, if there is one.
    """
    found = eigh.diagnostics
    condition, asymmetry = found.get("core_condition", 0.0), found.get("core_asymmetry", 0.0)
    if not float(condition) <= MAX_CORE_CONDITION:
        yield Concern(
            f"the core of the sketch is ill-conditioned ({float(condition):.3g})",
            "raise NUM_INNER to twice NUM_OUTER",
        )
    if not float(asymmetry) <= MAX_CORE_ASYMMETRY:
        yield Concern(
            f"the core is far from symmetric ({float(asymmetry):.2g}, relative)",
            "raise NUM_OUTER and NUM_INNER, and check the problem with 20a",
        )
    if relative_error is not None and not relative_error <= USABLE_ERROR:
        yield Concern(
            f"the pairs explain too little of the Hessian (estimated relative error "
            f"{relative_error:.2g})",
            "raise NUM_OUTER and NUM_INNER, or take RECOVERY=krylov; leading pairs may be good",
        )
    if eigh.residual_norms is not None:
        half = eigh.residual_norms[: max(1, len(eigh.S) // 2)]
        worst = float(half.max() / eigh.S[0].abs().clamp_min(1e-300))
        if not worst <= MAX_RESIDUAL:
            yield Concern(
                f"the leading half of the pairs is not converged (residual {worst:.2g} of the "
                "largest eigenvalue)",
                "raise NUM_ROUNDS",
            )


def verdict(eigh: Eigh, relative_error: float | None) -> dict[str, Any]:
    """Return the body of a log line that says whether the recovery can be trusted."""
    against = list(concerns(eigh, relative_error))
    if against:
        text = "not to be trusted as it is: " + "; ".join(c.what for c in against)
        remedies = list(dict.fromkeys(c.remedy for c in against))
        return {"trustworthy": False, "verdict": text, "remedies": remedies}
    if relative_error is None:
        text = "nothing speaks against it, but its error was not estimated (WITH_A_POSTERIORI)"
    elif relative_error <= GOOD_ERROR:
        text = f"good: estimated relative error {relative_error:.2g}"
    else:
        text = (
            f"good for the leading pairs: estimated relative error {relative_error:.2g}; the last "
            "ones are too small, and their vectors are mixtures"
        )
    return {"trustworthy": True, "verdict": text, "remedies": []}
