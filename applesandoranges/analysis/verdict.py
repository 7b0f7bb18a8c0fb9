"""Whether a recovery can be trusted, in words, and what to raise if not."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from skerch.results import Eigh

from ..app.verdicts import READABLE, USABLE, Run, in_words, longest
from .uncertainty import OverlapBand

#: Condition number of the left factor of the core, from which the core solve amplifies errors. With
#: twice as many inner as outer measurements it is about 6.
MAX_CORE_CONDITION = 100.0
#: A core less symmetric than this says that the sketch is too small, or the operator is random.
MAX_CORE_ASYMMETRY = 0.5
#: Share of all k for which the overlap must be of use.
LEAST_SHARE = 0.1
#: Residuals relative to the largest eigenvalue, beyond which a Ritz pair is not converged.
MAX_RESIDUAL = 0.05


@dataclass(frozen=True)
class Concern:
    """Something that speaks against a result, and what to do about it."""

    what: str
    remedy: str


def concerns(eigh: Eigh) -> Iterator[Concern]:
    """Yield what the recovery itself says against it."""
    if width := eigh.diagnostics.get("cluster_wider_than_block"):
        yield Concern(
            f"{int(width)} eigenvalues are equal, at least as many as a block of the Krylov basis "
            "has columns: such a basis does not hold all of their vectors",
            "raise BLOCK_SIZE, with fewer rounds",
        )
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
    if eigh.residual_norms is not None:
        half = eigh.residual_norms[: max(1, len(eigh.S) // 2)]
        worst = float(half.max() / eigh.S[0].abs().clamp_min(1e-300))
        if not worst <= MAX_RESIDUAL:
            yield Concern(
                f"the leading half of the pairs is not converged (residual {worst:.2g} of the "
                "largest eigenvalue)",
                "raise NUM_ROUNDS",
            )


def verdict(eigh: Eigh, band: OverlapBand | None, num_tied: int = 0) -> dict[str, Any]:
    """Return the body of a log line that says what of the recovery can be read.

    The Frobenius error does not count: pairs that explain little of the Hessian may be exact, and
    the overlap of others, that explain all of it, wrong.

    Args:
        eigh: The recovery.
        band: Where the exact overlap lies; ``None`` if that was not estimated.
        num_tied: The most parameters that tie where a mask is cut.
    """
    body = _verdict_without_band(eigh) if band is None else _verdict_by_band(eigh, band)
    if num_tied:
        body["verdict"] += (
            f"; up to {num_tied} parameters are equally large where the mask is cut, which of them "
            "are in it is arbitrary"
        )
    return body


def _verdict_without_band(eigh: Eigh) -> dict[str, Any]:
    if against := list(concerns(eigh)):
        return _against(against, {})
    text = "nothing speaks against it, but its error was not estimated (WITH_A_POSTERIORI)"
    return {"trustworthy": True, "verdict": text, "remedies": []}


def _against(against: list[Concern], facts: dict[str, Any]) -> dict[str, Any]:
    text = "not to be trusted as it is: " + "; ".join(c.what for c in against)
    remedies = list(dict.fromkeys(c.remedy for c in against))
    return {"trustworthy": False, "verdict": text, "remedies": remedies, **facts}


def _verdict_by_band(eigh: Eigh, band: OverlapBand) -> dict[str, Any]:
    """Judge what people read: eigenvalues, and the overlap."""
    n, against = len(eigh.S), list(concerns(eigh))
    reach = converged_pairs(eigh)
    eigenvalues = leading(band.eigenvalue_errors[:reach], READABLE)
    runs = {tolerance: runs_of(band.errors[:reach], tolerance) for tolerance in (READABLE, USABLE)}
    # Errors that small are seen by chance, too: shorter runs were wrong more often.
    readable = longest(runs[READABLE])
    runs[READABLE] = [readable] if readable else []
    usable = longest(runs[USABLE])
    facts = {
        "readable_eigenvalues": eigenvalues,
        "readable_overlap": readable,
        "usable_overlap": usable,
        "usable_runs": runs[USABLE],
    }
    if usable is None or usable[1] - usable[0] + 1 < LEAST_SHARE * n:
        known = f"the overlap is known to {USABLE:.0%} for hardly any k"
        unclear = Concern(
            f"{known} (at k = {n} it lies between {_at(band.lowest, n)} and "
            f"{_at(band.highest, n)})",
            _better(eigh),
        )
        if reach < n and "cluster_wider_than_block" not in eigh.diagnostics:
            unclear = Concern(
                f"{known} up to {reach}, beyond which pairs are not converged"
                if reach
                else "not even the first pair is converged",
                "raise NUM_ROUNDS",
            )
        return _against([*against, unclear], facts)
    texts = [
        f"{what} can be read within {tolerance:.0%} for {in_words(found)}"
        for what, tolerance, found in (
            ("the overlap", READABLE, runs[READABLE]),
            ("the overlap", USABLE, runs[USABLE] if runs[USABLE] != runs[READABLE] else []),
            ("eigenvalues", READABLE, [(1, eigenvalues)] if eigenvalues else []),
        )
        if found
    ]
    missing = [
        f"{what} nowhere within {READABLE:.0%}"
        for what, found in (("the overlap", runs[READABLE]), ("eigenvalues", eigenvalues))
        if not found
    ]
    text = "; ".join([*texts, *missing, *(c.what for c in against)])
    remedies = list(dict.fromkeys(c.remedy for c in against))
    return {"trustworthy": True, "verdict": text, "remedies": remedies, **facts}


def _better(eigh: Eigh) -> str:
    """Return what gives a more accurate recovery than this one."""
    if "core_condition" in eigh.diagnostics:  # of a sketch with inner measurements
        better = "take RECOVERY=krylov, or nystrom if there is one pass only"
        return f"{better}, which are more accurate for as many products; or raise NUM_INNER"
    if eigh.coarser is None:
        return "take RECOVERY=krylov, or raise NUM_INNER"
    return "raise NUM_ROUNDS or BLOCK_SIZE"


def converged_pairs(eigh: Eigh) -> int:
    """Return up to which ``k`` anything can be read: converged pairs, and no cluster cut short."""
    if "cluster_wider_than_block" in eigh.diagnostics:
        return 0
    if eigh.residual_norms is None:
        return len(eigh.S)
    return leading(eigh.residual_norms / eigh.S[0].abs().clamp_min(1e-300), MAX_RESIDUAL)


def _at(curve: Tensor, k: int) -> str:
    return f"{float(curve[k - 1]) / k:.3g}"


def leading(errors: Tensor, tolerance: float) -> int:
    """Return up to which ``k`` all relative errors are tolerable; 0 for none."""
    return int((errors <= tolerance).long().cumprod(0).sum())


def runs_of(errors: Tensor, tolerance: float) -> list[Run]:
    """Return first and last ``k`` of each run of tolerable errors."""
    good = [False, *(errors <= tolerance).tolist(), False]
    ends = [k for k in range(1, len(good)) if good[k] != good[k - 1]]
    return [(first, after - 1) for first, after in zip(ends[::2], ends[1::2], strict=True)]
