"""Command line of the package: ``python -m skerch COMMAND --help``."""

from __future__ import annotations

import argparse
import contextlib
import json
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
from rich.console import Console
from rich.table import Table

from .a_posteriori import a_posteriori_error_bounds
from .a_priori import a_priori_hyperparams
from .errors import InputError, SkerchError
from .planning import KRYLOV_ROUNDS, format_bytes, parse_bytes, plan
from .store.inspection import inspect_path
from .store.layout import create_hdf5_layout
from .store.measurements import DistributedHDF5, parse_shape


class Parser(argparse.ArgumentParser):
    """An argument parser whose errors are one line."""

    def error(self, message: str) -> NoReturn:
        """Print ``message`` on one line and exit with status 2."""
        line = " ".join(message.split())
        self.exit(2, f"{self.prog}: {line} (see {self.prog} --help)\n")


def make_parser() -> Parser:
    """Return the parser with one sub-parser for each command."""
    parser = Parser(prog="skerch", description="Sketched decompositions: stores and sketch sizes.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND", parser_class=Parser)

    def add(name: str, run: Any, help: str) -> argparse.ArgumentParser:
        command = commands.add_parser(name, help=help, description=help)
        command.add_argument("--json", action="store_true", help="print the result as JSON")
        command.set_defaults(run=run)
        return command

    layout = add("create_hdf5_layout", _create, "Create an empty measurement store.")
    layout.add_argument("--hdf5dir", required=True, help="new or empty directory")
    layout.add_argument("--dtype", choices=("float32", "float64"), default="float32")
    layout.add_argument("--shape", required=True, help="H,W of the operator, e.g. 7030,7030")
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
    inspect.add_argument("--verify", action="store_true", help="read all data, check their sums")

    bounds = add("post_bounds", _post_bounds, "Error probabilities of an a-posteriori estimate.")
    bounds.add_argument("--apost_n", type=int, required=True, help="number of Gaussian vectors")
    bounds.add_argument("--apost_err", type=float, required=True, help="relative error in (0, 1]")

    sizes = add("prio_hpars", _prio_hpars, "Sketch sizes that a storage budget allows.")
    sizes.add_argument("--shape", required=True, help="H,W of the operator, e.g. 7030,7030")
    sizes.add_argument("--budget", type=int, required=True, help="how many numbers may be stored")
    sizes.add_argument("--sym", action="store_true", help="symmetric: one outer sketch is enough")

    choose = add("plan", _plan, "Costs of the recoveries for given sizes, and which one to use.")
    choose.add_argument("--shape", required=True, help="D,D of the operator, e.g. 7030,7030")
    choose.add_argument("--k", type=int, required=True, help="eigenpairs that are wanted")
    choose.add_argument("--products", type=int, required=True, help="products that may be made")
    choose.add_argument("--jobs", type=int, default=1, help="jobs at the same time")
    choose.add_argument("--budget", help="memory of a job, e.g. 8GB (default: a quarter)")
    choose.add_argument(
        "--passes", type=int, default=max(KRYLOV_ROUNDS), help="how often jobs may wait for all"
    )
    return parser


def _create(args: argparse.Namespace) -> dict[str, Any]:
    paths = create_hdf5_layout(
        Path(args.hdf5dir),
        parse_shape(args.shape),
        np.dtype(args.dtype),
        args.outer,
        args.inner,
        symmetric=args.sym,
    )
    return {name: str(path) for name, path in paths.items()}


def _merge(args: argparse.Namespace) -> dict[str, Any]:
    if args.delete_subfiles and args.ok_flag is None:
        raise InputError("--delete_subfiles needs --ok_flag: only measured files may be removed")
    out = DistributedHDF5.merge_all(
        Path(args.in_path),
        Path(args.out_path),
        ok_flag=args.ok_flag,
        delete_subfiles=args.delete_subfiles,
    )
    return {"merged": str(out)}


def _inspect(args: argparse.Namespace) -> dict[str, Any]:
    return inspect_path(Path(args.path), args.ok_flag, args.verify)


def _post_bounds(args: argparse.Namespace) -> dict[str, Any]:
    return a_posteriori_error_bounds(args.apost_n, args.apost_err)


def _prio_hpars(args: argparse.Namespace) -> dict[str, Any]:
    outer, inner = a_priori_hyperparams(parse_shape(args.shape), args.budget, hermitian=args.sym)
    return {"outer": outer, "inner": inner}


def _plan(args: argparse.Namespace) -> dict[str, Any]:
    budget = None if args.budget is None else parse_bytes(args.budget)
    shape = parse_shape(args.shape)
    return plan(shape, args.k, args.products, args.jobs, budget, args.passes).as_dict()


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
        texts = {name: format_bytes(row[name]) for name in ("stored_bytes", "peak_memory")}
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


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; return 0, 2 for wrong input or 1 for a failure."""
    args = make_parser().parse_args(argv)
    try:
        with contextlib.suppress(ValueError):  # not in the main thread: the caller handles signals
            signal.signal(signal.SIGTERM, _interrupt)
        result = args.run(args)
    except KeyboardInterrupt as stop:
        name, status = stop.args or ("Ctrl-C", 128 + signal.SIGINT)
        print(f"skerch: stopped by {name} before it was done", file=sys.stderr)
        return status
    except (SkerchError, OSError) as error:
        print(f"skerch: {' '.join(str(error).split())}", file=sys.stderr)
        return 2 if isinstance(error, InputError) else 1
    if args.json:
        print(json.dumps(result))
    else:
        _print(result)
    return 0


if __name__ == "__main__":
    sys.exit(main())
