"""Compares a run of 12a on full MNIST with the published results of mnist_mini.

Reads the log of such a run (LOG), or runs 12a as it was run for the paper: seed 12345, 500 training
digits, 355 outer and 710 inner measurements, steps 0, 500 and 1000. Prints, quantity by quantity,
the number that is farthest from the published one: ours, published, difference, verdict.

Exit status: 0 if everything is met, 1 if something differs, 2 for wrong input. Data that are not
the full MNIST, and other settings, are such: numbers are printed where a log has them, but no
verdict is possible.
"""

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from rich.console import Console
from rich.table import Table

from applesandoranges.datasets import load_dataset
from applesandoranges.jsonlog import file_stamp
from applesandoranges.problems import PROBLEMS
from applesandoranges.published import SETTINGS, STEPS, compare, setting_differences, worst
from applesandoranges.resources import default_device
from applesandoranges.results import read_logs
from applesandoranges.script_config import key, run_script
from skerch.errors import InputError, NumericalError

EXHAUSTIVE = Path(__file__).parent / "12a_mnist_mini_exhaustive_test.py"


@dataclass
class Config:
    """Keys of this script."""

    OBS_DATASETS: str | None = key("directory with the data sets, to run 12a", None)
    LOG: str | None = key("log of a run of 12a, instead of running it", None)
    OUTPUT_DIR: str = key("where 12a makes its run directory", "output")
    DEVICE: str = key("cpu, cuda, cuda:1, ...", default_device, shown="cuda if available")


def run_exhaustive(config: Config) -> Path:
    """Run 12a with the settings of the published run; return its log."""
    assert config.OBS_DATASETS is not None
    root = Path(config.OBS_DATASETS).expanduser()
    problem = PROBLEMS[SETTINGS["PROBLEM"]]
    source = load_dataset(problem.data, root, problem.transform).source
    if source != "full":
        raise InputError(
            f"{root}: the data are {source}, not the full MNIST, so that no verdict is possible; "
            f"`python 09a_prepare_datasets.py OBS_DATASETS={root} SOURCE=download` gets it"
        )
    directory = Path(config.OUTPUT_DIR).expanduser() / f"{file_stamp()}__check_published"
    words = SETTINGS | {
        "OBS_DATASETS": root, "OUTPUT_DIR": directory, "DEVICE": config.DEVICE,
        "RECORD_STEPS": list(STEPS), "MAX_STEPS": STEPS[-1], "WITH_TEST_HESSIAN": False,
    }  # fmt: skip
    command = [sys.executable, str(EXHAUSTIVE)]
    command += [f"{name}={value}" for name, value in words.items()]
    status = subprocess.run(command, check=False).returncode
    if status:
        raise NumericalError(f"{EXHAUSTIVE.name} ended with exit status {status}")
    (log,) = directory.glob("*/*.log")
    return log


def report(rows: pd.DataFrame, verdict: bool) -> Table:
    """Return a table of the farthest number of each quantity and step."""
    table = Table(
        "quantity", "step", "numbers", "farthest", "ours", "published", "difference",
        "allowed", "verdict", box=None,
    )  # fmt: skip
    for column in table.columns[1:-1]:
        column.justify = "right"
    for row in rows.itertuples():
        word = ("met" if row.met else "DIFFERS") if verdict else "none"
        numbers = (f"{row.ours:.6g}", f"{row.published:.6g}", f"{row.difference:.1e}")
        table.add_row(
            row.name, str(row.step), str(row.count), str(row.at), *numbers, f"{row.allowed:g}", word
        )
    return table


def main(config: Config) -> None:
    """Run or read, compare, print."""
    if (config.LOG is None) == (config.OBS_DATASETS is None):
        raise InputError("give either OBS_DATASETS, to run 12a, or the LOG of such a run")
    path = run_exhaustive(config) if config.LOG is None else Path(config.LOG).expanduser()
    logs = read_logs(str(path))
    if len(logs.training) != 1 or not logs.results:
        raise InputError(f"{path}: expected the log of one run of 12a, with results")
    differences = setting_differences(logs.training[0])
    rows = worst(compare(logs))
    Console(width=None if sys.stdout.isatty() else 140).print(report(rows, not differences))
    if differences:
        raise InputError(f"{path}: no verdict is possible: {'; '.join(differences)}")
    if not rows["met"].all():
        raise NumericalError(
            f"{path}: {(~rows['met']).sum()} of {len(rows)} lines differ from what was published"
        )
    print("All published numbers are met.")


if __name__ == "__main__":
    sys.exit(run_script(__file__, Config, main))
