"""Measures the Hessian of a recorded step with random vectors, into an HDF5 store.

Needs a training by 10a and a store (python -m skerch create_hdf5_layout). Every measurement depends
on its index and the seed alone, so the indices may be split over jobs in any way. Indices that are
measured already are skipped: run the same command again to resume.
"""

import sys
from dataclasses import asdict, dataclass
from pathlib import Path

from applesandoranges.jsonlog import JsonLog, file_stamp, logs_stop
from applesandoranges.measuring import SketchStore, block_size_within, check_indices, measure
from applesandoranges.recorded_hessian import RecordedHessianConfig, load_recorded_hessian
from applesandoranges.resources import budget_bytes
from applesandoranges.script_config import key, run_script
from applesandoranges.software import made_with
from skerch.hdf5_files import remove_stale_asides


@dataclass
class Config(RecordedHessianConfig):
    """Keys of this script."""

    MEASUREMENTS_DIR: str = key("the store")
    NUM_INNER: int = key("inner measurements n_i of the sketch")
    NUM_OUTER: int = key("outer measurements n_o of the sketch, at most n_i")
    MEASUREMENT_IDXS: list[int] = key("which of 0 ... n_i - 1 to measure, e.g. [0,1,2]")
    BLOCK_SIZE: int | None = key("vectors per product", None, shown="as many as fit, at most 64")
    CHECK_OPERATOR: bool = key(
        "stop at once if the loss is random or the Hessian is not symmetric", True
    )


def main(config: Config) -> None:
    """Measure."""
    idxs = check_indices(config.MEASUREMENT_IDXS, config.NUM_INNER)
    budget = budget_bytes(config.MEMORY_BUDGET_GB)
    recorded = load_recorded_hessian(config)
    directory = Path(config.MEASUREMENTS_DIR)
    store = SketchStore(directory, config.NUM_OUTER, config.NUM_INNER, recorded.dim)
    store.check()
    block_size = block_size_within(budget, recorded.dim, config.BLOCK_SIZE)
    name = f"{file_stamp()}[{Path(__file__).name}]__idxs={idxs[0]}...{idxs[-1]}.log"
    provenance = recorded.sketch_provenance(config.NUM_OUTER, config.NUM_INNER)

    def summary() -> dict[str, int]:
        done = sum(store.is_measured(idx, config.SUCCESS_FLAG, provenance) for idx in idxs)
        return {"measured": done, "missing": len(idxs) - done}

    remove_stale_asides(directory)
    with JsonLog(recorded.run_dir / name) as log, logs_stop(log, summary):
        log("CONFIG", asdict(config) | {"MEASUREMENT_IDXS": idxs})
        log("GLOBALS", provenance | {"made_with": made_with()})
        for doubt in recorded.doubts:
            log("WARNING", [doubt, {}])
        measure(recorded, store, idxs, config.SUCCESS_FLAG, log, block_size, config.CHECK_OPERATOR)


if __name__ == "__main__":
    sys.exit(run_script(__file__, Config, main))
