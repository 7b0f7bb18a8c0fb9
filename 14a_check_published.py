"""Compares a run with the published results of its problem, number by number.

Trains and analyses mnist_mini on the full MNIST as 12a did for the paper (OBS_DATASETS), or reads
the logs of such a run, or of one of 11a, 11b and 11c (LOGS: run directory). Prints, by step and
split, the number of each quantity that is farthest from the published one, and what explains a
difference; draws both, and their differences.

Exit status: 0 if everything is met or explained, 1 if something differs, 2 for wrong input. Data
that are not the full ones, and other settings, are such: numbers are printed where a log has them,
but no verdict is possible.
"""

import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path

from applesandoranges.app.keys import key, run_script, starting
from applesandoranges.app.machine import device_key


@dataclass
class Config:
    """Keys of this script."""

    OBS_DATASETS: str | None = key("directory with the data sets, to run 12a", None)
    LOGS: str | None = key("run directory with the logs of a run, instead of running 12a", None)
    LOG: str | None = key("the same as LOGS", None)
    STEPS: list[int] | None = key("steps to compare", None, shown="all published ones")
    SPLITS: list[str] | None = key("train, test or both", None, shown="all published ones")
    OUTPUT_DIR: str = key("where the directory of figure and run is made", "output")
    DEVICE: str = device_key()


with starting(__name__, Config):  # --help and wrong keys end here, before PyTorch is loaded
    import pandas as pd
    from rich.console import Console

    from applesandoranges.app.log import file_stamp
    from applesandoranges.app.screen import say
    from applesandoranges.figures.style import save_figure
    from applesandoranges.problems.datasets import load_dataset
    from applesandoranges.problems.registry import PROBLEMS
    from applesandoranges.published.compare import OF_SKETCH, compare, missing, worst
    from applesandoranges.published.experiment import (
        published_run,
        run_differences,
        sketch_differences,
    )
    from applesandoranges.published.figure import draw_comparison
    from applesandoranges.published.report import hessian_table, training_table
    from applesandoranges.published.tables import OPTIMIZER, RUNS, SEED, PublishedRun
    from applesandoranges.results.collect import LogSet, read_logs
    from skerch import heartbeat
    from skerch.errors import InputError, NumericalError

EXHAUSTIVE = Path(__file__).parent / "12a_mnist_mini_exhaustive_test.py"
MNIST_MINI = RUNS["mnist_mini"]


def choose(config: Config, run: PublishedRun) -> tuple[list[int], list[str]]:
    """Return steps and splits to compare."""
    steps = sorted(set(run.steps if config.STEPS is None else config.STEPS))
    splits = list(dict.fromkeys(run.splits if config.SPLITS is None else config.SPLITS))
    for name, given, published in (("STEPS", steps, run.steps), ("SPLITS", splits, run.splits)):
        if not given or not set(given) <= set(published):
            raise InputError(
                f"{name} must be some of the published ones of {run.problem}, "
                f"[{','.join(map(str, published))}], got [{','.join(map(str, given))}]"
            )
    return steps, splits


def run_exhaustive(config: Config, directory: Path) -> Path:
    """Run 12a with the settings of the published run; return its log."""
    assert config.OBS_DATASETS is not None
    steps, splits = choose(config, MNIST_MINI)
    root = Path(config.OBS_DATASETS).expanduser()
    problem = PROBLEMS[MNIST_MINI.problem]
    source = load_dataset(problem.data, root, problem.transform).source
    if source != "full":
        raise InputError(
            f"{root}: the data are {source}, not the full MNIST, so that no verdict is possible; "
            f"`python 09a_prepare_datasets.py OBS_DATASETS={root} SOURCE=download` gets it"
        )
    words = {
        "OBS_DATASETS": root, "OUTPUT_DIR": directory, "DEVICE": config.DEVICE,
        "PROBLEM": MNIST_MINI.problem, "OPTIMIZER": OPTIMIZER, "RANDOM_SEED": SEED,
        "NUM_HESSIAN_DATAPOINTS": MNIST_MINI.num_hessian, "RECORD_STEPS": steps,
        "NUM_OUTER": MNIST_MINI.outer, "NUM_INNER": MNIST_MINI.inner, "SYMMETRIZE_CORE": False,
        "WITH_A_POSTERIORI": False, "WITH_TRAIN_HESSIAN": "train" in splits,
        "WITH_TEST_HESSIAN": "test" in splits,
    }  # fmt: skip
    if config.STEPS is not None:  # otherwise all epochs, whose evaluations were published
        words["MAX_STEPS"] = steps[-1]
    command = [sys.executable, str(EXHAUSTIVE)]
    command += [f"{name}={value}" for name, value in words.items()]
    with heartbeat.paused():  # it has one of its own
        status = subprocess.run(command, check=False).returncode
    if status:
        raise NumericalError(f"{EXHAUSTIVE.name} ended with exit status {status}")
    (log,) = directory.glob("*/*.log")
    return log


def judge(logs: LogSet, run: PublishedRun, lines: pd.DataFrame) -> tuple[pd.DataFrame, list[str]]:
    """Take back the verdicts that other settings forbid; return the lines and the reasons."""
    whole, sketch = run_differences(logs, run), sketch_differences(logs, run)
    forbidden = lines["quantity"].isin(OF_SKETCH) & bool(sketch) | bool(whole)
    lines = lines.assign(verdict=lines["verdict"].where(~forbidden, "none"))
    words = list(whole)
    if sketch:
        words.append(f"{', '.join(sketch)} (of {' and '.join(OF_SKETCH)})")
    return lines, words


def conclude(where: str, lines: pd.DataFrame, refused: list[str], lacking: list[str]) -> None:
    """Print the verdict, or raise where it is not good."""
    for text in lacking:
        print(f"Not compared, as the logs lack it: {text}")
    for row in lines[lines["verdict"] == "DIFFERS"].itertuples():
        which = f"step {row.step}, {row.split}: " if row.split else ""
        print(
            f"{which}{row.name} at {row.at}: ours {row.ours:.8g}, published {row.published:.8g}, "
            f"difference {row.difference:.2e}, explained {row.explained:.2e}"
        )
    differing = (lines["verdict"] == "DIFFERS").sum()
    if differing:
        raise NumericalError(
            f"{where}: {differing} of {len(lines)} quantities differ from what was published"
        )
    if refused:
        raise InputError(f"{where}: no verdict is possible: {'; '.join(refused)}")
    explained = (lines["verdict"] == "explained").sum()
    which = "compared" if lacking else "published"
    if explained:
        print(f"All {which} numbers are met, but for {explained} of {len(lines)} quantities, whose "
              "differences are explained.")  # fmt: skip
    else:
        print(f"All {which} numbers are met.")


def main(config: Config) -> None:
    """Run or read, compare, print, draw."""
    given = [name for name in ("LOGS", "LOG", "OBS_DATASETS") if getattr(config, name) is not None]
    if len(given) != 1:
        raise InputError(
            "give either OBS_DATASETS, to run 12a, or LOGS, the run directory of such a run or of "
            f"11a, 11b or 11c; got {' and '.join(given) or 'neither'}"
        )
    directory = Path(config.OUTPUT_DIR).expanduser() / f"{file_stamp()}__check_published"
    where = config.LOGS or config.LOG or str(run_exhaustive(config, directory))
    heartbeat.doing(f"reading {where}")
    logs = read_logs(where)
    for line in logs.left_out:
        say(f"left out: {line}", sys.stderr)
    run = published_run(logs)
    steps, splits = choose(config, run)
    chosen = [r for r in logs.results if r.step in steps and r.split in splits]
    logs = replace(logs, results=chosen)
    heartbeat.doing("comparing")
    rows = compare(logs, run)
    lines, refused = judge(logs, run, worst(rows))
    console = Console(width=None if sys.stdout.isatty() else 180)
    of_training = lines["quantity"] == "training"
    for kind, make in ((~of_training, hessian_table), (of_training, training_table)):
        if kind.any():
            console.print(make(lines[kind]))
    directory.mkdir(parents=True, exist_ok=True)
    title = f"{run.problem}: ours (lines) on the published results (points)"
    figure = draw_comparison(rows, f"{title}, no verdict" if refused else title)
    for path in save_figure(figure, directory, "published", {"differences": lines}):
        print(path)
    conclude(where, lines, refused, missing(rows, run, steps, splits))


if __name__ == "__main__":
    sys.exit(run_script(__file__, Config, main))
