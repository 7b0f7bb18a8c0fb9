"""Prints the tables of one_pass and tracking for docs/which_recovery.md, and draws the latter.

``python -m benchmarks.recovery_tables`` writes ``assets/tracking.png``.
"""

from __future__ import annotations

import json
from pathlib import Path
from statistics import median
from typing import Any

from applesandoranges.figures.style import plt

from .harness import RESULTS, ROOT
from .report import table


def read(name: str, results: Path = RESULTS) -> dict[str, Any]:
    """Return parameters and results of a case."""
    record: dict[str, Any] = json.loads((results / f"{name}.json").read_text())
    return record


def one_pass_table(results: dict[str, Any]) -> str:
    """Return errors and alignments by approximation and Hessian, as Markdown."""
    hessians = results["hessians"]
    first = next(iter(hessians.values()))
    k = first["seigh"]["columns"]
    rows = []
    for name in first:
        every = [hessian[name] for hessian in hessians.values()]
        row = {
            "approximation": name,
            "products": f"{every[0]['products'] / k:g} k",
            "columns kept": f"{every[0]['columns'] / k:g} k",
        }
        row |= {
            title: f"{one['error_to_best']:.2f}, {one['alignment']:.3f}"
            for title, one in zip(hessians, every, strict=True)
        }
        error = median(one["eigenvalue_error"] for one in every)
        rows.append(row | {"eigenvalues, median": f"{error:.2g}"})
    return table(rows)


def tracking_table(results: dict[str, Any]) -> str:
    """Return products and errors by way, as Markdown."""
    rows = []
    for name, way in results.items():
        ks = [key for key in way["steps"][0] if key.startswith("error_at_")]
        row = {
            "recovery": name,
            "products": f"{way['products']:,}",
            "largest error, k >= 10": f"{way['largest_error']:.3f}",
        }
        for key in ks:
            worst = max(step[key] for step in way["steps"])
            row[f"at k = {key.rpartition('_')[2]}"] = f"{worst:.3f}"
        worst = min(step["alignment"] for step in way["steps"])
        rows.append(row | {"least alignment": f"{worst:.3f}"})
    return table(rows)


def draw_tracking(record: dict[str, Any], path: Path) -> None:
    """Draw the largest error of the overlap at each step, a line for each way."""
    figure, ax = plt.subplots(figsize=(8, 4.5), layout="constrained")
    steps = record["parameters"]["steps"]
    for number, (name, way) in enumerate(record["results"].items()):
        errors = [step["largest_error"] for step in way["steps"]]
        tracked = name.endswith("tracked")
        before = f"C{number - 1 if tracked else number}"
        ax.plot(
            steps,
            errors,
            "o--" if tracked else "o-",
            color=before,
            label=f"{name}: {way['products']:,} products",
        )
    ax.set(
        xlabel="training step",
        ylabel="largest relative error\nof the overlap, k >= 10",
        yscale="log",
        xticks=steps,
        title="Five Hessians of mnist_mini, k = 355",
    )
    ax.legend(loc="center left", bbox_to_anchor=(1, 0.5), fontsize="small")
    figure.savefig(path, dpi=120)
    plt.close(figure)


def main() -> None:
    """Print what was measured."""
    if (RESULTS / "one_pass.json").is_file():
        print(one_pass_table(read("one_pass")["results"]), end="\n\n")
    if (RESULTS / "tracking.json").is_file():
        record = read("tracking")
        print(tracking_table(record["results"]))
        draw_tracking(record, ROOT / "assets/tracking.png")


if __name__ == "__main__":
    main()
