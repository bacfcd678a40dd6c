"""Points as vectors: checks, names of leaves, sums, products and norms."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from lrscape.checks import count as check_count  # noqa: F401
from lrscape.checks import shown
from lrscape.errors import InputError

Point = Any  # any pytree of floating-point arrays


def leaf_names(tree: Any) -> list[str]:
    """The path of each leaf, in the order of ``jax.tree.leaves``.

    Example:
        >>> leaf_names({'dense': {'kernel': 1.0, 'bias': 2.0}, 'scale': 3.0})
        ['dense/bias', 'dense/kernel', 'scale']
    """
    paths = jax.tree_util.tree_leaves_with_path(tree)
    return [
        jax.tree_util.keystr(path, simple=True, separator="/") or "(the point itself)"
        for path, _ in paths
    ]


def check_point(name: str, point: Point) -> None:
    """Raises InputError unless a point is made of floating-point arrays.

    Args:
        name: what the point is called, for the message.
        point: what is looked at; its values are not.
    """
    leaves = jax.tree.leaves(point)
    if not leaves:
        raise InputError(
            f"{name}={shown(point)} holds no arrays; a point needs at least one"
        )
    for path, leaf in zip(leaf_names(point), leaves, strict=True):
        dtype = getattr(leaf, "dtype", None)
        if dtype is None and not isinstance(leaf, float | int | complex | bool):
            what = f"a {type(leaf).__name__}, {shown(leaf)}"
            raise InputError(f"{name}: {path} is {what}, and not an array")
        if not jnp.issubdtype(leaf_dtype(leaf), jnp.floating):
            raise InputError(
                f"{name}: {path} has dtype {dtype or type(leaf).__name__}; a point "
                "holds floating-point arrays alone, so split counters, keys and other "
                "state off (with NNX: nnx.split(model, nnx.Param, ...))"
            )


def leaf_dtype(leaf: Any) -> Any:
    """The dtype of a leaf; that of a Python number is JAX's default."""
    return leaf.dtype if hasattr(leaf, "dtype") else jnp.asarray(leaf).dtype


def wide_dtype(dtype: Any) -> Any:
    """The dtype that sums of a floating dtype are taken in: float32 at the least."""
    return dtype if jnp.finfo(dtype).bits >= 32 else jnp.dtype(jnp.float32)


def at_least_as_wide(tree: Any, point: Point) -> Any:
    """A tree whose floating leaves are at least as precise as a point's widest one.

    Values that a double-precision measurement takes from elsewhere (running averages,
    which Flax keeps in float32) would otherwise be rounded differently by every program
    that computes with them.
    """
    widths = [leaf_dtype(leaf) for leaf in jax.tree.leaves(point)]
    widest = max(widths, key=lambda dtype: jnp.finfo(dtype).bits)

    def one(leaf: Any) -> Any:
        dtype = leaf_dtype(leaf)
        if not jnp.issubdtype(dtype, jnp.floating):
            return leaf
        narrow = jnp.finfo(dtype).bits < jnp.finfo(widest).bits
        return jnp.asarray(leaf).astype(widest) if narrow else leaf

    return jax.tree.map(one, tree)


def check_alike(points: Mapping[str, Point]) -> None:
    """Raises InputError unless points have one structure and one shape a leaf.

    Args:
        points: by the names that the message calls them. The message names the first
            leaf that differs.
    """
    (first, reference), *others = points.items()
    check_point(first, reference)
    names = leaf_names(reference)
    for other, point in others:
        check_point(other, point)
        found = leaf_names(point)
        for expected, got in zip(names, found, strict=False):
            if expected != got:
                raise InputError(
                    f"{other} has another structure than {first}: the first leaf that "
                    f"differs is {got} there and {expected} here"
                )
        if len(found) != len(names):
            more, where = (found, other) if len(found) > len(names) else (names, first)
            extra = more[min(len(found), len(names))]
            raise InputError(
                f"{other} has another structure than {first}: {extra} is in {where} "
                "alone"
            )
        kinds: list[Any] = [jax.tree.structure(tree) for tree in (point, reference)]
        if kinds[0] != kinds[1]:
            raise InputError(
                f"{other} is another kind of tree than {first}: {kinds[0]} and "
                f"{kinds[1]}"
            )
        for path, a, b in zip(
            names, jax.tree.leaves(reference), jax.tree.leaves(point), strict=True
        ):
            if jnp.shape(a) != jnp.shape(b):
                raise InputError(
                    f"{other} does not have the shapes of {first}: the first leaf that "
                    f"differs is {path}, {jnp.shape(b)} there and {jnp.shape(a)} here"
                )


def own(leaf: Any) -> jax.Array:
    """An array that nobody else can change.

    JAX copies a NumPy array when it gets to it, or never; a host copy is made at once.
    """
    return leaf if isinstance(leaf, jax.Array) else jnp.asarray(np.array(leaf))


def is_concrete(tree: Any) -> bool:
    """Whether values can be looked at: no leaf is being traced."""
    return not any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(tree))


def combine(coefficients: list[Any], trees: list[Any]) -> Any:
    """The sum of trees, each times a scalar, in the dtype of the first one.

    Half-precision leaves are added up in float32.
    """

    def one(*leaves):
        dtype = leaf_dtype(leaves[0])
        wide = wide_dtype(dtype)
        terms = [
            jnp.asarray(c, wide) * jnp.asarray(leaf).astype(wide)
            for c, leaf in zip(coefficients, leaves, strict=True)
        ]
        total = terms[0]
        for term in terms[1:]:
            total = total + term
        return total.astype(dtype)

    return jax.tree.map(one, *trees)


def subtract(a: Any, b: Any) -> Any:
    """One tree less another, leaf by leaf."""
    return combine([1, -1], [a, b])


def scale(factor: Any, tree: Any) -> Any:
    """A tree times a scalar."""
    return combine([factor], [tree])


def dot(a: Any, b: Any) -> jax.Array:
    """The inner product of two trees, a scalar."""

    def one(x, y):
        wide = wide_dtype(leaf_dtype(x))
        return jnp.sum(jnp.asarray(x).astype(wide) * jnp.asarray(y).astype(wide))

    products = jax.tree.leaves(jax.tree.map(one, a, b))
    wide = max((product.dtype for product in products), key=lambda d: d.itemsize)
    total = products[0].astype(wide)
    for product in products[1:]:
        total = total + product.astype(wide)
    return total


def norm(tree: Any) -> jax.Array:
    """The Euclidean norm of all of a tree's entries, a scalar.

    Entries whose squares would under- or overflow (1e-22, 1e25 in float32) are divided
    by a power of two first, which rounds nothing.
    """
    leaves = [jnp.asarray(leaf) for leaf in jax.tree.leaves(tree) if jnp.size(leaf)]
    if not leaves:
        return jnp.sqrt(dot(tree, tree))
    widest = max((wide_dtype(x.dtype) for x in leaves), key=lambda d: d.itemsize)
    sizes = [jnp.max(jnp.abs(x)).astype(widest) for x in leaves]
    largest = functools.reduce(jnp.maximum, sizes)
    limits = jnp.finfo(widest)
    # Of ordinary sizes nothing is divided: the norm is what it always was.
    low, high = float(limits.tiny) ** 0.375, float(limits.max) ** 0.375
    ordinary = (largest >= low) & (largest <= high) | (largest == 0)
    ordinary |= ~jnp.isfinite(largest)
    _, exponent = jnp.frexp(jnp.where(ordinary, jnp.ones_like(largest), largest))
    exponent = jax.lax.stop_gradient(jnp.where(ordinary, 0, exponent))
    shrunk = [jnp.ldexp(x.astype(wide_dtype(x.dtype)), -exponent) for x in leaves]
    return jnp.ldexp(jnp.sqrt(dot(shrunk, shrunk)), exponent)


def lengths(array: jax.Array, axes: Any) -> jax.Array:
    """The Euclidean norms of an array along axes, which are kept, of length 1.

    Entries are divided by a power of two, which rounds nothing, so that no square
    under- or overflows.
    """
    wide = array.astype(wide_dtype(array.dtype))
    largest = jnp.max(jnp.abs(wide), axis=axes, keepdims=True, initial=0)
    ordinary = jnp.isfinite(largest) & (largest > 0)
    _, exponent = jnp.frexp(jnp.where(ordinary, largest, jnp.ones_like(largest)))
    exponent = jax.lax.stop_gradient(exponent)
    squares = jnp.ldexp(wide, -exponent) ** 2
    found = jnp.sqrt(jnp.sum(squares, axis=axes, keepdims=True))
    return jnp.ldexp(found, exponent).astype(array.dtype)


def cosine(a: Any, b: Any) -> jax.Array:
    """The cosine of the angle between two trees; NaN where one of them is zero."""
    a, b = (scale(1 / norm(tree), tree) for tree in (a, b))
    return dot(a, b)


def map_named(function: Callable[..., Any], tree: Any, *rest: Any) -> Any:
    """`jax.tree.map` whose function is handed the leaf's path first."""
    leaves = jax.tree.leaves(tree)
    structure: Any = jax.tree.structure(tree)
    others = [structure.flatten_up_to(other) for other in rest]
    values = [
        function(*arguments)
        for arguments in zip(leaf_names(tree), leaves, *others, strict=True)
    ]
    return jax.tree.unflatten(structure, values)


def as_vectors(points: list[Point]) -> list[np.ndarray]:
    """Each leaf of several points as (points, entries), in double precision.

    Half of what is needed to treat points as vectors without ever holding all of them
    as one matrix.
    """
    columns = zip(*(jax.tree.leaves(point) for point in points), strict=True)
    return [
        np.stack([np.asarray(leaf, np.float64).ravel() for leaf in leaves])
        for leaves in columns
    ]
