r"""Learning-rate schedules with a peak, and their baselines, as Optax schedules.

Each factory returns an `optax.Schedule`, a pure function of the update count that
works under ``jit`` and ``vmap``. A count of 0 gives the start of the schedule;
``total_steps`` and everything beyond give its end. Rates are per update, steps are
optimizer updates, fractions are of ``total_steps``.

The nonmonotonic shapes are those of Seong et al. (2018), Sec. 5. With the normalised
time :math:`t = t_0 + (1 - t_0)\,n / N` of update :math:`n` of :math:`N`, they peak at
:math:`t = 1/2`, and the offset :math:`t_0` cuts off a start that would be too slow.

Computed in float32 (float64 under ``jax_enable_x64``), and arranged so that no digits
are lost where a schedule is small beside its peak: a relative error of a few 1e-6.

References:
    Seong et al., `Towards Flatter Loss Surface via Nonmonotonic Learning Rate
    Scheduling <http://auai.org/uai2018/proceedings/papers/363.pdf>`_, 2018
"""

from __future__ import annotations

import inspect
import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax.numpy as jnp
import optax

from lrscape import checks
from lrscape.checks import is_concrete
from lrscape.counts import (
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
from lrscape.errors import InputError

# A peak schedule that is given no end falls to this fraction of its peak (Sec. 7).
DEFAULT_END_FRACTION = 1e-4
# ln(peak / end) beyond this overflows in float32, and the rate would be NaN.
_DEEPEST = 1e30


def gaussian(
    peak_value: float,
    total_steps: int,
    *,
    start_value: float | None = None,
    end_value: float | None = None,
    variance: float | None = None,
) -> optax.Schedule:
    r"""Rises and falls as a Gaussian, with its peak where the normalised time is 1/2.

    .. math::

        \gamma_t = \gamma_{max} \exp\left(-\frac{(t - 1/2)^2}{\sigma^2}\right), \quad
        \sigma^2 = -\frac{1}{4 \ln(\gamma_{min} / \gamma_{max})}, \quad
        t_0 = \frac{1}{2} - \sqrt{-\sigma^2 \ln(\gamma_{start} / \gamma_{max})}

    Args:
        peak_value: the largest rate, :math:`\gamma_{max}`; reached exactly where an
            update falls on it.
        total_steps: the length :math:`N` of the schedule, in updates.
        start_value: the rate at count 0, :math:`\gamma_{start}`; None starts at
            :math:`t_0 = 0`, as low as the schedule ends.
        end_value: the rate at ``total_steps``, :math:`\gamma_{min}`; None is
            ``peak_value / 10_000``.
        variance: :math:`\sigma^2` itself, in units of the normalised time squared; it
            then sets the end, :math:`\gamma_{max} e^{-1 / (4 \sigma^2)}`.

    Returns:
        The schedule: count -> rate, both of any one shape.

    Raises:
        InputError: a rate that is not positive and finite, a start above the peak, an
            end not below it, ``variance`` beside ``end_value``, or no steps.

    Example:
        >>> rate = gaussian(0.03, 100, start_value=0.01, end_value=3e-6)
        >>> [round(float(rate(n)), 6) for n in (0, 25, 50, 100)]
        [0.01, 0.029977, 0.011184, 3e-06]

    References:
        Seong et al., `Towards Flatter Loss Surface via Nonmonotonic Learning Rate
        Scheduling <http://auai.org/uai2018/proceedings/papers/363.pdf>`_, 2018, Sec. 5
    """
    return _peak_schedule(
        "gaussian",
        peak_value,
        total_steps,
        start_value,
        end_value,
        width=("variance", variance, 0.25),
        shape=jnp.square,
        inverse=_sqrt,
    )


def laplacian(
    peak_value: float,
    total_steps: int,
    *,
    start_value: float | None = None,
    end_value: float | None = None,
    scale: float | None = None,
) -> optax.Schedule:
    r"""Rises and falls exponentially, with a cusp where the normalised time is 1/2.

    .. math::

        \gamma_t = \gamma_{max} \exp\left(-\frac{|t - 1/2|}{\lambda}\right), \quad
        \lambda = -\frac{1}{2 \ln(\gamma_{min} / \gamma_{max})}, \quad
        t_0 = \frac{1}{2} + \lambda \ln(\gamma_{start} / \gamma_{max})

    Args:
        peak_value: the largest rate, :math:`\gamma_{max}`; reached exactly where an
            update falls on it.
        total_steps: the length :math:`N` of the schedule, in updates.
        start_value: the rate at count 0, :math:`\gamma_{start}`; None starts at
            :math:`t_0 = 0`, as low as the schedule ends.
        end_value: the rate at ``total_steps``, :math:`\gamma_{min}`; None is
            ``peak_value / 10_000``.
        scale: :math:`\lambda` itself, in units of the normalised time; it then sets
            the end, :math:`\gamma_{max} e^{-1 / (2 \lambda)}`.

    Returns:
        The schedule: count -> rate, both of any one shape.

    Raises:
        InputError: a rate that is not positive and finite, a start above the peak, an
            end not below it, ``scale`` beside ``end_value``, or no steps.

    Example:
        >>> rate = laplacian(0.1, 10, end_value=0.001)
        >>> [round(float(rate(n)), 4) for n in (0, 5, 10)]
        [0.001, 0.1, 0.001]

    References:
        Seong et al., `Towards Flatter Loss Surface via Nonmonotonic Learning Rate
        Scheduling <http://auai.org/uai2018/proceedings/papers/363.pdf>`_, 2018, Sec. 5
    """
    return _peak_schedule(
        "laplacian",
        peak_value,
        total_steps,
        start_value,
        end_value,
        width=("scale", scale, 0.5),
        shape=jnp.abs,
        inverse=lambda depth: depth,
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
        Scheduling <http://auai.org/uai2018/proceedings/papers/363.pdf>`_, 2018, Sec. 7
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


FACTORIES: dict[str, Callable[..., optax.Schedule]] = {
    factory.__name__: factory
    for factory in (gaussian, laplacian, rational, step, triangular, trapezoid, swa)
}

NAMES: tuple[str, ...] = tuple(FACTORIES)


def create(name: str, **kwargs: Any) -> optax.Schedule:
    """Makes a schedule by its name, as command lines do.

    Args:
        name: one of `NAMES`.
        **kwargs: the arguments of the factory of that name.

    Returns:
        The schedule.

    Raises:
        InputError: an unknown name, or an argument that this schedule does not take or
            that it lacks.

    Example:
        >>> round(float(create('step', init_value=0.1, total_steps=10)(9)), 4)
        0.001
    """
    checks.one_of("schedule", name, NAMES)
    parameters = inspect.signature(FACTORIES[name]).parameters
    for argument, value in kwargs.items():
        if argument not in parameters:
            raise InputError(
                f"{argument}={value!r} is not taken by schedule={name!r}, which takes "
                f"{', '.join(parameters)}"
            )
    for argument, parameter in parameters.items():
        if parameter.default is parameter.empty and argument not in kwargs:
            raise InputError(f"schedule={name!r} needs {argument}")
    return FACTORIES[name](**kwargs)


def _peak_schedule(
    field, peak_value, total_steps, start_value, end_value, *, width, shape, inverse
) -> optax.Schedule:
    """Both shapes as one formula.

    With s = 2 t - 1, which is 0 at the peak and 1 at the end, the rate is
    peak * exp(-depth * shape(s)), where depth = ln(peak / end) = factor / width.
    """
    width_name, width_value, factor = width
    if width_value is not None and end_value is not None:
        raise InputError(
            f"{field}: {width_name}={width_value!r} sets the end of the schedule "
            f"itself, so end_value={end_value!r} cannot be given too; leave one of "
            "them out"
        )
    peak = checks.positive(f"{field}: peak_value", peak_value)
    if width_value is None:
        depth = _depth(field, peak, end_value)
    else:
        depth = factor / checks.positive(f"{field}: {width_name}", width_value)
        if is_concrete(depth) and depth > _DEEPEST:
            raise InputError(
                f"{field}: {width_name}={width_value!r} is so small that every rate "
                f"but the peak is 0; choose {factor / _DEEPEST:g} or more"
            )
    start = -1.0
    if start_value is not None:
        start = -inverse(_start_depth(field, peak, start_value) / depth)
    steps = checks.steps(f"{field}: total_steps", total_steps)

    def schedule(count):
        elapsed, remaining = elapsed_and_remaining(count, steps)
        # Each half is measured from its own end of the schedule, where the rate is
        # smallest and an error in s would count most.
        s = jnp.where(
            elapsed < remaining,
            start + (1.0 - start) * elapsed,
            1.0 - (1.0 - start) * remaining,
        )
        return peak * jnp.exp(-depth * shape(s))

    return schedule


def _depth(field, peak, end_value):
    if end_value is None:
        return -math.log(DEFAULT_END_FRACTION)
    end = checks.positive(f"{field}: end_value", end_value)
    if is_concrete(peak) and is_concrete(end) and end >= peak:
        raise InputError(
            f"{field}: end_value={end!r} must be below peak_value={peak!r}"
        )
    return _log(peak / end)


def _start_depth(field, peak, start_value):
    start = checks.positive(f"{field}: start_value", start_value)
    if is_concrete(peak) and is_concrete(start) and start > peak:
        raise InputError(
            f"{field}: start_value={start!r} is above peak_value={peak!r}; start at or "
            "below the peak"
        )
    return _log(peak / start)


def _log(value):
    """The logarithm, in double precision where the value is known."""
    return math.log(value) if is_concrete(value) else jnp.log(value)


def _sqrt(value):
    """The square root, in double precision where the value is known."""
    return math.sqrt(value) if is_concrete(value) else jnp.sqrt(value)


def _up_to_peak(field, name, value, peak):
    """A rate between 0 and the peak, or InputError."""
    value = checks.not_negative(f"{field}: {name}", value)
    if is_concrete(value) and is_concrete(peak) and value > peak:
        raise InputError(
            f"{field}: {name}={value!r} is above peak_value={peak!r}; choose {name} at "
            "or below the peak"
        )
    return value


__all__ = ["FACTORIES", "NAMES", "create", "per_epoch", *NAMES]
