"""Figures 1, 2 and 9 to 21: the ground under gradient descent, and under SGD."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
import optax
import xarray as xr
from tqdm import tqdm

from experiments.harness.paper import Result
from experiments.harness.statistics import mean_and_interval
from experiments.walk_with_sgd.descent import descend
from experiments.walk_with_sgd.lab import Lab
from experiments.walk_with_sgd.networks import chunk_size
from experiments.walk_with_sgd.result import joined
from lrscape import figures, landscape

# Updates that are shown.
SHOWN = 40

# The authors' code adds up nine micro-batches' gradients without dividing.
MICRO_BATCHES = 9

# Distance from the start after 40 updates, read off figures 1 and 2.
DISTANCES = {"fig1": {"vgg11": 1.4}, "fig2": {"vgg11": 1.7}}


def descent_of(
    lab: Lab, model: str, seed: int, rate: float | None = None
) -> xr.Dataset:
    """The ground under the first updates of full-batch gradient descent.

    Args:
        lab: has the model.
        model: one of its networks.
        seed: of its initial weights.
        rate: of the descent; None is the preset's.
    """
    name = "descent" if rate is None else f"descent-{rate:g}"
    plan, rate = lab.plan(model), rate or _descent_rate(lab, model)
    network = lab.network(model, rate=lab.rates(model)[0], seed=seed)
    sample = dataclasses.replace(plan.sample, second=False)

    def make() -> xr.Dataset:
        objective, _ = network.objectives(sample)
        tx = optax.chain(
            optax.add_decayed_weights(network.config.weight_decay), optax.sgd(rate)
        )
        gradient = None
        if sample.redrawn:
            loss, key = network.redrawn(sample), jax.random.key(seed)

            def gradient(point, step):
                return loss.gradient(point, jax.random.fold_in(key, step))

        recorder = landscape.Walk(
            objective, windows=[(0, SHOWN)], chunk_size=chunk_size(),
            num_points=9 if sample.redrawn else 10,
        )  # fmt: skip
        with tqdm(total=SHOWN, desc=f"{model}: descent", leave=False) as bar:
            steps = descend(
                objective, network.initial_params(), tx, SHOWN, gradient=gradient
            )
            for step, place, slope in steps:
                recorder.record(step, place, gradient=slope)
                bar.update(step - bar.n)
        return recorder.to_dataset()

    settings = {"rate": rate, "updates": SHOWN, "sample": dataclasses.asdict(sample)}
    return network.once(name, settings, make)


def _descent_rate(lab: Lab, model: str) -> float:
    return lab.rates(model)[0] * (MICRO_BATCHES if lab.authors else 1)


def fig1(lab: Lab) -> Result:
    """Full-batch gradient descent: the ground under its first 40 updates."""

    def walked(model: str, seed: int, epoch: int) -> xr.Dataset:
        return descent_of(lab, model, seed)

    return _trajectories(lab, "fig1", "full-batch gradient descent", walked, (1,))


def sgd_of(lab: Lab, model: str, seed: int, epoch: int = 1) -> xr.Dataset:
    """The ground under the first updates of an epoch of SGD."""
    network = lab.network(model, rate=lab.rates(model)[0], seed=seed)
    updates = min(SHOWN, lab.plan(model).updates or SHOWN)
    return network.walk(network.span(epoch, updates), lab.plan(model).sample)


def fig2(lab: Lab) -> Result:
    """SGD: the ground under the first 40 updates of each epoch."""

    def walked(model: str, seed: int, epoch: int) -> xr.Dataset:
        return sgd_of(lab, model, seed, epoch)

    return _trajectories(lab, "fig2", "SGD", walked, None)


def _trajectories(
    lab: Lab,
    item: str,
    what: str,
    walked: Callable[[str, int, int], xr.Dataset],
    epochs: Sequence[int] | None,
) -> Result:
    rows, drawn, walks = [], {}, {}
    for model in lab.models_of(item):
        plan, data = lab.plan(model), lab.dataset_of(model)
        rate = _descent_rate(lab, model) if item == "fig1" else lab.rates(model)[0]
        for epoch in epochs or plan.drawn or plan.epochs:
            found = [walked(model, seed, epoch) for seed in range(plan.seeds)]
            name = f"{model}-epoch_{epoch}"
            walks[name] = found
            title = f"{what}: {model} on {data}, rate {rate:g}, epoch {epoch}"
            drawn[name] = figures.walk_figure(found[0], max_steps=SHOWN, title=title)
            late = [later(walk) for walk in found]
            whole = epoch == 1 and len(found[0]["step"]) == SHOWN
            paper = DISTANCES[item].get(model, "-") if whole else "-"
            row: dict[str, Any] = {
                "network": model,
                "data": data,
                "epoch": epoch,
                "updates": len(found[0]["step"]),
                "distance": mean_and_interval([distance(w) for w in found]),
                "paper": paper,
            }
            for title, measure in MEASURES.items():
                row[title] = mean_and_interval([measure(w) for w in late])
            rows.append(row)
    note = (
        "with a floor, cosine and floor falls: over the second half of the updates; "
        "the floor falls from one update to the next in that share of them"
    )
    return Result(rows, joined(walks), drawn, [note])


def later(walk: xr.Dataset) -> xr.Dataset:
    """The second half of a walk."""
    return walk.isel(step=slice(walk.sizes["step"] // 2, None))


def distance(walk: xr.Dataset) -> float:
    """From the initial weights to the walk's end."""
    return float(walk["distance"][-1])


def floor_share(walk: xr.Dataset) -> float:
    """The share of the segments whose least loss lies within."""
    return float(walk["has_floor"].mean())


def mean_cosine(walk: xr.Dataset) -> float:
    """The mean cosine of consecutive gradients."""
    return float(walk["cosine"].mean())


def floor_falls(walk: xr.Dataset) -> float:
    """The share of updates at which there is a floor, lower than the one before."""
    return _share(_between_floors(walk) & (np.diff(walk["floor"].values) < 0))


def floor_rises(walk: xr.Dataset) -> float:
    """The share of updates at which there is a floor, higher than the one before."""
    return _share(_between_floors(walk) & (np.diff(walk["floor"].values) > 0))


def _between_floors(walk: xr.Dataset) -> np.ndarray:
    """Where the ground has a floor before and after an update: elsewhere none moves."""
    has = walk["has_floor"].values.astype(bool)
    return has[1:] & has[:-1]


def _share(steps: np.ndarray) -> float:
    return float(steps.mean()) if len(steps) else np.nan


MEASURES = {
    "with a floor": floor_share, "cosine": mean_cosine, "floor falls": floor_falls,
}  # fmt: skip
