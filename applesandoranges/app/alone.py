"""One process at a time: locks that end with their process, however that ends.

On file systems without locks there is none, and two processes at once are not noticed.
"""

from __future__ import annotations

import errno
import fcntl
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from skerch.errors import InputError

#: What systems say that have no locks, or none for this kind of file.
NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL, errno.EBADF)


def take_lock(path: Path, what: str, waiting: Callable[[str], None] | None = None) -> BinaryIO:
    """Return the open file that holds the lock on ``path``, until it is closed or the process ends.

    Args:
        path: A file, made empty if it is not there; nothing is written to it.
        what: What another process must not do at the same time, for the message.
        waiting: Gets the message; then this waits until the other process has ended. Without it,
            the lock is refused.

    Raises:
        InputError: If another process, of any machine, has the lock.
    """
    file = open(path, "ab", buffering=0)  # noqa: SIM115
    try:
        if _lock(file, fcntl.LOCK_NB):
            return file
        if waiting is None:
            raise InputError(
                f"{what} already, in another process; wait until it has ended, or stop it"
            )
        waiting(f"{what} already, in another process; waiting until it has ended")
        _lock(file, 0)
    except BaseException:
        file.close()
        raise
    return file


def _lock(file: BinaryIO, how: int) -> bool:
    """Take a lock, or say that another process has it."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | how)
    except OSError as error:
        if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
            return False
        if error.errno not in NO_LOCKS:
            raise
    return True
