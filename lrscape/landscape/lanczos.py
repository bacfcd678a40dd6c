"""Lanczos' iteration as a loop of separate products, fully reorthogonalised.

A convolution's weight gradient must not run within a compiled loop on CPU, so the loop
is Python's; each product and each orthogonalisation is a program of its own.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from lrscape.errors import InputError
from lrscape.landscape.tree import check_count

Product = Callable[[jax.Array], jax.Array]


class Matrix(Protocol):
    """The part of a `lrscape.landscape.Operator` that a search for eigenvalues needs.

    Attributes:
        size: rows.
        dtype: of its vectors.
        count: products made so far.
    """

    size: int
    dtype: np.dtype
    count: int

    def __call__(self, vector: jax.Array) -> jax.Array:
        """The product with a vector (size,)."""

    def to_tree(self, vector: jax.Array) -> Any:
        """A vector as a tree like the point."""


# Rows of the basis that are kept as one array: a row is written in place, and no array
# is larger than it needs to be.
BLOCK = 16


@dataclasses.dataclass(frozen=True, eq=False)
class Tridiagonal:
    """A matrix seen from a Krylov space: ``H Q^T = Q^T T + remainder``.

    Attributes:
        diagonal: (m,), of T.
        off_diagonal: (m - 1,), of T.
        remainder: the norm of what is left after m products; 0 where the space is
            invariant.
        blocks: the rows of Q, in arrays of equally many; those beyond m are zero.
    """

    diagonal: np.ndarray
    off_diagonal: np.ndarray
    remainder: float
    blocks: tuple[jax.Array, ...]

    @functools.cached_property
    def basis(self) -> jax.Array:
        """Q, (m, size): orthonormal rows."""
        return jnp.concatenate(self.blocks)[: len(self.diagonal)]

    def eigen(self) -> tuple[np.ndarray, np.ndarray]:
        """The eigenvalues of T (m,), ascending, and its eigenvectors as columns."""
        matrix = np.diag(self.diagonal)
        matrix += np.diag(self.off_diagonal, 1) + np.diag(self.off_diagonal, -1)
        return np.linalg.eigh(matrix)

    def combined(self, coefficients: np.ndarray) -> jax.Array:
        """Vectors (k, size) from their coefficients (k, m) in the basis."""
        rows = len(self.blocks) * len(self.blocks[0])
        padded = np.zeros((len(coefficients), rows))
        padded[:, : coefficients.shape[1]] = coefficients
        total: jax.Array | None = None
        for i, block in enumerate(self.blocks):
            part = padded[:, i * len(block) : (i + 1) * len(block)]
            share = jnp.matmul(
                jnp.asarray(part, block.dtype), block, precision="highest"
            )
            total = share if total is None else total + share
        assert total is not None
        return total


def tridiagonalize(
    product: Product,
    start: jax.Array,
    num_products: int,
    *,
    stop: Callable[[Tridiagonal], bool] | None = None,
    key: jax.Array | None = None,
    deflated: Sequence[jax.Array] = (),
) -> Tridiagonal:
    """Runs Lanczos' iteration.

    Args:
        product: a symmetric matrix times a vector.
        start: (size,), not zero.
        num_products: m, at most; never more than the size. All m vectors are kept.
        stop: is shown the result after each product, and says whether it will do; it
            keeps nothing of it.
        key: where the space turns out to be invariant, goes on from a random vector
            orthogonal to it, until eigenvalues that occur several times are found as
            often; None stops there.
        deflated: arrays (rows, size) of orthonormal or zero rows: the iteration sees
            the matrix restricted to their orthogonal complement, of at least
            `num_products` dimensions. The start is projected there too.

    Returns:
        The tridiagonal matrix and its basis.

    Raises:
        InputError: a start of norm 0.

    Example:
        >>> A = jnp.diag(jnp.array([1.0, 2.0, 4.0]))
        >>> found = tridiagonalize(lambda v: A @ v, jnp.ones(3), 3)
        >>> print(found.eigen()[0].round(4))
        [1. 2. 4.]
    """
    check_count("num_products", num_products)
    length = float(jnp.linalg.norm(start))
    if not np.isfinite(length):
        raise InputError(f"start has norm {length:g}: it must be finite; scale it")
    if not length > 0:
        raise InputError(f"start has norm {length:g}; an iteration needs a direction")
    size = start.size
    if deflated:
        start, length = orthogonalized(deflated, start / length)
    count = min(int(num_products), size)
    blocks: list[jax.Array] = []
    diagonal: list[float] = []
    off_diagonal: list[float] = []
    # Below this, what is left of a product is rounding.
    tiny = 10 * float(jnp.finfo(start.dtype).eps)
    scale = remainder = 0.0
    vector, before = start / length, jnp.zeros_like(start)
    for n in range(count):
        if n % BLOCK == 0:
            rows = min(BLOCK, count)
            blocks.append(jnp.zeros((rows, size), start.dtype))
        blocks[-1] = with_row(blocks[-1], vector, n % BLOCK)
        image = product(vector)
        coefficient, rest, norm = _three_terms(image, vector, before, remainder)
        rest, left = orthogonalized([*deflated, *blocks], rest)
        diagonal.append(float(coefficient))
        if not np.isfinite(float(norm)):
            raise ArithmeticError(
                f"the norm of product {n} overflows {start.dtype}; scale the loss, or "
                "compute in double precision"
            )
        # The column's own norm: beside deflated eigenvectors of large eigenvalues, the
        # image is mostly what is projected out of it.
        column = float(np.linalg.norm([coefficient, remainder, left]))
        scale, remainder = max(scale, column), float(left)
        if remainder <= tiny * scale:
            remainder = 0.0
        found = Tridiagonal(
            np.array(diagonal), np.array(off_diagonal), remainder, tuple(blocks)
        )
        if n + 1 == count or (stop is not None and stop(found)):
            return found
        if remainder == 0.0:
            if key is None:
                return found
            fresh = jax.random.normal(jax.random.fold_in(key, n), start.shape)
            fresh = fresh.astype(start.dtype)
            rest, left = orthogonalized([*deflated, *blocks], fresh)
        vector, before = rest / left, vector
        off_diagonal.append(remainder)
    raise AssertionError("unreachable: the last product returns")


@functools.partial(jax.jit, donate_argnums=0)
def with_row(block: jax.Array, row: jax.Array, index: int) -> jax.Array:
    """A block of rows with one of them replaced; the block itself is given up."""
    return block.at[index].set(row)


@jax.jit
def _three_terms(image, vector, before, remainder):
    """What the recurrence leaves of a product, its coefficient and its norm."""
    coefficient = jnp.matmul(vector, image, precision="highest")
    rest = image - coefficient * vector - jnp.asarray(remainder, image.dtype) * before
    return coefficient, rest, jnp.linalg.norm(image)


def orthogonalized(
    blocks: Sequence[jax.Array], vector: jax.Array
) -> tuple[jax.Array, float]:
    """Orthogonalises a vector (size,) against the rows of arrays; with its norm."""
    left = float(jnp.linalg.norm(vector))
    # Once, and again where much was taken away: twice is enough (Kahan and Parlett).
    for _ in range(2):
        before = left
        for block in blocks:
            vector = _off(block, vector)
        left = float(jnp.linalg.norm(vector))
        if left > before / 2**0.5:
            break
    return vector, left


@jax.jit
def _off(block, vector):
    # Of rows in single precision an accelerator would keep three digits otherwise.
    along = jnp.matmul(block, vector, precision="highest")
    return vector - jnp.matmul(along, block, precision="highest")
