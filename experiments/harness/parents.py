"""Processes that end with the one that started them, however that one ended.

A launcher that is killed by SIGKILL can end nobody. Each process that it started looks
for it from time to time, and ends by itself: the run directory's lock is free again,
and what was saved can be gone on from.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path

# Names the launcher's process to those that it starts, and to those that they start.
VARIABLE = "LRSCAPE_LAUNCHER"
LOOK_SECONDS = 0.5
# How long a process has to save what it trains before it is killed.
PATIENCE = 5.0


def launched_by_this(environment: dict[str, str]) -> dict[str, str]:
    """An environment for processes that call `end_with_launcher`."""
    return {**environment, VARIABLE: str(os.getpid())}


def end_with_launcher() -> None:
    """Ends this process soon after its launcher, if it has one.

    It is told to by SIGTERM, on which training saves; what takes longer is killed.
    """
    if (number := os.environ.get(VARIABLE, "")).isdecimal():
        end_with(int(number))


def end_with(launcher: int, patience: float = PATIENCE) -> None:
    """Ends this process soon after another one.

    Args:
        launcher: the other one's id.
        patience: seconds between SIGTERM and SIGKILL.
    """
    started = _started(launcher)

    def watch() -> None:
        while started is not None and _started(launcher) == started:
            time.sleep(LOOK_SECONDS)
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(patience)
        os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=watch, daemon=True).start()


def _started(process: int) -> str | None:
    """When a process began, which tells it from others of its id; None: it ended.

    Example:
        >>> _started(os.getpid()) == _started(os.getpid()), _started(2**22 + 1)
        (True, None)
    """
    try:
        # What follows the name, which may hold anything, in brackets.
        fields = Path(f"/proc/{process}/stat").read_text("utf-8", errors="replace")
        state, *rest = fields.rpartition(")")[2].split()
        return None if state in "ZX" else rest[18]
    except OSError:
        if Path("/proc/self/stat").exists():
            return None
    try:  # systems without /proc
        os.kill(process, 0)
    except ProcessLookupError:
        return None
    except OSError:  # another user's
        pass
    return "running"
