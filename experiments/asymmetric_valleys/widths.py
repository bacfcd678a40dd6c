"""Figure 11 and appendix H: how wide minima look within one basin."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
import xarray as xr
from matplotlib.figure import Figure

from experiments.asymmetric_valleys.drawing import band, panels
from experiments.asymmetric_valleys.lab import Lab
from experiments.asymmetric_valleys.lines import chosen, line_of
from experiments.asymmetric_valleys.networks import AVERAGE
from experiments.asymmetric_valleys.presets import AFTER, SGD, SMALL, SWA, Pair
from experiments.harness.paper import Result
from experiments.harness.statistics import mean_and_interval
from lrscape import landscape
from lrscape.figures.style import CYCLE, tidy

Row = dict[str, Any]
# The sharper-looking end of each line comes first, as the paper has it.
PAIRS = {"batch": ("large batch", "small batch"), "swa": ("SGD after SWA", "SWA")}
SCALES = {"global": "distance", "filter": "distance, filter-normalised (1: each norm)"}


def curves_of(lab: Lab, pair: Pair, kind: str, seed: int) -> dict[str, Row]:
    """Training losses along the same random directions at both ends of a line.

    Args:
        lab: has the networks.
        pair: model and data set.
        kind: a name in `PAIRS`.
        seed: of the networks.

    Returns:
        End -> scale of `SCALES` -> ``scales`` (k,) and ``losses`` (directions, k).
    """
    survey = lab.survey
    if kind == "batch":
        networks = [lab.network(pair, name, seed) for name in (SGD, SMALL)]
        names = [n.name_of(n.config.epochs) for n in networks]
    else:
        networks = [lab.network(pair, name, seed) for name in (AFTER, SWA)]
        names = [chosen(lab, pair, seed)[0], AVERAGE]
    found = {}
    for end, network, name in zip(PAIRS[kind], networks, names, strict=True):

        def make(network=network, name=name) -> Row:
            objective, row = lab.objective(network, "train"), {}
            for normalize, reach in zip(SCALES, survey.width, strict=True):
                scales = np.linspace(0, reach, survey.width_points)
                curves = landscape.perturbation_losses(
                    objective, network.at(name).params, scales,
                    key=jax.random.key(seed), num_directions=survey.widths,
                    normalize=normalize,
                )  # fmt: skip
                row[normalize] = {
                    "scales": scales.tolist(), "losses": curves.losses.tolist()
                }  # fmt: skip
            return row

        file = f"width-{name}-{survey.widths}-{survey.width_points}-{survey.width[0]:g}"
        found[end] = network.numbers(f"{file}-{survey.examples}", make)
    return found


def rises(lab: Lab, pair: Pair, kind: str, normalize: str) -> dict[str, np.ndarray]:
    """End -> (seeds,), the mean rise of the loss over directions and distances."""
    found: dict[str, list[float]] = {end: [] for end in PAIRS[kind]}
    for seed in lab.seeds:
        for end, row in curves_of(lab, pair, kind, seed).items():
            losses = np.array(row[normalize]["losses"])
            scales = np.array(row[normalize]["scales"])
            mean = (losses - losses[:, :1]).mean(axis=0)
            found[end].append(float(np.trapezoid(mean, scales) / scales[-1]))
    return {end: np.array(values) for end, values in found.items()}


def fig11(lab: Lab) -> Result:
    """Figure 11: random directions from a large batch's solution and a small one's."""
    return _along_random(lab, "fig11", "batch")


def appendix_h(lab: Lab) -> Result:
    """Appendix H: random directions from SWA's solution and from SGD's after it."""
    return _along_random(lab, "appendix_h", "swa")


def _along_random(lab: Lab, item: str, kind: str) -> Result:
    rows: list[Row] = []
    variables: dict[str, Any] = {}
    drawn: dict[str, Figure] = {}
    ends = PAIRS[kind]
    for pair in lab.pairs(item):
        model, dataset = pair
        bumps = [line_of(lab, pair, kind, seed)["bump"] for seed in lab.seeds]
        for normalize, what in SCALES.items():
            found = rises(lab, pair, kind, normalize)
            first, second = (found[end] for end in ends)
            rows.append(
                {
                    "network": model,
                    "data": dataset,
                    "ends": " / ".join(ends),
                    "along": what.split(" (")[0],
                    "mean rise, first (nats)": mean_and_interval(first),
                    "second": mean_and_interval(second),
                    "first minus second": mean_and_interval(first - second),
                    "bump between": mean_and_interval(bumps),
                    "paper": "the second is wider, no bump",
                }
            )
            for end, values in found.items():
                name = f"{dataset}_{model}_{kind}_{end.replace(' ', '_')}"
                variables[f"{name}_{normalize}"] = (
                    ("seed",), values, {"units": "nat"}
                )  # fmt: skip
        drawn["-".join([*pair, kind])] = _figure(lab, pair, kind)
    notes = [
        *lab.notes(item),
        (
            f"{lab.survey.widths} Gaussian directions, the same at both ends of a "
            "seed; rise: over the loss at the end itself"
        ),
    ]
    return Result(rows, xr.Dataset(variables), drawn, notes)


def _figure(lab: Lab, pair: Pair, kind: str) -> Figure:
    figure, grid = panels(2)
    found = [curves_of(lab, pair, kind, seed) for seed in lab.seeds]
    for axes, (normalize, what) in zip(grid, SCALES.items(), strict=True):
        for color, end in zip(CYCLE, PAIRS[kind], strict=False):
            scales = found[0][end][normalize]["scales"]
            curves = np.concatenate([one[end][normalize]["losses"] for one in found])
            band(axes, scales, curves, color, end)
        axes.set_xlabel(what)
        axes.legend(frameon=False, fontsize=8)
        tidy(axes)
    grid[0].set_ylabel("training loss (nats)")
    figure.suptitle(f"{pair[0]} on {pair[1]}: mean and range over directions and seeds")
    return figure
