"""Command line of the benchmarks."""

from __future__ import annotations

import argparse
import sys

from . import (
    analysis,
    coverage,
    dct,
    measurement,
    one_pass,
    peer_packages,
    peers,
    pipeline,
    start,
    tracking,
)
from .harness import RESULTS, SIZES, cases, run_here, run_in_subprocess

#: Importing these modules registers their cases.
MODULES = (
    measurement, analysis, peers, peer_packages, pipeline, dct, coverage, one_pass, start, tracking,
)  # fmt: skip


def main(argv: list[str] | None = None) -> int:
    """Run the cases that are named, or all."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help="cases; default those of minutes")
    parser.add_argument("--all", action="store_true", help="the long cases too")
    parser.add_argument("--list", action="store_true", help="show the cases and stop")
    parser.add_argument("--size", choices=SIZES, default="full", help="tiny: only that they run")
    parser.add_argument("--output", default=str(RESULTS), help="directory of the JSON files")
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    known = cases()
    if args.list:
        for case in known.values():
            print(f"{case.name:28}{'long  ' if case.long else '      '}{case.what}")
        return 0
    if wrong := [name for name in args.names if name not in known]:
        parser.error(f"unknown cases {', '.join(wrong)}; there are {', '.join(sorted(known))}")
    chosen = args.names or [name for name, case in known.items() if args.all or not case.long]
    if args.here:
        run_here(known[chosen[0]], args.size, args.output)
        return 0
    failed = [name for name in chosen if not run_in_subprocess(name, args.size, args.output)]
    if failed:
        print(f"failed: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
