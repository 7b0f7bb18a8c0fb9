"""Measures the Hessian of a recorded step with random vectors, into an HDF5 store.

Needs a training by 10a and a store (python -m skerch create_hdf5_layout). Every measurement depends
on its index and the seed alone, so the indices may be split over jobs in any way. Indices that are
measured already are skipped: run the same command again to resume.
"""

import sys
from dataclasses import asdict, dataclass
from pathlib import Path

from applesandoranges.jsonlog import JsonLog, file_stamp
from applesandoranges.measuring import SketchStore, check_indices, measure
from applesandoranges.recorded_hessian import RecordedHessianConfig, load_recorded_hessian
from applesandoranges.script_config import key, run_script


@dataclass
class Config(RecordedHessianConfig):
    """Keys of this script."""

    MEASUREMENTS_DIR: str = key("the store")
    NUM_INNER: int = key("inner measurements n_i of the sketch")
    NUM_OUTER: int = key("outer measurements n_o of the sketch, at most n_i")
    MEASUREMENT_IDXS: list[int] = key("which of 0 ... n_i - 1 to measure, e.g. [0,1,2]")


def main(config: Config) -> None:
    """Measure."""
    idxs = check_indices(config.MEASUREMENT_IDXS, config.NUM_INNER)
    recorded = load_recorded_hessian(config)
    directory = Path(config.MEASUREMENTS_DIR)
    store = SketchStore(directory, config.NUM_OUTER, config.NUM_INNER, recorded.dim)
    store.check()
    provenance = recorded.sketch_provenance(config.NUM_OUTER, config.NUM_INNER)
    missing = store.missing(idxs, config.SUCCESS_FLAG, provenance)
    if missing:
        recorded.operator.make_plan()  # before anything is written: the budget may be too small
    where = {"step": recorded.step, "H_test": recorded.test, "num": len(idxs) - len(missing)}
    name = f"{file_stamp()}[{Path(__file__).name}]__idxs={idxs[0]}...{idxs[-1]}.log"
    with JsonLog(recorded.run_dir / name) as log:
        log("CONFIG", asdict(config) | {"MEASUREMENT_IDXS": idxs})
        log("GLOBALS", provenance)
        if len(missing) < len(idxs):
            log("INFO", ["Skipping measurements that are done", where])
        if missing:
            measure(recorded, store, missing, config.SUCCESS_FLAG, log)
        else:
            log("INFO", ["Nothing to measure: all requested measurements are done", where])


if __name__ == "__main__":
    sys.exit(run_script(__file__, Config, main))
