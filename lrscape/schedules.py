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
    Scheduling <http://auai.org/uai2018/proceedings/papers/361.pdf>`_, 2018
"""

from __future__ import annotations

import inspect
import math
import operator
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from lrscape.errors import InputError, unknown_name

Schedule = optax.Schedule

# A peak schedule that is given no end falls to this fraction of its peak (Sec. 7).
DEFAULT_END_FRACTION = 1e-4


def gaussian(
    peak_value: float,
    total_steps: int,
    *,
    start_value: float | None = None,
    end_value: float | None = None,
    variance: float | None = None,
) -> Schedule:
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
        Scheduling <http://auai.org/uai2018/proceedings/papers/361.pdf>`_, 2018, Sec. 5
    """
    field = "gaussian"
    if variance is not None and end_value is not None:
        raise InputError(
            f"{field}: variance={variance!r} sets the end of the schedule itself, so "
            f"end_value={end_value!r} cannot be given too; leave one of them out"
        )
    peak = _positive(field, "peak_value", peak_value)
    if variance is None:
        depth = _depth(field, peak, end_value)
    else:
        depth = 0.25 / _positive(field, "variance", variance)
    start = -1.0
    if start_value is not None:
        start = -_sqrt(_start_depth(field, peak, start_value) / depth)
    return _peak_schedule(
        peak, _steps(field, "total_steps", total_steps), depth, start, jnp.square
    )


def laplacian(
    peak_value: float,
    total_steps: int,
    *,
    start_value: float | None = None,
    end_value: float | None = None,
    scale: float | None = None,
) -> Schedule:
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
        Scheduling <http://auai.org/uai2018/proceedings/papers/361.pdf>`_, 2018, Sec. 5
    """
    field = "laplacian"
    if scale is not None and end_value is not None:
        raise InputError(
            f"{field}: scale={scale!r} sets the end of the schedule itself, so "
            f"end_value={end_value!r} cannot be given too; leave one of them out"
        )
    peak = _positive(field, "peak_value", peak_value)
    if scale is None:
        depth = _depth(field, peak, end_value)
    else:
        depth = 0.5 / _positive(field, "scale", scale)
    start = -1.0
    if start_value is not None:
        start = -_start_depth(field, peak, start_value) / depth
    return _peak_schedule(
        peak, _steps(field, "total_steps", total_steps), depth, start, jnp.abs
    )


def rational(init_value: float, total_steps: int, *, decay: float) -> Schedule:
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
    init = _positive(field, "init_value", init_value)
    decay = _not_negative(field, "decay", decay)
    steps = _steps(field, "total_steps", total_steps)

    def schedule(count):
        elapsed, _ = _elapsed_and_remaining(count, steps)
        return init / (1.0 + decay * elapsed)

    return schedule


def step(
    init_value: float,
    total_steps: int,
    *,
    milestones: Sequence[float] = (0.5, 0.75),
    factor: float = 0.1,
) -> Schedule:
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
    init = _positive(field, "init_value", init_value)
    factor = _positive(field, "factor", factor)
    if _is_concrete(factor) and factor > 1:
        raise InputError(f"{field}: factor={factor!r} must lie in (0, 1]")
    fractions = [_scalar(field, "milestones", m) for m in milestones]
    if all(map(_is_concrete, fractions)) and not (
        all(0 < m <= 1 for m in fractions)
        and all(a < b for a, b in zip(fractions, fractions[1:], strict=False))
    ):
        raise InputError(
            f"{field}: milestones={tuple(milestones)!r} must increase and lie in (0, 1]"
            ", as fractions of total_steps"
        )
    steps = _steps(field, "total_steps", total_steps)
    boundaries = [_ceil_product(m, steps) for m in fractions]

    def schedule(count):
        count = jnp.asarray(count)
        rate = jnp.full(count.shape, init, _float_dtype())
        for boundary in boundaries:
            rate = jnp.where(_compare(count, boundary), rate * factor, rate)
        return rate

    return schedule


def triangular(
    peak_value: float, cycle_steps: int, *, base_value: float
) -> Schedule:
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
    peak = _positive(field, "peak_value", peak_value)
    base = _up_to_peak(field, "base_value", base_value, peak)
    steps = _steps(field, "cycle_steps", cycle_steps)

    def schedule(count):
        count = jnp.asarray(count)
        if not (isinstance(steps, int) and _is_integer(count)):
            count = count.astype(_float_dtype())
        position = count % steps
        # The distance to the nearer end of the cycle is exact, so the sum of two
        # positive terms is too.
        rise = 2.0 * jnp.minimum(position, steps - position).astype(_float_dtype())
        rise = rise / steps
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
) -> Schedule:
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
    peak = _positive(field, "peak_value", peak_value)
    start = _up_to_peak(field, "start_value", start_value, peak)
    end = _up_to_peak(field, "end_value", end_value, peak)
    rise = _not_negative(field, "rise", rise)
    fall = _not_negative(field, "fall", fall)
    # A hair of slack: 0.7 + 0.3 and its like may come out just above 1.
    if _is_concrete(rise) and _is_concrete(fall) and rise + fall > 1 + 1e-9:
        raise InputError(
            f"{field}: rise={rise!r} and fall={fall!r} are fractions of total_steps and "
            "must not exceed 1 together"
        )
    steps = _steps(field, "total_steps", total_steps)

    def schedule(count):
        risen, to_rise = _ramp(count, 0, rise * steps)
        fallen, to_fall = _ramp(count, (1 - fall) * steps, steps)
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
) -> Schedule:
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
    init = _positive(field, "init_value", init_value)
    last = _positive(field, "swa_value", swa_value)
    start = _not_negative(field, "start", start)
    end = _not_negative(field, "end", end)
    if _is_concrete(start) and _is_concrete(end) and not start <= end <= 1:
        raise InputError(
            f"{field}: start={start!r} and end={end!r} are fractions of total_steps and "
            "must satisfy 0 <= start <= end <= 1"
        )
    steps = _steps(field, "total_steps", total_steps)

    def schedule(count):
        moved, to_move = _ramp(count, start * steps, end * steps)
        return init * to_move + last * moved

    return schedule


def per_epoch(schedule: Schedule, steps_per_epoch: int) -> Schedule:
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
    steps = _steps("per_epoch", "steps_per_epoch", steps_per_epoch)
    return lambda count: schedule(jnp.asarray(count) // steps * steps)


FACTORIES: dict[str, Callable[..., Schedule]] = {
    factory.__name__: factory
    for factory in (gaussian, laplacian, rational, step, triangular, trapezoid, swa)
}

NAMES: tuple[str, ...] = tuple(FACTORIES)


def create(name: str, **kwargs: Any) -> Schedule:
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
    if name not in FACTORIES:
        raise unknown_name("schedule", name, NAMES)
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


# The two peak shapes are one formula: with s = 2 t - 1, which runs from `start` to 1
# and is 0 at the peak, the rate is peak * exp(-depth * shape(s)), where depth is
# ln(peak / end).


def _peak_schedule(peak, steps, depth, start, shape) -> Schedule:
    def schedule(count):
        elapsed, remaining = _elapsed_and_remaining(count, steps)
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
    end = _positive(field, "end_value", end_value)
    if _is_concrete(peak) and _is_concrete(end) and end >= peak:
        raise InputError(
            f"{field}: end_value={end!r} must be below peak_value={peak!r}"
        )
    return _log(peak / end)


def _start_depth(field, peak, start_value):
    start = _positive(field, "start_value", start_value)
    if _is_concrete(peak) and _is_concrete(start) and start > peak:
        raise InputError(
            f"{field}: start_value={start!r} is above peak_value={peak!r}; start at or "
            "below the peak"
        )
    return _log(peak / start)


def _elapsed_and_remaining(count, steps):
    """The fractions of `steps` before and after `count`, each to the last digit."""
    count = jnp.asarray(count)
    if not (isinstance(steps, int) and _is_integer(count)):
        count = count.astype(_float_dtype())
    count = jnp.clip(count, 0, steps)
    return (
        count.astype(_float_dtype()) / steps,
        (steps - count).astype(_float_dtype()) / steps,
    )


def _ramp(count, begin, end):
    """How far a linear change from `begin` to `end` has come, and what is left of it.

    The two add up to 1; each is exact where it is small.
    """
    before, after = _since(count, begin), -_since(count, end)
    length = end - begin
    if not _is_concrete(length):
        # An empty ramp is a jump; keep the division finite.
        jump = length <= 0
        length = jnp.where(jump, 1.0, length)
    elif length <= 0:
        jump, length = True, 1.0
    else:
        jump = False
    moved = jnp.clip(before / length, 0.0, 1.0)
    left = jnp.clip(after / length, 0.0, 1.0)
    passed = (before >= 0).astype(_float_dtype())
    return jnp.where(jump, passed, moved), jnp.where(jump, 1.0 - passed, left)


def _since(count, boundary):
    """`count - boundary` in floating point, without cancellation near the boundary."""
    count = jnp.asarray(count)
    if not (_is_concrete(boundary) and _is_integer(count)):
        return count.astype(_float_dtype()) - boundary
    whole = math.floor(boundary)
    # A second float holds what the first one rounds off.
    high = float(np.asarray(boundary - whole, _float_dtype()))
    low = boundary - whole - high
    return (count - whole).astype(_float_dtype()) - high - low


def _ceil_product(fraction, steps):
    """The first count at or past a fraction of the steps.

    Rounded, since 0.07 * 100 lies just above 7.
    """
    if _is_concrete(fraction) and _is_concrete(steps):
        return math.ceil(round(fraction * steps, 6))
    return fraction * steps


def _compare(count, boundary):
    if isinstance(boundary, int) and _is_integer(count):
        return count >= boundary
    return count.astype(_float_dtype()) >= boundary


# Arguments may be tracers, since `optax.inject_hyperparams` and a user's own vmap over
# peaks pass them: those are not checked and stay in JAX. Everything else becomes a
# Python number, so that constants are computed in double precision.


def _is_concrete(value) -> bool:
    return not isinstance(value, jax.core.Tracer)


def _is_integer(array) -> bool:
    return jnp.issubdtype(array.dtype, jnp.integer)


def _float_dtype():
    return jnp.result_type(float)


def _scalar(field, name, value):
    if not _is_concrete(value):
        return value
    if isinstance(value, bool | str) or value is None or np.ndim(value) != 0:
        raise InputError(f"{field}: {name}={value!r} must be a number")
    try:
        return float(value)
    except (TypeError, ValueError) as error:
        raise InputError(f"{field}: {name}={value!r} must be a number") from error


def _positive(field, name, value):
    value = _scalar(field, name, value)
    if _is_concrete(value) and not (math.isfinite(value) and value > 0):
        raise InputError(f"{field}: {name}={value!r} must be positive and finite")
    return value


def _not_negative(field, name, value):
    value = _scalar(field, name, value)
    if _is_concrete(value) and not (math.isfinite(value) and value >= 0):
        raise InputError(f"{field}: {name}={value!r} must be finite and not negative")
    return value


def _up_to_peak(field, name, value, peak):
    value = _not_negative(field, name, value)
    if _is_concrete(value) and _is_concrete(peak) and value > peak:
        raise InputError(
            f"{field}: {name}={value!r} is above peak_value={peak!r}; choose {name} at "
            "or below the peak"
        )
    return value


def _steps(field, name, value):
    if not _is_concrete(value):
        return value
    try:
        if isinstance(value, bool):
            raise TypeError
        # 100.0 is as good as 100: `inject_hyperparams` turns one into the other.
        number = operator.index(value) if not hasattr(value, "is_integer") else value
        if number != int(number):
            raise TypeError
    except (TypeError, ValueError, OverflowError) as error:
        raise InputError(
            f"{field}: {name}={value!r} must be a whole number of updates"
        ) from error
    if number < 1:
        raise InputError(f"{field}: {name}={value!r} must be at least 1 update")
    return int(number)


def _log(value):
    return math.log(value) if _is_concrete(value) else jnp.log(value)


def _sqrt(value):
    return math.sqrt(value) if _is_concrete(value) else jnp.sqrt(value)
