"""Means with their intervals, and verdicts on the papers' claims."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy import stats

RESAMPLES = 10_000
# Two-sided.
LEVEL = 0.95
# Fewer pairs of runs give no verdict.
LEAST = 3
# By preset: fewer give none where a criterion names no number of its own.
SEEDS = {"quick": 5, "paper": LEAST, "authors": LEAST}


class Interval(NamedTuple):
    """A mean and its 95 % bootstrap interval; of a single value the value alone."""

    mean: float
    low: float
    high: float


def bootstrap(values: Any) -> Interval:
    """The mean of values and its interval, by resampling them (percentiles).

    With five values and fewer such an interval is too narrow: it never leaves the
    range of what was seen.

    Example:
        >>> bootstrap([1.0, 1.0, 1.0])
        Interval(mean=1.0, low=1.0, high=1.0)
    """
    values = np.asarray(values, float)
    if len(values) < 2:
        value = float(values[0]) if len(values) else np.nan
        return Interval(value, np.nan, np.nan)
    low, high = np.percentile(_means(values), [50 - 50 * LEVEL, 50 + 50 * LEVEL])
    return Interval(float(values.mean()), float(low), float(high))


def _means(values: np.ndarray) -> np.ndarray:
    random = np.random.default_rng(0)
    return random.choice(values, (RESAMPLES, len(values))).mean(axis=1)


def mean_and_interval(values: Any) -> str:
    """A mean, with its 95 % bootstrap interval where there are several values.

    Example:
        >>> mean_and_interval([2.0]), mean_and_interval([1.0, 1.0, 1.0])
        ('2', '1 (1 to 1)')
    """
    values = np.asarray(values, float)
    if not len(values):
        return "-"
    found = bootstrap(values)
    if len(values) == 1:
        return f"{found.mean:.4g}"
    return f"{found.mean:.4g} ({found.low:.3g} to {found.high:.3g})"


class Condition(NamedTuple):
    """A part of a claim: that the mean of some quantity lies above zero.

    Attributes:
        name: what is measured, in a few words.
        values: it, one value a seed; positive is as the claim has it.
        shown: the same as it is to be read, with its unit and sign; empty: `values`.
        p_values: of a test other than resampling `values`: one-sided, that the
            quantity does not lie above zero, and that it does not lie below it.
        effect: what the paper has for it: less than a quarter of that contradicts.
    """

    name: str
    values: Sequence[float]
    shown: str = ""
    p_values: tuple[float, float] | None = None
    effect: float = 0.0

    def __str__(self) -> str:
        return f"{self.name} {self.shown or mean_and_interval(self.values)}"


def above(name: str, values: Any, limit: float = 0.0) -> Condition:
    """That a quantity, one value a seed, is larger than a limit."""
    values = np.asarray(values, float)
    return Condition(name, values - limit, f"{mean_and_interval(values)} > {limit:g}")


def below(name: str, values: Any, limit: float = 0.0) -> Condition:
    """That a quantity, one value a seed, is smaller than a limit."""
    values = np.asarray(values, float)
    return Condition(name, limit - values, f"{mean_and_interval(values)} < {limit:g}")


def every(what: str, holds: Any, values: Any, name: str) -> Condition:
    """That something holds of all seeds, not merely of their mean.

    Args:
        what: holds, in a few words.
        holds: (seeds,), whether it does.
        values: (seeds,), of which it holds; NaN is not known.
        name: of the values.

    Example:
        >>> print(every('below 1', [True, True], [0.5, 0.7], 'ratio'))
        all below 1: 2 of 2 (ratio 0.6 (0.5 to 0.7)) > all but one
    """
    values = np.asarray(values, float)
    share = np.where(np.isfinite(values), np.asarray(holds, float), np.nan)
    shown = f"all {what}: {np.nansum(share):g} of {len(share)} ({name} "
    return above("", share, 1 - 0.5 / len(share))._replace(
        name=f"{shown}{mean_and_interval(values)})", shown="> all but one"
    )


def unknown(name: str, shown: str, seeds: int) -> Condition:
    """A condition of which what was measured tells nothing, neither for nor against.

    Beside it a claim can be contradicted by another condition, and is undecided
    otherwise.

    Args:
        name: what would have to be measured.
        shown: what was measured instead, or why nothing was.
        seeds: that the claim's other conditions have.

    Example:
        >>> [judged] = judge([Claim('1', '', [unknown('trend', 'two epochs', 3)])])
        >>> judged.verdict
        'undecided'
    """
    return Condition(name, [0.0] * seeds, shown, (1.0, 1.0))


class Claim(NamedTuple):
    """A claim: all that has to lie above zero for it to hold.

    Attributes:
        name: its number.
        sentence: what it says.
        conditions: its parts.
        least: values that each part needs for a verdict.
        missing: what of the criterion was not measured, and why; empty: nothing.
    """

    name: str
    sentence: str
    conditions: Sequence[Condition]
    least: int = LEAST
    missing: str = ""


@dataclasses.dataclass(frozen=True)
class Judged:
    """What came out of a claim.

    Attributes:
        verdict: ``'supported'``, ``'contradicted'``, ``'undecided'``, or why there is
            none: ``'not measured'``, ``'too few seeds'``, ``'not finite'``.
        p_value: one-sided bootstrap p value that not all conditions hold, after Holm's
            correction; NaN where there is no verdict.
    """

    verdict: str
    p_value: float


def judge(claims: Sequence[Claim]) -> list[Judged]:
    """Judges the claims of a paper together.

    A claim is supported where the resampled means of every condition lie above zero at
    a two-sided 5 %, corrected by Holm's method over all claims that are judged;
    contradicted where those of one lie below it, or below a quarter of the paper's own
    effect, corrected in the same way and for the number of its conditions; undecided
    otherwise. With few seeds resampling cannot
    tell much less than "all on one side" from "some on the other", which three values
    are by chance one time in eight: so Student's t test has to agree, at 2.5 %.

    Args:
        claims: of one paper, of all its networks.

    Example:
        >>> values = [2.0, 2.5, 3.0], [-1.0, 2.0, 0.1], [-2.0, -2.5, -3.0], [1.0]
        >>> claims = [Claim('1', '', [Condition('a', one)]) for one in values]
        >>> [judged.verdict for judged in judge(claims)]
        ['supported', 'undecided', 'contradicted', 'too few seeds']
    """
    judged: dict[int, Judged] = {}
    holds: dict[int, float] = {}
    fails: dict[int, float] = {}
    for i, claim in enumerate(claims):
        parts = [np.asarray(c.values, float) for c in claim.conditions]
        if claim.missing or not parts:
            judged[i] = Judged("not measured", np.nan)
        elif min(map(len, parts)) < claim.least:
            judged[i] = Judged("too few seeds", np.nan)
        elif not all(np.isfinite(values).all() for values in parts):
            judged[i] = Judged("not finite", np.nan)
        else:
            p_values = [
                c.p_values or (_p_value(values), _p_value(c.effect / 4 - values))
                for c, values in zip(claim.conditions, parts, strict=True)
            ]
            holds[i] = max(p for p, _ in p_values)
            fails[i] = min(1.0, len(parts) * min(p for _, p in p_values))
    limit = (1 - LEVEL) / 2
    against = _holm(fails)
    for i, p in _holm(holds).items():
        verdict = "supported" if p <= limit else "undecided"
        if against[i] <= limit:
            verdict = "contradicted"
        judged[i] = Judged(verdict, p)
    return [judged[i] for i in range(len(claims))]


def _p_value(values: np.ndarray) -> float:
    """How often a resampled mean is not above zero; a t test's p if it disagrees."""
    below = (~(_means(values) > 0)).sum()
    resampled = float((below + 1) / (RESAMPLES + 1))
    # Values that are the same but for rounding have no spread to test.
    if np.ptp(values) > 1e-9 * np.abs(values).max():
        tested = stats.ttest_1samp(values, 0.0, alternative="greater").pvalue
        if not tested <= (1 - LEVEL) / 2:
            return max(resampled, float(tested))
    return resampled


def _holm(p_values: dict[int, float]) -> dict[int, float]:
    """Holm's correction.

    Example:
        >>> _holm({0: 0.01, 1: 0.04})
        {0: 0.02, 1: 0.04}
    """
    corrected, largest = {}, 0.0
    for rank, (i, p) in enumerate(sorted(p_values.items(), key=lambda one: one[1])):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p))
        corrected[i] = largest
    return dict(sorted(corrected.items()))
