"""Theorems 1 and 2, figures 5, 6, 23 and 24, and the toy with two parameters."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from matplotlib.figure import Figure

from experiments.asymmetric_valleys import bias, toy
from experiments.asymmetric_valleys.drawing import panels
from experiments.asymmetric_valleys.lab import Lab
from experiments.asymmetric_valleys.one_dimensional import (
    VALLEYS,
    Valley,
    descend,
    interval,
    rounds,
)
from experiments.harness.paper import Result
from experiments.harness.statistics import mean_and_interval
from lrscape.figures.style import CYCLE, DARK, tidy

Row = dict[str, Any]
RATE = 0.01
# Iterates before these are not looked at over all: the start is forgotten.
SETTLED = 20


class Case(NamedTuple):
    """How SGD is run on a function of one variable.

    Attributes:
        noise: its bound.
        start: as far as this on either side.
        steps: updates.
        settled: iterates that are passed over, in averages over all.
    """

    noise: float
    start: float
    steps: int
    settled: int


# The names are those of `VALLEYS`.
CASES = {
    "asymmetric": Case(1.0, 0.1, 400, SETTLED),
    "asymmetric, smooth": Case(0.1, 1.0, 300, 0),
    "symmetric, sharp": Case(1.0, 0.1, 400, SETTLED),
    "symmetric, flat": Case(0.5, 1.0, 400, 0),
}


def paths_of(name: str, count: int) -> jax.Array:
    """(count, steps + 1), iterates from equally many starts on either side."""
    case = CASES[name]
    starts = case.start * jnp.where(jnp.arange(count) % 2 == 0, 1.0, -1.0)
    return descend(
        jax.random.key(0), VALLEYS[name], starts, rate=RATE, noise=case.noise,
        num_steps=case.steps,
    )  # fmt: skip


def overall(name: str, count: int) -> np.ndarray:
    """(count,), the mean iterate of each run, the first ones left out."""
    paths = np.asarray(paths_of(name, count)[:, CASES[name].settled :], np.float64)
    return paths.mean(axis=1)


def round_means(name: str, count: int, num_rounds: int) -> np.ndarray:
    """(count, num_rounds), the mean of each round; NaN of one that did not end."""
    return rounds(paths_of(name, count), num_rounds).means


def losses_of(valley: Valley, at: np.ndarray) -> np.ndarray:
    """The function itself, from its slopes; 0 at its minimum."""
    fine = np.linspace(min(at.min(), 0), max(at.max(), 0), 4001)
    slopes = np.asarray(valley.slope(jnp.asarray(fine)))
    heights = np.concatenate(
        [[0.0], np.cumsum((slopes[1:] + slopes[:-1]) / 2 * np.diff(fine))]
    )
    heights -= np.interp(0.0, fine, heights)
    return np.interp(at, fine, heights)


def fig5(lab: Lab) -> Result:
    """Figure 5: SGD on an asymmetric function of one variable, with oscillation."""
    return _one_dimension(lab, ("asymmetric",), shown=80)


def fig6(lab: Lab) -> Result:
    """Figure 6: without oscillation; figures 23 and 24: on symmetric functions."""
    names = ("asymmetric, smooth", "symmetric, flat", "symmetric, sharp")
    return _one_dimension(lab, names, shown=150)


def _one_dimension(lab: Lab, names: tuple[str, ...], shown: int) -> Result:
    rows: list[Row] = []
    drawn: dict[str, Figure] = {}
    variables: dict[str, Any] = {}
    papers = {
        "asymmetric": "flat side", "asymmetric, smooth": "flat side",
        "symmetric, flat": "the side it started on", "symmetric, sharp": "center",
    }  # fmt: skip
    for name in names:
        means = overall(name, lab.settings.theory.runs)
        mean, low, high = interval(means)
        paths = np.asarray(paths_of(name, 2))[:, : shown + 1]
        key = name.replace(", ", "_")
        variables[f"{key}_path"] = (("start", f"{key}_step"), paths, {"units": "1"})
        drawn[key] = _path_figure(name, paths)
        jumps = np.asarray(paths_of(name, 100)) > 0
        rows.append(
            {
                "function": name,
                "runs": len(means),
                "crosses 0, per 100 updates": f"{100 * _crossings(jumps):.3g}",
                "mean of all iterates": f"{mean:.3g}",
                "99 % interval": f"{low:.3g} to {high:.3g}",
                "from a flat start": f"{means[::2].mean():.3g}",
                "from the other": f"{means[1::2].mean():.3g}",
                "paper": papers[name],
            }
        )
    notes = [
        (
            f"rate {RATE:g}; noise uniform, starts alternately on either side; "
            "positive: the flat side. The paper's functions are not given: these are "
            "of its shapes"
        )
    ]
    return Result(rows, xr.Dataset(variables), drawn, notes)


def _crossings(flat: np.ndarray) -> float:
    return float((flat[:, 1:] != flat[:, :-1]).mean())


def _path_figure(name: str, paths: np.ndarray) -> Figure:
    figure, (left, right) = panels(2)
    reach = 1.2 * np.abs(paths).max()
    at = np.linspace(-reach, reach, 400)
    left.plot(at, losses_of(VALLEYS[name], at), color=DARK, linewidth=1.2)
    for color, start, path in zip(
        CYCLE, ("first start", "second start"), paths, strict=False
    ):
        heights = losses_of(VALLEYS[name], path)
        left.plot(path, heights, ".", color=color, markersize=4, label=start)
        average = path.mean()
        left.axvline(average, color=color, linestyle="--", linewidth=1.2)
        right.plot(path, color=color, linewidth=1, marker=".", markersize=3)
        right.axhline(average, color=color, linestyle="--", linewidth=1.2)
    left.plot([], [], "--", color=DARK, label="mean of the iterates")
    left.set_xlabel("w (flat side +)" if "asymmetric" in name else "w")
    left.set_ylabel("loss")
    left.legend(frameon=False, fontsize=8)
    right.axhline(0, color=DARK, linewidth=0.6)
    right.set_xlabel("update")
    right.set_ylabel("w")
    for axes in (left, right):
        tidy(axes)
    figure.suptitle(f"SGD on an {name} function".replace("an symm", "a symm"))
    return figure


def theorem2(lab: Lab) -> Result:
    """Theorem 2: the mean of each round of oscillation, on the flat side or not."""
    theory, rows = lab.settings.theory, []
    figure, (axes,) = panels(1, width=6)
    variables: dict[str, Any] = {}
    for color, (name, case) in zip(CYCLE, CASES.items(), strict=False):
        valley = VALLEYS[name]
        everything = interval(overall(name, theory.runs))
        measured = {"all iterates": everything}
        if name != "asymmetric, smooth":  # which does not oscillate
            means = round_means(name, theory.runs, theory.rounds)
            for k in range(theory.rounds):
                measured[f"round {k + 1}"] = interval(
                    means[np.isfinite(means[:, k]), k]
                )
            found = np.array([measured[f"round {k + 1}"] for k in range(theory.rounds)])
            number = np.arange(1, theory.rounds + 1)
            axes.errorbar(
                number, found[:, 0], (found[:, 2] - found[:, 1]) / 2, color=color,
                marker=".", capsize=3, label=name,
            )  # fmt: skip
            key = name.replace(", ", "_")
            variables[f"{key}_round"] = (("run", "round"), means, {"units": "1"})
            ended = f"{np.isfinite(means).all(axis=1).mean():.3g}"
        for what, (mean, low, high) in measured.items():
            rows.append(
                {
                    "function": name,
                    "c": f"{valley.c:.3g}",
                    "the theorem's": valley.meets_theorem_2(case.noise),
                    "mean of": what,
                    "found": f"{mean:.3g}",
                    "99 % interval": f"{low:.3g} to {high:.3g}",
                    "runs with all rounds": ended if "round" in what else "-",
                    "paper": "> 0" if valley.meets_theorem_2(case.noise) else "-",
                }
            )
    axes.axhline(0, color=DARK, linewidth=0.8, linestyle=":")
    axes.set_xlabel("round of oscillation")
    axes.set_ylabel("mean iterate, 99 % interval")
    axes.legend(frameon=False, fontsize=8)
    tidy(axes)
    notes = [
        (
            f"{theory.runs} runs at a rate of {RATE:g}; a round begins with the jump "
            "from the sharp side to the flat one, so that rounds of symmetric "
            "functions, which begin on the same side, need not average to 0: all their "
            "iterates do"
        )
    ]
    return Result(rows, xr.Dataset(variables), {"": figure}, notes)


class Gains(NamedTuple):
    """Theorem 1 on random landscapes; see `gains_of`.

    Attributes:
        gains: (n,), of admissible biases.
        bounds: (n,), what the theorem says of them.
        outside: how the bias lies otherwise -> (n,) gains.
    """

    gains: np.ndarray
    bounds: np.ndarray
    outside: dict[str, np.ndarray]


def gains_of(count: int) -> Gains:
    """Draws landscapes and biases, within what Theorem 1 admits and outside."""
    random = np.random.default_rng(0)
    gains, bounds = np.empty(count), np.empty(count)
    outside: dict[str, list[float]] = {
        "to the sharp side": [], "four times too far": [], "shorter than it asks": [],
    }  # fmt: skip
    for i in range(count):
        k = int(random.integers(1, 6))
        landscape = bias.draw(random, k)
        low, high = landscape.shortest, landscape.longest
        # Not quite the shortest, which the theorem excludes.
        to_flat = high - random.uniform(0, 0.999, k) * (high - low)
        assert landscape.admits(to_flat)
        gains[i] = bias.gain(landscape, to_flat)
        bounds[i] = bias.bound(landscape, to_flat)
        others = (-to_flat, 4 * landscape.c * landscape.r, low / 2)
        for found, other in zip(outside.values(), others, strict=True):
            found.append(bias.gain(landscape, other))
    return Gains(gains, bounds, {k: np.array(v) for k, v in outside.items()})


def theorem1(lab: Lab) -> Result:
    """Theorem 1: what a bias to the flat side gains, beside the bound."""
    found = gains_of(lab.settings.theory.landscapes)
    rows: list[Row] = [
        {
            "bias": "admissible",
            "draws": len(found.gains),
            "gain > 0": f"{(found.gains > 0).mean():.4g}",
            "gain >= bound": f"{(found.gains >= found.bounds * (1 - 1e-9)).mean():.4g}",
            "median of gain / bound": f"{np.median(found.gains / found.bounds):.3g}",
            "paper": "all, all",
        }
    ]
    rows += [
        {
            "bias": name,
            "draws": len(gains),
            "gain > 0": f"{(gains > 0).mean():.4g}",
            "gain >= bound": "-",
            "median of gain / bound": "-",
            "paper": "-",
        }
        for name, gains in found.outside.items()
    ]
    figure, (axes,) = panels(1, width=5)
    axes.loglog(found.bounds, found.gains, ".", color=CYCLE[0], markersize=2)
    ends = [found.bounds.min(), found.bounds.max()]
    axes.loglog(ends, ends, color=DARK, linewidth=1, label="gain = bound")
    axes.set_xlabel("the theorem's bound")
    axes.set_ylabel("gain in the expected population loss")
    axes.legend(frameon=False)
    tidy(axes)
    dataset = xr.Dataset(
        {
            "gain": ("draw", found.gains, {"units": "nat"}),
            "bound": ("draw", found.bounds, {"units": "nat"}),
        }
    )
    notes = [
        (
            "random landscapes of 1 to 5 directions, the shift gap as unfavourable as "
            "it may be; assumptions and bound as rederived, the text has lost them"
        )
    ]
    return Result(rows, dataset, {"": figure}, notes)


def toy_item(lab: Lab) -> Result:
    """The toy: logistic regression with two parameters, and its average."""
    theory = lab.settings.theory
    found = jax.tree.map(
        np.asarray,
        toy.train(jax.random.key(0), num_seeds=theory.toys, num_fresh=theory.fresh),
    )
    rows: list[Row] = []
    for name, losses in {
        "training": found.losses, "fresh": found.fresh_losses
    }.items():  # fmt: skip
        rows.append(
            {
                "examples": name,
                "last iterate (nats)": mean_and_interval(losses[:, 0]),
                "average": mean_and_interval(losses[:, 1]),
                "last minus average": mean_and_interval(losses[:, 0] - losses[:, 1]),
                "average is better": f"{(losses[:, 1] < losses[:, 0]).mean():.2f}",
                "paper": "-",
            }
        )
    figure, (left, right) = panels(2)
    for path in found.paths:
        left.plot(*path.T, color=CYCLE[0], alpha=0.3, linewidth=0.8)
    left.plot(*found.paths[:, -1].T, ".", color=CYCLE[1], label="last iterate")
    left.plot(*found.average.T, "+", color=CYCLE[2], label="average")
    left.set_xlabel("weight")
    left.set_ylabel("bias")
    left.legend(frameon=False, fontsize=8)
    right.plot(found.train_losses.T, color=CYCLE[0], alpha=0.3, linewidth=0.8)
    right.plot(found.train_losses.mean(axis=0), color=DARK, linewidth=1.6)
    right.set_xlabel("epoch")
    right.set_ylabel("training loss (nats)")
    for axes in (left, right):
        tidy(axes)
    dataset = xr.Dataset(
        {
            "path": (("seed", "epoch", "parameter"), found.paths, {"units": "1"}),
            "train_loss": (("seed", "epoch"), found.train_losses, {"units": "nat"}),
            "fresh_loss": (("seed", "point"), found.fresh_losses, {"units": "nat"}),
        }
    )
    notes = [
        (
            f"{toy.EXAMPLES} examples a class from N(1, 1) and N(-1, 1), full batch, "
            f"rate {toy.RATE:g}, {toy.EPOCHS} epochs, {theory.toys} seeds: the "
            "authors' numbers. In so few steps descent is far from its minimum, and an "
            "average behind it"
        )
    ]
    return Result(rows, dataset, {"": figure}, notes)
