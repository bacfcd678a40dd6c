"""Figures 3 and 7: the Hessian's spectral norm over training, beside the errors."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from scipy import stats

from experiments.harness.paper import Result
from experiments.harness.statistics import mean_and_interval
from experiments.walk_with_sgd.lab import Lab
from lrscape.figures.style import COLORS, CYCLE, tidy


def histories_of(lab: Lab, model: str) -> list[list[dict[str, Any]]]:
    """Spectral norms and errors epoch by epoch, one list a seed."""
    plan = lab.plan(model)
    return [
        lab.network(model, rate=lab.rates(model, "fig3")[0], seed=seed).curvatures(
            plan.trained, plan.curvature
        )
        for seed in range(plan.seeds)
    ]


def fig3(lab: Lab) -> Result:
    """The Hessian's spectral norm after each epoch, train and eval mode, and errors."""
    rows, drawn, variables = [], {}, {}
    for model in lab.models_of("fig3"):
        found = histories_of(lab, model)
        for epoch in range(len(found[0])):
            at = [history[epoch] for history in found]
            rows.append({
                "network": model,
                "data": lab.dataset_of(model),
                "epoch": epoch,
                "norm, train mode": _mean(at, "norm_train"),
                "norm, eval mode": _mean(at, "norm_eval"),
                "validation error": _mean(at, "validation_error"),
                "not converged": sum(
                    not row.get(f"converged_{norm}", True)
                    for row in at
                    for norm in ("train", "eval")
                ),
            })  # fmt: skip
        for name, unit in (
            ("norm_train", "nat"), ("norm_eval", "nat"),
            ("validation_error", "fraction"), ("test_error", "fraction"),
        ):  # fmt: skip
            values = np.array([column(history, name) for history in found])
            dims = (f"{model}_seed", f"{model}_epoch")
            variables[f"{model}_{name}"] = (dims, values, {"units": unit})
        rate, _ = lab.rates(model, "fig3")
        title = f"{model} on {lab.dataset_of(model)}, rate {rate:g}"
        drawn[model] = _figure(found, title)
    sample = {
        model: lab.plan(model).curvature.examples for model in lab.models_of("fig3")
    }
    notes = [f"on so many training examples: {sample}; epoch 0: the initial weights"]
    if lab.authors:
        notes.append("train mode: 15 power iterations, each on another augmentation")
    return Result(rows, xr.Dataset(variables), drawn, notes)


def column(history: list[dict[str, Any]], name: str) -> np.ndarray:
    """A quantity over the epochs; NaN where it was not measured."""
    return np.array([row.get(name, np.nan) for row in history], float)


def rank_correlation(history: list[dict[str, Any]]) -> float:
    """Spearman's, of the spectral norm and the validation accuracy, from epoch 1 on."""
    norms = column(history, "norm_train")[1:]
    accuracies = 1 - column(history, "validation_error")[1:]
    if len(norms) < 3:
        return np.nan
    return float(stats.spearmanr(norms, accuracies).statistic)


def _mean(rows: list[dict[str, Any]], name: str) -> str:
    return mean_and_interval([row.get(name, np.nan) for row in rows])


def _figure(found: list[list[dict[str, Any]]], title: str) -> Figure:
    figure = Figure(figsize=(6.4, 6), layout="constrained")
    norms, accuracy = figure.subplots(2, 1, sharex=True)
    for number, history in enumerate(found):
        epochs = column(history, "epoch")
        for name, color in (("train", CYCLE[0]), ("eval", CYCLE[1])):
            norms.plot(
                epochs, column(history, f"norm_{name}"), ".-", color=color, alpha=0.8,
                label=f"batch norm in {name} mode" if number == 0 else None,
            )  # fmt: skip
        accuracy.plot(
            epochs[1:], 100 - 100 * column(history, "validation_error")[1:], ".-",
            color=COLORS["validation"], alpha=0.8,
        )  # fmt: skip
    norms.set_yscale("log")
    norms.set_ylabel("spectral norm of the\nHessian (nats)")
    norms.legend(frameon=False)
    accuracy.set_ylabel("validation accuracy (%)")
    accuracy.set_xlabel("epoch")
    accuracy.xaxis.set_major_locator(MaxNLocator(integer=True))
    for axes in (norms, accuracy):
        tidy(axes)
    figure.suptitle(f"{title}, {len(found)} seed{'s' if len(found) > 1 else ''}")
    return figure
