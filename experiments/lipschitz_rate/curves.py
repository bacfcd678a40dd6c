"""Figures 1 to 7: accuracy, loss and rate over epochs, on MNIST and CIFAR."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from experiments.harness.network import column
from experiments.harness.paper import Result, shown
from experiments.harness.statistics import mean_and_interval
from experiments.lipschitz_rate.lab import Lab
from experiments.lipschitz_rate.methods import Method
from lrscape.figures.style import COLORS, CYCLE, tidy
from lrscape.transforms import lipschitz_constant

History = list[dict[str, Any]]

# Percent: of training over the last epoch; "validation", which is the test set at its
# best epoch; "test", which is the test set after the last one.
PAPER = {
    ("mnist", "adaptive"): (98.57, 99.5, None),
    ("cifar10", "fixed"): (97.61, 87.02, None),
    ("cifar10", "adaptive"): (99.47, 89.37, 89.03),
    ("cifar100", "adaptive"): (99.68, 75.99, 73.26),
}
# The rate before any update: the text's, and the one in the authors' notebook.
FIRST_RATE = {"cifar10": (8e-3, 0.25), "cifar100": (1e-8, 2.3e-8)}


def accuracy(histories: Sequence[History], part: str) -> np.ndarray:
    """(seeds, epochs) in percent; of a failed run 0."""
    return 100 * (1 - column(histories, f"{part}_error", worst=1.0))


def row_of(lab: Lab, task: str, name: str, histories: Sequence[History]) -> dict:
    """A method's results, the paper's beside them."""
    train, test = (accuracy(histories, part) for part in ("train", "test"))
    failed = sum("diverged" in history[-1] for history in histories)
    paper = PAPER.get((task, name), (None, None, None))
    seconds = np.nanmedian(column(histories, "seconds")[:, 1:])
    losses = column(histories, "test_loss")
    return {
        "method": name,
        "data": lab.dataset_of(task),
        "epochs": lab.plans[task].epochs,
        "train %": mean_and_interval(train[:, -1]),
        "paper, train": shown(paper[0]),
        "test %, best epoch": mean_and_interval(test[:, 1:].max(axis=1)),
        "paper's 'validation'": shown(paper[1]),
        "test %, last epoch": mean_and_interval(test[:, -1]),
        "paper, test": shown(paper[2]),
        "test loss, last epoch": mean_and_interval(losses[:, -1]),
        "first rate": mean_and_interval([h[0].get("rate", np.nan) for h in histories]),
        "last rate": mean_and_interval(column(histories, "rate")[:, -1]),
        "failed": failed,
        "s/epoch": f"{seconds:.3g}",
    }


def _result(lab: Lab, task: str, found: Mapping[str, list[History]]):
    rows = [row_of(lab, task, name, histories) for name, histories in found.items()]
    variables = {}
    for name, histories in found.items():
        label = name.replace(" ", "_").replace(",", "")
        for part in (
            "train_error", "test_error", "train_loss", "test_loss", "rate"
        ):  # fmt: skip
            unit = "1" if part == "rate" else "nat" if "loss" in part else "fraction"
            values = column(histories, part)
            variables[f"{label}_{part}"] = (
                (f"{label}_seed", f"{label}_epoch"), values, {"units": unit}
            )  # fmt: skip
    adaptive = lab.adaptive(task)
    notes = [
        (
            "the paper's 'validation' is the test set, its accuracy that of the best "
            "epoch; neither number beside it comes from data of its own"
        ),
        (
            f"{lab.size_of(task)}; rates are those of an epoch's last update, drawn as "
            "steps where they are held for an epoch"
        ),
        *([f"adaptive rate: {feed_of(adaptive)}"] if "adaptive" in found else []),
        *_first_rates(lab, task, found.get("adaptive", ())),
        *_cap(lab, task, found),
    ]
    title = f"{lab.plans[task].model} on {lab.dataset_of(task)}"
    moving = ("adaptive",) if adaptive.feed == "free" else ()
    drawn = {
        "accuracy": curves_figure(found, title),
        "rate": rates_figure(found, title, moving=moving),
    }
    return Result(rows, xr.Dataset(variables), drawn, notes)


def feed_of(method: Method) -> str:
    """Where K_z comes from, in words."""
    words = {
        "free": "K_z from the updates' own forward passes, the largest of an epoch",
        "train": "K_z from a pass in train mode at each epoch's start",
        "inference": "K_z from a pass in inference mode at each epoch's start",
    }
    decay = f", time decay {method.time_decay:g}" if method.time_decay else ""
    form = "the paper's form" if method.form == "paper" else "the true bound"
    return f"1 / K in {form}; {words[method.feed]}{decay}"


def rate_at(lab: Lab, task: str, row: dict[str, Any], mode: str) -> float:
    """The rate that a pass at this point would give.

    Args:
        lab: has the task.
        task: one of its tasks.
        row: of a history.
        mode: of the pass, ``'train'`` or ``'inference'``.
    """
    network = lab.network(task, lab.adaptive(task), 0)
    weights = row["weight_norm" if mode == "train" else "weight_norm_all"]
    constant = lipschitz_constant(
        row[network.config.method.measured_as(mode)],
        num_classes=network.data.num_classes,
        batch_size=network.config.batch_size,
        form=network.config.method.form,
        norm=network.config.method.norm,
        weight_decay=network.config.weight_decay,
        weight_norm=weights,
    )
    return inverse(float(constant))


def inverse_constant(lab: Lab, task: str, row: dict[str, Any]) -> float:
    """1/K of the adaptive rate at the end of an epoch, neither cut nor decayed.

    Args:
        lab: has the task.
        task: one of its tasks.
        row: of the history of its adaptive method.
    """
    feed = lab.adaptive(task).feed
    if feed == "free" and "lipschitz_constant" in row:
        return inverse(row["lipschitz_constant"])
    return rate_at(lab, task, row, "train" if feed == "free" else feed)


def inverse(constant: float) -> float:
    """1/K; of zero activations infinite."""
    return 1 / constant if constant else np.inf


def _first_rates(lab: Lab, task: str, histories: Sequence[History]) -> list[str]:
    if not histories:
        return []
    found = {
        mode: mean_and_interval([rate_at(lab, task, h[0], mode) for h in histories])
        for mode in ("train", "inference")
    }
    said = ""
    if task in FIRST_RATE:
        text, notebook = FIRST_RATE[task]
        said = (
            f"; the text's first rate is {text:g}, the authors' notebook's {notebook:g}"
        )
    return [
        (
            f"before any update a pass gives the rate {found['train']} in train mode, "
            f"{found['inference']} in inference mode (before the cap){said}"
        )
    ]


def at_cap(history: History, max_rate: float) -> int:
    """Epochs whose last update's rate was cut at the largest one.

    Example:
        >>> rows = [{}, {'lipschitz_constant': 0.05}, {'lipschitz_constant': 0.2}]
        >>> at_cap(rows, 10.0)
        1
    """
    return sum(
        row["lipschitz_constant"] * max_rate < 1
        for row in history
        if "lipschitz_constant" in row
    )


def _cap(lab: Lab, task: str, found: Mapping[str, Sequence[History]]) -> list[str]:
    largest = lab.plans[task].max_rate
    cut = {
        name: sum(at_cap(history, largest) for history in histories)
        for name, histories in found.items()
        if name.startswith(("adaptive", "fixed"))
    }
    if not cut:
        return []
    reached = ", ".join(
        f"by {name} at {count} of {sum(len(h) - 1 for h in found[name])} epochs' ends"
        for name, count in cut.items()
        if count
    )
    return [
        (
            f"no rate is larger than {largest:g}, a cap that the paper does not have "
            f"(--max-rate), reached {reached or 'at the end of no epoch'}"
        )
    ]


def curves_figure(found: Mapping[str, Sequence[History]], title: str) -> Figure:
    """Accuracy and loss over epochs, the mean over seeds."""
    wide = 8.4 if len(found) > 3 else 6.4
    figure = Figure(figsize=(wide, 6), layout="constrained")
    upper, lower = figure.subplots(2, 1, height_ratios=(3, 2), sharex=True)
    for color, (name, histories) in zip(CYCLE, found.items(), strict=False):
        # A single method is drawn as the paper draws it: training beside test.
        one = len(found) == 1
        for part, style in (("train", "--"), ("test", "-")):
            values = accuracy(histories, part)[:, 1:]
            epochs = np.arange(1, 1 + values.shape[1])
            upper.plot(
                epochs, values.mean(axis=0), style,
                color=COLORS[part] if one else color,
                marker="." if len(epochs) < 50 else None,
                label=f"{name}, {part}" if one else name if part == "test" else None,
            )  # fmt: skip
            if part == "test" and len(values) > 1:
                upper.fill_between(
                    epochs, values.min(axis=0), values.max(axis=0), alpha=0.15,
                    color=COLORS[part] if one else color, linewidth=0,
                )  # fmt: skip
        for part, style in (("train", "--"), ("test", "-")):
            losses = column(histories, f"{part}_loss")[:, 1:]
            lower.plot(
                np.arange(1, 1 + losses.shape[1]), losses.mean(axis=0), style,
                marker="." if losses.shape[1] < 50 else None,
                color=COLORS[part] if one else color,
            )  # fmt: skip
    upper.set_ylabel("accuracy (%)")
    if len(found) > 1:
        upper.set_title("solid: test; dashed: training", fontsize=9)
    beside(upper, len(found))
    lower.set_ylabel("loss (nats)")
    lower.set_yscale("log")
    lower.set_xlabel("epoch")
    lower.xaxis.set_major_locator(MaxNLocator(integer=True))
    for axes in (upper, lower):
        tidy(axes)
    count = max(map(len, found.values()))
    figure.suptitle(f"{title}, mean of {count} seeds" if count > 1 else title)
    return figure


def beside(axes: Any, entries: int) -> None:
    """A legend, beside the axes where it is long."""
    place: dict[str, Any] = {}
    if entries > 3:
        place = {"loc": "upper left", "bbox_to_anchor": (1.0, 1.0)}
    axes.legend(frameon=False, fontsize="small", **place)


def rates_figure(
    found: Mapping[str, Sequence[History]], title: str, moving: Sequence[str] = ()
) -> Figure:
    """The rate over epochs; of many, from epoch 2 on as well.

    Args:
        found: histories, by what they are called.
        title: of the figure.
        moving: those whose rate changes within an epoch, of which the last is known;
            all others are held for an epoch, and drawn so.
    """
    every = {n: column(h, "rate") for n, h in found.items()}
    starts = [0, 2] if max(r.shape[1] for r in every.values()) > 5 else [0]
    wide = 8.4 if len(found) > 3 else 6.4
    figure = Figure(figsize=(wide, 1 + 2.5 * len(starts)), layout="constrained")
    panels = np.atleast_1d(figure.subplots(len(starts), 1))
    for axes, start in zip(panels, starts, strict=True):
        for color, (name, rates) in zip(CYCLE, every.items(), strict=False):
            epochs = np.arange(start, rates.shape[1])
            axes.plot(
                epochs, rates[:, start:].mean(axis=0), color=color, label=name,
                drawstyle="default" if name in moving else "steps-pre",
                marker="." if len(epochs) < 50 else None,
            )  # fmt: skip
        axes.set_ylabel("learning rate")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        tidy(axes)
    shown = np.concatenate([rates.ravel() for rates in every.values()])
    shown = shown[np.isfinite(shown) & (shown > 0)]
    if len(shown) and shown.max() > 10 * shown.min():
        panels[0].set_yscale("log")
    beside(panels[0], len(found))
    panels[-1].set_xlabel("epoch (0: the first update)")
    figure.suptitle(title)
    return figure


def methods_of(lab: Lab, task: str) -> dict[str, list[History]]:
    """The adaptive rate, the fixed one and the tuned constant, with equal budgets."""
    tuned = lab.tuned(task)
    return {
        **adaptive_of(lab, task),
        "fixed": fixed_of(lab, task),
        f"constant {tuned.rate:g}, tuned": lab.histories(task, tuned),
    }


def adaptive_of(lab: Lab, task: str) -> dict[str, list[History]]:
    """The adaptive rate as the preset feeds it, and beside it from another mode."""
    found = {"adaptive": lab.histories(task, lab.adaptive(task))}
    if other := lab.fed_otherwise(task):
        found[f"adaptive, {other.feed} mode"] = lab.histories(task, other)
    return found


def fixed_of(lab: Lab, task: str, adaptive: Method | None = None) -> list[History]:
    """The rates from the adaptive runs' first epochs, seed by seed."""
    return [
        lab.network(task, lab.fixed(task, seed, adaptive), seed).history()
        for seed in range(lab.plans[task].seeds)
    ]


def mnist(lab: Lab) -> Result:
    """Figures 1 and 2: accuracy, loss and rate on MNIST, with no rate given."""
    return _result(lab, "mnist", adaptive_of(lab, "mnist"))


def cifar10_fixed(lab: Lab) -> Result:
    """Figure 3: CIFAR-10 with a rate from the K_z of one epoch."""
    found = fixed_of(lab, "cifar10")
    result = _result(lab, "cifar10", {"fixed": found})
    rates = [history[0].get("rate", np.nan) for history in found]
    result.notes.append(
        f"fixed rates {mean_and_interval(rates)}, each from the K_z of its adaptive "
        "run's first epoch; the paper's is 0.668"
    )
    return result


def cifar10_adaptive(lab: Lab) -> Result:
    """Figures 4 and 5: CIFAR-10 with a rate that follows K_z, beside other rates."""
    found = methods_of(lab, "cifar10")
    result = _result(lab, "cifar10", found)
    adaptive, fixed = (accuracy(found[n], "test") for n in ("adaptive", "fixed"))
    first = [
        next((e for e, value in enumerate(one) if e and value > other[-1]), None)
        for one, other in zip(adaptive, fixed, strict=True)
    ]
    gaps = {
        name: mean_and_interval(
            accuracy(found[name], "train")[:, -1] - accuracy(found[name], "test")[:, -1]
        )
        for name in ("adaptive", "fixed")
    }
    result.notes += [
        "first epoch at which the adaptive rate is above the fixed one's last: "
        + ", ".join("never" if e is None else str(e) for e in first)
        + " (a seed each; the paper says 65 of 300)",
        (f"training minus test accuracy: adaptive {gaps['adaptive']}, fixed "
        f"{gaps['fixed']}"),
        f"constant rates tried on seed 0: "
        f"{' '.join(f'{rate:g}' for rate in lab.plans['cifar10'].rates)}, chosen on "
        + lab.chosen_on("cifar10"),
    ]  # fmt: skip
    return result


def cifar100(lab: Lab) -> Result:
    """Figures 6 and 7: CIFAR-100, ResNet-164, with a rate that follows K_z."""
    return _result(lab, "cifar100", adaptive_of(lab, "cifar100"))
