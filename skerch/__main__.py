"""Command line of the package: ``python -m skerch COMMAND --help``."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from .streams import failures_to_load_in_one_line, flushed, outlive_readers


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; return 0, 2 for wrong input or 1 for a failure."""
    from .commands import run_command

    outlive_readers()
    return flushed("skerch", run_command(argv))


if __name__ == "__main__":
    failures_to_load_in_one_line("skerch")
    sys.exit(main())
