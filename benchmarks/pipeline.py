"""Shares of the whole pipeline on mnist_mini, script by script, as a user runs it."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from .harness import ROOT, case, scratch

N_TRAIN = "10a_gather_params_grads.py"


def run(*words: str) -> float:
    """Run a command of this repository and return its seconds."""
    begin = time.perf_counter()
    subprocess.run([sys.executable, *words], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - begin


def as_words(keys: dict[str, Any]) -> list[str]:
    """Return ``KEY=VALUE`` words."""
    return [f"{name}={value}" for name, value in keys.items()]


def train_mnist_mini(
    root: Path, record: list[int], num_data: int, datasets: str | None = None
) -> dict[str, str]:
    """Train on ``datasets``, or the embedded digits; return what later scripts need, by key."""
    output = root / "output"
    if datasets is None:
        datasets = str(root / "datasets")
        run("09a_prepare_datasets.py", f"OBS_DATASETS={datasets}", "SOURCE=embedded")
    keys = {
        "OBS_DATASETS": datasets, "RANDOM_SEED": 12345, "OUTPUT_DIR": output, "DEVICE": "cpu",
        "RECORD_STEPS": record, "MAX_STEPS": record[-1], "NUM_HESSIAN_DATAPOINTS": num_data,
    }  # fmt: skip
    run(N_TRAIN, *as_words(keys))
    (run_dir,) = output.iterdir()
    (log,) = (path for path in run_dir.iterdir() if f"[{N_TRAIN}]" in path.name)
    (params,) = run_dir.glob("*__params.h5")
    return {
        "OBS_DATASETS": datasets,
        "TRAINING_LOGPATH": str(log),
        "PARAMS_PATH": str(params),
    }


@case(
    "pipeline",
    "mnist_mini from training to figures: seconds of each script, start-up included",
    full={"steps": 300, "num_data": 500, "outer": 355, "inner": 710},
    tiny={"steps": 1, "num_data": 20, "outer": 4, "inner": 8},
)
def pipeline(steps: int, num_data: int, outer: int, inner: int) -> dict[str, Any]:
    """Run the scripts for one Hessian."""
    with scratch() as temporary:
        root = Path(temporary)
        begin = time.perf_counter()
        keys = train_mnist_mini(root, [steps], num_data)
        times = {"09a and 10a": time.perf_counter() - begin}
        store, shared = root / "store", keys | {"STEP": steps, "DEVICE": "cpu"}
        sizes = ["--shape", "7030,7030", "--outer", str(outer), "--inner", str(inner), "--sym"]
        times["create_hdf5_layout"] = run(
            "-m", "skerch", "create_hdf5_layout", "--hdf5dir", str(store), *sizes
        )
        measured = shared | {
            "MEASUREMENTS_DIR": store, "NUM_OUTER": outer, "NUM_INNER": inner,
            "MEASUREMENT_IDXS": list(range(inner)),
        }  # fmt: skip
        times["10c"] = run("10c_hessian_hdf5_measurements.py", *as_words(measured))
        analysed = shared | {
            "INNER_VIRTUAL": store / "inner_ALL.h5",
            "OUTER_VIRTUAL": store / "leftouter_ALL.h5",
            "INNER_MONOLITHIC": store / "inner_MERGED.h5",
            "OUTER_MONOLITHIC": store / "leftouter_MERGED.h5",
        }
        times["10d"] = run("10d_core_and_analysis.py", *as_words(analysed))
        logs = Path(keys["TRAINING_LOGPATH"]).parent
        times["13a"] = run("13a_plot_overlap.py", f"LOGS={logs}", f"OUTPUT_DIR={root / 'figures'}")
        times["start-up alone"] = run("10c_hessian_hdf5_measurements.py", "--help")
    total = sum(times.values()) - times["start-up alone"]
    return {
        "seconds": times,
        "total_seconds": total,
        "shares": {name: value / total for name, value in times.items()},
    }
