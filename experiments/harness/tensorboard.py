"""Metrics as TensorBoard's event files, beside the run's own."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from lrscape.errors import InputError

FOLDER = "tensorboard"


class EventWriter(Protocol):
    """What is used of tensorboardX's writer."""

    def add_scalar(self, tag: str, value: float, step: int) -> None:
        """Adds a point to a curve."""

    def close(self) -> None:
        """Writes what is held, and closes the file."""

    def flush(self) -> None:
        """Writes what is held."""


def check_tensorboard() -> None:
    """Raises InputError where tensorboardX is not installed."""
    try:
        import tensorboardX  # noqa: F401
    except ImportError as error:
        raise InputError(
            "tensorboard=True needs a package that is not installed: "
            "pip install 'lrscape[tensorboard]'"
        ) from error


def open_events(run_dir: Path, step: int) -> EventWriter:
    """Opens event files in ``RUN/tensorboard``.

    Args:
        run_dir: the run directory.
        step: updates that were made; what earlier files hold beyond them is hidden, as
            a resumed run makes those updates again.

    Returns:
        The writer.
    """
    from tensorboardX import SummaryWriter

    folder = str(run_dir / FOLDER)
    return SummaryWriter(folder, purge_step=step + 1 if step else None)


def write_line(writer: EventWriter, line: Mapping[str, Any]) -> None:
    """Writes a logged line: ``test_loss`` becomes ``test/loss``, to be grouped."""
    for name, value in line.items():
        if name == "step" or not isinstance(value, int | float):
            continue
        part, _, rest = name.partition("_")
        tag = f"{part}/{rest}" if part in ("train", "validation", "test") else name
        writer.add_scalar(tag, value, int(line["step"]))
    writer.flush()
