"""Points and objectives whose answers are known."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from lrscape.landscape import mean_objective


@jax.tree_util.register_dataclass
@dataclasses.dataclass
class Weights:
    """A registered dataclass as a point."""

    kernel: jax.Array
    bias: jax.Array


def quadratic(seed=0, size=6):
    """A positive definite matrix, a vector, and ``w -> w A w / 2 + b w`` of them."""
    random = np.random.default_rng(seed)
    root = random.normal(size=(size, size))
    A = root @ root.T + np.eye(size)
    b = random.normal(size=size)
    jax_A, jax_b = jnp.asarray(A, jnp.float32), jnp.asarray(b, jnp.float32)

    def loss(w):
        flat = jnp.concatenate([leaf.ravel() for leaf in jax.tree.leaves(w)])
        return flat @ jax_A @ flat / 2 + jax_b @ flat

    return A, b, loss


def double_well(w):
    """Minima of 0 at -1 and 1, a barrier of height 1 at 0."""
    return jnp.sum((w**2 - 1) ** 2)


def regression(num_examples=10, batch_size=4, seed=0):
    """Mean squared error of a linear model in a dict; its data beside it."""
    random = np.random.default_rng(seed)
    x = random.normal(size=(num_examples, 3)).astype(np.float32)
    y = random.normal(size=num_examples).astype(np.float32)

    def loss_fn(point, batch):
        x, y = batch
        return jnp.mean((x @ point["w"] + point["b"] - y) ** 2)

    return mean_objective(loss_fn, (x, y), batch_size=batch_size), x, y


def linear_point(seed=0):
    random = np.random.default_rng(seed)
    return {
        "w": jnp.asarray(random.normal(size=3), jnp.float32),
        "b": jnp.asarray(random.normal(), jnp.float32),
    }
