"""What the tables and figures say of the paper's claims, each with its criterion."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import xarray as xr
from scipy import stats

from experiments.statistics import Condition, judge, mean_and_interval
from experiments.walking import (
    angles,
    curvature,
    identity,
    noise,
    rates,
    tables,
    trajectories,
)
from experiments.walking.result import Result
from experiments.walking.settings import BATCH_SIZE, RATES, Lab

# Barriers in no more than so many of the updates are "hardly any".
FEW = 0.01


class Claim(NamedTuple):
    """A claim, with what has to lie above zero for it to hold."""

    name: str
    sentence: str
    conditions: list[Condition]


def _above(name: str, values, limit: float) -> Condition:
    values = np.asarray(values, float)
    return Condition(name, values - limit, f"{mean_and_interval(values)} > {limit:g}")


def _below(name: str, values, limit: float) -> Condition:
    values = np.asarray(values, float)
    return Condition(name, limit - values, f"{mean_and_interval(values)} < {limit:g}")


def barriers(lab: Lab, model: str) -> list[Claim]:
    """Claims 3.1 and 3.2, on table 1's walks."""
    rate, plan = RATES[model][0], lab.plans[model]
    few, heights = [], []
    for epoch in plan.epochs:
        walks = tables.walks_of(lab, model, rate, epoch)
        if epoch <= 10:
            shares = [tables.on_both(walk).mean() for walk in walks]
            few.append(_below(f"epoch {epoch}: share of updates", shares, FEW))
        heights += [tables.relative_heights([walk]) for walk in walks]
    percentiles = [np.percentile(one, 95) for one in heights if len(one)]
    return [
        Claim("3.1", "SGD crosses hardly any barrier, on both samples", few),
        Claim(
            "3.2", "what it crosses is far lower than the loss",
            [_below("95th percentile of height / loss", percentiles, 0.01)],
        ),
    ]  # fmt: skip


def trajectory(lab: Lab, model: str) -> list[Claim]:
    """Claims 3.3 and 3.4, on the walks of figures 1 and 2."""
    seeds = range(lab.plans[model].seeds)
    descent = [trajectories.descent_of(lab, model, seed) for seed in seeds]
    sgd = [trajectories.sgd_of(lab, model, seed) for seed in seeds]
    late = [trajectories.later(walk) for walk in descent]
    late_sgd = [trajectories.later(walk) for walk in sgd]
    cosines = [
        trajectories.mean_cosine(b) - trajectories.mean_cosine(a)
        for a, b in zip(late, late_sgd, strict=True)
    ]
    same = min(descent[0].sizes["step"], sgd[0].sizes["step"])
    distances = [
        trajectories.distance(b.isel(step=slice(same)))
        - trajectories.distance(a.isel(step=slice(same)))
        for a, b in zip(descent, sgd, strict=True)
    ]
    rises = [1 - trajectories.floor_falls(walk) for walk in late_sgd]
    return [
        Claim("3.3", "GD bounces between walls, and the floor falls", [
            _above("with a floor", [trajectories.floor_share(w) for w in late], 0.9),
            _below("cosine", [trajectories.mean_cosine(w) for w in late], -0.8),
            _above("floor falls", [trajectories.floor_falls(w) for w in late], 0.95),
        ]),
        Claim("3.4", "SGD's cosine is less negative, it moves farther, its floor rises "
              "and falls", [
            _above("cosine, SGD - GD", cosines, 0),
            _above("distance, SGD - GD", distances, 0),
            _above("floor rises", rises, 0.2),
        ]),
    ]  # fmt: skip


def height(lab: Lab, model: str) -> list[Claim]:
    """Claim 3.5, on table 2's walks."""
    plan, (large, small) = lab.plans[model], RATES[model]
    means = {
        (rate, epoch): np.array([
            float(walk["height"].mean())
            for walk in tables.walks_of(lab, model, rate, epoch)
        ])
        for rate in (large, small)
        for epoch in plan.epochs
    }  # fmt: skip
    conditions = []
    for epoch in plan.epochs:
        differences = means[large, epoch] - means[small, epoch]
        ratios = means[large, epoch] / means[small, epoch]
        conditions.append(Condition(
            f"epoch {epoch}: height at {large:g} / at {small:g}", differences,
            f"{mean_and_interval(ratios)} (a quadratic: {(large / small) ** 2:g})",
        ))  # fmt: skip
    for first, then in itertools.pairwise(plan.epochs):
        for rate in (large, small):
            falls = means[rate, first] - means[rate, then]
            name = f"rate {rate:g}: epoch {first} - epoch {then}"
            conditions.append(_above(name, falls, 0))
    sentence = "height above the floor falls with the rate and with training"
    return [Claim("3.5", sentence, conditions)]


def angle(lab: Lab, model: str) -> list[Claim]:
    """Claim 3.6, on figure 4's runs."""
    plan, usual = lab.plans[model], RATES[model][0]

    def of(measure: Callable[[xr.Dataset], float], size: int, rate: float):
        found = angles.angles_of(lab, model, size, rate)
        return np.array([measure(one) for one in found])

    conditions = []
    for small, large in itertools.pairwise(plan.batch_sizes):
        name = f"batch {small} - {large}"
        cosines = [of(angles.late_cosine, size, usual) for size in (small, large)]
        distances = [of(angles.end_distance, size, usual) for size in (small, large)]
        conditions.append(_above(f"{name}: cosine", cosines[0] - cosines[1], 0))
        conditions.append(_above(f"{name}: distance", distances[0] - distances[1], 0))
    for low, high in itertools.pairwise(plan.rates):
        first, then = (of(angles.late_cosine, BATCH_SIZE, r) for r in (low, high))
        shown = f"{mean_and_interval(then - first)} within 0.05"
        name = f"rate {high:g} - {low:g}: cosine"
        conditions.append(Condition(name, 0.05 - np.abs(then - first), shown))
    sentence = "batch size changes the cosine and the distance, the rate not the cosine"
    return [Claim("3.6", sentence, conditions)]


def spectral(lab: Lab, model: str) -> list[Claim]:
    """Claim 3.7, on figure 3's histories, in three parts."""
    histories = curvature.histories_of(lab, model)
    norms = [curvature.column(history, "norm_train") for history in histories]
    if len(norms[0]) < 4:
        return [Claim("3.7", "the spectral norm falls, then rises", [])]
    falls, rises, ratios = [], [], []
    for history, norm in zip(histories, norms, strict=True):
        falls.append(float(stats.spearmanr(np.arange(len(norm)), norm).statistic))
        rises.append(np.log(norm[-1] / norm[-max(2, len(norm) // 3)]))
        in_eval = curvature.column(history, "norm_eval")[1:]
        ratios.append(float(np.median(in_eval / norm[1:])))
    inverse = [curvature.rank_correlation(history) for history in histories]
    return [
        Claim("3.7 falls", "the spectral norm falls in training, inversely to accuracy",
              [_below("rank correlation with the epoch", falls, 0),
               _below("with the validation accuracy", inverse, 0)]),
        Claim("3.7 rises", "it rises at the end",
              [_above("log of the last third's growth", rises, 0)]),
        Claim("3.7 modes", "it is much larger in eval mode",
              [_above("eval / train mode", ratios, 2)]),
    ]  # fmt: skip


def noisy(lab: Lab, model: str) -> list[Claim]:
    """Claim 3.8, on figure 5's descents: each kind of noise, and what frees them."""
    seeds = [
        noise.descents_of(lab, model, seed) for seed in range(lab.plans[model].seeds)
    ]
    measures: dict[str, Callable[[xr.Dataset], float]] = {
        "loss": noise.final_loss,
        "validation error": lambda d: float(d["validation_error"][-1]),
        "norm": lambda d: float(d["norm"][-1]),
        "distance": lambda d: float(d["distance"][-1]),
    }
    claims = []
    for kind in (noise.STUCK, f"deviation {noise.SHARES[0]:g}", "matched"):
        conditions = [
            _above(f"{name} - GD's", [m(s[kind]) - m(s["GD"]) for s in seeds], 0)
            for name, m in measures.items()
        ]
        sentence = f"isotropic noise ({kind}) ends worse, larger and farther than GD"
        claims.append(Claim(f"3.8 {kind.split()[0]}", sentence, conditions))
    stuck = [noise.final_loss(seed[noise.STUCK]) for seed in seeds]
    changes = {
        name: [noise.final_loss(s[name]) - a for s, a in zip(seeds, stuck, strict=True)]
        for name in seeds[0]
        if name.startswith("then")
    }
    claims.append(Claim("3.8 freed", "SGD alone frees what noise has stuck", [
        _below("loss, then SGD", changes.pop("then SGD"), 0),
        *(_above(f"loss, {name}", change, 0) for name, change in changes.items()),
    ]))  # fmt: skip
    return claims


def decomposition(lab: Lab, model: str) -> list[Claim]:
    """Claim 3.9, on Eq. 3's terms."""
    found = [
        identity.decompositions_of(lab, model, seed)
        for seed in range(lab.plans[model].seeds)
    ]
    first = [identity.ratio(one[1]) for one in found]
    last = [identity.ratio(one[-1]) for one in found]
    conditions = [_below("residual / Hessian at the end", last, 0.2)]
    if len(found[0]) > 2:
        conditions.append(
            _below("its change since the first epoch", np.subtract(last, first), 0)
        )
    errors = [max(row["identity_error"] for row in one) for one in found]
    return [
        Claim("3.9 identity", "Hessian = second moment + residual",
              [_below("error", errors, 1e-9)]),
        Claim("3.9 minima", "the two nearly agree near minima", conditions),
    ]  # fmt: skip


def schedules(lab: Lab, model: str) -> list[Claim]:
    """Claim 3.10, on figure 6's runs."""
    accuracy = {
        schedule: np.array([
            100 - 100 * history[-1]["test_error"]
            for history in rates.histories_of(lab, model, schedule)
        ])
        for schedule in rates.SCHEDULES
    }  # fmt: skip
    cycles, steps = accuracy["triangular"], accuracy["step"]
    rising = (accuracy["trapezoid"] + cycles) / 2
    return [
        Claim("3.10 cycles", "cycles are redundant: a trapezoid does as well", [
            _above("trapezoid - cycles (points)", accuracy["trapezoid"] - cycles, -0.3),
        ]),
        Claim("3.10 rising", "rising rates do better than steps", [
            _above("rising - steps (points)", rising - steps, 0),
        ]),
    ]  # fmt: skip


def small_rate(lab: Lab, model: str) -> list[Claim]:
    """Claim 3.11, on the walks of Sec. 6."""
    usual, conditions = RATES[model][0], []
    for epoch in lab.plans[model].epochs:
        shares = [
            np.array([
                tables.on_both(walk).mean()
                for walk in tables.walks_of(lab, model, rate, epoch)
            ])
            for rate in (usual / tables.SMALL, usual)
        ]  # fmt: skip
        name = f"epoch {epoch}: share of updates, beyond the usual rate's"
        conditions.append(_below(name, shares[0] - shares[1], FEW))
    sentence = "a small rate does not cross the floor's barriers either"
    return [Claim("3.11", sentence, conditions)]


PARTS = (
    barriers, trajectory, height, angle, spectral, noisy, decomposition, schedules,
    small_rate,
)  # fmt: skip


def claims(lab: Lab) -> Result:
    """The paper's claims, each judged by its criterion."""
    rows = []
    for model in lab.models_of("claims"):
        made = [claim for part in PARTS for claim in part(lab, model)]
        for claim, judged in zip(
            made, judge([claim.conditions for claim in made]), strict=True
        ):
            rows.append({
                "claim": claim.name,
                "network": f"{model}, {lab.dataset_of(model)}",
                "verdict": judged.verdict,
                "p": "-" if np.isnan(judged.p_value) else f"{judged.p_value:.2g}",
                "says": claim.sentence,
                "measured": "; ".join(map(str, claim.conditions)) or "nothing",
            })  # fmt: skip
    notes = [
        ("supported: each part's 95 % bootstrap interval over seeds is on the claim's "
         "side, after Holm's correction over the paper's claims (p); contradicted: one "
         "lies on the other side"),
        "networks compared share their initial weights and the order of their batches",
    ]  # fmt: skip
    return Result(rows, xr.Dataset(), {}, notes)
