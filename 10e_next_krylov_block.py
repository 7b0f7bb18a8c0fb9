"""Makes the next block of a recovery in rounds (RECOVERY=krylov or hmt) of the products of a round.

Comes between two rounds of measurements by 10c: merges the products of ROUND, orthonormalises them
against the basis so far, and writes the block that ROUND + 1 multiplies. Does nothing, and says so,
if that block is there already. After the last round comes 10d. With START, the block that round 0
multiplies is made first, by ROUND=-1. With ACCURACY, no other block is made once the error band of
the overlap is that narrow at k = NUM_OUTER; otherwise the log says what it would still take.
"""

import sys
from dataclasses import asdict, dataclass
from pathlib import Path

from applesandoranges.app.keys import key, run_script, starting
from applesandoranges.measurement.keys import RecordedHessianConfig
from applesandoranges.measurement.sizes import AccuracyConfig, RecoveryConfig


@dataclass
class Config(AccuracyConfig, RecoveryConfig, RecordedHessianConfig):
    """Keys of this script."""

    MEASUREMENTS_DIR: str = key("the store")
    ROUND: int = key("round whose products are measured; -1 makes the first block of START")
    NUM_INNER: int | None = key("products in all, over all rounds", None)
    NUM_OUTER: int | None = key(
        "eigenpairs that are wanted (ACCURACY)", None, shown="half of the products"
    )


with starting(__name__, Config):  # --help and wrong keys end here, before PyTorch is loaded
    from applesandoranges.analysis.accuracy import (
        ENOUGH,
        ERROR,
        Accuracy,
        log_accuracy,
        overlap_error,
    )
    from applesandoranges.analysis.starts import start_options
    from applesandoranges.app import events
    from applesandoranges.app.log import JsonLog, file_stamp
    from applesandoranges.app.machine import budget_bytes
    from applesandoranges.app.software import made_with
    from applesandoranges.measurement.recorded_hessian import load_recorded_hessian
    from applesandoranges.measurement.recovery import Store, make_recovery
    from applesandoranges.measurement.rounds import Krylov
    from applesandoranges.measurement.sizes import check_accuracy, make_sizes, stated


def accuracy(recovery: Krylov, wanted: float) -> Accuracy:
    """Return how accurate the rounds so far are; no product, but a solution as by 10d."""
    spent, error = recovery.spent(recovery.number), None
    if spent["num_products"] >= spent["k"]:
        with recovery.so_far().solved(lambda stage: None) as eigh:
            error = overlap_error(eigh, recovery.recorded.params, spent["k"])
    before = recovery.said_of(recovery.number).get(ERROR)
    return Accuracy(wanted=wanted, error=error, before=before, **spent)


def main(config: Config) -> None:
    """Merge, orthonormalise, write."""
    budget = budget_bytes(config.MEMORY_BUDGET_GB)
    recorded = load_recorded_hessian(config)
    sizes = make_sizes(config, recorded.dim, config.NUM_INNER, config.NUM_OUTER)
    check_accuracy(config, sizes)
    store = Store.in_directory(Path(config.MEASUREMENTS_DIR), config.SUCCESS_FLAG, budget)
    first, start = config.ROUND == -1, start_options(config.START, recorded.dim)
    recovery = make_recovery(recorded, sizes, store, 0 if first else config.ROUND, **start)
    where = {"step": config.STEP, "H_test": config.TEST_HESSIAN, "round": config.ROUND}
    name = f"{file_stamp()}[{Path(__file__).name}]__step={config.STEP}__test={config.TEST_HESSIAN}"
    with JsonLog(recorded.run_dir / f"{name}__round={config.ROUND}.log") as log:
        if not first and recovery.ended:
            log.info(events.NO_ROUND_LEFT, where | {"reason": recovery.ended})
            return
        found = None
        if config.ACCURACY and not first and isinstance(recovery, Krylov):
            found = None if recovery.next_is_made else accuracy(recovery, config.ACCURACY)
        said = {} if found is None or found.error is None else {ERROR: found.error}
        step = None
        if found is not None and found.is_reached:
            recovery.end(ENOUGH, said)
        else:
            step = recovery.begin() if first else recovery.advance(said)
        log(events.CONFIG, asdict(config))
        log(events.GLOBALS, stated(recovery.provenance) | {"made_with": made_with()})
        if recovery.remeasured:
            log.info(events.REMEASURED, where | recovery.remeasured)
        if found is not None:
            log_accuracy(log, where, found)
        if step is not None:
            log.info(events.NEXT_BLOCK, where | {"columns": step.rank})
        elif found is None:
            log.info(events.BLOCK_IS_THERE, where)


if __name__ == "__main__":
    sys.exit(run_script(__file__, Config, main))
