"""Draws figures from the logs of 10d (or 12a) and prints a table of the overlap.

Writes overview.png, overview.pdf and one CSV for each panel: overlap against k with the chance
level k/D, the spectrum, and the scree bounds.
"""

import os
import sys
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from applesandoranges.plots import figure_paths, overview_figure, save_figure
from applesandoranges.results import HessianResult, read_results
from applesandoranges.script_config import key, run_script
from skerch.utils import InputError

TABLE_RANKS = (1, 2, 5, 10, 20, 50, 100, 200, 355, 500, 1000, 1500)


@dataclass
class Config:
    """Keys of this script."""

    LOGS: str = key(f"a log, a directory with logs, or several separated by '{os.pathsep}'")
    OUTPUT_DIR: str = key("where the figures go", "figures")
    OVERWRITE: bool = key("replace figures that exist", False)


def overlap_table(results: list[HessianResult]) -> Table:
    """Return k, overlap, chance and ratio of chosen ranks."""
    table = Table("Hessian", "k", "overlap", "chance k/D", "ratio", box=None)
    for column in table.columns[1:]:
        column.justify = "right"
    for result in results:
        rows = result.overlap_table()
        chosen = rows[rows["k"].isin({*TABLE_RANKS, len(rows)})]
        for row in chosen.itertuples():
            values = (f"{row.overlap:.4g}", f"{row.chance:.4g}", f"{row.ratio:.1f}")
            table.add_row(result.label, str(row.k), *values)
        table.add_section()
    return table


def main(config: Config) -> None:
    """Read, draw, print."""
    results, left_out = read_results(config.LOGS)
    for line in left_out:
        print(f"left out: {line}", file=sys.stderr)
    directory = Path(config.OUTPUT_DIR).expanduser()
    there = [
        path
        for path in figure_paths(directory / "overview", ["overlap", "spectrum", "scree"])
        if path.exists()
    ]
    if there and not config.OVERWRITE:
        raise InputError(f"{there[0]}: exists already; OVERWRITE=true replaces it")
    figure, tables = overview_figure(results)
    directory.mkdir(parents=True, exist_ok=True)
    paths = save_figure(figure, directory / "overview", tables)
    Console().print(overlap_table(results))
    print("\n".join(["Written:", *map(str, paths)]))


if __name__ == "__main__":
    sys.exit(run_script(__file__, Config, main))
