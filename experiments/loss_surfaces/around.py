"""Figures 4 to 6, 8 and 10: accuracies, and losses along lines from minima."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import xarray as xr
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from experiments.harness.network import column
from experiments.harness.paper import Result
from experiments.harness.statistics import mean_and_interval
from experiments.loss_surfaces import probes
from experiments.loss_surfaces.drawing import (
    lines_figure,
)
from experiments.loss_surfaces.lab import Lab
from experiments.loss_surfaces.methods import TITLES
from experiments.loss_surfaces.networks import Network
from experiments.loss_surfaces.pairs import Pair, both, pairs_of
from lrscape import landscape
from lrscape.figures.style import CYCLE, tidy
from lrscape.landscape import tree

# From the initial weights, at 0, to the last ones, at 1.
ALPHAS = np.linspace(0, 1, 26)
# And as far again; 1.5 is among them.
BEYOND = np.linspace(0, 2, 41)
# From the last weights, at 0, past the initial ones, at 1.
BACK = np.linspace(0, 1.5, 31)
# Pairs of figures 5 and 8, where both are there.
SHOWN: tuple[Pair, ...] = (
    ("sgd", "adam"), ("sgd", "rk2"), ("adam", "adadelta"), ("adam", "adam_rk2"),
    ("sgd", "adadelta"), ("rmsprop", "adam"),
)  # fmt: skip
# A basin is where the loss is below so many times the minimum's, and so much more.
BASIN = (2.0, 0.1)


def shown_pairs(lab: Lab, most: int = 3) -> list[Pair]:
    """A few pairs of the optimizers."""
    there = pairs_of(lab)
    return ([pair for pair in SHOWN if pair in there] or there)[:most]


def whole(networks: list[Network]) -> list[Network]:
    """Those that did not fail."""
    return [network for network in networks if not network.failed()]


def start_curves(
    lab: Lab, name: str, alphas: np.ndarray, kind: str, **changes: Any
) -> np.ndarray:
    """(seeds, points), losses from the start to the minimum; NaN of a failed run."""
    return np.array(
        [
            np.full(len(alphas), np.nan)
            if network.failed()
            else probes.from_start(lab, network, alphas, kind)
            for network in lab.all_trained(name, **changes)
        ]
    )


def rises_beyond(curves: np.ndarray) -> np.ndarray:
    """How far curves lie above their value at 1: at 1.5 and at 2, the lesser.

    Args:
        curves: (..., points), losses at `BEYOND`.

    Example:
        >>> print(rises_beyond((BEYOND - 1.1) ** 2).round(2))
        0.15
    """
    at = [int(np.argmin(abs(BEYOND - alpha))) for alpha in (1.0, 1.5, 2.0)]
    one, half, whole = (curves[..., i] for i in at)
    return np.minimum(half, whole) - one


def pair_curves(lab: Lab, pair: Pair, **changes: Any) -> np.ndarray:
    """(seeds, points), losses between two minima; NaN where a run failed."""
    alphas, found = probes.pair_alphas(lab), []
    for seed in lab.seeds:
        a, b = both(lab, pair, seed, **changes)
        failed = a.failed() or b.failed()
        found.append(
            np.full(len(alphas), np.nan) if failed else probes.line(lab, a, b, alphas)
        )
    return np.array(found)


def fig4(lab: Lab) -> Result:
    """Figure 4: training and test accuracy by optimizer, over several starts."""
    lab = lab.of("nin")
    rows, variables, found = [], {}, {}
    for name in lab.plan.optimizers:
        histories = [network.history() for network in lab.all_trained(name)]
        parts = {
            part: 100 * (1 - column(histories, f"{part}_error", worst=1.0))
            for part in ("train", "test")
        }
        found[name] = parts
        row: dict[str, Any] = {"optimizer": TITLES[name], "seeds": len(histories)}
        for part, values in parts.items():
            row[f"{part} %, last"] = mean_and_interval(values[:, -1])
            row[f"{part} %, best"] = mean_and_interval(np.nanmax(values, axis=1))
            variables[f"{name}_{part}_accuracy"] = (
                ("seed", "epoch"), values, {"units": "percent"}
            )  # fmt: skip
        row["failed"] = sum("diverged" in h[-1] for h in histories)
        rows.append(row)
    title = f"{lab.what}, {lab.plan.seeds} starts each"
    figures = {"": _last_figure(found, title), "epochs": _epochs_figure(found, title)}
    notes = [lab.note(), lab.tuned_note(lab.plan.optimizers)]
    return Result(rows, labelled(variables), figures, notes)


Parts = dict[str, dict[str, np.ndarray]]


def _last_figure(found: Parts, title: str) -> Figure:
    """Last accuracies as the paper draws them: by optimizer, a colour a start."""
    figure = Figure(figsize=(9.6, 4), layout="constrained")
    panels = figure.subplots(1, 2)
    for axes, part in zip(panels, ("train", "test"), strict=True):
        for i, parts in enumerate(found.values()):
            last = parts[part][:, -1]
            # Side by side, so that equal ones are not one.
            beside = i + 0.08 * (np.arange(len(last)) - (len(last) - 1) / 2)
            colors = [CYCLE[k % len(CYCLE)] for k in range(len(last))]
            axes.scatter(beside, last, color=colors, s=22, zorder=3)
            axes.hlines(last.mean(), i - 0.3, i + 0.3, color="#666666", lw=1)
        axes.set_xticks(range(len(found)), [TITLES[name] for name in found])
        axes.tick_params(axis="x", rotation=30)
        axes.margins(y=0.12)
        axes.set_ylabel(f"{part} accuracy, last epoch (%)")
        tidy(axes)
    figure.suptitle(f"{title}, a colour a start; bars: means")
    return figure


def _epochs_figure(found: Parts, title: str) -> Figure:
    """Accuracies over epochs: mean and range of each optimizer's starts."""
    figure = Figure(figsize=(9.6, 4.4), layout="constrained")
    panels = figure.subplots(1, 2)
    for axes, part in zip(panels, ("train", "test"), strict=True):
        late = []
        for i, (name, parts) in enumerate(found.items()):
            values = parts[part]
            at, color = np.arange(values.shape[1]), CYCLE[i % len(CYCLE)]
            axes.plot(values.mean(axis=0), color=color, label=TITLES[name])
            axes.fill_between(
                at, values.min(axis=0), values.max(axis=0), color=color, alpha=0.1,
                linewidth=0,
            )  # fmt: skip
            late.append(values[:, max(1, values.shape[1] // 4) :])
        shown = np.concatenate([values.ravel() for values in late])
        low, high = shown.min(), shown.max()
        room = 0.05 * (high - low) + 1e-3
        axes.set_ylim(low - room, high + room)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_xlabel("epoch")
        axes.set_ylabel(f"{part} accuracy (%)")
        tidy(axes)
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(
        handles, labels, loc="outside lower center", ncols=len(found), frameon=False,
        fontsize="small",
    )  # fmt: skip
    figure.suptitle(f"{title}: mean and range, the last three quarters' heights")
    return figure


def fig5(lab: Lab) -> Result:
    """Figure 5: losses from the start to the minima, and between minima."""
    # Its panels (a, c) and (b, d) are of two networks, which the caption does not name.
    return lines_of(lab.each())


def fig8(lab: Lab) -> Result:
    """Figure 8: figure 5 without batch norm."""
    return lines_of([lab.of("nin")], batch_norm=False)


def lines_of(labs: Sequence[Lab], *, batch_norm: bool = True) -> Result:
    """Figures 5 and 8, of one network or of several, one after another."""
    parts = [_lines_of(lab, batch_norm) for lab in labs]
    if len(parts) == 1:
        return parts[0]
    whole = Result([], xr.Dataset())
    for lab, part in zip(labs, parts, strict=True):
        name = lab.plan.model
        whole.rows += [{"network": name, **row} for row in part.rows]
        renamed = part.dataset.rename(
            {n: f"{name}_{n}" for n in (*part.dataset.variables, *part.dataset.dims)}
        )
        whole.dataset = whole.dataset.merge(renamed)
        whole.figures |= {f"{name}-{n}": f for n, f in part.figures.items()}
        whole.notes += part.notes
    return whole


def _lines_of(lab: Lab, batch_norm: bool) -> Result:
    changes = {"batch_norm": batch_norm}
    starts = {
        TITLES[name]: start_curves(lab, name, ALPHAS, "start", **changes)
        for name in lab.plan.optimizers
    }
    pairs = {
        " to ".join(TITLES[n] for n in pair): pair_curves(lab, pair, **changes)
        for pair in shown_pairs(lab)
    }
    alphas = probes.pair_alphas(lab)
    rows = [
        {
            "line": f"start to {name}",
            "last loss": mean_and_interval(curves[:, -1]),
            "highest within": mean_and_interval(curves[:, 1:-1].max(axis=1)),
            "local maxima, median": f"{np.median([maxima(c) for c in curves]):g}",
        }
        for name, curves in starts.items()
    ] + [
        {
            "line": name,
            "last loss": mean_and_interval(curves[:, -1]),
            "highest within": mean_and_interval(curves[:, 1:-1].max(axis=1)),
            "local maxima, median": f"{np.median([maxima(c) for c in curves]):g}",
        }
        for name, curves in pairs.items()
    ]
    variables: dict[str, Any] = {
        f"{name}_loss": (("seed", "alpha"), curves, {"units": "nat"})
        for name, curves in starts.items()
    }
    for name, curves in pairs.items():
        variables[f"{name}_loss"] = (("seed", "along"), curves, {"units": "nat"})
    coordinates = {"alpha": ALPHAS, "along": alphas}
    normed = "with" if batch_norm else "without"
    title = f"{lab.what}, {normed} batch norm, {lab.plan.seeds} starts each"
    figures = {
        "start": lines_figure(
            {name: (ALPHAS, {name: list(c)}) for name, c in starts.items()},
            "start (0) to minimum (1)", title, columns=4,
        ),
        "pairs": lines_figure(
            {n: (alphas, {f"{len(c)} starts": list(c)}) for n, c in pairs.items()},
            "along the line", title,
        ),
    }  # fmt: skip
    notes = [lab.note(), lab.tuned_note(lab.plan.optimizers, batch_norm=batch_norm)]
    if lab.plan.plain and not batch_norm:
        notes.append(lab.plain_note())
    return Result(rows, labelled(variables, coordinates), figures, notes)


def maxima(losses: np.ndarray) -> int:
    """The strict local maxima within a curve; of several equal values the middle.

    Example:
        >>> maxima(np.array([0.0, 1.0, 0.5, 2.0, 2.0, 1.0])), maxima(np.arange(4.0))
        (2, 0)
    """
    steps = np.sign(np.diff(losses))
    steps = steps[steps != 0]
    return int(((steps[:-1] > 0) & (steps[1:] < 0)).sum())


def width(losses: np.ndarray, at: np.ndarray) -> float:
    """How far from the minimum the loss stays low; up to the last point.

    Args:
        losses: (points,), the minimum's first.
        at: (points,), how far each is from it.

    Returns:
        Where the loss first passes `BASIN`'s limit, interpolated; NaN of a curve that
        is not finite at the minimum.

    Example:
        >>> print(round(width(np.array([0.1, 0.2, 0.4]), np.array([0.0, 1.0, 2.0])), 3))
        1.5
    """
    if not np.isfinite(losses[0]):
        return float("nan")
    limit = BASIN[0] * losses[0] + BASIN[1]
    above = ~(losses <= limit)
    if not above.any():
        return float(at[-1])
    i = int(np.argmax(above))
    if not np.isfinite(losses[i]):
        return float(at[i - 1])
    share = (limit - losses[i - 1]) / (losses[i] - losses[i - 1])
    return float(at[i - 1] + share * (at[i] - at[i - 1]))


def widths(lab: Lab, name: str) -> dict[str, np.ndarray]:
    """(seeds,) each: the basin towards the start, on three scales.

    Returns:
        ``alpha``, a share of the way; ``distance``; and ``relative``, the distance over
        the norm of the last weights.
    """
    found: dict[str, list[float]] = {"alpha": [], "distance": [], "relative": []}
    for network in lab.all_trained(name):
        if network.failed():
            for values in found.values():
                values.append(np.nan)
            continue
        losses = back_losses(lab, network)
        size = sizes(network)
        share = width(losses, BACK)
        found["alpha"].append(share)
        found["distance"].append(share * size["distance"])
        found["relative"].append(share * size["distance"] / size["norm"])
    return {scale: np.array(values) for scale, values in found.items()}


def back_losses(lab: Lab, network: Network) -> np.ndarray:
    """(points,), from the last weights past the initial ones, at `BACK`."""
    return probes.from_start(lab, network, 1 - BACK, "back")


def sizes(network: Network) -> dict[str, float]:
    """The norm of the last weights, and how far they are from the initial ones."""

    def make() -> dict[str, float]:
        last = network.final.params
        moved = landscape.parameter_distance(network.initial, last)
        return {"distance": float(moved), "norm": float(tree.norm(last))}

    return network.numbers("sizes", make)


def fig6(lab: Lab) -> Result:
    """Figure 6: losses by the distance from the minimum, towards the start and past."""
    lab = lab.of("nin")
    rows, panels, variables = [], {}, {}
    for name in lab.plan.optimizers:
        found = widths(lab, name)
        rows.append(
            {
                "optimizer": TITLES[name],
                "basin (share of the way)": mean_and_interval(found["alpha"]),
                "basin (distance)": mean_and_interval(found["distance"]),
                "over the weights' norm": mean_and_interval(found["relative"]),
            }
        )
        networks = whole(lab.all_trained(name))
        panels[TITLES[name]] = [
            (BACK * sizes(network)["distance"], back_losses(lab, network))
            for network in networks
        ]
        for scale, values in found.items():
            variables[f"{name}_{scale}"] = (("seed",), values)
    figure = Figure(figsize=(6.8, 4.6), layout="constrained")
    axes = figure.subplots()
    for i, (name, curves) in enumerate(panels.items()):
        for k, (at, losses) in enumerate(curves):
            axes.plot(
                at, losses, color=CYCLE[i % len(CYCLE)], linewidth=1.1, alpha=0.8,
                label=name if k == 0 else None,
            )  # fmt: skip
            axes.plot(
                at[np.argmin(np.abs(BACK - 1))], losses[np.argmin(np.abs(BACK - 1))],
                ".", color=CYCLE[i % len(CYCLE)],
            )  # fmt: skip
    axes.set_yscale("log")
    axes.set_xlabel("distance from the minimum towards the start (dot), Eq. 1")
    axes.set_ylabel("training loss (nats)")
    axes.legend(frameon=False, fontsize="small")
    tidy(axes)
    figure.suptitle(f"{lab.what}, {lab.plan.seeds} starts each")
    notes = [
        lab.note(),
        lab.tuned_note(lab.plan.optimizers),
        (
            f"a basin: up to where the loss passes {BASIN[0]:g} times the minimum's "
            f"plus {BASIN[1]:g}, on the line to the start and half as far again"
        ),
    ]
    return Result(rows, labelled(variables), {"": figure}, notes)


def fig10(lab: Lab) -> Result:
    """Figure 10: losses from the start to the minimum and as far beyond it."""
    lab = lab.of("nin")
    rows, panels, variables = [], {}, {}
    for name in lab.plan.optimizers:
        curves = start_curves(lab, name, BEYOND, "beyond")
        after = curves[:, BEYOND >= 1]
        rises = rises_beyond(curves) > 0
        rows.append(
            {
                "optimizer": TITLES[name],
                "loss at 1": mean_and_interval(after[:, 0]),
                "at 1.5": mean_and_interval(curves[:, np.argmin(abs(BEYOND - 1.5))]),
                "at 2": mean_and_interval(after[:, -1]),
                "both above that at 1 in": f"{rises.sum()} of {len(curves)}",
            }
        )
        panels[TITLES[name]] = (BEYOND, {TITLES[name]: list(curves)})
        variables[f"{name}_loss"] = (("seed", "alpha"), curves, {"units": "nat"})
    title = f"{lab.what}, {lab.plan.seeds} starts each"
    figure = lines_figure(panels, "start (0), minimum (1) and beyond", title, columns=4)
    notes = [lab.note(), lab.tuned_note(lab.plan.optimizers)]
    dataset = labelled(variables, {"alpha": BEYOND})
    return Result(rows, dataset, {"": figure}, notes)


def labelled(
    variables: dict[str, Any], coordinates: dict[str, Any] | None = None
) -> xr.Dataset:
    """Labelled arrays by names that files may have."""

    def plain(name: str) -> str:
        return name.replace("&", "_").replace(" ", "_")

    named = {plain(name): value for name, value in variables.items()}
    used = {dim for value in named.values() for dim in value[0]}
    kept = {n: v for n, v in (coordinates or {}).items() if n in used}
    return xr.Dataset(named, kept)
