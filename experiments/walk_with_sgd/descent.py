"""Full-batch gradient descent, with and without noise, and SGD on the same examples."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from lrscape import landscape


def descend(
    objective: Any,
    point: Any,
    tx: optax.GradientTransformation,
    num_steps: int,
    *,
    gradient: Callable[[Any, int], Any] | None = None,
) -> Iterator[tuple[int, Any, Any]]:
    """Full-batch gradient descent, as a stream of points.

    The gradient is that of the mean loss over the whole sample, added up batch by
    batch; batch norm in train mode normalises by each batch's statistics, so that the
    batches are then a setting, and rounding otherwise.

    Args:
        objective: what is descended.
        point: where from.
        tx: the optimizer; its updates are handed the point.
        num_steps: updates.
        gradient: ``gradient(point, step)`` instead of the exact one.

    Yields:
        ``(step, point, gradient)``: the point after so many updates, and the gradient
        of the last one; zeros at step 0.
    """
    state = tx.init(point)
    yield 0, point, jax.tree.map(np.zeros_like, point)
    update = jax.jit(_updated, static_argnums=0)
    for step in range(1, num_steps + 1):
        if gradient is None:
            slope = landscape.loss_gradient(objective, point)
        else:
            slope = gradient(point, step)
        point, state = update(tx, point, state, slope)
        yield step, point, slope


def _updated(tx, point, state, slope):
    # `optax.add_noise` divides a float by an integer.
    with jax.numpy_dtype_promotion("standard"):
        updates, state = tx.update(slope, state, point)
    return optax.apply_updates(point, updates), state


def minibatch_gradient(objective: Any, *, batch_size: int, seed: int) -> Any:
    """Gradients of mini-batches of an objective's own examples, for `descend`.

    Every pass goes over all of them in another order; what is left of the last whole
    batch is left out.

    Args:
        objective: made by `lrscape.landscape.flax_objective`.
        batch_size: examples a batch.
        seed: of the orders.

    Returns:
        ``gradient(point, step)``, step counted from 1.
    """
    leaves = [np.concatenate(parts) for parts in _flat(objective)]
    count = len(leaves[0])
    per_pass = max(1, count // batch_size)
    inputs, labels = map(jnp.asarray, leaves)

    def gradient(point: Any, step: int) -> Any:
        epoch, place = divmod(step - 1, per_pass)
        order = np.random.default_rng((seed, epoch)).permutation(count)
        indices = order[place * batch_size : (place + 1) * batch_size]
        return _batch_slope(objective, point, (inputs, labels), jnp.asarray(indices))

    return gradient


def _flat(objective: Any) -> Iterator[list[np.ndarray]]:
    """Inputs, then labels, without the axis of batches."""
    for number, whole in enumerate(objective.whole):
        parts = [np.asarray(whole).reshape(-1, *whole.shape[2:])]
        if objective.tail is not None:
            parts.append(np.asarray(objective.tail[number]))
        yield parts


@jax.jit
def _batch_slope(objective, point, examples, indices):
    batch = tuple(leaf[indices] for leaf in examples)
    return jax.grad(objective.batch_loss)(point, batch)
