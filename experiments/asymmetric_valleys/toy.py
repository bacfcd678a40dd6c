"""Logistic regression with two parameters: descent, its average, and fresh data."""

from __future__ import annotations

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp

# The authors' numbers.
EXAMPLES, RATE, EPOCHS, SEEDS = 10, 0.01, 30, 50


class Toy(NamedTuple):
    """Runs of the toy; see `train`.

    Attributes:
        paths: (seeds, epochs + 1, 2), weight and bias after each epoch.
        train_losses: (seeds, epochs + 1).
        average: (seeds, 2), the mean of the iterates, the start left out.
        losses: (seeds, 2), the loss on the training examples, of the last iterate and
            of the average.
        fresh_losses: (seeds, 2), likewise on fresh examples.
    """

    paths: jax.Array
    train_losses: jax.Array
    average: jax.Array
    losses: jax.Array
    fresh_losses: jax.Array


def sample(key: jax.Array, num_examples: int) -> tuple[jax.Array, jax.Array]:
    """Examples of two classes, N(1, 1) and N(-1, 1).

    Args:
        key: a PRNG key.
        num_examples: of each class.

    Returns:
        Inputs (2 * num_examples,) and labels of 1 and -1.
    """
    labels = jnp.repeat(jnp.array([1.0, -1.0]), num_examples)
    return labels + jax.random.normal(key, labels.shape), labels


def loss(point: jax.Array, inputs: jax.Array, labels: jax.Array) -> jax.Array:
    r"""The mean logistic loss of weight and bias, (2,), in nats.

    .. math:: \log(1 + e^{-y (w x + b)})

    Example:
        >>> print(loss(jnp.zeros(2), jnp.ones(3), jnp.ones(3)).round(4))
        0.6931
    """
    return jnp.mean(jax.nn.softplus(-labels * (point[0] * inputs + point[1])))


@functools.partial(jax.jit, static_argnames=("num_seeds", "epochs", "num_fresh"))
def train(
    key: jax.Array,
    *,
    num_seeds: int = SEEDS,
    epochs: int = EPOCHS,
    rate: float = RATE,
    num_fresh: int = 10_000,
) -> Toy:
    """Full-batch gradient descent, from standard normal starts.

    Args:
        key: a PRNG key.
        num_seeds: runs, each with examples, start and fresh examples of its own.
        epochs: updates.
        rate: the learning rate.
        num_fresh: fresh examples of each class.

    Returns:
        All runs.
    """

    def one(key):
        data_key, start_key, fresh_key = jax.random.split(key, 3)
        data, fresh = sample(data_key, EXAMPLES), sample(fresh_key, num_fresh)

        def update(point, _):
            point = point - rate * jax.grad(loss)(point, *data)
            return point, point

        start = jax.random.normal(start_key, (2,))
        last, path = jax.lax.scan(update, start, None, length=epochs)
        average = path.mean(axis=0)
        both = jnp.stack([last, average])
        path = jnp.concatenate([start[None], path])
        return Toy(
            path,
            jax.vmap(lambda point: loss(point, *data))(path),
            average,
            jax.vmap(lambda point: loss(point, *data))(both),
            jax.vmap(lambda point: loss(point, *fresh))(both),
        )

    return jax.vmap(one)(jax.random.split(key, num_seeds))
