"""Tables 1 and 2 and figure 8: barriers, and heights above the valley's floor."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import xarray as xr
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from experiments.harness.paper import Result
from experiments.harness.statistics import mean_and_interval
from experiments.walk_with_sgd.lab import Lab
from experiments.walk_with_sgd.presets import Plan
from experiments.walk_with_sgd.result import barriers, joined, on_both
from lrscape.figures.style import CYCLE, tidy

# Paper 3, Tables 1 and 2: by network, rate and epoch.
BARRIERS = {
    "vgg11": {1: 0, 10: 0, 25: 5, 100: 13},
    "resnet56": {1: 0, 10: 0, 25: 2, 100: 23},
    "mlp": {1: 0, 10: 3, 25: 5},
}
HEIGHTS = {
    ("vgg11", 0.1): {1: 0.0625, 10: 0.0199, 25: 0.0104, 100: 0.0025},
    ("vgg11", 0.05): {1: 0.0102, 10: 0.0050, 25: 0.0035, 100: 0.0011},
    ("resnet56", 0.3): {1: 0.0380, 10: 0.0131, 25: 0.0094, 100: 0.0017},
}

# The rate is divided by it where Sec. 6 looks for barriers on the floor.
SMALL = 10


def walks_of(lab: Lab, model: str, rate: float, epoch: int) -> list[xr.Dataset]:
    """The walks over an epoch, one a seed."""
    plan = lab.plan(model)
    networks = [lab.network(model, rate=rate, seed=seed) for seed in range(plan.seeds)]
    return [
        network.walk(network.span(epoch, plan.updates), plan.sample)
        for network in networks
    ]


def table1(lab: Lab) -> Result:
    """Barriers crossed in an epoch, their heights, and how many are on two samples."""
    return _table(lab, "table1", lambda model: lab.rates(model)[:1], _barriers)


def fig8(lab: Lab) -> Result:
    """Barriers crossed in each of the epochs that the figure counts."""
    result = _table(lab, "fig8", lambda model: lab.rates(model)[:1], _barriers, counted)
    for model in lab.models_of("fig8"):
        result.figures[model] = _figure_8(lab, model)
    return result


def counted(plan: Plan) -> tuple[int, ...]:
    """The epochs of figure 8."""
    return plan.counted or plan.epochs


def table2(lab: Lab) -> Result:
    """Mean height above the valley's floor, at two rates."""
    return _table(lab, "table2", lambda model: lab.rates(model, "table2"), _heights)


def sec6(lab: Lab) -> Result:
    """Barriers crossed at a tenth of the rate, beside those at the rate itself."""

    def rates(model: str) -> tuple[float, ...]:
        usual, _ = lab.rates(model)
        return usual, usual / SMALL

    def row_of(model, rate, epoch, walks):
        row = _barriers(model, rate, epoch, walks)
        return {k: v for k, v in row.items() if k != "paper"}

    return _table(lab, "sec6", rates, row_of)


def _table(
    lab: Lab,
    item: str,
    rates: Callable[[str], tuple[float, ...]],
    row_of: Callable[..., dict[str, Any]],
    epochs: Callable[[Plan], tuple[int, ...]] = lambda plan: plan.epochs,
) -> Result:
    rows, walks = [], {}
    models = lab.models_of(item)
    for model in models:
        plan = lab.plan(model)
        for rate in rates(model):
            network = lab.network(model, rate=rate, seed=0)
            for epoch in epochs(plan):
                found = walks_of(lab, model, rate, epoch)
                walks[f"{model}-{rate:g}-{epoch}"] = found
                about = {
                    "network": model,
                    "data": network.config.dataset,
                    "rate": rate,
                    "epoch": epoch,
                    "updates": len(found[0]["step"]),
                    "of": network.steps_per_epoch,
                }
                rows.append({**about, **row_of(model, rate, epoch, found)})
    notes = [
        "losses in nats on a fixed sample, batch norm in train mode: "
        + "; ".join(
            f"{m}: {p.sample.examples or 'all'} examples in batches of "
            f"{p.sample.batch_size}, {p.seeds} seed{'s' if p.seeds > 1 else ''}"
            for m, p in ((m, lab.plan(m)) for m in models)
        ),
        "a value over several seeds is their mean, with its 95 % t interval",
    ]
    spent = {
        model: np.median([
            walk["seconds"].median() for name, found in walks.items()
            if name.startswith(f"{model}-") for walk in found
        ])
        for model in models
    }  # fmt: skip
    notes.append(
        "seconds that an update's ground took when it was measured: "
        + ", ".join(f"{model} {seconds:.3g}" for model, seconds in spent.items())
    )
    if lab.authors:
        notes.append(
            "redrawn: the sample is shuffled and augmented anew at every point, as the "
            "authors' code does; what of it is not on the fixed sample is noise"
        )
    return Result(rows, joined(walks), {}, notes)


def relative_heights(
    walks: Sequence[xr.Dataset],
    crossed: Callable[[xr.Dataset], np.ndarray] | None = None,
) -> np.ndarray:
    """The heights of the barriers that were crossed, as shares of the loss.

    Args:
        walks: of one network or several.
        crossed: which count, `barriers` or `on_both`; None is `barriers`.
    """
    counts = crossed or barriers
    return np.concatenate([
        (walk["barrier_height"].values / walk["loss"].values[:, 0])[counts(walk)]
        for walk in walks
    ])  # fmt: skip


def _barriers(model, rate, epoch, walks) -> dict[str, Any]:
    both = [on_both(walk) for walk in walks if "second_crosses_barrier" in walk]
    shares = relative_heights(walks)
    row = {
        "barriers": mean_and_interval([barriers(walk).sum() for walk in walks]),
        "on both samples": mean_and_interval([b.sum() for b in both]),
        "highest / loss": f"{shares.max():.2e}" if len(shares) else "none",
    }
    if "redrawn_loss" in walks[0]:
        redrawn = [barriers(walk, "redrawn_") for walk in walks]
        kept = [r & barriers(w) for r, w in zip(redrawn, walks, strict=True)]
        row |= {
            "redrawn": mean_and_interval([r.sum() for r in redrawn]),
            "of these on the fixed sample": mean_and_interval([k.sum() for k in kept]),
        }
    return {**row, "paper": BARRIERS.get(model, {}).get(epoch, "-")}


def _heights(model, rate, epoch, walks) -> dict[str, Any]:
    floors = [walk["has_floor"].values.astype(bool).mean() for walk in walks]
    return {
        "height": mean_and_interval([float(w["height"].mean()) for w in walks]),
        "share with a floor": mean_and_interval(floors),
        "paper": HEIGHTS.get((model, rate), {}).get(epoch, "-"),
    }


def _figure_8(lab: Lab, model: str) -> Figure:
    """Barriers an epoch; and how high they are beside the loss."""
    plan, (rate, _) = lab.plan(model), lab.rates(model)
    figure = Figure(figsize=(6.4, 5), layout="constrained")
    counts, heights = figure.subplots(2, 1, sharex=True)
    parts: dict[str, Callable[[xr.Dataset], Any]] = {
        "on the first sample": lambda walk: barriers(walk).sum(),
        "on both samples": lambda walk: on_both(walk).sum(),
    }
    if plan.sample.redrawn:
        parts["redrawn at each point"] = lambda walk: barriers(walk, "redrawn_").sum()
    walks = {epoch: walks_of(lab, model, rate, epoch) for epoch in counted(plan)}
    most = 0.0
    # Open and smaller from one to the next: where they agree all are seen.
    styles = zip(("o-", "s--", "^:"), (9, 6, 4), CYCLE, strict=False)
    for (name, count), (style, size, color) in zip(parts.items(), styles, strict=False):
        means = [np.mean([count(walk) for walk in found]) for found in walks.values()]
        most = max(most, *means)
        counts.plot(
            list(walks), means, style, color=color, label=name, markersize=size,
            markerfacecolor="none",
        )  # fmt: skip
    for epoch, found in walks.items():
        shares = relative_heights(found)
        heights.plot([epoch] * len(shares), shares, ".", color=CYCLE[0], alpha=0.6)
    updates = len(next(iter(walks.values()))[0].step)
    counts.set_ylabel(f"barriers in {updates} updates")
    counts.set_ylim(0, max(1.0, 1.1 * most))
    counts.legend(frameon=False)
    heights.set_ylabel("height / loss")
    if any(len(relative_heights(found)) for found in walks.values()):
        heights.set_yscale("log")
    else:
        seen = updates * sum(map(len, walks.values()))
        heights.text(
            0.5, 0.5, f"0 of {seen} updates crossed a barrier",
            transform=heights.transAxes, ha="center",
        )  # fmt: skip
        heights.set_yticks([])
    heights.set_xlabel("epoch")
    heights.xaxis.set_major_locator(MaxNLocator(integer=True))
    for axes in (counts, heights):
        tidy(axes)
    figure.suptitle(
        f"barriers under SGD: {model} on {lab.dataset_of(model)}, rate {rate:g}"
    )
    return figure
