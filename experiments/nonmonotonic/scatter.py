"""Figure 4: losses under perturbed weights, the Gaussian's against the step rule's."""

from __future__ import annotations

import functools
from typing import Any

import jax
import numpy as np
import xarray as xr
from matplotlib.figure import Figure

from experiments.harness.paper import Result
from experiments.harness.statistics import mean_and_interval
from experiments.nonmonotonic.lab import Lab
from experiments.nonmonotonic.lines import TASK, compared, left_out
from experiments.nonmonotonic.networks import GRADIENT_CHUNK, Network
from lrscape import landscape
from lrscape.figures.style import CYCLE, tidy
from lrscape.landscape import masks

KINDS = ("first layer", "all layers", "fooling")
SCALES = ("raw", "filter")


def losses_of(lab: Lab, kind: str, scale: str) -> dict[str, np.ndarray]:
    """Losses of perturbed networks.

    Args:
        lab: has the networks.
        kind: a name in `KINDS`: what is moved, or which way.
        scale: ``'raw'``: every perturbation is as long; ``'filter'``: as long a share
            of each filter's norm.

    Returns:
        For each rule (seeds, directions, 2) in nats: unperturbed and perturbed.
    """
    survey = lab.settings.survey
    length = survey.weights if scale == "raw" else survey.relative
    count = survey.fooling if kind == "fooling" else survey.directions
    what = kind.replace(" ", "_")
    file = f"scatter-{what}-{scale}-{survey.examples}-{count}-{length:g}"
    found = {}
    for name, networks in compared(lab).items():
        made = [
            n.numbers(file, functools.partial(_measured, n, survey, kind, scale))
            for n in networks
        ]
        found[name] = np.array([one["losses"] for one in made])
    return found


def _measured(network: Network, survey: Any, kind: str, scale: str) -> dict[str, Any]:
    return {"losses": _losses(network, survey, kind, scale).tolist()}


def _losses(network: Network, survey: Any, kind: str, scale: str) -> np.ndarray:
    held = min(survey.examples, len(network.data.train))
    objective, point = network.objective(held), network.final.params
    normalize = "global" if scale == "raw" else "filter"
    scales = [0.0, survey.weights if scale == "raw" else survey.relative]
    if kind == "fooling":
        # Each direction fools examples of its own; all are measured on the same ones.
        each = max(1, held // survey.fooling)
        fooled = [
            network.objective(each, start=i * each, batch_size=GRADIENT_CHUNK)
            for i in range(survey.fooling)
        ]
        directions = [
            landscape.fooling_direction(one, point, normalize=normalize)
            for one in fooled
        ]
        curves = landscape.perturbation_losses(
            objective, point, scales, directions=directions
        )
        return curves.losses
    mask = None
    if kind == "first layer":
        images, _ = network.examples("train", 1)
        mask = masks.first_layer(network.model, images)
    curves = landscape.perturbation_losses(
        objective, point, scales, key=jax.random.key(0),
        num_directions=survey.directions, normalize=normalize, mask=mask,
    )  # fmt: skip
    return curves.losses


def shares_above(found: dict[str, np.ndarray], *, rise: bool = False) -> np.ndarray:
    """(seeds,), of points at which the step rule's loss is the larger one.

    Args:
        found: see `losses_of`.
        rise: whether it is the loss less that of the unperturbed network.

    Example:
        >>> found = {'gaussian': np.array([[[0.1, 1.0]]]),
        ...          'step': np.array([[[0.5, 1.2]]])}
        >>> print(shares_above(found), shares_above(found, rise=True))
        [1.] [0.]
    """
    seen = {
        name: losses[..., 1] - (losses[..., 0] if rise else 0.0)
        for name, losses in found.items()
    }
    return (seen["step"] > seen["gaussian"]).mean(axis=1)


def fig4(lab: Lab) -> Result:
    """Figure 4: losses of perturbed weights, Gaussian against step."""
    rows, variables, panels = [], {}, {}
    for scale in SCALES:
        for kind in KINDS:
            found = losses_of(lab, kind, scale)
            panels[kind, scale] = found
            rises = {n: (v[..., 1] - v[..., 0]).mean(axis=1) for n, v in found.items()}
            rows.append(
                {
                    "perturbed": kind,
                    "scale": scale,
                    "Gaussian": mean_and_interval(
                        found["gaussian"][..., 1].mean(axis=1)
                    ),
                    "step": mean_and_interval(found["step"][..., 1].mean(axis=1)),
                    "share where step is larger": mean_and_interval(
                        shares_above(found)
                    ),
                    "paper": "most",
                    "share where step rises more": mean_and_interval(
                        shares_above(found, rise=True)
                    ),
                    "rise, Gaussian": mean_and_interval(rises["gaussian"]),
                    "rise, step": mean_and_interval(rises["step"]),
                }
            )
            label = f"{kind}_{scale}".replace(" ", "_")
            for name, losses in found.items():
                variables[f"{label}_{name}"] = (
                    ("seed", f"{label}_direction", "perturbed"), losses,
                    {"units": "nat"},
                )  # fmt: skip
    survey, seeds = lab.settings.survey, len(found["gaussian"])
    notes = [
        (
            f"{lab.plans[TASK].model} on {lab.dataset_of(TASK)}, {lab.size_of(TASK)}, "
            f"{seeds} seeds, last epoch; mean training loss of "
            f"{lab.sampled(TASK, survey.examples)} examples in nats; the same random "
            "directions for all networks"
        ),
        (
            "what loss lies above the unperturbed one is the rise: at unequal cost a "
            "lower loss alone says nothing of flatness"
        ),
        (
            f"raw: Gaussian directions of length {survey.weights:g}; filter: each "
            f"filter's part is {survey.relative:g} of its norm; fooling: along the "
            f"sign of the gradient of each of {survey.fooling} sets of examples"
        ),
    ]
    notes += filter(None, [left_out(lab)])
    return Result(rows, xr.Dataset(variables), {"": _figure(panels)}, notes)


def _figure(panels: dict[tuple[str, str], dict[str, np.ndarray]]) -> Figure:
    figure = Figure(figsize=(9.6, 6.4), layout="constrained")
    all_axes = figure.subplots(len(SCALES), len(KINDS))
    for axes, ((kind, scale), found) in zip(
        all_axes.ravel(), panels.items(), strict=True
    ):
        pairs = zip(found["gaussian"][..., 1], found["step"][..., 1], strict=True)
        for seed, (x, y) in enumerate(pairs):
            color = CYCLE[seed % len(CYCLE)]
            axes.plot(x, y, ".", color=color, label=f"network {seed}")
        both = np.concatenate([v[..., 1].ravel() for v in found.values()])
        ends = [both.min(), both.max()]
        axes.plot(ends, ends, "--", color="#888888")
        axes.set_title(f"{kind}, {scale}")
        axes.set_xlabel("Gaussian's loss (nat)")
        axes.set_ylabel("step's loss (nat)")
        tidy(axes)
    all_axes.ravel()[0].legend(frameon=False, fontsize="small")
    return figure
