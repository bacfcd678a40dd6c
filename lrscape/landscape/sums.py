"""Sums that lose nothing to rounding, of numbers and of trees."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from lrscape.landscape.tree import wide_dtype


def weighted_sum(values: jax.Array, weights: np.ndarray) -> jax.Array:
    """Sum of weights times values, compensated; differentiable."""
    dtype = values.dtype
    values = values.astype(wide_dtype(dtype))
    # In units of the smallest batch: whole numbers, or nearly, which lose nothing.
    units = weights / weights[weights > 0].min()
    sizes = jnp.asarray(units, values.dtype)
    terms = jnp.append(values * sizes, jnp.zeros(1, values.dtype))

    def add(carry, term):
        total, lost = carry
        return _two_sum(total, lost, term), None

    zero = jnp.zeros([], values.dtype)
    (total, lost), _ = lax.scan(add, (zero, zero), terms)
    return ((total + lost) / jnp.asarray(units.sum(), values.dtype)).astype(dtype)


def _two_sum(total: jax.Array, lost: jax.Array, term: jax.Array):
    """Neumaier's summation: adds a term, and keeps what rounding took from it."""
    new = total + term
    larger = jnp.abs(total) >= jnp.abs(term)
    error = jnp.where(larger, (total - new) + term, (term - new) + total)
    # Beyond infinity there is nothing to keep, and inf - inf would be NaN.
    return new, lost + jnp.where(jnp.isfinite(error), error, jnp.zeros_like(error))


def added(carry: tuple[Any, Any], weight: Any, value: Any) -> tuple[Any, Any]:
    """Adds weight times value to a tree of totals and a tree of what they lost."""
    totals, structure = jax.tree.flatten(carry[0])
    pairs = [
        _two_sum(total, lost, term * jnp.asarray(weight, term.dtype))
        for total, lost, term in zip(
            totals, jax.tree.leaves(carry[1]), jax.tree.leaves(value), strict=True
        )
    ]
    return (
        jax.tree.unflatten(structure, [total for total, _ in pairs]),
        jax.tree.unflatten(structure, [lost for _, lost in pairs]),
    )


def nothing(shapes: Any) -> tuple[Any, Any]:
    """Totals of zero and losses of zero, for values of these shapes and dtypes."""
    zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
    return zeros, jax.tree.map(jnp.zeros_like, zeros)


def total_of(carry: tuple[Any, Any]) -> Any:
    """The totals, with what rounding took from them."""
    return jax.tree.map(jnp.add, *carry)
