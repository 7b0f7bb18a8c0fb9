"""Draws the figures of the paper from logs and prints a table of the overlap.

Reads logs of 10a, 10c, 10d and 12a, from this project or published ones of the same format, and
writes each figure that they allow as PNG, PDF and CSV: overview, overlap_over_k,
overlap_over_steps, exact_against_sketched (12a), errors, masks, training, run_times.
"""

import os
import sys
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from applesandoranges.figures import FIGURES, MissingInLogsError
from applesandoranges.names import check_name
from applesandoranges.plots import figure_paths, save_figure
from applesandoranges.results import HessianResult, read_logs
from applesandoranges.script_config import key, run_script
from skerch.errors import InputError

TABLE_RANKS = (1, 2, 5, 10, 20, 50, 100, 200, 355, 500, 1000, 1500)


@dataclass
class Config:
    """Keys of this script."""

    LOGS: str = key(f"a log, a directory with logs, or several separated by '{os.pathsep}'")
    OUTPUT_DIR: str = key("where the figures go", "figures")
    FIGURES: list[str] = key("which figures", lambda: list(FIGURES), shown="all")
    OVERWRITE: bool = key("replace figures that exist", False)
    NUM_PARAMS: int | None = key("D, if no log says it", None)


def overlap_table(results: list[HessianResult]) -> Table:
    """Return k, overlap, chance and ratio of chosen ranks."""
    table = Table("Hessian", "k", "overlap", "chance k/D", "ratio", box=None)
    for column in table.columns[1:]:
        column.justify = "right"
    for result in results:
        if "frob_Qtop^2" not in result.quantities:
            continue
        rows = result.overlap_table()
        for row in rows[rows["k"].isin({*TABLE_RANKS, len(rows)})].itertuples():
            values = (f"{row.overlap:.4g}", f"{row.chance:.4g}", f"{row.ratio:.1f}")
            table.add_row(result.label, str(row.k), *values)
        table.add_section()
    return table


def main(config: Config) -> None:
    """Read, draw, print."""
    for name in config.FIGURES:
        check_name("figure", name, FIGURES)
    logs = read_logs(config.LOGS, config.NUM_PARAMS)
    for line in logs.left_out:
        print(f"left out: {line}", file=sys.stderr)
    drawings, directory = {}, Path(config.OUTPUT_DIR).expanduser()
    for name in config.FIGURES:
        try:
            drawings[name] = FIGURES[name](logs)
        except MissingInLogsError as reason:
            print(f"not drawn: {name} ({reason})", file=sys.stderr)
    if not drawings:
        raise InputError(f"{config.LOGS}: nothing to draw")
    for name, (_, tables) in drawings.items():
        there = [path for path in figure_paths(directory, name, list(tables)) if path.exists()]
        if there and not config.OVERWRITE:
            raise InputError(f"{there[0]}: exists already; OVERWRITE=true replaces it")
    directory.mkdir(parents=True, exist_ok=True)
    if logs.results:
        Console().print(overlap_table(logs.results))
    print("Written:")
    for name, (figure, tables) in drawings.items():
        print(*save_figure(figure, directory, name, tables), sep="\n")


if __name__ == "__main__":
    sys.exit(run_script(__file__, Config, main))
