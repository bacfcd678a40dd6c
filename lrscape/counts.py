"""Exact arithmetic on update counts: fractions of a schedule, whatever the dtype.

In float32 a plain ``count / total`` loses digits where it matters: in the difference
from a peak or from the end of a ramp. These functions subtract whole numbers first, in
unsigned integers wide enough for the count, and never form a difference that does not
fit. What is known on the host (Python and NumPy numbers) stays there in 64 bits, which
JAX's arrays have only under ``jax_enable_x64``.
"""

from __future__ import annotations

import math
import operator

import jax
import jax.numpy as jnp
import numpy as np

from lrscape.checks import LARGEST_STEPS, is_concrete, shown
from lrscape.errors import InputError


def float_dtype():
    """float32, or float64 under ``jax_enable_x64``."""
    return jnp.result_type(float)


def as_count(count):
    """A count as an array that the functions here compute with.

    Args:
        count: a number, or an array of any integer or floating dtype.

    Returns:
        Integers of 32 or 64 bits, or floats: a JAX array of a JAX array, else a NumPy
        array of 64 bits.

    Raises:
        InputError: neither numbers nor an array of them.
    """
    if isinstance(count, jax.Array):
        if jnp.issubdtype(count.dtype, jnp.floating):
            return count.astype(float_dtype())
        if jnp.issubdtype(count.dtype, jnp.unsignedinteger):
            return count if count.dtype.itemsize >= 4 else count.astype(jnp.uint32)
        if jnp.issubdtype(count.dtype, jnp.integer) or count.dtype == bool:
            return count if count.dtype.itemsize >= 4 else count.astype(jnp.int32)
        raise _no_count(count)
    try:
        array = np.asarray(count)
        if array.dtype == object:  # whole numbers of more than 64 bits, say
            values = [operator.index(value) for value in array.flat]
            values = [max(-LARGEST_STEPS, min(n, LARGEST_STEPS)) for n in values]
            array = np.array(values, np.int64).reshape(array.shape)
    except (TypeError, ValueError) as error:
        raise _no_count(count) from error
    wide = {"b": np.int64, "i": np.int64, "u": np.uint64, "f": np.float64}
    if array.dtype.kind not in wide:
        raise _no_count(count)
    return array.astype(wide[array.dtype.kind])


def _no_count(count):
    return InputError(
        f"count={shown(count)} must be a number of updates, or an array of them"
    )


def _is_integer(array):
    return jnp.issubdtype(array.dtype, jnp.integer)


def _module(array):
    """NumPy for what is known on the host, so that 64 bits stay 64 bits."""
    return jnp if isinstance(array, jax.Array) else np


def _unsigned(count):
    """Integers that are not negative, as unsigned ones of the same width."""
    if not _is_integer(count):
        return count
    return count.astype(np.dtype(f"uint{8 * count.dtype.itemsize}"))


def since_start(count):
    """A count as an array, 0 where it is negative."""
    count = as_count(count)
    return _unsigned(_module(count).maximum(count, 0))


def _since(count, whole):
    """`count - whole` in floating point: rounded once, never wrapped around.

    Args:
        count: from `since_start`.
        whole: a Python int, not negative.
    """
    if not _is_integer(count):
        return jnp.asarray(count - float(whole), float_dtype())
    largest = np.iinfo(count.dtype).max
    if whole > largest:
        missing = jnp.asarray(count.dtype.type(largest) - count, float_dtype())
        return -(missing + float(whole - largest))
    # One of the two is zero, so that nothing is lost in their difference.
    array, whole = _module(count), count.dtype.type(whole)
    passed = array.maximum(count, whole) - whole
    to_go = whole - array.minimum(count, whole)
    return jnp.asarray(passed, float_dtype()) - jnp.asarray(to_go, float_dtype())


def elapsed_and_remaining(count, steps):
    """The fractions of `steps` before and after `count`, each to the last digit."""
    count = since_start(count)
    if not isinstance(steps, int):
        count = jnp.clip(jnp.asarray(count, float_dtype()), 0, steps)
        return count / steps, (steps - count) / steps
    if _is_integer(count):
        most = count.dtype.type(min(steps, np.iinfo(count.dtype).max))
    else:
        most = float(steps)
    count = _module(count).minimum(count, most)
    total = float(steps)
    return _since(count, 0) / total, -_since(count, steps) / total


def ramp(count, begin, end):
    """The fractions of a linear change from `begin` to `end` before and after `count`.

    The two add up to 1; each is exact where it is small.
    """
    before, after = _since_real(count, begin), -_since_real(count, end)
    length = end - begin
    if not is_concrete(length):
        # An empty ramp is a jump; keep the division finite.
        jump = length <= 0
        length = jnp.where(jump, 1.0, length)
    elif length <= 0:
        jump, length = True, 1.0
    else:
        jump = False
    moved = jnp.clip(before / float_or_traced(length), 0.0, 1.0)
    left = jnp.clip(after / float_or_traced(length), 0.0, 1.0)
    passed = (before >= 0).astype(float_dtype())
    return jnp.where(jump, passed, moved), jnp.where(jump, 1.0 - passed, left)


def float_or_traced(value):
    """A Python float, or the traced value: a Python int may not fit JAX's integers."""
    return float(value) if is_concrete(value) else value


def _since_real(count, boundary):
    """`count - boundary` in floating point, without cancellation near the boundary."""
    count = since_start(count)
    if not (is_concrete(boundary) and _is_integer(count)):
        return jnp.asarray(count, float_dtype()) - float_or_traced(boundary)
    whole = math.floor(boundary)
    # A second float holds what the first one rounds off.
    high = float(np.asarray(boundary - whole, float_dtype()))
    low = boundary - whole - high
    return _since(count, whole) - high - low


def distance_to_end_of_cycle(count, cycle):
    """The distance of a count from the nearer end of its cycle, as a float.

    Exact for whole numbers. The same for ``count`` and ``-count``, as it must be for a
    cycle that goes on to both sides.
    """
    if isinstance(count, int) and isinstance(cycle, int):
        count = count % cycle  # of any size
    count = as_count(count)
    count = _unsigned(_module(count).abs(count))
    if not isinstance(cycle, int):
        position = jnp.asarray(count, float_dtype()) % cycle
        return jnp.minimum(position, cycle - position)
    if not _is_integer(count):
        position = count % float(cycle)
        nearer = _module(count).minimum(position, float(cycle) - position)
        return jnp.asarray(nearer, float_dtype())
    if cycle > np.iinfo(count.dtype).max:
        return jnp.minimum(_since(count, 0), -_since(count, cycle))
    length = count.dtype.type(cycle)
    position = count % length
    nearer = _module(count).minimum(position, length - position)
    return jnp.asarray(nearer, float_dtype())


def first_of_epoch(count, steps):
    """The count at which the epoch of `count` began, for another schedule to take."""
    if isinstance(count, int) and isinstance(steps, int):
        return count // steps * steps
    count = as_count(count)
    if not (isinstance(steps, int) and _is_integer(count)):
        count = jnp.asarray(count, float_dtype())
        return count // float_or_traced(steps) * float_or_traced(steps)
    limits = np.iinfo(count.dtype)
    array = _module(count)
    if steps > limits.max:
        first = array.where(count < 0, count.dtype.type(limits.min), 0 * count)
    else:
        position = count % count.dtype.type(steps)
        # Near the least number there is, the epoch begins below it.
        begun = array.maximum(count, count.dtype.type(limits.min) + position)
        first = begun - position
    if array is np and np.all(np.abs(first.astype(np.float64)) < 2**31):
        return jnp.asarray(first)  # what schedules of other libraries take
    return first


def ceil_product(fraction, steps):
    """The first count at or past a fraction of the steps.

    Rounded, since 0.07 * 100 lies just above 7.
    """
    if is_concrete(fraction) and is_concrete(steps):
        return math.ceil(round(fraction * steps, 6))
    return fraction * steps


def at_or_past(count, boundary):
    """Whether a count has reached a boundary that is not negative."""
    count = since_start(count)
    if not (isinstance(boundary, int) and _is_integer(count)):
        return jnp.asarray(count, float_dtype()) >= float_or_traced(boundary)
    if boundary > np.iinfo(count.dtype).max:
        return jnp.zeros(count.shape, bool)
    return jnp.asarray(count >= count.dtype.type(boundary))
