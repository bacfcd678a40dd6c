"""Figures 6 and 27: a cyclical rate, a trapezoid and steps, each tuned."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr
from matplotlib.figure import Figure

from experiments.harness.paper import Result
from experiments.harness.statistics import mean_and_interval
from experiments.walk_with_sgd.networks import Network
from experiments.walk_with_sgd.settings import BATCH_SIZE, Lab
from lrscape.figures.style import CYCLE, tidy
from lrscape.training import NonFiniteLossError

# What a rising rate starts and ends at, beside its largest.
LOWEST = 0.1
# Of the run: the first half of a cycle, and the trapezoid's rise.
RISE = 0.1


def options_of(schedule: str, peak: float, steps: int) -> dict[str, Any]:
    """The arguments of a schedule whose largest rate is `peak`.

    The trapezoid rises as the first cycle does, stays, and falls at the end.
    """
    low, rise = LOWEST * peak, max(1, round(RISE * steps))
    if schedule == "triangular":
        return {"peak_value": peak, "cycle_steps": 2 * rise, "base_value": low}
    if schedule == "trapezoid":
        return {"peak_value": peak, "start_value": low, "end_value": low / 10,
                "rise": rise / steps, "fall": 0.4}  # fmt: skip
    return {"init_value": peak, "milestones": [0.5, 0.75], "factor": 0.1}


SCHEDULES = ("triangular", "trapezoid", "step")


def network_of(lab: Lab, model: str, schedule: str, peak: float, seed: int) -> Network:
    """A network trained by a schedule."""
    epochs = lab.plan(model).trained
    trained, _ = lab.sizes_of(lab.dataset_of(model))
    options = options_of(schedule, peak, epochs * (trained // BATCH_SIZE))
    return lab.network(
        model, rate=peak, seed=seed, epochs=epochs, schedule=schedule,
        schedule_options=options,
    )  # fmt: skip


def tuned_peak(lab: Lab, model: str, schedule: str) -> float:
    """The largest rate that makes the fewest validation errors at the end, seed 0.

    Raises:
        NonFiniteLossError: training fails at all of them.
    """
    errors, failed = {}, None
    for peak in lab.plan(model).peaks:
        network = network_of(lab, model, schedule, peak, 0)
        try:
            errors[peak] = history_of(lab, network)[-1]["validation_error"]
        except NonFiniteLossError as error:  # a rate that is too large loses
            failed = error
    if not errors and failed is not None:
        raise failed
    return min(errors, key=lambda peak: errors[peak])


def history_of(lab: Lab, network: Network) -> list[dict[str, Any]]:
    """A network's errors, epoch by epoch, to the end of its training.

    Raises:
        NonFiniteLossError: its loss stopped being finite.
    """
    history = network.history()
    if network.failed():
        raise NonFiniteLossError(history[-1]["diverged"])
    return history


def histories_of(lab: Lab, model: str, schedule: str) -> list[list[dict[str, Any]]]:
    """Of the tuned schedule, one a seed."""
    peak = tuned_peak(lab, model, schedule)
    return [
        history_of(lab, network_of(lab, model, schedule, peak, seed))
        for seed in range(lab.plan(model).seeds)
    ]


def fig6(lab: Lab) -> Result:
    """Cyclical, trapezoidal and stepwise rates, each with its best peak: errors."""
    rows, drawn, variables = [], {}, {}
    for model in lab.models_of("fig6"):
        figure = Figure(figsize=(6.4, 6), layout="constrained")
        accuracy, rate = figure.subplots(2, 1, height_ratios=(2, 1))
        for color, schedule in zip(CYCLE, SCHEDULES, strict=False):
            peak = tuned_peak(lab, model, schedule)
            found = histories_of(lab, model, schedule)
            errors = {
                part: np.array([[row[f"{part}_error"] for row in h] for h in found])
                for part in ("validation", "test")
            }
            for part, values in errors.items():
                variables[f"{model}_{schedule}_{part}_error"] = (
                    (f"{model}_seed", f"{model}_epoch"), values, {"units": "fraction"}
                )  # fmt: skip
            rows.append({
                "network": model,
                "data": lab.dataset_of(model),
                "schedule": schedule,
                "largest rate": peak,
                "epochs": len(found[0]) - 1,
                "test error, last epoch": mean_and_interval(errors["test"][:, -1]),
                "best epoch": mean_and_interval(errors["test"].min(axis=1)),
            })  # fmt: skip
            epochs = np.arange(1, errors["validation"].shape[1])
            mean = 100 - 100 * errors["validation"].mean(axis=0)[1:]
            accuracy.plot(epochs, mean, ".-", color=color, label=schedule)
            network = network_of(lab, model, schedule, peak, 0)
            steps = network.config.epochs * network.steps_per_epoch
            made = network.config.make_schedule(steps, network.steps_per_epoch)
            at = np.arange(steps)
            rate.plot(at / network.steps_per_epoch, made(at), color=color)
        accuracy.set_ylabel("validation accuracy (%)")
        accuracy.legend(frameon=False)
        rate.set_ylabel("learning rate")
        rate.set_xlabel("epoch")
        rate.set_yscale("log")
        tidy(accuracy)
        tidy(rate)
        data = lab.dataset_of(model)
        figure.suptitle(f"{model} on {data}, mean of {len(found)} seeds")
        drawn[model] = figure
    notes = [
        "largest rate: of "
        + ", ".join(
            f"{model}: {' '.join(f'{p:g}' for p in lab.plan(model).peaks)}"
            for model in lab.models_of("fig6")
        )
        + ", the one with the fewest validation errors after the last epoch, seed 0; "
        "the best may lie beyond the ends",
        "the paper gives learning curves alone, no numbers",
    ]
    return Result(rows, xr.Dataset(variables), drawn, notes)
