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
from applesandoranges.measurement.recovery import Recovery, Store, make_recovery
from applesandoranges.measurement.seigh import sketch_sizes
from applesandoranges.measurement.sizes import RecoveryConfig, kind_of, make_sizes
from skerch import INNER_FMT, LO_FMT
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


def make(config: Config, recorded: RecordedHessian) -> Recovery:
    """Return the recovery that the keys describe."""
    virtual = {LO_FMT: config.OUTER_VIRTUAL, INNER_FMT: config.INNER_VIRTUAL}
    merged = {LO_FMT: config.OUTER_MONOLITHIC, INNER_FMT: config.INNER_MONOLITHIC}
    store = Store(
        virtual={fmt: Path(path) for fmt, path in virtual.items() if path is not None},
        merged={fmt: Path(path) for fmt, path in merged.items() if path is not None},
        flag=config.SUCCESS_FLAG,
        budget=budget_bytes(config.MEMORY_BUDGET_GB),
        allow_unknown=config.ALLOW_UNKNOWN_PROVENANCE,
    )
    inner, outer, options = config.NUM_INNER, config.NUM_OUTER, {}
    if kind_of(config.RECOVERY).sketch:
        if config.INNER_VIRTUAL is None or config.INNER_MONOLITHIC is None:
            raise InputError("missing key INNER_VIRTUAL or INNER_MONOLITHIC (RECOVERY=seigh)")
        outer, inner = sketch_sizes(store, recorded.dim)
        options = {"symmetrize": config.SYMMETRIZE_CORE}
    sizes = make_sizes(config, recorded.dim, inner, outer)
    return make_recovery(recorded, sizes, store, **options)


def main(config: Config) -> None:
    """Merge, solve, analyse."""
    check_analysis(config)
    check_number(config.EIGENVECTORS)
    return_freed_memory()
    recorded = load_recorded_hessian(config)
    recovery = make(config, recorded)
    plan = recorded.operator.make_plan() if config.WITH_A_POSTERIORI else None
    doubts = [*recorded.doubts, *recovery.check()]

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
        log(events.GLOBALS, recovery.facts | facts | {"made_with": made_with()})
        for doubt in doubts:
            log.warning(doubt, where)
        if recovery.remeasured:
            log.info(events.REMEASURED, where | recovery.remeasured)
        if plan:
            log.info(events.PRODUCTS, where | plan.summary())
        for name, merge in recovery.merges.items():
            stage(events.MERGING.format(name))
            if not merge.run(config.DELETE_MERGED_SUBFILES):
                stage(events.MERGED_BEFORE.format(name))
            merged.append(name)
        with recovery.solved(stage) as eigh:
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
