"""Figures 5, 25 and 26: isotropic noise on full-batch descent, and what frees it."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
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
from experiments.walk_with_sgd.lab import Lab
from experiments.walk_with_sgd.networks import Network, Sample
from experiments.walk_with_sgd.presets import Plan
from experiments.walk_with_sgd.result import joined
from lrscape.figures.style import CYCLE, tidy
from lrscape.landscape import tree
from lrscape.landscape.accumulate import mean_loss
from lrscape.landscape.noise import gradient_variance
from lrscape.training.checkpoint import load_tree, save_tree

# Losses are measured so many times in a run.
MEASURED = 50

# Norms of the final weights, Sec. 4. The text calls 0.028 and 0.014 the noise's
# variances; the authors' code hands them on as deviations, and so they fit: at rate 0.1
# a deviation of 0.028 takes VGG-11's 9.8 million weights 443 away from the start in
# 2,600 updates, a variance of 0.028 in 70.
NORMS = {
    "vgg11": {"GD": 87, "SGD": 82, "deviation 0.1": 443, "deviation 0.05": 369}
}  # fmt: skip
LARGEST = {"vgg11": 0.28}


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
    r"""The gradient's variance at the initial weights, from that of mini-batches.

    Eq. 2 has a batch's gradient vary by :math:`C / B`: the diagonal of C, which is a
    single example's, is the variance of gradients of batches times their size B, as
    the authors' code has it.

    Returns:
        ``largest``: the largest entry on C's diagonal, 0.28 in the paper for VGG-11;
        ``batch_mean``: the mean variance of a coordinate of a batch's gradient, so
        that isotropic noise of that variance has the total variance of SGD's.
    """
    size = network.config.batch_size
    # On ten batches at the least, where there are as many.
    count = max(objective.num_examples, 10 * size)
    batches = network.training_objective(min(count, network.num_examples), size)
    variance = gradient_variance(batches, network.initial_params())
    leaves = jax.tree.leaves(variance)
    flat = np.concatenate([np.asarray(leaf, np.float64).ravel() for leaf in leaves])
    return {"largest": float(size * flat.max()), "batch_mean": float(flat.mean())}


def stuck(plan: Plan) -> str:
    """The arm from which others go on: the most noise, as the authors' code has it."""
    return f"deviation {plan.shares[0]:g}"


def arms_of(
    scales: dict[str, float], rate: float, shares: Sequence[float]
) -> dict[str, Arm]:
    """Descent alone; with noise that is a share of the largest variance; and SGD.

    The text calls that share a variance; the authors' code hands it on as a standard
    deviation, and the norms in the text are of that. `matched` has the total variance
    of SGD's noise.
    """
    arms = {"GD": Arm(0.0, False, rate)}
    for share in shares:
        scale = share * scales["largest"]
        arms[f"variance {share:g}"] = Arm(scale**0.5, False, rate)
        arms[f"deviation {share:g}"] = Arm(scale, False, rate)
    arms["matched"] = Arm(scales["batch_mean"] ** 0.5, False, rate)
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
                objective, batch_size=network.config.batch_size,
                seed=network.config.seed,
            )  # fmt: skip
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
    plan, (rate, _) = lab.plan(model), lab.rates(model)
    updates, more = plan.noise
    network = lab.network(model, rate=rate, seed=seed)
    sample = dataclasses.replace(plan.sample, second=False, redrawn=False)
    scales = network.numbers(
        _scales_name(sample),
        lambda: noise_scales(network, network.objectives(sample)[0]),
    )
    arms = arms_of(scales, rate, plan.shares)
    found = {
        name: run_arm(network, sample, name, arm, updates, None)
        for name, arm in arms.items()
    }
    last, end = arms[stuck(plan)], _end(network, sample, stuck(plan), updates)
    for name, arm in {
        "then a tenth of the rate": dataclasses.replace(last, rate=rate / 10),
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
        title = f"{model} on {lab.dataset_of(model)}"
        drawn[model] = _figure(seeds[0], title, stuck(plan))
        network = lab.network(model, rate=lab.rates(model)[0], seed=0)
        scales = network.numbers(_scales_name(plan.sample), dict)
        paper = f"; paper: {LARGEST[model]:g}" if model in LARGEST else ""
        notes.append(
            f"{model}: the gradient's largest variance at the start, of a single "
            f"example: {scales['largest']:.3g} (that of mini-batch gradients times the "
            f"{network.config.batch_size} examples of a batch{paper}); mean variance "
            f"of a mini-batch gradient: {scales['batch_mean']:.3g} (seed 0)"
        )
    notes += [
        ("variance, deviation: the noise's, as a share of that largest variance; the "
         "text calls it a variance, the authors' code takes it for a deviation, and "
         "the paper's norms are of that; matched: the total variance of SGD's; then: "
         "on from where the largest deviation ended, the first with the noise and the "
         "others without"),
        ("all see the same examples, not augmented; losses and errors with batch norm "
         "in train mode; the cosine is that of consecutive moves, noise and all"),
    ]  # fmt: skip
    return Result(rows, joined(_both_axes(every)), drawn, notes)


def _scales_name(sample: Sample) -> str:
    return f"noise-of-an-example-{sample.examples or 'all'}"


def _both_axes(every):
    """`joined` renames one axis; the other has the same length in all arms."""
    return {
        name: [one.rename({"measured": f"{name}_measured"}) for one in found]
        for name, found in every.items()
    }


def _figure(descents: dict[str, xr.Dataset], title: str, stuck_at: str) -> Figure:
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
    end = int(descents[stuck_at]["step"][-1])
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
