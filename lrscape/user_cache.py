"""The user's own directory for what is costly to make again.

What lies there is believed, and compiled programs are run. It is therefore in no run
directory, which may come from someone else, and nobody but the user may write to it.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

from lrscape import checks
from lrscape.errors import InputError


def directory() -> Path | None:
    """``$XDG_CACHE_HOME/lrscape``, or else ``~/.cache/lrscape``; None without a home.

    A relative XDG_CACHE_HOME is passed over, as its specification asks.
    """
    root = os.environ.get("XDG_CACHE_HOME", "")
    if Path(root).is_absolute():
        return Path(root) / "lrscape"
    try:
        home = Path.home()
    except RuntimeError:
        return None
    # Of a user who is not in the system's list, and has no HOME, this is `~`.
    return home / ".cache" / "lrscape" if home.is_absolute() else None


def private_directory(name: str) -> Path | None:
    """A folder in the user's cache directory, made with mode 0700 if need be.

    Args:
        name: of the folder; empty: the directory itself.

    Returns:
        The folder; None without a home, or where it cannot be made.

    Raises:
        InputError: it, or the directory that it is in, is a link, belongs to another
            user, or can be written to by others.
    """
    root = directory()
    if root is None:
        return None
    for folder in dict.fromkeys((root, root / name)):
        try:
            folder.parent.mkdir(parents=True, exist_ok=True)
            folder.mkdir(mode=0o700, exist_ok=True)
        except FileExistsError:
            pass  # said below
        except OSError:
            return None
        _check_own(folder)
    return root / name


def _check_own(folder: Path) -> None:
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode):
        why = f"is {checks.file_type(found.st_mode)}, not a directory"
    elif hasattr(os, "getuid") and found.st_uid != os.getuid():
        why = f"belongs to another user (number {found.st_uid})"
    elif os.name == "posix" and found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        why = f"can be written to by others (mode {stat.S_IMODE(found.st_mode):04o})"
    else:
        return
    raise InputError(
        f"{folder} {why}, so nothing in it is used; remove it, or set XDG_CACHE_HOME "
        "to a directory of your own"
    )
