"""Eq. 7 to 12: how far the loss around the last weights is the quadratic of the theory.

The theory takes the loss near a minimum for a quadratic (Eq. 7), on which descent moves
by ``w' - w* = (I - rate H)(w - w*)`` (Eq. 10, and 11 after several steps), so that it
stays only where the rate is below 2 / h_max (Eq. 12, 13). All of it is measured of
full-batch descent from weights that are moved a little off the last ones.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import xarray as xr
from matplotlib.figure import Figure

from experiments.harness.paper import Result
from experiments.harness.statistics import mean_and_interval
from experiments.nonmonotonic.lab import Lab
from experiments.nonmonotonic.networks import GRADIENT_CHUNK, Network
from lrscape import landscape
from lrscape.figures.style import CYCLE, tidy
from lrscape.landscape import tree

# All ours: the theory names no numbers. Distances from the last weights, as shares of
# their norm; rates, as shares of 2 / h_max; steps; and how far off they begin.
DISTANCES = (1e-4, 1e-3, 1e-2, 1e-1)
RATES = (0.5, 0.95, 1.05)
STEPS = 8
OFF = 1e-3
TOLERANCE = 1e-2
# A share of the loss: less of a rise is lost in single precision's rounding.
ROUNDING = 1e-5

Objective = Callable[[Any], Any]


def quadratic_ratios(
    objective: Objective, operator: Any, point: Any, direction: Any, lengths: Any
) -> np.ndarray:
    """What the loss rises by over what Eq. 7 says, less the gradient's part.

    The last weights are no exact minimum: the gradient's part is what odd powers of the
    distance add, and half the sum of both sides' rises has none of it.

    Args:
        objective: of a point.
        operator: its Hessian at the point.
        point: where it starts.
        direction: of norm 1.
        lengths: (n,), how far.

    Returns:
        (n,); 1 is a quadratic; NaN where its rise is too small to be measured.

    Example:
        >>> import jax.numpy as jnp
        >>> h = jnp.diag(jnp.array([3.0, 1.0]))
        >>> loss, at = lambda w: w @ h @ w / 2 + w[0], jnp.ones(2)
        >>> ratios = quadratic_ratios(
        ...     loss, landscape.Operator(loss, at), at, jnp.array([1.0, 0.0]),
        ...     [1e-6, 0.5, 1])
        >>> print(ratios.round(3))
        [nan  1.  1.]
    """
    curvature = float(tree.dot(direction, operator @ direction))
    here, found = float(objective(point)), []
    for length in lengths:
        rise = length**2 * curvature / 2
        if abs(rise) < ROUNDING * abs(here):
            found.append(np.nan)
            continue
        sides = [
            float(objective(tree.combine([1.0, side * length], [point, direction])))
            for side in (1, -1)
        ]
        found.append((sum(sides) / 2 - here) / rise)
    return np.array(found)


def descents(
    objective: Objective, operator: Any, point: Any, off: Any, rate: float, steps: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Descent from two points near each other, and what Eq. 11 says of their distance.

    The second one begins at the last weights, from which a gradient that has not
    vanished moves it too: their distance has none of that.

    Args:
        objective: of a point.
        operator: its Hessian at the point.
        point: the last weights.
        off: how far off the first begins.
        rate: of both.
        steps: that are made.

    Returns:
        (steps + 1,) each: the norm of the distance, that of Eq. 11, and the norm of the
        difference of both over the latter.

    Example:
        >>> import jax.numpy as jnp
        >>> h = jnp.diag(jnp.array([4.0, 1.0]))
        >>> loss, at = lambda w: w @ h @ w / 2, jnp.ones(2)
        >>> found = descents(
        ...     loss, landscape.Operator(loss, at), at, jnp.array([1.0, 0.0]), 0.75, 2)
        >>> print(*[values.round(3) for values in found])
        [1. 2. 4.] [1. 2. 4.] [0. 0. 0.]
    """
    one, other, theory = tree.combine([1.0, 1.0], [point, off]), point, off
    measured, predicted, apart = [], [], []
    for step in range(steps + 1):
        distance = tree.subtract(one, other)
        measured.append(float(tree.norm(distance)))
        predicted.append(float(tree.norm(theory)))
        gap = float(tree.norm(tree.subtract(distance, theory)))
        apart.append(gap / predicted[-1])
        if step < steps:
            one, other = (
                tree.combine([1.0, -rate], [w, landscape.loss_gradient(objective, w)])
                for w in (one, other)
            )
            theory = tree.combine([1.0, -rate], [theory, operator @ theory])
    return np.array(measured), np.array(predicted), np.array(apart)


def measured_of(lab: Lab, network: Network) -> dict[str, Any]:
    """All of it at a network's last weights, along the steepest and a random way."""
    count = min(lab.settings.survey.curvature, len(network.data.train))

    def make() -> dict[str, Any]:
        point = network.final.params
        objective = network.objective(count, batch_size=GRADIENT_CHUNK)
        operator = landscape.Operator(objective, point)
        pairs = operator.top_eigenpairs(1, key=jax.random.key(0), tolerance=TOLERANCE)
        largest = float(pairs.eigenvalues[0])
        steepest = jax.tree.map(lambda leaf: leaf[0], pairs.eigenvectors)
        random = landscape.gaussian_direction(
            jax.random.key(1), point, normalize="global"
        )
        random = tree.scale(1 / tree.norm(random), random)
        size = float(tree.norm(point))
        ways = {"steepest": steepest, "random": random}
        # Both at once, so that Eq. 11 has to be right of more than one eigenvector.
        off = tree.scale(OFF * size, tree.combine([0.5, 0.5], list(ways.values())))
        found: dict[str, Any] = {
            "largest": largest,
            "gradient": float(tree.norm(landscape.loss_gradient(objective, point))),
            "ratios": {
                name: quadratic_ratios(
                    objective, operator, point, way, [size * d for d in DISTANCES]
                ).tolist()
                for name, way in ways.items()
            },
        }
        for share in RATES:
            made = descents(objective, operator, point, off, share * 2 / largest, STEPS)
            names = ("measured", "predicted", "apart")
            found[f"{share:g}"] = dict(
                zip(names, (values.tolist() for values in made), strict=True)
            )
        return found

    return network.numbers(f"quadratic-{count}", make)


def eq11(lab: Lab) -> Result:
    """Eq. 7 to 12: the loss near the last weights, and descent there, as quadratic."""
    networks = lab.all_of("descent", lab.rule("descent", "constant"))
    found = [measured_of(lab, n) for n in networks if not n.failed()]
    rows: list[dict[str, Any]] = []
    variables: dict[str, Any] = {}
    for name in ("steepest", "random"):
        ratios = np.array([one["ratios"][name] for one in found]).reshape(
            -1, len(DISTANCES)
        )
        variables[f"ratio_{name}"] = (("seed", "distance"), ratios)
        for distance, values in zip(DISTANCES, ratios.T, strict=True):
            rows.append(
                {
                    "equation": f"7, {name} way",
                    "at": f"{distance:g} of ||w||",
                    "measured": "rise over that of the quadratic",
                    "value": _measured(values),
                    "theory": "1",
                }
            )
    for share in RATES:
        runs = [one[f"{share:g}"] for one in found]
        parts = {
            part: np.array([run[part] for run in runs]).reshape(-1, STEPS + 1)
            for part in ("measured", "predicted", "apart")
        }
        for part, values in parts.items():
            label = f"{part}_{share:g}".replace(".", "_")
            variables[label] = (("seed", "step"), values)
        grown = {
            part: parts[part][:, -1] / parts[part][:, 0]
            for part in ("measured", "predicted")
        }
        rows += [
            {
                "equation": "10, 11",
                "at": f"rate {share:g} x 2 / h_max, {STEPS} steps",
                "measured": "distance over the first",
                "value": mean_and_interval(grown["measured"]),
                "theory": mean_and_interval(grown["predicted"]),
            },
            {
                "equation": "10, 11",
                "at": f"rate {share:g} x 2 / h_max, {STEPS} steps",
                "measured": "off from (I - rate H)^t, as a share",
                "value": mean_and_interval(parts["apart"][:, -1]),
                "theory": "0",
            },
        ]
    count = lab.settings.survey.curvature
    notes = [
        (
            f"{lab.plans['descent'].model} on {lab.dataset_of('descent')} after "
            f"full-batch descent; the loss and its Hessian over {count} training "
            f"examples (or all); {len(networks) - len(found)} runs failed"
        ),
        (
            "the last weights are no exact minimum, the gradient's norm is "
            f"{mean_and_interval([one['gradient'] for one in found])}: Eq. 7 is taken "
            "of both sides' mean rise, Eq. 10 and 11 of two descents' distance, in "
            "which a gradient that has not vanished cancels"
        ),
        (
            f"descents begin {OFF:g} of ||w|| off, half along the steepest eigenvector "
            "and half at random; below a share of 1 they approach each other along "
            "it, above it they part (Eq. 12)"
        ),
        "Eq. 14 and 15 are `eq15`, Eq. 13 during training `eq13`",
    ]
    dataset = xr.Dataset(variables, {"distance": list(DISTANCES)})
    return Result(rows, dataset, {"": _figure(found)}, notes)


def _measured(values: np.ndarray) -> str:
    there = values[np.isfinite(values)]
    return mean_and_interval(there) if len(there) else "lost in rounding"


def _figure(found: list[dict[str, Any]]) -> Figure:
    figure = Figure(figsize=(9.6, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    for color, name in zip(CYCLE, ("steepest", "random"), strict=False):
        for i, one in enumerate(found):
            label = None if i else f"{name} way"
            left.plot(DISTANCES, one["ratios"][name], ".-", color=color, label=label)
    left.axhline(1, color="#888888", linestyle="--")
    left.set_xscale("log")
    left.set_xlabel(r"distance from the last weights, over $\|w\|$")
    left.set_ylabel("rise of the loss over the quadratic's (Eq. 7)")
    for color, share in zip(CYCLE, RATES, strict=False):
        for i, one in enumerate(found):
            run = one[f"{share:g}"]
            label = None if i else f"rate {share:g} x 2 / h"
            right.plot(run["measured"], ".-", color=color, label=label)
            right.plot(run["predicted"], ":", color=color)
    right.set_yscale("log")
    right.set_xlabel("step")
    right.set_ylabel("distance between two descents; dotted: Eq. 11")
    for axes in (left, right):
        axes.legend(frameon=False, fontsize="small")
        tidy(axes)
    return figure
