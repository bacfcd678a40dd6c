"""What was measured says so of paper 5's claims, each with its criterion."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy import stats

from experiments.harness.paper import Result
from experiments.harness.statistics import (
    SEEDS,
    Claim,
    Condition,
    above,
    baselines_failed,
    below,
    mean_and_interval,
    unknown,
)
from experiments.harness.verdicts import verdicts
from experiments.lipschitz_rate import curves, premise, stability, tabular, variants
from experiments.lipschitz_rate.lab import Lab
from lrscape.transforms import lipschitz_constant

# Times the limit of stability, of a run that failed: at least this.
FAILED = 2.0
# The constants: as the paper prints them, and such as bound the gradient.
FORMS = {"paper": " as printed", "bound": ", as true bounds,"}
# A ratio that is larger, or infinite, counts as this one: a verdict needs a number.
EXCEEDED = 1e6
# Percentage points that the paper gains by measuring each epoch.
GAIN = 89.37 - 87.02
# Where K_z comes from, in words; otherwise it is a pass in a mode.
FEEDS = {"free": "of the updates' own passes"}
# Before it, a rate may do what it wants.
SETTLED = 10
# The paper's accuracies at the best epoch and after the last one, and how far from
# them is the same.
REACHED = {"mnist": (99.5, None, 0.2), "cifar100": (75.99, 73.26, 1.0)}
PAPER_EPOCHS = {"mnist": 20, "cifar100": 300}
# Percent of test examples that a tuned constant rate gets right where networks count as
# trained: somewhat below the least that the paper's own reach, 87.02 on CIFAR-10 and
# 99.5 on MNIST.
TRAINED = {"cifar10": 80.0, "variants": 97.0}


def premises(lab: Lab) -> list[Claim]:
    """Claims 5.1 and 5.2: the premise, and the constants."""
    claims = []
    for task in premise.TASKS:
        seeds = range(lab.plans[task].seeds)
        steps = [premise.steps_of(lab, task, seed) for seed in seeds]
        hostile = [premise.adversarial_of(lab, task, seed) for seed in seeds]
        shares = [premise.share_of(s) for s in steps]
        claims.append(
            Claim(
                "5.1", f"{task}: the last layer has the largest gradient",
                [above("share of updates", shares, 0.95)], least=SEEDS[lab.preset],
            )
        )  # fmt: skip
        for name, said in FORMS.items():
            conditions = []
            # The paper's claim is of what it prints; the true bound stands beside it.
            apart = name == "bound"
            for norm in ("frobenius", "max"):
                form = f"{name}, {norm}"
                worst = [
                    max(premise.ratio_of(s, form),
                        *(h[f"{kind}: {form}"] for kind in premise.BATCHES))
                    for s, h in zip(steps, hostile, strict=True)
                ]  # fmt: skip
                conditions.append(never(f"gradient / constant, {norm}", worst, 1))
            claims.append(
                Claim(
                    "5.2", f"{task}: the constants{said} bound its gradient",
                    conditions, least=_unless_exceeded(conditions, lab), apart=apart,
                )
            )  # fmt: skip
    return [*claims, *_other_losses(lab)]


def _other_losses(lab: Lab) -> list[Claim]:
    """Claim 5.2 of Eq. 9 and 15, along the run by each constant itself."""
    claims = []
    for item, data in tabular.NAMES.items():
        found = tabular.runs_of(lab, item)
        for form, words in tabular.WORDS.items():
            worst = tabular.beyond(found[f"1 / K, {words}"], form)
            name = "gradient / constant"
            shown = mean_and_interval(np.minimum(worst, EXCEEDED))
            if (worst > EXCEEDED).any():
                count = f"{np.sum(np.isinf(worst))} of {len(worst)} seeds"
                shown = f"infinite, since a constant is not positive in {count}"
            condition = never(name, np.minimum(worst, EXCEEDED), 1)
            conditions = [condition._replace(shown=f"{shown} < 1")]
            claims.append(
                Claim(
                    "5.2", f"{item}, {data}: the constant{FORMS[form]} bounds the last "
                    "layer's gradient",
                    conditions, least=_unless_exceeded(conditions, lab),
                    apart=form == "bound",
                )
            )  # fmt: skip
    return claims


def never(name: str, worst: Any, limit: float) -> Condition:
    """That nothing exceeds a limit: where something does, it is contradicted.

    It is of all that was looked at, and no mean: nothing to test.

    Args:
        name: of the quantity.
        worst: (seeds,), the largest of it.
        limit: that none may exceed.
    """
    return below(name, worst, limit)._replace(
        p_values=(1.0, 0.0) if np.max(worst) > limit else (0.0, 1.0)
    )


def _unless_exceeded(conditions: Sequence[Condition], lab: Lab) -> int:
    """Seeds that `never` needs: one that exceeds its limit is enough."""
    exceeded = any(np.min(c.values) < 0 for c in conditions)
    return 1 if exceeded else SEEDS[lab.preset]


def stated(lab: Lab) -> list[Claim]:
    """Claim 5.3: the paper's numbers."""
    del lab
    constant = lipschitz_constant(
        206.695, num_classes=10, batch_size=128, weight_decay=1e-3, weight_norm=43.257
    )
    off = abs(1 / float(constant) - 0.668)
    return [
        Claim(
            "5.3", "the stated numbers give the rate 0.668",
            [below("distance from it", [off], 5e-4)], least=1,
        ),
    ]  # fmt: skip


def adaptive_against_fixed(lab: Lab) -> list[Claim]:
    """Claim 5.4."""
    found = curves.methods_of(lab, "cifar10")
    tuned = next(name for name in found if name.startswith("constant"))
    last = {
        name: curves.accuracy(histories, "test")[:, -1]
        for name, histories in found.items()
    }
    other = lab.decayed_otherwise("cifar10")
    decay = f"{other.time_decay:g}" if other.time_decay else "none"
    beside = [
        curves.accuracy(histories, "test")[:, -1]
        for histories in (
            lab.histories("cifar10", other), curves.fixed_of(lab, "cifar10", other)
        )
    ]  # fmt: skip
    untrained = out_of_regime(lab, "cifar10", last[tuned])
    gap = {
        name: curves.accuracy(found[name], "train")[:, -1] - last[name]
        for name in ("adaptive", "fixed")
    }
    return [
        Claim(
            "5.4", "recomputed each epoch, the rate beats a fixed one",
            [
                above(f"test accuracy minus fixed (points; paper {GAIN:.3g})",
                       last["adaptive"] - last["fixed"])._replace(effect=GAIN),
                below("gap to training minus fixed's", gap["adaptive"] - gap["fixed"],
                       0),
            ],
            missing=baselines_failed(last["fixed"] <= 0) or untrained,
        ),
        Claim(
            "5.4", f"and so with time decay {decay}, in both",
            [above("test accuracy minus fixed (points)", beside[0] - beside[1])],
            missing=baselines_failed(beside[1] <= 0) or untrained,
        ),
        Claim(
            "5.4 (added)", "and a tuned constant one",
            [above("test accuracy minus tuned (points)",
                    last["adaptive"] - last[tuned])],
            missing=baselines_failed(last[tuned] <= 0) or untrained, apart=True,
        ),
    ]  # fmt: skip


def rates(lab: Lab) -> list[Claim]:
    """Claim 5.5, by passes in either mode of batch norm."""
    adaptive = lab.adaptive("cifar10")
    authors = lab.inference("cifar10")
    found = {
        adaptive.feed: lab.histories("cifar10", adaptive),
        "inference": lab.histories("cifar10", authors),
    }
    first = {
        mode: [curves.rate_at(lab, "cifar10", h[0], mode) for h in found[adaptive.feed]]
        for mode in ("inference", "train")
    }
    conditions = [below("first rate, inference mode", first["inference"], 0.1)]
    for feed, histories in found.items():
        name = FEEDS.get(feed, f"{feed} mode")
        later = [[row["rate"] for row in h[1:] if "rate" in row] for h in histories]
        largest = [max(rates, default=np.nan) for rates in later]
        conditions.append(above(f"{name}: largest rate after the first", largest, 0.5))
        trend = f"{name}: trend after epoch {SETTLED}"
        if lab.plans["cifar10"].epochs > SETTLED + 2:
            late = [rates[SETTLED - 1 :] for rates in later]
            trends = [stats.spearmanr(np.arange(len(r)), r).statistic for r in late]
            conditions.append(below(trend, trends, 0))
        else:
            needs = f"not measured in {SETTLED + 2} epochs or fewer"
            conditions.append(unknown(trend, needs, len(histories)))
    said = f"; in train mode the first rate is {mean_and_interval(first['train'])}"
    return [
        Claim(
            "5.5", "the rate starts tiny, grows beyond the usual, and falls" + said,
            conditions, least=SEEDS[lab.preset],
        )
    ]  # fmt: skip


def accuracies(lab: Lab) -> list[Claim]:
    """Claim 5.6."""
    claims = []
    for task, (best, last, near) in REACHED.items():
        plan = lab.plans[task]
        sentence = f"{task}: {best:g} % with no rate to tune"
        if lab.dataset_of(task) != task:
            claims.append(Claim("5.6", sentence, [], missing=f"it needs {task}"))
            continue
        found = curves.accuracy(lab.histories(task, lab.adaptive(task)), "test")
        reached = found[:, 1:].max(axis=1)
        if missing := _short(lab, task):
            # A distance would tell of the epochs rather than of the rate.
            shown = f"{mean_and_interval(reached)} % in {missing}"
            best_epoch = unknown("best epoch", shown, len(reached))
            claims.append(Claim("5.6", sentence, [best_epoch], least=1))
            continue
        distance = np.abs(reached - best)
        conditions = [below(f"best epoch's distance from {best:g}", distance, near)]
        if last is not None:
            distance = np.abs(found[:, -1] - last)
            conditions.append(below(f"last epoch's from {last:g}", distance, near))
        constant = lab.tuned(task)
        tuned = curves.accuracy(lab.histories(task, constant), "test")[:, -1]
        sentence += (
            f" (beside it, after the last epoch: {mean_and_interval(found[:, -1])}; a "
            f"constant {constant.rate:g}, the best of {len(plan.rates)}, chosen on "
            f"{lab.chosen_on(task)}: {mean_and_interval(tuned)})"
        )
        claims.append(Claim("5.6", sentence, conditions))
    return claims


def out_of_regime(lab: Lab, task: str, baseline: np.ndarray) -> str:
    """Why accuracies tell nothing of a claim on trained networks; empty: they do.

    Judged by the tuned constant rate alone, whatever the rates that are compared do.

    Args:
        lab: has the task.
        task: one of its tasks.
        baseline: (seeds,), the tuned constant's test accuracy after the last epoch.

    Returns:
        That its mean is below `TRAINED`.
    """
    reached, needed = float(np.mean(baseline)), TRAINED[task]
    if reached >= needed:
        return ""
    updates = lab.network(task, lab.adaptive(task), 0).steps_per_epoch
    return (
        f"out of regime: a tuned constant rate reaches {reached:.3g} % in "
        f"{lab.plans[task].epochs * updates} updates, and the claim is of trained "
        f"networks, from {needed:g} % on"
    )


def _short(lab: Lab, task: str) -> str:
    """What a task's plan lacks of the paper's training; empty: nothing."""
    plan, epochs = lab.plans[task], PAPER_EPOCHS[task]
    lacks = []
    if plan.epochs < epochs:
        lacks.append(f"{plan.epochs} of {epochs} epochs")
    if plan.examples is not None:
        lacks.append(f"{plan.examples} training examples")
    if plan.test is not None:
        lacks.append(f"{plan.test} test examples")
    return ", ".join(lacks)


def costs(lab: Lab) -> list[Claim]:
    """Claim 5.7."""
    found = variants.histories_of(lab)

    def against(name: str) -> np.ndarray:
        other = found[variants.compared_with(name)]
        return variants.last_accuracy(found[name]) - variants.last_accuracy(other)

    overhead = []
    for history in found["adaptive"]:
        # Not the first, in which the update is compiled.
        rows = [row for row in history[2:] if "seconds" in row]
        spent = [row["inference_seconds"] / row["seconds"] for row in rows]
        overhead.append(np.median(spent) if spent else np.nan)
    momentum = against("adaptive, momentum 0.9")
    baselines = {
        variants.compared_with(f"adaptive{kind}")
        for kind in ("", ", L2", ", momentum 0.9")
    }
    tuned = np.array([variants.last_accuracy(found[name]) for name in baselines])
    untrained = out_of_regime(
        lab, variants.TASK, variants.last_accuracy(found["constant, tuned"])
    )  # fmt: skip
    return [
        Claim(
            "5.7", "a pass each epoch is cheap; the rate works with dropout, batch "
            "norm and L2",
            [
                below("seconds of a pass / of an epoch", overhead, 0.15),
                above("minus tuned constant (points)", against("adaptive"), -1),
                above("with L2", against("adaptive, L2"), -1),
            ],
            missing=baselines_failed(tuned <= 0) or untrained,
        ),
        Claim(
            "5.7", "and it does not work with momentum",
            [below("minus tuned constant (points)", momentum, -1)],
            missing=baselines_failed(tuned <= 0) or untrained,
        ),
    ]  # fmt: skip


def safe(lab: Lab) -> list[Claim]:
    """Claim 5.8."""
    claims = []
    for task in stability.TASKS:
        plan = lab.plans[task]
        seeds = range(min(plan.curvature[1], plan.seeds))
        largest = [_least_stable(lab, task, seed) for seed in seeds]
        unstable = never("largest eigenvalue / 2K", largest, 1)
        claims.append(
            Claim(
                "5.8", f"(added) {task}: 1/K is a stable rate throughout",
                [unstable], least=_unless_exceeded([unstable], lab),
            )
        )  # fmt: skip
    return claims


def _least_stable(lab: Lab, task: str, seed: int) -> float:
    found = stability.ratios_of(stability.curvature_of(lab, task, seed)).max()
    return max(found, FAILED) if stability.failed(lab, task, seed) else found


# What measures which claims.
PARTS = {
    premises: ("5.1", "5.2"),
    stated: ("5.3",),
    adaptive_against_fixed: ("5.4",),
    rates: ("5.5",),
    accuracies: ("5.6",),
    costs: ("5.7",),
    safe: ("5.8",),
}


def scale_of(lab: Lab) -> str:
    """What networks are trained on, and how they are looked at."""
    plans = "; ".join(
        f"{task}: {plan.model} on {plan.examples or 'all'} examples of "
        f"{lab.dataset_of(task)}, {plan.epochs} epochs, {plan.seeds} seeds"
        for task, plan in lab.plans.items()
    )
    samples = ", ".join(
        f"{task} {plan.premise} updates, the Hessian on {plan.curvature[0]} examples"
        for task, plan in lab.plans.items()
        if plan.curvature[1]
    )
    return (
        f"{plans}; gradients and curvature: {samples}; batches of one class in "
        "inference mode; batch norm in train mode unless said; last epoch unless said; "
        "5.2 of least squares and of two classes on tables"
    )


def claims(lab: Lab) -> Result:
    """Claims 5.1 to 5.8, each with its criterion, over seeds."""
    found = [claim for part in PARTS for claim in part(lab)]
    notes = [
        (
            "accuracies after the last epoch, in points of a percent; a failed "
            f"run counts as 0 %, and as {FAILED:g} times the limit of stability"
        ),
    ]
    return verdicts(found, notes)
