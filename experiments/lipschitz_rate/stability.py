r"""What the paper did not ask: is 1/K below the limit of stability, 2/lambda_max?"""

from __future__ import annotations

import functools
from typing import Any

import jax
import numpy as np
import xarray as xr
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from experiments.harness.paper import Result
from experiments.harness.statistics import mean_and_interval
from experiments.lipschitz_rate import curves
from experiments.lipschitz_rate.lab import Lab
from experiments.lipschitz_rate.methods import convolutions
from experiments.lipschitz_rate.networks import Network
from lrscape import landscape
from lrscape.figures.style import CYCLE, tidy

TASKS = ("variants", "cifar10")
TOLERANCE = 1e-2


def curvature_of(lab: Lab, task: str, seed: int) -> list[dict[str, Any]]:
    """At each kept epoch: the largest eigenvalue, and 1/K, neither cut nor decayed.

    Of the mean loss over training examples with its L2 term, batch norm in train mode,
    dropout off.
    """
    network = lab.network(task, lab.adaptive(task), seed)
    history = network.history()
    count, rows = lab.plans[task].curvature[0], []
    for epoch in network.epochs_kept():
        if epoch >= len(history) or "diverged" in history[epoch]:
            break
        found = network.numbers(
            f"curvature-{count}-epoch_{epoch}",
            functools.partial(_largest, network, epoch, count),
        )
        rate = curves.inverse_constant(lab, task, history[epoch])
        rows.append({"epoch": epoch, "rate": rate, **found})
    return rows


def _largest(network: Network, epoch: int, count: int) -> dict[str, Any]:
    count = min(count, len(network.data.train))
    objective = landscape.flax_objective(
        network.model, network.examples("train", count), norm="train",
        batch_size=min(network.config.batch_size, count),
    )  # fmt: skip
    found = landscape.top_eigenpairs(
        objective, network.at(epoch).params, 1, key=jax.random.key(0),
        tolerance=TOLERANCE,
    )  # fmt: skip
    value = float(found.eigenvalues[0]) + _of_l2(network, found.eigenvectors)
    return {
        "largest": value, "residual": float(found.residuals[0]), "examples": count
    }  # fmt: skip


def _of_l2(network: Network, eigenvectors: Any) -> float:
    """What the L2 term adds to the largest eigenvalue, to first order.

    A term on all parameters adds its factor to every eigenvalue; one on convolutions'
    kernels its factor times their share of the eigenvector.
    """
    if network.config.kernel_l2 is None:
        return network.config.weight_decay
    first = jax.tree.map(lambda leaf: np.asarray(leaf[0], np.float64), eigenvectors)
    mask = convolutions(first)
    parts = jax.tree.map(lambda leaf, of_one: np.sum(of_one * leaf**2), first, mask)
    whole = sum(float(np.sum(leaf**2)) for leaf in jax.tree.leaves(first))
    return 2 * network.config.kernel_l2 * sum(jax.tree.leaves(parts)) / whole


def failed(lab: Lab, task: str, seed: int) -> bool:
    """Whether the adaptive run's loss stopped being finite."""
    return lab.network(task, lab.adaptive(task), seed).failed()


def ratios_of(rows: list[dict[str, Any]]) -> np.ndarray:
    """lambda_max / 2K by epoch; above 1 gradient descent is unstable."""
    return np.array([row["largest"] * row["rate"] / 2 for row in rows])


def stability(lab: Lab) -> Result:
    """Rates beside the limit of stability: the largest eigenvalue over 2K."""
    rows, variables, drawn, failed_runs = [], {}, {}, []
    for task in TASKS:
        plan = lab.plans[task]
        seeds = range(min(plan.curvature[1], plan.seeds))
        found = [curvature_of(lab, task, seed) for seed in seeds]
        what = f"{plan.model}, {lab.dataset_of(task)}"
        failures = sum(failed(lab, task, seed) for seed in seeds)
        epochs = [row["epoch"] for row in max(found, key=len)]
        for i, epoch in enumerate(epochs):
            at = [one[i] for one in found if i < len(one)]
            rows.append(
                {
                    "network": what,
                    "epoch": epoch,
                    "largest eigenvalue": mean_and_interval([r["largest"] for r in at]),
                    "rate 1/K": mean_and_interval([r["rate"] for r in at]),
                    "eigenvalue / 2K": mean_and_interval(
                        [r["largest"] * r["rate"] / 2 for r in at]
                    ),
                    "above 1 in": f"{sum(ratios_of([r])[0] > 1 for r in at)} "
                    f"of {len(at)}",
                    "relative residual": f"{max(_residual(r) for r in at):.1g}",
                }
            )
        for name in ("largest", "rate"):
            values = np.full((len(found), len(epochs)), np.nan)
            for one, filled in zip(found, values, strict=True):
                filled[: len(one)] = [row[name] for row in one]
            variables[f"{task}_{name}"] = (
                (f"{task}_seed", f"{task}_epoch"), values,
                {"units": "nat" if name == "largest" else "1"},
            )  # fmt: skip
        drawn[task] = _figure(found, what)
        if failures:
            failed_runs.append(f"{failures} of {len(found)} runs of {what} failed")
    notes = [
        "the Hessian of the mean training loss with its L2 term, batch norm in train "
        "mode, dropout off, on "
        + ", ".join(f"{task}: {lab.plans[task].curvature[0]}" for task in TASKS)
        + " examples (or all, where there are fewer); 1/K with the K_z that the preset "
        "feeds the rate with, at that epoch's end, before any cap or decay (in the "
        "first row: of a pass before the first update)",
        "above 1, gradient descent on them is unstable along that eigenvector",
        *failed_runs,
    ]
    return Result(rows, xr.Dataset(variables), drawn, notes)


def _residual(row: dict[str, Any]) -> float:
    return row["residual"] / max(abs(row["largest"]), 1e-30)


def _figure(found: list[list[dict[str, Any]]], title: str) -> Figure:
    figure = Figure(figsize=(6.4, 4), layout="constrained")
    axes = figure.subplots()
    for seed, rows in enumerate(found):
        epochs = [row["epoch"] for row in rows]
        color = CYCLE[seed % len(CYCLE)]
        axes.plot(epochs, ratios_of(rows), ".-", color=color, label=f"seed {seed}")
    axes.axhline(1, color="#888888", linestyle="--", label="limit of stability")
    axes.set_yscale("log")
    axes.set_xlabel("epoch")
    axes.set_ylabel(r"$\lambda_{max}\,/\,2K$")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.legend(frameon=False, fontsize="small")
    axes.set_title(title)
    tidy(axes)
    return figure
