"""Figures 7 and 12 to 15: one optimizer until an epoch, another one after it."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import xarray as xr
from matplotlib.figure import Figure

from experiments.harness.network import Row
from experiments.harness.paper import Result
from experiments.harness.statistics import mean_and_interval
from experiments.loss_surfaces import probes
from experiments.loss_surfaces.lab import Lab
from experiments.loss_surfaces.methods import TITLES, Method
from experiments.loss_surfaces.networks import Network
from lrscape.figures.style import CYCLE, tidy

SHARES = (0.25, 0.5, 0.75)
# Figures 12 to 15 switch after 50 and 100 of 200 epochs.
EARLY = SHARES[:2]
SWITCHED = ("sgd", "adam", "adadelta")
# Percentage points within which a level is reached.
LEVEL = 1.0

# Of figure 7 one caption is legible, that of its last panel: from Adadelta to ADAM at
# this rate. In the other panels the tuned rates stand in.
CAPTION7 = {("adadelta", "adam"): 0.0001}

# By panel: the rates before the switch, by optimizer, and those after it. Adadelta's
# is 1. Figure 12's captions are read as Adam's, then SGD's. Figure 15's are figure 14's
# once more, rates of SGD, which it does not show: its rates are ours, ADAM's of figure
# 13.
_ADAM, _SGD, _DELTA = "adam", "sgd", "adadelta"
Rates = tuple[dict[str, float], dict[str, float]]
PANELS: dict[str, tuple[str, tuple[str, str], dict[str, Rates]]] = {
    "fig12": ("nin", (_SGD, _ADAM), {
        f"SGD {rate:g}": ({_SGD: 0.1, _ADAM: 0.001}, {_SGD: rate, _ADAM: 0.001})
        for rate in (0.1, 0.05, 0.01)
    }),
    "fig13": ("vgg", (_SGD, _ADAM), {
        f"SGD {sgd:g}, ADAM {adam:g}": (
            {_SGD: 0.05, _ADAM: 0.001}, {_SGD: sgd, _ADAM: adam}
        )
        for sgd, adam in ((0.05, 0.001), (0.05, 0.0005), (0.01, 0.0001))
    }),
    "fig14": ("vgg", (_SGD, _DELTA), {
        f"SGD {rate:g}": ({_SGD: 0.05, _DELTA: 1.0}, {_SGD: rate, _DELTA: 1.0})
        for rate in (0.1, 0.05, 0.01)
    }),
    "fig15": ("vgg", (_ADAM, _DELTA), {
        f"ADAM {rate:g}": ({_ADAM: 0.001, _DELTA: 1.0}, {_ADAM: rate, _DELTA: 1.0})
        for rate in (0.001, 0.0005, 0.0001)
    }),
}  # fmt: skip


class Switched(NamedTuple):
    """A run that was switched, and those that it is compared with.

    Attributes:
        first: the method that it began with.
        second: the one that took over.
        share: of the run after which it did.
        network: it.
        unswitched: the run that went on with the first.
        reordered: the same, whose examples came in another order from there on.
        new: the run that had the second from the start.
    """

    first: str
    second: str
    share: float
    network: Network
    unswitched: Network
    reordered: Network
    new: Network

    @property
    def epoch(self) -> int:
        """After which it was switched."""
        return self.network.config.method.after


def epoch_of(lab: Lab, share: float) -> int:
    """The epoch after which a share of the run is over; at least one."""
    return max(1, round(share * lab.plan.epochs))


def switched(
    lab: Lab, first: Method, second: Method, share: float, seed: int,
    decay: float = 0.0,
) -> Network:  # fmt: skip
    """A run that goes over from a method to another, trained."""
    method = dataclasses.replace(first, then=second, after=epoch_of(lab, share))
    network = lab.network(method, seed, decay=decay)
    network.history()
    return network


def directions(lab: Lab) -> list[tuple[str, str]]:
    """Every two of the optimizers that the paper switches between, both ways."""
    there = [n for n in SWITCHED if n in lab.plan.optimizers]
    return list(itertools.permutations(there, 2))


def taking_over(lab: Lab, one: str, other: str) -> Method:
    """What a run of figure 7 goes over to: at its caption's rate where it has one."""
    method = lab.method(other)
    rate = CAPTION7.get((one, other), method.rate)
    return dataclasses.replace(method, rate=rate)


def switches(lab: Lab, seed: int) -> list[Switched]:
    """Of every direction and share, from one start."""
    found = []
    for (one, other), share in itertools.product(directions(lab), SHARES):
        first, second = lab.method(one), taking_over(lab, one, other)
        new = lab.network(second, seed)
        new.history()
        again = lab.network(first, seed, order=1, reordered=epoch_of(lab, share))
        again.history()
        found.append(
            Switched(
                one, other, share, switched(lab, first, second, share, seed),
                lab.trained(one, seed), again, new,
            )
        )  # fmt: skip
    return found


def accuracy(history: Sequence[Row]) -> np.ndarray:
    """(epochs + 1,), training accuracy in percent; NaN from where a run failed."""
    return np.array([100 * (1 - row.get("train_error", np.nan)) for row in history])


def epochs_to_level(switched: np.ndarray, new: np.ndarray, epoch: int) -> float:
    """Epochs after a switch until accuracy is within `LEVEL` of the new method's.

    Args:
        switched: (epochs + 1,), in percent.
        new: likewise, of the run that had the new method from the start; its last
            value is the level.
        epoch: after which it was switched.

    Returns:
        The epochs; one more than were left where the level is not reached; 0 where it
        was at that level already; NaN where a run failed.

    Example:
        >>> epochs_to_level(np.array([0, 50, 60, 89.5, 90]), np.array([0, 90.0]), 2)
        1.0
    """
    after = switched[epoch:]
    if not len(after) or not np.isfinite([*after, new[-1]]).all():
        return float("nan")
    near = np.abs(after - new[-1]) <= LEVEL
    return float(np.argmax(near) if near.any() else len(near))


def slope_after(distances: np.ndarray, epoch: int) -> float:
    """The slope of the distance over the epochs after a switch, a least-squares fit.

    NaN where a run failed.

    Example:
        >>> round(slope_after(np.array([0.0, 5.0, 9.0, 8.0, 7.0]), 2), 6)
        -1.0
    """
    after = distances[epoch:]
    if len(after) < 2 or not np.isfinite(after).all():
        return float("nan")
    return float(np.polyfit(np.arange(len(after)), after, 1)[0])


def distances(history: Sequence[Row]) -> np.ndarray:
    """(epochs + 1,), how far the weights are from the initial ones."""
    return np.array([row.get("distance", np.nan) for row in history])


def fig7(lab: Lab) -> Result:
    """Figure 7: switching after 25, 50 and 75 % of the epochs."""
    lab = lab.of("nin")
    rows: list[dict[str, Any]] = []
    by_direction: dict[frozenset[str], list[Switched]] = {}
    all_found = [switches(lab, seed) for seed in lab.seeds]
    for i, one in enumerate(all_found[0]):
        runs = [found[i] for found in all_found]
        rows.append(
            {
                "from": TITLES[one.first],
                "to": f"{TITLES[one.second]} {one.new.config.method.rate:g}",
                "after": f"{100 * one.share:g} %",
                "barrier to unswitched": mean_and_interval(
                    [probes.barrier_between(lab, r.network, r.unswitched) for r in runs]
                ),
                "control, reordered": mean_and_interval(
                    [probes.barrier_between(lab, r.reordered, r.unswitched)
                     for r in runs]
                ),
                "epochs to the level": mean_and_interval(
                    [epochs_to_level(accuracy(r.network.history()),
                                     accuracy(r.new.history()), r.epoch) for r in runs]
                ),
                "distance's slope after": mean_and_interval(
                    [slope_after(distances(r.network.history()), r.epoch) for r in runs]
                ),
                "train %, last": mean_and_interval(
                    [accuracy(r.network.history())[-1] for r in runs]
                ),
            }
        )  # fmt: skip
        by_direction.setdefault(frozenset((one.first, one.second)), []).append(one)
    figures: dict[str, Figure] = {}
    variables: dict[str, Any] = {}
    for pair, found in by_direction.items():
        named = [n for n in SWITCHED if n in pair]
        networks = {TITLES[n]: lab.trained(n, 0) for n in named}
        for one in found:
            if one.new.config.method != lab.method(one.second):
                label = f"{TITLES[one.second]} {one.new.config.method.rate:g}"
                networks[label] = one.new
            label = f"{TITLES[one.first]} {one.epoch}, {TITLES[one.second]}"
            networks[label] = one.network
        figures["-".join(named)] = _figure(lab, {"": networks}, " and ".join(
            TITLES[n] for n in named))  # fmt: skip
        variables |= _variables(networks)
    notes = [
        lab.note(),
        lab.tuned_note([n for n in SWITCHED if n in lab.plan.optimizers])
        + "; after a switch from Adadelta ADAM takes 0.0001, the caption's; those of "
        "the other panels are not legible",
        (
            "control: the same method throughout, whose examples come in another order "
            "after that epoch; the level: the last training accuracy of the new method "
            f"from the start, within {LEVEL:g} point; figures of seed 0"
        ),
    ]
    return Result(rows, xr.Dataset(variables), figures, notes)


def panels(item: str, lab: Lab) -> Result:
    """A figure of the appendix: switches after 25 and 50 %, by the captions' rates."""
    network, pair, rates = PANELS[item]
    lab = lab.of(network)
    rows: list[dict[str, Any]] = []
    drawn: dict[str, dict[str, Network]] = {}
    variables: dict[str, Any] = {}
    for panel, (before, after) in rates.items():
        start = {n: Method(optimizer=n, rate=before[n]) for n in pair}
        networks = {TITLES[n]: lab.network(start[n], 0) for n in pair}
        for one, other in itertools.permutations(pair, 2):
            second = Method(optimizer=other, rate=after[other])
            for share in EARLY:
                runs = [
                    (switched(lab, start[one], second, share, seed),
                     lab.network(start[one], seed))
                    for seed in range(min(lab.plan.panel_seeds, lab.plan.seeds))
                ]  # fmt: skip
                epoch = runs[0][0].config.method.after
                networks[f"{TITLES[one]} {epoch}, {TITLES[other]}"] = runs[0][0]
                rows.append(
                    {
                        "panel": panel,
                        "from": f"{TITLES[one]} {before[one]:g}",
                        "to": f"{TITLES[other]} {after[other]:g}",
                        "after epoch": epoch,
                        "barrier to unswitched": mean_and_interval(
                            [probes.barrier_between(lab, *run) for run in runs]
                        ),
                        "distance's slope after": mean_and_interval(
                            [slope_after(distances(run.history()), epoch)
                             for run, _ in runs]
                        ),
                        "train %, last": mean_and_interval(
                            [accuracy(run.history())[-1] for run, _ in runs]
                        ),
                    }
                )  # fmt: skip
        drawn[panel] = networks
        variables |= {f"{panel}_{n}": v for n, v in _variables(networks).items()}
    variables = {n.replace(", ", "_").replace(" ", "_"): v
                 for n, v in variables.items()}  # fmt: skip
    title = " and ".join(TITLES[n] for n in pair)
    notes = [lab.note(), "rates after the switch: the panel's; before it: the rows'"]
    if item == "fig15":
        notes.append(
            "the paper's caption repeats figure 14's rates, of SGD: those here are "
            "ours, ADAM's of figure 13"
        )
    return Result(
        rows, xr.Dataset(variables), {"": _figure(lab, drawn, title)}, notes
    )  # fmt: skip


def fig12(lab: Lab) -> Result:
    """Figure 12: NIN, SGD and ADAM switched, by three rates."""
    return panels("fig12", lab)


def fig13(lab: Lab) -> Result:
    """Figure 13: VGG, SGD and ADAM switched, by three pairs of rates."""
    return panels("fig13", lab)


def fig14(lab: Lab) -> Result:
    """Figure 14: VGG, SGD and Adadelta switched, by three rates."""
    return panels("fig14", lab)


def fig15(lab: Lab) -> Result:
    """Figure 15: VGG, ADAM and Adadelta switched, by three rates."""
    return panels("fig15", lab)


def _variables(networks: dict[str, Network]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, network in networks.items():
        label = name.replace(", ", "_").replace(" ", "_").replace("&", "_")
        history = network.history()
        dims = (f"{label}_epoch",)
        found[f"{label}_accuracy"] = (dims, accuracy(history), {"units": "percent"})
        found[f"{label}_distance"] = (dims, distances(history))
    return found


def _figure(lab: Lab, drawn: dict[str, dict[str, Network]], title: str) -> Figure:
    """A row a panel: accuracy, distance from the start, and the lines between."""
    figure = Figure(figsize=(13, 0.6 + 3.4 * len(drawn)), layout="constrained")
    grid = figure.subplots(len(drawn), 3, squeeze=False)
    alphas = probes.pair_alphas(lab)
    for (panel, networks), row in zip(drawn.items(), grid, strict=True):
        whole = {
            name: network for name, network in networks.items() if not network.failed()
        }
        first = next(iter(whole.items()), None)
        low = 100.0
        for i, (name, network) in enumerate(networks.items()):
            history = network.history()
            style = {"color": CYCLE[i % len(CYCLE)], "linewidth": 1.3}
            seen = accuracy(history)
            row[0].plot(seen, label=name, **style)
            low = min(low, float(seen[len(seen) // 6]))
            row[1].plot(distances(history), **style)
            if network.config.method.after:
                for axes in row[:2]:
                    axes.axvline(network.config.method.after, color="#cccccc", lw=0.7)
            if first is not None and name in whole and network is not first[1]:
                losses = probes.line(lab, first[1], network, alphas)
                row[2].plot(alphas, losses, **style)
        row[0].set_ylim(low - 1, min(row[0].get_ylim()[1], 100.5))
        row[0].set_ylabel(f"{panel}\ntraining accuracy (%)" if panel else
                          "training accuracy (%)")  # fmt: skip
        row[1].set_ylabel("distance from the start")
        row[2].set_ylabel("training loss (nats)")
        row[2].set_yscale("log")
        for axes in row[:2]:
            axes.set_xlabel("epoch")
        if first is not None:
            row[2].set_xlabel(f"from {first[0]}'s minimum (0) to the others' (1)")
        row[0].legend(frameon=False, fontsize="x-small")
        for axes in row:
            tidy(axes)
    figure.suptitle(f"{lab.what}: {title}; a name, the epoch, and what follows")
    return figure
