"""How far a run has come and how long it has left, as a bar or as lines of a log."""

from __future__ import annotations

import time

from tqdm import tqdm

# Seconds between two lines, where there is no terminal to draw a bar on.
EVERY = 30.0
# And between two numbers beside the bar.
SHOWN = 0.5


class Progress:
    """Progress of one run, from its first update on.

    A bar with the time that is left on a terminal; elsewhere, such as in a log file, a
    line after the first update and then every half minute.

    Args:
        total: updates of the whole run.
        step: those behind it.
        name: of the run, where it is one of several.
        shown: whether anything is; of several processes the first alone shows it.
        lines: whether lines are printed where there is no terminal.
    """

    def __init__(
        self, total: int, step: int, *, name: str = "", shown: bool = True,
        lines: bool = True,
    ):  # fmt: skip
        self._total, self._first, self._name = total, step, name
        self._started = self._last = time.monotonic()
        self._bar = tqdm(
            total=total, initial=step, unit="step", desc=name or None, leave=False,
            disable=None if shown else True, dynamic_ncols=True, mininterval=SHOWN,
        )  # fmt: skip
        self._lines = shown and lines and bool(self._bar.disable)
        if self._lines:
            self._write(f"step {step} of {total}")

    def due(self) -> bool:
        """Whether the loss and the rate are to be shown now."""
        seconds = SHOWN if not self._bar.disable else EVERY
        return (
            not self._bar.disable or self._lines
        ) and time.monotonic() - self._last > seconds

    def show(self, step: int, numbers: dict[str, str]) -> None:
        """Shows numbers beside the progress, where they are `due`."""
        self._last = time.monotonic()
        if not self._bar.disable:
            self._bar.set_postfix(numbers)
            return
        spent = self._last - self._started
        left = spent / max(1, step - self._first) * (self._total - step)
        said = ", ".join(f"{name} {value}" for name, value in numbers.items())
        clock = tqdm.format_interval(left)
        self._write(f"step {step} of {self._total}, {said}, {clock} left")

    def update(self, step: int) -> None:
        """Moves the bar."""
        self._bar.update(step - self._bar.n if not self._bar.disable else 0)

    def close(self) -> None:
        """Takes the bar away."""
        self._bar.close()

    def _write(self, line: str) -> None:
        print(f"{self._name}: {line}" if self._name else line, flush=True)
