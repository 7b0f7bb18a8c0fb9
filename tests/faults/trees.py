"""Everything that a directory holds, to be compared with what it holds later."""

from __future__ import annotations

from pathlib import Path


def tree(directory: Path) -> dict[Path, tuple[int, int, bytes]]:
    """Return permissions, time of change and content of whatever is below ``directory``."""
    found = {}
    for path in sorted(directory.rglob("*")):
        stat = path.lstat()
        content = path.read_bytes() if path.is_file() else b""
        found[path] = (stat.st_mode, stat.st_mtime_ns if path.is_file() else 0, content)
    return found
