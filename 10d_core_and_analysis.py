"""Merges the measurements of one Hessian, recovers its top eigenpairs and analyses them.

Needs all measurements of 10c. Logs eigenvalues, a-posteriori errors, scree bounds, and the overlap
of the largest parameters with the top eigenspace for all ranks. The monolithic files are filled
anew for each Hessian. RECOVERY must be the one that was measured.
"""

import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from applesandoranges.analysis.keys import AnalysisConfig
from applesandoranges.app.keys import key, run_script, starting
from applesandoranges.measurement.keys import RecordedHessianConfig
from applesandoranges.measurement.sizes import AccuracyConfig, RecoveryConfig


@dataclass
class Config(AnalysisConfig, AccuracyConfig, RecoveryConfig, RecordedHessianConfig):
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


with starting(__name__, Config):  # --help and wrong keys end here, before PyTorch is loaded
    from applesandoranges.analysis.accuracy import ERROR, Accuracy, log_accuracy, overlap_error
    from applesandoranges.analysis.eigenspaces import (
        EigenvectorFiles,
        check_number,
        keep_eigenvectors,
    )
    from applesandoranges.analysis.keys import check_analysis
    from applesandoranges.analysis.report import AnalysedHessian, log_analysis
    from applesandoranges.analysis.starts import start_options
    from applesandoranges.app import events
    from applesandoranges.app.log import JsonLog, file_stamp, logs_stop
    from applesandoranges.app.machine import budget_bytes, return_freed_memory
    from applesandoranges.app.software import made_with
    from applesandoranges.measurement.recorded_hessian import (
        RecordedHessian,
        load_recorded_hessian,
        state_hashes,
    )
    from applesandoranges.measurement.recovery import Recovery, Store, make_recovery
    from applesandoranges.measurement.rounds import Krylov
    from applesandoranges.measurement.seigh import sketch_sizes
    from applesandoranges.measurement.sizes import check_accuracy, kind_of, make_sizes, stated
    from skerch import INNER_FMT, LO_FMT
    from skerch.errors import InputError
    from skerch.results import Eigh


def make(config: Config, recorded: RecordedHessian) -> Recovery:
    """Return the recovery that the keys describe."""
    virtual = {LO_FMT: config.OUTER_VIRTUAL, INNER_FMT: config.INNER_VIRTUAL}
    merged = {LO_FMT: config.OUTER_MONOLITHIC, INNER_FMT: config.INNER_MONOLITHIC}
    paths = [Path(path).resolve() for path in merged.values() if path is not None]
    if len({*paths}) < len(paths):
        raise InputError("OUTER_MONOLITHIC and INNER_MONOLITHIC are the same file; expected two")
    store = Store(
        virtual={fmt: Path(path) for fmt, path in virtual.items() if path is not None},
        merged={fmt: Path(path) for fmt, path in merged.items() if path is not None},
        flag=config.SUCCESS_FLAG,
        budget=budget_bytes(config.MEMORY_BUDGET_GB),
        allow_unknown=config.ALLOW_UNKNOWN_PROVENANCE,
    )
    inner, outer = config.NUM_INNER, config.NUM_OUTER
    options = start_options(config.START, recorded.dim)
    if kind_of(config.RECOVERY).sketch:
        if config.INNER_VIRTUAL is None or config.INNER_MONOLITHIC is None:
            raise InputError("missing key INNER_VIRTUAL or INNER_MONOLITHIC (RECOVERY=seigh)")
        outer, inner = sketch_sizes(store, recorded.dim)
        options |= {"symmetrize": config.SYMMETRIZE_CORE}
    sizes = make_sizes(config, recorded.dim, inner, outer)
    check_accuracy(config, sizes)
    return make_recovery(recorded, sizes, store, **options)


def log_measurements(log: JsonLog, where: dict[str, Any], recovery: Recovery) -> None:
    """Log of what the measurements are, and what was found when they were checked."""
    recorded = recovery.recorded
    facts = {"num_params": recorded.training["num_params"], "data_source": recorded.source}
    log(events.GLOBALS, stated(recovery.facts) | facts | {"made_with": made_with()})
    log.info(events.TEST_MATRICES, recovery.seeds)
    if len(ways := recovery.ways()) > 1:
        log.warning(events.SEVERAL_WAYS, where | {"measurements": ways})
    if recovery.remeasured:
        log.info(events.REMEASURED, where | recovery.remeasured)


def accuracy(recovery: Krylov, eigh: Eigh, wanted: float) -> Accuracy:
    """Return how accurate the overlap is after all rounds."""
    last = recovery.last_round
    error = overlap_error(eigh, recovery.recorded.params, recovery.sizes.rank)
    before = recovery.said_of(last).get(ERROR)
    return Accuracy(wanted=wanted, error=error, before=before, **recovery.spent(last))


def vector_files(config: Config, recovery: Recovery) -> EigenvectorFiles:
    """Return the files of eigenvectors of all steps, beside the logs."""
    recorded = recovery.recorded
    identity, facts = recorded.identity, stated(recovery.facts)
    made_by = {name: value for name, value in facts.items() if name not in identity}
    hashes = state_hashes(config)
    return EigenvectorFiles(recorded.run_dir, identity, recorded.shapes, made_by, hashes)


def main(config: Config) -> None:
    """Merge, solve, analyse."""
    check_analysis(config)
    check_number(config.EIGENVECTORS)
    return_freed_memory()
    recorded = load_recorded_hessian(config)
    recovery = make(config, recorded)
    plan = recorded.operator.make_plan() if config.WITH_A_POSTERIORI else None
    warnings = [(doubt, {}) for doubt in (*recorded.doubts, *recovery.check())]
    keep = vector_files(config, recovery) if config.EIGENVECTORS else None
    warnings += keep.check() if keep else []

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
        log_measurements(log, where, recovery)
        for text, body in warnings:
            log.warning(text, where | body)
        if plan:
            log.info(events.PRODUCTS, where | plan.summary())
        for name, merge in recovery.merges.items():
            stage(events.MERGING.format(name))
            if not merge.run(config.DELETE_MERGED_SUBFILES):
                stage(events.MERGED_BEFORE.format(name))
            merged.append(name)
        with recovery.solved(stage) as eigh:
            vectors = plan.vectors if plan else 1
            hessian = AnalysedHessian(
                recorded.operator, recorded.params, recorded.seed, vectors, recorded.shapes
            )
            if config.PARAMETERS.strip():
                log(events.RESULT, where | {"num_selected_params": recorded.dim})
            log_analysis(log, events.RESULT, where, eigh, hessian, config)
            if isinstance(recovery, Krylov) and config.ACCURACY:
                log_accuracy(log, where, accuracy(recovery, eigh, config.ACCURACY))
            if keep:
                stage(events.WRITING_EIGENVECTORS)
                for body in keep_eigenvectors(keep, eigh, config.EIGENVECTORS):
                    log(events.RESULT, where | body)
        log.info(events.ANALYSED, where | {"log": log.path})


if __name__ == "__main__":
    sys.exit(run_script(__file__, Config, main))
