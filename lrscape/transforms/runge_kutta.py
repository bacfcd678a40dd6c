"""Second-order Runge-Kutta gradients, for any optimizer to follow."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from lrscape import checks
from lrscape.errors import InputError, unknown_name

# a1, a2 and q1. Every second-order method has a1 + a2 = 1 and a2 q1 = 1/2.
COEFFICIENTS = {
    "midpoint": (0.0, 1.0, 1 / 2),
    "heun": (1 / 2, 1 / 2, 1.0),
    "ralston": (1 / 3, 2 / 3, 3 / 4),
}
METHODS = tuple(COEFFICIENTS)


class RungeKuttaState(NamedTuple):
    """State of `runge_kutta`.

    Attributes:
        count: updates made so far, an int32 scalar.
    """

    count: jax.Array  # type: ignore[assignment]


def runge_kutta(
    method: str, learning_rate: float | optax.Schedule
) -> optax.GradientTransformationExtraArgs:
    r"""Turns the gradient into that of a second-order Runge-Kutta step.

    .. math::

        k_1 &= g(\theta), \quad k_2 = g(\theta - q_1 h k_1) \\
        \bar g &= a_1 k_1 + a_2 k_2

    ============ =========== =========== ===========
    method       :math:`a_1` :math:`a_2` :math:`q_1`
    ============ =========== =========== ===========
    ``midpoint`` 0           1           1/2
    ``heun``     1/2         1/2         1
    ``ralston``  1/3         2/3         3/4
    ============ =========== =========== ===========

    Before SGD at the rate h it follows the gradient flow :math:`\dot\theta = -g` with
    an error of :math:`O(h^3)` a step, where SGD's is :math:`O(h^2)`. A step costs two
    gradients; the paper doubled its rates to make up for that. Whatever follows, the
    second gradient is taken h times the raw gradient away: before Adam too, h times the
    curvature must stay below 2.

    Args:
        method: ``'midpoint'``, ``'heun'`` or ``'ralston'``.
        learning_rate: h, the rate of the optimizer that follows; a number, or update
            count -> rate.

    Returns:
        The transformation, to be chained before an optimizer. Its update takes
        ``grad_fn``, params -> gradient, on the same minibatch, with the same dropout
        key and starting from the same batch statistics, and averaged over devices;
        `lrscape.training.fit` passes it. It is called once an update.

    Raises:
        InputError: an unknown method, a rate that is not positive and finite; and from
            the update where ``params`` or ``grad_fn`` are missing.

    Example:
        On a parabola of curvature 1 each method takes the exponential's series up to
        its second term: 1 - 0.1 + 0.005.

        >>> tx = optax.chain(runge_kutta('heun', 0.1), optax.sgd(0.1))
        >>> params = jnp.ones(1)
        >>> gradient_at = jax.grad(lambda w: jnp.sum(w**2) / 2)
        >>> updates, _ = tx.update(
        ...     gradient_at(params), tx.init(params), params, grad_fn=gradient_at)
        >>> print(params + updates)
        [0.905]

    References:
        Im, Tao and Branson, `An empirical analysis of deep network loss surfaces
        <https://arxiv.org/abs/1612.04010>`_, 2016, Sec. A.3, Table 3
    """
    if method not in METHODS:
        raise unknown_name("method", method, METHODS)
    a1, a2, q1 = COEFFICIENTS[method]
    if not callable(learning_rate):
        learning_rate = checks.positive("runge_kutta: learning_rate", learning_rate)

    def init_fn(params: optax.Params) -> RungeKuttaState:
        del params
        return RungeKuttaState(jnp.zeros([], jnp.int32))

    def update_fn(
        updates: optax.Updates,
        state: RungeKuttaState,
        params: optax.Params | None = None,
        *,
        grad_fn: Callable[[optax.Params], optax.Updates] | None = None,
        **extra_args: Any,
    ) -> tuple[optax.Updates, RungeKuttaState]:
        del extra_args
        for name, value in (("params", params), ("grad_fn", grad_fn)):
            if value is None:
                raise InputError(
                    f"runge_kutta: {name}=None; call update(gradient, state, params, "
                    "grad_fn=grad_fn) with the params that the gradient was taken at, "
                    "and with grad_fn(params) -> gradient of the same minibatch"
                )
        assert grad_fn is not None
        leaves = jax.tree.leaves(params, is_leaf=_is_masked)
        if any(map(_is_masked, leaves)):
            raise InputError(
                "runge_kutta within optax.masked or optax.partition does not see all "
                "parameters, at which the second gradient is taken; chain it before: "
                "optax.chain(runge_kutta(...), optax.masked(...))"
            )
        h = learning_rate(state.count) if callable(learning_rate) else learning_rate
        k1 = updates
        k2 = grad_fn(
            jax.tree.map(
                lambda p, k: p - jnp.asarray(q1 * h, p.dtype) * k.astype(p.dtype),
                params,
                k1,
            )
        )
        updates = jax.tree.map(lambda x, y: a1 * x + a2 * y.astype(x.dtype), k1, k2)
        return updates, RungeKuttaState(optax.safe_increment(state.count))

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)


def _is_masked(node: Any) -> bool:
    return isinstance(node, optax.MaskedNode)
