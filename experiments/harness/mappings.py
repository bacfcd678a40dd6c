"""Memory mappings, of which Linux lets a process have 65,530.

XLA takes three for a program on CPU and aborts where there are no more: a process that
trains hundreds of networks has to let go of the programs of those that are done.
"""

from __future__ import annotations

import gc
from pathlib import Path

import jax

from lrscape.training.programs import forget_programs

# Of a process, beyond which its compiled programs go; all go, so not too often.
MANY = 15_000
_MAPS = Path("/proc/self/maps")


def few_mappings(limit: int = MANY) -> None:
    """Lets go of compiled programs where there are many mappings.

    They are compiled again when they are called again, or read from a compilation
    cache.

    Args:
        limit: mappings from which on programs go.
    """
    if _MAPS.exists() and _MAPS.read_bytes().count(b"\n") > limit:
        forget_programs()
        jax.clear_caches()
        gc.collect()
