"""Figure 3: how the loss rises on the way to the peak, and as inputs are moved."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import xarray as xr
from matplotlib.figure import Figure

from experiments.harness.paper import Result
from experiments.harness.statistics import mean_and_interval
from experiments.nonmonotonic.lab import Lab
from experiments.nonmonotonic.networks import PEAK, Network
from lrscape import landscape
from lrscape.errors import InputError
from lrscape.figures.style import CYCLE, tidy
from lrscape.landscape import tree
from lrscape.landscape.inputs import input_losses, neighbor_moves, noise_moves

TASK = "small"
NEIGHBORS = 10
KINDS = {
    "line": "final to peak weights",
    "relative": "final to peak weights, over ||w||",
    "noise": "random input noise",
    "neighbors": "towards nearest test images",
}
XLABELS = {
    "line": r"$\alpha$ (distance between weights)",
    "relative": r"$\alpha / \|w\|$",
    "noise": r"$\alpha$ (norm of an input's noise, normalised pixels)",
    "neighbors": r"$\alpha$ (1: the test image itself)",
}


def compared(lab: Lab) -> dict[str, list[Network]]:
    """The networks of the Gaussian and of the step rule, seed by seed.

    A seed whose run failed under either of them is left out of both.

    Raises:
        InputError: no seed is left.
    """
    found = {n: lab.all_of(TASK, lab.rule(TASK, n)) for n in ("gaussian", "step")}
    whole = [
        not any(networks[seed].failed() for networks in found.values())
        for seed in lab.seeds(TASK)
    ]
    if not any(whole):
        raise InputError(
            f"seeds={len(whole)}: in each of them the Gaussian's or the step rule's "
            "loss stopped being finite, so that there is nothing to compare"
        )
    return {
        name: [n for n, ok in zip(networks, whole, strict=True) if ok]
        for name, networks in found.items()
    }


def left_out(lab: Lab) -> str:
    """Which seeds `compared` leaves out, and why; empty: none."""
    parts = []
    for name in ("gaussian", "step"):
        networks = lab.all_of(TASK, lab.rule(TASK, name))
        seeds = [i for i, network in enumerate(networks) if network.failed()]
        if seeds:
            parts.append(f"{name} failed in seeds {' '.join(map(str, seeds))}")
    return f"left out of both rules: {'; '.join(parts)}" if parts else ""


def way_of(network: Network) -> tuple[Any, float, float]:
    """The unit direction from final to peak weights, its length, and ||w_final||."""
    final = network.final.params
    away = tree.subtract(network.at(PEAK).params, final)
    length = float(tree.norm(away))
    return tree.scale(1 / length, away), length, float(tree.norm(final))


def reach_of(lab: Lab) -> tuple[float, float]:
    """How far all networks can be followed: in length, and over ||w||."""
    lengths, shares = [], []
    for networks in compared(lab).values():
        for network in networks:
            _, length, size = way_of(network)
            lengths.append(length)
            shares.append(length / size)
    return min(lengths), min(shares)


def curves_of(lab: Lab, kind: str) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Mean losses over how far was gone.

    Args:
        lab: has the networks.
        kind: a name in `KINDS`.

    Returns:
        (points,) scales, and for each rule (seeds, directions, points) losses in nats.
    """
    survey = lab.settings.survey
    longest = {
        "line": lambda: reach_of(lab)[0], "relative": lambda: reach_of(lab)[1],
        "noise": lambda: survey.noise, "neighbors": lambda: 1.0,
    }[kind]()  # fmt: skip
    scales = np.linspace(0, longest, survey.points)
    found, file = {}, _file(kind, survey, scales)
    for name, networks in compared(lab).items():
        made = [
            n.numbers(file, functools.partial(_measured, kind, n, survey, scales))
            for n in networks
        ]
        found[name] = np.array([one["losses"] for one in made])
    return scales, found


def _measured(
    kind: str, network: Network, survey: Any, scales: np.ndarray
) -> dict[str, Any]:
    losses = _MAKERS[kind](network, survey, scales)
    return {"scales": scales.tolist(), "losses": losses.tolist()}


def _file(kind: str, survey: Any, scales: np.ndarray) -> str:
    return (
        f"{kind}-{survey.examples}-{survey.directions}-{len(scales)}-{scales[-1]:.6g}"
    )


def _along(network: Network, survey: Any, scales: np.ndarray) -> np.ndarray:
    direction, _, _ = way_of(network)
    objective = network.objective(survey.examples)
    curves = landscape.perturbation_losses(
        objective, network.final.params, scales, directions=[direction]
    )
    return curves.losses


def _relatively(network: Network, survey: Any, scales: np.ndarray) -> np.ndarray:
    return _along(network, survey, scales * way_of(network)[2])


def _in_noise(network: Network, survey: Any, scales: np.ndarray) -> np.ndarray:
    images, _ = network.examples("train", survey.examples)
    moves = noise_moves(jax.random.key(0), images, num_directions=survey.directions)
    objective = network.objective(survey.examples)
    return input_losses(
        objective, network.final.params, moves, scales
    ).losses  # fmt: skip


def _to_neighbors(network: Network, survey: Any, scales: np.ndarray) -> np.ndarray:
    images, _ = network.examples("train", survey.examples)
    candidates, _ = network.examples("test", None)
    moves = neighbor_moves(
        jax.random.key(0), images, candidates, num_neighbors=NEIGHBORS,
        num_directions=survey.directions,
    )  # fmt: skip
    objective = network.objective(survey.examples)
    return input_losses(
        objective, network.final.params, moves, scales
    ).losses  # fmt: skip


_MAKERS: dict[str, Callable[..., np.ndarray]] = {
    "line": _along, "relative": _relatively, "noise": _in_noise,
    "neighbors": _to_neighbors,
}  # fmt: skip


def excess(scales: np.ndarray, losses: np.ndarray) -> np.ndarray:
    """The mean rise of the loss over a curve: its area above its start, a unit.

    Args:
        scales: (points,), from 0.
        losses: (seeds, directions, points).

    Returns:
        (seeds,), in nats.
    """
    risen = (losses - losses[..., :1]).mean(axis=1)
    return np.trapezoid(risen, scales, axis=-1) / scales[-1]


def area(scales: np.ndarray, losses: np.ndarray) -> np.ndarray:
    """(seeds,), the mean loss over a curve, in nats."""
    return np.trapezoid(losses.mean(axis=1), scales, axis=-1) / scales[-1]


def slope(scales: np.ndarray, losses: np.ndarray) -> np.ndarray:
    """(seeds,), the average slope from start to end (Sec. 6.3), in nats a unit."""
    mean = losses.mean(axis=1)
    return (mean[:, -1] - mean[:, 0]) / scales[-1]


def fig3(lab: Lab) -> Result:
    """Figure 3: the loss towards the peak's weights, in noise, towards test images."""
    rows: list[dict[str, Any]] = []
    variables: dict[str, Any] = {}
    drawn: dict[str, Figure] = {}
    for kind, what in KINDS.items():
        scales, found = curves_of(lab, kind)
        rises = {name: excess(scales, losses) for name, losses in found.items()}
        means = {name: area(scales, losses) for name, losses in found.items()}
        slopes = {name: slope(scales, losses) for name, losses in found.items()}
        rows.append(
            {
                "loss against": what,
                "up to": f"{scales[-1]:.4g}",
                "mean rise, Gaussian": mean_and_interval(rises["gaussian"]),
                "step": mean_and_interval(rises["step"]),
                "Gaussian minus step": mean_and_interval(
                    rises["gaussian"] - rises["step"]
                ),
                "the same of the mean loss": mean_and_interval(
                    means["gaussian"] - means["step"]
                ),
                "slope, Gaussian": mean_and_interval(slopes["gaussian"]),
                "step's": mean_and_interval(slopes["step"]),
                "paper": "Gaussian flatter",
            }
        )
        variables[f"{kind}_scale"] = ((f"{kind}_point",), scales, {"units": "1"})
        for name, losses in found.items():
            variables[f"{kind}_{name}"] = (
                ("seed", f"{kind}_direction", f"{kind}_point"), losses,
                {"units": "nat"},
            )  # fmt: skip
        drawn[kind] = _figure(scales, found, kind)
    survey, seeds = lab.settings.survey, len(found["gaussian"])
    notes = [
        (
            f"{lab.plans[TASK].model} on {lab.dataset_of(TASK)}, {lab.size_of(TASK)}, "
            f"{seeds} seeds, last epoch; mean training loss of "
            f"{lab.sampled(TASK, survey.examples)} examples, dropout off, no batch "
            "norm; nats"
        ),
        (
            "the peak is the update at which the Gaussian's rate is largest, for the "
            "step rule too; the line ends where the nearest of all networks' peaks lies"
        ),
        (
            f"noise and neighbours: {survey.directions} an input, the same for all "
            f"networks; neighbours among {NEIGHBORS} nearest test images"
        ),
    ]
    notes += filter(None, [left_out(lab)])
    return Result(rows, xr.Dataset(variables), drawn, notes)


def _figure(scales: np.ndarray, found: dict[str, np.ndarray], kind: str) -> Figure:
    figure = Figure(figsize=(6.4, 4), layout="constrained")
    axes = figure.subplots()
    for color, (name, losses) in zip(CYCLE, found.items(), strict=False):
        for one in losses.reshape(-1, losses.shape[-1]):
            axes.plot(scales, one, color=color, alpha=0.15, linewidth=0.8)
        seeds = losses.mean(axis=1)
        axes.plot(scales, seeds.mean(axis=0), color=color, linewidth=2, label=name)
        axes.fill_between(
            scales, seeds.min(axis=0), seeds.max(axis=0), color=color, alpha=0.15,
            linewidth=0,
        )  # fmt: skip
    axes.set_xlabel(XLABELS[kind])
    axes.set_ylabel("training loss (nat)")
    axes.set_title(f"{KINDS[kind]}: mean and range over {len(losses)} seeds")
    axes.legend(frameon=False)
    tidy(axes)
    return figure
