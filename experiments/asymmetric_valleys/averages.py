"""Figures 13 and 14: averaging batch norm alone, and networks with and without it."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import xarray as xr
from matplotlib.figure import Figure

from experiments.asymmetric_valleys.drawing import band, panels
from experiments.asymmetric_valleys.lab import Lab
from experiments.asymmetric_valleys.networks import ALL, NORMS, OTHERS, Network
from experiments.asymmetric_valleys.presets import SWA, WITH, WITHOUT, Pair
from experiments.harness.paper import Result
from experiments.harness.statistics import mean_and_interval
from lrscape.errors import InputError
from lrscape.figures.style import CYCLE, DARK, tidy

Row = dict[str, Any]
LABELS = {
    "": "SGD", ALL: "all weights averaged", NORMS: "batch norm alone",
    OTHERS: "as many others",
}  # fmt: skip


def accuracy_of(row: Row, kind: str) -> float:
    """A row's test accuracy in per cent, or NaN; of others the mean over draws.

    Example:
        >>> row = {'test_error': 0.5, 'others_0_test_error': 0.25,
        ...        'others_1_test_error': 0.75}
        >>> accuracy_of(row, ''), accuracy_of(row, OTHERS), accuracy_of(row, ALL)
        (50.0, 50.0, nan)
    """
    name = f"{kind}_test_error" if kind else "test_error"
    errors = [row[name]] if name in row else []
    if kind == OTHERS:
        pattern = re.compile(rf"{OTHERS}_\d+_test_error")
        errors = [value for key, value in row.items() if pattern.fullmatch(key)]
    return 100 * (1 - float(np.mean(errors))) if errors else np.nan


def histories(networks: list[Network], kind: str) -> tuple[np.ndarray, np.ndarray]:
    """(epochs,), and test accuracies in per cent (seeds, epochs); NaN before averaging.

    Raises:
        InputError: a run failed.
    """
    rows = [network.measured() for network in networks]
    for network in networks:
        if network.failed():
            raise InputError(
                f"{str(network.records.path)!r}: the loss stopped being finite; lower "
                "its rate"
            )
    epochs = np.array([row["epoch"] for row in rows[0]])
    found = [[accuracy_of(row, kind) for row in one] for one in rows]
    return epochs, np.array(found)


def fig13(lab: Lab) -> Result:
    """Figure 13: test accuracy when batch norm alone, others, or all are averaged."""
    rows: list[Row] = []
    variables: dict[str, Any] = {}
    drawn: dict[str, Figure] = {}
    for pair in lab.pairs("fig13"):
        model, dataset = pair
        networks = lab.all_of(pair, SWA)
        raw = histories(networks, "")[1][:, -1]
        figure, (axes,) = panels(1, width=6)
        for color, (kind, what) in zip(CYCLE, LABELS.items(), strict=False):
            epochs, found = histories(networks, kind)
            if np.isnan(found[:, -1]).all():  # no batch norm
                continue
            rows.append(
                {
                    "network": model,
                    "data": dataset,
                    "averaged": what,
                    "test %, last epoch": mean_and_interval(found[:, -1]),
                    "minus SGD": mean_and_interval(found[:, -1] - raw),
                    "paper": {ALL: "best", NORMS: "between", OTHERS: "least"}.get(
                        kind, "-"
                    ),
                }
            )
            name = kind or "sgd"
            dims = ("seed", f"{dataset}_{model}_epoch")
            variables[f"{dataset}_{model}_{name}_test"] = (dims, found, {"units": "%"})
            variables[f"{dataset}_{model}_epochs"] = (dims[1:], epochs)
            there = np.isfinite(found).all(axis=0) & _late(lab, epochs)
            band(axes, epochs[there], found[:, there], color, what, marker=".")
        _mark(axes, lab, pair, networks)
        drawn["-".join(pair)] = figure
    notes = [
        *lab.notes("fig13"),
        (
            f"the mean of the weights after each epoch from {lab.plan.swa_from} on, "
            f"one run for all; others: {lab.plan.draws} draws of as many as batch norm "
            "has"
        ),
    ]
    return Result(rows, xr.Dataset(variables), drawn, notes)


def _late(lab: Lab, epochs: np.ndarray) -> np.ndarray:
    """The epochs that are drawn: not the first ones, beside which nothing is seen."""
    return epochs >= lab.plan.swa_from // 2


def _mark(axes: Any, lab: Lab, pair: Pair, networks: list[Network]) -> None:
    axes.axvline(lab.plan.swa_from, color=DARK, linewidth=0.8, linestyle=":")
    axes.set_xlabel("epoch (dotted: averaging begins)")
    axes.set_ylabel("test accuracy (%)")
    axes.set_title(
        f"{pair[0]} on {pair[1]}: mean and range over {len(networks)} seeds",
        fontsize=10,
    )
    axes.legend(frameon=False, fontsize=8)
    tidy(axes)


def gains(lab: Lab, pair: Pair) -> dict[str, np.ndarray]:
    """How much averaging adds to the test accuracy, in points, seed by seed."""
    found = {}
    for kind in (WITH, WITHOUT):
        networks = lab.all_of(pair, kind)
        average, raw = (histories(networks, k)[1][:, -1] for k in (ALL, ""))
        found[kind] = average - raw
    return found


def fig14(lab: Lab) -> Result:
    """Figure 14: averaging in 8-layer networks with and without batch norm."""
    rows: list[Row] = []
    variables: dict[str, Any] = {}
    drawn: dict[str, Figure] = {}
    what = {WITH: "with batch norm", WITHOUT: "without"}
    for pair in lab.pairs("fig14"):
        model, dataset = pair
        gained = gains(lab, pair)
        figure, (axes,) = panels(1, width=6)
        for color, kind in zip(CYCLE, what, strict=False):
            networks = lab.all_of(pair, kind)
            epochs, raw = histories(networks, "")
            _, average = histories(networks, ALL)
            rows.append(
                {
                    "network": model,
                    "data": dataset,
                    "batch norm": what[kind],
                    "test %, SGD": mean_and_interval(raw[:, -1]),
                    "averaged": mean_and_interval(average[:, -1]),
                    "gain": mean_and_interval(gained[kind]),
                    "paper": "larger gain" if kind == WITH else "smaller gain",
                }
            )
            for name, values in {"sgd": raw, "average": average}.items():
                dims = ("seed", f"{dataset}_epoch")
                variables[f"{dataset}_{kind}_{name}_test"] = (
                    dims, values, {"units": "%"}
                )  # fmt: skip
            variables[f"{dataset}_epochs"] = ((f"{dataset}_epoch",), epochs)
            late = _late(lab, epochs)
            band(
                axes, epochs[late], raw[:, late], color, f"{what[kind]}: SGD",
                linestyle=":",
                marker=".",
            )  # fmt: skip
            there = np.isfinite(average).all(axis=0)
            band(
                axes, epochs[there], average[:, there], color,
                f"{what[kind]}: averaged", marker=".",
            )  # fmt: skip
        _mark(axes, lab, pair, networks)
        drawn["-".join(pair)] = figure
    notes = [
        *lab.notes("fig14"),
        f"both at a first rate of {lab.plan.eight_rate:g}; the paper's is not said",
    ]
    return Result(rows, xr.Dataset(variables), drawn, notes)
