"""Means with their intervals, and verdicts on the papers' claims."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

RESAMPLES = 10_000
# Two-sided.
LEVEL = 0.95
# Fewer pairs of runs give no verdict.
LEAST = 3


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
    """

    name: str
    values: Sequence[float]
    shown: str = ""

    def __str__(self) -> str:
        return f"{self.name} {self.shown or mean_and_interval(self.values)}"


@dataclasses.dataclass(frozen=True)
class Judged:
    """What came out of a claim.

    Attributes:
        verdict: ``'supported'``, ``'contradicted'``, ``'undecided'`` or
            ``'too few seeds'``.
        p_value: the largest of its conditions' one-sided bootstrap p values, after
            Holm's correction; NaN where there is none.
    """

    verdict: str
    p_value: float


def judge(claims: Sequence[Sequence[Condition]]) -> list[Judged]:
    """Judges the claims of a paper together.

    A claim is supported where every condition's 95 % interval lies above zero, and
    still does after Holm's correction over all claims; contradicted where one lies
    below it; undecided otherwise.

    Args:
        claims: each as its conditions.

    Example:
        >>> [judged.verdict for judged in judge([
        ...     [Condition('a', [1.0, 2.0, 3.0])], [Condition('b', [-1.0, 2.0, 0.1])],
        ...     [Condition('c', [-1.0, -2.0, -3.0])], [Condition('d', [1.0])]])]
        ['supported', 'undecided', 'contradicted', 'too few seeds']
    """
    judged: list[Judged | None] = [None] * len(claims)
    values: dict[int, float] = {}
    for i, conditions in enumerate(claims):
        if not conditions or min(len(c.values) for c in conditions) < LEAST:
            judged[i] = Judged("too few seeds", np.nan)
        elif any(bootstrap(c.values).high < 0 for c in conditions):
            judged[i] = Judged("contradicted", np.nan)
        else:
            values[i] = max(_p_value(c.values) for c in conditions)
    for i, p in _holm(values).items():
        verdict = "supported" if p <= (1 - LEVEL) / 2 else "undecided"
        judged[i] = Judged(verdict, p)
    return [one for one in judged if one is not None]


def _p_value(values: Sequence[float]) -> float:
    """How often a resampled mean is not above zero."""
    below = (_means(np.asarray(values, float)) <= 0).sum()
    return float((below + 1) / (RESAMPLES + 1))


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
