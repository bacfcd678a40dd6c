"""SIGTERM and Ctrl-C, noted and acted upon between two updates."""

from __future__ import annotations

import signal
import sys
from types import FrameType
from typing import Any

import jax
from jax.experimental import multihost_utils


class Signals:
    """Notes SIGTERM and Ctrl-C, to be acted upon between two updates.

    A second one ends the process at once.
    """

    def __init__(self) -> None:
        self.received: signal.Signals | None = None
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Signals:
        for number in (signal.SIGTERM, signal.SIGINT):
            self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, kind, error, trace) -> None:
        self._restore()

    def asked(self) -> signal.Signals | None:
        """The signal that asks to stop now, if any."""
        return self.received

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.received = signal.Signals(number)
        print(f"\n{self.received.name}: saving after this update", file=sys.stderr)
        self._restore()

    def _restore(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)


class SharedSignals:
    """SIGTERM to any of several processes, told to all of them after the same update.

    JAX notes it. Ctrl-C, which a terminal sends to each, is left to whoever started
    them.
    """

    # It is asked after every update, so that no state need be yielded for it.
    received: signal.Signals | None = None

    def __init__(self) -> None:
        self._asked = 0
        self._before: Any = None

    def __enter__(self) -> SharedSignals:
        self._before = signal.signal(signal.SIGINT, signal.SIG_IGN)
        return self

    def __exit__(self, kind, error, trace) -> None:
        signal.signal(signal.SIGINT, self._before)

    def asked(self) -> signal.Signals | None:
        """The signal that asks to stop now; every process asks after every update."""
        self._asked += 1
        stop = multihost_utils.reached_preemption_sync_point(self._asked)
        return signal.SIGTERM if stop else None


def noted_signals() -> Signals | SharedSignals:
    """What notes signals in this process."""
    return Signals() if jax.process_count() == 1 else SharedSignals()
