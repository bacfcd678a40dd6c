"""A curvature matrix as a function of flat vectors, for many products at one point."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from lrscape.errors import unknown_name
from lrscape.landscape import tree
from lrscape.landscape.accumulate import accumulate, batch_gradient, is_compilable
from lrscape.landscape.loops import sums_over_examples
from lrscape.landscape.mask import Mask, as_mask
from lrscape.landscape.objective import as_objective
from lrscape.landscape.products import KINDS


class NonFiniteProductError(ArithmeticError):
    """A product with a curvature matrix that is not finite.

    Attributes:
        batch: the first batch whose share is not finite, counted from 0; None where
            every share is finite and their sum is not.
    """

    def __init__(self, batch: int | None, count: int):
        where = "only in the sum" if batch is None else f"first in batch {batch}"
        super().__init__(
            f"the product is not finite, {where} of {count}; look at that batch's loss "
            "at the point, or compute in double precision"
        )
        self.batch = batch


class Operator:
    """A symmetric matrix as a function of flat vectors, for many products at a point.

    Attributes:
        size: rows, after the mask.
        dtype: of its vectors.
        count: products made so far.
    """

    def __init__(
        self,
        objective: Any,
        point: Any,
        *,
        kind: str = "hessian",
        mask: Mask = None,
        reuse: bool | None = None,
    ):
        """Gets ready; the products are compiled by the first one.

        Args:
            objective: an objective, or a function of a point.
            point: where the matrix is taken.
            kind: a name in `KINDS`.
            mask: restricts the matrix to a block: vectors hold its entries alone.
            reuse: keep each batch's linearisation, so that a product costs no forward
                pass: on CPU two thirds of the time for a convolutional network, for
                0.6 to 0.9 GB for 128 images of ResNet-20. None: where the sample is a
                single batch and the matrix is the Hessian.

        Raises:
            InputError: an unknown kind, or a mask that selects nothing.
        """
        if kind not in KINDS:
            raise unknown_name("kind", kind, KINDS)
        tree.check_point("point", point)
        self._objective = KINDS[kind][1](as_objective(objective))
        self._function = KINDS[kind][0]
        self._point = jax.tree.map(tree.own, point)
        selected = as_mask(mask, self._point)
        leaves = jax.tree.leaves(self._point)
        self._shapes = [leaf.shape for leaf in leaves]
        self._structure: Any = jax.tree.structure(self._point)
        self._dtypes = [leaf.dtype for leaf in leaves]
        self.dtype = max(self._dtypes, key=lambda d: d.itemsize)
        total = sum(leaf.size for leaf in leaves)
        self._entries = None
        if selected is not None:
            flat = np.concatenate(
                [np.ravel(leaf) for leaf in jax.tree.leaves(selected)]
            )
            self._entries = jnp.asarray(np.flatnonzero(flat))
        self.size = total if self._entries is None else len(self._entries)
        self._total = total
        compilable = is_compilable(self._objective)
        if reuse is None:
            reuse = compilable and self._objective.num_batches == 1
        self._linear = None
        if reuse and kind == "hessian" and compilable:
            self._linear = _linearized(self._objective, self._point)
        self.count = 0

    def to_tree(self, vector: jax.Array) -> Any:
        """A flat vector as a tree like the point; zero where the mask is."""
        if self._entries is not None:
            full = jnp.zeros(self._total, vector.dtype)
            vector = full.at[self._entries].set(vector)
        leaves, start = [], 0
        for shape, dtype in zip(self._shapes, self._dtypes, strict=True):
            size = int(np.prod(shape))
            leaves.append(vector[start : start + size].reshape(shape).astype(dtype))
            start += size
        return jax.tree.unflatten(self._structure, leaves)

    def to_vector(self, point: Any) -> jax.Array:
        """A tree like the point as a flat vector."""
        leaves = [leaf.ravel().astype(self.dtype) for leaf in jax.tree.leaves(point)]
        flat = jnp.concatenate(leaves)
        return flat if self._entries is None else flat[self._entries]

    def __call__(self, vector: jax.Array) -> jax.Array:
        """The product with a flat vector, (size,).

        Raises:
            NonFiniteProductError: the product is not finite.
        """
        self.count += 1
        direction = self.to_tree(vector)
        product = self._apply(direction)
        flat = self.to_vector(product)
        if tree.is_concrete(flat) and not bool(jnp.isfinite(flat).all()):
            raise NonFiniteProductError(
                self._bad_batch(direction), self._objective.num_batches
            )
        return flat

    def traced(self, vector: jax.Array) -> jax.Array:
        """The product as part of a compiled program, unchecked."""
        product = accumulate(
            self._function, self._objective, self._point, self.to_tree(vector)
        )
        return self.to_vector(product)

    def runs_apart(self) -> bool:
        """Whether products are faster one by one than within a compiled loop."""
        if not is_compilable(self._objective):
            return True
        direction = self.to_tree(jnp.zeros(self.size, self.dtype))
        return sums_over_examples(
            self._function, self._objective, self._point, (direction,)
        )

    def _apply(self, direction: Any) -> Any:
        if self._linear is None:
            return accumulate(self._function, self._objective, self._point, direction)
        total = None
        for weight, linear in zip(self._objective.weights, self._linear, strict=True):
            total = _add_linear(total, np.float64(weight), linear, direction)
        return total

    def _bad_batch(self, direction: Any) -> int | None:
        objective = self._objective.at(self._point)
        for i in range(objective.num_batches):
            share = self._function(
                objective, self._point, objective.batch(i), direction
            )
            if not all(bool(jnp.isfinite(x).all()) for x in jax.tree.leaves(share)):
                return i
        return None


# Linearisations that are kept.


def _linearized(objective: Any, point: Any) -> list[Any]:
    """Each batch's derivative of the gradient, its forward pass done."""
    objective = objective.at(point)
    return [
        _linearize(objective, point, objective.batch(i))
        for i in range(objective.num_batches)
    ]


@jax.jit
def _linearize(objective, point, batch):
    return jax.linearize(lambda p: batch_gradient(objective, p, batch), point)[1]


@jax.jit
def _add_linear(total, weight, linear, direction):
    share = jax.tree.map(
        lambda leaf: leaf * jnp.asarray(weight, leaf.dtype), linear(direction)
    )
    return share if total is None else jax.tree.map(jnp.add, total, share)
