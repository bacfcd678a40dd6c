"""SIGTERM and Ctrl-C, noted and acted upon between two updates."""

from __future__ import annotations

import signal
import sys
from types import FrameType
from typing import Any


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

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.received = signal.Signals(number)
        print(f"\n{self.received.name}: saving after this update", file=sys.stderr)
        self._restore()

    def _restore(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
