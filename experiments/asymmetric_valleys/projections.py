"""Figures 7 and 9: the loss along a direction over epochs, and where averages lie."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr
from matplotlib.figure import Figure

from experiments.asymmetric_valleys.directions import (
    are_asymmetric,
    best_of,
    direction_of,
    either_way,
    gradient_norm,
    profile_along,
    read,
    what_is_missing,
)
from experiments.asymmetric_valleys.drawing import panels
from experiments.asymmetric_valleys.lab import Lab
from experiments.asymmetric_valleys.lines import chosen
from experiments.asymmetric_valleys.networks import AVERAGE
from experiments.asymmetric_valleys.presets import AFTER, SGD, SWA, Pair
from experiments.harness.paper import Result
from experiments.harness.statistics import mean_and_interval
from lrscape import landscape
from lrscape.figures.style import CYCLE, DARK, tidy
from lrscape.landscape import tree

Row = dict[str, Any]
# Directions that are drawn.
DRAWN = 3
# Figure 9's directions. Of the first, draws are independent: their cosines are near 0.
# The others' draws share most of a direction, that of ones or v = unit(SWA - SGD).
KINDS = {"signed": "u, signs drawn anew", "u": "u", "sum": "unit(u + v)"}
ONE_A_SEED = ("u", "sum")


def epochs_of(lab: Lab, pair: Pair, seed: int) -> Row:
    """The training loss along SGD's most asymmetric direction, epoch by epoch.

    Returns:
        ``epochs``, ``distances`` and ``losses`` (epochs, distances).
    """
    network, survey = lab.network(pair, SGD, seed), lab.survey
    epochs = [*network.config.snapshot_epochs, network.config.epochs]

    def make() -> Row:
        ((direction, _),) = best_of(lab, network, 1)
        objective = lab.objective(network, "train")
        reach = np.linspace(-survey.r, survey.r, 2 * survey.curve + 1)
        losses = [
            landscape.evaluate(
                objective, landscape.ray(network.at(e).params, direction),
                reach,
            )["loss"].tolist()
            for e in epochs
        ]  # fmt: skip
        return {"epochs": epochs, "distances": reach.tolist(), "losses": losses}

    name = f"epochs-{len(epochs)}-{survey.r:g}-{survey.curve}-{survey.examples}"
    return network.numbers(name, make)


def changes(losses: np.ndarray) -> np.ndarray:
    """How much a curve changes from one epoch to the next, relatively.

    Args:
        losses: (..., epochs, distances); only their shape counts: each less its middle.

    Returns:
        (..., epochs - 1): the root of the mean square of the change over that of the
        last curve.

    Example:
        >>> changes(np.array([[1.0, 0.0, 1.0], [3.0, 1.0, 3.0]]))
        array([0.5])
    """
    shape = losses - losses[..., losses.shape[-1] // 2, None]
    moved = np.sqrt((np.diff(shape, axis=-2) ** 2).mean(axis=-1))
    return moved / np.sqrt((shape[..., -1, :] ** 2).mean(axis=-1))[..., None]


def fig7(lab: Lab) -> Result:
    """Figure 7: the loss along one direction, from the weights of successive epochs."""
    rows: list[Row] = []
    variables: dict[str, Any] = {}
    drawn: dict[str, Figure] = {}
    for pair in lab.pairs("fig7"):
        model, dataset = pair
        found = [epochs_of(lab, pair, seed) for seed in lab.seeds]
        epochs = np.array(found[0]["epochs"])
        losses = np.array([one["losses"] for one in found])
        change = changes(losses)
        for i, epoch in enumerate(epochs[1:]):
            rows.append(
                {
                    "network": model,
                    "data": dataset,
                    "from epoch": int(epochs[i]),
                    "to": int(epoch),
                    "relative change of the curve": mean_and_interval(change[:, i]),
                    "paper": "stable after the first epochs",
                }
            )  # fmt: skip
        dims = (f"{dataset}_{model}_seed", f"{dataset}_{model}_epoch", "distance")
        variables[f"{dataset}_{model}_loss"] = (dims, losses, {"units": "nat"})
        variables[f"{dataset}_{model}_epochs"] = (dims[1:2], epochs)
        drawn["-".join(pair)] = _figure7(pair, found)
    notes = [*lab.notes("fig7"), "the direction is the final weights' most asymmetric"]
    return Result(rows, xr.Dataset(variables), drawn, notes)


def _figure7(pair: Pair, found: list[Row]) -> Figure:
    from matplotlib import colormaps

    figure, (left, right) = panels(2)
    at, losses = np.array(found[0]["distances"]), np.array(found[0]["losses"])
    epochs = found[0]["epochs"]
    for i, epoch in enumerate(epochs):
        shade = colormaps["viridis"](i / max(1, len(epochs) - 1) * 0.9)
        left.plot(at, losses[i], color=shade, marker=".", label=f"epoch {epoch}")
    left.set_xlabel("distance along the direction (flat side +)")
    left.set_ylabel("training loss (nats)")
    left.set_title("seed 0", fontsize=10)
    left.legend(frameon=False, fontsize=8)
    for color, one in zip(CYCLE, found, strict=False):
        change = changes(np.array(one["losses"]))
        right.plot(epochs[1:], change, color=color, marker=".")
    right.axhline(0.1, color=DARK, linewidth=0.8, linestyle=":")
    right.set_yscale("log")
    right.set_xlabel("epoch")
    right.set_ylabel("relative change since the one before")
    right.set_title("each seed", fontsize=10)
    for axes in (left, right):
        tidy(axes)
    figure.suptitle(f"{pair[0]} on {pair[1]}")
    return figure


def sides_of(lab: Lab, pair: Pair, seed: int) -> Row:
    """The asymmetry of random directions at SGD's solution, and where SWA lies.

    Returns:
        For each of `KINDS` the rows of `directions.read` with ``towards``, the inner
        product of the direction with SWA - SGD; ``distance`` between these.
    """
    survey, after = lab.survey, lab.network(pair, AFTER, seed)
    name, _ = chosen(lab, pair, seed)

    def make() -> Row:
        average = lab.network(pair, SWA, seed).at(AVERAGE).params
        point = after.at(name).params
        way = tree.subtract(average, point)
        v = tree.scale(1 / tree.norm(way), way)
        objective = lab.sloped(after)
        found: Row = {kind: [] for kind in KINDS}
        found["distance"] = float(tree.norm(way))
        reach = np.linspace(-survey.r, survey.r, 2 * survey.curve + 1)
        for index in range(survey.sides):
            u = direction_of("uniform", point, seed, 1000 + index)
            ways = {
                "signed": direction_of("signed", point, seed, 1000 + index),
                "u": u,
                "sum": tree.combine([1, 1], [u, v]),
            }
            for kind, one in ways.items():
                one = tree.scale(1 / tree.norm(one), one)
                row = profile_along(objective, point, one, survey)
                row["towards"] = float(tree.dot(way, one))
                if index < (1 if kind in ONE_A_SEED else DRAWN):
                    losses = landscape.evaluate(
                        objective, landscape.ray(point, one), reach
                    )
                    row |= {"at": reach.tolist(), "curve": losses["loss"].tolist()}
                found[kind].append(row)
        return found

    file = f"where-{name}-{survey.sides}-{survey.name_of_distances()}"
    found = after.numbers(f"{file}-{survey.sloped}", make)
    rows = {k: [read(row, survey.zeta) for row in found[k]] for k in KINDS}
    return {**found, **rows}


def no_minimum(lab: Lab, pair: Pair) -> str:
    """Why SGD's solutions after SWA are no minimisers; empty where they are."""
    shares = [
        gradient_norm(lab, lab.network(pair, AFTER, seed), chosen(lab, pair, seed)[0])
        / gradient_norm(lab, lab.network(pair, SWA, seed), "initial")
        for seed in lab.seeds
    ]
    return what_is_missing(lab, pair, np.array(shares), "after_epochs")


def flat_shares(
    found: list[Row], kind: str, limit: float
) -> tuple[np.ndarray, np.ndarray]:
    """The share of asymmetric directions on whose flat side SWA lies.

    Args:
        found: of each seed, see `sides_of`.
        kind: a name in `KINDS`.
        limit: c above which a direction counts as asymmetric, either way.

    Returns:
        (n,) shares of the seeds that have an asymmetric direction, and (seeds,) how
        many each has.
    """
    shares, counts = [], []
    for one in found:
        _, sides = either_way(one[kind])
        towards = np.array([row["towards"] for row in one[kind]])
        asymmetric = are_asymmetric(one[kind], limit)
        counts.append(int(asymmetric.sum()))
        if counts[-1]:
            shares.append(float((sides * towards > 0)[asymmetric].mean()))
    return np.array(shares), np.array(counts)


def fig9(lab: Lab, item: str = "fig9") -> Result:
    """Figure 9: on which side of random directions SWA lies, seen from SGD after it."""
    rows: list[Row] = []
    variables: dict[str, Any] = {}
    drawn: dict[str, Figure] = {}
    for pair in lab.pairs(item):
        model, dataset = pair
        found = [sides_of(lab, pair, seed) for seed in lab.seeds]
        for kind, what in KINDS.items():
            shares, counts = flat_shares(found, kind, lab.survey.c)
            towards = np.array([[row["towards"] for row in one[kind]] for one in found])
            share = mean_and_interval(shares) if len(shares) else "none is asymmetric"
            if kind in ONE_A_SEED and len(shares):
                share = f"{int((shares > 0.5).sum())} of {len(shares)} seeds"
            rows.append(
                {
                    "network": model,
                    "data": dataset,
                    "direction": what,
                    "asymmetric": f"{counts.sum()} of {towards.size}",
                    "share with SWA on the flat side": share,
                    "mean distance": f"{np.abs(towards).mean():.3g} of "
                    f"{np.mean([one['distance'] for one in found]):.3g}",
                    "paper": "on the flat side" if kind == "sum" else "-",
                }
            )  # fmt: skip
            dims = (f"{dataset}_{model}_seed", "direction")
            cs = np.array([either_way(one[kind])[0] for one in found])
            variables[f"{dataset}_{model}_{kind}_c"] = (dims, cs)
            variables[f"{dataset}_{model}_{kind}_towards"] = (dims, towards)
        drawn["-".join(pair)] = _figure9(pair, found)
    notes = [
        *lab.notes(item),
        *filter(None, (no_minimum(lab, pair) for pair in lab.pairs(item))),
        (
            "v = unit(SWA - SGD after it), u uniform in (0, 1); how the paper combines "
            "them is lost, and unit(u + v) is likely. Along that SWA lies ahead "
            "whatever is measured: <SWA - SGD, u + v> is |SWA - SGD| (1 + <u, v>). All "
            "that is found out is whether that side is flat, and since all draws "
            "share v, of one direction a seed. Draws of u itself share the direction "
            "of ones (their cosine is 0.75). Independent are those whose signs are "
            "drawn anew, and they alone are judged by their number"
        ),
    ]
    return Result(rows, xr.Dataset(variables), drawn, notes)


def _figure9(pair: Pair, found: list[Row]) -> Figure:
    """Independent directions of one seed, and of those that are one a seed each's."""
    figure, grid = panels(len(KINDS), width=4)
    for axes, (kind, what) in zip(grid, KINDS.items(), strict=True):
        rows = {f"direction {i + 1}": row for i, row in enumerate(found[0][kind])}
        title = f"{what}: seed 0"
        if kind in ONE_A_SEED:
            rows = {f"seed {seed}": one[kind][0] for seed, one in enumerate(found)}
            title = f"{what}: one a seed"
        for color, (label, row) in zip(CYCLE, rows.items(), strict=False):
            if "curve" not in row:
                break
            at, losses = row["at"], row["curve"]
            axes.plot(at, losses, color=color, marker=".", markersize=4, label=label)
            height = np.interp(row["towards"], at, losses)
            axes.plot(row["towards"], height, "*", color=color, markersize=12)
            axes.plot(0, np.interp(0, at, losses), "o", color=color)
        axes.plot([], [], "*", color=DARK, label="SWA, projected")
        axes.plot([], [], "o", color=DARK, label="SGD after SWA")
        axes.set_title(title, fontsize=10)
        axes.set_xlabel("distance along the direction")
        axes.legend(frameon=False, fontsize=8)
        tidy(axes)
    grid[0].set_ylabel("training loss (nats)")
    figure.suptitle(f"{pair[0]} on {pair[1]}")
    return figure
