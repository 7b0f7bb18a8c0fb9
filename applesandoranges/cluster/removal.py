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

from skerch.errors import InputError, SkerchError, one_line
from skerch.store.files import is_alive

from ..app import events
from ..app.log import read_log
from .ownership import is_store, may_be_removed, store_files, unreadable


def remove_measurements(store: Path, run_id: str) -> str:
    """Remove a store, and those of its layouts that were never finished; return what was done."""
    for partial in unfinished_layouts(store):
        _remove(partial, run_id)
    if not store.is_dir():
        return "is gone already"
    if not is_store(store):
        return "holds no measurements; it is left alone"
    if stay := [path for path in store_files(store) if not may_be_removed(path, run_id)]:
        return f"{_whose(stay, run_id)}; it is left alone"
    if _remove(store, run_id):
        return "removed"
    left = sorted(path.name for path in store.iterdir())[:1] if store.is_dir() else []
    return (
        f"removed, but for files of others in there, such as {''.join(left)}; remove them by hand "
        "if nobody needs them"
    )


def _whose(files: list[Path], run_id: str) -> str:
    """Say which files are not known to be of a run, and why."""
    unknown = {path: why for path in files if (why := unreadable(path))}
    foreign = [path for path in files if path not in unknown]
    words = []
    if foreign:
        words.append(f"{len(foreign)} files are not of run {run_id}, such as {foreign[0].name}")
    for path, why in list(unknown.items())[:1]:
        words.append(
            f"{len(unknown)} files cannot be read, so that whose they are is unknown, such as "
            f"{path.name} ({why}; remove it by hand if nobody needs it)"
        )
    return ", ".join(words)


def unfinished_layouts(store: Path) -> list[Path]:
    """Return the directories that 10b was killed in making: new layouts, without measurements."""
    name = re.compile(rf"{re.escape(store.name)}\.partial\.[A-Za-z0-9_]+\.([0-9]+)")
    found = []
    for path in store.parent.iterdir():
        match = name.fullmatch(path.name)
        # Whether it is being made on another machine cannot be known.
        if match and path.is_dir() and not path.is_symlink() and not is_alive(int(match[1])):
            others = set(path.iterdir()) - set(store_files(path))
            if not others and all(may_be_removed(file, None) for file in store_files(path)):
                found.append(path)
    return sorted(found)


def _remove(directory: Path, run_id: str) -> bool:
    """Remove the files of a store, the virtual ones last, and the directory if it is empty then.

    What is left when this is stopped in the middle is still a store.
    """
    for path in store_files(directory):
        if may_be_removed(path, run_id):
            path.unlink(missing_ok=True)
    try:
        os.rmdir(directory)
    except OSError:
        return False
    return True


def main(argv: Sequence[str]) -> int:
    """Do it; return 0, 2 for wrong input, or 1 for a failure."""
    if len(argv) != 2:
        print(f"removal: expected two words, STORE LOG, got {len(argv)}", file=sys.stderr)
        return 2
    store, log = map(Path, argv)
    try:
        print(f"{store}: {remove_measurements(store, _run_id(log))}")
    except (SkerchError, OSError) as error:
        print(f"{store}: cannot be removed: {one_line(error)}", file=sys.stderr)
        return 2 if isinstance(error, InputError) else 1
    return 0


def _run_id(log: Path) -> str:
    run_id = read_log(log).first(events.GLOBALS).get("run_id")
    if isinstance(run_id, str) and run_id:
        return run_id
    raise InputError(
        f"{log}: expected the run_id of a training, found none (a log of an earlier version?), so "
        "that nobody knows which measurements are its own; remove them by hand"
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
