"""Figures 8 and 10 and table 1: between averages, large and small batches."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr
from matplotlib.figure import Figure

from experiments.asymmetric_valleys.drawing import band, panels
from experiments.asymmetric_valleys.lab import Lab
from experiments.asymmetric_valleys.networks import ALL, AVERAGE, Network
from experiments.asymmetric_valleys.presets import AFTER, LARGE, SGD, SMALL, SWA, Pair
from experiments.harness.paper import Result, shown
from experiments.harness.statistics import mean_and_interval
from lrscape import landscape
from lrscape.figures.style import COLORS, DARK, tidy
from lrscape.landscape import tree

Row = dict[str, Any]
# Where a line begins and ends, by what the figures call it.
ENDS = {
    "swa": ("SWA", "SGD after it"),
    "batch": ("large batch", "small batch"),
    "control": ("large batch", "large batch again"),
}
# Accuracies on CIFAR-100 in per cent, train and test.
PAPER = {
    ("preresnet110", "SWA"): (94.98, 78.94), ("preresnet110", "SGD"): (97.52, 78.29),
    ("preresnet164", "SWA"): (97.48, 80.69), ("preresnet164", "SGD"): (99.12, 76.56),
    ("densenet100", "SWA"): (99.84, 72.29), ("densenet100", "SGD"): (99.87, 71.46),
}  # fmt: skip


def choose(rows: list[Row], average: Row, *, authors: bool) -> tuple[int, bool]:
    """Which epoch of SGD after SWA is looked at.

    Args:
        rows: of its history, of epochs that were measured: ``epoch``, ``train_loss``,
            ``test_loss``.
        average: SWA's ``train_loss`` and ``test_loss``.
        authors: the last epoch whose training loss is below, and whose test loss above
            SWA's: it can bear nothing out but the paper. Otherwise, and where there is
            none, that of the least training loss, the first of equals.

    Returns:
        The epoch, and whether the authors' rule chose it.

    Raises:
        ValueError: no epoch after the first update was measured.
    """
    after = [row for row in rows if row["epoch"]]
    if authors:
        allowed = [
            row["epoch"]
            for row in after
            if row["train_loss"] < average["train_loss"]
            and row["test_loss"] > average["test_loss"]
        ]
        if allowed:
            return max(allowed), True
    return min(after, key=lambda row: row["train_loss"])["epoch"], False


def average_of(lab: Lab, pair: Pair, seed: int) -> Row:
    """Losses and errors of SWA's average after its last epoch."""
    row = lab.network(pair, SWA, seed).measured()[-1]
    kinds = [f"{part}_{name}" for part in ("train", "test") for name in _NAMES]
    return {kind: row[f"{ALL}_{kind}"] for kind in kinds}


_NAMES = ("loss", "error")


def chosen(lab: Lab, pair: Pair, seed: int) -> tuple[str, Row]:
    """The name of SGD's weights after SWA that are looked at, and its history's row."""
    after = lab.network(pair, AFTER, seed)
    rows = after.measured()
    epoch, _ = choose(
        rows, average_of(lab, pair, seed), authors=lab.settings.authors_rule
    )
    return after.name_of(epoch), next(row for row in rows if row["epoch"] == epoch)


def rule_of(lab: Lab, pair: Pair) -> str:
    """How the epochs of SGD after SWA were chosen, in words."""
    picked: list[tuple[str, str]] = []
    for seed in lab.seeds:
        rows = lab.network(pair, AFTER, seed).measured()
        average = average_of(lab, pair, seed)
        own, _ = choose(rows, average, authors=False)
        other, there = choose(rows, average, authors=True)
        picked.append((str(own), str(other) if there else "none"))
    by_train, theirs = (" ".join(names) for names in zip(*picked, strict=True))
    if lab.settings.authors_rule:
        return (
            f"SGD after SWA: epochs {theirs} by the authors' rule, which takes only "
            "one whose training loss is below and whose test loss is above SWA's, and "
            f"so forces what is shown; by training loss alone: {by_train}"
        )
    return (
        f"SGD after SWA: the epoch with the least training loss ({by_train}); the "
        f"authors' rule, which forces the conclusion, would take {theirs}"
    )


def line_of(lab: Lab, pair: Pair, kind: str, seed: int) -> Row:
    """Losses and errors along a line.

    Args:
        lab: has the networks.
        pair: model and data set.
        kind: a name in `ENDS`; its first end lies at 0, its second at 1.
        seed: of the networks.

    Returns:
        ``alphas``, and ``train_loss`` and so on, each as long; ``bump`` between the
        ends, of the training loss, and ``bump_error``, its standard error, paired by
        examples; ``distance`` between the ends.
    """
    survey = lab.survey
    if kind == "swa":
        end = lab.network(pair, AFTER, seed)
        name, _ = chosen(lab, pair, seed)
        points = lab.network(pair, SWA, seed).at(AVERAGE), end.at(name)
    else:
        end = lab.network(pair, SMALL if kind == "batch" else LARGE, seed)
        name = end.name_of(end.config.epochs)
        points = lab.network(pair, SGD, seed).final, end.final

    def make() -> Row:
        a, b = (point.params for point in points)
        alphas = np.linspace(*survey.ends, survey.line)
        way = landscape.line(a, b)
        found: Row = {"alphas": alphas.tolist()}
        for part in ("train", "test"):
            objective = lab.objective(end, part, line=True)
            losses = landscape.evaluate(objective, way, alphas)
            found |= {f"{part}_{k}": v.tolist() for k, v in losses.items()}
        losses = np.array(found["train_loss"])
        inside = np.flatnonzero((alphas > 1e-9) & (alphas < 1 - 1e-9))
        ends = [int(np.argmin(np.abs(alphas - at))) for at in (0, 1)]
        top = int(inside[np.argmax(losses[inside])])
        high = ends[int(np.argmax(losses[ends]))]
        objective = lab.objective(end, "train", line=True)
        found["bump"] = float(losses[top] - losses[high])
        found["bump_error"] = paired_error(
            objective, way(float(alphas[top])), way(float(alphas[high]))
        )
        found["distance"] = float(tree.norm(tree.subtract(b, a)))
        return found

    file = f"line-{kind}-{name}-{survey.line}-{survey.ends[0]:g}-{survey.examples}"
    return end.numbers(file, make)


def paired_error(objective: Any, a: Any, b: Any) -> float:
    """The standard error of a difference of two mean losses over the same examples."""
    each = [
        np.concatenate([
            np.asarray(filled.example_losses(point, filled.batch(i)), np.float64)
            for i in range(filled.num_batches)
        ])
        for point, filled in ((p, objective.at(p)) for p in (a, b))
    ]  # fmt: skip
    differences = each[0] - each[1]
    return float(differences.std(ddof=1) / np.sqrt(len(differences)))


def last_row(network: Network) -> Row:
    """What was measured after a network's last epoch."""
    return network.measured()[-1]


def fig8(lab: Lab, item: str = "fig8") -> Result:
    """Figure 8: between SWA and SGD that goes on from it."""
    return _between(lab, item, ("swa",), "no bump")


def fig10(lab: Lab) -> Result:
    """Figure 10: between a large batch's solution and a small batch's from there."""
    return _between(lab, "fig10", ("batch", "control"), "no bump")


def _between(lab: Lab, item: str, kinds: tuple[str, ...], paper: str) -> Result:
    rows: list[Row] = []
    variables: dict[str, Any] = {}
    drawn: dict[str, Figure] = {}
    notes = lab.notes(item)
    for pair in lab.pairs(item):
        model, dataset = pair
        for kind in kinds:
            found = [line_of(lab, pair, kind, seed) for seed in lab.seeds]
            alphas = np.array(found[0]["alphas"])
            at = [int(np.argmin(np.abs(alphas - a))) for a in (0, 1)]
            row: Row = {
                "network": model,
                "data": dataset,
                "line": " to ".join(ENDS[kind]),
                "bump (nats)": mean_and_interval([one["bump"] for one in found]),
                "its error": f"{np.mean([one['bump_error'] for one in found]):.2g}",
            }
            for name in ("train_loss", "test_loss"):
                values = np.array([np.array(one[name])[at] for one in found])
                row[name.replace("_", " ")] = " -> ".join(
                    f"{v:.4g}" for v in values.mean(axis=0)
                )
            for part in ("train", "test"):
                values = np.array([np.array(one[f"{part}_error"])[at] for one in found])
                row[f"{part} %"] = " -> ".join(
                    f"{100 * (1 - v):.4g}" for v in values.mean(axis=0)
                )
            row["distance"] = f"{np.mean([one['distance'] for one in found]):.3g}"
            row["paper"] = paper if kind != "control" else "-"
            rows.append(row)
            for name in ("train_loss", "test_loss", "train_error", "test_error"):
                values = np.array([one[name] for one in found])
                unit = {"units": "nat" if "loss" in name else "fraction"}
                variables[f"{dataset}_{model}_{kind}_{name}"] = (
                    ("seed", "alpha"), values, unit,
                )  # fmt: skip
            drawn["-".join([*pair, kind])] = _figure(pair, kind, found)
        if "swa" in kinds:
            notes.append(rule_of(lab, pair))
    coordinates = {"alpha": ("alpha", alphas, {"units": "1"})}
    notes.append(
        "bump: the highest training loss between the ends over the higher end's; its "
        "error is paired by examples"
    )
    return Result(rows, xr.Dataset(variables, coordinates), drawn, notes)


def _figure(pair: Pair, kind: str, found: list[Row]) -> Figure:
    figure, grid = panels(2)
    alphas = np.array(found[0]["alphas"])
    for axes, name in zip(grid, _NAMES, strict=True):
        for part in ("train", "test"):
            curves = np.array([one[f"{part}_{name}"] for one in found])
            if name == "error":
                curves = 100 * (1 - curves)
            label = "training" if part == "train" else part
            band(axes, alphas, curves, COLORS[part], label, marker=".")
        for at, end in zip((0, 1), ENDS[kind], strict=True):
            axes.axvline(at, color=DARK, linewidth=0.8, linestyle=":")
            axes.annotate(
                end, (at, 1), xycoords=("data", "axes fraction"), xytext=(3, -3),
                textcoords="offset points", va="top", fontsize=8, color=DARK,
                rotation=90,
            )  # fmt: skip
        axes.set_xlabel("share of the way")
        axes.set_ylabel("loss (nats)" if name == "loss" else "accuracy (%)")
        axes.legend(frameon=False, fontsize=8)
        tidy(axes)
    figure.suptitle(f"{pair[0]} on {pair[1]}: mean and range over {len(found)} seeds")
    return figure


def accuracies(lab: Lab, pair: Pair) -> dict[str, dict[str, np.ndarray]]:
    """Accuracies in per cent and losses of SWA and of SGD after it, seed by seed."""
    rows: dict[str, list[Row]] = {"SWA": [], "SGD": []}
    for seed in lab.seeds:
        rows["SWA"].append(average_of(lab, pair, seed))
        rows["SGD"].append(chosen(lab, pair, seed)[1])
    found: dict[str, dict[str, np.ndarray]] = {}
    for name, several in rows.items():
        found[name] = {}
        for part in ("train", "test"):
            errors = np.array([row[f"{part}_error"] for row in several])
            found[name][part] = 100 * (1 - errors)
            losses = np.array([row[f"{part}_loss"] for row in several])
            found[name][f"{part}_loss"] = losses
    return found


def table1(lab: Lab) -> Result:
    """Table 1: accuracies of weight averaging, and of SGD that goes on from there."""
    rows: list[Row] = []
    variables: dict[str, Any] = {}
    notes = lab.notes("table1")
    for pair in lab.pairs("table1"):
        model, dataset = pair
        for name, found in accuracies(lab, pair).items():
            paper = PAPER.get((model, name), (None, None))
            if dataset != "cifar100":
                paper = (None, None)
            rows.append(
                {
                    "network": f"{model}-{name}",
                    "data": dataset,
                    "train %": mean_and_interval(found["train"]),
                    "paper's": shown(paper[0]),
                    "test %": mean_and_interval(found["test"]),
                    "paper's ": shown(paper[1]),
                    "train loss": mean_and_interval(found["train_loss"]),
                    "test loss": mean_and_interval(found["test_loss"]),
                }
            )
            for kind, values in found.items():
                unit = {"units": "nat" if "loss" in kind else "%"}
                variables[f"{dataset}_{model}_{name}_{kind}"] = (
                    ("seed",), values, unit
                )  # fmt: skip
        notes.append(rule_of(lab, pair))
    notes.append(
        "whole training and test parts, batch norm's statistics estimated anew"
    )
    return Result(rows, xr.Dataset(variables), {}, notes)
