"""Eq. 1 and the bounds: is the last layer's gradient the largest, and how large?"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import xarray as xr
from matplotlib.figure import Figure

from experiments.harness.paper import Result
from experiments.harness.statistics import mean_and_interval
from experiments.lipschitz_rate.curves import beside
from experiments.lipschitz_rate.lab import Lab
from experiments.lipschitz_rate.networks import Network
from lrscape import layers, training, transforms
from lrscape.figures.style import CYCLE, tidy
from lrscape.training.device_data import DeviceData
from lrscape.training.step import penultimate
from lrscape.transforms import activation_norms, lipschitz_constant

TASKS = ("variants", "cifar10")
FORMS = [(form, norm) for form in ("paper", "bound") for norm in ("frobenius", "max")]
BATCHES = ("data", "one class", "one class, labelled wrongly")


def keep_norms() -> optax.GradientTransformationExtraArgs:
    """Keeps the norms that an update is handed."""

    def init(params):
        del params
        return {"seen_norm": jnp.zeros([]), "seen_max": jnp.zeros([])}

    def update(updates, state, params=None, **extra):
        del params, state
        return updates, {
            "seen_norm": extra["activation_norm"], "seen_max": extra["activation_max"]
        }  # fmt: skip

    return optax.GradientTransformationExtraArgs(init, update)


def largest_entries(gradient: Any, num_classes: int) -> tuple[float, float]:
    """The largest entry by magnitude: of the last layer's weights, of all others'.

    Biases and batch norm are no weights w_ij.
    """
    found: dict[str, Any] = {"last": 0.0, "other": 0.0}
    pairs = zip(
        jax.tree.leaves(gradient), jax.tree.leaves(layers.roles(gradient)), strict=True
    )
    leaves = [
        array for array, leaf in pairs if leaf.is_weight or leaf.role == "unknown"
    ]
    last = [i for i, leaf in enumerate(leaves) if leaf.shape[1:] == (num_classes,)]
    for i, leaf in enumerate(leaves):
        kind = "last" if i == last[-1] else "other"
        found[kind] = np.maximum(found[kind], jnp.abs(leaf).max())  # keeps NaN
    return float(found["last"]), float(found["other"])


def constants(network: Network, frobenius: float, largest: float) -> dict[str, float]:
    """The Lipschitz constant without weight decay, by form and reading of K_z."""
    return {
        f"{form}, {norm}": float(
            lipschitz_constant(
                frobenius if norm == "frobenius" else largest,
                num_classes=network.data.num_classes,
                batch_size=network.config.batch_size, form=form, norm=norm,
            )
        )
        for form, norm in FORMS
    }  # fmt: skip


def steps_of(lab: Lab, task: str, seed: int) -> dict[str, Any]:
    """Over the first updates of an adaptive run: gradients, and the constants.

    K_z comes for nothing here, whatever feeds the preset's own runs.
    """
    network = lab.network(task, lab.free(task), seed)
    count = min(
        lab.plans[task].premise, network.config.total_steps(network.data)
    )  # fmt: skip

    def make() -> dict[str, Any]:
        tx = optax.with_extra_args_support(
            optax.chain(transforms.keep_gradient(), keep_norms(), network.tx)
        )
        start = training.initial_state(
            network.model, network.data, tx, network.config.seed
        )
        found: dict[str, list[float]] = {"last": [], "other": []}
        states = training.fit(
            network.model, network.data, tx, network.config, state=start
        )
        for state in _while_finite(states):
            gradient = optax.tree.get(state.opt_state, "gradient")
            last, other = largest_entries(gradient, network.data.num_classes)
            found["last"].append(last)
            found["other"].append(other)
            norms = [
                float(optax.tree.get(state.opt_state, name))
                for name in ("seen_norm", "seen_max")
            ]
            for name, value in constants(network, *norms).items():
                found.setdefault(name, []).append(value)
            if int(state.step) == count:
                break
        return {"updates": len(found["last"]), **found}

    return network.numbers(f"premise-{count}", make)


def _while_finite(
    states: Iterator[training.TrainState],
) -> Iterator[training.TrainState]:
    """The states up to one whose loss is not finite."""
    with contextlib.suppress(training.NonFiniteLossError):
        yield from states


def adversarial_of(lab: Lab, task: str, seed: int) -> dict[str, Any]:
    """The last layer's largest gradient over the constants, batch by batch.

    In inference mode, on the weights before the first and after the last epoch that
    were kept.
    """
    network = lab.network(task, lab.adaptive(task), seed)

    def make() -> dict[str, Any]:
        kept, found = network.epochs_kept(), dict[str, float]()
        for epoch in (kept[0], kept[-1]):
            for kind, (images, labels) in _batches(network).items():
                gradient, norm, largest = _last_gradient(
                    network.model, network.at(epoch).variables, images, labels
                )
                for form, constant in constants(network, norm, largest).items():
                    key = f"{kind}: {form}"
                    share = float(_ratios([gradient], [constant])[0])
                    found[key] = float(np.maximum(found.get(key, 0.0), share))
        return found

    return network.numbers("adversarial", make)


def _batches(network: Network) -> dict[str, tuple[jax.Array, jax.Array]]:
    """A batch of each kind, normalised; a class that is too small is repeated."""
    data, count = network.data, network.config.batch_size
    placed = DeviceData.of(data, "train", network.config.normalize)
    of_one = np.flatnonzero(placed.label == 0)
    chosen = {"data": np.arange(count), "one class": np.resize(of_one, count)}
    found = {}
    for kind, indices in chosen.items():
        images = placed.normalize(jnp.asarray(placed.image[indices]))
        found[kind] = (images, jnp.asarray(placed.label[indices]))
    images, labels = found["one class"]
    found["one class, labelled wrongly"] = (images, labels + 1)
    return found


def _last_gradient(model, variables, images, labels) -> tuple[float, float, float]:
    """The last layer's largest gradient, and both norms of what enters it."""

    @jax.jit
    def run(variables):
        logits, sown = model.apply(
            variables, images, train=False, mutable=["intermediates"]
        )
        features = penultimate(sown["intermediates"])
        assert features is not None
        wrong = jax.nn.softmax(logits) - jax.nn.one_hot(labels, logits.shape[-1])
        gradient = features.T @ wrong / len(labels)
        return jnp.abs(gradient).max(), activation_norms(features)

    gradient, norms = run(variables)
    return float(gradient), float(norms["activation_norm"]), float(
        norms["activation_max"]
    )  # fmt: skip


def share_of(steps: dict[str, Any]) -> float:
    """The share of updates whose largest gradient is the last layer's."""
    return float(np.mean(np.array(steps["last"]) >= np.array(steps["other"])))


def ratio_of(steps: dict[str, Any], form: str) -> float:
    """The largest of the last layer's gradients over the constant."""
    return float(np.max(_ratios(steps["last"], steps[form])))


def _ratios(gradients, constants_) -> np.ndarray:
    """Gradients over constants; 0 where no activation makes both of them zero."""
    gradients, constants_ = np.asarray(gradients, float), np.asarray(constants_, float)
    nothing = (gradients == 0) & (constants_ == 0)
    with np.errstate(divide="ignore"):
        return gradients / np.where(nothing, 1.0, constants_)


def eq1(lab: Lab) -> Result:
    """Eq. 1: is the last layer's gradient the largest, and below the constants?"""
    rows, variables, drawn = [], {}, {}
    for task in TASKS:
        seeds = range(lab.plans[task].seeds)
        steps = [steps_of(lab, task, seed) for seed in seeds]
        hostile = [adversarial_of(lab, task, seed) for seed in seeds]
        what = f"{lab.plans[task].model}, {lab.dataset_of(task)}"
        ratios = [
            np.median(_ratios(s["last"], s["other"])) for s in steps
        ]  # fmt: skip
        shares = [share_of(s) for s in steps]
        rows.append(
            {
                "network": what,
                "of": f"{steps[0]['updates']} updates",
                "measured": "share whose largest gradient is the last layer's",
                "value": mean_and_interval(shares),
                "paper": "1",
            }
        )
        rows.append(
            {
                "network": what,
                "of": f"{steps[0]['updates']} updates",
                "measured": "last layer's largest / other layers', median",
                "value": mean_and_interval(ratios),
                "paper": "above 1",
            }
        )
        for form, norm in FORMS:
            name = f"{form}, {norm}"
            over = {"updates": [ratio_of(s, name) for s in steps]}
            for kind in BATCHES:
                over[kind] = [h[f"{kind}: {name}"] for h in hostile]
            for kind, values in over.items():
                rows.append(
                    {
                        "network": what,
                        "of": kind if kind == "updates" else f"a batch, {kind}",
                        "measured": f"largest gradient / constant ({name})",
                        "value": mean_and_interval(values),
                        "paper": "at most 1",
                    }
                )
        for name in ("last", "other", *(f"{form}, {norm}" for form, norm in FORMS)):
            label = f"{task}_{name}".replace(", ", "_")
            each = itertools.zip_longest(*(s[name] for s in steps), fillvalue=np.nan)
            variables[label] = (
                (f"{task}_step", f"{task}_seed"), list(each),
                {"units": "nat"},
            )  # fmt: skip
        drawn[task] = _figure(steps[0], what)
    notes = [
        (
            "entries by magnitude, of weights alone; updates are the adaptive run's "
            "first, as trained (batch norm in train mode, dropout on); batches on "
            "their own are measured in inference mode before and after training, the "
            "larger ratio shown"
        ),
        (
            "K_z as the Frobenius norm of a batch's activations, or as the largest "
            "one; without weight decay"
        ),
    ]
    return Result(rows, xr.Dataset(variables), drawn, notes)


def _figure(steps: dict[str, Any], title: str) -> Figure:
    figure = Figure(figsize=(8.4, 4), layout="constrained")
    axes = figure.subplots()
    updates = np.arange(1, steps["updates"] + 1)
    axes.plot(updates, steps["last"], color=CYCLE[0], label="last layer")
    axes.plot(updates, steps["other"], color=CYCLE[1], label="all other layers")
    for (form, norm), style in zip(FORMS, ("-", "--", "-.", ":"), strict=True):
        name = f"{form}, {norm}"
        axes.plot(updates, steps[name], style, color="#888888", label=f"K: {name}")
    axes.set_yscale("log")
    axes.set_xlabel("update")
    axes.set_ylabel("largest gradient of a weight")
    beside(axes, 2 + len(FORMS))
    axes.set_title(title)
    tidy(axes)
    return figure
