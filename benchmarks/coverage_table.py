"""Prints the results of the coverage cases as the tables of docs/reading_results.md."""

from __future__ import annotations

import json
from typing import Any

from .harness import RESULTS

CASES = {
    "overlap_coverage": "Synthetic operators",
    "overlap_coverage_exact": "Synthetic operators of which a sketch finds the first pairs",
    "overlap_coverage_mnist": "Exact Hessians of mnist_mini",
}
COLUMNS = [
    "recovery", "of", "draws", "held", "at n/4, n/2, n", "half-width at n/4, n/2, n",
    "error at n/4, n/2, n", "wrong", "trusted", "exact", "of these distrusted",
]  # fmt: skip


def row(recovery: str, kind: str, found: dict[str, Any]) -> list[str]:
    """Return the cells of a recovery on one kind of draw."""
    held, widths, errors = (
        found[name].values() for name in ("coverage_at", "median_half_width_at", "median_error_at")
    )
    return [
        recovery,
        kind,
        str(found["recoveries"]),
        f"{found['coverage']:.1%}",
        ", ".join(f"{share:.0%}" for share in held),
        ", ".join(f"{width:.2g}" if width < 0.001 else f"{width:.1%}" for width in widths),
        ", ".join(f"{error:.2g}" if error < 0.001 else f"{error:.1%}" for error in errors),
        str(found["wrong_and_readable"]),
        str(found["trusted"]),
        str(found.get("exact", "-")),  # results of before do not say it
        str(found.get("exact_but_distrusted", "-")),
    ]


def main() -> None:
    """Print a table for each case that was run."""
    for name, title in CASES.items():
        path = RESULTS / f"{name}.json"
        if not path.is_file():
            continue
        results = json.loads(path.read_text())["results"]
        print(f"{title} (`python -m benchmarks {name}`):\n")
        print(f"| {' | '.join(COLUMNS)} |\n|{' --- |' * len(COLUMNS)}")
        for recovery, kinds in results.items():
            for kind, found in kinds.items():
                print(f"| {' | '.join(row(recovery, kind, found))} |")
        print()


if __name__ == "__main__":
    main()
