"""Table 1: the ground between the minima of every two optimizers."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import xarray as xr
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter

from experiments.harness.paper import Result, shown
from experiments.harness.statistics import mean_and_interval
from experiments.loss_surfaces import probes
from experiments.loss_surfaces.alignment import aligned
from experiments.loss_surfaces.drawing import (
    corners_of_triangle,
    draw_surface,
    norm_of,
    surfaces_page,
)
from experiments.loss_surfaces.lab import Lab
from experiments.loss_surfaces.methods import TITLES
from experiments.loss_surfaces.networks import Network
from lrscape import landscape
from lrscape.errors import InputError
from lrscape.figures.style import CYCLE, SURFACE, tidy

Pair = tuple[str, str]
# Mean over all pairs, Sec. 4.1.
PAPER = {"distance": 0.16, "disagreement": 0.08, "ratio": 1 / 3}


def pairs_of(lab: Lab) -> list[Pair]:
    """Every two of the optimizers.

    Raises:
        InputError: fewer than two.
    """
    names = lab.plan.optimizers
    if len(names) < 2:
        raise InputError(f"optimizers={' '.join(names)!r}: a pair needs two")
    return list(itertools.combinations(names, 2))


def both(lab: Lab, pair: Pair, seed: int, **changes: Any) -> tuple[Network, Network]:
    """The two networks of a pair, from one start and of one order of examples."""
    a, b = (lab.trained(name, seed, **changes) for name in pair)
    return a, b


def barriers(lab: Lab, **changes: Any) -> np.ndarray:
    """(pairs, seeds), barriers between minima, NaN where a run failed."""
    return np.array(
        [
            [
                probes.barrier_between(lab, *both(lab, pair, seed, **changes))
                for seed in lab.seeds
            ]
            for pair in pairs_of(lab)
        ]
    )


def control_barriers(lab: Lab) -> np.ndarray:
    """(optimizers, seeds), between two runs that differ by their order alone."""
    return np.array(
        [
            [
                probes.barrier_between(
                    lab, lab.trained(name, seed), lab.trained(name, seed, order=1)
                )
                for seed in lab.seeds
            ]
            for name in lab.plan.optimizers
        ]
    )


def aligned_barriers(lab: Lab) -> np.ndarray:
    """(pairs, seeds), barriers after the second network's units are matched."""
    return np.array(
        [
            [_aligned_barrier(lab, *both(lab, pair, seed)) for seed in lab.seeds]
            for pair in pairs_of(lab)
        ]
    )


def _aligned_barrier(lab: Lab, a: Network, b: Network) -> float:
    if a.failed() or b.failed():
        return float("nan")

    def subspace():
        return landscape.line(
            a.final.params, aligned(b.final.params, to=a.final.params)
        )  # fmt: skip

    name = f"aligned-{b.records.path.name}"
    return probes.barrier(
        probes.losses_at(lab, a, subspace, probes.pair_alphas(lab), name)
    )


def differences(lab: Lab) -> dict[str, np.ndarray]:
    """(pairs, seeds) of each: how different the networks of a pair are as functions.

    Returns:
        ``distance`` of their probabilities, ``disagreement`` about labels, and
        ``ratio``, the latter over the sum of their errors, the most that it can be.
    """
    found: dict[str, list[list[float]]] = {name: [] for name in PAPER}
    for pair in pairs_of(lab):
        for values in found.values():
            values.append([])
        for seed in lab.seeds:
            a, b = both(lab, pair, seed)
            one: dict[str, Any] = {}
            if not (a.failed() or b.failed()):
                one = probes.functions(lab, a, b)
            apart = one.get("disagreement", [np.nan])[-1]
            errors = sum(one.get("errors", [np.nan]))
            found["distance"][-1].append(one.get("distance", [np.nan])[-1])
            found["disagreement"][-1].append(apart)
            # Two networks without an error cannot disagree.
            found["ratio"][-1].append(apart / errors if errors else 0.0)
    return {name: np.array(values) for name, values in found.items()}


def table1(lab: Lab) -> Result:
    """Table 1: surfaces between every two optimizers' minima, and their functions."""
    lab = lab.of("nin")
    pairs, names = pairs_of(lab), lab.plan.optimizers
    high, control = barriers(lab), control_barriers(lab)
    apart, matched = differences(lab), aligned_barriers(lab)
    rows: list[dict[str, Any]] = [
        {
            "pair": f"{TITLES[a]}, {TITLES[b]}",
            "barrier (nats)": mean_and_interval(high[i]),
            "barrier in": f"{(high[i] > 0).sum()} of {high.shape[1]}",
            "units matched": mean_and_interval(matched[i]),
            "distance": mean_and_interval(apart["distance"][i]),
            "disagreement": mean_and_interval(apart["disagreement"][i]),
            "over e1 + e2": mean_and_interval(apart["ratio"][i]),
        }
        for i, (a, b) in enumerate(pairs)
    ]
    for i, name in enumerate(names):
        rows.append(
            {
                "pair": f"{TITLES[name]}, another order",
                "barrier (nats)": mean_and_interval(control[i]),
                "barrier in": f"{(control[i] > 0).sum()} of {control.shape[1]}",
                **dict.fromkeys(
                    ("units matched", "distance", "disagreement", "over e1 + e2"), "-"
                ),
            }
        )
    rows.append(
        {
            "pair": "paper, all pairs", "barrier (nats)": "-", "barrier in": "all",
            "units matched": "-",
            "distance": shown(PAPER["distance"]),
            "disagreement": shown(PAPER["disagreement"]),
            "over e1 + e2": "> 1/3",
        }
    )  # fmt: skip
    seed = _whole_seed(lab)
    surfaces = {pair: probes.triangle(lab, *both(lab, pair, seed)) for pair in pairs}
    curves = {
        pair: probes.functions(lab, *both(lab, pair, seed))["distance"]
        for pair in pairs
    }
    variables: dict[str, Any] = {
        "barrier": (("pair", "seed"), high, {"units": "nat"}),
        "aligned_barrier": (("pair", "seed"), matched, {"units": "nat"}),
        "control_barrier": (("optimizer", "seed"), control, {"units": "nat"}),
        "surface_loss": (
            ("pair", "alpha", "beta"), np.array([surfaces[p] for p in pairs]),
            {"units": "nat"},
        ),
        "functional_distance": (
            ("pair", "along"), np.array([curves[p] for p in pairs])
        ),
    }  # fmt: skip
    for name, values in apart.items():
        variables[name] = (("pair", "seed"), values)
    coordinates = {
        "pair": [f"{a}-{b}" for a, b in pairs], "optimizer": list(names),
        "alpha": np.linspace(0, 1, lab.plan.grid),
        "beta": np.linspace(0, 1, lab.plan.grid), "along": probes.FUNCTIONAL_ALPHAS,
    }  # fmt: skip
    x, y = corners_of_triangle(lab.plan.grid)
    page = surfaces_page(
        {f"{TITLES[a]}, {TITLES[b]}": (x, y, surfaces[a, b]) for a, b in pairs},
        f"{lab.what}: the start, and the minima of two optimizers",
    )
    notes = [
        lab.note(),
        lab.tuned_note(names),
        (
            f"surfaces and curves of seed {seed}; another order: the same start and "
            "optimizer, other batches, dropout and augmentation"
        ),
        (
            f"functions: probabilities of {lab.plan.functional} test examples (or "
            "all), batch norm's averages taken anew at every network"
        ),
        (
            "units matched: the barrier after the second network's hidden units are "
            "permuted to be nearest to the first's"
        ),
        "RK2 is Heun's method; the paper does not say which of its three",
    ]
    figure = _figure(lab, surfaces, curves)
    return Result(
        rows, xr.Dataset(variables, coordinates), {"": figure}, notes, {"": page}
    )  # fmt: skip


def _whole_seed(lab: Lab) -> int:
    """The first seed in which no run failed.

    Raises:
        InputError: there is none.
    """
    for seed in lab.seeds:
        if not any(lab.trained(n, seed).failed() for n in lab.plan.optimizers):
            return seed
    raise InputError("in every seed a run failed: nothing lies between its minima")


def _figure_of_two(
    lab: Lab, surfaces: dict[Pair, np.ndarray], curves: dict[Pair, list[float]]
) -> Figure:
    """Of a single pair its surface and its functions, side by side."""
    ((pair, surface),) = surfaces.items()
    one, other = (TITLES[name] for name in pair)
    figure = Figure(figsize=(9.6, 4.6))
    axes: Any = figure.add_axes((0.0, 0.0, 0.5, 0.84), projection="3d")
    x, y = corners_of_triangle(lab.plan.grid)
    last = lab.plan.grid - 1
    draw_surface(
        axes, x, y, surface, norm_of([surface]), marks=((last, last), (last, 0))
    )
    axes.set_box_aspect((1, 0.8, 0.7), zoom=0.9)
    figure.text(0.25, 0.88, f"the start behind, {one} left and {other} right",
                ha="center", fontsize=10)  # fmt: skip
    right = figure.add_axes((0.6, 0.16, 0.37, 0.68))
    right.plot(probes.FUNCTIONAL_ALPHAS, curves[pair], color=CYCLE[0])
    right.set_xlim(0, 1)
    right.set_ylim(bottom=0)
    right.set_xlabel(f"from {one} (0) to {other} (1)")
    right.set_ylabel(f"functional distance from {one}")
    tidy(right)
    figure.suptitle(f"Minima of two optimizers from one start: {lab.what}")
    return figure


def _figure(
    lab: Lab, surfaces: dict[Pair, np.ndarray], curves: dict[Pair, list[float]]
) -> Figure:
    """All pairs on a page: below the diagonal surfaces, above it functions."""
    names = lab.plan.optimizers
    count = len(names)
    if count == 2:
        return _figure_of_two(lab, surfaces, curves)
    cells = max(count, 6)  # of fewer, the words around them would not fit
    figure = Figure(figsize=(0.9 + 1.75 * cells, 1.0 + 1.6 * cells))
    norm = norm_of(list(surfaces.values()))
    x, y = corners_of_triangle(lab.plan.grid)
    most = 1.05 * max(map(max, curves.values()))
    last = lab.plan.grid - 1
    # Surfaces of few are large, and reach below their boxes.
    bottom = 0.07 if count > 4 else 0.14
    left, right, top = 0.03, 0.985, 0.955
    width, height = (right - left) / count, (top - bottom) / count
    for i, j in itertools.product(range(count), repeat=2):
        box = [left + j * width, top - (i + 1) * height, width, height]
        if i > j:
            # Where there is room, wider than its box: three axes leave margins.
            axes: Any = figure.add_axes(
                (box[0] - 0.1 * width, box[1] - 0.1 * height, 1.2 * width,
                 1.2 * height),
                projection="3d", facecolor="none",
            )  # fmt: skip
            surface = surfaces[names[j], names[i]]
            draw_surface(axes, x, y, surface, norm, marks=((last, last), (last, 0)))
            axes.set_axis_off()
        elif i < j:
            axes = figure.add_axes(
                (box[0] + 0.2 * width, box[1] + 0.2 * height, 0.72 * width,
                 0.68 * height)
            )  # fmt: skip
            axes.plot(probes.FUNCTIONAL_ALPHAS, curves[names[i], names[j]],
                      color=CYCLE[0])  # fmt: skip
            axes.set_ylim(0, most)
            axes.set_xlim(0, 1)
            axes.tick_params(labelsize=6)
            tidy(axes)
        else:
            axes = figure.add_axes((box[0], box[1], width, height))
            axes.axis("off")
            axes.text(0.5, 0.5, TITLES[names[i]], ha="center", va="center",
                      fontsize=12, weight="bold")  # fmt: skip
    bar = figure.add_axes((0.08, 0.052, 0.4, 0.012))
    figure.colorbar(
        ScalarMappable(norm, SURFACE), cax=bar, orientation="horizontal",
        label="training loss (nats), of which heights are the logarithm: the start\n"
        "behind, left the column's minimum, right the row's"
        if isinstance(norm, LogNorm)
        else "training loss (nats), heights too: the start behind,\nleft the column's "
        "minimum, right the row's",
    )  # fmt: skip
    if isinstance(norm, LogNorm):
        # Less than a decade has labels too, and those of many do not touch.
        low, high = norm.vmin or 1.0, norm.vmax or 1.0
        many = high > 100 * low
        bar.xaxis.set_major_locator(LogLocator(subs=(1,) if many else (1, 2, 5)))
        bar.xaxis.set_major_formatter("{x:g}")
        bar.xaxis.set_minor_formatter(NullFormatter())
    bar.tick_params(labelsize=7)
    bar.xaxis.label.set_fontsize(8)
    figure.text(
        0.55, 0.03, "above the diagonal: functional distance of the row's network\n"
        "to those on the line to the column's (0 to 1)", fontsize=8, va="center",
    )  # fmt: skip
    figure.suptitle(f"Minima of {count} optimizers from one start: {lab.what}", y=0.985)
    return figure
