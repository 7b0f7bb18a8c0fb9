"""Time and memory of the analysis: growth, against a naive one, and at full size from disk."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from applesandoranges.analysis.overlap import all_masks, largest_parameters, mask_curves
from skerch import INNER_FMT, LO_FMT
from skerch.core.orthogonal import orthogonalize
from skerch.core.products import innermeas_batch_torch, linmeas_batch_torch
from skerch.core.row_blocks import RowBlocks
from skerch.core.sketch import solve_core_seigh
from skerch.results import Eigh
from skerch.ssrft import SSRFT
from skerch.store.layout import create_hdf5_layout
from skerch.store.measurements import DistributedHDF5

from .analyse_store import FLAG
from .harness import ROOT, Stages, case, scratch, seconds, summary
from .naive import naive_overlap, naive_seigh
from .synthetic import SEED, known_operator


def sketch_in_memory(dim: int, outer: int, inner: int) -> tuple[Tensor, Tensor, Tensor]:
    """Measure the known operator; return ``Y`` ``[D, n_o]``, ``W`` ``[n_i, n_i]``, parameters."""
    operator, Y, W = known_operator(dim), torch.empty(dim, outer), torch.empty(inner, inner)
    Phi, Psi = (SSRFT((inner, dim), SEED + shift) for shift in (0, 1))
    step = max(1, 2**24 // dim)
    for begin in range(0, inner, step):
        idxs = range(begin, min(begin + step, inner))
        block = innermeas_batch_torch(idxs, operator, Phi, Psi)
        W[:, idxs.start : idxs.stop] = block.inner
        if begin < outer:
            Y[:, begin : begin + step] = block.outer[:, : outer - begin]
    return Y, W, operator.diagonal


def decompose(Y: Tensor, W: Tensor) -> Eigh:
    """Orthogonalise and solve the core."""
    blocks, Psi = RowBlocks(Y), SSRFT((len(W), len(Y)), SEED + 1)
    factor = orthogonalize(blocks, W[:, : Y.shape[1]])
    return solve_core_seigh(blocks, W, Psi, True, factor)


def fitted_power(sizes: Sequence[int], times: Sequence[float]) -> float:
    """Return the slope of log time over log size, by least squares."""
    return float(np.polyfit(np.log(sizes), np.log(times), 1)[0])


@case(
    "analysis_growth",
    "orthogonalise, core and overlap over D and n_o, with the fitted powers",
    full={"dims": [10**4, 10**5, 10**6, 4 * 10**6], "outer": 50, "dim": 10**5,
          "outers": [50, 100, 200, 500], "repeats": 5},
    tiny={"dims": [100, 200], "outer": 4, "dim": 100, "outers": [4, 8], "repeats": 1},
)  # fmt: skip
def growth(
    dims: list[int], outer: int, dim: int, outers: list[int], repeats: int
) -> dict[str, Any]:
    """Time the analysis in memory, all sizes in turns: what disturbs a while disturbs them all."""
    sizes = {"D": [(D, outer) for D in dims], "n_o": [(dim, n) for n in outers]}
    sketches = {(D, n): sketch_in_memory(D, n, 2 * n) for pairs in sizes.values() for D, n in pairs}
    times: dict[tuple[int, int], dict[str, list[float]]] = {
        pair: {"core": [], "overlap": [], "best mask": []} for pair in sketches
    }
    for _ in range(repeats):
        for pair, (Y, W, params) in sketches.items():
            eigh = decompose(Y, W)
            mask = largest_parameters(params, pair[1])
            took = times[pair]
            took["core"].append(seconds(partial(decompose, Y, W)))
            took["overlap"].append(seconds(partial(mask_curves, eigh, [mask])))
            took["best mask"].append(seconds(partial(all_masks, eigh)))
    results: dict[str, Any] = {}
    for name, pairs in sizes.items():
        rows, totals = [], []
        for D, n in pairs:
            medians = {part: summary(values) for part, values in times[D, n].items()}
            rows.append({"D": D, "n_o": n, "seconds": medians})
            totals.append(sum(took["median"] for took in medians.values()))
        # The smallest size costs what its few calls cost; the growth shows in the others.
        first = min(1, len(pairs) - 2)
        swept = [pair[0 if name == "D" else 1] for pair in pairs]
        allowed = [x * np.log(x) if name == "D" else x**2 for x in swept]
        results[name] = {
            "rows": rows,
            "power": fitted_power(swept[first:], totals[first:]),
            "allowed_power": fitted_power(swept[first:], allowed[first:]),
        }
    return results


@case(
    "analysis_naive",
    "orthogonalise, core and overlap against the naive way, same run, same measurements",
    full={"dim": 200_000, "outer": 304, "inner": 608, "repeats": 3},
    tiny={"dim": 300, "outer": 6, "inner": 12, "repeats": 1},
)
def against_naive(dim: int, outer: int, inner: int, repeats: int) -> dict[str, Any]:
    """Run both; the naive way once."""
    Y, W, params = sketch_in_memory(dim, outer, inner)
    found: dict[str, Any] = {}

    def ours() -> None:
        eigh = decompose(Y, W)
        found["S"] = eigh.S
        (found["curve"],) = mask_curves(eigh, [largest_parameters(params, outer)])

    def naive() -> None:
        found["naive S"], V = naive_seigh(Y, W, SEED)
        found["naive curve"] = naive_overlap(V, params)

    ours_seconds = [seconds(ours) for _ in range(repeats)]
    naive_seconds = seconds(naive)
    difference = (found["S"] - found["naive S"]).abs().max() / found["S"].abs().max()
    return {
        "seconds": summary(ours_seconds),
        "naive_seconds": naive_seconds,
        "ratio": naive_seconds / summary(ours_seconds)["median"],
        "eigenvalue_difference": float(difference),
        "curve_difference": float((found["curve"] - found["naive curve"]).abs().max()),
    }


def make_store(
    directory: Path, dim: int, outer: int, inner: int, block: int, recovery: str = "seigh"
) -> dict[str, float]:
    """Measure the known operator into a store; return seconds per stage."""
    operator = known_operator(dim)
    kept, others = (outer, inner) if recovery == "seigh" else (inner, 0)
    create_hdf5_layout(directory, (dim, dim), np.dtype("f4"), kept, others, symmetric=True)
    Phi, Psi = (SSRFT((inner, dim), SEED + shift) for shift in (0, 1))
    sizes = {"dim": dim, "outer": outer, "inner": inner, "recovery": recovery}
    (directory / "sizes.json").write_text(json.dumps(sizes))
    stage = Stages()

    def measure(idxs: range) -> list[Tensor]:
        if recovery == "seigh":
            found = innermeas_batch_torch(idxs, operator, Phi, Psi)
            return [found.outer, found.inner]
        return [linmeas_batch_torch(idxs, operator, Psi, torch.float32)]

    for begin in range(0, inner, block):
        idxs = range(begin, min(begin + block, inner))
        found = stage("computing", partial(measure, idxs))
        for i, idx in enumerate(idxs):
            values = [np.ascontiguousarray(part[:, i].numpy()) for part in found]
            stage("storing", partial(_store, directory, idx, values, kept))
    return stage.seconds


def _store(directory: Path, idx: int, values: list[np.ndarray], kept: int) -> None:
    for fmt, array in zip((LO_FMT, INNER_FMT), values, strict=False):
        if fmt == INNER_FMT or idx < kept:
            path = DistributedHDF5.subpath(directory, fmt, idx)
            DistributedHDF5.write(path, array, FLAG, {"operator": "known"})


def analyse(directory: Path, budget: int, num_a_posteriori: int) -> dict[str, Any]:
    """Run :mod:`benchmarks.analyse_store` in a process of its own."""
    output = directory / "analysis.json"
    words = [str(directory), str(budget), str(num_a_posteriori), str(output)]
    subprocess.run([sys.executable, "-m", "benchmarks.analyse_store", *words], cwd=ROOT, check=True)
    return json.loads(output.read_text())


def errors(result: dict[str, Any], dim: int) -> dict[str, float]:
    """Compare with the known eigenvalues ``k^-1`` and the norms that follow from them."""
    S = torch.tensor(result["S"]).abs()
    true = torch.arange(1, dim + 1, dtype=torch.float64).reciprocal()
    relative = (S - true[: len(S)]).abs() / true[: len(S)]
    tail = float(true[len(S) :].square().sum())
    return {
        "top_tenth": float(relative[: max(1, len(S) // 10)].max()),
        "residual_over_best_residual": (result["Frob(H-H_K)^2"] / tail) ** 0.5,
        "estimated_over_true_norm": (result["Frob(H)^2"] / float(true.square().sum())) ** 0.5,
    }


@case(
    "analysis_memory",
    "D = 4e6, n_o = 200 from disk, with 1 GB and with much memory",
    full={"dim": 4_000_000, "outer": 200, "inner": 400, "budget": 10**9, "large": 10**10,
          "block": 8, "num_a_posteriori": 30},
    tiny={"dim": 500, "outer": 4, "inner": 8, "budget": 10**5, "large": 10**9, "block": 3,
          "num_a_posteriori": 3},
    long=True,
)  # fmt: skip
def memory(
    dim: int, outer: int, inner: int, budget: int, large: int, block: int, num_a_posteriori: int
) -> dict[str, Any]:
    """Analyse the same store with both budgets, each in a process of its own."""
    with scratch() as temporary:
        directory = Path(temporary)
        made = make_store(directory, dim, outer, inner, block)
        runs = {name: analyse(directory, b, num_a_posteriori)
                for name, b in (("budget", budget), ("large", large))}  # fmt: skip
    pairs = {
        name: (np.array(runs["budget"][name]), np.array(runs["large"][name]))
        for name in ("S", "frob_Qtop^2", "Frob(H)^2", "Frob(H-H_K)^2")
    }
    return {
        "making_seconds": made,
        "differences": {
            name: float(np.abs(a - b).max() / np.abs(b).max()) for name, (a, b) in pairs.items()
        },
        "errors": errors(runs["budget"], dim),
        "runs": {
            name: {k: v for k, v in run.items() if not isinstance(v, list)}
            for name, run in runs.items()
        },
    }


@case(
    "analysis_3c3d",
    "the analysis of a full CIFAR-10 3c3d sketch: D = 895210, n_o = 1000, n_i = 2000",
    full={"dim": 895_210, "outer": 1000, "inner": 2000, "budget": 4 * 10**9, "block": 36,
          "num_a_posteriori": 30},
    tiny={"dim": 500, "outer": 6, "inner": 12, "budget": 10**6, "block": 5,
          "num_a_posteriori": 3},
    long=True,
)  # fmt: skip
def full_3c3d(
    dim: int, outer: int, inner: int, budget: int, block: int, num_a_posteriori: int
) -> dict[str, Any]:
    """Measure a known operator of that size into a store and analyse it as 10d does."""
    with scratch() as temporary:
        directory = Path(temporary)
        made = make_store(directory, dim, outer, inner, block)
        run = analyse(directory, budget, num_a_posteriori)
    return {
        "making_seconds": made,
        "errors": errors(run, dim),
        "run": {k: v for k, v in run.items() if not isinstance(v, list)},
    }


@case(
    "analysis_one_pass",
    "nystrom beside seigh at as many products: D = 4e6, n_i = 400 from disk with 1 GB",
    full={"dim": 4_000_000, "outer": 200, "inner": 400, "budget": 10**9, "block": 8,
          "num_a_posteriori": 30},
    tiny={"dim": 500, "outer": 4, "inner": 8, "budget": 10**5, "block": 3,
          "num_a_posteriori": 3},
)  # fmt: skip
def one_pass(
    dim: int, outer: int, inner: int, budget: int, block: int, num_a_posteriori: int
) -> dict[str, Any]:
    """Measure and analyse with both, one after the other."""
    made, runs = {}, {}
    for recovery in ("seigh", "nystrom"):
        with scratch() as temporary:
            directory = Path(temporary)
            made[recovery] = make_store(directory, dim, outer, inner, block, recovery)
            runs[recovery] = analyse(directory, budget, num_a_posteriori)
    total = {name: sum(run["seconds"].values()) for name, run in runs.items()}
    return {
        "making_seconds": made,
        "errors": {name: errors(run, dim) for name, run in runs.items()},
        "time_ratio": total["nystrom"] / total["seigh"],
        "measuring_ratio": made["nystrom"]["computing"] / made["seigh"]["computing"],
        "runs": {
            name: {k: v for k, v in run.items() if not isinstance(v, list)}
            for name, run in runs.items()
        },
    }
