"""Analyses a store of :mod:`benchmarks.analysis` in a process of its own: 10d without a network.

``python -m benchmarks.analyse_store DIRECTORY BUDGET_BYTES OUTPUT.json``
"""

from __future__ import annotations

import contextlib
import io
import json
import sys
from functools import partial
from pathlib import Path
from typing import Any

import torch

from applesandoranges.analysis.report import AnalysedHessian, AnalysisConfig, log_analysis
from applesandoranges.app.log import JsonLog, read_log
from applesandoranges.app.machine import return_freed_memory
from applesandoranges.measurement.merge import Merge
from skerch.core import nystrom
from skerch.core.orthogonal import orthogonalize
from skerch.core.row_blocks import RowBlocks
from skerch.core.sketch import budget_beside_core, solve_core_seigh
from skerch.results import Eigh
from skerch.ssrft import SSRFT

from .harness import Stages, peak_rss
from .synthetic import SEED, known_operator

FLAG = "measured"
#: What is measured, by recovery.
NAMES = {"seigh": ("leftouter", "inner"), "nystrom": ("leftouter",)}


def orthonormality(eigh: Eigh) -> float:
    """Return ``max |Q^T Q - I|``, in one pass over the measurements."""
    width = eigh.factor.shape[1]
    gram = torch.zeros(width, width, dtype=torch.float64)
    for _, block in eigh.Y:
        Q = block @ eigh.factor
        gram += Q.T @ Q
    return float((gram - torch.eye(len(gram), dtype=gram.dtype)).abs().max())


def _merge(directory: Path, name: str, budget: int) -> Merge:
    return Merge(
        directory / f"{name}_ALL.h5", directory / f"{name}_MERGED.h5", name, FLAG, {}, budget
    )


def _seigh(data: dict[str, Any], sizes: dict[str, Any], budget: int, stage: Stages) -> Eigh:
    outer, inner = sizes["outer"], sizes["inner"]
    W = torch.from_numpy(data["inner"][:]).double()
    Y = RowBlocks(data["leftouter"], budget_beside_core(budget, outer, inner))
    factor = stage("orthogonalising", lambda: orthogonalize(Y, W[:, :outer]))
    Psi = SSRFT((inner, sizes["dim"]), SEED + 1)
    return stage("solving the core", lambda: solve_core_seigh(Y, W, Psi, True, factor))


def _nystrom(data: dict[str, Any], sizes: dict[str, Any], budget: int, stage: Stages) -> Eigh:
    outer, inner = sizes["outer"], sizes["inner"]
    Y = RowBlocks(data["leftouter"], nystrom.budget_beside_core(budget, inner))
    Psi = SSRFT((inner, sizes["dim"]), SEED + 1)
    return stage("solving the core", lambda: nystrom.solve_nystrom(Y, Psi, outer))


def main(directory: Path, budget: int, num_a_posteriori: int) -> dict[str, Any]:
    """Merge, orthogonalise, solve the core, and everything that 10d logs."""
    return_freed_memory()  # as 10d does
    at_start = peak_rss()
    sizes = json.loads((directory / "sizes.json").read_text())
    decompose = _nystrom if sizes["recovery"] == "nystrom" else _seigh
    operator = known_operator(sizes["dim"])
    log_path = directory / f"analysis_{budget}.log"
    stage = Stages()
    with contextlib.redirect_stdout(io.StringIO()):
        merges = {name: _merge(directory, name, budget) for name in NAMES[sizes["recovery"]]}
        for name, merge in merges.items():
            stage(f"merging {name}_ALL", partial(merge.run, False))
        with contextlib.ExitStack() as stack:
            data = {name: stack.enter_context(m.open())["data"] for name, m in merges.items()}
            eigh = decompose(data, sizes, budget, stage)
            hessian = AnalysedHessian(
                operator, operator.diagonal, SEED, num_a_posteriori, {"all": [sizes["dim"]]}
            )
            config = AnalysisConfig(NUM_A_POSTERIORI=num_a_posteriori)
            with JsonLog(log_path) as log:
                log_all = partial(log_analysis, log, "RESULT", {}, eigh, hessian, config)
                stage("errors and overlap", log_all)
            off = stage("checking Q", lambda: orthonormality(eigh))
    bodies: dict[str, Any] = {}
    for body in read_log(log_path).bodies("RESULT"):
        bodies = body | bodies
    return {
        "seconds": stage.seconds,
        "peak_rss_bytes": max(stage.peak_rss_bytes.values()),
        "peak_rss_bytes_of": stage.peak_rss_bytes,
        "rss_at_start_bytes": at_start,
        "off_orthonormal": off,
        "qr_method": eigh.diagnostics["qr_method"],
        "S": eigh.S.tolist(),
        **{name: bodies[name] for name in ("Frob(H)^2", "Frob(H-H_K)^2", "frob_Qtop^2")},
    }


if __name__ == "__main__":
    result = main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
    Path(sys.argv[4]).write_text(json.dumps(result))
