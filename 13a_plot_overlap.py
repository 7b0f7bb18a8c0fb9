"""Draws the figures of the paper from logs and prints a table of the overlap.

Reads logs of 10a, 10c, 10d and 12a, from this project or published ones of the same format, and
writes each figure that they allow as PNG, PDF and CSV. Logs of several runs make grids, with a
panel for each run, and as many of the figures that show one run. What is not drawn is named, with
the reason.
"""

import os
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from applesandoranges.app.config import key, run_script
from applesandoranges.app.names import check_name
from applesandoranges.figures import FIGURES, PER_RUN, Drawing, MissingInLogsError, Options, draw
from applesandoranges.figures.style import figure_paths, save_figure
from applesandoranges.results.collect import HessianResult, LogSet, read_logs
from skerch.errors import InputError

TABLE_RANKS = (1, 2, 5, 10, 20, 50, 100, 200, 355, 500, 1000, 1500)


@dataclass
class Config:
    """Keys of this script."""

    LOGS: str = key(f"a log, a directory with logs, or several separated by '{os.pathsep}'")
    OUTPUT_DIR: str = key("where the figures go", "figures")
    FIGURES: list[str] = key("which figures", lambda: list(FIGURES), shown="all")
    K: list[int] = key(
        "ranks at which changes over a training are shown", list, shown="5, 20, 50 and 100 % of n_o"
    )
    OVERWRITE: bool = key("replace figures that exist", False)
    NUM_PARAMS: int | None = key("D, if no log of a run says it", None)


def overlap_table(results: list[HessianResult]) -> Table:
    """Return k, overlap, chance and ratio of chosen ranks."""
    several = len({result.run for result in results}) > 1
    table = Table("Hessian", "k", "overlap", "chance k/D", "ratio", box=None)
    for column in table.columns:
        column.justify, column.no_wrap = "right" if column.header != "Hessian" else "left", True
    for result in results:
        if "frob_Qtop^2" not in result.quantities:
            continue
        name = f"{result.facts.label}: {result.label}" if several else result.label
        rows = result.overlap_table()
        for row in rows[rows["k"].isin({*TABLE_RANKS, len(rows)})].itertuples():
            values = (f"{row.overlap:.4g}", f"{row.chance:.4g}", f"{row.ratio:.1f}")
            table.add_row(name, str(row.k), *values)
        table.add_section()
    return table


def drawings(logs: LogSet, config: Config) -> Iterator[tuple[str, Drawing]]:
    """Yield all figures that the logs allow, by name; print the others with the reason."""
    options, several = Options(tuple(config.K)), len(logs.runs) > 1
    for name in config.FIGURES:
        parts = [("", logs)]
        if several and name in PER_RUN:
            parts = [(run.label, logs.of_run(run)) for run, _ in logs.runs]
        missing: dict[str, list[str]] = {}
        for label, part in parts:
            try:
                yield f"{name}__{slug(label)}" if label else name, draw(name, part, options)
            except MissingInLogsError as reason:
                missing.setdefault(str(reason), []).append(label)
        for reason, labels in missing.items():
            of_runs = f" of {'; '.join(labels)}" if several and name in PER_RUN else ""
            print(f"not drawn: {name}{of_runs} ({reason})", file=sys.stderr)


def slug(text: str) -> str:
    """Return a text as it may stand in a file name."""
    return re.sub(r"[^A-Za-z0-9._-]+", "_", text)


def main(config: Config) -> None:
    """Read, draw, print."""
    for name in config.FIGURES:
        check_name("figure", name, FIGURES)
    if any(k < 1 for k in config.K):
        raise InputError(f"K: expected ranks of at least 1, got {min(config.K)}")
    if config.NUM_PARAMS is not None and config.NUM_PARAMS < 1:
        raise InputError(f"NUM_PARAMS must be at least 1, got {config.NUM_PARAMS}")
    directory = Path(config.OUTPUT_DIR).expanduser()
    if directory.exists() and not directory.is_dir():
        raise InputError(f"{directory}: OUTPUT_DIR is a file; expected a directory or a new name")
    logs = read_logs(config.LOGS, config.NUM_PARAMS)
    for line in logs.left_out:
        print(f"left out: {line}", file=sys.stderr)
    drawn = dict(drawings(logs, config))
    if not drawn:
        raise InputError(f"{config.LOGS}: nothing to draw")
    for name, (_, tables) in drawn.items():
        there = [path for path in figure_paths(directory, name, list(tables)) if path.exists()]
        if there and not config.OVERWRITE:
            raise InputError(f"{there[0]}: exists already; OVERWRITE=true replaces it")
    directory.mkdir(parents=True, exist_ok=True)
    if logs.results:
        Console(width=None if sys.stdout.isatty() else 140).print(overlap_table(logs.results))
    print("Written:")
    for name, (figure, tables) in drawn.items():
        print(*save_figure(figure, directory, name, tables), sep="\n")


if __name__ == "__main__":
    sys.exit(run_script(__file__, Config, main))
