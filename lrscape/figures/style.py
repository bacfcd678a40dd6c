"""The style that all figures share: colours and axes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from lrscape import checks
from lrscape.errors import InputError

# Of Okabe and Ito, which colour-blind readers can tell apart; then grey and brown.
COLORS = {"train": "#0072b2", "test": "#d55e00", "validation": "#009e73"}
CYCLE = (
    "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#555555",
    "#8c564b",
)  # fmt: skip
DARK = "#333333"
FLOOR = "#e69f00"
PATH = "#d55e00"
SURFACE = "viridis"

UNITS = {"nat": "nats", "fraction": "fraction"}


def check_result(name: str, value: Any) -> None:
    """Raises InputError for what are no labelled arrays."""
    if not hasattr(value, "dims") or not hasattr(value, "coords"):
        raise InputError(
            f"{name}={checks.shown(value)} must be labelled arrays of xarray, such as "
            "to_dataset gives"
        )


def check_lines(name: str, value: Any) -> None:
    """Raises InputError for what are no logged lines."""
    for line in checks.sequence(name, value):
        checks.instance(name, line, Mapping, way_out="a line of metrics.jsonl")


def tidy(axes: Any) -> None:
    """A faint grid, and no box."""
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)


def label(variable: Any, name: str | None = None) -> str:
    """A labelled array's name with its unit; one that has none goes by its name."""
    text = (name or str(variable.name)).replace("_", " ")
    unit = variable.attrs.get("units", "1")
    long_name = variable.attrs.get("long_name")
    text = long_name or text
    return text if unit == "1" else f"{text} ({UNITS.get(unit, unit)})"


def cells(values: np.ndarray) -> np.ndarray:
    """The edges of cells around values: half-way between neighbours.

    Example:
        >>> cells(np.array([0.0, 1.0, 3.0])).tolist()
        [-0.5, 0.5, 2.0, 4.0]
    """
    values = np.asarray(values, float)
    if len(values) == 1:
        return np.array([values[0] - 0.5, values[0] + 0.5])
    middles = (values[1:] + values[:-1]) / 2
    first, last = values[0] - middles[0], values[-1] - middles[-1]
    return np.concatenate([[values[0] + first], middles, [values[-1] + last]])


def hatch_spans(axes: Any, x: np.ndarray, missing: np.ndarray) -> None:
    """Hatches the stretches of a curve whose values are not finite."""
    if not missing.any():
        return
    edges = cells(x)
    for i in np.flatnonzero(missing):
        axes.axvspan(
            edges[i], edges[i + 1], facecolor="none", edgecolor="#999999", hatch="///",
            linewidth=0, zorder=0,
        )  # fmt: skip
    axes.plot([], [], color="#999999", label=f"{missing.sum()} not finite (hatched)")


def log_levels(values: np.ndarray, count: int = 16) -> np.ndarray | None:
    """Levels evenly spaced in the logarithm; None where values are not all positive.

    Example:
        >>> print(log_levels(np.array([1.0, 100.0]), 3))
        [ 1. 10. 100.]
    """
    finite = values[np.isfinite(values)]
    if not finite.size or finite.min() <= 0 or finite.max() <= finite.min() * 1.0001:
        return None
    return np.geomspace(finite.min(), finite.max(), count)
