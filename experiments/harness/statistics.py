"""Means with their intervals, and verdicts on the papers' claims."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy import special

RESAMPLES = 10_000
# Two-sided.
LEVEL = 0.95
# Fewer pairs of runs give no verdict.
LEAST = 3
# By preset: fewer give none where a criterion names no number of its own.
SEEDS = {"quick": 5, "paper": LEAST, "authors": LEAST}


class Interval(NamedTuple):
    """A mean and its 95 % interval; of a single value the value alone."""

    mean: float
    low: float
    high: float


def t_interval(values: Any) -> Interval:
    """The mean of values and its 95 % interval by Student's t.

    It covers the mean of normal values in 95 % of cases, however few they are. An
    interval by resampling never leaves the range of what was seen: of three values it
    covers the mean in 76 %, of five in 83 %.

    Example:
        >>> print(*(round(v, 3) for v in t_interval([1.0, 2.0, 6.0])))
        3.0 -3.572 9.572
    """
    values = np.asarray(values, float)
    if len(values) < 2:
        value = float(values[0]) if len(values) else np.nan
        return Interval(value, np.nan, np.nan)
    mean, count = float(values.mean()), len(values)
    quantile = special.stdtrit(count - 1, (1 + LEVEL) / 2)
    half = float(quantile * values.std(ddof=1) / np.sqrt(count))
    return Interval(mean, mean - half, mean + half)


def _means(values: np.ndarray) -> np.ndarray:
    """The means of `RESAMPLES` resamples: the same draws for equally many values."""
    return np.take(values, _draws(RESAMPLES, len(values))).mean(axis=1)


@functools.lru_cache(maxsize=32)
def _draws(resamples: int, count: int) -> np.ndarray:
    """(resamples, count), which of the values each resample holds."""
    return np.random.default_rng(0).integers(count, size=(resamples, count))


def mean_and_interval(values: Any) -> str:
    """A mean, with its 95 % interval where there are several values.

    Example:
        >>> mean_and_interval([2.0]), mean_and_interval([1.0, 1.0, 1.0])
        ('2', '1 (1 to 1)')
    """
    values = np.asarray(values, float)
    if not len(values):
        return "-"
    found = t_interval(values)
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
        effect: what the paper has for it: what is surely less than a quarter of that,
            and not surely above zero, contradicts.
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
    said = f"{mean_and_interval(values)} > {limit:g}{_agree(values > limit)}"
    return Condition(name, values - limit, said)


def below(name: str, values: Any, limit: float = 0.0) -> Condition:
    """That a quantity, one value a seed, is smaller than a limit."""
    values = np.asarray(values, float)
    said = f"{mean_and_interval(values)} < {limit:g}{_agree(values < limit)}"
    return Condition(name, limit - values, said)


def _agree(holds: np.ndarray) -> str:
    """In how many seeds it is so, where there are several.

    Example:
        >>> str(above('a', [1.0, 2.0, -1.0])).rpartition(', ')[2]
        'in 2 of 3'
    """
    return f", in {holds.sum()} of {len(holds)}" if len(holds) > 1 else ""


def differs(name: str, values: Any) -> Condition:
    """That a quantity, one value a seed, is not zero, to whichever side.

    Nothing contradicts it: that it is zero is no more than not shown.

    Example:
        >>> judged = judge([Claim('1', '', [differs('a', [-2.0, -2.1, -2.2])])])
        >>> judged[0].verdict
        'supported'
    """
    values = np.asarray(values, float)
    p = min(1.0, 2 * min(_p_values(values)))
    return Condition(name, values, f"{mean_and_interval(values)}, not 0", (p, 1.0))


def every(what: str, holds: Any, values: Any, name: str) -> Condition:
    """That something holds of all seeds, not merely of their mean.

    It is supported where it holds of all, undecided where it holds of some, and
    contradicted where it holds of none, or of so few that it is not by chance.

    Args:
        what: holds, in a few words.
        holds: (seeds,), whether it does.
        values: (seeds,), of which it holds; NaN is not known.
        name: of the values.

    Example:
        >>> print(every('below 1', [True, True], [0.5, 0.7], 'ratio'))
        all below 1: 2 of 2 (ratio 0.6 (-0.671 to 1.87)) > all but one
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


def baselines_failed(*failed: Any) -> str:
    """Why there is no verdict where runs failed that are compared with.

    Args:
        failed: (seeds,) each, which runs of a baseline did.

    Example:
        >>> baselines_failed([True, False], [False]), baselines_failed([False])
        ('1 of the runs that it is compared with failed', '')
    """
    count = sum(int(np.sum(one)) for one in failed)
    return f"{count} of the runs that it is compared with failed" if count else ""


class Claim(NamedTuple):
    """A claim: all that has to lie above zero for it to hold.

    Attributes:
        name: its number.
        sentence: what it says.
        conditions: its parts.
        least: values that each part needs for a verdict.
        missing: what of the criterion was not measured, and why; empty: nothing.
        apart: whether it is a control, or an addition to what the paper claims: judged,
            and not counted in the verdict on the claim as a whole.
    """

    name: str
    sentence: str
    conditions: Sequence[Condition]
    least: int = LEAST
    missing: str = ""
    apart: bool = False


@dataclasses.dataclass(frozen=True)
class Judged:
    """What came out of a claim.

    Attributes:
        verdict: ``'supported'``, ``'contradicted'``, ``'undecided'``, or why there is
            none: ``'not measured'``, ``'too few seeds'``, ``'not finite'``.
        p_value: one-sided p value that not all conditions hold, after Holm's
            correction; NaN where there is no verdict.
    """

    verdict: str
    p_value: float


def judge(claims: Sequence[Claim]) -> list[Judged]:
    """Judges the claims of a paper together.

    A claim is supported where the means of every condition lie above zero at a
    two-sided 5 %, corrected by Holm's method over all claims that are judged, those
    that stand apart by themselves; contradicted where it is not and those of one lie
    below it, or below a quarter of the paper's own effect, corrected in the same way
    and for the number of its conditions; undecided otherwise. A condition's p value is
    the larger one of a bootstrap and of Student's t test: with few values resampling
    cannot tell much less than "all on one side" from "some on the other", which three
    are by chance one time in eight.

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
                c.p_values or _p_values(values, c.effect / 4)
                for c, values in zip(claim.conditions, parts, strict=True)
            ]
            holds[i] = max(p for p, _ in p_values)
            fails[i] = min(1.0, len(parts) * min(p for _, p in p_values))
    limit = (1 - LEVEL) / 2
    for apart in (False, True):
        family = [i for i in holds if claims[i].apart == apart]
        against = _holm({i: fails[i] for i in family})
        for i, p in _holm({i: holds[i] for i in family}).items():
            verdict = "contradicted" if against[i] <= limit else "undecided"
            if p <= limit:
                verdict = "supported"
            judged[i] = Judged(verdict, p)
    return [judged[i] for i in range(len(claims))]


def _p_values(values: np.ndarray, limit: float = 0.0) -> tuple[float, float]:
    """That the mean is not above zero, and that it is not below a limit.

    Each is the larger p of a bootstrap and of a t test.

    Example:
        >>> [round(p, 4) for p in _p_values(np.array([1.0, 2.0, 3.0]))]
        [0.0371, 1.0]
    """
    means = _means(values)
    # Rounding knows no sign, so that these are the means of the resampled negatives.
    opposite = -means if limit == 0 else _means(limit - values)
    return _p_value(values, means), _p_value(limit - values, opposite)


def _p_value(values: np.ndarray, means: np.ndarray) -> float:
    """That the mean is not above zero: the larger p of a bootstrap and of a t test.

    Values that are the same but for rounding have no spread to test: they are above
    zero or they are not.

    Args:
        values: (n,).
        means: those of their resamples.

    Example:
        >>> same, negative = np.array([0.1, 0.1]), np.array([-1.0])
        >>> _p_value(same, _means(same)), _p_value(negative, _means(negative))
        (0.0, 1.0)
    """
    largest, least = values.max(), values.min()
    if largest - least <= 1e-9 * max(abs(largest), abs(least)):
        return float(not least > 0)
    if least > 0:
        resampled = 0.0  # no draw of them can have another mean
    else:
        resampled = (np.count_nonzero(~(means > 0)) + 1) / (RESAMPLES + 1)
    count = len(values)
    t = values.mean() / np.sqrt(values.var(ddof=1) / count)
    return max(float(resampled), float(special.stdtr(count - 1, -t)))


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
