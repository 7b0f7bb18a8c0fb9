"""The commands of ``python -m skerch``, their arguments, and what they print.

Arguments are checked, and ``--help`` is printed, before PyTorch and HDF5 are imported: each command
imports what it needs.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import re
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

from humanfriendly import format_size
from rich.console import Console
from rich.table import Table

from . import heartbeat
from .a_priori import KRYLOV_ROUNDS, a_priori_hyperparams
from .budget import parse_bytes
from .errors import InputError, expected, one_line
from .written import decimal_number, whole_number

SHAPE_HELP = "H,W of the operator, e.g. 7030,7030"

#: What a command does, and what adds one to the parser.
Run = Callable[[argparse.Namespace], dict[str, Any]]
Add = Callable[[str, Run, str], argparse.ArgumentParser]


class Parser(argparse.ArgumentParser):
    """An argument parser whose errors are one line, and whose numbers are decimal."""

    def __init__(self, *args: Any, **options: Any):
        super().__init__(*args, **options)
        self.register("type", int, whole_number)
        self.register("type", float, decimal_number)

    def error(self, message: str) -> NoReturn:
        """Print ``message`` on one line and exit with status 2."""
        line = " ".join(message.split())
        self.exit(2, f"{self.prog}: {line} (see {self.prog} --help)\n")


def make_parser() -> Parser:
    """Return the parser with one sub-parser for each command."""
    parser = Parser(prog="skerch", description="Sketched decompositions: stores and sketch sizes.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND", parser_class=Parser)

    def add(name: str, run: Run, help: str) -> argparse.ArgumentParser:
        command: argparse.ArgumentParser = commands.add_parser(name, help=help, description=help)
        command.add_argument("--json", action="store_true", help="print the result as JSON")
        command.set_defaults(run=run, status=0)
        return command

    _add_store_commands(add)
    _add_size_commands(add)
    return parser


def _add_store_commands(add: Add) -> None:
    layout = add("create_hdf5_layout", _create, "Create an empty measurement store.")
    layout.add_argument("--hdf5dir", required=True, help="new or empty directory")
    layout.add_argument("--dtype", choices=("float32", "float64"), default="float32")
    _add_shape(layout, SHAPE_HELP)
    layout.add_argument("--outer", type=int, required=True, help="number of outer measurements")
    layout.add_argument("--inner", type=int, required=True, help="number of inner measurements")
    layout.add_argument("--sym", action="store_true", help="symmetric: no right outer measurements")

    merge = add("merge_hdf5", _merge, "Merge a store into one monolithic file.")
    merge.add_argument("--in_path", required=True, help="the virtual file, e.g. leftouter_ALL.h5")
    merge.add_argument("--out_path", required=True, help="the monolithic file, must not exist")
    merge.add_argument("--ok_flag", help="refuse unless every measurement carries this flag")
    merge.add_argument("--delete_subfiles", action="store_true", help="remove them after success")

    inspect = add("inspect", _inspect, "Say what a file or directory of measurements holds.")
    inspect.add_argument("path", help="an HDF5 file, or a directory of them")
    inspect.add_argument("--ok_flag", default="measured", help="flag of a successful measurement")
    inspect.add_argument(
        "--verify",
        action="store_true",
        help="read all data, check their sums: exit status 1 if wrong",
    )


def _add_shape(command: argparse.ArgumentParser, help: str) -> None:
    shape = command.add_mutually_exclusive_group(required=True)
    shape.add_argument("--shape", help=help)
    shape.add_argument("--params", help="a params file instead: its data have D rows")


def _add_size_commands(add: Add) -> None:
    bounds = add("post_bounds", _post_bounds, "Error probabilities of an a-posteriori estimate.")
    bounds.add_argument("--apost_n", type=int, required=True, help="number of Gaussian vectors")
    bounds.add_argument("--apost_err", type=float, required=True, help="relative error in (0, 1]")

    sizes = add("prio_hpars", _prio_hpars, "Sketch sizes that a storage budget allows.")
    sizes.add_argument("--shape", required=True, help=SHAPE_HELP)
    sizes.add_argument("--budget", type=int, required=True, help="how many numbers may be stored")
    sizes.add_argument("--sym", action="store_true", help="symmetric: one outer sketch is enough")

    choose = add("plan", _plan, "Costs of the recoveries for given sizes, and which one to use.")
    _add_shape(choose, "D,D of the operator, e.g. 7030,7030")
    choose.add_argument("--k", type=int, required=True, help="eigenpairs that are wanted")
    choose.add_argument("--products", type=int, required=True, help="products that may be made")
    choose.add_argument("--jobs", type=int, default=1, help="jobs at the same time")
    choose.add_argument("--budget", help="memory of a job, e.g. 8GB (default: a quarter)")
    choose.add_argument(
        "--passes", type=int, default=max(KRYLOV_ROUNDS), help="how often jobs may wait for all"
    )


_SHAPE = re.compile(r"([0-9]+),([0-9]+)")


def parse_shape(text: str) -> tuple[int, int]:
    """Read ``H,W``."""
    match = _SHAPE.fullmatch(text.strip())
    if not match or not all(int(x) > 0 for x in match.groups()):
        raise InputError(f"expected a shape such as 7030,7030, got {text!r}")
    return int(match[1]), int(match[2])


def _shape(args: argparse.Namespace) -> tuple[int, int]:
    """Return the shape that was given, or that of a square operator on the rows of a file."""
    if args.params is None:
        return parse_shape(args.shape)
    from .store.files import own_dataset, reading

    with reading(Path(args.params)) as file:
        rows = int(own_dataset(file, "data").shape[0])
    return rows, rows


def _create(args: argparse.Namespace) -> dict[str, Any]:
    shape = _shape(args)
    heartbeat.doing(f"creating {args.hdf5dir}")
    import numpy as np

    from .store.layout import create_hdf5_layout

    paths = create_hdf5_layout(
        Path(args.hdf5dir),
        shape,
        np.dtype(args.dtype),
        args.outer,
        args.inner,
        symmetric=args.sym,
    )
    return {name: str(path) for name, path in paths.items()}


def _merge(args: argparse.Namespace) -> dict[str, Any]:
    if args.delete_subfiles and args.ok_flag is None:
        raise InputError("--delete_subfiles needs --ok_flag: only measured files may be removed")
    if not Path(args.in_path).is_file():
        raise InputError(f"{args.in_path}: no such file, expected one such as leftouter_ALL.h5")
    heartbeat.doing(f"merging {args.in_path}")
    from .store.merge import merge_all

    out = merge_all(
        Path(args.in_path),
        Path(args.out_path),
        ok_flag=args.ok_flag,
        delete_subfiles=args.delete_subfiles,
    )
    return {"merged": str(out)}


def _inspect(args: argparse.Namespace) -> dict[str, Any]:
    heartbeat.say("skerch: loading PyTorch")
    from .store.inspection import inspect_path, is_consistent

    heartbeat.doing(f"reading {args.path}")
    found = inspect_path(Path(args.path), args.ok_flag, args.verify)
    args.status = int(args.verify and not is_consistent(found))
    return found


def _post_bounds(args: argparse.Namespace) -> dict[str, Any]:
    heartbeat.say("skerch: loading PyTorch")
    from .a_posteriori import a_posteriori_error_bounds

    return a_posteriori_error_bounds(args.apost_n, args.apost_err)


def _prio_hpars(args: argparse.Namespace) -> dict[str, Any]:
    outer, inner = a_priori_hyperparams(parse_shape(args.shape), args.budget, hermitian=args.sym)
    return {"outer": outer, "inner": inner}


def _plan(args: argparse.Namespace) -> dict[str, Any]:
    shape = _shape(args)
    budget = None if args.budget is None else parse_bytes(args.budget)
    heartbeat.say("skerch: loading PyTorch")
    from .planning import plan

    found = plan(
        shape,
        args.k,
        args.products,
        jobs=args.jobs,
        memory_budget=budget,
        max_passes=args.passes,
    ).as_dict()
    if not (found["warning"] or args.json):
        del found["warning"]  # people need no empty line
    return found


#: Columns of the printed table of recoveries; all others are in the JSON.
PLAN_COLUMNS = {
    "name": "recovery",
    "products": "products",
    "num_rounds": "passes",
    "products_in_sequence": "in sequence",
    "stored_columns": "columns",
    "stored_bytes": "stored",
    "peak_memory": "peak memory",
    "problem": "remark",
}


def plan_table(rows: list[dict[str, Any]]) -> Table:
    """Return one line for each recovery."""
    table = Table(*PLAN_COLUMNS.values(), box=None, pad_edge=False)
    for row in rows:
        remark = row["problem"] or ("" if row["within_budget"] else "exceeds the budget")
        texts = {name: format_size(row[name]) for name in ("stored_bytes", "peak_memory")}
        table.add_row(*(str((row | texts | {"problem": remark})[name]) for name in PLAN_COLUMNS))
    return table


def _print(result: dict[str, Any], indent: str = "") -> None:
    for name, value in result.items():
        if isinstance(value, dict):
            print(f"{indent}{name}:")
            _print(value, indent + "  ")
        elif isinstance(value, list) and value and isinstance(value[0], dict):
            Console(width=None if sys.stdout.isatty() else 140).print(plan_table(value))
        else:
            print(f"{indent}{name}: {value}")


def _interrupt(number: int, frame: Any) -> NoReturn:
    """Let SIGTERM end what runs as Ctrl-C does: files that are being written are removed."""
    raise KeyboardInterrupt(signal.Signals(number).name, 128 + number)


def run_command(argv: Sequence[str] | None = None) -> int:
    """Run one command; return 0, 2 for wrong input or 1 for a failure or damaged data."""
    args = make_parser().parse_args(argv)
    try:
        with contextlib.suppress(ValueError):  # not in the main thread: the caller handles signals
            signal.signal(signal.SIGTERM, _interrupt)
        with heartbeat.alive("skerch: beginning") if argv is None else contextlib.nullcontext():
            result = args.run(args)
        if args.json:
            print(json.dumps(result))
        else:
            _print(result)
    except KeyboardInterrupt as stop:
        name, status = stop.args or ("Ctrl-C", 128 + signal.SIGINT)
        print(f"skerch: stopped by {name} before it was done", file=sys.stderr)
        return int(status)
    except Exception as error:
        if not expected(error):
            raise
        print(f"skerch: {one_line(error)}", file=sys.stderr)
        return 2 if isinstance(error, InputError) else 1
    return int(args.status)
