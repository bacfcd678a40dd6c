"""Checks of numbers that may be tracers.

`optax.inject_hyperparams` and a user's own vmap over peaks pass tracers as arguments:
those cannot be checked and stay in JAX. Everything else becomes a Python number, so
that constants are computed in double precision.
"""

from __future__ import annotations

import math
import operator

import jax
import jax.numpy as jnp
import numpy as np

from lrscape.errors import InputError


def is_concrete(value) -> bool:
    """Whether a value is known while tracing."""
    return not isinstance(value, jax.core.Tracer)


def is_integer(array) -> bool:
    """Whether an array holds integers."""
    return jnp.issubdtype(array.dtype, jnp.integer)


def float_dtype():
    """float32, or float64 under ``jax_enable_x64``."""
    return jnp.result_type(float)


def scalar(field, name, value):
    """A Python float, or the tracer; raises InputError for anything else."""
    if not is_concrete(value):
        return value
    if isinstance(value, bool | str) or value is None or np.ndim(value) != 0:
        raise InputError(f"{field}: {name}={value!r} must be a number")
    try:
        return float(value)
    except (TypeError, ValueError) as error:
        raise InputError(f"{field}: {name}={value!r} must be a number") from error


def positive(field, name, value):
    """A `scalar` that is positive and finite, or InputError."""
    value = scalar(field, name, value)
    if is_concrete(value) and not (math.isfinite(value) and value > 0):
        raise InputError(f"{field}: {name}={value!r} must be positive and finite")
    return value


def not_negative(field, name, value):
    """A `scalar` that is finite and not negative, or InputError."""
    value = scalar(field, name, value)
    if is_concrete(value) and not (math.isfinite(value) and value >= 0):
        raise InputError(f"{field}: {name}={value!r} must be finite and not negative")
    return value


def up_to_peak(field, name, value, peak):
    """A rate between 0 and the peak, or InputError."""
    value = not_negative(field, name, value)
    if is_concrete(value) and is_concrete(peak) and value > peak:
        raise InputError(
            f"{field}: {name}={value!r} is above peak_value={peak!r}; choose {name} at "
            "or below the peak"
        )
    return value


def whole_steps(field, name, value):
    """A Python int of 1 or more, or the tracer; raises InputError otherwise."""
    if not is_concrete(value):
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


def log(value):
    """The logarithm, in double precision where the value is known."""
    return math.log(value) if is_concrete(value) else jnp.log(value)


def sqrt(value):
    """The square root, in double precision where the value is known."""
    return math.sqrt(value) if is_concrete(value) else jnp.sqrt(value)
