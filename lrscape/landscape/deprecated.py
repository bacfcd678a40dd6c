"""Names of `lrscape.landscape` from before, for one more release."""

from __future__ import annotations

from typing import Any

from lrscape.landscape.density import Quadrature
from lrscape.landscape.moments import Moments
from lrscape.landscape.operator import Operator


def spectral_moments(
    objective: Any, point: Any, *, key: Any, num_samples: int, **options: Any
) -> Moments:
    """What `Operator.spectral_moments` gives."""
    operator = Operator(objective, point, **options)
    return operator.spectral_moments(key=key, num_samples=num_samples)


def spectral_quadrature(
    objective: Any,
    point: Any,
    *,
    key: Any,
    num_matvecs: int,
    num_samples: int,
    compiled: bool | None = None,
    **options: Any,
) -> Quadrature:
    """What `Operator.spectral_quadrature` gives."""
    operator = Operator(objective, point, **options)
    return operator.spectral_quadrature(
        key=key, num_matvecs=num_matvecs, num_samples=num_samples, compiled=compiled
    )
