"""Arrays that take long to compute, kept on disk from one process to the next."""

from __future__ import annotations

import contextlib
import hashlib
import os
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from lrscape.errors import InputError
from lrscape.user_cache import directory as directory
from lrscape.user_cache import private_directory

Arrays = dict[str, np.ndarray]
CHECKSUM = "sha256"  # of all other arrays, beside them in the file


def digest(arrays: Mapping[str, np.ndarray]) -> str:
    """The SHA-256 of named arrays, with their types and shapes, in hexadecimal.

    Example:
        >>> one = digest({'a': np.zeros(2, np.float32)})
        >>> one == digest({'a': np.zeros(2, np.int32)})
        False
    """
    found = hashlib.sha256()
    for name, array in sorted(arrays.items()):
        found.update(f"{name} {array.dtype.str} {array.shape}\n".encode())
        found.update(np.ascontiguousarray(array).data)
    return found.hexdigest()


def load_or_make(name: str, make: Callable[[], Arrays]) -> Arrays:
    """Arrays from the cache, or made and put there.

    A file that is damaged is made anew; a directory that cannot be written, is not
    there, or is not the user's own, costs the time to make the arrays and nothing else.

    Args:
        name: of the file, without its ending; says all that the arrays depend on.
        make: makes the arrays.

    Returns:
        What `make` returns, or once returned, bit for bit.
    """
    try:
        folder = private_directory("")
    except InputError:
        folder = None
    if folder is None:
        return make()
    file = folder / f"{name}.npz"
    if (arrays := _load(file)) is None:
        arrays = make()
        with contextlib.suppress(OSError):
            _save(file, arrays)
    return arrays


def _load(file: Path) -> Arrays | None:
    """What a file holds; None where there is none or it is not what was saved."""
    try:
        # Opened here, since NumPy leaves a file open that it cannot read.
        with file.open("rb") as opened, np.load(opened, allow_pickle=False) as found:
            arrays = {name: found[name] for name in found.files}
        checksum = arrays.pop(CHECKSUM).item()
    # Bytes can be wrong in more ways than NumPy and zipfile name, and whatever is wrong
    # with them, the arrays can be made anew.
    except Exception:
        return None
    return arrays if checksum == digest(arrays) else None


def _save(file: Path, arrays: Arrays) -> None:
    """Writes a file aside and renames it, so that it is never half there."""
    file.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=".", suffix=".npz", dir=file.parent)
    aside = Path(name)
    try:
        with os.fdopen(handle, "wb") as opened:
            checksum: Arrays = {CHECKSUM: np.array(digest(arrays))}
            np.savez(opened, allow_pickle=False, **arrays, **checksum)
            opened.flush()
            os.fsync(opened.fileno())
        aside.replace(file)
    finally:
        aside.unlink(missing_ok=True)
