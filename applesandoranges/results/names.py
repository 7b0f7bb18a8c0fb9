"""Names of quantities in published logs and those of earlier versions, and what they are here."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

#: Names in published logs, and of earlier versions, and what they are called here.
ALIASES = {
    "frob_Qtop^2_mag": "frob_Qtop^2",
    "frob_Qtop^2_best": "frob_Qbest^2",
    "frob_Qtop^2_rand": "frob_Qrandom^2",
    "eigvec_errors": "eigvec_resnorm",
}
#: Error estimates of several ranks in one line, as published logs have them.
ERROR_OF_RANK = re.compile(r"Frob\((H-)?H_(\d+)\)\^2")


def by_present_names(body: dict[str, Any]) -> dict[str, Any]:
    """Return a result line with the names that are used here."""
    body = {ALIASES.get(name, name): value for name, value in body.items()}
    largest: Iterable[Any] = body.get("largest_absparams", ())
    if not all(isinstance(value, int) for value in largest):
        # Before version 0.2 their magnitudes stood under this name.
        body["largest_absparams_magnitudes"] = body.pop("largest_absparams")
    return body


def errors_by_rank(body: dict[str, Any]) -> list[dict[str, Any]]:
    """Return error estimates of several ranks in one line as a body for each rank."""
    ranks = sorted({int(m[2]) for name in body if (m := ERROR_OF_RANK.fullmatch(name))})
    return [
        {
            "K": k,
            "Frob(H)^2": body["Frob(H)^2"],
            "Frob(H_K)^2": body[f"Frob(H_{k})^2"],
            "Frob(H-H_K)^2": body[f"Frob(H-H_{k})^2"],
        }
        for k in reversed(ranks)
    ]
