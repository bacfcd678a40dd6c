"""A schedule as a gradient transformation that remembers the rate it used."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from lrscape import checks, schedules


class ScaleByRateState(NamedTuple):
    """State of `scale_by_rate`.

    Attributes:
        count: updates made so far, an int32 scalar.
        learning_rate: the rate that the last update used (before the first one: the
            rate that it will use), a float scalar.
    """

    count: jax.Array  # type: ignore[assignment]
    learning_rate: jax.Array


def scale_by_rate(schedule: optax.Schedule) -> optax.GradientTransformationExtraArgs:
    r"""Scales updates by minus the schedule's rate, and keeps the rate in its state.

    .. math:: u \leftarrow -\gamma(n)\, u

    Unlike `optax.scale_by_learning_rate`, the rate that was used can be read from the
    state (``optax.tree.get(state, 'learning_rate')``) instead of being computed twice.

    Args:
        schedule: count -> rate, per update.

    Returns:
        The transformation, to be chained last; it ignores extra arguments.

    Raises:
        InputError: the schedule is not a function.

    Example:
        >>> import optax
        >>> from lrscape import schedules
        >>> tx = optax.chain(
        ...     optax.trace(0.9), scale_by_rate(schedules.step(0.5, total_steps=10)))
        >>> state = tx.init(1.0)
        >>> updates, state = tx.update(2.0, state)
        >>> float(updates), float(optax.tree.get(state, 'learning_rate'))
        (-1.0, 0.5)
    """
    takes = "the update count; for a constant rate pass lambda count: rate"
    checks.function("scale_by_rate: schedule", schedule, takes=takes)

    def rate_at(count):
        return jnp.asarray(schedule(count), jnp.result_type(float))

    def init_fn(params):
        del params
        count = jnp.zeros([], jnp.int32)
        return ScaleByRateState(count, rate_at(count))

    def update_fn(updates, state, params=None, **extra_args):
        del params, extra_args
        rate = rate_at(state.count)
        updates = jax.tree.map(lambda u: -rate.astype(jnp.result_type(u)) * u, updates)
        return updates, ScaleByRateState(optax.safe_increment(state.count), rate)

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)


def _alias(
    factory: Callable[..., optax.Schedule],
) -> Callable[..., optax.GradientTransformationExtraArgs]:
    name = f"scale_by_{factory.__name__}"

    @functools.wraps(factory)
    def alias(*args, **kwargs):
        return scale_by_rate(factory(*args, **kwargs))

    signature = inspect.signature(factory)
    alias.__signature__ = signature.replace(  # type: ignore[attr-defined]
        return_annotation=optax.GradientTransformationExtraArgs
    )
    alias.__name__ = alias.__qualname__ = name
    alias.__module__ = "lrscape.transforms"  # where users find it
    alias.__doc__ = (
        f"Scales updates by minus the rate of `lrscape.schedules.{factory.__name__}`.\n"
        "\n"
        "The arguments are the schedule's; the state is `ScaleByRateState`.\n"
    )
    return alias


# Made from the registry, so that a new schedule has its transformation at once.
ALIASES = {
    f"scale_by_{name}": _alias(factory) for name, factory in schedules.FACTORIES.items()
}
