"""Trains a DeepOBS problem and records parameters (and gradients) at chosen steps.

Makes the run directory OUTPUT_DIR/<stamp>__<PROBLEM>__<SEED>[__SUFFIX] with a log and a params
file. A recorded step is the state before that step's update; the step after the last update may
be recorded too. A training that was stopped goes on from its last checkpoint (taken at the
beginning of each epoch and after each recorded step): the same command with RESUME=<run directory>.
"""

import sys
from dataclasses import dataclass
from pathlib import Path

from applesandoranges.app.keys import key, run_script, starting
from applesandoranges.training.keys import TrainingConfig


@dataclass
class Config(TrainingConfig):
    """Keys of this script."""

    STORE_GRADS: bool = key("also store the gradients on the Hessian subsets", False)
    RESUME: str | None = key("run directory of a training by the same keys to go on with", None)


with starting(__name__, Config):  # --help and wrong keys end here, before PyTorch is loaded
    from applesandoranges.app import events
    from applesandoranges.app.log import logs_stop
    from applesandoranges.app.machine import keep_freed_memory
    from applesandoranges.training.loop import train
    from applesandoranges.training.recording import Recorder
    from applesandoranges.training.run import prepare_run
    from skerch.store.files import remove_stale_asides


def main(config: Config) -> None:
    """Train and record."""
    keep_freed_memory()
    resume = Path(config.RESUME) if config.RESUME else None
    run = prepare_run(config, Path(__file__).name, resume)
    if run.done:
        run.log.close()
        print(f"Nothing to train: the training is done, see {run.log.path}")
        return
    remove_stale_asides(run.run_dir)
    recorder = Recorder(
        run.problem, run.run_dir, run.run_id, run.num_hessian, run.log_once, config.STORE_GRADS
    )

    def summary() -> dict[str, object]:
        resume = f"the same command with RESUME={run.run_dir}"
        return {"recorded": recorder.steps(), "to go on": resume}

    with run.log, logs_stop(run.log, summary):
        train(run, recorder.record, run.run_dir / f"{run.run_dir.name}__checkpoint.h5")
        run.log.info(events.TRAINING_DONE, {"log": run.log.path, "params": recorder.params_path})


if __name__ == "__main__":
    sys.exit(run_script(__file__, Config, main))
