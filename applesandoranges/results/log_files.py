"""Which logs there are: files named, or found in directories, each content once."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Sequence
from pathlib import Path

from skerch.errors import InputError

from ..app.log import Log

#: Names of logs: ``<stamp>[<number of the script>_...``.
#: Of a numbered script; 10e makes blocks, its logs hold no result.
LOG_NAME = re.compile(r"\[(?!10e)\d\d[a-z]_")


def find_logs(where: str) -> list[Path]:
    """Return the logs named in ``where``: files, or directories with logs of numbered scripts.

    A log that is named several times, or through links, is one log, under its first name.

    Args:
        where: One path or several, separated as in ``PATH`` (by ``:``). What exists under all of
            it as a name is one path.

    Raises:
        InputError: If a path does not exist or a directory has no such log.
    """
    logs: dict[Path, Path] = {}
    texts = [where] if Path(where).expanduser().exists() else where.split(os.pathsep)
    for text in texts:
        path = Path(text).expanduser()
        if path.is_dir():
            found = sorted(log for log in path.rglob("*.log") if LOG_NAME.search(log.name))
            if not found:
                raise InputError(
                    f"{path}: no log of a numbered script in there (<stamp>[10d_....py]....log)"
                )
        elif path.is_file():
            found = [path]
        else:
            raise InputError(f"{path}: no such log or directory")
        for log in found:
            logs.setdefault(log.resolve(), log)
    return list(logs.values())


def without_copies(logs: Sequence[Log]) -> tuple[list[Log], str]:
    """Return logs of which no two have the same content, and how many were copies, in words.

    Copies of a directory, counted as analyses or measurements of their own, would change tables.
    """
    originals: dict[bytes, Log] = {}
    copies = []
    for log in logs:
        content = hashlib.sha256(log.path.read_bytes()).digest()
        if originals.setdefault(content, log) is not log:
            copies.append((log.path, originals[content].path))
    if not copies:
        return list(logs), ""
    (copy, original), num = copies[0], len(copies)
    others = f", and {num - 1} more such copies" if num > 1 else ""
    return list(originals.values()), f"{copy}: a copy of {original}, which counts once{others}"
