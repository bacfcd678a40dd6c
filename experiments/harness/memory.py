"""What becomes of memory that was freed.

glibc gives large blocks back to the system as they are freed, and the system fills each
page with zeros before it hands it out again. Every update of a network frees its
activations and takes as much anew: on CPU a quarter of its time can go there
(`python -m experiments.bench.memory`).
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import sys

# Of glibc's mallopt: no block is a mapping of its own, and the heap does not shrink.
TRIM_THRESHOLD, TOP_PAD, MMAP_MAX = -1, -2, -4
_KEPT = {MMAP_MAX: 0, TRIM_THRESHOLD: 2**31 - 1, TOP_PAD: 2**28}


def keep_freed_memory() -> bool:
    """Has this process keep what it frees, to use it again.

    It then holds as much as it ever needed at once, until it ends. Nothing changes off
    Linux, with another C library than glibc, or where the environment has settings of
    the user's own (``GLIBC_TUNABLES``, ``MALLOC_...``).

    Returns:
        Whether it does.
    """
    chosen = any(
        name == "GLIBC_TUNABLES" or name.startswith("MALLOC_") for name in os.environ
    )
    if chosen or not sys.platform.startswith("linux"):
        return False
    with contextlib.suppress(AttributeError, OSError):
        libc = ctypes.CDLL("libc.so.6")
        return all(libc.mallopt(name, value) for name, value in _KEPT.items())
    return False
