"""Figures 5, 25 and 26: isotropic noise on full-batch descent, and what frees it."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import xarray as xr
from matplotlib.figure import Figure
from tqdm import tqdm

from experiments.harness.paper import Result
from experiments.harness.statistics import mean_and_interval
from experiments.walk_with_sgd.descent import descend, minibatch_gradient
from experiments.walk_with_sgd.networks import Network, Sample
from experiments.walk_with_sgd.result import joined
from experiments.walk_with_sgd.settings import BATCH_SIZE, RATES, Lab
from lrscape.figures.style import CYCLE, tidy
from lrscape.landscape import tree
from lrscape.landscape.accumulate import mean_loss
from lrscape.landscape.noise import gradient_variance
from lrscape.training.checkpoint import load_tree, save_tree

# Shares of the largest coordinate of the gradient's variance at the start.
SHARES = (0.1, 0.05)
STUCK = f"variance {SHARES[0]:g}"
# Losses are measured so many times in a run.
MEASURED = 50

# Norms of the final weights, Sec. 4; the noise's variances were 0.028 and 0.014.
NORMS = {"vgg11": {"GD": 87, "SGD": 82, STUCK: 443, f"variance {SHARES[1]:g}": 369}}


@dataclasses.dataclass(frozen=True)
class Arm:
    """One way to go down.

    Attributes:
        deviation: the noise's standard deviation, in each coordinate.
        stochastic: whether gradients are of mini-batches, rather than of all examples.
        rate: the learning rate.
    """

    deviation: float
    stochastic: bool
    rate: float


def noise_scales(network: Network, objective: Any) -> dict[str, float]:
    """The variance of mini-batch gradients at the initial weights.

    Returns:
        ``largest``: of a coordinate; ``mean``: over all coordinates, so that isotropic
        noise of that variance has the total variance of SGD's.
    """
    # On ten batches at the least, where there are as many.
    count = max(objective.num_examples, 10 * BATCH_SIZE)
    batches = network.training_objective(min(count, network.num_examples), BATCH_SIZE)
    variance = gradient_variance(batches, network.initial_params())
    leaves = jax.tree.leaves(variance)
    flat = np.concatenate([np.asarray(leaf, np.float64).ravel() for leaf in leaves])
    return {"largest": float(flat.max()), "mean": float(flat.mean())}


def arms_of(scales: dict[str, float], rate: float) -> dict[str, Arm]:
    """Descent alone; with noise whose variance is a share of the largest; and SGD.

    The text calls it a variance; the authors' code hands it on as a standard deviation.
    `matched` has the total variance of SGD's noise.
    """
    arms = {"GD": Arm(0.0, False, rate)}
    for share in SHARES:
        scale = share * scales["largest"]
        arms[f"variance {share:g}"] = Arm(scale**0.5, False, rate)
        arms[f"deviation {share:g}"] = Arm(scale, False, rate)
    arms["matched"] = Arm(scales["mean"] ** 0.5, False, rate)
    arms["SGD"] = Arm(0.0, True, rate)
    return arms


def run_arm(
    network: Network,
    sample: Sample,
    name: str,
    arm: Arm,
    updates: int,
    start: Path | None,
) -> xr.Dataset:
    """Goes down one way, from the initial weights or from where another arm ended."""
    end = _end(network, sample, name, updates if start is None else 0)

    def make() -> xr.Dataset:
        objective, _ = network.objectives(sample)
        first = network.initial_params()
        point = first if start is None else _loaded(start)
        key = jax.random.key(network.config.seed)
        tx = _optimizer(arm, network.config.weight_decay, key if start is None
                        else jax.random.fold_in(key, 1))  # fmt: skip
        gradient = None
        if arm.stochastic:
            gradient = minibatch_gradient(
                objective, batch_size=BATCH_SIZE, seed=network.config.seed
            )
        last, dataset = _descended(
            network, objective, first, point, tx, updates, gradient
        )
        save_tree(end, {"params": last}, {"step": updates})
        return dataset

    settings = {
        **dataclasses.asdict(arm),
        "updates": updates,
        "from": start and start.name,
        "sample": dataclasses.asdict(sample),
    }
    return network.once(end.name, settings, make)


def _end(network: Network, sample: Sample, name: str, updates: int) -> Path:
    """Where the last point of an arm is kept; its name is the result's too."""
    size = f"{sample.examples or 'all'}-{sample.batch_size}-{updates}"
    return network.records.path / "snapshots" / f"noise-{name.replace(' ', '_')}-{size}"


def _optimizer(arm: Arm, weight_decay: float, key: jax.Array) -> Any:
    # Scales are part of the state: all arms with noise share one compiled update.
    @optax.inject_hyperparams
    def make(rate, variance):
        noise = optax.add_noise(eta=variance, gamma=0.0, key=key)
        return optax.chain(
            noise if arm.deviation else optax.identity(),
            optax.add_decayed_weights(weight_decay),
            optax.sgd(rate),
        )

    return make(rate=arm.rate, variance=arm.deviation**2)


def _descended(network, objective, first, point, tx, updates, gradient):
    """Goes down and measures; the last point, and what was measured."""
    held_out = network.validation(objective.counts[1], objective.num_examples)
    every = max(1, updates // MEASURED)
    angles, measured, before, last_move = [], [], point, None
    with tqdm(total=updates, desc="descent", leave=False) as bar:
        steps = descend(objective, point, tx, updates, gradient=gradient)
        for step, place, _ in steps:
            if step:
                move, size, away = _facts(before, place, first)
                cosine = np.nan if last_move is None else _cosine(last_move, move)
                angles.append((step, float(cosine), float(size), float(away)))
                before, last_move = place, move
            if step % every == 0 or step == updates:
                loss = float(mean_loss(objective, place))
                error = float(mean_loss(held_out, place)["error"])
                measured.append((step, loss, error))
            bar.update(step - bar.n)
    times, cosines, norms, distances = map(np.array, zip(*angles, strict=True))
    at, losses, errors = map(np.array, zip(*measured, strict=True))
    return place, xr.Dataset(
        {
            "cosine": ("step", cosines, {"units": "1", "of": "moves"}),
            "norm": ("step", norms, {"units": "1"}),
            "distance": ("step", distances, {"units": "1"}),
            "loss": ("measured", losses, {"units": "nat"}),
            "validation_error": ("measured", errors, {"units": "fraction"}),
        },
        {
            "step": ("step", times, {"units": "update"}),
            "measured": ("measured", at, {"units": "update"}),
        },
    )


_cosine = jax.jit(tree.cosine)


@jax.jit
def _facts(before, point, first):
    move = tree.subtract(point, before)
    return move, tree.norm(point), tree.norm(tree.subtract(point, first))


def _loaded(folder: Path) -> Any:
    return jax.tree.map(jnp.asarray, load_tree(folder)[0]["params"])


def descents_of(lab: Lab, model: str, seed: int) -> dict[str, xr.Dataset]:
    """Every way down from the initial weights, and three on from where noise stuck."""
    (updates, more), rate = lab.plan(model).noise, RATES[model][0]
    network = lab.network(model, rate=rate, seed=seed)
    sample = dataclasses.replace(lab.plan(model).sample, second=False, redrawn=False)
    scales = network.numbers(
        f"noise-scales-{sample.examples or 'all'}",
        lambda: noise_scales(network, network.objectives(sample)[0]),
    )
    arms = arms_of(scales, rate)
    found = {
        name: run_arm(network, sample, name, arm, updates, None)
        for name, arm in arms.items()
    }
    stuck, end = arms[STUCK], _end(network, sample, STUCK, updates)
    for name, arm in {
        "then a tenth of the rate": dataclasses.replace(stuck, rate=rate / 10),
        "then GD": arms["GD"],
        "then SGD": arms["SGD"],
    }.items():
        found[name] = run_arm(network, sample, name, arm, more, end)
    return found


def final_loss(descent: xr.Dataset) -> float:
    """The loss over the sample at the end."""
    return float(descent["loss"][-1])


def fig5(lab: Lab) -> Result:
    """Full-batch descent with isotropic noise; and what frees a run that it stuck."""
    rows, drawn, every = [], {}, {}
    notes = []
    for model in lab.models_of("fig5"):
        plan = lab.plan(model)
        seeds = [descents_of(lab, model, seed) for seed in range(plan.seeds)]
        for name in seeds[0]:
            found = [descents[name] for descents in seeds]
            every[f"{model}-{name.replace(' ', '_')}"] = found
            rows.append({
                "network": model,
                "data": lab.dataset_of(model),
                "noise": name,
                "updates": len(found[0]["step"]),
                "loss": mean_and_interval([final_loss(d) for d in found]),
                "validation error": mean_and_interval(
                    [float(d["validation_error"][-1]) for d in found]
                ),
                "cosine": mean_and_interval([float(d["cosine"].mean()) for d in found]),
                "norm": mean_and_interval([float(d["norm"][-1]) for d in found]),
                "paper's norm": NORMS.get(model, {}).get(name, "-"),
                "distance": mean_and_interval(
                    [float(d["distance"][-1]) for d in found]
                ),
            })  # fmt: skip
        drawn[model] = _figure(seeds[0], f"{model} on {lab.dataset_of(model)}")
        network = lab.network(model, rate=RATES[model][0], seed=0)
        scales = network.numbers(f"noise-scales-{plan.sample.examples or 'all'}", dict)
        notes.append(
            f"{model}: variance of a mini-batch gradient at the start, largest "
            f"coordinate {scales['largest']:.3g}, mean {scales['mean']:.3g} (seed 0)"
            + (" (paper: 0.28)" if model == "vgg11" else "")
        )
    notes += [
        ("variance, deviation: the noise's, as a share of that largest variance; "
         "matched: the total variance of SGD's; then: on from where variance "
         f"{SHARES[0]:g} ended, the first with the noise and the others without"),
        ("all see the same examples, not augmented; losses and errors with batch norm "
         "in train mode; the cosine is that of consecutive moves, noise and all"),
    ]  # fmt: skip
    return Result(rows, joined(_both_axes(every)), drawn, notes)


def _both_axes(every):
    """`joined` renames one axis; the other has the same length in all arms."""
    return {
        name: [one.rename({"measured": f"{name}_measured"}) for one in found]
        for name, found in every.items()
    }


def _figure(descents: dict[str, xr.Dataset], title: str) -> Figure:
    figure = Figure(figsize=(10, 6.5), layout="constrained")
    panels = figure.subplots(2, 2)
    shown = {k: v for k, v in descents.items() if not k.startswith("then")}
    freed = {k: v for k, v in descents.items() if k.startswith("then")}
    for i, (name, descent) in enumerate(shown.items()):
        color = [*CYCLE, "#999999"][i % 7]
        x, steps = descent["measured"].values, descent["step"].values
        panels[0, 0].plot(x, descent["loss"], color=color, label=name)
        accuracy = 100 - 100 * descent["validation_error"]
        panels[0, 1].plot(x, accuracy, color=color)
        panels[1, 0].plot(steps, descent["cosine"], color=color, linewidth=0.8)
        panels[1, 1].plot(steps, descent["distance"], color=color)
    end = int(descents[STUCK]["step"][-1])
    for (name, descent), style in zip(freed.items(), (":", "--", "-."), strict=True):
        x = end + descent["measured"].values
        panels[0, 0].plot(x, descent["loss"], style, color="#333333", label=name)
        accuracy = 100 - 100 * descent["validation_error"]
        panels[0, 1].plot(x, accuracy, style, color="#333333")
    panels[0, 0].set_yscale("log")
    panels[1, 1].set_yscale("log")
    for axes, label in zip(
        panels.ravel(),
        ("loss (nats)", "validation accuracy (%)", "cosine of moves",
         "distance (weights)"),
        strict=True,
    ):  # fmt: skip
        axes.set_ylabel(label)
        axes.set_xlabel("update")
        tidy(axes)
    figure.legend(
        *panels[0, 0].get_legend_handles_labels(), loc="outside right upper",
        frameon=False, fontsize=8,
    )  # fmt: skip
    figure.suptitle(f"isotropic noise on full-batch descent: {title}, seed 0")
    return figure
