"""Trains a DeepOBS problem and records parameters (and gradients) at chosen steps.

Makes the run directory OUTPUT_DIR/<stamp>__<PROBLEM>__<SEED>[__SUFFIX] with a log and a params
file. A recorded step is the state before that step's update; the step after the last update may
be recorded too.
"""

import sys
from dataclasses import dataclass
from pathlib import Path

from applesandoranges.hessian import buffer_state, parameter_vector
from applesandoranges.incremental_hdf5 import IncrementalHDF5
from applesandoranges.script_config import key, run_script
from applesandoranges.training import TrainingConfig, hessian_gradient, prepare_run, train


@dataclass
class Config(TrainingConfig):
    """Keys of this script."""

    STORE_GRADS: bool = key("also store the gradients on the Hessian subsets", False)


def main(config: Config) -> None:
    """Train and record."""
    run = prepare_run(config, Path(__file__).name)
    net = run.problem.net
    matrices = ["params"] + ["gradients_train", "gradients_test"] * config.STORE_GRADS
    params = parameter_vector(net)
    files = {
        name: IncrementalHDF5.create(
            run.run_dir / f"{run.run_dir.name}__{name}.h5",
            len(params),
            params.dtype,
            {"run_id": run.run_id},
        )
        for name in matrices
    }

    def record(step: int) -> None:
        for name, file in files.items():
            split = name.partition("_")[2]
            if split:
                file.append(hessian_gradient(run.problem, split, run.num_hessian), {"step": step})
            else:
                file.append(parameter_vector(net), {"step": step}, buffer_state(net))
            body = {"global_step": step, "matrix": name, "split": split or None}
            run.log("HDF5", body | {"status": "stored"})

    with run.log:
        train(run, record)
        run.log("INFO", ["Training done", {"log": run.log.path, "params": files["params"].path}])


if __name__ == "__main__":
    sys.exit(run_script(__file__, Config, main))
