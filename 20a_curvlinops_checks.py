"""Checks a problem and both of its Hessians before anything is trained or measured.

Builds the problem and reports, check by check, whether its training and test Hessians can be
measured: determinism of the loss, finite values, symmetry, agreement with float64, cost of a
product, memory. Writes nothing. Exit status 0 if all hold, 1 if one does not.
"""

import sys
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from applesandoranges.app.config import key, run_script
from applesandoranges.app.machine import default_device, parse_device
from applesandoranges.hessian.checks import CheckResult, run_checks
from applesandoranges.hessian.loss import Loss
from applesandoranges.hessian.operator import make_hessian
from applesandoranges.problems.problem import build_problem
from applesandoranges.training.loop import DEFAULT_SETTINGS
from applesandoranges.training.settings import load_settings
from skerch.errors import InputError, NumericalError


@dataclass
class Config:
    """Keys of this script."""

    OBS_DATASETS: str = key("directory with the data sets (see 09a)")
    NUM_HESSIAN_DATAPOINTS: int = key("class-balanced data points per Hessian")
    TUNING_CONF: str = key(
        "settings per problem", str(DEFAULT_SETTINGS), shown="config/basic_config.yaml"
    )
    OPTIMIZER: str = key("an optimiser that the settings have", "SGD")
    PROBLEM: str = key("a problem that the settings have", "mnist_mini")
    RANDOM_SEED: int = key("seed of the initialisation", 12345)
    DEVICE: str = key("cpu, cuda, cuda:1, ...", default_device, shown="cuda if available")


def report(results: dict[str, list[CheckResult]]) -> Table:
    """Return a table with one line per split and check."""
    table = Table("split", "check", "result", "detail", "remedy", box=None, pad_edge=False)
    for split, checks in results.items():
        for check in checks:
            verdict = "[green]ok[/]" if check.ok else "[bold red]FAILED[/]"
            table.add_row(split, check.name, verdict, check.detail, check.remedy)
        table.add_section()
    return table


def main(config: Config) -> None:
    """Build, check, report."""
    settings = load_settings(Path(config.TUNING_CONF), config.PROBLEM, config.OPTIMIZER)
    device, num_data = parse_device(config.DEVICE), config.NUM_HESSIAN_DATAPOINTS
    if not 0 <= config.RANDOM_SEED < 2**32:
        raise InputError(f"RANDOM_SEED must lie in [0, 2^32), got {config.RANDOM_SEED}")
    problem = build_problem(
        config.PROBLEM,
        Path(config.OBS_DATASETS).expanduser(),
        config.RANDOM_SEED,
        settings.batch_size,
        device,
    )
    losses = {split: Loss.of(problem, split, num_data) for split in ("train", "test")}
    console = Console(width=None if sys.stdout.isatty() else 240)
    console.print(
        f"{problem.name}: {problem.data.source} data, seed {config.RANDOM_SEED}, {device}, "
        f"{num_data} data points per Hessian in mini-batches of {settings.batch_size}",
        highlight=False,
    )
    results = {}
    for split, loss in losses.items():
        operator = make_hessian(loss.net, loss.criterion, loss.data, num_data)
        results[split] = run_checks(loss, operator)
    console.print(report(results), highlight=False)
    failed = [(split, check) for split in results for check in results[split] if not check.ok]
    if failed:
        split, check = failed[0]
        raise NumericalError(
            f"{problem.name}: {len(failed)} of {sum(map(len, results.values()))} checks failed; "
            f"{split}, {check.name}: {check.detail}; remedy: {check.remedy}"
        )
    print(f"{problem.name}: all checks hold, the loss is deterministic")


if __name__ == "__main__":
    sys.exit(run_script(__file__, Config, main))
