"""Measures the Hessian of a recorded step with random vectors, into an HDF5 store.

Needs a training by 10a and a store (python -m skerch create_hdf5_layout). Every measurement depends
on its index and the seed alone, so the indices may be split over jobs in any way. Indices that are
measured already are skipped: run the same command again to resume. With RECOVERY=krylov or hmt it
measures the products of one ROUND, indices 0 ... BLOCK_SIZE - 1; 10e comes between two rounds.
"""

import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from applesandoranges.app.keys import key, run_script, starting
from applesandoranges.measurement.keys import RecordedHessianConfig
from applesandoranges.measurement.sizes import RecoveryConfig


@dataclass
class Config(RecoveryConfig, RecordedHessianConfig):
    """Keys of this script."""

    MEASUREMENTS_DIR: str = key("the store")
    NUM_INNER: int = key("inner measurements n_i of the sketch; products in all rounds")
    NUM_OUTER: int = key("outer measurements n_o of the sketch; eigenpairs that are wanted")
    MEASUREMENT_IDXS: list[int] = key("which of 0 ... n_i - 1 to measure, e.g. 0-99 or [0,1,2]")
    ROUND: int = key("round to measure (hmt, krylov)", 0)
    CHECK_OPERATOR: bool = key(
        "stop at once if the loss is random or the Hessian is not symmetric", True
    )


with starting(__name__, Config):  # --help and wrong keys end here, before PyTorch is loaded
    from applesandoranges.analysis.starts import start_options
    from applesandoranges.app import events
    from applesandoranges.app.log import JsonLog, file_stamp, logs_stop
    from applesandoranges.app.machine import budget_bytes, keep_freed_memory
    from applesandoranges.app.software import made_with
    from applesandoranges.measurement.loop import measure
    from applesandoranges.measurement.recorded_hessian import RecordedHessian, load_recorded_hessian
    from applesandoranges.measurement.recovery import Recovery, Store, make_recovery
    from applesandoranges.measurement.sizes import make_sizes, stated
    from skerch.store.files import remove_stale_asides


def make(config: Config, recorded: RecordedHessian) -> Recovery:
    """Return the recovery that the keys describe, at its round."""
    sizes = make_sizes(config, recorded.dim, config.NUM_INNER, config.NUM_OUTER)
    budget = budget_bytes(config.MEMORY_BUDGET_GB)
    store = Store.in_directory(Path(config.MEASUREMENTS_DIR), config.SUCCESS_FLAG, budget)
    start = start_options(config.START, recorded.dim)
    return make_recovery(recorded, sizes, store, config.ROUND, **start)


def run_globals(recovery: Recovery) -> dict[str, Any]:
    """Return what all measurements have in common, under the names of published logs and ours."""
    provenance = recovery.provenance
    seeds = {"li_seed": provenance.get("seed_phi"), "ri_seed": provenance.get("seed_psi")}
    given = {name: seed for name, seed in seeds.items() if seed is not None}
    return recovery.recorded.training | given | stated(provenance)


def main(config: Config) -> None:
    """Measure what is missing."""
    keep_freed_memory()
    recorded = load_recorded_hessian(config)
    recovery = make(config, recorded)
    recovery.check_store()
    idxs = recovery.check_indices(config.MEASUREMENT_IDXS)
    missing = recovery.missing(idxs)
    if missing:
        recorded.operator.make_plan()  # before anything is written: the budget may be too small
    where = {"step": recorded.step, "H_test": recorded.test, "num": len(idxs) - len(missing)}

    def summary() -> dict[str, int]:
        left = len(recovery.missing(idxs))
        return {"measured": len(idxs) - left, "missing": left}

    name = f"{file_stamp()}[{Path(__file__).name}]__idxs=<{idxs[0]}...{idxs[-1]}>.log"
    remove_stale_asides(recovery.store.directory)
    with JsonLog(recorded.run_dir / name) as log, logs_stop(log, summary):
        log(events.CONFIG, asdict(config) | {"MEASUREMENT_IDXS": idxs})
        log(events.GLOBALS, run_globals(recovery) | {"made_with": made_with()})
        log.info(events.TEST_MATRICES, recovery.seeds)
        for doubt in recorded.doubts:
            log.warning(doubt, where)
        if len(missing) < len(idxs):
            log.info(events.SKIPPING, where)
        if not missing:
            log.info(events.NOTHING_TO_MEASURE, where)
            return
        if config.CHECK_OPERATOR:
            recorded.check()
        measure(recovery, missing, log)


if __name__ == "__main__":
    sys.exit(run_script(__file__, Config, main))
