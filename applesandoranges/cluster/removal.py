"""Removes the measurements of a run: ``python -m applesandoranges.cluster.removal STORE LOG``.

STORE is the directory of the measurements, LOG that of the training whose measurements they are.
Only what this project writes is removed, and only if all of it is of that very run.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from skerch.errors import SkerchError, one_line
from skerch.store.files import is_alive

from ..app import events
from ..app.log import read_log
from .ownership import foreign_files, is_foreign, is_store, store_files


def remove_measurements(store: Path, run_id: str) -> str:
    """Remove a store, and those of its layouts that were never finished; return what was done."""
    for partial in unfinished_layouts(store):
        _remove(partial, run_id)
    if not store.is_dir():
        return "is gone already"
    if not is_store(store):
        return "holds no measurements; it is left alone"
    if foreign := list(foreign_files(store, run_id)):
        return (
            f"{len(foreign)} files are not of run {run_id}, such as {foreign[0].name}; "
            "it is left alone"
        )
    return "removed" if _remove(store, run_id) else "removed, but for files of others in there"


def unfinished_layouts(store: Path) -> list[Path]:
    """Return the directories that 10b was killed in making: new layouts, without measurements."""
    name = re.compile(rf"{re.escape(store.name)}\.partial\.[A-Za-z0-9_]+\.([0-9]+)")
    found = []
    for path in store.parent.iterdir():
        match = name.fullmatch(path.name)
        # Whether it is being made on another machine cannot be known.
        if match and path.is_dir() and not path.is_symlink() and not is_alive(int(match[1])):
            others = set(path.iterdir()) - set(store_files(path))
            if not others and not any(foreign_files(path, None)):
                found.append(path)
    return sorted(found)


def _remove(directory: Path, run_id: str) -> bool:
    """Remove the files of a store, the virtual ones last, and the directory if it is empty then.

    What is left when this is stopped in the middle is still a store.
    """
    for path in store_files(directory):
        if not is_foreign(path, run_id):
            path.unlink(missing_ok=True)
    try:
        os.rmdir(directory)
    except OSError:
        return False
    return True


def main(argv: Sequence[str]) -> int:
    """Do it; return 0, or 1 for a failure."""
    store, log = map(Path, argv)
    try:
        run_id = read_log(log).first(events.GLOBALS)["run_id"]
        print(f"{store}: {remove_measurements(store, run_id)}")
    except (SkerchError, OSError) as error:
        print(f"{store}: cannot be removed: {one_line(error)}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
