"""Figures 6 and 27: a cyclical rate, a trapezoid and steps, each tuned."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import xarray as xr
from matplotlib.figure import Figure

from experiments.harness.paper import Result
from experiments.harness.statistics import mean_and_interval
from experiments.walk_with_sgd.lab import Lab
from experiments.walk_with_sgd.networks import Network
from lrscape.figures.style import CYCLE, tidy
from lrscape.training import NonFiniteLossError

# What all three end at, and what cycles and the trapezoid start at, beside the largest
# rate. The text has it in its figures alone; ours, so that none has a head start: steps
# end there after two ten-fold drops.
LOWEST = 0.01
# Of the run: the first half of a cycle, and the trapezoid's rise.
RISE = 0.1
# As many rates may be added beyond either end of the grid, until its best is inside.
ADDED = 5


def options_of(schedule: str, peak: float, steps: int) -> dict[str, Any]:
    """The arguments of a schedule whose largest rate is `peak`.

    The trapezoid rises as the first cycle does, stays, and falls at the end. All end at
    the same share of the largest rate.
    """
    low, rise = LOWEST * peak, max(1, round(RISE * steps))
    if schedule == "triangular":
        return {"peak_value": peak, "cycle_steps": 2 * rise, "base_value": low}
    if schedule == "trapezoid":
        return {"peak_value": peak, "start_value": low, "end_value": low,
                "rise": rise / steps, "fall": 0.4}  # fmt: skip
    return {"init_value": peak, "milestones": [0.5, 0.75], "factor": 0.1}


SCHEDULES = ("triangular", "trapezoid", "step")


def network_of(lab: Lab, model: str, schedule: str, peak: float, seed: int) -> Network:
    """A network trained by a schedule."""
    plan = lab.plan(model)
    epochs = plan.trained
    trained, _ = lab.sizes_of(lab.dataset_of(model))
    options = options_of(schedule, peak, epochs * (trained // plan.batch_size))
    return lab.network(
        model, rate=peak, seed=seed, epochs=epochs, schedule=schedule,
        schedule_options=options,
    )  # fmt: skip


class Tuned(NamedTuple):
    """What came out of trying largest rates.

    Attributes:
        peak: the best one.
        errors: of all that were tried: the share of wrong validation labels after the
            last epoch, infinite where training failed.
        inside: whether the best has a worse one on either side.
    """

    peak: float
    errors: dict[float, float]
    inside: bool


def tuned(peaks: Sequence[float], error_of: Callable[[float], float]) -> Tuned:
    """Tries largest rates, and more of them until the best is not at the grid's end.

    Args:
        peaks: those to begin with. A single one is no grid: it is taken as it is.
        error_of: what a rate leads to; infinite where it fails.

    Example:
        >>> found = tuned([1.0, 2.0], lambda peak: abs(peak - 8))
        >>> found.peak, sorted(found.errors), found.inside
        (8.0, [1.0, 2.0, 4.0, 8.0, 16.0], True)
    """
    errors = {peak: error_of(peak) for peak in sorted(set(peaks))}
    if len(errors) == 1:
        return Tuned(peaks[0], errors, False)
    least, *_, largest = sorted(errors)
    factor = (largest / least) ** (1 / (len(errors) - 1))
    for _ in range(ADDED):
        best = min(errors, key=lambda peak: errors[peak])
        if min(errors) < best < max(errors):
            return Tuned(best, errors, True)
        beyond = best * factor if best == max(errors) else best / factor
        errors[beyond] = error_of(beyond)
    best = min(errors, key=lambda peak: errors[peak])
    return Tuned(best, errors, min(errors) < best < max(errors))


def tuned_peak(lab: Lab, model: str, schedule: str) -> Tuned:
    """The largest rate that makes the fewest validation errors at the end, seed 0.

    Raises:
        NonFiniteLossError: training fails at all of them.
    """
    failed = []

    def error_of(peak: float) -> float:
        network = network_of(lab, model, schedule, peak, 0)
        try:
            return history_of(lab, network)[-1]["validation_error"]
        except NonFiniteLossError as error:  # a rate that is too large loses
            failed.append(error)
            return np.inf

    found = tuned(lab.plan(model).peaks, error_of)
    if np.isinf(found.errors[found.peak]):
        raise failed[-1]
    return found


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
    peak = tuned_peak(lab, model, schedule).peak
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
            choice = tuned_peak(lab, model, schedule)
            peak = choice.peak
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
                "largest rate": f"{peak:g}",
                "of those tried": " ".join(f"{p:g}" for p in sorted(choice.errors)),
                "best within": "yes" if choice.inside else "no",
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
        (
            "largest rate: of those tried, the one with the fewest validation errors "
            "after the last epoch, seed 0; best within: whether worse ones lie on "
            f"either side, for which up to {ADDED} were added beyond the grid; a grid "
            "of one is not tuned"
        ),
        (
            f"all three end at {LOWEST:g} of their largest rate, and the rising ones "
            "start there"
        ),
        "the paper gives learning curves alone, no numbers",
    ]
    return Result(rows, xr.Dataset(variables), drawn, notes)
