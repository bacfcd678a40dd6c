"""The eigenvalues at one end of a matrix, by rounds of Lanczos' iteration.

One Krylov space is not enough. From a single start it holds one copy of an eigenvalue
that occurs several times, and beside an eigenvalue that is a million times as large its
rounding hides the others. So what a round has found is deflated, and the next round
starts at random in the orthogonal complement: there the large eigenvalues are gone, and
another copy is as easy to find as the first one. The search ends with a round that
finds no more, and is unlikely to have missed any (`lrscape.landscape.missed`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from lrscape.landscape.lanczos import (
    BLOCK,
    Tridiagonal,
    orthogonalized,
    tridiagonalize,
    with_row,
)
from lrscape.landscape.missed import CHANCE, chance_missed

# Rounding, in units of eps times the largest eigenvalue: of a pair within a round, and
# what a residual may be in the end whatever the tolerance.
_ROUNDING = 4.0
_ALLOWED = 16.0
# A relative error of an eigenvalue that a missed copy may leave, where the tolerance of
# residuals, which are much larger than the errors that they go with, is below it.
_SLACK = 1e-3


@dataclasses.dataclass(frozen=True, eq=False)
class Extremes:
    """Eigenpairs at the upper end of a matrix.

    Attributes:
        values: (k,), the largest first.
        rows: k vectors (size,), orthonormal.
        residuals: (k,), the norm of ``A v - value v`` of each.
        converged: whether all residuals are small enough and a missed eigenvalue is
            unlikely.
    """

    values: np.ndarray
    rows: list[jax.Array]
    residuals: np.ndarray
    converged: bool


def largest_pairs(
    product: Callable[[jax.Array], jax.Array],
    size: int,
    dtype: np.dtype,
    k: int,
    *,
    key: jax.Array,
    tolerance: float,
    max_products: int,
) -> Extremes:
    """The k largest eigenvalues, by sign, of a symmetric matrix.

    Args:
        product: the matrix times a vector (size,).
        size: rows of the matrix.
        dtype: of its vectors.
        k: how many, at most `size`.
        key: a PRNG key, for the starts of all rounds.
        tolerance: of each residual, relative to its own eigenvalue.
        max_products: at most so many products in all rounds together, and k more for
            the residuals.

    Returns:
        The pairs.
    """
    search = _Search(size, float(jnp.finfo(dtype).eps), k, tolerance)
    left, number = max(max_products, k), 0
    while not search.is_complete and left > 0:
        start = jax.random.normal(jax.random.fold_in(key, number), (size,))
        found = tridiagonalize(
            product, start.astype(dtype), min(left, search.outside),
            stop=search.will_do, deflated=search.blocks,
        )  # fmt: skip
        left, number = left - len(found.diagonal), number + 1
        search.take(found, left)
    order = np.argsort(search.values)[::-1][:k]
    rows, values, residuals = [search.row(i) for i in order], [], []
    for row in rows:
        image = product(row)
        values.append(float(jnp.matmul(row, image, precision="highest")))
        residuals.append(float(jnp.linalg.norm(image - values[-1] * row)))
    # Rounding may have changed the order of equal ones.
    order = np.argsort(values)[::-1]
    value, residual = np.array(values)[order], np.array(residuals)[order]
    bound = np.maximum(tolerance * np.abs(value), search.allowed)
    return Extremes(
        value, [rows[i] for i in order], residual,
        converged=bool(search.is_complete and (residual <= bound).all()),
    )  # fmt: skip


class _Search:
    """What the rounds have found, and when a round will do.

    Attributes:
        values: (j,), the Ritz values of what is deflated.
        blocks: their vectors, in arrays of `BLOCK` rows; those beyond j are zero.
        is_complete: whether a round has ended without finding anything more.
    """

    def __init__(self, size: int, eps: float, k: int, tolerance: float):
        self.values = np.zeros(0)
        self.blocks: list[jax.Array] = []
        self.is_complete = False
        self._size, self._eps, self._k = size, eps, k
        self._tolerance = tolerance
        self._slack = max(tolerance, min(10 * tolerance, _SLACK))
        self._patience = 20 + 2 * k  # products until rounding is taken for the end
        self._scale = 0.0  # the largest eigenvalue by magnitude so far

    @property
    def outside(self) -> int:
        """The dimensions of what is not deflated."""
        return self._size - len(self.values)

    @property
    def allowed(self) -> float:
        """The residual that rounding alone may leave."""
        return _ALLOWED * self._eps * self._scale

    def row(self, i: int) -> jax.Array:
        """The vector of the i-th value."""
        return self.blocks[i // BLOCK][i % BLOCK]

    def will_do(self, found: Tridiagonal) -> bool:
        """Whether a round may end here."""
        m = len(found.diagonal)
        if m > 30 and m % 3:
            return False  # not worth looking every time
        values, vectors = found.eigen()
        left = found.remainder * np.abs(vectors[-1])
        new = self._new(values)
        if not new.any():
            return self._is_certain(found, values)
        if len(self.values) + m < self._k:
            return False
        good = bool(self._is_good(values, left)[new].all())
        if self._resolved(values)[1][new].all():
            return good
        # Some are too small to be seen beside the largest ones, which go first; where
        # there are too many of these, nothing better comes.
        return self._shrinks(values, left) or (good and m >= self._patience)

    def take(self, found: Tridiagonal, products_left: int) -> None:
        """Deflates what a round has found.

        Args:
            found: the round.
            products_left: how many the next ones may take.
        """
        values, vectors = found.eigen()
        self._scale = max(self._scale, float(np.abs(values).max()))
        is_whole = len(values) == self.outside
        left = (0.0 if is_whole else found.remainder) * np.abs(vectors[-1])
        new = self._new(values)
        if not new.any():
            self.is_complete = is_whole or self._is_certain(found, values)
            return
        chosen = new.copy()
        if not is_whole and products_left:
            rounding, resolved = self._resolved(values)
            if self._shrinks(values, left) and not resolved[new].all():
                chosen = (left <= rounding) & resolved
            else:
                chosen &= self._is_good(values, left)
                # More of what has converged: the next round is shorter without it.
                everything = np.append(self.values, values)
                kth = np.sort(everything)[::-1][: self._k][-1]
                close = values > kth - abs(kth) / 2
                chosen |= (left <= self._slack / 2 * abs(kth)) & close
            if not chosen.any():
                chosen = new.copy()
        # As many as are asked for, however few products there are.
        missing = self._k - products_left - len(self.values) - int(chosen.sum())
        for i in np.argsort(values)[::-1]:
            if missing > 0 and not chosen[i]:
                chosen[i], missing = True, missing - 1
        # The largest first: what rounding leaves of it in others weighs the most.
        places = np.flatnonzero(chosen)
        for i in places[np.argsort(-np.abs(values[places]))]:
            self._deflate(found.combined(vectors[:, [i]].T)[0], float(values[i]))
        self.is_complete = is_whole

    def _new(self, values: np.ndarray) -> np.ndarray:
        """Which Ritz values of a round belong to the k largest of all."""
        everything = np.sort(np.append(self.values, values))[::-1]
        least = everything[: self._k][-1]
        if len(self.values) >= self._k:
            least = max(least, self._beyond())
        return values >= least

    def _beyond(self) -> float:
        """From where on an eigenvalue would be one that is missing."""
        known = float(np.sort(self.values)[::-1][self._k - 1])
        return known + max(self._slack * abs(known), self.allowed)

    def _is_certain(self, found: Tridiagonal, values: np.ndarray) -> bool:
        """Whether a round has most likely missed nothing that is wanted."""
        chance = chance_missed(found, values, self._beyond(), self.outside)
        return chance <= CHANCE

    def _is_good(self, values: np.ndarray, left: np.ndarray) -> np.ndarray:
        """Which residuals of a round are small enough."""
        rounding, _ = self._resolved(values)
        bound = np.maximum(self._tolerance / 2 * np.abs(values), rounding)
        if len(values) >= self._patience:
            # What does not get better is rounding.
            bound = np.maximum(bound, self.allowed)
        return left <= bound

    def _resolved(self, values: np.ndarray) -> tuple[float, np.ndarray]:
        """A round's rounding, and which pairs can be as exact as is wanted."""
        rounding = _ROUNDING * self._eps * float(np.abs(values).max())
        return rounding, self._tolerance * np.abs(values) >= rounding

    def _shrinks(self, values: np.ndarray, left: np.ndarray) -> bool:
        """Whether a round without what has converged would see ten times less."""
        rounding, _ = self._resolved(values)
        rest = np.abs(values[left > rounding])
        largest = float(np.abs(values).max())
        return len(rest) < len(values) and bool((rest <= largest / 10).all())

    def _deflate(self, row: jax.Array, value: float) -> None:
        n = len(self.values)
        row, length = orthogonalized(self.blocks, row)
        if n % BLOCK == 0:
            self.blocks.append(jnp.zeros((BLOCK, self._size), row.dtype))
        self.blocks[-1] = with_row(self.blocks[-1], row / length, n % BLOCK)
        self.values = np.append(self.values, value)
