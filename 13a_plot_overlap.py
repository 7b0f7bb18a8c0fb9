"""Draws the figures of the paper from logs, prints a table of the overlap and each verdict.

Reads logs of 10a, 10c, 10d and 12a, from this project or published ones of the same format, and
writes each figure that they allow as PNG, PDF and CSV. Logs of several runs make grids, with a
panel for each run and recovery, and as many of the figures that show one of them. Of several
analyses of one Hessian the last complete one counts, by its time in UTC. What is not drawn is
named, with the reason.
"""

import itertools
import os
import re
import sys
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from applesandoranges.app.keys import key, run_script, starting

EXACT = "H_frob_Qtop^2"
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


with starting(__name__, Config):  # --help and wrong keys end here, before PyTorch is loaded
    from rich.console import Console
    from rich.table import Table

    from applesandoranges.app.screen import say
    from applesandoranges.app.spelling import check_name
    from applesandoranges.app.verdicts import NOT_READABLE
    from applesandoranges.figures import FIGURES, Drawing, MissingInLogsError, Options, draw, parts
    from applesandoranges.figures.style import figure_paths, save_figure
    from applesandoranges.results.collect import HessianResult, LogSet, read_logs
    from skerch import heartbeat
    from skerch.errors import InputError


def named(result: HessianResult, results: list[HessianResult]) -> str:
    """Return the name of a Hessian among those of all runs."""
    several = len({other.run for other in results}) > 1
    compared = len({other.recovery for other in results}) > 1
    label = f"{result.label}, seigh" if compared and result.recovery == "seigh" else result.label
    return f"{result.facts.label}: {label}" if several else label


def overlap_table(results: list[HessianResult]) -> Table:
    """Return k, overlap, the exact one where it is known, chance and ratio of chosen ranks.

    The last column says what the verdict says; rows that it does not vouch for are dim.
    """
    with_exact = any(EXACT in result.quantities for result in results)
    exact_column = ["exact"] * with_exact
    table = Table(
        "Hessian", "k", "overlap", *exact_column, "chance k/D", "ratio", "readable", box=None
    )
    for column in table.columns:
        words = column.header in ("Hessian", "readable")
        column.justify, column.no_wrap = "left" if words else "right", column.header != "Hessian"
    for result in results:
        if "frob_Qtop^2" not in result.quantities:
            continue
        name, verdict, rows = named(result, results), result.verdict, result.overlap_table()
        has_exact = EXACT in result.quantities
        exact = result.overlap_table(EXACT)["overlap"].tolist() if has_exact else []
        for row in rows[rows["k"].isin({*TABLE_RANKS, len(rows)})].itertuples():
            known = [f"{exact[row.k - 1]:.4g}" if row.k <= len(exact) else ""] * with_exact
            values = (f"{row.overlap:.4g}", *known, f"{row.chance:.4g}", f"{row.ratio:.1f}")
            readable = verdict.words_at(row.k) if verdict else "no verdict in the log"
            style = "dim" if row.known_within == NOT_READABLE else None
            table.add_row(name, str(row.k), *values, readable, style=style)
        table.add_section()
    return table


def verdicts(results: list[HessianResult]) -> Iterator[str]:
    """Yield what each analysis says of itself, where it does: published ones do not."""
    for result in results:
        if verdict := result.verdict:
            yield f"{named(result, results)}: {verdict.full_text}"


def drawings(logs: LogSet, config: Config) -> Iterator[tuple[str, Drawing]]:
    """Yield all figures that the logs allow, by name; print the others with the reason."""
    options, names = Options(tuple(config.K)), set[str]()
    for name in config.FIGURES:
        heartbeat.doing(f"drawing {name}")
        missing: dict[str, list[str]] = {}
        for label, part in parts(name, logs):
            file = plain = f"{name}__{slug(label)}" if label else name
            for number in itertools.count(2):
                if file not in names:
                    break
                file = f"{plain}__{number}"
            refuse_existing(figure_paths(Path(config.OUTPUT_DIR).expanduser(), file, []), config)
            try:
                drawing = draw(name, part, options)
            except MissingInLogsError as reason:
                missing.setdefault(str(reason), []).append(label)
                continue
            names.add(file)
            yield file, drawing
        for reason, labels in missing.items():
            of_runs = f" of {'; '.join(labels)}" if any(labels) else ""
            say(f"not drawn: {name}{of_runs} ({reason})", sys.stderr)


def refuse_existing(paths: list[Path], config: Config) -> None:
    """Raise unless figures may be written: before one is drawn, as that takes a while."""
    if not config.OVERWRITE and (there := next((p for p in paths if p.exists()), None)):
        raise InputError(f"{there}: exists already; OVERWRITE=true replaces it")


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
    heartbeat.doing(f"reading {config.LOGS}")
    logs = read_logs(config.LOGS, config.NUM_PARAMS)
    for line in logs.left_out:
        say(f"left out: {line}", sys.stderr)
    for line in logs.chosen:
        say(f"of several analyses: {line}")
    drawn = {}
    for name, (figure, tables) in drawings(logs, config):
        refuse_existing(figure_paths(directory, name, list(tables)), config)
        drawn[name] = (figure, tables)
    if not drawn:
        raise InputError(f"{config.LOGS}: nothing to draw")
    directory.mkdir(parents=True, exist_ok=True)
    for name, (figure, tables) in drawn.items():
        heartbeat.doing(f"writing {name}")
        save_figure(figure, directory, name, tables)
    say(f"Written: {len(drawn)} figures to {directory}, as PNG and PDF, with tables as CSV:")
    print(textwrap.fill(", ".join(drawn), 100))
    if logs.results:  # last, where it is seen
        Console(width=None if sys.stdout.isatty() else 140).print(overlap_table(logs.results))
        for line in verdicts(logs.results):
            say(line)


if __name__ == "__main__":
    sys.exit(run_script(__file__, Config, main))
