"""Trains a DeepOBS problem and records parameters (and gradients) at chosen steps.

Makes the run directory OUTPUT_DIR/<stamp>__<PROBLEM>__<SEED>[__SUFFIX] with a log and a params
file. A recorded step is the state before that step's update; the step after the last update may
be recorded too. A training that was stopped goes on from its last checkpoint (taken at the
beginning of each epoch and after each recorded step): the same command with RESUME=<run directory>.
"""

import sys
from dataclasses import dataclass
from pathlib import Path

from applesandoranges.app import events
from applesandoranges.app.config import key, run_script
from applesandoranges.app.log import logs_stop
from applesandoranges.app.machine import keep_freed_memory
from applesandoranges.problems.parameters import buffer_state, parameter_vector
from applesandoranges.training.loop import (
    TrainingConfig,
    TrainingRun,
    finished_log,
    hessian_gradient,
    prepare_run,
    train,
)
from applesandoranges.training.params_file import IncrementalHDF5
from skerch.store.files import remove_stale_asides

#: ``matrix`` and ``split`` in the HDF5 lines of each file, in the words of published logs.
MATRICES = {
    "params": ("batch_parameters", "batch"),
    "gradients_train": ("train_gradient", "train"),
    "gradients_test": ("test_gradient", "test"),
}


@dataclass
class Config(TrainingConfig):
    """Keys of this script."""

    STORE_GRADS: bool = key("also store the gradients on the Hessian subsets", False)
    RESUME: str | None = key("run directory of a training by the same keys to go on with", None)


def main(config: Config) -> None:
    """Train and record."""
    script, resume = Path(__file__).name, Path(config.RESUME) if config.RESUME else None
    if resume is not None and (log := finished_log(resume, script)):
        print(f"Nothing to train: the training is done, see {log}")
        return
    keep_freed_memory()
    run = prepare_run(config, script, resume)
    remove_stale_asides(run.run_dir)
    names = list(MATRICES) if config.STORE_GRADS else ["params"]
    path = {name: run.run_dir / f"{run.run_dir.name}__{name}.h5" for name in names}
    params = parameter_vector(run.problem.net)
    files = {
        name: IncrementalHDF5.open_or_create(
            path[name], len(params), params.dtype, {"run_id": run.run_id}
        )
        for name in names
    }

    def record(step: int) -> None:
        for name, file in files.items():
            matrix, split = MATRICES[name]
            if not file.has(step=step):
                store(run, file, split, step)
            body = {"global_step": step, "matrix": matrix, "split": split, "status": "saved"}
            run.log_once(events.HDF5, body)

    def summary() -> dict[str, object]:
        recorded = [metadata["step"] for metadata in files["params"].metadata()]
        return {"recorded": recorded, "to go on": f"the same command with RESUME={run.run_dir}"}

    with run.log, logs_stop(run.log, summary):
        train(run, record, run.run_dir / f"{run.run_dir.name}__checkpoint.h5")
        run.log.info(events.TRAINING_DONE, {"log": run.log.path, "params": path["params"]})


def store(run: TrainingRun, file: IncrementalHDF5, split: str, step: int) -> None:
    """Store the parameters ("batch"), or the gradient on the Hessian subset of a split."""
    if split != "batch":
        file.append(hessian_gradient(run.problem, split, run.num_hessian), {"step": step})
    else:
        net = run.problem.net
        file.append(parameter_vector(net), {"step": step}, buffer_state(net))


if __name__ == "__main__":
    sys.exit(run_script(__file__, Config, main))
