"""One optimizer until a step, another one after it."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax

from lrscape import checks
from lrscape.counts import at_or_past
from lrscape.errors import InputError


class SwitchState(NamedTuple):
    """State of `switch`.

    Attributes:
        count: updates made so far, an int32 scalar.
        active: which optimizer made the last update (before any: will make the first),
            counted from 0, an int32 scalar.
        states: the optimizers' own states.
    """

    count: jax.Array  # type: ignore[assignment]
    active: jax.Array
    states: tuple[optax.OptState, ...]


def switch(
    transforms: Sequence[optax.GradientTransformation], boundaries: Sequence[int]
) -> optax.GradientTransformationExtraArgs:
    """Takes one optimizer after the other, each starting fresh.

    The first makes the updates before ``boundaries[0]``, the second those from there to
    ``boundaries[1]``, and so on. At its switch an optimizer's state is made anew from
    the parameters as they are then: nothing of what came before is in it, and its
    schedules count its own updates. Only the optimizer that is active is computed; all
    is one program, which a switch does not compile again.

    `runge_kutta` within it costs its second gradient only while it is active. But XLA
    on CPU is some twenty times slower at gradients of convolutions within a branch:
    there, chain it before the switch.

    Args:
        transforms: the optimizers, with rates of their own.
        boundaries: the counts of updates, over all of them, at which each optimizer but
            the first begins; increasing.

    Returns:
        The transformation; its update needs ``params``, and passes extra arguments on
        to the optimizer that is active. `lrscape.training.learning_rate` reads that
        optimizer's rate.

    Raises:
        InputError: no optimizers, something that is none, or boundaries that are not
            one fewer, whole, positive and increasing; and from the update where
            ``params`` are missing.

    Example:
        >>> tx = switch([optax.sgd(0.5), optax.sgd(0.1)], boundaries=[2])
        >>> params = jnp.ones(1)
        >>> state = tx.init(params)
        >>> for _ in range(3):
        ...     updates, state = tx.update(jnp.ones(1), state, params)
        ...     print(updates)
        [-0.5]
        [-0.5]
        [-0.1]

    References:
        Im, Tao and Branson, `An empirical analysis of deep network loss surfaces
        <https://arxiv.org/abs/1612.04010>`_, 2016, Sec. 4.3
    """
    starts = _check(transforms, boundaries)
    optimizers = [optax.with_extra_args_support(tx) for tx in transforms]

    def init_fn(params: optax.Params) -> SwitchState:
        zero = jnp.zeros([], jnp.int32)
        return SwitchState(zero, zero, tuple(_fresh(tx, params) for tx in optimizers))

    def update_fn(
        updates: optax.Updates,
        state: SwitchState,
        params: optax.Params | None = None,
        **extra_args: Any,
    ) -> tuple[optax.Updates, SwitchState]:
        if params is None:
            raise InputError(
                "switch: params=None; call update(gradient, state, params): an "
                "optimizer starts from the parameters at its switch"
            )

        def branch(i: int):
            def update():
                own = states[i]
                if i:
                    # Reached for the first time: the count goes up by one.
                    now = at_or_past(state.count, starts[i])
                    now &= ~at_or_past(state.count, starts[i] + 1)
                    fresh = _fresh(optimizers[i], params)
                    own = jax.tree.map(lambda a, b: jnp.where(now, a, b), fresh, own)
                new, own = optimizers[i].update(updates, own, params, **extra_args)
                kept = (*states[:i], _as(states[i], own), *states[i + 1 :])
                return _as(updates, new), kept

            return update

        states = state.states
        active = sum(at_or_past(state.count, n).astype(jnp.int32) for n in starts[1:])
        active = jnp.asarray(active, jnp.int32)
        branches = [branch(i) for i in range(len(optimizers))]
        updates, states = lax.switch(active, branches)
        count = optax.safe_increment(state.count)
        return updates, SwitchState(count, active, states)

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)


def active_state(opt_state: optax.OptState) -> optax.OptState:
    """A state in which each `switch` is replaced by its active optimizer's state.

    Args:
        opt_state: of any Optax transformation; not while it is traced.

    Example:
        >>> tx = switch([optax.sgd(0.5), optax.adam(0.1)], boundaries=[2])
        >>> optax.tree.get(active_state(tx.init(jnp.ones(1))), 'mu') is None
        True
    """

    def is_switch(node: Any) -> bool:
        return isinstance(node, SwitchState)

    def chosen(node: Any) -> Any:
        return active_state(node.states[int(node.active)]) if is_switch(node) else node

    return jax.tree.map(chosen, opt_state, is_leaf=is_switch)


def _check(transforms: Any, boundaries: Any) -> list[int]:
    """The update that each optimizer begins at."""
    optimizers = checks.sequence("switch: transforms", transforms)
    for i, tx in enumerate(optimizers):
        checks.transformation(f"switch: transforms[{i}]", tx)
    one = np.ndim(boundaries) == 0 and not isinstance(boundaries, str | bytes | set)
    given = checks.sequence("switch: boundaries", [boundaries] if one else boundaries)
    if len(optimizers) != len(given) + 1:
        raise InputError(
            f"switch: boundaries={checks.shown(given)} must be one fewer than the "
            f"transforms, which are {len(optimizers)}: each one but the first begins "
            "at a boundary"
        )
    starts = [checks.steps("switch: boundaries", n) for n in given]
    if any(a >= b for a, b in itertools.pairwise(starts)):
        raise InputError(f"switch: boundaries={given!r} must increase")
    return [0, *starts]


def _fresh(tx: optax.GradientTransformation, params: optax.Params) -> Any:
    """An initial state whose arrays are of firm types.

    Some of Optax's are weakly typed at first and no longer after an update: the second
    update would be compiled again, and a branch would not fit the others.
    """
    state = tx.init(params)
    return jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.result_type(leaf)), state)


def _as(like: Any, tree: Any) -> Any:
    """A tree with the dtypes of another one, as every branch must return it."""
    return jax.tree.map(lambda old, new: jnp.asarray(new, old.dtype), like, tree)
