"""Learning rates as Optax gradient transformations.

Each `scale_by_NAME` is `scale_by_rate` over the schedule of that name.
"""

from typing import Any

from lrscape.transforms.rate import ALIASES
from lrscape.transforms.rate import ScaleByRateState as ScaleByRateState
from lrscape.transforms.rate import scale_by_rate as scale_by_rate

globals().update(ALIASES)

__all__ = ["ScaleByRateState", "scale_by_rate", *ALIASES]


def __getattr__(name: str) -> Any:
    # Never reached for an alias, which is a global; it tells type checkers that
    # there are names here that they cannot see.
    raise AttributeError(f"module 'lrscape.transforms' has no attribute {name!r}")
