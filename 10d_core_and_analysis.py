"""Merges the measurements of one Hessian, recovers its top eigenpairs and analyses them.

Needs all measurements of 10c. Logs eigenvalues, a-posteriori errors, scree bounds, and the overlap
of the largest parameters with the top eigenspace for all ranks. The monolithic files are filled
anew for each Hessian. RECOVERY must be the one that was measured.
"""

import sys
from dataclasses import asdict, dataclass
from pathlib import Path

from applesandoranges.analysis.eigenspaces import EigenvectorFiles, check_number, keep_eigenvectors
from applesandoranges.analysis.report import (
    AnalysedHessian,
    AnalysisConfig,
    check_analysis,
    log_analysis,
)
from applesandoranges.app import events
from applesandoranges.app.config import key, run_script
from applesandoranges.app.log import JsonLog, file_stamp, logs_stop
from applesandoranges.app.machine import budget_bytes, return_freed_memory
from applesandoranges.app.software import made_with
from applesandoranges.measurement.recorded import (
    RecordedHessian,
    RecordedHessianConfig,
    load_recorded_hessian,
)
from applesandoranges.measurement.recoveries import RecoveryConfig, make_recovery
from applesandoranges.measurement.recovering import Paths, RoundsSolver, SeighSolver, Solver
from applesandoranges.measurement.rounds import RoundStore
from skerch.errors import InputError


@dataclass
class Config(AnalysisConfig, RecoveryConfig, RecordedHessianConfig):
    """Keys of this script."""

    OUTER_VIRTUAL: str = key("virtual file of the outer measurements, leftouter_ALL.h5")
    OUTER_MONOLITHIC: str = key("monolithic file of the outer measurements, filled here")
    INNER_VIRTUAL: str | None = key("virtual file of the inner ones (seigh)", None)
    INNER_MONOLITHIC: str | None = key("monolithic file of the inner ones (seigh)", None)
    NUM_OUTER: int | None = key(
        "eigenpairs that are wanted (hmt, krylov)", None, shown="half of the products"
    )
    NUM_INNER: int | None = key("products in all rounds (hmt, krylov)", None)
    EIGENVECTORS: int = key("leading eigenvectors to write, and to compare with other steps", 0)
    DELETE_MERGED_SUBFILES: bool = key("remove the sub-files once they are merged", False)


def make_solver(config: Config, recorded: RecordedHessian, budget: int) -> Solver:
    """Return the recovery that the keys describe."""
    outer = Path(config.OUTER_VIRTUAL), Path(config.OUTER_MONOLITHIC)
    recovery = make_recovery(config, config.NUM_INNER, recorded.dim)
    if recovery.in_rounds:
        store = RoundStore(outer[0].parent, recorded, recovery, config.SUCCESS_FLAG, budget)
        return RoundsSolver(store, Paths(*outer), config.NUM_OUTER)
    if config.INNER_VIRTUAL is None or config.INNER_MONOLITHIC is None:
        raise InputError("missing key INNER_VIRTUAL or INNER_MONOLITHIC (RECOVERY=seigh)")
    return SeighSolver(
        recorded,
        Paths(*outer, Path(config.INNER_VIRTUAL), Path(config.INNER_MONOLITHIC)),
        config.SUCCESS_FLAG,
        budget,
        config.ALLOW_UNKNOWN_PROVENANCE,
        config.SYMMETRIZE_CORE,
    )


def main(config: Config) -> None:
    """Merge, solve, analyse."""
    check_analysis(config)
    check_number(config.EIGENVECTORS)
    return_freed_memory()
    recorded = load_recorded_hessian(config)
    solver = make_solver(config, recorded, budget_bytes(config.MEMORY_BUDGET_GB))
    plan = recorded.operator.make_plan() if config.WITH_A_POSTERIORI else None
    doubts = [*recorded.doubts, *solver.check()]

    where = {"step": config.STEP, "H_test": config.TEST_HESSIAN}
    suffix = f"__step={config.STEP}__test={config.TEST_HESSIAN}.log"
    merged: list[str] = []
    with (
        JsonLog(recorded.run_dir / f"{file_stamp()}[{Path(__file__).name}]{suffix}") as log,
        logs_stop(log, lambda: where | {"merged": merged}),
    ):

        def stage(name: str) -> None:
            log.info(name, where)

        log(events.CONFIG, asdict(config))
        facts = {"num_params": recorded.dim, "data_source": recorded.source}
        log(events.GLOBALS, solver.provenance | facts | {"made_with": made_with()})
        for doubt in doubts:
            log.warning(doubt, where)
        if solver.remeasured:
            log.info(events.REMEASURED, where | solver.remeasured)
        if plan:
            log.info(events.PRODUCTS, where | plan.summary())
        for name, merge in solver.merges.items():
            stage(events.MERGING.format(name))
            if not merge.run(config.DELETE_MERGED_SUBFILES):
                stage(events.MERGED_BEFORE.format(name))
            merged.append(name)
        with solver.solved(stage) as eigh:
            vectors = plan.vectors if plan else 1
            hessian = AnalysedHessian(recorded.operator, recorded.params, recorded.seed, vectors)
            log_analysis(log, events.RESULT, where, eigh, hessian, config)
            if config.EIGENVECTORS:
                stage(events.WRITING_EIGENVECTORS)
                keep = EigenvectorFiles(recorded.run_dir, recorded.identity)
                for body in keep_eigenvectors(keep, eigh, config.EIGENVECTORS):
                    log(events.RESULT, where | body)
        log.info(events.ANALYSED, where | {"log": log.path})


if __name__ == "__main__":
    sys.exit(run_script(__file__, Config, main))
