"""Makes the next block of a recovery in rounds (RECOVERY=krylov or hmt) of the products of a round.

Comes between two rounds of measurements by 10c: merges the products of ROUND, orthonormalises them
against the basis so far, and writes the block that ROUND + 1 multiplies. Does nothing, and says so,
if that block is there already. After the last round comes 10d.
"""

import sys
from dataclasses import asdict, dataclass
from pathlib import Path

from applesandoranges.app import events
from applesandoranges.app.config import key, run_script
from applesandoranges.app.log import JsonLog, file_stamp
from applesandoranges.app.machine import budget_bytes
from applesandoranges.app.software import made_with
from applesandoranges.measurement.recorded import RecordedHessianConfig, load_recorded_hessian
from applesandoranges.measurement.recovery import Store, make_recovery
from applesandoranges.measurement.sizes import RecoveryConfig, make_sizes


@dataclass
class Config(RecoveryConfig, RecordedHessianConfig):
    """Keys of this script."""

    MEASUREMENTS_DIR: str = key("the store")
    ROUND: int = key("round whose products are measured")
    NUM_INNER: int | None = key("products in all, over all rounds", None)


def main(config: Config) -> None:
    """Merge, orthonormalise, write."""
    budget = budget_bytes(config.MEMORY_BUDGET_GB)
    recorded = load_recorded_hessian(config)
    sizes = make_sizes(config, recorded.dim, config.NUM_INNER)
    store = Store.in_directory(Path(config.MEASUREMENTS_DIR), config.SUCCESS_FLAG, budget)
    recovery = make_recovery(recorded, sizes, store, config.ROUND)
    where = {"step": config.STEP, "H_test": config.TEST_HESSIAN, "round": config.ROUND}
    name = f"{file_stamp()}[{Path(__file__).name}]__step={config.STEP}__test={config.TEST_HESSIAN}"
    with JsonLog(recorded.run_dir / f"{name}__round={config.ROUND}.log") as log:
        if recovery.is_exhausted:
            log.info(events.INVARIANT, where)
            return
        step = recovery.advance()
        log(events.CONFIG, asdict(config))
        log(events.GLOBALS, recovery.provenance | {"made_with": made_with()})
        if step is None:
            log.info(events.BLOCK_IS_THERE, where)
        else:
            log.info(events.NEXT_BLOCK, where | {"columns": step.rank})


if __name__ == "__main__":
    sys.exit(run_script(__file__, Config, main))
