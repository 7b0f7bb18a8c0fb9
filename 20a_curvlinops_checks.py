"""Checks a problem and both of its Hessians before anything is trained or measured.

Builds the problem and reports, check by check, whether its training and test Hessians can be
measured: determinism of the loss, engines (of problems of your own), finite values, symmetry,
agreement with float64, cost of a product, memory. Writes nothing. Exit status 0 if all hold, 1 if
one does not.
"""

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from applesandoranges.app.keys import key, run_script, starting
from applesandoranges.training.keys import ProblemConfig, batch_size_key

#: Columns that the table fits; longer details go on below.
WIDTH = 100


@dataclass
class Config(ProblemConfig):
    """Keys of this script."""

    RANDOM_SEED: int = key("seed of the initialisation", 12345)
    BATCH_SIZE: int | None = batch_size_key()


with starting(__name__, Config):  # --help and wrong keys end here, before PyTorch is loaded
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    from applesandoranges.app.machine import parse_device
    from applesandoranges.hessian.checks import CheckResult, each_check
    from applesandoranges.hessian.loss import Loss
    from applesandoranges.hessian.operator import make_hessian
    from applesandoranges.problems.problem import build_problem
    from applesandoranges.training.keys import mini_batch_size
    from skerch.errors import InputError, NumericalError


def show(console: Console, *cells: str) -> None:
    """Print one line of the table; each check at once, as some take minutes."""
    table = Table.grid(padding=(0, 2))
    for width in (5, 22, 6):
        table.add_column(width=width)
    table.add_column()
    table.add_row(*cells)
    console.print(table, highlight=False)


def shown_checks(console: Console, split: str, loss: Loss, operator: Any) -> Iterator[CheckResult]:
    """Run and show the checks of a split."""
    for found in each_check(loss, operator):
        verdict = "[green]ok[/]" if found.ok else "[bold red]FAILED[/]"
        remedy = f"; remedy: {found.remedy}" if found.remedy else ""
        show(console, split, found.name, verdict, escape(found.detail + remedy))
        yield found


def main(config: Config) -> None:
    """Build, check, report."""
    batch_size = mini_batch_size(config)
    device, num_data = parse_device(config.DEVICE), config.NUM_HESSIAN_DATAPOINTS
    if not 0 <= config.RANDOM_SEED < 2**32:
        raise InputError(f"RANDOM_SEED must lie in [0, 2^32), got {config.RANDOM_SEED}")
    problem = build_problem(
        config.PROBLEM, config.datasets(), config.RANDOM_SEED, batch_size, device
    )
    losses = {split: Loss.of(problem, split, num_data) for split in ("train", "test")}
    console = Console()
    console.width = min(console.width, WIDTH) if console.is_terminal else WIDTH
    console.print(
        f"{problem.name}: {problem.source} data, seed {config.RANDOM_SEED}, {device}, "
        f"{num_data} data points per Hessian, {min(num_data, batch_size)} at a time",
        highlight=False,
    )
    show(console, "split", "check", "result", "detail")
    results = {}
    for split, loss in losses.items():
        loss.net.eval()
        operator = make_hessian(loss.net, loss.criterion, loss.data, num_data, known=problem.known)
        results[split] = list(shown_checks(console, split, loss, operator))
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
