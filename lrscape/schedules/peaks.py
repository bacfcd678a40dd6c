"""Nonmonotonic schedules: a Gaussian and a Laplacian peak."""

from __future__ import annotations

import math

import jax.numpy as jnp
import optax

from lrscape import checks
from lrscape.checks import is_concrete
from lrscape.errors import InputError
from lrscape.schedules.time import elapsed_and_remaining

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
        Scheduling <http://auai.org/uai2018/proceedings/papers/361.pdf>`_, 2018, Sec. 5
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
        Scheduling <http://auai.org/uai2018/proceedings/papers/361.pdf>`_, 2018, Sec. 5
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
