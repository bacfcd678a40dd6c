"""Extreme eigenvalues of a symmetric matrix that is known by its products."""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from lrscape.landscape.lanczos import Matrix, Tridiagonal, tridiagonalize
from lrscape.landscape.missed import CHANCE, chance_missed
from lrscape.landscape.rounds import largest_pairs

ENDS = ("largest", "smallest")


@dataclasses.dataclass(frozen=True, eq=False)
class SpectralNorm:
    """The largest eigenvalue by magnitude; ``float(...)`` is the norm.

    Attributes:
        value: the spectral norm.
        eigenvalue: the dominant eigenvalue, with its sign.
        eigenvector: a tree like the point, of norm 1.
        residual: the norm of ``H v - eigenvalue v``, as the iteration knows it.
        products: how many products it took.
        converged: whether the stopping rule was met before they ran out.
    """

    value: float
    eigenvalue: float
    eigenvector: Any
    residual: float
    products: int
    converged: bool

    def __float__(self) -> float:
        return self.value

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.asarray(self.value, dtype)


class _Triple(NamedTuple):
    eigenvalues: np.ndarray
    eigenvectors: Any
    residuals: np.ndarray


class Eigenpairs(_Triple):
    """Eigenvalues and eigenvectors: ``values, vectors, residuals = pairs``.

    Attributes:
        eigenvalues: (k,).
        eigenvectors: a tree like the point with a leading axis k, orthonormal.
        residuals: (k,), the norm of ``H v - eigenvalue v`` of each; an eigenvalue lies
            within it of the one that is given.
        converged: whether every residual is within the tolerance, or within rounding
            of the largest eigenvalue by magnitude, and the probability that one of the
            k was missed is at most one in a thousand.
        products: how many products it took.
    """

    # Beside the tuple, which unpacks to three.
    converged: bool = False
    products: int = 0

    def __new__(
        cls,
        eigenvalues: np.ndarray,
        eigenvectors: Any,
        residuals: np.ndarray,
        converged: bool = False,
        products: int = 0,
    ) -> Eigenpairs:
        """Makes the triple, and says how it was found."""
        pairs = super().__new__(cls, eigenvalues, eigenvectors, residuals)
        pairs.converged, pairs.products = converged, products
        return pairs


def dominant_pair(
    operator: Matrix,
    start: jax.Array,
    *,
    tolerance: float,
    max_products: int,
    random_share: float | None,
) -> SpectralNorm:
    """The eigenvalue of largest magnitude and its eigenvector, from a start.

    Args:
        operator: the matrix.
        start: (size,), not zero.
        tolerance: of the residual and of the eigenvalue, relative to the eigenvalue.
        max_products: at most so many.
        random_share: the norm of the start's random part, once it is scaled to norm 1;
            None where nothing of it is random, and convergence means a small residual.

    Returns:
        The pair.
    """
    before = operator.count

    def look(found: Tridiagonal) -> tuple[float, np.ndarray, float, bool]:
        values, vectors = found.eigen()
        best = int(np.argmax(np.abs(values)))
        value = float(values[best])
        is_whole = len(values) == operator.size
        residual = 0.0 if is_whole else found.remainder * abs(float(vectors[-1, best]))
        done = residual <= tolerance * abs(value)
        if not values.any() and residual == 0.0:
            # Only a matrix of zeros maps a random vector to zero.
            return value, vectors[:, best], residual, random_share is not None
        if done and random_share is not None and not is_whole:
            beyond = abs(value) * (1 + tolerance)
            chances = [
                chance_missed(
                    found, values, end, operator.size, random_share=random_share
                )
                for end in (beyond, -beyond)
            ]
            done = sum(chances) <= CHANCE
        return value, vectors[:, best], residual, done

    found = tridiagonalize(
        operator, start, max_products, stop=lambda found: look(found)[-1]
    )
    value, coefficients, residual, converged = look(found)
    vector = found.combined(coefficients[None])[0]
    return SpectralNorm(
        value=abs(value),
        eigenvalue=value,
        eigenvector=operator.to_tree(vector / jnp.linalg.norm(vector)),
        residual=residual,
        products=operator.count - before,
        converged=converged,
    )


def extreme_pairs(
    operator: Matrix,
    k: int,
    *,
    key: jax.Array,
    which: str,
    tolerance: float,
    max_products: int,
) -> Eigenpairs:
    """The eigenvalues at one end of the spectrum and their eigenvectors.

    Args:
        operator: the matrix.
        k: how many, at most its rows.
        key: a PRNG key, for the starts of all rounds.
        which: a name in `ENDS`.
        tolerance: of each residual, relative to its own eigenvalue.
        max_products: at most so many, and k more for the residuals.

    Returns:
        The pairs.
    """
    before = operator.count
    sign = 1 if which == "largest" else -1
    found = largest_pairs(
        lambda vector: sign * operator(vector), operator.size, operator.dtype, k,
        key=key, tolerance=tolerance, max_products=max_products,
    )  # fmt: skip
    trees = [operator.to_tree(row) for row in found.rows]
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)
    return Eigenpairs(
        sign * found.values, stacked, found.residuals, found.converged,
        operator.count - before,
    )  # fmt: skip
