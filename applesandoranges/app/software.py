"""Which software made a result: versions, and the commit of this repository."""

from __future__ import annotations

import platform
import subprocess
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version

from .. import REPOSITORY

PACKAGES = ("torch", "curvlinops-for-pytorch", "deepobs", "h5py", "numpy")


@lru_cache(maxsize=1)
def made_with() -> dict[str, str]:
    """Return versions by name; ``commit`` ends with ``+changes`` if tracked files were edited."""
    versions = {"python": platform.python_version(), "commit": _commit()}
    for name in PACKAGES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            versions[name] = "unknown"
    return versions


def _commit() -> str:
    if not (REPOSITORY / ".git").exists():
        return "unknown"
    describe = ["git", "-C", str(REPOSITORY), "describe", "--always", "--abbrev=40", "--exclude=*"]
    try:
        done = subprocess.run(
            [*describe, "--dirty=+changes"], capture_output=True, text=True, timeout=10, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return "unknown"  # no git on this machine, or the directory belongs to somebody else
    return done.stdout.strip()
