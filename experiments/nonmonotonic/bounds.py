"""Eq. 13 and 15 and Lemma 1: what the paper's theory says, measured."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from scipy import stats

from experiments.harness.paper import Result
from experiments.harness.statistics import mean_and_interval
from experiments.nonmonotonic import lines
from experiments.nonmonotonic.lab import Lab
from experiments.nonmonotonic.networks import GRADIENT_CHUNK, PEAK, Network
from lrscape import landscape, layers
from lrscape.figures.style import CYCLE, tidy
from lrscape.landscape import masks, tree
from lrscape.landscape.inputs import equivalent_weight_perturbation, noise_moves
from lrscape.landscape.noise import gradient_variance

TOLERANCE = 1e-2
DESCENT = "full-batch descent"
# Updates a gradient's noise is estimated over.
NOISE_BATCHES = 8
POINTS = 11
# Inputs whose convolution is moved together.
TOGETHER = 4


def curvature_of(lab: Lab, network: Network) -> list[dict[str, float]]:
    """At each kept epoch: the largest eigenvalue, and the last update's rate.

    Of the Hessian of the mean loss over training examples with its L2 term, dropout
    off; over all of them where all of them make up a batch.
    """
    count = min(lab.settings.survey.curvature, len(network.data.train))
    if network.config.batch_size == len(network.data.train):
        count = len(network.data.train)
    history, rows = network.history(), []
    for epoch in network.epochs_kept():

        def make(epoch: int = epoch) -> dict[str, float]:
            found = landscape.top_eigenpairs(
                network.objective(count, l2=network.config.weight_decay,
                                  batch_size=GRADIENT_CHUNK),
                network.at(epoch).params, 1, key=jax.random.key(0),
                tolerance=TOLERANCE,
            )  # fmt: skip
            return {
                "largest": float(found.eigenvalues[0]),
                "residual": float(found.residuals[0]),
            }

        found = network.numbers(f"curvature-{count}-epoch_{epoch}", make)
        rows.append({"epoch": epoch, "rate": history[epoch].get("rate", np.nan),
                     **found})  # fmt: skip
    return rows


def stability_of(rows: list[dict[str, float]]) -> np.ndarray:
    """Eq. 13: rate times largest eigenvalue over 2; above 1 descent is unstable."""
    return np.array([row["rate"] * row["largest"] / 2 for row in rows])


def descents_of(lab: Lab) -> list[list[dict[str, float]]]:
    """`curvature_of` runs of full-batch gradient descent without momentum."""
    networks = lab.all_of("descent", lab.rule("descent", "constant"))
    return [curvature_of(lab, network) for network in networks]


def eq13(lab: Lab) -> Result:
    """Eq. 13: the largest eigenvalue times the rate over 2, during training."""
    found = {
        f"{name}, SGD": [
            curvature_of(lab, network)
            for network in lab.all_of("small", lab.rule("small", name))
        ]
        for name in ("gaussian", "step")
    }
    found[DESCENT] = descents_of(lab)
    limits = dict.fromkeys(found, 1 + lab.plans["small"].momentum)
    limits[DESCENT] = 1.0
    rows, variables = [], {}
    for name, seeds in found.items():
        for epoch in [row["epoch"] for row in max(seeds, key=len)]:
            at = [row for one in seeds for row in one if row["epoch"] == epoch]
            rows.append(
                {
                    "rule": name,
                    "epoch": int(epoch),
                    "rate": f"{at[0]['rate']:.3g}",
                    "largest eigenvalue": mean_and_interval([r["largest"] for r in at]),
                    "rate x eigenvalue / 2": mean_and_interval(stability_of(at)),
                    "limit": f"{limits[name]:g}",
                    "above it in": f"{(stability_of(at) > limits[name]).sum()} of "
                    f"{len(at)}",
                }
            )
        label = name.replace(", ", "_").replace(" ", "_").replace("-", "_")
        epochs = [row["epoch"] for row in max(seeds, key=len)]
        for part in ("largest", "rate"):
            values = np.full((len(seeds), len(epochs)), np.nan)
            for filled, one in zip(values, seeds, strict=True):
                filled[: len(one)] = [row[part] for row in one]
            variables[f"{label}_{part}"] = (
                (f"{label}_seed", f"{label}_epoch"), values,
                {"units": "nat" if part == "largest" else "1"},
            )  # fmt: skip
    plan, survey = lab.plans["small"], lab.settings.survey
    notes = [
        (
            f"{plan.model} on {lab.dataset_of('small')}, the Hessian of the mean loss "
            f"with its L2 term over {lab.sampled('small', survey.curvature)} training "
            f"examples (descent: all {lab.sampled('descent', 10**9)}), dropout off, no "
            "batch norm; a decay of the dense layer's own is left out"
        ),
        (
            f"the paper's limit is 1; SGD here has a momentum of {plan.momentum:g}, "
            f"with which a quadratic stays stable up to {1 + plan.momentum:g}"
        ),
        (
            "the rate is that of the epoch's last update; descent is at one rate "
            "throughout"
        ),
    ]
    notes += [f"{name}: {n} failed" for name, n in _failures(lab).items() if n]
    return Result(rows, xr.Dataset(variables), {"": _stability(found)}, notes)


def _failures(lab: Lab) -> dict[str, int]:
    tasks = {"gaussian": "small", "step": "small", "constant": "descent"}
    return {
        f"{name}, {task}": sum(
            n.failed() for n in lab.all_of(task, lab.rule(task, name))
        )
        for name, task in tasks.items()
    }


def _stability(found: dict[str, list[list[dict[str, float]]]]) -> Figure:
    figure = Figure(figsize=(6.4, 4), layout="constrained")
    axes = figure.subplots()
    for color, (name, seeds) in zip(CYCLE, found.items(), strict=False):
        for i, rows in enumerate(seeds):
            last = max(row["epoch"] for one in seeds for row in one)
            axes.plot(
                [row["epoch"] / max(last, 1) for row in rows], stability_of(rows), ".-",
                color=color, alpha=0.7, label=name if not i else None,
            )  # fmt: skip
    axes.axhline(1, color="#888888", linestyle="--", label="limit of stability")
    axes.set_yscale("log")
    axes.set_xlabel("share of the run")
    axes.set_ylabel(r"$\gamma\,\lambda_{max} / 2$")
    axes.legend(frameon=False, fontsize="small")
    tidy(axes)
    return figure


def slopes_of(lab: Lab, network: Network) -> dict[str, Any]:
    """Eq. 15: gradients on the segment from start to end, on the way, and the bound."""
    count = min(lab.settings.survey.examples, len(network.data.train))

    def make() -> dict[str, Any]:
        objective = network.objective(count, batch_size=GRADIENT_CHUNK)
        start, end = network.at("initial").params, network.final.params
        way = landscape.line(start, end)
        along = np.linspace(0, 1, POINTS)
        segment = [
            float(tree.norm(landscape.loss_gradient(objective, way(jnp.float32(a)))))
            for a in along
        ]
        distance = float(tree.norm(tree.subtract(end, start)))
        fall = abs(float(objective(start)) - float(objective(end)))
        epochs = network.epochs_kept()
        trajectory, variances = [], []
        noisy = network.objective(count, batch_size=max(1, count // NOISE_BATCHES))
        for epoch in epochs:
            point = network.at(epoch).params
            trajectory.append(
                float(tree.norm(landscape.loss_gradient(objective, point)))
            )
            spread = gradient_variance(noisy, point)
            variances.append(sum(float(v.sum()) for v in jax.tree.leaves(spread)))
        peak = network.at(PEAK).params
        climb = abs(float(objective(peak)) - float(objective(end)))
        away = float(tree.norm(tree.subtract(peak, end)))
        return {
            "losses": fall / climb if climb else np.inf,
            "distances": distance / away,
            "bound": fall / distance, "distance": distance, "fall": fall,
            "along": along.tolist(), "segment": segment, "epochs": epochs,
            "trajectory": trajectory, "variance": variances,
        }  # fmt: skip

    return network.numbers(f"slopes-{count}", make)


def early_norms(lab: Lab, network: Network) -> tuple[np.ndarray, np.ndarray, int]:
    """The full gradient's norm on the way: before the peak often, then by epoch.

    Returns:
        (points,) updates made, (points,) norms in nats, and the updates at the peak.
    """
    count = min(lab.settings.survey.examples, len(network.data.train))
    peak = network.at(PEAK).step

    def make() -> dict[str, list[float]]:
        objective = network.objective(count, batch_size=GRADIENT_CHUNK)
        points = {}
        for name in network.snapshots:
            snapshot = network.snapshots[name]
            points[snapshot.step] = snapshot.params
        norms = {
            step: float(tree.norm(landscape.loss_gradient(objective, params)))
            for step, params in sorted(points.items())
        }
        return {"steps": list(norms), "norms": list(norms.values())}

    found = network.numbers(f"early-{count}", make)
    return np.array(found["steps"]), np.array(found["norms"]), peak


def eq15(lab: Lab) -> Result:
    """Eq. 14, 15: the bound on the largest gradient, on the segment and on the way."""
    rows, variables = [], {}
    drawn = {}
    for name in ("gaussian", "step"):
        found = [slopes_of(lab, n) for n in lines.compared(lab)[name]]
        drawn[name] = found
        bound = np.array([one["bound"] for one in found])
        segment = np.array([max(one["segment"]) for one in found])
        way = np.array([max(one["trajectory"]) for one in found])
        rows.append(
            {
                "rule": name,
                "Eq. 14, losses": mean_and_interval([one["losses"] for one in found]),
                ">> distances": mean_and_interval([one["distances"] for one in found]),
                "bound (Eq. 15)": mean_and_interval(bound),
                "largest on the segment": mean_and_interval(segment),
                "over the bound": mean_and_interval(segment / bound),
                "largest on the way": mean_and_interval(way),
                "way over the bound": mean_and_interval(way / bound),
                "largest at epoch": mean_and_interval(
                    [one["epochs"][int(np.argmax(one["trajectory"]))] for one in found]
                ),
                "rank correlation with the noise": mean_and_interval(
                    [
                        stats.spearmanr(one["trajectory"], one["variance"]).statistic
                        for one in found
                    ]
                ),
            }
        )
        for part, axis in (("segment", "along"), ("trajectory", "epochs"),
                           ("variance", "epochs")):  # fmt: skip
            variables[f"{name}_{part}"] = (
                ("seed", axis), np.array([one[part] for one in found]),
                {"units": "nat^2" if part == "variance" else "nat"},
            )  # fmt: skip
    first = drawn["gaussian"][0]
    dataset = xr.Dataset(
        variables, {"along": first["along"], "epochs": first["epochs"]}
    )
    notes = [
        (
            "Eq. 14 compares how far the first and the peak's weights lie above and "
            "away from the last ones; the paper's peak is the local maximum nearest "
            "to them, here it is where the Gaussian's rate is largest"
        ),
        (
            "the bound, a mean slope, is about the segment from the first to the last "
            f"weights, of which {POINTS} points are looked at; on the way only kept "
            "epochs are, so its largest gradient may have been larger"
        ),
        (
            "norms of the gradient of the mean loss over "
            f"{lab.sampled('small', lab.settings.survey.examples)} training examples; "
            "noise: the variance "
            f"among {NOISE_BATCHES} batches of them, summed over weights"
        ),
    ]
    return Result(rows, dataset, {"": _slopes(drawn)}, notes)


def _slopes(drawn: dict[str, list[dict[str, Any]]]) -> Figure:
    figure = Figure(figsize=(9.6, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    for color, (name, found) in zip(CYCLE, drawn.items(), strict=False):
        for i, one in enumerate(found):
            label = name if not i else None
            left.plot(one["along"], one["segment"], color=color, label=label)
            left.axhline(one["bound"], color=color, linestyle=":", linewidth=0.8)
            right.plot(one["epochs"], one["trajectory"], ".-", color=color, label=label)
    left.set_xlabel("share of the segment from first to last weights")
    left.set_ylabel("gradient's norm (nat); dotted: the bound")
    right.set_xlabel("epoch")
    right.xaxis.set_major_locator(MaxNLocator(integer=True))
    for axes in (left, right):
        axes.legend(frameon=False)
        tidy(axes)
    return figure


def draws_of(count: int) -> dict[str, np.ndarray]:
    """Lemma 1 and Prop. 1 on random dense layers, in double precision.

    Returns:
        ``residual`` (count,) relative to the response, and ``ratio`` (count,) of
        ||dW|| over its bound sigma_max(W) ||dx|| / ||x||.
    """
    random = np.random.default_rng(0)
    residual, ratio = np.empty(count), np.empty(count)
    with jax.enable_x64(True):
        move = jax.jit(lambda w, x, dx: equivalent_weight_perturbation(w, x, dx).kernel)
        for i in range(count):
            weights = random.normal(size=(12, 7)) * 10 ** random.uniform(-3, 3)
            x = random.normal(size=12) * 10 ** random.uniform(-3, 3)
            dx = random.normal(size=12) * 10 ** random.uniform(-3, 3)
            change = np.asarray(move(weights, x, dx))
            response = dx @ weights
            residual[i] = np.linalg.norm(x @ change - response) / np.linalg.norm(
                response
            )
            bound = np.linalg.norm(weights, 2) * np.linalg.norm(dx) / np.linalg.norm(x)
            ratio[i] = np.linalg.norm(change) / bound
    return {"residual": residual, "ratio": ratio}


def first_layer_of(network: Network) -> dict[str, float]:
    """The least-squares residual of the first layer, over one image and over several.

    A convolution's weights are shared among places, so that no exact move exists.
    """

    def make() -> dict[str, float]:
        images, _ = network.examples("train", TOGETHER)
        moves = noise_moves(jax.random.key(0), images)[0]
        params = network.final.params
        is_first = masks.first_layer(network.model, images[:1])
        kernel = next(
            leaf
            for read, leaf in zip(
                jax.tree.leaves(layers.roles(params)),
                jax.tree.leaves(params),
                strict=True,
            )
            if is_first(read.path) and read.role == "kernel"
        )
        if kernel.ndim == 2:
            images, moves = (x.reshape(len(x), -1) for x in (images, moves))
        found = [
            equivalent_weight_perturbation(kernel, images[:n], moves[:n])
            for n in (1, TOGETHER)
        ]
        return {"one": float(found[0].residual), "together": float(found[1].residual)}

    return network.numbers("first-layer", make)


def lemma1(lab: Lab) -> Result:
    """Lemma 1, Prop. 1: a moved input as moved weights, dense and convolutional."""
    found = draws_of(lab.settings.draws)
    networks = lab.all_of("small", lab.rule("small", "gaussian"))
    shared = [first_layer_of(n) for n in networks if not n.failed()]
    rows = [
        {
            "layer": "dense, random, float64",
            "measured": "largest relative residual",
            "value": f"{found['residual'].max():.2g}",
            "paper": "0",
        },
        {
            "layer": "dense, random, float64",
            "measured": "largest ||dW|| over Prop. 1's bound",
            "value": f"{found['ratio'].max():.6f}",
            "paper": "at most 1",
        },
        {
            "layer": f"{lab.plans['small'].model}'s first layer, one image",
            "measured": "least-squares residual",
            "value": mean_and_interval([one["one"] for one in shared]),
            "paper": "-",
        },
        {
            "layer": f"the same, {TOGETHER} images together",
            "measured": "least-squares residual",
            "value": mean_and_interval([one["together"] for one in shared]),
            "paper": "-",
        },
    ]
    notes = [
        (f"{lab.settings.draws} draws of a 12 x 7 layer, an input and its move, over "
        "six orders of magnitude each"),
        ("residuals are shares of the response to the input's move; of a convolution, "
        "whose weights are shared among places, an exact move does not exist; moves "
        "are random noise"),
    ]  # fmt: skip
    dataset = xr.Dataset(
        {name: (("draw",), values, {"units": "1"}) for name, values in found.items()}
    )
    return Result(rows, dataset, {}, notes)
