"""lrscape steers the learning rate and surveys the loss landscape that it crosses.

The parts are independent of one another and are imported when first used:

- `lrscape.schedules`, `lrscape.transforms`: learning rates as ordinary Optax parts.
- `lrscape.landscape`: probes of the loss landscape, on any pytree and any loss.
- `lrscape.layers`: what the leaves of a point are, kernels, biases, norm scales.
- `lrscape.models`, `lrscape.data`, `lrscape.training`: Flax models trained under
  ``pmap`` or ``shard_map``, with checkpoints that resume bit for bit.
- `lrscape.records`, `lrscape.runs`, `lrscape.figures`, `lrscape.report`: a run on
  disk, opened again, drawn, and shown as a page.

Example:
    >>> import lrscape
    >>> schedule = lrscape.schedules.gaussian(0.3, 1000, start_value=0.1)
    >>> print(f'{schedule(0):.3f} {schedule(1000):.5f}')
    0.100 0.00003
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lrscape import (
        data,
        errors,
        figures,
        landscape,
        layers,
        models,
        records,
        report,
        runs,
        schedules,
        training,
        transforms,
    )

__version__ = "0.1.0"

__all__ = [
    "data",
    "errors",
    "figures",
    "landscape",
    "layers",
    "models",
    "records",
    "report",
    "runs",
    "schedules",
    "training",
    "transforms",
]


# Type checkers see the imports above alone, so that they find a misspelt name.
if not TYPE_CHECKING:

    def __getattr__(name: str) -> Any:
        # Imported on first use, so that a pipeline that only wants a schedule does not
        # wait for matplotlib, xarray or Orbax.
        if name in __all__:
            return importlib.import_module(f"lrscape.{name}")
        raise AttributeError(f"module 'lrscape' has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*globals(), *__all__]
