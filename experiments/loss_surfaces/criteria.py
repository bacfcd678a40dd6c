"""The criteria of paper 2's claims: what was measured, and the claims that it judges.

Each function takes arrays alone, a value a start, and knows nothing of networks.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any

import numpy as np
from scipy import stats

from experiments.harness.statistics import (
    Claim,
    Condition,
    above,
    below,
    every,
    mean_and_interval,
    unknown,
)

# Permutations of the test of 2.4.
DRAWS = 5000
# Percentage points within which test accuracies count as the same.
SAME = 1.0
# Epochs in which a level has to be reached.
FEW = 5
# A share of the loss within which nothing was learnt.
STILL = 0.01
# A share of the Hessian's largest eigenvalue within which the least one counts as flat.
# Ours: the paper looks at lines alone.
FLAT = 0.01
Named = Mapping[str, np.ndarray]


def separated(barriers: np.ndarray, control: np.ndarray) -> list[Claim]:
    """Claim 2.1.

    Args:
        barriers: (pairs, seeds), between two optimizers' minima, pairs in the order of
            `itertools.combinations`.
        control: (optimizers, seeds), between two runs that differ by their order.
    """
    pairs = len(barriers)
    shares = _share(barriers > 0, np.isfinite(barriers))
    noise = np.array([np.maximum(a, b) for a, b in itertools.combinations(control, 2)])
    larger = _share(barriers > noise, np.isfinite(barriers) & np.isfinite(noise))
    return [
        Claim(
            "2.1", f"all {pairs} pairs of optimizers are separated by a barrier",
            [
                # All of them: the mean share of pairs may not fall short by one.
                above(f"share of {pairs} pairs", shares, 1 - 0.5 / pairs),
                above(
                    "share of pairs above both optimizers' own in another order (means "
                    f"{barriers.mean():.3g} and {control.mean():.3g} nats)",
                    larger, 1 - 0.5 / pairs,
                ),
            ],
        )
    ]  # fmt: skip


def different(ratios: np.ndarray, matched: np.ndarray | None) -> list[Claim]:
    """Claim 2.2.

    Args:
        ratios: (pairs, seeds), disagreement over the sum of errors.
        matched: (pairs, seeds), barriers after units were matched; None: they cannot
            be in these networks.
    """
    shares = _share(ratios > 1 / 3, np.isfinite(ratios))
    claims = [
        Claim(
            "2.2", "minima disagree on a third of what they could",
            [above("share of pairs over 1/3", shares, 0.9 - 1e-9)],
        )
    ]  # fmt: skip
    sentence = "permuting units does not remove the barrier"
    if matched is None:
        missing = "units are matched in chains of layers alone"
        return [*claims, Claim("2.2", sentence, [], missing=missing)]
    still = _share(matched > 0, np.isfinite(matched))
    limit = 1 - 0.5 / len(matched)
    return [*claims, Claim("2.2", sentence, [above("share of pairs", still, limit)])]


def _share(holds: np.ndarray, known: np.ndarray) -> np.ndarray:
    """(seeds,), how many pairs; NaN where one is not known."""
    return np.where(known.all(axis=0), holds.mean(axis=0), np.nan)


def accuracies(train: Named, test: Named) -> list[Claim]:
    """Claim 2.3.

    Args:
        train: optimizer -> (seeds,), last training accuracies in percent.
        test: likewise, of the test set.
    """
    names = list(train)
    claims = []
    seeds = len(next(iter(train.values())))
    enough = len(names) > 1 and seeds > 1
    conditions = []
    if enough and "sgd" in train:
        p = _anova(np.array([train[n] for n in names]))
        spread = np.ptp(np.array([train[n] for n in names]), axis=0)
        conditions = [
            Condition(
                f"training accuracy's range (points) {mean_and_interval(spread)}, "
                f"ANOVA p = {p:.2g} <",
                spread,
                "0.01",
                # At the criterion's own level, whatever the others' is.
                (p * 2.5, 1.0),
            ),
            *(
                above(f"{n} minus SGD (points)", train[n] - train["sgd"])
                for n in names
                if n != "sgd"
            ),
        ]
    claims.append(
        Claim(
            "2.3",
            "optimizers differ in training accuracy, SGD's is lowest",
            conditions,
            missing="" if conditions else "it needs SGD and two starts",
        )
    )
    gaps, holds, fails = [], [], []
    for a, b in itertools.combinations(names, 2):
        difference = test[a] - test[b]
        gaps.append(abs(difference.mean()))
        inside, outside = _equivalence(difference, SAME)
        holds.append(inside)
        fails.append(outside)
    conditions = []
    if enough:
        widest = f"{max(gaps):.3g} < {SAME:g}"
        conditions = [
            Condition(
                "largest difference of mean test accuracies (points)",
                [SAME - max(gaps)] * seeds,
                widest,
                (max(holds), min(1.0, len(fails) * min(fails))),
            )
        ]
    claims.append(
        Claim(
            "2.3",
            "and not in test accuracy",
            conditions,
            missing="" if conditions else "it needs two starts",
        )
    )
    return claims  # fmt: skip


def _anova(values: np.ndarray) -> float:
    """The p value that optimizers' means are one, starts being blocks.

    Args:
        values: (optimizers, seeds).
    """
    count, seeds = values.shape
    mean = values.mean()
    rows, columns = values.mean(axis=1), values.mean(axis=0)
    between = seeds * ((rows - mean) ** 2).sum() / (count - 1)
    rest = values - rows[:, None] - columns[None] + mean
    within = (rest**2).sum() / ((count - 1) * (seeds - 1))
    if not np.isfinite(between) or not np.isfinite(within):
        return 1.0
    if within <= 1e-12 * max(between, 1e-300):
        return 0.0 if between > 0 else 1.0
    return float(stats.f.sf(between / within, count - 1, (count - 1) * (seeds - 1)))


def _equivalence(values: np.ndarray, limit: float) -> tuple[float, float]:
    """One-sided p values: that the mean lies within +-limit, and that it does not."""
    error = values.std(ddof=1) / np.sqrt(len(values))
    mean, free = values.mean(), len(values) - 1
    if not np.isfinite(mean):
        return 1.0, 1.0
    if error == 0:
        return (0.0, 1.0) if abs(mean) < limit else (1.0, 0.0)
    holds = max(
        stats.t.sf((mean + limit) / error, free),
        stats.t.cdf((mean - limit) / error, free),
    )
    return float(holds), float(stats.t.sf((abs(mean) - limit) / error, free))


def alike(curves: Mapping[str, np.ndarray]) -> list[Claim]:
    """Claim 2.4.

    Args:
        curves: optimizer -> (seeds, points), losses from start to minimum, each
            normalised by its own start's.
    """
    sentence = "curves are alike across starts and differ between optimizers"
    names = list(curves)
    seeds = len(next(iter(curves.values())))
    if len(names) < 5 or seeds < 4:
        missing = f"it needs 5 optimizers and 4 starts, not {len(names)} and {seeds}"
        return [Claim("2.4", sentence, [], missing=missing)]
    stacked = np.concatenate([curves[n] for n in names])
    labels = np.repeat(np.arange(len(names)), seeds)
    apart = np.sqrt(((stacked[:, None] - stacked[None]) ** 2).mean(axis=-1))
    off = ~np.eye(len(labels), dtype=bool)

    def gap(labels: np.ndarray) -> float:
        same = labels[:, None] == labels[None]
        return float(apart[~same].mean() - apart[same & off].mean())

    observed = gap(labels)
    random = np.random.default_rng(0)
    drawn = np.array([gap(random.permutation(labels)) for _ in range(DRAWS)])
    holds = (1 + (drawn >= observed).sum()) / (1 + DRAWS)
    fails = (1 + (drawn <= observed).sum()) / (1 + DRAWS)
    if not np.isfinite(observed):
        holds = fails = 1.0
    return [
        Claim(
            "2.4", sentence,
            [
                Condition(
                    f"distance between minus within {observed:.3g}, permutation "
                    f"p = {holds:.2g} <", [observed] * seeds, "0.01",
                    (float(holds) * 2.5, float(fails)),
                )
            ],
        )
    ]  # fmt: skip


def basins(widths: Mapping[str, Named]) -> list[Claim]:
    """Claim 2.5, on each scale.

    Args:
        widths: scale -> optimizer -> (seeds,).
    """
    claims = []
    said = {"alpha": "as shares of the way", "distance": "as distances",
            "relative": "over the weights' norm"}  # fmt: skip
    for scale, found in widths.items():
        conditions = [
            above(f"{a} minus {b}", found[a] - found[b])
            for a, b in (("adam", "sgd"), ("adam_rk2", "rk2"))
            if a in found and b in found
        ]
        claims.append(
            Claim("2.5", f"ADAM's basins are larger, {said[scale]}", conditions)
        )
    return claims


def switching_moves(barriers: Mapping[float, np.ndarray]) -> list[Claim]:
    """Claim 2.6.

    Args:
        barriers: share of the run -> (seeds,), mean barrier between switched and
            unswitched minus that between two orders from there on.
    """
    conditions = [
        above(f"{100 * share:g} %: barrier minus another order's (nats)", values)
        for share, values in barriers.items()
    ]
    return [Claim("2.6", "however late, a switch changes the minimum", conditions)]


def switching_jumps(epochs: np.ndarray, left: int, there: float) -> list[Claim]:
    """Claim 2.7, of accuracy.

    Args:
        epochs: (switches, seeds), until the new method's level; see
            `switching.epochs_to_level`.
        left: epochs that the latest switch leaves.
        there: the share of them that were there already.
    """
    sentence = f"accuracy reaches the new method's level within {FEW} epochs"
    if left < FEW:
        missing = f"the latest switch leaves {left} epochs"
        return [Claim("2.7", sentence, [], missing=missing)]
    worst = np.max(epochs, axis=0)
    said = f"{sentence} ({100 * there:.0f} % of switches were there before)"
    soon = every(f"within {FEW}", worst <= FEW, worst, "slowest, in epochs")
    if there > 0.5 and (worst <= FEW).all():
        # Nothing jumps.
        soon = unknown("slowest, in epochs", mean_and_interval(worst), len(worst))
    return [Claim("2.7", said, [soon])]


def distance_falls(slopes: Mapping[float, np.ndarray]) -> list[Claim]:
    """Claim 2.7, of the distance from the start, ADAM to SGD.

    Args:
        slopes: weight decay -> (shares, seeds), slopes after the switch.
    """
    return [
        Claim(
            "2.7", f"the distance falls from ADAM to SGD, weight decay {decay:g}",
            # In all switches, and in all seeds.
            [every("slopes below 0", values.max(axis=0) < 0, values.max(axis=0),
                   "largest slope an epoch")],
        )
        for decay, values in slopes.items()
    ]  # fmt: skip


def batch_norm(
    losses: tuple[Named, Named], maxima: tuple[np.ndarray, np.ndarray]
) -> list[Claim]:
    """Claim 2.8.

    Args:
        losses: with batch norm, and without: optimizer -> (seeds,), last losses.
        maxima: likewise (seeds,), median local maxima on lines between minima.
    """
    spreads = [
        np.concatenate([np.abs(v - np.median(v)) for v in found.values()])
        for found in losses
    ]
    # Levene's test for two groups is a t test of distances from the median, here of
    # each optimizer's own.
    with_it, without = spreads
    seeds = len(maxima[0])
    conditions = []
    if np.isfinite(with_it).all() and np.isfinite(without).all() and seeds > 2:
        ratio = float((without**2).sum() / max((with_it**2).sum(), 1e-300))
        result = stats.ttest_ind(without, with_it)
        p = float(result.pvalue) if np.isfinite(result.pvalue) else 1.0
        one_sided = p / 2 if without.mean() > with_it.mean() else 1 - p / 2
        # By the test, and by the variances themselves.
        holds = one_sided / 2 if ratio > 1 else 1.0
        fails = 1 - one_sided if ratio < 1 else 1.0
        conditions = [
            Condition(
                f"variance ratio {ratio:.3g}, Levene p = {one_sided:.2g} <",
                [ratio - 1] * seeds,
                "0.05",
                (holds, fails),
            )
        ]
    smooth, bumpy = maxima
    return [
        Claim("2.8", "without batch norm the loss depends more on the start",
              conditions, missing="" if conditions else "not finite, or few starts"),
        Claim(
            "2.8", "lines between minima have one maximum with it, more without",
            [
                below("with: median's distance from 1", np.abs(smooth - 1), 0.5),
                above("without: median", bumpy, 1),
            ],
        ),
    ]  # fmt: skip


def integrators(
    areas: Mapping[str, Named], said: str, *, apart: bool = False
) -> list[Claim]:
    """Claim 2.9.

    Args:
        areas: x axis -> method of figure 9 -> (seeds,), area under its curve.
        said: how rates were chosen.
        apart: whether they were chosen otherwise than the criterion has it.
    """
    claims = []
    for axis, found in areas.items():
        better = [
            above(f"{kind} minus {base} (points)", found[f"SGD {kind}"] - found[base])
            for kind in ("heun", "ralston")
            for base in ("SGD", "SGD x2")
        ]
        midpoint = below(
            "midpoint minus SGD (points)", found["SGD midpoint"] - found["SGD"]
        )
        adam = [
            below(f"ADAM {kind} minus ADAM (points)",
                  found[f"ADAM {kind}"] - found["ADAM"])
            for kind in ("midpoint", "heun", "ralston")
        ]  # fmt: skip
        by = f"by {axis}, {said}"
        claims += [
            Claim("2.9", f"Heun and Ralston beat SGD and SGD x2, {by}", better),
            Claim("2.9", f"Midpoint does not beat SGD, {by}", [midpoint]),
            Claim("2.9", f"ADAM beats ADAM&RK2, {by}", adam),
        ]
    return [claim._replace(apart=apart) for claim in claims]


def are_minima(
    rises: np.ndarray, ratios: np.ndarray, gradients: np.ndarray
) -> list[Claim]:
    """Claim 2.10.

    Args:
        rises: (seeds,), how far the loss lies above the minimum's half as far beyond it
            as the start is away, and as far: the lesser, of all optimizers.
        ratios: (seeds,), the Hessian's least eigenvalue over its largest, without the
            directions that batch norm hides, of all optimizers.
        gradients: (seeds,), the largest gradient's norm there.
    """
    norm = mean_and_interval(gradients)
    return [
        Claim("2.10", "at 1.5 and 2 the loss is above that at 1, the final weights",
              [every("runs above", rises > 0, rises, "least rise (nats)")]),
        Claim("2.10", "so they are minima: no eigenvalue below "
              f"-{FLAT:g} of the largest (largest gradient's norm {norm})",
              [every("at least that", ratios >= -FLAT, ratios,
                     "least eigenvalue over the largest")]),
    ]  # fmt: skip


def extremes(
    start: str, *, plain: tuple[np.ndarray, np.ndarray], gradients: np.ndarray,
    normal_gradients: np.ndarray, normed: np.ndarray, normal: np.ndarray,
    chance: float,
) -> list[Claim]:  # fmt: skip
    """Claim 2.11, of one kind of start.

    Args:
        start: its name.
        plain: (seeds,) each, the first and the last loss without batch norm.
        gradients: (seeds,), the gradient's norm at that start.
        normal_gradients: (seeds,), at a usual one.
        normed: (seeds,), last losses with batch norm.
        normal: (seeds,), likewise from a usual start.
        chance: the loss of guessing, the logarithm of the number of classes.
    """
    first, last = plain
    moved = np.minimum(np.abs(last - chance) / chance, np.abs(last - first) / first)
    return [
        Claim(
            "2.11", f"{start}: without batch norm nothing is learnt, on a plateau",
            [
                every("changes below 1 %", moved < STILL, moved,
                      "loss's change, or distance from chance, as a share"),
                every("gradients below 1 % of a usual start's",
                      gradients / normal_gradients < STILL,
                      gradients / normal_gradients, "gradient's norm over it"),
            ],
        ),
        Claim(
            "2.11", f"{start}: with batch norm it is, but worse",
            [
                above("loss without minus with (nats)", last - normed),
                above("minus that from a usual start (nats)", normed - normal),
            ],
        ),
    ]  # fmt: skip


def normalised(curves: Any) -> np.ndarray:
    """Curves over the value that each begins with.

    Example:
        >>> print(normalised(np.array([[2.0, 1.0]])))
        [[1.  0.5]]
    """
    curves = np.asarray(curves, float)
    return curves / curves[:, :1]
