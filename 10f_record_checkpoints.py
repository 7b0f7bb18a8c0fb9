"""Records checkpoints of a training that was made elsewhere, as if 10a had made it.

Reads state dictionaries (torch.save of net.state_dict(), or safetensors) and makes the run
directory OUTPUT_DIR/<stamp>__<PROBLEM>__<SEED>[__SUFFIX] that 10c and 10d read. PROBLEM, mostly a
file of your own, says which network, loss and data they belong to.
"""

import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from applesandoranges.app.keys import key, run_script, starting
from applesandoranges.training.keys import RunConfig, batch_size_key


@dataclass
class Config(RunConfig):
    """Keys of this script."""

    CHECKPOINTS: str = key("the files, such as 'checkpoints/step_*.pt'")
    STEPS: list[int] = key("their steps", list, shown="the last number in each name")
    ENTRY: str | None = key("name of the state dictionary in the files", None, shown="found")
    BATCH_SIZE: int | None = batch_size_key()
    RANDOM_SEED: int = key("seed of the data split, and of the sketches of 10c", 12345)


with starting(__name__, Config):  # --help and wrong keys end here, before PyTorch is loaded
    from applesandoranges.app import events
    from applesandoranges.app.log import logs_stop
    from applesandoranges.app.machine import parse_device
    from applesandoranges.hessian.loss import Loss
    from applesandoranges.problems.problem import Problem, build_problem
    from applesandoranges.training.keys import mini_batch_size
    from applesandoranges.training.recording import Recorder
    from applesandoranges.training.run import hessian_subsets, identity, new_log
    from applesandoranges.training.state_files import find_files, load_into


def main(config: Config) -> None:
    """Read, check and record."""
    files = find_files(config.CHECKPOINTS, config.STEPS)
    batch_size = mini_batch_size(config)
    device, seed = parse_device(config.DEVICE), config.RANDOM_SEED
    problem = build_problem(config.PROBLEM, config.datasets(), seed, batch_size, device)
    subsets = hessian_subsets(problem, config.NUM_HESSIAN_DATAPOINTS)
    found = {}
    for step, path in files.items():  # before anything is written
        load_into(problem.net, path, config.ENTRY)
        problem.net.eval()
        found[step] = losses(problem, config)
    run_id, log = new_log(config, Path(__file__).name)
    run_dir = log.path.parent
    run_dir.mkdir(parents=True)
    log(events.CONFIG, asdict(config))
    facts = {"record_steps": list(files), "checkpoints": [str(path) for path in files.values()]}
    log(events.GLOBALS, identity(problem, run_id, run_dir) | subsets | facts)
    recorder = Recorder(problem, run_dir, run_id, config.NUM_HESSIAN_DATAPOINTS, log)
    with log, logs_stop(log, lambda: {"recorded": recorder.steps()}):
        for step, path in files.items():
            load_into(problem.net, path, config.ENTRY)
            problem.net.eval()
            recorder.record(step)
            log(events.TRAINING_BATCH, {"global_step": step} | found[step])
        log.info(events.TRAINING_DONE, {"log": log.path, "params": recorder.params_path})


def losses(problem: Problem, config: Config) -> dict[str, Any]:
    """Return the losses whose Hessians will be measured."""
    return {
        f"H_{split}_loss": float(Loss.of(problem, split, config.NUM_HESSIAN_DATAPOINTS).value())
        for split in ("train", "test")
    }


if __name__ == "__main__":
    sys.exit(run_script(__file__, Config, main))
