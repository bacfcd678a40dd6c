"""Lanczos' iteration as a loop of separate products, fully reorthogonalised.

A convolution's weight gradient must not run within a compiled loop on CPU, so the loop
is Python's; each product and each orthogonalisation is a program of its own.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from lrscape.errors import InputError

Product = Callable[[jax.Array], jax.Array]


class Tridiagonal(NamedTuple):
    """A matrix seen from a Krylov space: ``H Q^T = Q^T T + remainder``.

    Attributes:
        diagonal: (m,), of T.
        off_diagonal: (m - 1,), of T.
        basis: (m, size), orthonormal rows.
        remainder: the norm of what is left after m products; 0 where the space is
            invariant.
    """

    diagonal: np.ndarray
    off_diagonal: np.ndarray
    basis: jax.Array
    remainder: float

    def eigen(self) -> tuple[np.ndarray, np.ndarray]:
        """The eigenvalues of T (m,), ascending, and its eigenvectors as columns."""
        matrix = np.diag(self.diagonal)
        matrix += np.diag(self.off_diagonal, 1) + np.diag(self.off_diagonal, -1)
        return np.linalg.eigh(matrix)


def tridiagonalize(
    product: Product,
    start: jax.Array,
    num_products: int,
    *,
    stop: Callable[[Tridiagonal], bool] | None = None,
    key: jax.Array | None = None,
) -> Tridiagonal:
    """Runs Lanczos' iteration.

    Args:
        product: a symmetric matrix times a vector.
        start: (size,), not zero.
        num_products: m, at most; never more than the size.
        stop: is shown the result after each product, and says whether it will do.
        key: where the space turns out to be invariant, goes on from a random vector
            orthogonal to it, so that eigenvalues that occur several times are found as
            often; None stops there.

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
    length = float(jnp.linalg.norm(start))
    if not length > 0:
        raise InputError(f"start has norm {length:g}; an iteration needs a direction")
    size = start.size
    count = min(int(num_products), size)
    basis = jnp.zeros((count, size), start.dtype).at[0].set(start / length)
    diagonal: list[float] = []
    off_diagonal: list[float] = []
    # Below this, what is left of a product is rounding.
    tiny = 10 * float(jnp.finfo(start.dtype).eps)
    scale = remainder = 0.0
    for n in range(count):
        image = product(basis[n])
        scale = max(scale, float(jnp.linalg.norm(image)))
        coefficient, rest, left = _orthogonalized(basis, image, n)
        diagonal.append(float(coefficient))
        remainder = float(left)
        if remainder <= tiny * scale:
            remainder = 0.0
        found = Tridiagonal(
            np.array(diagonal), np.array(off_diagonal), basis[: n + 1], remainder
        )
        if n + 1 == count or (stop is not None and stop(found)):
            return found
        if remainder == 0.0:
            if key is None:
                return found
            fresh = jax.random.normal(jax.random.fold_in(key, n), start.shape)
            _, rest, left = _orthogonalized(basis, fresh.astype(start.dtype), n)
        basis = basis.at[n + 1].set(rest / left)
        off_diagonal.append(remainder)
    raise AssertionError("unreachable: the last product returns")


@jax.jit
def _orthogonalized(basis, vector, n):
    """A vector's component along row n, and what is left of it off all rows."""
    coefficient = basis[n] @ vector
    # Twice is enough (Kahan and Parlett). Rows beyond n are zero.
    for _ in range(2):
        vector = vector - (basis @ vector) @ basis
    return coefficient, vector, jnp.linalg.norm(vector)
