"""What figures of valleys share: panels, and curves with their spread."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.figure import Figure

from lrscape.figures.style import hatch_spans


def panels(count: int, *, width: float = 4.8, height: float = 3.8) -> tuple[Any, Any]:
    """A figure with so many panels side by side, and their axes."""
    figure = Figure(figsize=(width * count, height), layout="constrained")
    return figure, figure.subplots(1, count, squeeze=False)[0]


def band(axes: Any, x: Any, curves: Any, color: str, label: str, **style: Any) -> None:
    """Draws the mean of several curves, and their range.

    Args:
        axes: of matplotlib.
        x: (k,).
        curves: (n, k).
        color: of both.
        label: for the legend.
        **style: of the mean's line.
    """
    x, curves = np.asarray(x, float), np.asarray(curves, float)
    axes.plot(x, curves.mean(axis=0), color=color, label=label, **style)
    if len(curves) > 1:
        axes.fill_between(
            x, curves.min(axis=0), curves.max(axis=0), color=color, alpha=0.2,
            linewidth=0,
        )  # fmt: skip
    hatch_spans(axes, x, ~np.isfinite(curves).all(axis=0))
