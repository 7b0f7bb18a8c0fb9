"""Makes ``docs/performance.md`` and its plots from the JSON files of the benchmarks.

``python -m benchmarks.report [--results DIR] [--docs DIR]``
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from math import log
from pathlib import Path
from typing import Any

from matplotlib.ticker import EngFormatter

from applesandoranges.figures.style import line_styles, plt

from .harness import RESULTS, ROOT, cases

Record = dict[str, Any]

INTRODUCTION = """# Time and memory

Everything here was made by

```
make bench                                                # or: python -m benchmarks NAME ...
python -m benchmarks --all                                # with the long cases (8 GB of disk)
python -m benchmarks.report                               # writes this file
```

from the JSON files in [benchmarks/results](../benchmarks/results), which hold parameters,
environment, commit, medians, ranges and peak memory. Ratios are to something measured in the same
run. Where a line has a range, it is from the smallest to the largest of several repetitions.

The GPU path (results leave through pinned memory; TensorFloat-32 is off unless `ALLOW_TF32=true`)
**was not measured**: there was no GPU, and its tests (`pytest -m gpu`) were not run either. So what
TensorFloat-32 costs in accuracy is not measured; its mantissa of 10 bits suggests relative errors
of about 1e-3 in products that have about 1e-6 otherwise.
"""


def table(rows: list[dict[str, Any]]) -> str:
    """Return rows as a Markdown table."""
    names = list(rows[0])
    lines = [names, ["---"] * len(names), *([str(row[name]) for name in names] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def spread(values: dict[str, Any], unit: str = "", factor: float = 1.0) -> str:
    """Return a median with its range."""
    low, middle, high = (factor * values[name] for name in ("min", "median", "max"))
    text = f"{middle:.3g}{unit}"
    return text if values["runs"] == 1 else f"{text} ({low:.3g} to {high:.3g})"


def gigabytes(num_bytes: float) -> str:
    """Return bytes as GB."""
    return f"{num_bytes / 1e9:.2f} GB"


def measurement_section(records: dict[str, Record], docs: Path) -> str:
    """Return the costs of a measurement."""
    rows = []
    for record in (r for n, r in records.items() if n.startswith("measurement_")):
        results, parameters = record["results"], record["parameters"]
        per = results["per_gradient"]
        rows.append(
            {
                "problem": parameters["problem"],
                "D": f"{results['num_params']:,}",
                "points": parameters["num_data"],
                "engine": results["plan"]["engine"],
                "gradient pass": spread(results["seconds"]["gradient"], " ms", 1e3),
                "HVP": spread(per["product"]),
                "both SSRFTs": spread(per["transforms"]),
                "drawing them": f"{results['drawing_seconds']:.2g} s",
                "one measurement": spread(per["computing"]),
                "storing alone": spread(results["storing_alone_seconds"], " ms", 1e3),
                "waiting for it": spread(results["waiting_for_storing_seconds"], " ms", 1e3),
                "storing adds": spread(results["storing_added_seconds"], " ms", 1e3),
            }
        )
    text = (
        "HVP, SSRFTs and their sum are in gradient passes over the same points. SSRFTs are drawn "
        "once per job; that is not part of *one measurement*. *Storing alone* writes a "
        "measurement's files and does nothing else. 10c writes them while it computes the next "
        "block; *waiting for it* is the time in which computing stands still, most of it for the "
        "last block. *Storing adds* is the difference between 10c's loop (which also logs) and "
        "computing alone; for the slow networks it is a small difference of large numbers.\n\n"
    )
    text += table(rows)
    if {"measurement_3c3d", "analysis_3c3d"} <= records.keys():
        text += "\n\n" + _full_estimate(records)
    return text


def _full_estimate(records: dict[str, Record]) -> str:
    measured = records["measurement_3c3d"]["results"]["seconds"]["measuring"]["median"]
    analysis = records["analysis_3c3d"]
    inner = analysis["parameters"]["inner"]
    seconds = analysis["results"]["run"]["seconds"]
    took = sum(value for stage, value in seconds.items() if stage != "checking Q")
    products = analysis["parameters"]["num_a_posteriori"]
    return (
        f"A full CIFAR-10 3c3d Hessian (n_o = {analysis['parameters']['outer']}, n_i = {inner}) is "
        f"estimated from these parts at {inner} x {measured:.2f} s = {inner * measured / 60:.0f} "
        f"minutes of measuring, {products} more products for the a-posteriori error, and "
        f"{took / 60:.1f} minutes of analysis beside them, which was run (below)."
    )


def growth_section(records: dict[str, Record], docs: Path) -> str:
    """Return how the analysis grows, with a plot."""
    results = records["analysis_growth"]["results"]
    figure, axes = plt.subplots(1, 2, figsize=(8, 3), sharey=True)
    text = ""
    for ax, (name, found) in zip(axes, results.items(), strict=True):
        rows, parts = found["rows"], list(found["rows"][0]["seconds"])
        for part, style in zip(parts, line_styles(len(parts)), strict=True):
            medians = [row["seconds"][part]["median"] for row in rows]
            ax.loglog([row[name] for row in rows], medians, marker="o", label=part, **style)
        other = "n_o" if name == "D" else "D"
        sizes = [row[name] for row in rows]
        bound = [size * log(size) if name == "D" else size**2 for size in sizes]
        ax.loglog(
            sizes,
            [found["rows"][-1]["seconds"][parts[0]]["median"] * x / bound[-1] for x in bound],
            color="gray",
            ls=":",
            label="D log D" if name == "D" else "n_o$^2$",
        )
        ax.set_xticks(sizes, map(EngFormatter(sep=""), sizes))
        ax.set_xticks([], minor=True)
        ax.set_xlabel(f"{name} ({other} = {rows[0][other]:,})")
        text += (
            f"Over {name}, total time grows with the power {found['power']:.2f} "
            f"({'D log D' if name == 'D' else 'n_o^2'} over the same sizes: "
            f"{found['allowed_power']:.2f}). "
        )
        ax.legend()
    axes[0].set_ylabel("seconds")
    path = docs / "performance_growth.png"
    figure.savefig(path)
    plt.close(figure)
    rows = [
        {
            "D": f"{row['D']:,}",
            "n_o": row["n_o"],
            **{part: spread(values, " s") for part, values in row["seconds"].items()},
        }
        for found in results.values()
        for row in found["rows"]
    ]
    text += "Least squares in logarithms, without the smallest size."
    if results["D"]["power"] > results["D"]["allowed_power"]:
        text += (
            " So the target, no faster than D log D, is **not met**. The likely reason is that "
            "vectors of the larger sizes leave the processor's caches, where FFTs and random "
            "permutations take longer for each number."
        )
    text += "\n\n"
    return f"{text}![Growth of the analysis]({path.name})\n\n{table(rows)}"


def naive_section(records: dict[str, Record], docs: Path) -> str:
    """Return the ratio to the naive analysis."""
    record = records["analysis_naive"]
    results, parameters = record["results"], record["parameters"]
    return (
        f"At D = {parameters['dim']:,}, n_o = {parameters['outer']}, n_i = {parameters['inner']}, "
        f"orthogonalising, solving the core and the overlap for all k take "
        f"{spread(results['seconds'], ' s')}; a Householder QR of the whole matrix, SSRFT rows one "
        f"by one and one overlap after the other take {results['naive_seconds']:.1f} s: "
        f"**{results['ratio']:.0f} times** as long, with the same eigenvalues up to "
        f"{results['eigenvalue_difference']:.1g} of the largest."
    )


def store_section(records: dict[str, Record], docs: Path) -> str:
    """Return time and memory of analyses from disk."""
    runs = []
    if "analysis_memory" in records:
        record = records["analysis_memory"]
        parameters = record["parameters"]
        budgets = {"budget": parameters["budget"], "large": parameters["large"]}
        for name, budget in budgets.items():
            runs.append((parameters, budget, record["results"]["runs"][name]))
    if "analysis_3c3d" in records:
        record = records["analysis_3c3d"]
        runs.append(
            (record["parameters"], record["parameters"]["budget"], record["results"]["run"])
        )
    rows = [
        {
            "D": f"{parameters['dim']:,}",
            "n_o / n_i": f"{parameters['outer']} / {parameters['inner']}",
            "budget": gigabytes(budget),
            **{name: f"{value:.1f} s" for name, value in run["seconds"].items()},
            "peak RSS": gigabytes(run["peak_rss_bytes"]),
            "of it at start": gigabytes(run["rss_at_start_bytes"]),
            "max abs Q^T Q - I": f"{run['off_orthonormal']:.1g}",
        }
        for parameters, budget, run in runs
    ]
    text = (
        "10d's functions on a store of real size, in a process of its own. The measurements are "
        "those of a diagonal matrix with entries +-1/k in random places, whose eigenpairs are "
        "known. The budget is for arrays; Python and its libraries take what is resident at the "
        "start.\n\n" + table(rows)
    )
    for name in ("analysis_memory", "analysis_3c3d"):
        if name in records:
            results = records[name]["results"]
            text += (
                f"\n\nErrors at D = {records[name]['parameters']['dim']:,}: eigenvalues of the top "
                f"tenth off by at most {100 * results['errors']['top_tenth']:.2g} %, residual "
                f"{results['errors']['residual_over_best_residual']:.2f} times that of the best "
                f"approximation of this rank."
            )
            if "differences" in results:
                worst = max(results["differences"].values())
                text += f" Both budgets give the same results up to {worst:.1g}, relatively."
    return text


def pipeline_section(records: dict[str, Record], docs: Path) -> str:
    """Return the shares of the scripts."""
    record = records["pipeline"]
    parameters, results = record["parameters"], record["results"]
    rows = [
        {
            "script": name,
            "seconds": f"{value:.1f}",
            "share": f"{100 * results['shares'][name]:.0f} %",
        }
        for name, value in results["seconds"].items()
    ]
    return (
        f"mnist_mini, one Hessian of {parameters['num_data']} points after {parameters['steps']} "
        f"steps, n_o = {parameters['outer']}, n_i = {parameters['inner']}: "
        f"{results['total_seconds']:.0f} s in all. Each script starts a Python with PyTorch "
        f"(*start-up alone*, part of every line).\n\n" + table(rows)
    )


def peers_section(records: dict[str, Record], docs: Path) -> str:
    """Return SEIGH beside other solvers."""
    record = records["peers"]
    results = record["results"]
    rows = [
        {
            "method": name,
            "seconds": f"{found['seconds']:.1f}",
            "products": found["products"],
            "relative error of the top k/2 eigenvalues: largest": (
                f"{found['half_eigenvalue_error']:.1g}"
            ),
            "median": f"{found['half_eigenvalue_error_median']:.1g}",
            "overlap with the exact subspace": f"{found['subspace_overlap']:.4f}",
            "residual / best residual": f"{found['residual_over_best_residual']:.4f}",
        }
        for name, found in results["methods"].items()
    ]
    exact, methods = results["exact_seconds"], results["methods"]
    krylov = "block Krylov, 10 rounds"
    ratio = methods["eigsh"]["seconds"] / methods[krylov]["seconds"]
    return (
        f"The {record['parameters']['k']} pairs of largest magnitude of the Hessian of mnist_mini "
        f"(D = {results['num_params']:,}), through the same operator. For comparison: all "
        f"{results['num_params']:,} products take {exact['products']:.0f} s, the dense "
        f"eigendecomposition {exact['eigh']:.0f} s.\n\n"
        + table(rows)
        + f"\n\n`eigsh` takes **{ratio:.1f} times** as long as {krylov}. The products of SEIGH, "
        "and those of each round of block Krylov, are independent of each other and can be spread "
        "over jobs; those of ARPACK come one after the other."
    )


def one_pass_section(records: dict[str, Record], docs: Path) -> str:
    """Return Nystrom's analysis from disk beside SEIGH's."""
    record = records["analysis_one_pass"]
    parameters, results = record["parameters"], record["results"]
    rows = [
        {
            "recovery": name,
            "columns kept": parameters["inner" if name == "nystrom" else "outer"],
            "making all measurements": f"{results['making_seconds'][name]['computing']:.0f} s",
            "analysis": f"{sum(run['seconds'].values()):.0f} s",
            "peak RSS": gigabytes(run["peak_rss_bytes"]),
            "of it at start": gigabytes(run["rss_at_start_bytes"]),
            "error of the top tenth": f"{100 * results['errors'][name]['top_tenth']:.2g} %",
            "residual / best residual": (
                f"{results['errors'][name]['residual_over_best_residual']:.2f}"
            ),
        }
        for name, run in results["runs"].items()
    ]
    return (
        f"The same at D = {parameters['dim']:,}, of {parameters['inner']} products and "
        f"{gigabytes(parameters['budget'])} for arrays: `nystrom`, which keeps all of them, "
        f"beside `seigh`.\n\n" + table(rows) + f"\n\nNystrom's analysis takes "
        f"**{results['time_ratio']:.2f} times** as long; making its measurements, without the left "
        f"transforms, **{results['measuring_ratio']:.2f} times** (the product itself costs next to "
        "nothing here)."
    )


def start_section(records: dict[str, Record], docs: Path) -> str:
    """Return how soon scripts show something."""
    rows = [
        {
            "script": script,
            "first output": spread(found["first_output_seconds"]),
            "libraries loaded": spread(found["loaded_seconds"]),
            "--help": spread(found["help_seconds"]),
            "a wrong key": spread(found["refusal_seconds"]),
        }
        for script, found in records["start"]["results"].items()
    ]
    return (
        "Seconds from the command to the first character on the screen, to the end of a run that "
        "is refused only after PyTorch is loaded, to the whole help, and to the line that refuses "
        "a wrong key.\n\n" + table(rows)
    )


#: Title, cases of which at least one must be there, and what writes the section.
SECTIONS: list[tuple[str, tuple[str, ...], Callable[[dict[str, Record], Path], str]]] = [
    ("One measurement", ("measurement_",), measurement_section),
    ("Growth of the analysis", ("analysis_growth",), growth_section),
    ("Against the naive way", ("analysis_naive",), naive_section),
    ("Analysis from disk", ("analysis_memory", "analysis_3c3d"), store_section),
    ("One pass from disk", ("analysis_one_pass",), one_pass_section),
    ("Until something is on the screen", ("start",), start_section),
    ("The whole pipeline", ("pipeline",), pipeline_section),
    ("Other eigensolvers", ("peers",), peers_section),
]


def read_records(directory: Path) -> dict[str, Record]:
    """Return the records of full size, in the order of the cases."""
    found = {path.stem: json.loads(path.read_text()) for path in sorted(directory.glob("*.json"))}
    return {n: found[n] for n in cases() if n in found and found[n]["size"] == "full"}


def conditions(records: dict[str, Record]) -> str:
    """Return when and on what each case ran."""
    rows = [
        {
            "case": name,
            "date": record["date"],
            "commit": record["commit"][:8] + (" with changes" if record["changed"] else ""),
            "processor": f"{record['environment']['processor']}, {record['environment']['cores']} "
            f"cores, {record['environment']['threads']} threads",
            "torch": record["environment"]["packages"]["torch"],
            "load before": f"{record['load_before']:.1f}",
            "seconds": f"{record['wall_seconds']:.0f}",
            "peak RSS": gigabytes(record["peak_rss_bytes"]),
        }
        for name, record in records.items()
    ]
    return table(rows)


def write(results: Path, docs: Path) -> Path:
    """Write the document; sections without results are left out."""
    from . import __main__  # noqa: F401  # registers the cases

    records = read_records(results)
    if not records:
        raise SystemExit(f"{results}: no results of full size; run python -m benchmarks first")
    docs.mkdir(parents=True, exist_ok=True)
    parts = [INTRODUCTION]
    for title, names, section in SECTIONS:
        if any(record.startswith(names) for record in records):
            parts.append(f"## {title}\n\n{section(records, docs)}\n")
    parts.append(f"## Conditions\n\n{conditions(records)}\n")
    path = docs / "performance.md"
    path.write_text("\n".join(parts))
    return path


def main(argv: list[str] | None = None) -> int:
    """Write the document."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.report", description=__doc__)
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--docs", type=Path, default=ROOT / "docs")
    args = parser.parse_args(argv)
    print(write(args.results, args.docs))
    return 0


if __name__ == "__main__":
    sys.exit(main())
