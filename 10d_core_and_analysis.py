"""Merges the measurements of one Hessian, recovers its top eigenpairs and analyses them.

Needs all measurements of 10c. Logs eigenvalues, a-posteriori errors, scree bounds, and the overlap
of the largest parameters with the top eigenspace for all ranks. The monolithic files are filled
anew for each Hessian.
"""

import sys
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from applesandoranges.analysis import (
    AnalysedHessian,
    AnalysisConfig,
    check_analysis,
    log_analysis,
)
from applesandoranges.jsonlog import JsonLog, file_stamp, logs_stop
from applesandoranges.merging import Merge, sketch_sizes
from applesandoranges.recorded_hessian import RecordedHessianConfig, load_recorded_hessian
from applesandoranges.resources import budget_bytes
from applesandoranges.script_config import key, run_script
from applesandoranges.software import made_with
from skerch.distributed_decompositions import orthogonalize, solve_core_seigh
from skerch.row_blocks import RowBlocks


@dataclass
class Config(AnalysisConfig, RecordedHessianConfig):
    """Keys of this script."""

    INNER_VIRTUAL: str = key("virtual file of the inner measurements, inner_ALL.h5")
    OUTER_VIRTUAL: str = key("virtual file of the outer measurements, leftouter_ALL.h5")
    INNER_MONOLITHIC: str = key("monolithic file of the inner measurements, filled here")
    OUTER_MONOLITHIC: str = key("monolithic file of the outer measurements, filled here")
    DELETE_MERGED_SUBFILES: bool = key("remove the sub-files once they are merged", False)


def main(config: Config) -> None:
    """Merge, solve, analyse."""
    check_analysis(config)
    budget = budget_bytes(config.MEMORY_BUDGET_GB)
    recorded = load_recorded_hessian(config)
    inner_all, outer_all = Path(config.INNER_VIRTUAL), Path(config.OUTER_VIRTUAL)
    provenance = recorded.sketch_provenance(*sketch_sizes(outer_all, inner_all, recorded.dim))
    how = (config.SUCCESS_FLAG, provenance, budget, config.ALLOW_UNKNOWN_PROVENANCE)
    inner = Merge(inner_all, Path(config.INNER_MONOLITHIC), *how)
    outer = Merge(outer_all, Path(config.OUTER_MONOLITHIC), *how)
    doubts = [*recorded.doubts, *(doubt for merge in (inner, outer) for doubt in merge.check())]

    where = {"step": config.STEP, "H_test": config.TEST_HESSIAN}
    suffix = f"__step={config.STEP}__test={config.TEST_HESSIAN}.log"
    merged: list[str] = []
    with (
        JsonLog(recorded.run_dir / f"{file_stamp()}[{Path(__file__).name}]{suffix}") as log,
        logs_stop(log, lambda: where | {"merged": merged}),
    ):
        log("CONFIG", asdict(config))
        facts = {"num_params": recorded.dim, "data_source": recorded.source}
        log("GLOBALS", provenance | facts | {"made_with": made_with()})
        for doubt in doubts:
            log("WARNING", [doubt, where])
        for name, merge in (("inner", inner), ("outer", outer)):
            log("INFO", [f"Merging {name} measurements", where])
            if not merge.run(config.DELETE_MERGED_SUBFILES):
                log("INFO", [f"The {name} measurements were merged before", where])
            merged.append(name)
        with inner.open() as inner_file, outer.open() as outer_file:
            device = recorded.problem.device
            W = torch.from_numpy(inner_file["data"][:]).to(device, torch.float64)
            Y = RowBlocks(outer_file["data"], budget, device)
            log("INFO", ["Orthogonalising", where])
            factor = orthogonalize(Y, W[:, : Y.shape[1]])
            log("INFO", ["Solving the core", where])
            _, Psi = recorded.test_matrices(len(W))
            eigh = solve_core_seigh(Y, W, Psi, config.SYMMETRIZE_CORE, factor)
            hessian = AnalysedHessian(recorded.operator, recorded.params, recorded.seed)
            log_analysis(log, "RESULT", where, eigh, hessian, config)
        log("INFO", ["Analysis done", where | {"log": log.path}])


if __name__ == "__main__":
    sys.exit(run_script(__file__, Config, main))
