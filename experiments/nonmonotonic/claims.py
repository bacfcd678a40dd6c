"""What was measured says so of paper 1's claims, each with its criterion."""

from __future__ import annotations

from collections.abc import Sequence

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
    every,
    t_interval,
)
from experiments.harness.verdicts import verdicts
from experiments.nonmonotonic import (
    bounds,
    curves,
    deep,
    lines,
    scatter,
    sweeps,
    tables,
)
from experiments.nonmonotonic.deep import Row
from experiments.nonmonotonic.lab import Lab
from experiments.nonmonotonic.tables import PAPER_MNIST

# Percentage points that the paper's Gaussian gains at the best epoch and after the last
# one, 0 where it has no number: claim 1.6, and 1.9's worst cell. Table 1's 16.91 is a
# last epoch's, and its 18.79 a best one's in Sec. 7: 1.88 is the least that it can be.
GAINS = {"small": (18.79 - 16.48, 18.79 - 16.91), "large": (9.53 - 8.68, 0.0)}
WORST_GAIN = 18.79 - 18.15
# Percentage points within which errors are as good as each other.
AS_GOOD = 1.0
# A share of the epochs is the initial phase.
INITIAL = 0.1
# Relative residual of Lemma 1, and what rounding may add to its bound.
EXACT = 1e-12
# Step networks that the paper says one Gaussian network is worth: Sec. 7.
ENOUGH = 5
# Per cent, of a run that failed.
FAILED = 100.0
# Times the limit of stability, of a descent that failed.
UNSTABLE = 2.0
# Of each rule, to draw from.
NETWORKS = 10
# Of a rank correlation.
POINTS = 4


def lemma(lab: Lab) -> list[Claim]:
    """Claim 1.1."""
    found = bounds.draws_of(lab.settings.draws)
    return [
        Claim(
            "1.1", "moved inputs of a dense layer are moved weights, within the bound",
            [
                below("largest residual", [found["residual"].max()], EXACT),
                below("largest ||dW|| / bound", [found["ratio"].max()], 1 + EXACT),
            ],
            least=1,
        ),
    ]  # fmt: skip


def curvature(lab: Lab) -> list[Claim]:
    """Claim 1.2."""
    small = {
        name: [bounds.curvature_of(lab, n)[-1]["largest"] for n in networks]
        for name, networks in lines.compared(lab).items()
    }
    medians = []
    for network in lab.all_of("descent", lab.rule("descent", "constant")):
        rows = bounds.curvature_of(lab, network)
        late = [row for row in rows if row["epoch"] >= 2 / 3 * rows[-1]["epoch"]]
        median = np.median(bounds.stability_of(late))
        medians.append(UNSTABLE if network.failed() else median)
    descents = np.array(medians)
    return [
        Claim(
            "1.2", "a large rate bears only curvature below 2 / rate, so its run ends "
            "flatter",
            [
                every("below 1.1", descents < 1.1, descents,
                      "gradient descent, median of the last third"),
                below("SGD's largest eigenvalue, Gaussian minus step",
                      np.subtract(small["gaussian"], small["step"])),
            ],
            least=SEEDS[lab.preset], missing=_gaussians_that_failed(lab),
        ),
    ]  # fmt: skip


def interval(
    name: str, low: float, high: float, limit: float, effect: float = 0.0
) -> Condition:
    """That a whole interval lies above a limit.

    Below a quarter of the paper's own effect it is contradicted.
    """
    side = low - limit if low > limit else min(high - limit - effect / 4, 0.0)
    return Condition(name, [side], f"{low:.4g} to {high:.4g}, wanted above {limit:.4g}")


def _gaussians_that_failed(lab: Lab) -> str:
    """What keeps claims on the Gaussian's flatness from a verdict; empty: nothing."""
    networks = lab.all_of("small", lab.rule("small", "gaussian"))
    failed = sum(network.failed() for network in networks)
    return f"{failed} Gaussian runs failed" if failed else ""


def _rises(lab: Lab, kind: str) -> Condition:
    scales, found = lines.curves_of(lab, kind)
    rises = {name: lines.excess(scales, losses) for name, losses in found.items()}
    difference = rises["gaussian"] - rises["step"]
    return below(f"{lines.KINDS[kind]}: mean rise minus step's", difference)


def _areas(lab: Lab, kind: str) -> Condition:
    scales, found = lines.curves_of(lab, kind)
    areas = {name: lines.area(scales, losses) for name, losses in found.items()}
    difference = areas["gaussian"] - areas["step"]
    return below(f"{lines.KINDS[kind]}: mean loss minus step's", difference)


def at_unequal_cost(losses: Sequence[Condition], rises: Sequence[Condition]) -> str:
    """What keeps losses from telling of flatness; empty: nothing.

    The paper's conjecture is of networks of the same cost. A loss that is lower under
    every perturbation and rises no less was lower without any: such a network has
    learnt more, and that is all that is known.

    Args:
        losses: that they are lower.
        rises: of each, that it rises less.

    Example:
        >>> lower, more = below('loss', [-1.0, -2.0]), below('rise', [0.5, 0.1])
        >>> at_unequal_cost([lower], [more])
        'the networks differ in cost before they are perturbed: loss, but not rise'
    """
    apart = [
        f"{loss.name}, but not {rise.name}"
        for loss, rise in zip(losses, rises, strict=True)
        if np.mean(loss.values) > 0 >= np.mean(rise.values)
    ]
    said = "; ".join(apart)
    return said and f"the networks differ in cost before they are perturbed: {said}"


def flatness(lab: Lab) -> list[Claim]:
    """Claims 1.3 to 1.5."""
    failed = _gaussians_that_failed(lab)
    moved = ("noise", "neighbors")
    areas, rises = ([of(lab, kind) for kind in moved] for of in (_areas, _rises))
    found = {
        f"{kind}, {scale}": scatter.losses_of(lab, kind, scale)
        for scale in scatter.SCALES for kind in scatter.KINDS
    }  # fmt: skip
    shares = [
        above(f"{name}: share", scatter.shares_above(losses), 0.5)
        for name, losses in found.items()
    ]
    risen = [
        above(f"{name}: share by rise", scatter.shares_above(losses, rise=True), 0.5)
        for name, losses in found.items()
    ]
    return [
        Claim(
            "1.3", "towards the peak's weights the Gaussian's loss rises less",
            [_rises(lab, "line"), _rises(lab, "relative")], least=5, missing=failed,
        ),
        Claim(
            "1.4", "it is more robust to input noise and towards validation images",
            [*areas, *rises], least=5, missing=failed or at_unequal_cost(areas, rises),
        ),
        Claim(
            "1.5", "its loss is lower under perturbed weights", [*shares, *risen],
            least=5, missing=failed or at_unequal_cost(shares, risen),
        ),
    ]  # fmt: skip


def accuracy(lab: Lab) -> list[Claim]:
    """Claim 1.6."""
    claims = []
    for task, gains in GAINS.items():
        found = curves.histories_of(lab, task, ("step",))
        (tuned,) = (name for name in found if name.startswith("step, tuned"))
        errors = {name: curves.errors_of(one) for name, one in found.items()}
        for i, which in enumerate(("best", "last")):
            conditions = []
            for against in ("step", tuned):
                effect = gains[i] if against == "step" else 0.0
                said = f"{against} minus Gaussian (points"
                if effect:
                    said += f"; paper {effect:.3g}"
                    said += " at the least" * (which == "last")
                condition = above(
                    f"{said})", errors[against][i] - errors["gaussian"][i]
                )
                conditions.append(condition._replace(effect=effect))
            claims.append(
                Claim(
                    "1.6", f"{task}: the Gaussian lowers the error, {which} epoch",
                    conditions, least=5,
                    missing=baselines_failed(
                        errors["step"][i] >= FAILED, errors[tuned][i] >= FAILED
                    ),
                )
            )  # fmt: skip
    return claims


def gradients(lab: Lab) -> list[Claim]:
    """Claim 1.7."""
    networks = lab.all_of("small", lab.rule("small", "gaussian"))
    early, falls, segment, way = [], [], [], []
    for network in (n for n in networks if not n.failed()):
        steps, norms, peak = bounds.early_norms(lab, network)
        top = int(np.argmax(norms))
        early.append(steps[top] / steps[-1])
        between = norms[top + 1 :][steps[top + 1 :] <= peak]
        # Of a largest gradient at the peak or behind it nothing falls until then.
        falls.append(1.0 if steps[top] >= peak else np.nan)
        if len(between) >= POINTS:
            epochs = np.arange(len(between))
            falls[-1] = stats.spearmanr(epochs, between).statistic
        found = bounds.slopes_of(lab, network)
        segment.append(max(found["segment"]) / found["bound"])
        way.append(max(norms) / found["bound"])
    missing = _gaussians_that_failed(lab)
    few = missing
    if np.isnan(falls).any():
        few = f"fewer than {POINTS} points between the largest gradient and the peak"
    return [
        Claim(
            "1.7", "the gradient is largest in the first tenth, in all seeds",
            [every("in it", np.array(early) < INITIAL, early,
                   "where it is, as a share of the run")],
            least=SEEDS[lab.preset], missing=missing,
        ),
        Claim(
            "1.7", "and then falls until the rate peaks",
            [below("rank correlation with time", falls)],
            least=SEEDS[lab.preset], missing=few,
        ),
        Claim(
            "1.7", "the largest gradient on the segment is above its lower bound",
            [every("above", np.array(segment) > 1, segment, "over the bound")],
            least=SEEDS[lab.preset], missing=missing,
        ),
        Claim(
            "1.7", "and so is that on the way",
            [every("above", np.array(way) > 1, way, "over the bound")],
            least=SEEDS[lab.preset], missing=missing,
        ),
    ]  # fmt: skip


def _too_few(values, least: int) -> str:
    return "" if len(values) >= least else f"fewer than {least} seeds"


def sweeping(lab: Lab) -> list[Claim]:
    """Claims 1.8, 1.9 and 1.12."""
    shapes = sweeps.shapes_of(lab)

    def difference(one: str, other: str) -> np.ndarray:
        # Runs of one seed are not independent: a value a seed.
        totals = lab.settings.sweep.totals
        return np.mean([shapes[one][t] - shapes[other][t] for t in totals], axis=0)

    grid, baselines = sweeps.grid_of(lab), sweeps.baselines_of(lab)
    totals = lab.settings.sweep.totals
    own = baselines[lab.plans["small"].start]
    starts = sweeps.starts_of(lab)
    # Chosen beforehand: the best of these seeds would be better than all by chance.
    slow = lab.plans["small"].start
    ends = [min(starts), max(starts)]
    failed = ""
    if any((errors >= FAILED).any() for errors in own.values()):
        failed = "the step rule's own start failed"
    few = _too_few(own[totals[0]], SEEDS[lab.preset])
    return [
        Claim(
            "1.8", "the Gaussian is slightly better than the Laplacian",
            [below("error minus the Laplacian's (points)",
                   difference("gaussian, continuous", "laplacian, continuous"))],
            missing=baselines_failed(
                *(e >= FAILED for e in shapes["laplacian, continuous"].values())
            ),
        ),
        Claim(
            "1.8", "rates that change at epochs alone work as well, within "
            f"{AS_GOOD:g} point",
            [below(f"{shape}: error minus the continuous one's (points)",
                   difference(f"{shape}, discrete", f"{shape}, continuous"), AS_GOOD)
             for shape in ("gaussian", "laplacian")],
        ),
        Claim(
            "1.9", "at every length the worst peak still beats the step rule's own "
            "rate after as many epochs",
            [_beaten(grid, total, own[total], max(totals)) for total in totals],
            least=1, missing=few or failed,
        ),
        Claim(
            "1.9", "and the rate that is best for the step rule at that length",
            [_beaten(grid, total, sweeps.tuned_of(baselines, total)[1], max(totals))
             for total in totals],
            least=1, missing=few or failed,
        ),
        Claim(
            "1.12", f"a start that is too small, or none that is slow, hurts: worse "
            f"than {slow:g}",
            [
                above(f"{rate:g} minus it (points)", starts[rate] - starts[slow])
                for rate in ends
            ],
        ),
    ]  # fmt: skip


def _beaten(
    grid: dict[float, dict[int, np.ndarray]], total: int, baseline: np.ndarray,
    longest: int,
) -> Condition:  # fmt: skip
    """That the interval of the worst peak lies below the baseline's mean.

    The paper's own effect is taken to be of the longest runs.
    """
    peak, worst = sweeps.worst_of(grid, total)
    found, goal = t_interval(worst), float(baseline.mean())
    return interval(
        f"{total} epochs: step minus the worst peak, {peak:g} (points)",
        goal - found.high, goal - found.low, 0.0,
        WORST_GAIN if total == longest else 0.0,
    )  # fmt: skip


def ensembles(lab: Lab) -> list[Claim]:
    """Claim 1.10."""
    outputs, labels = tables.outputs_of(lab)
    fewest = min(map(len, outputs.values()))
    missing = ""
    if fewest < NETWORKS:
        missing = f"{fewest} whole networks of a rule, it needs {NETWORKS}"
    low, high = np.percentile(tables.worth(outputs, labels), [2.5, 97.5])
    return [
        Claim(
            "1.10", "one Gaussian network is worth five by the step rule",
            [interval("step networks for one Gaussian", low, high, ENOUGH - 0.5)],
            least=1, missing=missing,
        )
    ]  # fmt: skip


def tables_of(lab: Lab) -> list[Claim]:
    """Claim 1.11: tables 2 to 4 row by row, and over rows."""
    rows = [Row("nin", "NIN, MNIST", PAPER_MNIST["step"], PAPER_MNIST["gaussian"])]
    for table in deep.TABLES.values():
        rows += deep.chosen(lab, table)
    claims, gains = [], []
    for row in rows:
        found = deep.errors(lab, row.task)
        judged = "top5" if lab.plans[row.task].top5 else "last"
        gain = found["step"][judged] - found["gaussian"][judged]
        gains.append(np.mean(gain))
        effect = 0.0 if row.step is None else max(row.step - row.gaussian, 0.0)
        said = f"{row.task}: the Gaussian lowers the last error"
        condition = above(f"step minus Gaussian (points; paper {effect:.2g})", gain)
        claims.append(
            Claim(
                "1.11", said, [condition._replace(effect=effect)],
                missing=baselines_failed(found["step"][judged] >= FAILED),
            )
        )  # fmt: skip
    signs = np.sign(gains)
    over = above("sign of the mean gain, a row each", signs)
    higher, lower = (
        float(stats.binomtest(int((signs == side).sum()), len(signs),
                              alternative="greater").pvalue)
        for side in (1, -1)
    )  # fmt: skip
    over = over._replace(p_values=(higher, lower))
    return [*claims, Claim("1.11", "and so over the rows (sign test)", [over])]


# What measures which claims.
PARTS = {
    lemma: ("1.1",),
    curvature: ("1.2",),
    flatness: ("1.3", "1.4", "1.5"),
    accuracy: ("1.6",),
    gradients: ("1.7",),
    sweeping: ("1.8", "1.9", "1.12"),
    ensembles: ("1.10",),
    tables_of: ("1.11",),
}


def scale_of(lab: Lab) -> str:
    """What networks are trained on, and how they are looked at."""
    plans = "; ".join(
        f"{task}: {plan.model} on {plan.examples or 'all'} examples of "
        f"{lab.dataset_of(task)}, {plan.epochs} epochs, {plan.seeds} seeds"
        for task, plan in lab.plans.items()
    )
    sweep, survey = lab.settings.sweep, lab.settings.survey
    return (
        f"{plans}; sweeps: {sweep.examples or 'all'} examples, {sweep.seeds} seeds; "
        f"probes on {survey.examples} training examples, curvature on "
        f"{survey.curvature}, dropout off, no batch norm in the small model; last "
        "epoch unless said; convolutions' residuals of 1.1 are in `lemma1`"
    )


def claims(lab: Lab) -> Result:
    """Claims 1.1 to 1.10 and 1.12, each with its criterion, over seeds."""
    # The tables' networks are those of `table3` and `table4`.
    found = [claim for part in PARTS if part is not tables_of for claim in part(lab)]
    small = lab.plans["small"]
    notes = [
        (
            f"{small.model} on {lab.dataset_of('small')}, {lab.size_of('small')}, "
            f"{small.epochs} epochs; dropout off in all probes, no "
            "batch norm; the training sample of each figure; last epoch unless said"
        ),
        (
            f"claim 1.2's descent has to stay below 1.1, one that failed counts as "
            f"{UNSTABLE:g}; in claim 1.10 more than {max(tables.SIZES)} networks count "
            f"as {max(tables.SIZES) + 1}; claim 1.11 is the tables' and judged by "
            "`python -m experiments.claims 1.11`"
        ),
    ]
    return verdicts(found, notes)
