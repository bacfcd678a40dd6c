"""Points as flat vectors, and a curvature product of those in a compiled program."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from lrscape.landscape import tree
from lrscape.landscape.accumulate import accumulate


def dtype_of(leaves: list[Any]) -> Any:
    """The dtype of flat vectors: single precision at the least."""
    wide = [tree.wide_dtype(leaf.dtype) for leaf in leaves]
    return max(wide, key=lambda dtype: dtype.itemsize)


# Compiled once for all operators of the same shapes.


@jax.jit
def to_tree(vector: jax.Array, entries: jax.Array | None, point: Any) -> Any:
    """A vector of some entries of a point as a tree like it, zero elsewhere.

    Args:
        vector: (size,).
        entries: (size,), which entries of the flattened point; None is all.
        point: the tree.
    """
    leaves, structure = jax.tree.flatten(point)
    if entries is not None:
        total = sum(leaf.size for leaf in leaves)
        vector = jnp.zeros(total, vector.dtype).at[entries].set(vector)
    parts, start = [], 0
    for leaf in leaves:
        part = vector[start : start + leaf.size]
        parts.append(part.reshape(leaf.shape).astype(leaf.dtype))
        start += leaf.size
    return jax.tree.unflatten(structure, parts)


@jax.jit
def to_vector(point: Any, entries: jax.Array | None) -> tuple[jax.Array, jax.Array]:
    """The vector of a tree's entries, and whether all of it is finite."""
    leaves = [jnp.asarray(leaf) for leaf in jax.tree.leaves(point)]
    dtype = dtype_of(leaves)
    flat = jnp.concatenate([leaf.ravel().astype(dtype) for leaf in leaves])
    flat = flat if entries is None else flat[entries]
    return flat, jnp.isfinite(flat).all()


def product(function, objective, point, entries, vector):
    """A product with a curvature matrix as part of a compiled program, unchecked."""
    direction = to_tree(vector, entries, point)
    return to_vector(accumulate(function, objective, point, direction), entries)[0]
