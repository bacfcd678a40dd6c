"""The ground between two points: losses along the segment, and what is asked of them.

Losses lie on the last axis, both ends included. Asked is whether the segment crosses a
barrier, whether it has a floor, and at what height its ends stand above it.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from lrscape import checks
from lrscape.errors import InputError
from lrscape.landscape import tree
from lrscape.landscape.accumulate import mean_loss
from lrscape.landscape.programs import jit_objectives
from lrscape.landscape.protocol import as_objective, is_compilable, scalar_loss
from lrscape.landscape.subspace import line


def segment_losses(
    objective: Any, point: Any, next_point: Any, *, num_points: int = 10
) -> jax.Array:
    r"""The loss at evenly spaced points between two points, and at both of them.

    .. math::

        L((1 - \alpha_k) \theta_t + \alpha_k \theta_{t+1}), \quad
        \alpha_k = k / (n + 1), \quad k = 0 \ldots n + 1

    Args:
        objective: an objective, or a function of a point; of a dict the ``'loss'``.
        point: where the segment begins.
        next_point: where it ends.
        num_points: n, how many points strictly between.

    Returns:
        (num_points + 2,), under ``jit`` too.

    Raises:
        InputError: points of different structure or shapes, or no interior points.

    Example:
        >>> losses = segment_losses(
        ...     jnp.square, jnp.float32(0), jnp.float32(3), num_points=2)
        >>> print(losses.round(3))
        [0. 1. 4. 9.]

    References:
        Xing et al., `A Walk with SGD <https://arxiv.org/abs/1802.08770>`_, 2018, Sec. 3
    """
    checks.count("num_points", num_points)
    tree.check_alike({"point": point, "next_point": next_point})
    objective, segment = as_objective(objective), line(point, next_point)
    alphas = jnp.asarray(alphas_of(num_points), jnp.result_type(float))
    if not tree.is_concrete((objective, point, next_point)):
        return jax.lax.map(lambda alpha: _loss_at(objective, segment, alpha), alphas)
    loss_at = _loss_at_jitted if is_compilable(objective) else _loss_at
    return jnp.stack([loss_at(objective, segment, alpha) for alpha in alphas])


def _loss_at(objective, segment, alpha):
    return scalar_loss(mean_loss(objective, segment(alpha)))


_loss_at_jitted = jit_objectives(_loss_at)


def crosses_barrier(losses: Any) -> jax.Array:
    """Tests whether a segment has an interior point above both of its ends.

    Args:
        losses: (..., n + 2), both ends included, as `segment_losses` gives them.

    Returns:
        (...), booleans.

    Example:
        >>> print(crosses_barrier(jnp.array([[1.0, 3.0, 2.0], [1.0, 0.5, 2.0]])))
        [ True False]

    References:
        Xing et al., `A Walk with SGD <https://arxiv.org/abs/1802.08770>`_, 2018, Sec. 1
    """
    return barrier_height(losses) > 0


def barrier_height(losses: Any) -> jax.Array:
    """The highest interior loss less that of the higher end.

    Args:
        losses: (..., n + 2), both ends included.

    Returns:
        (...); positive where a barrier is crossed, NaN where a loss is.

    Example:
        >>> print(barrier_height(jnp.array([1.0, 3.0, 0.0, 2.0])))
        1.0
    """
    losses = _segment(losses)
    ends = jnp.maximum(losses[..., 0], losses[..., -1])
    return losses[..., 1:-1].max(axis=-1) - ends


def has_floor(losses: Any) -> jax.Array:
    """Tests whether the least loss lies strictly between the ends.

    Args:
        losses: (..., n + 2), both ends included.

    Returns:
        (...), booleans. Where there is none, the way leads on down, and `valley_floor`
        is an end.

    Example:
        >>> print(has_floor(jnp.array([[2.0, 1.0, 3.0], [3.0, 2.0, 1.0]])))
        [ True False]
    """
    losses = _segment(losses)
    ends = jnp.minimum(losses[..., 0], losses[..., -1])
    return losses[..., 1:-1].min(axis=-1) < ends


def valley_floor(losses: Any) -> jax.Array:
    """The least loss of a segment, ends included.

    Args:
        losses: (..., n + 2), both ends included.

    Returns:
        (...), the floor of the valley where `has_floor` says so.

    Example:
        >>> print(valley_floor(jnp.array([2.0, 1.0, 3.0])))
        1.0
    """
    return _segment(losses).min(axis=-1)


def height(losses: Any) -> jax.Array:
    r"""The mean height of the two ends above the floor.

    .. math:: (L(\theta_t) + L(\theta_{t+1}) - 2 L(\theta^{\min})) / 2

    Args:
        losses: (..., n + 2), both ends included.

    Returns:
        (...), never negative.

    Example:
        >>> print(height(jnp.array([2.0, 1.0, 3.0])))
        1.5

    References:
        Xing et al., `A Walk with SGD <https://arxiv.org/abs/1802.08770>`_, 2018,
        Table 2
    """
    losses = _segment(losses)
    return (losses[..., 0] + losses[..., -1] - 2 * losses.min(axis=-1)) / 2


def alphas_of(num_points: int) -> np.ndarray:
    """The coordinates of a segment's points, both ends included."""
    return np.arange(num_points + 2) / (num_points + 1)


def _segment(losses: Any) -> jax.Array:
    losses = jnp.asarray(checks.numbers("losses", losses))
    if losses.ndim < 1 or losses.shape[-1] < 3:
        raise InputError(
            f"losses have shape {losses.shape}; the last axis needs both ends and at "
            "least one point between"
        )
    return losses
