"""Exclusive locks of open files.

The operating system releases a lock when its process ends, so that of a killed process need not be removed. Some file
systems of clusters have no locks: there every process gets the lock that it asks for.
"""

import errno
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from export.errors import UserError

_PAUSE_S = 0.1
_LOCKED_BYTE = 1 << 30
"""Windows locks bytes, which others then cannot read: this one is behind the end of any file that is locked."""
_NO_LOCKS = (errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOLCK)
"""What a file system without locks says, such as Lustre that is mounted without the option flock."""


def try_lock(file: IO[Any]) -> bool:
    """Lock an open file, unless another process has locked it: then False."""
    try:
        if sys.platform == "win32":
            import msvcrt

            file.seek(_LOCKED_BYTE)
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
            file.seek(0)
        else:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        return False
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
    return True


def unlock(file: IO[Any]) -> None:
    """Release the lock of a file, which processes that were forked meanwhile would otherwise keep until they end."""
    if sys.platform == "win32":
        return  # no process is forked, and closing the file releases its lock
    import fcntl

    with suppress(OSError):  # a file system without locks
        fcntl.flock(file, fcntl.LOCK_UN)


def wait_for_lock(file: IO[Any]) -> None:
    """Lock an open file as soon as no other process has locked it."""
    while not try_lock(file):
        time.sleep(_PAUSE_S)


@contextmanager
def locked(path: Path, message: str) -> Iterator[None]:
    """A context in which no other process has locked the file at ``path``, which is made.

    Raises:
        UserError: another process has locked it, with this message.
    """
    with path.open("w", encoding="utf-8") as file:
        if not try_lock(file):
            raise UserError(message)
        try:
            yield
        finally:
            unlock(file)
