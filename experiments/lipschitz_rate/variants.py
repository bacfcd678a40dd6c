"""The rate with an L2 term, with momentum, and in the later text's optimizers."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import xarray as xr

from experiments.harness.network import column
from experiments.harness.paper import Result
from experiments.harness.statistics import mean_and_interval
from experiments.lipschitz_rate.curves import (
    History,
    accuracy,
    curves_figure,
    rates_figure,
)
from experiments.lipschitz_rate.lab import Lab
from experiments.lipschitz_rate.methods import Method

TASK = "variants"
L2 = 1e-4


def methods_of(lab: Lab) -> dict[str, Method]:
    """What is compared, by name."""
    adaptive = lab.adaptive(TASK)

    def changed(name: str, **changes: Any) -> Method:
        return dataclasses.replace(adaptive, name=name, **changes)

    return {
        "adaptive": adaptive,
        "adaptive, L2": changed("adaptive_l2", weight_decay=L2),
        "adaptive, momentum 0.9": changed("adaptive_trace", variant="trace"),
        "later text's momentum": changed("momentum", variant="momentum"),
        "later text's RMSprop": changed("rmsprop", variant="rmsprop"),
        "later text's Adam": changed("adam", variant="adam"),
    }


def histories_of(lab: Lab) -> dict[str, list[History]]:
    """Of all methods, and of the tuned constant rates they are compared with."""
    found = {
        name: lab.histories(TASK, method) for name, method in methods_of(lab).items()
    }
    found["constant, tuned"] = lab.histories(TASK, lab.tuned(TASK))
    found["constant, tuned, L2"] = lab.histories(TASK, lab.tuned(TASK, weight_decay=L2))
    return found


def compared_with(name: str) -> str:
    """The constant rate that a method is compared with."""
    return "constant, tuned, L2" if "L2" in name else "constant, tuned"


def last_accuracy(histories: list[History]) -> np.ndarray:
    """(seeds,), test accuracy after the last epoch in percent; of a failed run 0."""
    return accuracy(histories, "test")[:, -1]


def variants(lab: Lab) -> Result:
    """Sec. 8 and the later text: the rate with L2, with momentum, RMSprop and Adam."""
    found, rows = histories_of(lab), []
    for name, histories in found.items():
        difference = last_accuracy(histories) - last_accuracy(
            found[compared_with(name)]
        )  # fmt: skip
        rates = column(histories, "rate")
        rows.append(
            {
                "method": name,
                "test %, last epoch": mean_and_interval(last_accuracy(histories)),
                "minus tuned constant": "-"
                if name.startswith("constant")
                else mean_and_interval(difference),
                "first rate": mean_and_interval(rates[:, 0]),
                "last rate": mean_and_interval(rates[:, -1]),
                "failed": sum("diverged" in history[-1] for history in histories),
            }
        )
    variables = {}
    for name, histories in found.items():
        label = name.replace(", ", "_").replace(" ", "_").replace("'", "")
        for part in ("test_error", "rate"):
            unit = "1" if part == "rate" else "fraction"
            variables[f"{label}_{part}"] = (
                (f"{label}_seed", f"{label}_epoch"),
                column(histories, part), {"units": unit},
            )  # fmt: skip
    plan = lab.plans[TASK]
    title = f"{plan.model} on {lab.dataset_of(TASK)}"
    notes = [
        (
            f"{title}, {lab.size_of(TASK)}, {plan.epochs} epochs; "
            f"dropout and batch norm in all of them, the L2 term {L2:g}; a failed run "
            "is 0 %"
        ),
        "constant rates tried on seed 0: "
        + " ".join(f"{r:g}" for r in plan.rates)
        + f", chosen on {lab.chosen_on(TASK)}",
        "RMSprop's and Adam's rate is a ratio of averages of K, 1 as long as K stays",
    ]
    moving = tuple(found) if lab.adaptive(TASK).feed == "free" else ()
    figures = {
        "accuracy": curves_figure(found, title),
        "rate": rates_figure(found, title, moving),
    }
    return Result(rows, xr.Dataset(variables), figures, notes)
