"""Durable writes: files that survive a loss of power, in their own directory.

A file's content and its name reach the disk separately. Each is synchronised before
anything is said to be saved; and a directory that is written to is kept open, so that
one that was removed or moved meanwhile is noticed, not made anew.
"""

from __future__ import annotations

import contextlib
import errno
import os
from pathlib import Path

from lrscape.errors import InputError

# What file systems say that have nothing to synchronise.
_NOTHING_TO_DO = (errno.EINVAL, errno.EBADF, errno.ENOTSUP)


class GoneError(InputError):
    """A directory that was removed, moved or replaced while it was written to."""


def sync_file(file: Path) -> int:
    """Waits until a file's content is on disk; its length in bytes."""
    with file.open("rb") as opened:
        os.fsync(opened.fileno())
        return os.fstat(opened.fileno()).st_size


def sync_directory(directory: Path) -> None:
    """Waits until the names in a directory are on disk."""
    if not hasattr(os, "O_DIRECTORY"):  # systems where directories cannot be opened
        return
    handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in _NOTHING_TO_DO:
            raise
    finally:
        os.close(handle)


def sync_tree(directory: Path) -> None:
    """Waits until a directory, all that is in it and its own name are on disk."""
    for folder, _, names in os.walk(directory, topdown=False):
        for name in names:
            sync_file(Path(folder, name))
        sync_directory(Path(folder))
    sync_directory(directory.parent)


def make_directory(directory: Path) -> None:
    """Makes a directory and those above it, and waits until they are on disk."""
    missing = []
    for folder in (directory, *directory.parents):
        if folder.exists():
            break
        missing.append(folder)
    directory.mkdir(parents=True, exist_ok=True)
    for folder in reversed(missing):
        sync_directory(folder.parent)


class HeldDirectory:
    """A directory that is kept open while files are written to it by its path.

    Args:
        path: the directory, which exists.
        run_dir: what messages call it: the run directory that it is, or lies in.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / 'run'
        >>> path.mkdir()
        >>> held = HeldDirectory(path, path)
        >>> held.check()
        >>> path.rmdir()
        >>> held.check()
        Traceback (most recent call last):
        lrscape.durable.GoneError: run_dir=... was removed while it was written to...
        >>> held.close()
    """

    def __init__(self, path: Path, run_dir: Path):
        self._path, self._run_dir = path, run_dir
        self._handle: int | None = None
        if hasattr(os, "O_DIRECTORY"):
            self._handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY)

    def check(self) -> None:
        """Raises GoneError where the path is no longer that of the directory."""
        if self._handle is None:
            return
        held = os.fstat(self._handle)
        try:
            found = self._path.stat()
        except (FileNotFoundError, NotADirectoryError):
            found = None
        if found is not None and os.path.samestat(held, found):
            return
        if (now := self._now_at()) is None:
            raise GoneError(
                f"run_dir={str(self._run_dir)!r} was removed while it was written to, "
                "and is not made again; start another run, or bring it back from a "
                "copy and go on with --resume"
            )
        raise GoneError(
            f"run_dir={str(self._run_dir)!r} was moved while it was written to, to "
            f"{now!r}, where everything up to its last checkpoint is whole; go on with "
            f"--resume --run-dir={now}"
        )

    def _now_at(self) -> str | None:
        """Where the run directory is now; None where it is nowhere, or not known."""
        with contextlib.suppress(OSError):
            now = Path(f"/proc/self/fd/{self._handle}").readlink()
            if now.is_dir():
                below = self._path.absolute().relative_to(self._run_dir.absolute())
                return str(now.parents[len(below.parts) - 1] if below.parts else now)
        return None

    def close(self) -> None:
        """Lets go of it."""
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None
