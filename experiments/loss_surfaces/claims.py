"""What was measured says so of paper 2's claims, each with its criterion."""

from __future__ import annotations

import numpy as np

from experiments.harness.paper import Result
from experiments.harness.statistics import Claim
from experiments.harness.verdicts import verdicts
from experiments.loss_surfaces import around, criteria, extreme, integrators, switching
from experiments.loss_surfaces.alignment import chain
from experiments.loss_surfaces.curvature import bottom_of
from experiments.loss_surfaces.lab import Lab
from experiments.loss_surfaces.pairs import (
    aligned_barriers,
    barriers,
    control_barriers,
    differences,
    pairs_of,
)
from experiments.loss_surfaces.probes import barrier_between
from lrscape.errors import InputError


def minima(lab: Lab) -> list[Claim]:
    """Claims 2.1 and 2.2."""
    try:
        chain(lab.trained("sgd", 0).initial)
        matched = aligned_barriers(lab)
    except InputError:
        matched = None
    high = barriers(lab)
    return [
        *criteria.separated(high, control_barriers(lab)),
        *criteria.different(differences(lab)["ratio"], matched),
    ]


def quality(lab: Lab) -> list[Claim]:
    """Claim 2.3."""
    found: dict[str, dict[str, np.ndarray]] = {"train": {}, "test": {}}
    for name in lab.plan.optimizers:
        last = [network.history()[-1] for network in lab.all_trained(name)]
        for part, values in found.items():
            # NaN of a run that failed: SGD's would be the lowest.
            values[name] = np.array(
                [100 * (1 - row.get(f"{part}_error", np.nan)) for row in last]
            )
    return criteria.accuracies(found["train"], found["test"])


def shapes(lab: Lab) -> list[Claim]:
    """Claims 2.4 and 2.5."""
    names = lab.plan.optimizers
    curves = {
        n: criteria.normalised(around.start_curves(lab, n, around.ALPHAS, "start"))
        for n in names
    }
    widths = {n: around.widths(lab, n) for n in names}
    scales = {
        scale: {n: widths[n][scale] for n in names}
        for scale in ("alpha", "distance", "relative")
    }
    return [*criteria.alike(curves), *criteria.basins(scales)]


def switched(lab: Lab) -> list[Claim]:
    """Claims 2.6 and 2.7."""
    if not switching.directions(lab):
        missing = "it needs two of SGD, ADAM and Adadelta among the optimizers"
        return [Claim(n, "switching", [], missing=missing) for n in ("2.6", "2.7")]
    found = [switching.switches(lab, seed) for seed in lab.seeds]
    moves = {}
    for share in switching.SHARES:
        moves[share] = np.array(
            [
                np.mean(
                    [
                        barrier_between(lab, one.network, one.unswitched)
                        - barrier_between(lab, one.reordered, one.unswitched)
                        for one in runs
                        if one.share == share
                    ]
                )
                for runs in found
            ]
        )
    curves = [
        [(switching.accuracy(one.network.history()),
          switching.accuracy(one.new.history()), one.epoch) for one in runs]
        for runs in found
    ]  # fmt: skip
    epochs = np.array(
        [[switching.epochs_to_level(*curve) for curve in runs] for runs in curves]
    ).T
    left = lab.plan.epochs - switching.epoch_of(lab, max(switching.SHARES))
    claims = [
        *criteria.switching_moves(moves),
        *criteria.switching_jumps(epochs, left, float((epochs == 0).mean())),
    ]
    if {"adam", "sgd"} <= set(lab.plan.optimizers):
        slopes = {decay: _slopes(lab, decay) for decay in (0.0, lab.plan.decay)}
        claims += criteria.distance_falls(slopes)
    return claims


def _slopes(lab: Lab, decay: float) -> np.ndarray:
    """(shares, seeds), of the distance after a switch from ADAM to SGD."""
    adam, sgd = lab.method("adam"), lab.method("sgd")
    found: list[list[float]] = []
    for share in switching.SHARES:
        found.append([])
        for seed in lab.seeds:
            network = switching.switched(lab, adam, sgd, share, seed, decay)
            away = switching.distances(network.history())
            found[-1].append(switching.slope_after(away, network.config.method.after))
    return np.array(found)


def normed(lab: Lab) -> list[Claim]:
    """Claim 2.8."""
    losses, maxima = [], []
    for batch_norm in (True, False):
        changes = {"batch_norm": batch_norm}
        losses.append(
            {
                n: extreme.losses_of(lab.all_trained(n, **changes))[1]
                for n in lab.plan.optimizers
            }
        )
        curves = [around.pair_curves(lab, pair, **changes) for pair in pairs_of(lab)]
        counts = np.array(
            [
                [around.maxima(c) if np.isfinite(c).all() else np.nan for c in of_pair]
                for of_pair in curves
            ]
        )
        maxima.append(np.median(counts, axis=0))
    return criteria.batch_norm((losses[0], losses[1]), (maxima[0], maxima[1]))


def runge_kutta(lab: Lab) -> list[Claim]:
    """Claim 2.9."""
    claims = []
    chosen = any(len(rates) > 1 for rates in lab.plan.rates.values())
    for tuned in (False, True) if chosen else (False,):
        methods = integrators.compared(lab, tuned=tuned)
        found = {
            axis: {n: integrators.areas(lab, m, axis) for n, m in methods.items()}
            for axis in integrators.AXES
        }
        said = "rates tuned" if tuned else "rates doubled"
        claims += criteria.integrators(found, said, apart=chosen and not tuned)
    return claims


def beyond(lab: Lab) -> list[Claim]:
    """Claim 2.10."""
    rises, ratios, gradients = [], [], []
    names = lab.plan.optimizers
    curves = np.array(
        [around.start_curves(lab, n, around.BEYOND, "beyond") for n in names]
    )
    for seed in lab.seeds:
        # Not the least of Python, which passes over what is not finite.
        rises.append(np.min(around.rises_beyond(curves[:, seed])))
        if seed < lab.plan.curvature[1]:
            found = [bottom_of(lab, lab.trained(n, seed)) for n in names]
            ratios.append(np.min([one["ratio"] for one in found]))
            gradients.append(np.max([one["gradient_norm"] for one in found]))
    return criteria.are_minima(
        np.array(rises), np.array(ratios), np.array(gradients)
    )  # fmt: skip


def extremes(lab: Lab) -> list[Claim]:
    """Claim 2.11."""
    networks = {
        (start, batch_norm): extreme.arms_of(lab, start, batch_norm=batch_norm)
        for start in extreme.STARTS
        for batch_norm in (True, False)
    }

    def gradients(start: str) -> np.ndarray:
        found = [extreme.ground_of(lab, network) for network in networks[start, False]]
        return np.array([ground["gradient_norm"] for ground in found])

    chance = float(np.log(networks["normal", True][0].data.num_classes))
    claims = []
    for start in list(extreme.STARTS)[1:]:
        claims += criteria.extremes(
            start, plain=extreme.losses_of(networks[start, False]),
            gradients=gradients(start), normal_gradients=gradients("normal"),
            normed=extreme.losses_of(networks[start, True])[1],
            normal=extreme.losses_of(networks["normal", True])[1], chance=chance,
        )  # fmt: skip
    return claims


# What measures which claims.
PARTS = {
    minima: ("2.1", "2.2"),
    quality: ("2.3",),
    shapes: ("2.4", "2.5"),
    switched: ("2.6", "2.7"),
    normed: ("2.8",),
    runge_kutta: ("2.9",),
    beyond: ("2.10",),
    extremes: ("2.11",),
}


def scale_of(lab: Lab) -> str:
    """What networks are trained on, and how they are looked at."""
    plan = lab.plan
    return (
        f"{lab.what}, {plan.examples or 'all'} training examples, {plan.epochs} "
        f"epochs, {len(lab.seeds)} starts; losses over {plan.sample} training "
        f"examples, dropout off, batch norm by batches of {plan.batch}; functions over "
        f"{plan.functional or 'all'} test examples, the Hessian over "
        f"{plan.curvature[0]} training examples; last epoch"
    )


def claims(lab: Lab) -> Result:
    """The paper's claims, each with a verdict."""
    lab = lab.of("nin")
    found = [claim for part in PARTS for claim in part(lab)]
    notes = [
        lab.note(),
        lab.tuned_note(lab.plan.optimizers),
        (
            "2.5: up to where the loss passes twice the minimum's plus 0.1, towards "
            "the start; 2.10: the Hessian of the loss over "
            f"{lab.plan.curvature[0]} examples, batch norm in train mode, without the "
            "scales and biases of weights that batch norm undoes, the least of all "
            "optimizers of a start"
        ),
    ]
    return verdicts(found, notes)
