"""A curvature matrix as a function of flat vectors, for many products at one point."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from lrscape import checks
from lrscape.errors import InputError
from lrscape.landscape import tree
from lrscape.landscape.accumulate import (
    accumulate,
    accumulate_linear,
    batch_gradient,
    is_compilable,
)
from lrscape.landscape.loops import sums_over_examples
from lrscape.landscape.mask import Mask, as_mask
from lrscape.landscape.objective import as_objective, filled_in
from lrscape.landscape.products import KINDS
from lrscape.landscape.programs import jit_objectives, once_a_shape

# Bytes, and batches, up to which linearisations are kept where nothing is said.
_KEPT_BYTES = 2**30
_KEPT_BATCHES = 16
# Entries from which a compiled Lanczos iteration on CPU is no faster than separate
# products, whose calls weigh little by then.
_LARGE = 20_000


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
            reuse: of the Hessian, keep each batch's linearisation, so that a product
                costs no forward pass: on CPU two thirds of the time, for 0.6 to 0.9 GB
                for 128 images of ResNet-20. None: where a few batches' take no more
                than 1 GiB together.

        Raises:
            InputError: an unknown kind, or a mask that selects nothing.
        """
        checks.one_of("kind", kind, KINDS)
        if reuse is not None:
            checks.flag("reuse", reuse)
        tree.check_point("point", point)
        self._point = jax.tree.map(tree.own, point)
        with jax.ensure_compile_time_eval():  # a mask has values under `jit` too
            selected = as_mask(mask, self._point)
        # Once for all products: batch statistics may be estimated at the point.
        self._objective = _fill_in(KINDS[kind][1](as_objective(objective)), self._point)
        self._function = KINDS[kind][0]
        leaves = jax.tree.leaves(self._point)
        self.dtype = _dtype_of(leaves)
        self.size = sum(leaf.size for leaf in leaves)
        self._entries = None
        if selected is not None:
            flat = np.concatenate(
                [np.ravel(leaf) for leaf in jax.tree.leaves(selected)]
            )
            self._entries = jnp.asarray(np.flatnonzero(flat))
            self.size = len(self._entries)
        self._linear = None
        if kind == "hessian" and is_compilable(self._objective):
            if reuse is None:
                reuse = _fits(self._objective, self._point)
            if reuse:
                self._linear = _linearized(self._objective, self._point)
        self.count = 0

    def to_tree(self, vector: jax.Array) -> Any:
        """A flat vector as a tree like the point; zero where the mask is."""
        return _to_tree(vector, self._entries, self._point)

    def to_vector(self, point: Any) -> jax.Array:
        """A tree like the point as a flat vector.

        Raises:
            InputError: a tree of another structure or shapes.
        """
        tree.check_alike({"the operator's point": self._point, "the tree": point})
        return _to_vector(point, self._entries)[0].astype(self.dtype)

    def __call__(self, vector: jax.Array) -> jax.Array:
        """The product with a flat vector, (size,).

        Raises:
            InputError: a vector of another shape.
            NonFiniteProductError: the product is not finite.
        """
        if jnp.shape(vector) != (self.size,):
            raise InputError(
                f"the vector has shape {jnp.shape(vector)}; the matrix has "
                f"{self.size} rows: make it by to_vector"
            )
        self.count += 1
        direction = self.to_tree(vector)
        flat, is_finite = _to_vector(self._apply(direction), self._entries)
        if tree.is_concrete(flat) and not bool(is_finite):
            raise NonFiniteProductError(
                self._bad_batch(direction), self._objective.num_batches
            )
        return flat

    @property
    def parts(self) -> tuple[Any, Any, Any, Any]:
        """What `product` takes before the vector."""
        return self._function, self._objective, self._point, self._entries

    def runs_apart(self) -> bool:
        """Whether products are faster one by one than within a compiled loop."""
        if not is_compilable(self._objective):
            return True
        if jax.default_backend() == "cpu" and self.size > _LARGE:
            return True
        direction = self.to_tree(jnp.zeros(self.size, self.dtype))
        return sums_over_examples(
            self._function, self._objective, self._point, (direction,)
        )

    def _apply(self, direction: Any) -> Any:
        if self._linear is None:
            return accumulate(self._function, self._objective, self._point, direction)
        return accumulate_linear(self._linear, self._objective.weights, direction)

    def _bad_batch(self, direction: Any) -> int | None:
        objective = self._objective
        for i in range(objective.num_batches):
            share = self._function(
                objective, self._point, objective.batch(i), direction
            )
            if not bool(_to_vector(share, self._entries)[1]):
                return i
        return None


def product(function, objective, point, entries, vector):
    """A product as part of a compiled program, unchecked; of an operator's `parts`."""
    direction = _to_tree(vector, entries, point)
    return _to_vector(accumulate(function, objective, point, direction), entries)[0]


def _dtype_of(leaves: list[Any]) -> Any:
    """What vectors are kept in: single precision at the least."""
    wide = [tree.wide_dtype(leaf.dtype) for leaf in leaves]
    return max(wide, key=lambda dtype: dtype.itemsize)


# Flat vectors. Compiled once for all operators of the same shapes.


@jax.jit
def _to_tree(vector, entries, point):
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
def _to_vector(point, entries):
    """The vector, and whether all of it is finite."""
    leaves = [jnp.asarray(leaf) for leaf in jax.tree.leaves(point)]
    dtype = _dtype_of(leaves)
    flat = jnp.concatenate([leaf.ravel().astype(dtype) for leaf in leaves])
    flat = flat if entries is None else flat[entries]
    return flat, jnp.isfinite(flat).all()


# Linearisations that are kept.


def _fits(objective: Any, point: Any) -> bool:
    """Whether all linearisations are small enough to be kept unasked."""
    count = objective.num_batches
    return count <= _KEPT_BATCHES and count * _kept_bytes(objective, point) <= (
        _KEPT_BYTES
    )


@once_a_shape
def _kept_bytes(objective, point) -> int:
    kept = jax.eval_shape(lambda o, p: _linearize(o, p, o.batch(0)), objective, point)
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(kept))


def _linearized(objective: Any, point: Any) -> list[Any]:
    """Each batch's derivative of the gradient, its forward pass done."""
    return [
        _linearize(objective, point, objective.batch(i))
        for i in range(objective.num_batches)
    ]


def _fill_in(objective: Any, point: Any) -> Any:
    if is_compilable(objective):
        return _filled_in(objective, point)
    return filled_in(objective, point)


_filled_in = jit_objectives(filled_in)


@jit_objectives
def _linearize(objective, point, batch):
    return jax.linearize(lambda p: batch_gradient(objective, p, batch), point)[1]
