"""Figure 28: gradient descent on a quadratic, over- and under-damped."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import optax
import xarray as xr
from matplotlib.figure import Figure

from experiments.harness.paper import Result
from experiments.walk_with_sgd.descent import descend
from experiments.walk_with_sgd.lab import Lab
from lrscape.figures.style import CYCLE, tidy

CURVATURES = (0.1, 0.4, 1.0)
# As shares of 1 / the largest curvature.
RATES = (0.5, 1.0, 1.5, 1.9, 2.1)


def contraction(curvature: float, rate: float) -> float:
    """What an update leaves of the coordinate along an eigenvector, with its sign."""
    curvatures = jnp.array(CURVATURES)

    def loss(point):
        return jnp.sum(curvatures * point**2) / 2

    start = jnp.ones(len(CURVATURES))
    *_, (_, point, _) = descend(loss, start, optax.sgd(rate), 1)
    return float(point[CURVATURES.index(curvature)])


def damping(curvature: float, rate: float) -> str:
    """How descent goes along an eigenvector.

    Example:
        >>> [damping(1.0, rate) for rate in (0.5, 1.0, 1.5, 2.5)]
        ['overdamped', 'critical', 'underdamped', 'diverges']
    """
    at = curvature * rate
    if at == 1:
        return "critical"
    if at < 1:
        return "overdamped"
    return "underdamped" if at < 2 else "diverges"


def fig28(lab: Lab) -> Result:
    """Descent on a quadratic: what an update leaves, measured and predicted."""
    rows, found = [], np.zeros((len(CURVATURES), len(RATES)))
    for i, curvature in enumerate(CURVATURES):
        for j, rate in enumerate(RATES):
            found[i, j] = contraction(curvature, rate)
            rows.append({
                "curvature": curvature,
                "rate": rate,
                "left of it": f"{found[i, j]:.4f}",
                "1 - rate x curvature": f"{1 - rate * curvature:.4f}",
                "": damping(curvature, rate),
            })  # fmt: skip
    dataset = xr.Dataset(
        {"contraction": (("curvature", "rate"), found, {"units": "1"})},
        {"curvature": list(CURVATURES), "rate": list(RATES)},
    )
    notes = ["left of it: of a coordinate that was 1, by an update"]
    return Result(rows, dataset, {"": _figure(found)}, notes)


def _figure(found: np.ndarray) -> Figure:
    figure = Figure(figsize=(6.4, 4.2), layout="constrained")
    axes = figure.subplots()
    rates = np.linspace(0, 2.4, 400)
    curves = np.abs(np.array(CURVATURES)[:, None] * rates - 1)
    axes.fill_between(
        rates, curves.min(axis=0), curves.max(axis=0), color=CYCLE[4], alpha=0.25,
        label="curvatures between", lw=0,
    )  # fmt: skip
    largest = max(CURVATURES)
    axes.axvspan(
        1 / largest, 2 / largest, color=CYCLE[5], alpha=0.25, lw=0,
        label="the largest is underdamped",
    )  # fmt: skip
    for i, curvature in enumerate(CURVATURES):
        axes.plot(rates, curves[i], color=CYCLE[i], label=f"curvature {curvature:g}")
        axes.plot(RATES, np.abs(found[i]), "D", color=CYCLE[i], markersize=5)
    axes.axhline(1, color="#333333", linewidth=0.6)
    axes.set_ylim(0, 1.6)
    axes.set_xlabel("learning rate (1 / largest curvature)")
    axes.set_ylabel("left of a coordinate by an update")
    axes.legend(frameon=False, fontsize=8)
    axes.set_title("lines: |rate x curvature - 1|; diamonds: measured", fontsize=10)
    tidy(axes)
    return figure
