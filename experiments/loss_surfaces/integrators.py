"""Figure 9 and table 3: Runge-Kutta gradients before SGD and ADAM."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import numpy as np
import xarray as xr
from matplotlib.figure import Figure

from experiments.harness.paper import Result
from experiments.harness.statistics import mean_and_interval
from experiments.loss_surfaces.lab import Lab
from experiments.loss_surfaces.methods import Method
from experiments.loss_surfaces.switching import accuracy
from lrscape import transforms
from lrscape.figures.style import CYCLE, tidy
from lrscape.transforms.runge_kutta import COEFFICIENTS

KINDS = tuple(COEFFICIENTS)
# What the x axis counts: steps, or gradients, of which Runge-Kutta takes two a step.
AXES = ("epochs", "gradients")


def compared(lab: Lab, *, tuned: bool = False) -> dict[str, Method]:
    """Figure 9's methods, by name.

    Args:
        lab: has the rates.
        tuned: whether Runge-Kutta methods' rates are chosen on their own, rather than
            twice the optimizer's.
    """
    sgd, adam = lab.method("sgd"), lab.method("adam")
    found = {"SGD": sgd, "SGD x2": dataclasses.replace(sgd, rate=2 * sgd.rate)}

    def behind(method: Method, kind: str) -> Method:
        if tuned:
            return lab.tuned(method.optimizer, kind)
        return dataclasses.replace(method, runge_kutta=kind, rate=2 * method.rate)

    found |= {f"SGD {kind}": behind(sgd, kind) for kind in KINDS}
    found["ADAM"] = adam
    found |= {f"ADAM {kind}": behind(adam, kind) for kind in KINDS}
    return found


def area(curve: np.ndarray, gradients: int, axis: str) -> float:
    """The mean training accuracy over a run, or over the gradients of one.

    Args:
        curve: (epochs + 1,), after each epoch.
        gradients: that a step takes.
        axis: ``'epochs'``, or ``'gradients'``: so many that an optimizer of one a step
            takes `epochs` for them.

    Returns:
        The area under the curve, over its length.

    Example:
        >>> curve = np.array([0.0, 50.0, 100.0])
        >>> area(curve, 2, 'epochs'), area(curve, 2, 'gradients')
        (50.0, 25.0)
    """
    at = np.arange(len(curve), dtype=float)
    budget = at[-1]
    if axis == "gradients":
        at = at * gradients
    inside = at <= budget
    x, y = at[inside], curve[inside]
    if x[-1] < budget:
        x, y = np.append(x, budget), np.append(y, np.interp(budget, at, curve))
    return float(np.trapezoid(y, x) / budget)


def curves_of(lab: Lab, method: Method) -> list[np.ndarray]:
    """Training accuracy after each epoch, of all seeds; NaN from where one failed."""
    epochs = lab.plan.epochs + 1
    found = []
    for seed in lab.seeds:
        curve = accuracy(lab.network(method, seed).history())
        missing = (0, epochs - len(curve))
        found.append(np.pad(curve, missing, constant_values=np.nan))
    return found


def areas(lab: Lab, method: Method, axis: str) -> np.ndarray:
    """(seeds,), see `area`."""
    return np.array(
        [area(c, method.gradients, axis) for c in curves_of(lab, method)]
    )  # fmt: skip


def fig9(lab: Lab) -> Result:
    """Figure 9: Runge-Kutta gradients against SGD, SGD at twice the rate, and ADAM."""
    lab = lab.of("nin")
    found = compared(lab)
    rows, variables = [], {}
    for name, method in found.items():
        curves = np.array(curves_of(lab, method))
        base = found["ADAM" if name.startswith("ADAM") else "SGD"]
        row: dict[str, Any] = {
            "method": name,
            "rate": f"{method.rate:g}",
            "gradients a step": method.gradients,
            "train %, last": mean_and_interval(curves[:, -1]),
        }
        for axis in AXES:
            difference = areas(lab, method, axis) - areas(lab, base, axis)
            row[f"area by {axis}"] = mean_and_interval(areas(lab, method, axis))
            row[f"minus base, {axis}"] = (
                "-" if method == base else mean_and_interval(difference)
            )
        rows.append(row)
        variables[name.replace(" ", "_")] = (
            ("seed", "epoch"), curves, {"units": "percent"}
        )  # fmt: skip
    notes = [
        lab.note(),
        (
            "areas under the curve of training accuracy (%), over epochs, and over as "
            "many gradients as SGD takes in all of them; Runge-Kutta's rates are "
            "doubled; base: SGD, and ADAM"
        ),
        (
            "the paper: Heun and Ralston beat SGD and SGD x2, Midpoint does not; ADAM "
            "beats ADAM&RK2"
        ),
    ]
    return Result(rows, xr.Dataset(variables), {"": _figure(lab, found)}, notes)


def _figure(lab: Lab, found: dict[str, Method]) -> Figure:
    figure = Figure(figsize=(10, 7), layout="constrained")
    grid = figure.subplots(2, 2, sharey="row")
    for row, base in zip(grid, ("SGD", "ADAM"), strict=True):
        low = 100.0
        shown = {n: m for n, m in found.items() if n.startswith(base)}
        for axes, axis in zip(row, AXES, strict=True):
            for i, (name, method) in enumerate(shown.items()):
                curves = np.array(curves_of(lab, method))
                factor = method.gradients if axis == "gradients" else 1
                at = factor * np.arange(curves.shape[1])
                mean = curves.mean(axis=0)
                axes.plot(at, mean, color=CYCLE[i], label=f"{name} ({method.rate:g})")
                axes.fill_between(at, curves.min(axis=0), curves.max(axis=0),
                                  color=CYCLE[i], alpha=0.12, lw=0)  # fmt: skip
                low = min(low, float(mean[max(1, len(mean) // 8)]))
            axes.set_xlim(0, lab.plan.epochs)
            axes.set_ylim(low - 1, min(axes.get_ylim()[1], 100.5))
            axes.set_xlabel(
                "epochs" if axis == "epochs" else "gradients, in epochs of one a step"
            )
            tidy(axes)
        row[0].set_ylabel("training accuracy (%)")
        row[1].legend(frameon=False, fontsize="small")
    figure.suptitle(f"{lab.what}: mean and range of {lab.plan.seeds} starts")
    return figure


def measured_order(kind: str) -> float:
    """The power of the rate by which the error of one step falls; of SGD with ''.

    On the gradient flow of w^4 / 4, whose solution is w / sqrt(1 + 2 w^2 t), in double
    precision.
    """
    w, rates, errors = np.array([1.0, -0.7, 1.6]), 0.01 / 2.0 ** np.arange(4), []
    with jax.enable_x64(True):
        for h in rates:
            update = w**3
            if kind:
                tx = transforms.runge_kutta(kind, float(h))
                params = jax.numpy.asarray(w)
                update, _ = tx.update(
                    params**3, tx.init(params), params, grad_fn=lambda p: p**3
                )
            exact = w / np.sqrt(1 + 2 * w**2 * h)
            errors.append(float(np.abs(w - h * np.asarray(update) - exact).max()))
    return float(np.polyfit(np.log(rates), np.log(errors), 1)[0])


def table3(lab: Lab) -> Result:
    """Table 3: the coefficients, and the order of one step's error."""
    del lab  # nothing is trained
    orders = {kind: measured_order(kind) for kind in ("", *KINDS)}
    rows = [
        {
            "method": kind or "SGD",
            **dict(zip(("a1", "a2", "q1"),
                       (f"{c:.4g}" for c in COEFFICIENTS.get(kind, (1, 0, 0))),
                       strict=True)),
            "order of a step's error": f"{order:.3f}",
            "theory": 3 if kind else 2,
        }
        for kind, order in orders.items()
    ]  # fmt: skip
    dataset = xr.Dataset(
        {"order": (("method",), list(orders.values()))},
        {"method": [kind or "sgd" for kind in orders]},
    )
    notes = [("a step of the gradient flow of w^4 / 4, in double precision, rates "
             "from 0.01 to 0.00125; over a whole path one power less")]  # fmt: skip
    return Result(rows, dataset, {}, notes)
