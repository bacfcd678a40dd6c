"""Eigenvalues of a curvature matrix, and where their eigenvectors live."""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from lrscape import checks, layers
from lrscape.errors import InputError
from lrscape.landscape import tree
from lrscape.landscape.lanczos import Tridiagonal, tridiagonalize
from lrscape.landscape.mask import Mask
from lrscape.landscape.missed import CHANCE, chance_missed
from lrscape.landscape.operator import Operator
from lrscape.landscape.rounds import largest_pairs
from lrscape.landscape.subspace import check_not_zero
from lrscape.landscape.tree import check_count

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


def spectral_norm(
    objective: Any,
    point: Any,
    *,
    key: jax.Array | None = None,
    start: Any = None,
    tolerance: float = 1e-3,
    max_products: int = 100,
    mask: Mask = None,
    kind: str = "hessian",
    reuse: bool | None = None,
) -> SpectralNorm:
    r"""The spectral norm of a curvature matrix, by Lanczos' iteration.

    Stops when the residual of the dominant eigenpair is below `tolerance` of its
    eigenvalue, and it is unlikely that an eigenvalue larger by more than `tolerance`
    was missed: one in a thousand at most, over the random start. A given start is no
    random one; of it, the residual alone is known.

    Args:
        objective: an objective, or a function of a point.
        point: where the matrix is taken.
        key: a PRNG key, for a random start.
        start: a tree like the point to start from instead: during training, the last
            eigenvector.
        tolerance: of the residual and of the eigenvalue, relative to the eigenvalue.
        max_products: at most so many products; as many vectors are kept.
        mask: restricts the matrix to a block.
        kind: ``'hessian'``, ``'ggn'``, ``'second_moment'`` or ``'residual'``.
        reuse: see `lrscape.landscape.Operator`.

    Returns:
        The norm, with the sign of the dominant eigenvalue, the eigenvector, the
        residual and the number of products.

    Raises:
        InputError: neither a key nor a start, or numbers that cannot work.
        NonFiniteProductError: a product is not finite; names the batch.

    Example:
        >>> A = jnp.diag(jnp.array([1.0, -5.0, 2.0]))
        >>> found = spectral_norm(
        ...     lambda w: w @ A @ w / 2, jnp.ones(3), key=jax.random.key(0))
        >>> print(f'{float(found):.2f} {found.eigenvalue:.2f}')
        5.00 -5.00
    """
    if (key is None) == (start is None):
        raise InputError("pass either key, for a random start, or start")
    if start is None:
        key = checks.key("key", key)
    else:
        tree.check_alike({"point": point, "start": start})
        check_not_zero("start", start)
    checks.positive("tolerance", tolerance)
    check_count("max_products", max_products)
    operator = Operator(objective, point, kind=kind, mask=mask, reuse=reuse)
    if key is not None:
        vector = jax.random.normal(key, (operator.size,)).astype(operator.dtype)
    else:
        vector = operator.to_vector(start)
    largest = float(jnp.abs(vector).max())
    if not np.isfinite(largest):
        raise InputError("start is not finite")
    if not largest > 0:
        raise InputError("start has norm 0 where the mask lets it move")
    return dominant_pair(
        operator, vector / largest, tolerance=tolerance, max_products=max_products,
        random_share=None if key is None else 1.0,
    )  # fmt: skip


def dominant_pair(
    operator: Operator,
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
        products=operator.count,
        converged=converged,
    )


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


def top_eigenpairs(
    objective: Any,
    point: Any,
    k: int,
    *,
    key: jax.Array,
    which: str = "largest",
    tolerance: float | None = None,
    max_products: int | None = None,
    mask: Mask = None,
    kind: str = "hessian",
    reuse: bool | None = None,
) -> Eigenpairs:
    """The k largest eigenvalues of a curvature matrix and their eigenvectors.

    By Lanczos' iteration, fully reorthogonalised, in rounds: each starts at random,
    orthogonal to the eigenvectors that earlier rounds have found. Eigenvalues that
    occur several times, and those beside one that is a million times as large, are
    found that way. The last round finds none, and shows how unlikely it is that one of
    the k was missed.

    Products in floating-point arithmetic are exact to about eps times the largest
    eigenvalue by magnitude; where that is more than `tolerance` of an eigenvalue, it
    bounds the residual in its place.

    Args:
        objective: an objective, or a function of a point.
        point: where the matrix is taken.
        k: how many.
        key: a PRNG key, for the start.
        which: ``'largest'``, the largest first, or ``'smallest'``, the smallest first;
            both by sign and not by magnitude.
        tolerance: of each residual, relative to its own eigenvalue; None is 1e-4 in
            single precision, 1e-9 in double.
        max_products: at most so many products, and k more for the residuals; None is
            20 k + 100.
        mask: restricts the matrix to a block.
        kind: ``'hessian'``, ``'ggn'``, ``'second_moment'`` or ``'residual'``.
        reuse: see `lrscape.landscape.Operator`.

    Returns:
        Eigenvalues, eigenvectors and residuals, and whether they have converged. Where
        the products ran out they have not; the residuals say how near they are to some
        eigenvalues.

    Raises:
        InputError: k larger than the matrix, or an unknown name.
        NonFiniteProductError: a product is not finite; names the batch.

    Example:
        >>> A = jnp.diag(jnp.array([1.0, -5.0, 2.0, 4.0]))
        >>> values, vectors, residuals = top_eigenpairs(
        ...     lambda w: w @ A @ w / 2, jnp.ones(4), 2, key=jax.random.key(0))
        >>> print(values.round(4), vectors.shape)
        [4. 2.] (2, 4)

    References:
        van Dorsselaer et al., `Computing Probabilistic Bounds for Extreme Eigenvalues
        of Symmetric Matrices with the Lanczos Method
        <https://doi.org/10.1137/S0895479800366859>`_, 2000
    """
    key = checks.key("key", key)
    checks.one_of("which", which, ENDS)
    check_count("k", k)
    if max_products is not None:
        check_count("max_products", max_products)
    if tolerance is not None:
        checks.positive("tolerance", tolerance)
    operator = Operator(objective, point, kind=kind, mask=mask, reuse=reuse)
    if k > operator.size:
        raise InputError(f"k={k} is more than the matrix has rows: {operator.size}")
    if tolerance is None:
        tolerance = 1e-9 if operator.dtype.itemsize > 4 else 1e-4
    sign = 1 if which == "largest" else -1
    found = largest_pairs(
        lambda vector: sign * operator(vector), operator.size, operator.dtype, k,
        key=key, tolerance=tolerance,
        max_products=20 * k + 100 if max_products is None else max_products,
    )  # fmt: skip
    trees = [operator.to_tree(row) for row in found.rows]
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)
    return Eigenpairs(
        sign * found.values, stacked, found.residuals, found.converged, operator.count
    )


def layer_shares(vector: Any, *, axes: Any = None) -> dict[str, float]:
    """How much of a vector's squared norm lies in each array of each layer.

    Args:
        vector: a tree, such as an eigenvector.
        axes: what leaves are where names do not tell; see `lrscape.layers.roles`.

    Returns:
        Path -> share; they sum to 1. The layers that one array stacks are
        ``'path[0]'``, ``'path[1]'`` ...

    Example:
        >>> layer_shares({'a': jnp.array([3.0]), 'b': jnp.array([4.0])})
        {'a': 0.36, 'b': 0.64}
    """
    tree.check_point("vector", vector)
    squares = {
        name: float(np.sum(np.square(np.asarray(array, np.float64))))
        for name, array in layers.by_layer(vector, axes).items()
    }
    total = sum(squares.values())
    if not total > 0:
        raise InputError("vector has norm 0: no layer has a share of it")
    return {name: square / total for name, square in squares.items()}


def subspace_overlap(first: Any, second: Any) -> float:
    r"""How much two spaces of eigenvectors have in common.

    .. math:: \frac{1}{k} \| U^T V \|_F^2

    Args:
        first: k orthonormal vectors, a tree with a leading axis k.
        second: as many, of the same structure.

    Returns:
        Between 0, orthogonal, and 1, the same space.

    Raises:
        InputError: trees of different structure or shapes.

    Example:
        >>> print(subspace_overlap(jnp.eye(3)[:2], jnp.eye(3)[1:]))
        0.5

    References:
        Gur-Ari et al., `Gradient Descent Happens in a Tiny Subspace
        <https://arxiv.org/abs/1812.04754>`_, 2018, Sec. 2.2
    """
    tree.check_alike({"first": first, "second": second})
    products: Any = 0.0
    for u, v in zip(jax.tree.leaves(first), jax.tree.leaves(second), strict=True):
        one, other = (np.asarray(x, np.float64).reshape(len(x), -1) for x in (u, v))
        products = products + one @ other.T
    return float(np.sum(products**2) / len(products))
