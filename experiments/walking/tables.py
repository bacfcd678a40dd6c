"""Tables 1 and 2, and the first two figures, measured beside the paper's numbers."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import optax
import xarray as xr
from tqdm import tqdm

from experiments.walking.networks import descend
from experiments.walking.settings import RATES, Lab
from lrscape import figures, landscape

# Updates of figures 1 and 2.
SHOWN = 40

# Paper 3, Tables 1 and 2: by network, rate and epoch.
BARRIERS = {
    "vgg11": {1: 0, 10: 0, 25: 5, 100: 13},
    "resnet56": {1: 0, 10: 0, 25: 2, 100: 23},
    "mlp": {1: 0, 10: 3, 25: 5},
}
HEIGHTS = {
    ("vgg11", 0.1): {1: 0.0625, 10: 0.0199, 25: 0.0104, 100: 0.0025},
    ("vgg11", 0.05): {1: 0.0102, 10: 0.0050, 25: 0.0035, 100: 0.0011},
    ("resnet56", 0.3): {1: 0.0380, 10: 0.0131, 25: 0.0094, 100: 0.0017},
}
# Distance from the start after 40 updates, read off figures 1 and 2.
DISTANCES = {"fig1": {"vgg11": 1.4}, "fig2": {"vgg11": 1.7}}


@dataclasses.dataclass
class Result:
    """What a command found.

    Attributes:
        rows: of a table: names to values.
        dataset: labelled arrays.
        figures: by name.
        notes: what has to be said beside the table.
    """

    rows: list[dict[str, Any]]
    dataset: xr.Dataset
    figures: dict[str, Any]
    notes: list[str]


def table1(lab: Lab) -> Result:
    """Barriers crossed in an epoch, their heights, and how many are on two samples."""
    return _table(lab, lambda model: RATES[model][:1], _barriers)


def table2(lab: Lab) -> Result:
    """Mean height above the valley's floor, at two rates."""
    return _table(lab, lambda model: RATES[model], _heights)


def _table(
    lab: Lab,
    rates: Callable[[str], tuple[float, ...]],
    row_of: Callable[..., dict[str, Any]],
) -> Result:
    rows, walks = [], {}
    for model in lab.models:
        plan = lab.plans[model]
        for rate in rates(model):
            networks = [
                lab.network(model, rate=rate, seed=seed) for seed in range(plan.seeds)
            ]
            for epoch in plan.epochs:
                found = [
                    network.walk(network.span(epoch, plan.updates), plan.sample)
                    for network in networks
                ]
                walks[f"{model}-{rate:g}-{epoch}"] = found
                about = {
                    "network": model,
                    "data": networks[0].config.dataset,
                    "rate": rate,
                    "epoch": epoch,
                    "updates": len(found[0]["step"]),
                    "of": networks[0].steps_per_epoch,
                }
                rows.append({**about, **row_of(model, rate, epoch, found)})
    notes = [
        "losses in nats on a fixed sample, batch norm in train mode: "
        + "; ".join(
            f"{m}: {p.sample.examples or 'all'} examples in batches of "
            f"{p.sample.batch_size}, {p.seeds} seed{'s' if p.seeds > 1 else ''}"
            for m, p in lab.plans.items()
            if m in lab.models
        ),
        "a value over several seeds is their mean, with its 95 % bootstrap interval",
    ]
    return Result(rows, _joined(walks), {}, notes)


def _barriers(model, rate, epoch, walks) -> dict[str, Any]:
    crossed = [walk["crosses_barrier"].values.astype(bool) for walk in walks]
    both = [
        c & walk["second_crosses_barrier"].values.astype(bool)
        for c, walk in zip(crossed, walks, strict=True)
        if "second_crosses_barrier" in walk
    ]
    shares = np.concatenate([
        (walk["barrier_height"].values / walk["loss"].values[:, 0])[c]
        for c, walk in zip(crossed, walks, strict=True)
    ])  # fmt: skip
    return {
        "barriers": mean_and_interval([c.sum() for c in crossed]),
        "on both samples": mean_and_interval([b.sum() for b in both]),
        "highest / loss": f"{shares.max():.2e}" if len(shares) else "none",
        "paper": BARRIERS.get(model, {}).get(epoch, "-"),
    }


def _heights(model, rate, epoch, walks) -> dict[str, Any]:
    floors = [walk["has_floor"].values.astype(bool).mean() for walk in walks]
    return {
        "height": mean_and_interval([float(w["height"].mean()) for w in walks]),
        "share with a floor": mean_and_interval(floors),
        "paper": HEIGHTS.get((model, rate), {}).get(epoch, "-"),
    }


def fig1(lab: Lab) -> Result:
    """Full-batch gradient descent: the ground under its first 40 updates."""

    def walked(model: str, seed: int) -> xr.Dataset:
        network = lab.network(model, rate=RATES[model][0], seed=seed)
        objective, _ = network.objectives(
            dataclasses.replace(lab.plans[model].sample, second=False)
        )
        point = network.initial_params()
        tx = optax.chain(
            optax.add_decayed_weights(network.config.weight_decay),
            optax.sgd(RATES[model][0]),
        )
        recorder = landscape.Walk(objective, windows=[(0, SHOWN)], chunk_size=None)
        with tqdm(total=SHOWN, desc=f"{model}: descent", leave=False) as bar:
            for step, place, slope in descend(objective, point, tx, SHOWN):
                recorder.record(step, place, gradient=slope)
                bar.update(step - bar.n)
        return recorder.to_dataset()

    return _trajectories(lab, "fig1", "full-batch gradient descent", walked)


def fig2(lab: Lab) -> Result:
    """SGD: the ground under its first 40 updates."""

    def walked(model: str, seed: int) -> xr.Dataset:
        network = lab.network(model, rate=RATES[model][0], seed=seed)
        return network.walk(network.span(1, SHOWN), lab.plans[model].sample)

    return _trajectories(lab, "fig2", "SGD", walked)


def _trajectories(lab, item, what, walked) -> Result:
    rows, drawn, walks = [], {}, {}
    for model in lab.models:
        found = [walked(model, seed) for seed in range(lab.plans[model].seeds)]
        walks[model] = found
        title = (
            f"{what}: {model} on {lab.dataset_of(model)}, rate {RATES[model][0]:g}, "
            "epoch 1"
        )
        drawn[model] = figures.walk_figure(found[0], max_steps=SHOWN, title=title)
        late = [walk.isel(step=slice(SHOWN // 2, None)) for walk in found]
        rows.append({
            "network": model,
            "data": lab.dataset_of(model),
            "updates": len(found[0]["step"]),
            "distance": mean_and_interval([float(w["distance"][-1]) for w in found]),
            "paper": DISTANCES[item].get(model, "-"),
            "with a floor": mean_and_interval(
                [float(w["has_floor"].mean()) for w in late]
            ),
            "cosine": mean_and_interval([float(w["cosine"].mean()) for w in late]),
            "floor falls": mean_and_interval([_falls(w) for w in late]),
        })  # fmt: skip
    note = (
        "with a floor, cosine and floor falls: over the second half of the updates; "
        "the floor falls from one update to the next in that share of them"
    )
    return Result(rows, _joined(walks), drawn, [note])


def _falls(walk: xr.Dataset) -> float:
    """How often the floor is lower than at the update before."""
    floors = walk["floor"].values
    return float((np.diff(floors) < 0).mean()) if len(floors) > 1 else np.nan


def mean_and_interval(values: Any) -> str:
    """A mean, with its 95 % bootstrap interval where there are several values.

    Example:
        >>> mean_and_interval([2.0]), mean_and_interval([1.0, 1.0, 1.0])
        ('2', '1 (1 to 1)')
    """
    values = np.asarray(values, float)
    if not len(values):
        return "-"
    if len(values) == 1:
        return f"{values[0]:.4g}"
    random = np.random.default_rng(0)
    means = random.choice(values, (2000, len(values))).mean(axis=1)
    low, high = np.percentile(means, [2.5, 97.5])
    return f"{values.mean():.4g} ({low:.3g} to {high:.3g})"


def _joined(walks: dict[str, list[xr.Dataset]]) -> xr.Dataset:
    """Walks of several networks and seeds as one data set."""
    joined = {}
    for name, found in walks.items():
        both = xr.concat(found, "seed", combine_attrs="drop_conflicts")
        both = both.rename({"step": f"{name}_step"})
        joined.update({f"{name}_{k}": both[k] for k in both.data_vars})
    return xr.Dataset(joined)


ITEMS: dict[str, Callable[[Lab], Result]] = {
    "fig1": fig1,
    "fig2": fig2,
    "table1": table1,
    "table2": table2,
}
