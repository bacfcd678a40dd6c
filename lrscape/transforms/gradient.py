"""Keeps the gradient of the last update, for whoever wants to look at it."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax


class KeepGradientState(NamedTuple):
    """State of `keep_gradient`.

    Attributes:
        gradient: what came in at the last update; zeros before any.
    """

    gradient: optax.Updates


def keep_gradient() -> optax.GradientTransformationExtraArgs:
    """Passes updates through, and keeps the last ones in its state.

    Put first in a chain it keeps the gradient, put last the step. It costs the memory
    of one more copy of the parameters.

    Returns:
        The transformation; ``optax.tree.get(state, 'gradient')`` reads what it kept.

    Example:
        >>> tx = optax.chain(keep_gradient(), optax.sgd(0.1, momentum=0.9))
        >>> state = tx.init(jnp.zeros(2))
        >>> _, state = tx.update(jnp.array([1.0, 2.0]), state)
        >>> print(optax.tree.get(state, 'gradient'))
        [1. 2.]
    """

    def init_fn(params: optax.Params) -> KeepGradientState:
        # Of a weakly typed parameter too the state keeps one type from the start.
        zeros = jax.tree.map(
            lambda leaf: jnp.zeros(jnp.shape(leaf), jnp.result_type(leaf)), params
        )
        return KeepGradientState(zeros)

    def update_fn(
        updates: optax.Updates,
        state: KeepGradientState,
        params: optax.Params | None = None,
        **extra_args: Any,
    ) -> tuple[optax.Updates, KeepGradientState]:
        del params, extra_args
        # In the dtypes of the parameters: a state that changes its dtypes fits no
        # compiled loop.
        kept = jax.tree.map(
            lambda old, new: jnp.asarray(new, old.dtype), state.gradient, updates
        )
        return updates, KeepGradientState(kept)

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)
