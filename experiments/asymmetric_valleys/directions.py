"""Figures 2 and 12: asymmetric directions, random ones and those of batch norm."""

from __future__ import annotations

import functools
from typing import Any

import jax
import numpy as np
import xarray as xr
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator

from experiments.asymmetric_valleys.drawing import panels
from experiments.asymmetric_valleys.lab import Lab
from experiments.asymmetric_valleys.networks import Network
from experiments.asymmetric_valleys.presets import SGD, Pair, Survey
from experiments.harness.paper import Result
from experiments.harness.statistics import mean_and_interval
from lrscape import landscape
from lrscape.figures.style import CYCLE, DARK, tidy
from lrscape.landscape import masks, tree
from lrscape.landscape.asymmetry import read_profile
from lrscape.landscape.direction import flipped_direction, ones_direction
from lrscape.landscape.slopes import SlopeProfile

Row = dict[str, Any]

# Of figure 2, with what the legend says.
KINDS = {
    "uniform": "entries in (0, 1)",
    "signed": "the same, signs drawn anew",
    "apart": "the same, without their part along ones",
    "ones": "all ones",
    "scales": "(0, 1) on batch norm's scales",
}
# Directions whose curves are drawn.
DRAWN = 3
# Of figure 12: entries in (0, 1) of batch norm, of all others, of as many others.
NORM_KINDS = {
    "norms": "batch norm", "others": "all others", "as_many": "as many others",
}  # fmt: skip


def direction_of(kind: str, point: Any, seed: int, index: int) -> Any:
    """A random direction of a kind in `KINDS` or `NORM_KINDS`."""
    key = jax.random.fold_in(jax.random.key(seed), index)
    mask = None
    if kind == "as_many":
        few, key = jax.random.split(key)
        mask = masks.as_many_others(masks.batch_norm_only, point, key=few)
    return _drawn(key, point, mask, kind)


@functools.partial(jax.jit, static_argnames="kind")  # a program, not one a leaf
def _drawn(key: jax.Array, point: Any, mask: Any, kind: str) -> Any:
    if kind == "ones":
        return ones_direction(point)
    masked: dict[str, Any] = {
        "scales": masks.batch_norm_scales, "norms": masks.batch_norm_only,
        "others": masks.all_but(masks.batch_norm_only), "as_many": mask,
    }  # fmt: skip
    drawn = landscape.uniform_direction(key, point, mask=masked.get(kind))
    if kind == "signed":
        return flipped_direction(jax.random.fold_in(key, 1), drawn)
    if kind == "apart":
        ones = ones_direction(point)
        drawn = tree.combine([1, -tree.dot(drawn, ones)], [drawn, ones])
        return tree.scale(1 / tree.norm(drawn), drawn)
    return drawn


def profile_along(objective: Any, point: Any, direction: Any, survey: Survey) -> Row:
    """Losses and slopes on both sides of a point, as they are kept."""
    found = landscape.slope_profile(objective, point, direction, survey.distances)
    names = ("distances", "losses", "slopes")
    return {name: getattr(found, name).tolist() for name in names}


def read(row: Row, zeta: float) -> Row:
    """The asymmetry that kept slopes show from a distance on.

    Returns:
        The row with ``c`` and ``c_reversed``, of the direction and of its opposite, and
        ``minimal``: whether beyond zeta the loss is nowhere below that at the point.

    Example:
        >>> row = {'distances': [-2.0, -1.0, 0.0, 1.0, 2.0],
        ...        'losses': [8.0, 4.0, 0.0, 1.0, 2.0],
        ...        'slopes': [-4.0, -4.0, 0.0, 1.0, 1.0]}
        >>> found = read(row, 1.0)
        >>> found['c'], found['c_reversed'], found['minimal']
        (4.0, 0.25, True)
    """
    at, losses, slopes = (
        np.array(row[name]) for name in ("distances", "losses", "slopes")
    )
    far = np.abs(at) >= zeta * (1 - 1e-6)
    kept = SlopeProfile(at[far], losses[far], slopes[far], np.full(far.sum(), np.nan))
    found = read_profile(kept)
    (start,) = losses[at == 0]
    return {
        **row,
        "c": found.c,
        "c_reversed": found.reversed.c,
        "minimal": bool((losses[far] >= start).all()),
    }


def either_way(rows: list[Row]) -> tuple[np.ndarray, np.ndarray]:
    """The larger c of each direction and its opposite, and which it is.

    Returns:
        (n,) c, and (n,) 1 where the direction itself is the flat side, else -1.
    """
    both = np.array([[row["c"], row["c_reversed"]] for row in rows], float)
    return both.max(axis=1), np.where(both[:, 0] >= both[:, 1], 1, -1)


def are_asymmetric(rows: list[Row], c: float) -> np.ndarray:
    """(n,), whether a direction's c, either way, is above a limit.

    One along which the loss falls below that at the point is not: Definition 2 is of
    minimisers.
    """
    return (either_way(rows)[0] > c) & np.array([row["minimal"] for row in rows])


def share_above(rows: list[Row], c: float) -> float:
    """The share of directions that `are_asymmetric`."""
    return float(are_asymmetric(rows, c).mean())


def measured(lab: Lab, network: Network, kind: str, count: int) -> list[Row]:
    """The asymmetry at a network's last weights along so many directions of a kind."""
    survey = lab.survey
    point = network.final.params

    def make() -> Row:
        objective, seed = lab.sloped(network), network.config.seed
        return {
            "rows": [
                profile_along(
                    objective, point, direction_of(kind, point, seed, index), survey
                )
                for index in range(count)
            ]
        }

    name = f"slopes-{kind}-{count}-{survey.name_of_distances()}"
    rows = network.numbers(f"{name}-{survey.sloped}", make)["rows"]
    return [read(row, survey.zeta) for row in rows]


def draws_of(lab: Lab, pair: Pair, kind: str) -> list[list[Row]]:
    """Figure 2's directions of a kind, seed by seed; none without batch norm."""
    count = 1 if kind == "ones" else lab.survey.tries
    found = []
    for network in lab.all_of(pair, SGD):
        if kind == "scales" and not has_norm(network):
            continue
        found.append(measured(lab, network, kind, count))
    return found


def has_norm(network: Network) -> bool:
    """Whether a network has batch norm."""
    return bool(jax.tree.leaves(network.final.batch_stats))


def best_of(lab: Lab, network: Network, count: int) -> list[tuple[Any, Row]]:
    """A network's most asymmetric (0, 1) directions, the flat side +, with their rows.

    Args:
        lab: has the survey.
        network: at whose last weights.
        count: of them; no more than were tried.
    """
    rows = measured(lab, network, "uniform", lab.survey.tries)
    cs, sides = either_way(rows)
    # Last come those along which the point is no minimum.
    known = np.isfinite(cs) & np.array([row["minimal"] for row in rows])
    order = np.argsort(-np.where(known, cs, -1.0), kind="stable")[:count]
    point = network.final.params
    return [
        (
            tree.scale(
                float(sides[i]),
                direction_of("uniform", point, network.config.seed, int(i)),
            ),
            rows[i],
        )
        for i in order
    ]


def fig2(lab: Lab) -> Result:
    """Figure 2: an asymmetric direction of each solution, and who else has one."""
    survey, rows = lab.survey, []
    variables: dict[str, Any] = {}
    drawn: dict[str, Figure] = {}
    for pair in lab.pairs("fig2"):
        model, dataset = pair
        by_kind = {kind: draws_of(lab, pair, kind) for kind in KINDS}
        for kind, seeds in by_kind.items():
            if not seeds:
                continue
            cs = np.array([either_way(one)[0] for one in seeds])
            sides = np.array([either_way(one)[1] for one in seeds])
            rows.append(
                {
                    "network": model,
                    "data": dataset,
                    "direction": KINDS[kind],
                    "draws": f"{len(seeds)} x {cs.shape[1]}",
                    f"share with c > {survey.c:g}": mean_and_interval(
                        [share_above(one, survey.c) for one in seeds]
                    ),
                    "median c": _shown(np.median(cs)),
                    "largest": _shown(cs.max()),
                    **{
                        f"from {zeta:g} on": _median_at(seeds, zeta)
                        for zeta in survey.zetas
                        if zeta != survey.zeta
                    },
                    "no minimum along": falling(seeds),
                    "flat side is +": f"{(sides == 1).mean():.2f}",
                    "found in": f"{sum(share_above(s, survey.c) > 0 for s in seeds)} "
                    f"of {len(seeds)}",
                    "paper": "5 of 5, c > 2" if kind == "uniform" else "usually none"
                    if kind == "signed" else "-",
                }
            )  # fmt: skip
            dims = (f"{dataset}_{model}_seed", f"{dataset}_{model}_{kind}")
            variables[f"{dataset}_{model}_{kind}_c"] = (dims, cs, {"units": "1"})
        drawn["-".join(pair)] = _figure2(lab, pair, by_kind)
    notes = [
        *lab.notes("fig2"),
        (
            "c: the smaller slope of the steep side over the larger of the flat one, "
            f"at distances from zeta = {survey.zeta:g} to r = {survey.r:g}, the better "
            "of a direction and its opposite. The text chooses both after the "
            "direction (its numbers are lost) and has zeta for the small neighbourhood "
            "of very small gradients: here a tenth of r, and beside it the median c "
            "from other distances on"
        ),
        (
            "no minimum along: directions along which the loss falls, beyond zeta, "
            "below that at the solution; Definition 2 is not of those, and they count "
            "as not asymmetric"
        ),
        *gradients_told(lab, "fig2"),
        "two (0, 1) directions have a cosine of 0.75, and 0.87 with that of ones",
    ]
    return Result(rows, xr.Dataset(variables), drawn, notes)


def _shown(value: float) -> str:
    return f"{value:.3g}"


def _median_at(seeds: list[list[Row]], zeta: float) -> str:
    """The median c by another inner distance."""
    return _shown(
        np.median([either_way([read(r, zeta) for r in rows])[0] for rows in seeds])
    )


def falling(seeds: list[list[Row]]) -> str:
    """Of how many directions the point is no minimum."""
    minimal = [row["minimal"] for rows in seeds for row in rows]
    return f"{len(minimal) - sum(minimal)} of {len(minimal)}"


def gradient_norm(lab: Lab, network: Network, name: str) -> float:
    """The norm of the gradient at weights that were kept, of the loss of the slopes."""

    def make() -> Row:
        gradient = landscape.loss_gradient(lab.sloped(network), network.at(name).params)
        return {"norm": float(tree.norm(gradient))}

    return network.numbers(f"gradient-{name}-{lab.survey.sloped}", make)["norm"]


def gradient_shares(lab: Lab, pair: Pair) -> np.ndarray:
    """(seeds,), the gradient's norm at SGD's solutions over that at their starts."""
    return np.array([
        gradient_norm(lab, n, "final")
        / gradient_norm(lab, n, "initial")
        for n in lab.all_of(pair, SGD)
    ])  # fmt: skip


def no_minimum(lab: Lab, pair: Pair) -> str:
    """Why Definition 2 is not of a network's solutions; empty where it is."""
    return what_is_missing(lab, pair, gradient_shares(lab, pair), "sgd_epochs")


def what_is_missing(lab: Lab, pair: Pair, shares: np.ndarray, longer: str) -> str:
    """That gradients, as shares of those at the start, are too large for minimisers."""
    limit = lab.survey.minimum
    if (shares <= limit).all():
        return ""
    return (
        f"{' on '.join(pair)}: the gradient's norm is {mean_and_interval(shares)} of "
        f"that at the start, and a minimiser, which Definition 2 asks for, has at most "
        f"{limit:g}; raise {longer}"
    )


def gradients_told(lab: Lab, item: str) -> list[str]:
    """How near to a minimiser the solutions of a figure are, for its notes."""
    return [
        no_minimum(lab, pair)
        or f"{' on '.join(pair)}: the gradient's norm is "
        f"{mean_and_interval(gradient_shares(lab, pair))} of that at the start"
        for pair in lab.pairs(item)
    ]


def _figure2(lab: Lab, pair: Pair, by_kind: dict[str, list[list[Row]]]) -> Figure:
    figure, (left, right) = panels(2)
    reach = np.linspace(-lab.survey.r, lab.survey.r, 2 * lab.survey.curve + 1)
    for color, network in zip(CYCLE, lab.all_of(pair, SGD), strict=False):
        ((direction, row),) = best_of(lab, network, 1)
        losses = curve_of(lab, network, "best", direction, reach)
        (c,), _ = either_way([row])
        label = f"seed {network.config.seed}: c = {c:.3g}"
        left.plot(reach, losses, color=color, marker=".", label=label)
    left.axvline(0, color=DARK, linewidth=0.8, linestyle=":")
    left.set_xlabel("distance along the direction (flat side +)")
    left.set_ylabel("training loss (nats)")
    left.set_title("most asymmetric (0, 1) direction", fontsize=10)
    left.legend(frameon=False, fontsize=8)
    tidy(left)
    strips(right, {KINDS[k]: v for k, v in by_kind.items() if v}, lab.survey.c)
    figure.suptitle(f"{pair[0]} on {pair[1]}, SGD's solutions")
    return figure


def curve_of(
    lab: Lab, network: Network, name: str, direction: Any, reach: np.ndarray
) -> np.ndarray:
    """The training loss along a direction from a network's last weights, in nats."""

    def make() -> Row:
        way = landscape.ray(network.final.params, direction)
        losses = landscape.evaluate(lab.objective(network, "train"), way, reach)
        return {"losses": losses["loss"].tolist()}

    file = f"curve-{name}-{len(reach)}-{reach[-1]:g}-{lab.survey.examples}"
    return np.array(network.numbers(file, make)["losses"])


def strips(axes: Any, by_kind: dict[str, list[list[Row]]], limit: float) -> None:
    """Draws c of every direction, a row a kind; infinite ones at the edge."""
    everything = np.concatenate([
        either_way(one)[0] for seeds in by_kind.values() for one in seeds
    ])  # fmt: skip
    finite = everything[np.isfinite(everything) & (everything > 0)]
    edge = 3 * (finite.max() if finite.size else limit)
    for row, seeds in enumerate(by_kind.values()):
        for number, one in enumerate(seeds):
            cs, sides = either_way(one)
            minimal = np.array([direction["minimal"] for direction in one])
            at = row + 0.12 * (number - (len(seeds) - 1) / 2)
            for side, marker in ((1, "o"), (-1, "x")):
                for there, alpha in ((minimal, 1.0), (~minimal, 0.3)):
                    shown = np.where(np.isinf(cs), edge, cs)[(sides == side) & there]
                    axes.plot(
                        shown, np.full(len(shown), at), marker, markersize=4,
                        color=CYCLE[number % len(CYCLE)], alpha=alpha,
                    )  # fmt: skip
    axes.axvline(limit, color=DARK, linewidth=0.8, linestyle=":")
    if np.isinf(everything).any():
        axes.axvline(edge, color=DARK, linewidth=0.8)
        axes.annotate(
            "infinite", (edge, 1), xycoords=("data", "axes fraction"), ha="right",
            va="bottom", fontsize=8,
        )  # fmt: skip
    axes.set_xscale("log")
    axes.set_yticks(range(len(by_kind)), by_kind, fontsize=8)
    axes.invert_yaxis()
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter("{x:g}")
    axes.minorticks_off()
    axes.set_xlabel("c, of the better side (o: +u is flat, x: -u;\npale: no minimum)")
    tidy(axes)


def norm_draws(lab: Lab, pair: Pair) -> dict[str, list[list[Row]]]:
    """Figure 12's directions by kind, seed by seed."""
    networks = [network for network in lab.all_of(pair, SGD) if has_norm(network)]
    return {
        kind: [measured(lab, n, kind, lab.survey.norms) for n in networks]
        for kind in NORM_KINDS
    }


def log_c(seeds: list[list[Row]]) -> np.ndarray:
    """(seeds,), the logarithm of the median c, of directions that are minimal alone."""
    with np.errstate(divide="ignore"):  # where neither side rises c is 0
        return np.log([
            np.median(either_way(rows)[0]) if rows else np.nan
            for rows in map(minimal_ones, seeds)
        ])  # fmt: skip


def minimal_ones(rows: list[Row]) -> list[Row]:
    """The directions along which the point is a minimum."""
    return [row for row in rows if row["minimal"]]


def superiority(first: list[list[Row]], second: list[list[Row]]) -> np.ndarray:
    """(seeds,), how often a direction of the first kind has the larger c.

    Of all pairs of a seed; equal ones, such as two infinite ones, count half, and
    directions along which the point is no minimum do not. NaN where none are left.
    """
    found = []
    for one, other in zip(first, second, strict=True):
        pair = minimal_ones(one), minimal_ones(other)
        if not all(pair):
            found.append(np.nan)
            continue
        a, b = (either_way(rows)[0] for rows in pair)
        larger = (a[:, None] > b[None]) + 0.5 * (a[:, None] == b[None])
        unknown = np.isnan(a[:, None]) | np.isnan(b[None])
        found.append(np.where(unknown, np.nan, larger).mean())
    return np.array(found)


def unevenness(seeds: list[list[Row]]) -> np.ndarray:
    """(seeds,), the mean over directions of how unlike both sides rise.

    Half of the difference between the rises of the loss on both sides, over the larger
    one's size: finite where c is not.
    """
    found = []
    for rows in seeds:
        losses = np.array([row["losses"] for row in rows])
        distances = np.array(rows[0]["distances"])
        right = losses[:, -1] - losses[:, distances > 0][:, 0]
        left = losses[:, 0] - losses[:, distances < 0][:, -1]
        size = np.maximum(np.abs(left), np.abs(right))
        found.append(np.mean(np.abs(left - right) / size / 2))
    return np.array(found)


def fig12(lab: Lab, item: str = "fig12") -> Result:
    """Figure 12: directions of batch norm's parameters and of all others."""
    rows: list[dict[str, Any]] = []
    variables = {}
    drawn: dict[str, Figure] = {}
    for pair in lab.pairs(item):
        model, dataset = pair
        by_kind = norm_draws(lab, pair)
        for kind, seeds in by_kind.items():
            if not seeds:
                rows.append(
                    {"network": model, "data": dataset, "direction": NORM_KINDS[kind],
                     "draws": "none: it has no batch norm"}
                )  # fmt: skip
                continue
            cs = np.array([either_way(one)[0] for one in seeds])
            rows.append(
                {
                    "network": model,
                    "data": dataset,
                    "direction": NORM_KINDS[kind],
                    "draws": f"{len(seeds)} x {cs.shape[1]}",
                    "log of the median c": _several(log_c(seeds)),
                    "unevenness": mean_and_interval(unevenness(seeds)),
                    "no minimum along": falling(seeds),
                    f"share with c > {lab.survey.c:g}": mean_and_interval(
                        [share_above(one, lab.survey.c) for one in seeds]
                    ),
                    "paper": {"norms": "more asymmetric", "others": "sharp both ways"}
                    .get(kind, "-"),
                }
            )  # fmt: skip
            dims = (f"{dataset}_{model}_seed", "draw")
            variables[f"{dataset}_{model}_{kind}_c"] = (dims, cs, {"units": "1"})
        drawn["-".join(pair)] = _figure12(lab, pair, by_kind)
    notes = [
        *lab.notes(item),
        (
            "entries uniform in (0, 1), of norm 1 whatever is moved; the better of a "
            "direction and its opposite; unevenness: half of the difference between "
            "both sides' rises over the larger, 0 if alike, up to 1 if one falls as "
            "the other rises. No minimum along: the loss falls, beyond zeta = "
            f"{lab.survey.zeta:g}, below that at the solution; Definition 2 is not of "
            "those, and c is of the others"
        ),
        *gradients_told(lab, item),
    ]
    return Result(rows, xr.Dataset(variables), drawn, notes)


def _several(values: np.ndarray) -> str:
    """A mean with its interval, or where one is not finite each value."""
    if np.isfinite(values).all():
        return mean_and_interval(values)
    return " ".join(f"{value:.3g}" for value in values)


def _figure12(lab: Lab, pair: Pair, by_kind: dict[str, list[list[Row]]]) -> Figure:
    figure, (left, right) = panels(2)
    reach = np.linspace(-lab.survey.r, lab.survey.r, 2 * lab.survey.curve + 1)
    network = lab.network(pair, SGD, 0)
    for color, (kind, seeds) in zip(CYCLE, by_kind.items(), strict=False):
        _, sides = either_way(seeds[0][:DRAWN])
        for number, side in enumerate(sides):
            direction = direction_of(kind, network.final.params, 0, number)
            direction = tree.scale(float(side), direction)
            losses = curve_of(lab, network, f"{kind}-{number}", direction, reach)
            left.plot(
                reach, losses, color=color, alpha=0.8, linewidth=1.2, marker=".",
                label=None if number else NORM_KINDS[kind],
            )  # fmt: skip
    left.set_xlabel("distance along the direction (flat side +)")
    left.set_ylabel("training loss (nats)")
    left.set_title(f"{DRAWN} directions of each kind, seed 0", fontsize=10)
    left.legend(frameon=False, fontsize=8)
    tidy(left)
    strips(right, {NORM_KINDS[k]: v for k, v in by_kind.items()}, lab.survey.c)
    figure.suptitle(f"{pair[0]} on {pair[1]}, SGD's solutions")
    return figure
