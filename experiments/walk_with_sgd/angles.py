"""Figures 4 and 22 to 24: what batch size and rate do to the cosine of gradients."""

from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib.figure import Figure

from experiments.harness.paper import Result
from experiments.harness.statistics import mean_and_interval
from experiments.walk_with_sgd.lab import Lab
from experiments.walk_with_sgd.result import joined
from lrscape.figures.style import CYCLE, tidy

# Updates that a drawn cosine is averaged over.
SMOOTHED = 20


def settings_of(lab: Lab, model: str) -> dict[str, list[tuple[int, float]]]:
    """Batch sizes at the usual rate, and rates at the usual batch size."""
    plan, (usual, _) = lab.plan(model), lab.rates(model)
    return {
        "batch size": [(size, usual) for size in plan.batch_sizes],
        "rate": [(plan.batch_size, rate) for rate in plan.rates],
    }


def angles_of(
    lab: Lab, model: str, batch_size: int, rate: float
) -> list[xr.Dataset]:  # fmt: skip
    """Cosines and distances over the first updates, one data set a seed."""
    plan = lab.plan(model)
    return [
        lab.network(model, rate=rate, seed=seed, batch_size=batch_size).angles(
            plan.angles
        )
        for seed in range(plan.seeds)
    ]


def late_cosine(angles: xr.Dataset) -> float:
    """The mean cosine over the second half of the updates."""
    cosines = angles["cosine"].values
    return float(np.nanmean(cosines[len(cosines) // 2 :]))


def end_distance(angles: xr.Dataset) -> float:
    """From the initial weights to the last point."""
    return float(angles["distance"][-1])


def fig4(lab: Lab) -> Result:
    """The cosine of consecutive gradients over batch sizes and over rates."""
    rows, drawn, every = [], {}, {}
    for model in lab.models_of("fig4"):
        figure = Figure(figsize=(9, 5.5), layout="constrained")
        panels = figure.subplots(2, 2, sharex=True, sharey="row")
        for column, (what, settings) in enumerate(settings_of(lab, model).items()):
            for color, (size, rate) in zip(CYCLE, settings, strict=False):
                found = angles_of(lab, model, size, rate)
                every[f"{model}-{size}-{rate:g}"] = found
                rows.append({
                    "network": model,
                    "data": lab.dataset_of(model),
                    "changed": what,
                    "batch size": size,
                    "rate": rate,
                    "updates": len(found[0]["step"]),
                    "cosine": mean_and_interval([late_cosine(a) for a in found]),
                    "distance": mean_and_interval([end_distance(a) for a in found]),
                })  # fmt: skip
                label = f"{what} {size if what == 'batch size' else rate:g}"
                _draw(panels[:, column], found, color, label)
        panels[0, 0].set_ylabel(f"cosine, over {SMOOTHED} updates")
        panels[1, 0].set_ylabel("distance (weights)")
        for axes in panels.ravel():
            tidy(axes)
        for axes in panels[0]:
            axes.legend(frameon=False)
        for axes in panels[1]:
            axes.set_xlabel("update")
        title = f"consecutive gradients: {model} on {lab.dataset_of(model)}"
        figure.suptitle(f"{title}, mean of {len(found)} seeds")
        drawn[model] = figure
    notes = [
        "cosine: over the second half of the updates; distance: after the last one",
        "the paper gives no numbers, and not which batch sizes and rates it took",
    ]
    return Result(rows, joined(every), drawn, notes)


def _draw(panels, found: list[xr.Dataset], color: str, label: str) -> None:
    steps = found[0]["step"].values
    cosines = np.mean([one["cosine"].values for one in found], axis=0)[1:]
    window = min(SMOOTHED, len(cosines))
    smooth = np.convolve(cosines, np.ones(window) / window, mode="valid")
    panels[0].plot(steps[window:], smooth, color=color, label=label)
    distances = np.mean([one["distance"].values for one in found], axis=0)
    panels[1].plot(steps, distances, color=color)
