"""Whether the quantities of a log are what they should be: logs may be cut short, or edited."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

#: Quantities that are lists of numbers.
LISTS = {
    "core_S", "H_eigvals", "frob_Qtop^2", "frob_Qtop^2_mag", "frob_Qtop^2_best", "frob_Qbest^2",
    "H_frob_Qtop^2", "H_frob_Qbest^2", "largest_absparams", "scree_lower", "scree_upper",
    "frob_Qtop^2_lowest", "frob_Qtop^2_highest", "eigval_errors_estimated", "z_scores", "num_tied",
    "frob_Qchance^2", "frob_Qchance^2_std", "H_frob_Qchance^2", "H_frob_Qchance^2_std",
    "frob_Qtied^2", "frob_Qtied^2_lowest", "frob_Qtied^2_highest", "layer_sizes", "layers_mask",
    "layers_eigenspace", "layers_overlap",
}  # fmt: skip
#: Of these, those of counts, which are never missing; and single numbers.
COUNTS = {"num_tied", "layer_sizes"}
NUMBERS = {"K", "num_selected_params"}
#: Curves by rank, with those that are drawn about them, value by value.
OF_CURVES = {
    "frob_Qtop^2": (
        "frob_Qtop^2_lowest", "frob_Qtop^2_highest", "frob_Qchance^2", "frob_Qchance^2_std",
    ),
    "H_frob_Qtop^2": ("H_frob_Qchance^2", "H_frob_Qchance^2_std"),
}  # fmt: skip


def malformed(body: Mapping[str, Any]) -> str:
    """Return what is wrong with the quantities of a result line; empty if nothing is."""
    for name, value in body.items():
        if name in LISTS and not (
            isinstance(value, list)
            and value
            and all((v is None and name not in COUNTS) or _is_number(v) for v in value)
        ):
            return f"{name} is no list of numbers"
        if name in NUMBERS and not _is_number(value):
            return f"{name} is no number"
        if name == "usable_runs" and not _are_pairs(value):
            return f"{name} are no pairs"
    return ""


def unfitting(quantities: Mapping[str, Any]) -> dict[str, str]:
    """Return the quantities that cannot be drawn about the curve that they belong to, and why."""
    found = {}
    for curve, others in OF_CURVES.items():
        if curve not in quantities:
            continue
        expected = len(quantities[curve])
        for name in filter(quantities.__contains__, others):
            if (num := len(quantities[name])) != expected:
                found[name] = f"{num} values, expected {expected} as {curve}"
    return found


def _is_number(value: Any) -> bool:
    return isinstance(value, float) or (isinstance(value, int) and abs(value) < 2**63)


def _are_pairs(value: Any) -> bool:
    return value is None or (
        isinstance(value, list)
        and all(isinstance(v, list) and len(v) == 2 and all(map(_is_number, v)) for v in value)
    )
