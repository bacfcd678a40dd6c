"""Figures 3 and 4: what Theorem 1 assumes of the ground."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
import xarray as xr
from matplotlib.figure import Figure

from experiments.asymmetric_valleys.directions import (
    are_asymmetric,
    best_of,
    direction_of,
    measured,
)
from experiments.asymmetric_valleys.drawing import panels
from experiments.asymmetric_valleys.lab import Lab
from experiments.asymmetric_valleys.networks import Network
from experiments.asymmetric_valleys.presets import SGD, Pair
from experiments.harness.paper import Result
from experiments.harness.statistics import mean_and_interval
from lrscape.figures.style import COLORS, CYCLE, DARK, tidy
from lrscape.landscape import tree
from lrscape.landscape.asymmetry import largest_c
from lrscape.landscape.shift import best_shift
from lrscape.landscape.valleys import nearby_asymmetry

Row = dict[str, Any]
# A gap that shrinks to less is a good match.
GOOD = 0.5


def shifts_of(lab: Lab, network: Network, kind: str) -> list[Row]:
    """Best shifts along several directions of a network.

    Args:
        lab: has the survey.
        network: at whose last weights.
        kind: ``'asymmetric'``: its most asymmetric directions; ``'symmetric'``: ones
            whose signs were drawn.
    """
    survey, point = lab.survey, network.final.params

    def make() -> Row:
        train, test = (lab.objective(network, part) for part in ("train", "test"))
        if kind == "asymmetric":
            ways = [d for d, _ in best_of(lab, network, survey.shifted)]
        else:
            ways = [
                direction_of("signed", point, network.config.seed, i)
                for i in range(max(1, survey.shifted // 2))
            ]
        rows = []
        for way in ways:
            found = best_shift(
                train, test, point, way, radius=survey.r / 2, max_shift=survey.r / 2,
                num_points=survey.shift_points,
            )  # fmt: skip
            rows.append(
                {
                    "shift": found.shift,
                    "ratio": found.ratio,
                    "shifts": found.shifts.tolist(),
                    "gaps": found.gaps.tolist(),
                    "distances": found.distances.tolist(),
                    "train": found.train_losses.tolist(),
                    "test": found.test_losses.tolist(),
                }
            )
        return {"rows": rows}

    name = f"shift-{kind}-{survey.shifted}-{survey.r:g}-{survey.shift_points}"
    return network.numbers(f"{name}-{survey.examples}", make)["rows"]


def asymmetric_count(lab: Lab, network: Network) -> int:
    """How many of its most asymmetric directions, the first, have c above the limit."""
    rows = measured(lab, network, "uniform", lab.survey.tries)
    found = are_asymmetric(rows, lab.survey.c)
    return min(lab.survey.shifted, int(found.sum()))


def good_shares(lab: Lab, pair: Pair, kind: str) -> np.ndarray:
    """(seeds,), the share of directions along which some shift makes the gap small.

    NaN where a network has no asymmetric direction.
    """
    shares = []
    for network in lab.all_of(pair, SGD):
        good = np.array([row["ratio"] < GOOD for row in shifts_of(lab, network, kind)])
        if kind == "asymmetric":
            good = good[: asymmetric_count(lab, network)]
        shares.append(good.mean() if len(good) else np.nan)
    return np.array(shares)


def fig3(lab: Lab, item: str = "fig3") -> Result:
    """Figure 3: the test loss, shifted along a direction, beside the training loss."""
    rows: list[Row] = []
    variables: dict[str, Any] = {}
    drawn: dict[str, Figure] = {}
    for pair in lab.pairs(item):
        model, dataset = pair
        networks = lab.all_of(pair, SGD)
        for kind in ("asymmetric", "symmetric"):
            found = [shifts_of(lab, network, kind) for network in networks]
            ratios = np.array([[row["ratio"] for row in one] for one in found])
            shifts = np.array([[row["shift"] for row in one] for one in found])
            rows.append(
                {
                    "network": model,
                    "data": dataset,
                    "directions": ("most " if kind == "asymmetric" else "")
                    + f"{kind}, {ratios.shape[0]} x {ratios.shape[1]}",
                    "least gap / gap unmoved": mean_and_interval(ratios.mean(axis=1)),
                    f"share below {GOOD:g}": mean_and_interval(
                        good_shares(lab, pair, kind)
                    ),
                    "best shift (flat side +)": mean_and_interval(shifts.mean(axis=1)),
                    "paper": "much below 1" if kind == "asymmetric" else "-",
                }
            )
            for name, values in {"ratio": ratios, "shift": shifts}.items():
                dims = (f"{dataset}_{model}_seed", f"{kind}_direction")
                variables[f"{dataset}_{model}_{kind}_{name}"] = (
                    dims, values, {"units": "1"}
                )  # fmt: skip
        drawn["-".join(pair)] = _figure3(lab, pair, networks)
    notes = [
        *lab.notes(item),
        (
            f"gap: the largest difference over distances up to {lab.survey.r / 2:g}, "
            "both minima taken off; the paper's own shift and ratio are lost"
        ),
    ]
    return Result(rows, xr.Dataset(variables), drawn, notes)


def _figure3(lab: Lab, pair: Pair, networks: list[Network]) -> Figure:
    figure, (left, middle, right) = panels(3, width=4)
    row = shifts_of(lab, networks[0], "asymmetric")[0]
    at, train, test = (np.array(row[k]) for k in ("distances", "train", "test"))
    level = test - test.min() + train.min()
    inside = np.abs(at) <= lab.survey.r / 2 * (1 + 1e-9)
    left.plot(at, train, color=COLORS["train"], label="training loss")
    left.plot(at, test, color=COLORS["test"], label="test loss")
    middle.plot(at[inside], train[inside], color=COLORS["train"], label="training")
    moved = [(row["shift"], "-", f"the same, moved by {row['shift']:.2g}")]
    unmoved = (0.0, ":", "test, less its minimum")
    if not row["shift"]:
        moved, unmoved = [], (0.0, "-", "test, less its minimum (best unmoved)")
    for shift, style, label in (unmoved, *moved):
        middle.plot(
            at[inside], np.interp(at[inside] + shift, at, level),
            color=COLORS["test"], linestyle=style, label=label,
        )  # fmt: skip
    for axes in (left, middle):
        axes.axvline(0, color=DARK, linewidth=0.8, linestyle=":")
        axes.set_xlabel("distance along the direction (flat side +)")
    left.set_ylabel("loss (nats)")
    for color, network in zip(CYCLE, networks, strict=False):
        for i, one in enumerate(shifts_of(lab, network, "asymmetric")):
            gaps = np.array(one["gaps"])
            right.plot(
                one["shifts"], gaps / gaps[len(gaps) // 2], color=color, alpha=0.7,
                linewidth=1, label=None if i else f"seed {network.config.seed}",
            )  # fmt: skip
    right.axhline(1, color=DARK, linewidth=0.8, linestyle=":")
    right.set_xlabel(r"shift $\delta$ of the test loss")
    right.set_ylabel(r"gap $\xi_\delta / \xi_0$")
    for axes, title in zip(
        (left, middle, right), ("as they are", "moved", "most asymmetric directions"),
        strict=True,
    ):  # fmt: skip
        axes.set_title(title, fontsize=10)
        axes.legend(frameon=False, fontsize=8)
        tidy(axes)
    figure.suptitle(f"{pair[0]} on {pair[1]}, seed 0's most asymmetric direction")
    return figure


def neighbors_of(lab: Lab, network: Network, share: float) -> Row:
    """The asymmetry of a network's best direction at points moved orthogonally to it.

    Args:
        lab: has the survey.
        network: at whose last weights.
        share: how far they are moved, of ||w||.
    """
    survey, point = lab.survey, network.final.params

    def make() -> Row:
        ((direction, _),) = best_of(lab, network, 1)
        radius = share * float(tree.norm(point))
        found = nearby_asymmetry(
            jax.random.key(network.config.seed), lab.sloped(network), point,
            direction, r=survey.r, zeta=0.0, radius=radius,
            num_neighbors=survey.neighbors, num_points=survey.curve + 1,
        )  # fmt: skip
        return {
            "radius": radius,
            "distances": found.distances.tolist(),
            "losses": found.losses.tolist(),
            "slopes": found.slopes.tolist(),
        }

    name = f"neighbours-{share:g}-{survey.neighbors}-{survey.r:g}-{survey.zeta:g}"
    found = network.numbers(f"{name}-{survey.curve}-{survey.sloped}", make)
    return {**found, "cs": cs_beyond(found, survey.zeta).tolist()}


def cs_beyond(found: Row, zeta: float) -> np.ndarray:
    """(neighbours,), the largest c at each, by the distances from zeta on alone."""
    at = np.array(found["distances"])
    far = zeta * (1 - 1e-5)
    return np.array([
        largest_c(slopes[at >= far].max(), -slopes[at <= -far].max())[0]
        for slopes in np.array(found["slopes"])
    ])  # fmt: skip


def nothing_to_keep(lab: Lab, pair: Pair) -> str:
    """Why neighbours cannot keep an asymmetry, in words; empty where they can."""
    have = [
        are_asymmetric([row], 1.0)[0]
        for network in lab.all_of(pair, SGD)
        for _, row in best_of(lab, network, 1)
    ]
    if all(have):
        return ""
    return (
        f"the direction has c > 1 at {sum(have)} of {len(have)} solutions themselves, "
        f"from zeta = {lab.survey.zeta:g} on"
    )


def kept_shares(lab: Lab, pair: Pair, share: float) -> np.ndarray:
    """(seeds,), the share of neighbours at which the direction has c > 1."""
    networks = lab.all_of(pair, SGD)
    return np.array([
        np.mean(np.array(neighbors_of(lab, n, share)["cs"]) > 1) for n in networks
    ])  # fmt: skip


def fig4(lab: Lab) -> Result:
    """Figure 4: the loss along an asymmetric direction, at neighbouring points."""
    rows: list[Row] = []
    variables: dict[str, Any] = {}
    drawn: dict[str, Figure] = {}
    for pair in lab.pairs("fig4"):
        model, dataset = pair
        networks = lab.all_of(pair, SGD)
        for share in lab.survey.radii:
            found = [neighbors_of(lab, network, share) for network in networks]
            losses = np.array([one["losses"] for one in found])
            cs = np.array([one["cs"] for one in found])
            spread = losses.std(axis=1, ddof=1) if losses.shape[1] > 1 else losses * 0
            rows.append(
                {
                    "network": model,
                    "data": dataset,
                    "moved by": f"{share:g} ||w||",
                    "that is": mean_and_interval([one["radius"] for one in found]),
                    "neighbours": f"{cs.shape[0]} x {cs.shape[1]}",
                    "share with c > 1": mean_and_interval(
                        kept_shares(lab, pair, share)
                    ),
                    "largest deviation (nats)": mean_and_interval(
                        spread.max(axis=-1).reshape(len(networks), -1).max(axis=1)
                    ),
                    "paper": "all, very small",
                }
            )
            dims = (f"{dataset}_{model}_seed", "neighbour", "distance")
            variables[f"{dataset}_{model}_{share:g}_loss"] = (
                dims, losses, {"units": "nat"}
            )  # fmt: skip
            variables[f"{dataset}_{model}_{share:g}_c"] = (dims[:2], cs)
        drawn["-".join(pair)] = _figure4(lab, pair, networks)
    notes = [
        *lab.notes("fig4"),
        (
            "moves of one length, which in so many dimensions is where nearly all of a "
            "ball lies; the direction with the largest c of each seed"
        ),
    ]
    return Result(rows, xr.Dataset(variables), drawn, notes)


def _figure4(lab: Lab, pair: Pair, networks: list[Network]) -> Figure:
    figure, grid = panels(len(lab.survey.radii), width=4)
    for axes, share in zip(grid, lab.survey.radii, strict=True):
        for color, network in zip(CYCLE, networks, strict=False):
            found = neighbors_of(lab, network, share)
            losses, at = np.array(found["losses"]), np.array(found["distances"])
            mean = losses.mean(axis=0)
            deviation = losses.std(axis=0, ddof=1) if len(losses) > 1 else 0 * mean
            axes.plot(
                at, mean, color=color, marker=".", label=f"seed {network.config.seed}"
            )  # fmt: skip
            axes.fill_between(
                at, mean - deviation, mean + deviation, color=color, alpha=0.25,
                linewidth=0,
            )  # fmt: skip
        axes.set_title(f"moved by {share:g} ||w||", fontsize=10)
        axes.set_xlabel("distance along the direction (flat side +)")
        axes.legend(frameon=False, fontsize=8)
        tidy(axes)
    grid[0].set_ylabel("training loss (nats)")
    figure.suptitle(f"{pair[0]} on {pair[1]}: mean and standard deviation over points")
    return figure
