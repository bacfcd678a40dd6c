"""An exclusive lock on an open file, which the system releases when a process ends.

The only module that needs `fcntl`, which systems other than Unix lack: everything that
writes no run and no store works without it.
"""

from __future__ import annotations

from typing import IO, Any

from lrscape.errors import InputError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]


def lock(name: str, file: IO[Any]) -> bool:
    """Locks an open file against other processes until it is closed.

    Args:
        name: what the message calls the file.
        file: open for writing.

    Returns:
        Whether it is locked now: False where another process holds the lock.

    Raises:
        InputError: this system, or the file system that the file is on, has no locks.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryFile() as file:
        ...     lock('store', file)
        True
    """
    if fcntl is None:
        raise InputError(
            f"{name} cannot be locked: this system has no fcntl, without which two "
            "processes could write one file; on Windows run under WSL"
        )
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        raise InputError(
            f"{name} cannot be locked: {error.strerror or error}; choose a directory "
            "on a file system with locks, such as a local disk"
        ) from error
    return True
