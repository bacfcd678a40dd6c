"""Where a count lies between two others, to the last digit.

In float32 a plain ``count / total`` loses digits where it matters: in the difference
from a peak or from the end of a ramp. These functions subtract whole numbers first.
"""

from __future__ import annotations

import math

import jax.numpy as jnp
import numpy as np

from lrscape.schedules.checks import float_dtype, is_concrete, is_integer


def elapsed_and_remaining(count, steps):
    """The fractions of `steps` before and after `count`, each to the last digit."""
    count = jnp.asarray(count)
    if not (isinstance(steps, int) and is_integer(count)):
        count = count.astype(float_dtype())
    count = jnp.clip(count, 0, steps)
    return (
        count.astype(float_dtype()) / steps,
        (steps - count).astype(float_dtype()) / steps,
    )


def ramp(count, begin, end):
    """How far a linear change from `begin` to `end` has come, and what is left of it.

    The two add up to 1; each is exact where it is small.
    """
    before, after = _since(count, begin), -_since(count, end)
    length = end - begin
    if not is_concrete(length):
        # An empty ramp is a jump; keep the division finite.
        jump = length <= 0
        length = jnp.where(jump, 1.0, length)
    elif length <= 0:
        jump, length = True, 1.0
    else:
        jump = False
    moved = jnp.clip(before / length, 0.0, 1.0)
    left = jnp.clip(after / length, 0.0, 1.0)
    passed = (before >= 0).astype(float_dtype())
    return jnp.where(jump, passed, moved), jnp.where(jump, 1.0 - passed, left)


def _since(count, boundary):
    """`count - boundary` in floating point, without cancellation near the boundary."""
    count = jnp.asarray(count)
    if not (is_concrete(boundary) and is_integer(count)):
        return count.astype(float_dtype()) - boundary
    whole = math.floor(boundary)
    # A second float holds what the first one rounds off.
    high = float(np.asarray(boundary - whole, float_dtype()))
    low = boundary - whole - high
    return (count - whole).astype(float_dtype()) - high - low


def ceil_product(fraction, steps):
    """The first count at or past a fraction of the steps.

    Rounded, since 0.07 * 100 lies just above 7.
    """
    if is_concrete(fraction) and is_concrete(steps):
        return math.ceil(round(fraction * steps, 6))
    return fraction * steps


def at_or_past(count, boundary):
    """Whether a count has reached a boundary."""
    if isinstance(boundary, int) and is_integer(count):
        return count >= boundary
    return count.astype(float_dtype()) >= boundary
