"""Rates that are data: runs that differ by them alone share a compiled program."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax


class RatesState(NamedTuple):
    """State of `scale_by_rates`.

    Attributes:
        count: updates made so far.
        learning_rate: of the last one; before any, of the first.
        rates: all of them, padded with the last.
    """

    count: jax.Array  # type: ignore[assignment]
    learning_rate: jax.Array
    rates: jax.Array


def scale_by_rates(rates: Any) -> optax.GradientTransformation:
    """Scales updates by rates that are data, not part of the compiled program.

    Runs that differ by their rates alone then share one program.

    Args:
        rates: (updates,).

    Returns:
        The transformation, to be chained last; `lrscape.training.learning_rate` reads
        its rate.
    """
    rates = np.asarray(rates, np.float32)
    # The next power of two, so that runs of several lengths share it too.
    padded = np.pad(
        rates, (0, (1 << (len(rates) - 1).bit_length()) - len(rates)), "edge"
    )

    def init(params):
        del params
        table = jnp.asarray(padded)
        return RatesState(jnp.zeros([], jnp.int32), table[0], table)

    def update(updates, state, params=None):
        del params
        rate = state.rates[jnp.minimum(state.count, len(padded) - 1)]
        updates = jax.tree.map(lambda u: -rate.astype(u.dtype) * u, updates)
        count = optax.safe_increment(state.count)
        return updates, RatesState(count, rate, state.rates)

    return optax.GradientTransformation(init, update)
