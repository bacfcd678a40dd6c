"""The schedules that a peak is compared with: decays, cycles and ramps."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import jax.numpy as jnp
import optax

from lrscape import checks
from lrscape.checks import is_concrete
from lrscape.errors import InputError
from lrscape.schedules.time import (
    at_or_past,
    ceil_product,
    distance_to_end_of_cycle,
    elapsed_and_remaining,
    first_of_epoch,
    float_dtype,
    float_or_traced,
    ramp,
    since_start,
)


def rational(init_value: float, total_steps: int, *, decay: float) -> optax.Schedule:
    r"""Decays as the reciprocal of a line.

    .. math:: \gamma_n = \frac{\gamma_0}{1 + \lambda\, n / N}

    Args:
        init_value: the rate at count 0, :math:`\gamma_0`.
        total_steps: the length :math:`N` of the schedule, in updates.
        decay: :math:`\lambda`, not negative; the rate ends at
            ``init_value / (1 + decay)``.

    Returns:
        The schedule: count -> rate, both of any one shape.

    Raises:
        InputError: a rate that is not positive and finite, a negative decay, or no
            steps.

    Example:
        >>> rate = rational(0.1, 100, decay=9.0)
        >>> [round(float(rate(n)), 4) for n in (0, 100, 200)]
        [0.1, 0.01, 0.01]

    References:
        Seong et al., `Towards Flatter Loss Surface via Nonmonotonic Learning Rate
        Scheduling <http://auai.org/uai2018/proceedings/papers/361.pdf>`_, 2018, Sec. 7
    """
    field = "rational"
    init = checks.positive(f"{field}: init_value", init_value)
    decay = checks.not_negative(f"{field}: decay", decay)
    steps = checks.steps(f"{field}: total_steps", total_steps)

    def schedule(count):
        elapsed, _ = elapsed_and_remaining(count, steps)
        return init / (1.0 + decay * elapsed)

    return schedule


def step(
    init_value: float,
    total_steps: int,
    *,
    milestones: Sequence[float] = (0.5, 0.75),
    factor: float = 0.1,
) -> optax.Schedule:
    r"""Multiplies the rate by a factor at each milestone.

    .. math:: \gamma_n = \gamma_0\, f^{\,|\{m : n \ge m N\}|}

    Args:
        init_value: the rate at count 0, :math:`\gamma_0`.
        total_steps: the length :math:`N` of the schedule, in updates.
        milestones: fractions :math:`m` of ``total_steps`` in increasing order; the
            first update at or past each takes the smaller rate. None at all keeps the
            rate constant.
        factor: :math:`f`, in (0, 1].

    Returns:
        The schedule: count -> rate, both of any one shape.

    Raises:
        InputError: a rate that is not positive and finite, milestones out of order or
            outside (0, 1], a factor outside (0, 1], or no steps.

    Example:
        >>> rate = step(0.1, 100, milestones=(0.5, 0.75))
        >>> [round(float(rate(n)), 4) for n in (0, 49, 50, 75, 100)]
        [0.1, 0.1, 0.01, 0.001, 0.001]
    """
    field = "step"
    init = checks.positive(f"{field}: init_value", init_value)
    factor = checks.positive(f"{field}: factor", factor)
    if is_concrete(factor) and factor > 1:
        raise InputError(f"{field}: factor={factor!r} must lie in (0, 1]")
    listed = checks.sequence(f"{field}: milestones", milestones)
    fractions = [checks.number(f"{field}: milestones", m) for m in listed]
    if all(map(is_concrete, fractions)) and not (
        all(0 < m <= 1 for m in fractions)
        and all(a < b for a, b in itertools.pairwise(fractions))
    ):
        raise InputError(
            f"{field}: milestones={tuple(listed)!r} must increase and lie in (0, 1]"
            ", as fractions of total_steps"
        )
    steps = checks.steps(f"{field}: total_steps", total_steps)
    boundaries = [ceil_product(m, steps) for m in fractions]

    def schedule(count):
        count = since_start(count)
        rate = jnp.full(count.shape, init, float_dtype())
        for boundary in boundaries:
            rate = jnp.where(at_or_past(count, boundary), rate * factor, rate)
        return rate

    return schedule


def triangular(
    peak_value: float, cycle_steps: int, *, base_value: float
) -> optax.Schedule:
    r"""Cycles linearly between two rates, for ever.

    .. math::

        \gamma_n = \gamma_{base} + (\gamma_{max} - \gamma_{base})
            \left(1 - \left|\frac{2 (n \bmod C)}{C} - 1\right|\right)

    Args:
        peak_value: the largest rate, reached in the middle of every cycle.
        cycle_steps: the length :math:`C` of a whole cycle, up and down, in updates
            (twice the *stepsize* of Smith, 2017).
        base_value: the smallest rate, at the start of every cycle; 0 is allowed.

    Returns:
        The schedule: count -> rate, both of any one shape.

    Raises:
        InputError: a rate that is not positive and finite (a base may be 0), a base
            above the peak, or no steps.

    Example:
        >>> rate = triangular(0.5, 10, base_value=0.1)
        >>> [round(float(rate(n)), 4) for n in (0, 5, 10, 12)]
        [0.1, 0.5, 0.1, 0.26]

    References:
        Smith, `Cyclical Learning Rates for Training Neural Networks
        <https://arxiv.org/abs/1506.01186>`_, 2017
    """
    field = "triangular"
    peak = checks.positive(f"{field}: peak_value", peak_value)
    base = _up_to_peak(field, "base_value", base_value, peak)
    steps = checks.steps(f"{field}: cycle_steps", cycle_steps)

    def schedule(count):
        # The distance to the nearer end of the cycle is exact, so the sum of two
        # positive terms is too.
        rise = 2.0 * distance_to_end_of_cycle(count, steps) / float_or_traced(steps)
        return peak * rise + base * (1.0 - rise)

    return schedule


def trapezoid(
    peak_value: float,
    total_steps: int,
    *,
    start_value: float,
    end_value: float,
    rise: float,
    fall: float,
) -> optax.Schedule:
    r"""Rises linearly, stays at the peak, and falls linearly.

    Args:
        peak_value: the rate between the rise and the fall.
        total_steps: the length :math:`N` of the schedule, in updates.
        start_value: the rate at count 0; 0 is allowed.
        end_value: the rate at ``total_steps``; 0 is allowed.
        rise: the length of the rise, as a fraction of ``total_steps``.
        fall: the length of the fall, as a fraction of ``total_steps``.

    Returns:
        The schedule: count -> rate, both of any one shape.

    Raises:
        InputError: a peak that is not positive and finite, a start or an end above it
            or negative, a rise and fall that are negative or longer than the whole, or
            no steps.

    Example:
        >>> rate = trapezoid(
        ...     0.4, 100, start_value=0.1, end_value=0.0, rise=0.2, fall=0.5)
        >>> [round(float(rate(n)), 4) for n in (0, 10, 20, 50, 75, 100)]
        [0.1, 0.25, 0.4, 0.4, 0.2, 0.0]

    References:
        Xing et al., `A Walk with SGD <https://arxiv.org/abs/1802.08770>`_, 2018, Sec. 5
    """
    field = "trapezoid"
    peak = checks.positive(f"{field}: peak_value", peak_value)
    start = _up_to_peak(field, "start_value", start_value, peak)
    end = _up_to_peak(field, "end_value", end_value, peak)
    rise = checks.not_negative(f"{field}: rise", rise)
    fall = checks.not_negative(f"{field}: fall", fall)
    # A hair of slack: 0.7 + 0.3 and its like may come out just above 1.
    if is_concrete(rise) and is_concrete(fall) and rise + fall > 1 + 1e-9:
        raise InputError(
            f"{field}: rise={rise!r} and fall={fall!r} are fractions of total_steps "
            "and must not exceed 1 together"
        )
    steps = checks.steps(f"{field}: total_steps", total_steps)

    def schedule(count):
        risen, to_rise = ramp(count, 0, rise * steps)
        fallen, to_fall = ramp(count, (1 - fall) * steps, steps)
        rate = start * to_rise + peak * risen
        return jnp.where(fallen > 0, peak * to_fall + end * fallen, rate)

    return schedule


def swa(
    init_value: float,
    total_steps: int,
    *,
    swa_value: float,
    start: float,
    end: float,
) -> optax.Schedule:
    r"""Stays constant, changes linearly, and stays constant while weights are averaged.

    Args:
        init_value: the rate until the fraction ``start``.
        total_steps: the length :math:`N` of the schedule, in updates.
        swa_value: the rate from the fraction ``end`` on.
        start: where the linear part begins, as a fraction of ``total_steps``.
        end: where the linear part ends, as a fraction of ``total_steps``.

    Returns:
        The schedule: count -> rate, both of any one shape.

    Raises:
        InputError: a rate that is not positive and finite, fractions out of order or
            outside [0, 1], or no steps.

    Example:
        >>> rate = swa(0.1, 100, swa_value=0.05, start=0.5, end=0.9)
        >>> [round(float(rate(n)), 4) for n in (0, 50, 70, 90, 100)]
        [0.1, 0.1, 0.075, 0.05, 0.05]

    References:
        Izmailov et al., `Averaging Weights Leads to Wider Optima and Better
        Generalization <https://arxiv.org/abs/1803.05407>`_, 2018
    """
    field = "swa"
    init = checks.positive(f"{field}: init_value", init_value)
    last = checks.positive(f"{field}: swa_value", swa_value)
    start = checks.not_negative(f"{field}: start", start)
    end = checks.not_negative(f"{field}: end", end)
    if is_concrete(start) and is_concrete(end) and not start <= end <= 1:
        raise InputError(
            f"{field}: start={start!r} and end={end!r} are fractions of total_steps "
            "and must satisfy 0 <= start <= end <= 1"
        )
    steps = checks.steps(f"{field}: total_steps", total_steps)

    def schedule(count):
        moved, to_move = ramp(count, start * steps, end * steps)
        return init * to_move + last * moved

    return schedule


def per_epoch(schedule: optax.Schedule, steps_per_epoch: int) -> optax.Schedule:
    """Holds a schedule's rate constant within each epoch.

    Args:
        schedule: any schedule of the update count.
        steps_per_epoch: the length of an epoch, in updates.

    Returns:
        The schedule that takes the rate of its epoch's first update: "discrete" in
        Seong et al. (2018), Fig. 6.

    Raises:
        InputError: no steps.

    Example:
        >>> rate = per_epoch(rational(0.1, 100, decay=1.0), steps_per_epoch=50)
        >>> [round(float(rate(n)), 4) for n in (0, 49, 50)]
        [0.1, 0.1, 0.0667]
    """
    field = "per_epoch"
    checks.function(f"{field}: schedule", schedule, takes="the update count")
    steps = checks.steps(f"{field}: steps_per_epoch", steps_per_epoch)
    return lambda count: schedule(first_of_epoch(count, steps))


def _up_to_peak(field, name, value, peak):
    """A rate between 0 and the peak, or InputError."""
    value = checks.not_negative(f"{field}: {name}", value)
    if is_concrete(value) and is_concrete(peak) and value > peak:
        raise InputError(
            f"{field}: {name}={value!r} is above peak_value={peak!r}; choose {name} at "
            "or below the peak"
        )
    return value
