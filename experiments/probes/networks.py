"""Networks as functions: how far apart they are, and how flat the ground is."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr

from experiments.probes.survey import Found, Survey, about
from lrscape import figures, landscape
from lrscape.data import StreamedDataset
from lrscape.landscape import masks
from lrscape.landscape.distance import distance_objective, distances_with_errors
from lrscape.landscape.inputs import input_losses, neighbor_moves, noise_moves

# Images of a stream that nearest neighbours are looked for among.
CANDIDATES = 2000


def distance(survey: Survey) -> Found:
    """How far apart networks are as functions, along the line between snapshots."""
    s, model = survey.settings, survey.runs[0].model
    inputs, _ = survey.runs[0].sample(s.part, s.examples, seed=s.seed)
    start = survey.snapshot(s.start).variables
    end = survey.snapshot(s.end, run=len(survey.runs) - 1).variables

    def apply_fn(variables: Any, x: jax.Array) -> Any:
        return model.apply(variables, x, train=False)

    objective = distance_objective(
        apply_fn, inputs, softmax=True, batch_size=s.batch_size
    )
    alphas = np.linspace(0, 1, s.points)
    way = _Pair(end, landscape.line(start, end))
    surface = survey.measure(objective, way, alphas)
    root = np.sqrt(surface.losses["loss"])
    with np.errstate(divide="ignore", invalid="ignore"):
        root_error = surface.standard_errors["loss"] / (2 * root)
    weights = float(landscape.parameter_distance(start["params"], end["params"]))
    unit = {"units": "1"}
    dataset = xr.Dataset(
        {
            "functional_distance": ("alpha", root, unit),
            "functional_distance_standard_error": ("alpha", root_error, unit),
            "disagreement": (
                "alpha", surface.losses["disagreement"], {"units": "fraction"}
            ),
            "disagreement_standard_error": (
                "alpha", surface.standard_errors["disagreement"], {"units": "fraction"}
            ),
            "parameter_distance": ("alpha", (1 - alphas) * weights, unit),
        },
        {"alpha": ("alpha", alphas, unit)},
    )  # fmt: skip
    args = (apply_fn, start, end, inputs)
    far, labels = distances_with_errors(*args, softmax=True)
    summary = {
        "functional_distance": float(far.value),
        "functional_distance_standard_error": float(far.standard_error),
        "disagreement": float(labels.value),
        "disagreement_standard_error": float(labels.standard_error),
        "parameter_distance": weights,
        "of": "probabilities; batch statistics interpolated",
        **about(surface),
    }
    figure = figures.line_figure(
        dataset, ends={0.0: s.start, 1.0: s.end}, title=survey.title()
    )
    return Found(dataset, summary, {"": figure})


def flatness(survey: Survey) -> Found:
    """Loss under moved weights and moved inputs, around the end."""
    s, run = survey.settings, survey.runs[0]
    objective, point = survey.objective(), survey.point(s.end)
    keys = jax.random.split(jax.random.key(s.seed), 5)
    scales = np.linspace(0, s.scale, s.points // 2 + 1)
    inputs, _ = run.sample(s.part, s.examples, seed=s.seed)
    params = survey.snapshot(s.end).params
    first = masks.first_layer(run.model, inputs[:1])
    if survey.settings.norm == "interpolate" and point is not params:
        inner = first

        def first(path: str) -> bool:
            return path.startswith("params/") and inner(path.removeprefix("params/"))

    several: dict[str, Any] = {"num_directions": s.directions, "normalize": "global"}
    wrong = objective.relabelled(keys[4])
    weights = {
        "first layer": landscape.perturbation_losses(
            objective, point, scales, key=keys[0], mask=first, **several
        ),
        "all layers": landscape.perturbation_losses(
            objective, point, scales, key=keys[1], **several
        ),
        "fooling": landscape.perturbation_losses(
            objective, point, scales,
            directions=[landscape.fooling_direction(objective, point)],
        ),
        "towards wrong labels": landscape.perturbation_losses(
            objective, point, scales,
            directions=[
                landscape.fooling_direction(
                    wrong, point, method="gradient", towards=True
                )
            ],
        ),
    }  # fmt: skip
    other = "test" if run.data.validation is None else "validation"
    if other == s.part:  # an image would be its own neighbour
        other = "train"
    # Of a stream only some are held at once.
    streamed = isinstance(run.data, StreamedDataset)
    most = min(len(getattr(run.data, other)), CANDIDATES) if streamed else None
    candidates, _ = run.sample(other, most)
    fractions = np.linspace(0, 1, s.points // 2 + 1)
    noise = noise_moves(keys[2], inputs, num_directions=s.directions)
    noise_scales = fractions * float(jnp.linalg.norm(inputs[0]))
    neighbors = neighbor_moves(keys[3], inputs, candidates, num_directions=s.directions)
    moved = {
        "noise": input_losses(objective, point, noise, noise_scales),
        f"towards a {other} image": input_losses(
            objective, point, neighbors, fractions
        ),
    }
    everything = {**weights, **moved}
    variables: dict[str, Any] = {}
    for name, curves in everything.items():
        key = name.replace(" ", "_")
        dims = (f"{key}_direction", f"{key}_scale")
        variables[key] = (dims, curves.losses, {"units": "nat"})
        variables[f"{key}_standard_error"] = (
            dims, curves.standard_errors, {"units": "nat"}
        )  # fmt: skip
        variables[f"{key}_scale"] = (f"{key}_scale", curves.scales, {"units": "1"})
    dataset = xr.Dataset(variables)
    slope = landscape.average_slope(objective, point, survey.point(s.start))
    summary = {
        "average_slope": float(slope),
        "average_slope_from": s.end,
        "average_slope_to": s.start,
        "loss_unmoved": float(weights["all layers"].losses[0, 0]),
        "loss_at_the_largest_scale": {
            name: float(curves.mean[-1]) for name, curves in everything.items()
        },
        **objective.settings,
    }
    panels = {"weights": weights, "input noise": {"noise": moved.pop("noise")}}
    panels[f"inputs towards {other} images"] = moved
    figure = figures.perturbation_figure(
        panels,
        xlabels={
            "weights": "distance between weights",
            "input noise": "norm of the noise",
            f"inputs towards {other} images": "share of the way",
        },
        title=survey.title(),
    )
    return Found(dataset, summary, {"": figure})


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class _Pair:
    """``alpha -> (a point that stays, the point of a line)``."""

    fixed: Any
    line: Any
    num_coordinates = 1

    def __call__(self, alpha: Any) -> Any:
        return self.fixed, self.line(alpha)
