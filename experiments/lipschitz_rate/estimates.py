"""K_z for nothing, beside passes in train mode and in inference mode."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from experiments.harness.paper import Result
from experiments.harness.statistics import mean_and_interval
from experiments.lipschitz_rate.lab import Lab
from lrscape.figures.style import CYCLE, tidy

TASKS = ("variants", "cifar10")


def estimates(lab: Lab) -> Result:
    """K_z of the updates' own forward passes over that of passes at epochs' ends."""
    rows, variables, drawn = [], {}, {}
    for task in TASKS:
        histories = lab.histories(task, lab.free(task))
        what = f"{lab.plans[task].model}, {lab.dataset_of(task)}"
        for epoch in range(max(map(len, histories))):
            at = [h[epoch] for h in histories if epoch < len(h)]
            at = [row for row in at if "diverged" not in row]
            row = {
                "network": what,
                "epoch": epoch,
                "rate": _shown(at, "rate"),
                "K_z, updates": _shown(at, "activation_norm"),
                "train mode": _shown(at, "train_norm"),
                "inference mode": _shown(at, "inference_norm"),
                "updates / train": "-",
                "inference / train": mean_and_interval(
                    [_ratio(r["inference_norm"], r["train_norm"]) for r in at]
                ),
            }
            if epoch and at:
                row["updates / train"] = mean_and_interval(
                    [_ratio(r["activation_norm"], r["train_norm"]) for r in at]
                )
            rows.append(row)
        for name in ("activation_norm", "train_norm", "inference_norm"):
            values = np.full((len(histories), max(map(len, histories))), np.nan)
            for filled, history in zip(values, histories, strict=True):
                filled[: len(history)] = [row.get(name, np.nan) for row in history]
            variables[f"{task}_{name}"] = (
                (f"{task}_seed", f"{task}_epoch"), values, {"units": "1"}
            )  # fmt: skip
        drawn[task] = _figure(
            {n: variables[f"{task}_{n}"][1] for n in
             ("activation_norm", "train_norm", "inference_norm")}, what
        )  # fmt: skip
    momentum = lab.plans["cifar10"].model_options.get("norm_momentum", 0.9)
    notes = [
        (
            "K_z: the largest Frobenius norm of a batch's activations before "
            "dropout; of updates: over the epoch's own batches, as trained (augmented, "
            "weights moving); of passes: over un-augmented ones at the epoch's end"
        ),
        (
            "in inference mode batch norm's averages, whose momentum is 0.99 on MNIST "
            f"and {momentum:g} on CIFAR, are far from any batch's at first"
        ),
    ]
    return Result(rows, xr.Dataset(variables), drawn, notes)


def _ratio(one: float, other: float) -> float:
    """NaN where all activations are zero."""
    return one / other if other else np.nan


def _shown(rows: list[dict[str, Any]], name: str) -> str:
    values = [row[name] for row in rows if name in row]
    return mean_and_interval(values)


def _figure(found: dict[str, np.ndarray], title: str) -> Figure:
    labels = {
        "activation_norm": "the updates' own passes",
        "train_norm": "a pass in train mode",
        "inference_norm": "a pass in inference mode",
    }
    figure = Figure(figsize=(6.4, 4), layout="constrained")
    axes = figure.subplots()
    for color, (name, values) in zip(CYCLE, found.items(), strict=False):
        epochs = np.arange(values.shape[1])
        axes.plot(epochs, values.mean(axis=0), ".-", color=color, label=labels[name])
        axes.fill_between(
            epochs, values.min(axis=0), values.max(axis=0), color=color, alpha=0.15,
            linewidth=0,
        )  # fmt: skip
    axes.set_yscale("log")
    axes.set_xlabel("epoch")
    axes.set_ylabel("$K_z$")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.legend(frameon=False)
    axes.set_title(title)
    tidy(axes)
    return figure
