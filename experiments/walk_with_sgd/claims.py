"""What the tables and figures say of the paper's claims, each with its criterion."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable

import jax
import numpy as np
import xarray as xr
from scipy import stats

from experiments.harness.paper import Result
from experiments.harness.statistics import (
    SEEDS,
    Claim,
    Condition,
    above,
    below,
    differs,
    every,
    judge,
    mean_and_interval,
    unknown,
)
from experiments.walk_with_sgd import (
    angles,
    curvature,
    identity,
    noise,
    rates,
    tables,
    trajectories,
)
from experiments.walk_with_sgd.lab import Lab

# Barriers in no more than so many of the updates are "hardly any".
FEW = 0.01
# A run that loses no more than so much of its loss is still stuck.
STAYS = 0.1


def barriers(lab: Lab, model: str) -> list[Claim]:
    """Claims 3.1 and 3.2, on table 1's walks."""
    (rate, _), plan = lab.rates(model), lab.plan(model)
    few, heights = [], []
    for epoch in plan.epochs:
        walks = tables.walks_of(lab, model, rate, epoch)
        if epoch <= 10:
            shares = [tables.on_both(walk).mean() for walk in walks]
            few.append(below(f"epoch {epoch}: share of updates", shares, FEW))
        heights.append(
            [tables.relative_heights([walk], tables.on_both) for walk in walks]
        )
    # Of a seed, over all epochs.
    pooled = [np.concatenate(one) for one in zip(*heights, strict=True)]
    percentiles = [np.percentile(one, 95) for one in pooled if len(one)]
    name = "95th percentile of height / loss"
    low = below(name, percentiles, 0.01)
    if not percentiles:
        low = unknown(name, "no barrier was crossed", len(pooled))
    return [
        Claim("3.1", "SGD crosses hardly any barrier, on both samples", few,
              missing="" if few else "no epoch up to 10 was walked over"),
        Claim("3.2", "what it crosses is far lower than the loss", [low]),
    ]  # fmt: skip


def trajectory(lab: Lab, model: str) -> list[Claim]:
    """Claims 3.3 and 3.4, on the walks of figures 1 and 2."""
    seeds = range(lab.plan(model).seeds)
    descent = [trajectories.descent_of(lab, model, seed) for seed in seeds]
    sgd = [trajectories.sgd_of(lab, model, seed) for seed in seeds]
    same = min(descent[0].sizes["step"], sgd[0].sizes["step"])
    descent = [walk.isel(step=slice(same)) for walk in descent]
    sgd = [walk.isel(step=slice(same)) for walk in sgd]
    late = [trajectories.later(walk) for walk in descent]
    late_sgd = [trajectories.later(walk) for walk in sgd]
    missing = ""
    if same < trajectories.SHOWN:
        missing = f"{same} updates; it needs {trajectories.SHOWN}"
    against = {f"rate {lab.rates(model)[0]:g}": descent}
    if not lab.authors:  # whose own rate that is
        rate = lab.rates(model)[0] * trajectories.MICRO_BATCHES
        against[f"GD's rate {rate:g}"] = [
            trajectories.descent_of(lab, model, seed, rate).isel(step=slice(same))
            for seed in seeds
        ]
    beside = []
    for name, walks in against.items():
        cosines = [
            trajectories.mean_cosine(b) - trajectories.mean_cosine(a)
            for a, b in zip(map(trajectories.later, walks), late_sgd, strict=True)
        ]
        distances = [
            trajectories.distance(b) - trajectories.distance(a)
            for a, b in zip(walks, sgd, strict=True)
        ]
        beside += [
            above(f"{name}: cosine, SGD - GD", cosines, 0),
            above(f"{name}: distance, SGD - GD", distances, 0),
        ]
    floor = above(
        "floor rises", [trajectories.floor_rises(walk) for walk in late_sgd], 0.2
    )
    if not any(walk["has_floor"].any() for walk in late_sgd):
        floor = unknown("floor rises", "there is none", len(late_sgd))
    return [
        Claim("3.3", "GD bounces between walls, and the floor falls", [
            above("with a floor", [trajectories.floor_share(w) for w in late], 0.9),
            below("cosine", [trajectories.mean_cosine(w) for w in late], -0.8),
            above("floor falls", [trajectories.floor_falls(w) for w in late], 0.95),
        ], missing=missing),
        Claim("3.4", "SGD's cosine is less negative, it moves farther, its floor rises "
              "and falls", [
            *beside,
            floor,
        ], least=5, missing=missing),
    ]  # fmt: skip


def height(lab: Lab, model: str) -> list[Claim]:
    """Claim 3.5, on table 2's walks."""
    plan, (large, small) = lab.plan(model), lab.rates(model, "table2")
    walks = {
        (rate, epoch): tables.walks_of(lab, model, rate, epoch)
        for rate in (large, small)
        for epoch in plan.epochs
    }
    means = {
        key: np.array([float(walk["height"].mean()) for walk in found])
        for key, found in walks.items()
    }
    floors = {
        key: np.mean([trajectories.floor_share(walk) for walk in found])
        for key, found in walks.items()
    }
    conditions = []
    for epoch in plan.epochs:
        differences = means[large, epoch] - means[small, epoch]
        ratios = means[large, epoch] / means[small, epoch]
        conditions.append(Condition(
            f"epoch {epoch}: height at {large:g} / at {small:g}", differences,
            f"{mean_and_interval(ratios)} (a quadratic: {(large / small) ** 2:g}; the "
            f"least loss lies within {floors[large, epoch]:.0%} and "
            f"{floors[small, epoch]:.0%} of the updates)",
        ))  # fmt: skip
    for first, then in itertools.pairwise(plan.epochs):
        for rate in (large, small):
            falls = means[rate, first] - means[rate, then]
            name = f"rate {rate:g}: epoch {first} - epoch {then}"
            conditions.append(above(name, falls, 0))
    sentence = "height above the floor falls with the rate and with training"
    missing = "" if len(plan.epochs) > 1 else "a single epoch was walked over"
    return [Claim("3.5", sentence, conditions, missing=missing)]


def angle(lab: Lab, model: str) -> list[Claim]:
    """Claim 3.6, on figure 4's runs."""
    plan, (usual, _) = lab.plan(model), lab.rates(model)

    def of(measure: Callable[[xr.Dataset], float], size: int, rate: float):
        found = angles.angles_of(lab, model, size, rate)
        return np.array([measure(one) for one in found])

    conditions = []
    for small, large in itertools.pairwise(plan.batch_sizes):
        name = f"batch {small} - {large}"
        cosines = [of(angles.late_cosine, size, usual) for size in (small, large)]
        distances = [of(angles.end_distance, size, usual) for size in (small, large)]
        conditions.append(differs(f"{name}: cosine", cosines[0] - cosines[1]))
        conditions.append(above(f"{name}: distance", distances[0] - distances[1], 0))
    for low, high in itertools.pairwise(plan.rates):
        first, then = (of(angles.late_cosine, plan.batch_size, r) for r in (low, high))
        name = f"rate {high:g} - {low:g}: cosine"
        conditions.append(below(name, then - first, 0.05))
        conditions.append(above(name, then - first, -0.05))
    sentence = "batch size changes the cosine and the distance, the rate not the cosine"
    return [Claim("3.6", sentence, conditions)]


def spectral(lab: Lab, model: str) -> list[Claim]:
    """Claim 3.7, on figure 3's histories, in three parts."""
    histories = curvature.histories_of(lab, model)
    norms = [curvature.column(history, "norm_train") for history in histories]
    if len(norms[0]) < 4:
        few = f"{len(norms[0]) - 1} epochs were trained; it needs 3"
        return [Claim("3.7", "the spectral norm falls, then rises", [], missing=few)]
    falls, rises, ratios = [], [], []
    for history, norm in zip(histories, norms, strict=True):
        # As the accuracy, from the first epoch on: not of untrained weights.
        epochs = np.arange(1, len(norm))
        falls.append(float(stats.spearmanr(epochs, norm[1:]).statistic))
        rises.append(np.log(norm[-1] / norm[-max(2, len(norm) // 3)]))
        in_eval = curvature.column(history, "norm_eval")[1:]
        ratios.append(float(np.median(in_eval / norm[1:])))
    inverse = [curvature.rank_correlation(history) for history in histories]
    return [
        Claim("3.7 falls", "the spectral norm falls in training, inversely to accuracy",
              [below("rank correlation with the epoch", falls, 0),
               below("with the validation accuracy", inverse, 0)]),
        Claim("3.7 rises", "it rises at the end",
              [above("log of its growth over the last third", rises, 0)]),
        Claim("3.7 modes", "it is much larger in eval mode",
              [above("eval / train mode", ratios, 2)]),
    ]  # fmt: skip


def noisy(lab: Lab, model: str) -> list[Claim]:
    """Claim 3.8, on figure 5's descents: each kind of noise, and what frees them."""
    seeds = [
        noise.descents_of(lab, model, seed) for seed in range(lab.plan(model).seeds)
    ]
    measures: dict[str, Callable[[xr.Dataset], float]] = {
        "loss": noise.final_loss,
        "validation error": lambda d: float(d["validation_error"][-1]),
        "norm": lambda d: float(d["norm"][-1]),
        "distance": lambda d: float(d["distance"][-1]),
    }
    claims = []
    stuck_at = noise.stuck(lab.plan(model))
    for kind in (stuck_at, stuck_at.replace("deviation", "variance"), "matched"):
        conditions = [
            above(f"{name} - GD's", [m(s[kind]) - m(s["GD"]) for s in seeds], 0)
            for name, m in measures.items()
        ]
        sentence = f"isotropic noise ({kind}) ends worse, larger and farther than GD"
        # The matched noise is a control that the paper lacks.
        apart = kind == "matched"
        name = f"3.8 {kind.split()[0]}"
        claims.append(Claim(name, sentence, conditions, apart=apart))
    stuck = np.array([noise.final_loss(seed[stuck_at]) for seed in seeds])
    taken = {
        name: 1 - np.array([noise.final_loss(seed[name]) for seed in seeds]) / stuck
        for name in seeds[0]
        if name.startswith("then")
    }
    claims.append(Claim("3.8 freed", "SGD alone frees what noise has stuck", [
        above("share of the loss that goes, then SGD", taken.pop("then SGD"), STAYS),
        *(below(name, shares, STAYS) for name, shares in taken.items()),
    ]))  # fmt: skip
    return claims


def decomposition(lab: Lab, model: str) -> list[Claim]:
    """Claim 3.9, on Eq. 3's terms."""
    found = [
        identity.decompositions_of(lab, model, seed)
        for seed in range(lab.plan(model).seeds)
    ]
    first = [identity.ratio(one[1]) for one in found]
    last = [identity.ratio(one[-1]) for one in found]
    conditions = [below("residual / Hessian at the end", last, 0.2)]
    if len(found[0]) > 2:
        conditions.append(
            below("its change since the first epoch", np.subtract(last, first), 0)
        )
    errors = [max(row["identity_error"] for row in one) for one in found]
    return [
        Claim("3.9 identity", "Hessian = second moment + residual",
              [below("error", errors, 1e-9)]),
        Claim("3.9 minima", "the two nearly agree near minima", conditions,
              missing="" if len(found[0]) > 2 else "a single epoch"),
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
    return [
        Claim("3.10 cycles", "cycles are redundant: a trapezoid does as well", [
            above("trapezoid - cycles (points)", accuracy["trapezoid"] - cycles, -0.3),
        ]),
        Claim("3.10 rising", "rising rates do better than steps", [
            above(f"{name} - steps (points)", accuracy[name] - steps, 0)
            for name in ("trapezoid", "triangular")
        ]),
    ]  # fmt: skip


def small_rate(lab: Lab, model: str) -> list[Claim]:
    """Claim 3.11, on the walks of Sec. 6."""
    (usual, _), conditions = lab.rates(model), []
    for epoch in lab.plan(model).epochs:
        shares = [
            np.array([
                tables.on_both(walk).mean()
                for walk in tables.walks_of(lab, model, rate, epoch)
            ])
            for rate in (usual / tables.SMALL, usual)
        ]  # fmt: skip
        name = f"epoch {epoch}: share of updates, beyond it"
        if not np.any(shares):  # that none is no more than none says nothing
            nothing = f"{name}: no barrier at either rate"
            conditions.append(unknown(nothing, "", len(shares[0])))
            continue
        conditions.append(
            every(
                "no larger than the usual rate's", shares[0] <= shares[1],
                shares[0] - shares[1], name,
            )
        )  # fmt: skip
    sentence = "a small rate does not cross the floor's barriers either"
    return [Claim("3.11", sentence, conditions)]


# What measures which claims, of one network.
OF_A_MODEL = {
    barriers: ("3.1", "3.2"),
    trajectory: ("3.3", "3.4"),
    height: ("3.5",),
    angle: ("3.6",),
    spectral: ("3.7",),
    noisy: ("3.8",),
    decomposition: ("3.9",),
    schedules: ("3.10",),
    small_rate: ("3.11",),
}


# A share of `FEW` shows in an epoch of so many updates.
RESOLVED = round(1 / FEW)
COUNTED = ("3.1", "3.11")
# What the text argues from VGG-11, whose walls GD and SGD bounce off.
OF_VGG = ("3.1", "3.3", "3.4", "3.9 minima", "3.11")


def out_of_regime(lab: Lab, model: str, claim: Claim) -> str:
    """Why what was looked at tells nothing of a claim; empty: it does.

    It depends on the plan alone, not on what was measured.
    """
    plan, (rate, _) = lab.plan(model), lab.rates(model)
    whole = lab.network(model, rate=rate, seed=0).steps_per_epoch
    updates = min(plan.updates or whole, whole)
    if claim.name in COUNTED and updates < RESOLVED:
        return (
            f"out of regime: {updates} updates of an epoch were walked over; a share "
            f"of {FEW:.0%} takes {RESOLVED}"
        )
    if claim.name in OF_VGG and model == "mlp" and plan.sample.examples is not None:
        return (
            f"out of regime: of an MLP on {plan.sample.examples} examples; the text "
            "argues from VGG-11 on all of CIFAR-10"
        )
    return ""


def claims_of(
    lab: Lab, model: str, part: Callable[[Lab, str], list[Claim]]
) -> list[Claim]:
    """A part's claims of one network, with the preset's number of seeds."""
    return [
        claim._replace(
            least=max(claim.least, SEEDS[lab.preset]),
            missing=claim.missing or out_of_regime(lab, model, claim),
        )
        for claim in part(lab, model)
    ]


def _of_all(part: Callable[[Lab, str], list[Claim]]) -> Callable[[Lab], list[Claim]]:
    @functools.wraps(part)
    def found(lab: Lab) -> list[Claim]:
        return [
            claim._replace(sentence=f"{model}: {claim.sentence}")
            for model in lab.models_of("claims")
            for claim in claims_of(lab, model, part)
        ]

    return found


PARTS = {_of_all(part): names for part, names in OF_A_MODEL.items()}


def scale_of(lab: Lab) -> str:
    """What networks are trained on, and how they are looked at."""
    scales = []
    for model in lab.models_of("claims"):
        plan = lab.plan(model)
        scales.append(
            f"{model} on {lab.dataset_of(model)}: {plan.seeds} seeds, losses of "
            f"{plan.sample.examples or 'all'} training examples in batches of "
            f"{plan.sample.batch_size}, {plan.updates or 'all'} updates of the epochs "
            + " ".join(map(str, plan.epochs))
            + f"; spectral norms on {plan.curvature.examples or 'all'} examples"
        )
    scales.append(
        "batch norm in train mode unless said; errors after the last epoch; 3.3 "
        "without augmentation; 3.5 at those epochs, 3.9 also after the last one; 3.7's "
        "intervals are over seeds, not over blocks of epochs"
    )
    return "; ".join(scales)


def claims(lab: Lab) -> Result:
    """The paper's claims, each judged by its criterion."""
    models = lab.models_of("claims")
    made = [
        (model, claim)
        for model in models
        for part in OF_A_MODEL
        for claim in claims_of(lab, model, part)
    ]
    verdicts = judge([claim for _, claim in made])
    rows = []
    for (model, claim), judged in zip(made, verdicts, strict=True):
        rows.append({
            "claim": claim.name,
            "network": f"{model}, {lab.dataset_of(model)}",
            "verdict": judged.verdict,
            "p": "-" if np.isnan(judged.p_value) else f"{judged.p_value:.2g}",
            "says": claim.sentence,
            "measured": "; ".join(
                [*map(str, claim.conditions), *filter(None, [claim.missing])]
            ),
        })  # fmt: skip
    device = jax.local_devices()[0]
    notes = [
        f"preset {lab.preset} on {device.device_kind}; {scale_of(lab)}",
        ("supported: each part's mean over seeds is on the claim's side, after Holm's "
         "correction over all claims (p); contradicted: one part's is on the other "
         "side"),
        ("networks that are compared share their initial weights, and at equal batch "
         "sizes the order of their batches"),
        ("3.1 and 3.2: on part of the training set; 3.3: without augmentation, preset "
         "authors has it; 3.7: intervals are over seeds, not over blocks of epochs; "
         "3.8 freed: stuck is a loss that falls by less than a tenth"),
    ]  # fmt: skip
    return Result(rows, xr.Dataset(), {}, notes)
