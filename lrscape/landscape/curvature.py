"""Eigenvalues of a curvature matrix, and where their eigenvectors live."""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from lrscape import layers
from lrscape.errors import InputError, unknown_name
from lrscape.landscape import tree
from lrscape.landscape.lanczos import Tridiagonal, tridiagonalize
from lrscape.landscape.mask import Mask
from lrscape.landscape.operator import Operator
from lrscape.landscape.tree import check_count

ENDS = ("largest", "smallest")
# Eigenvalues below this share of the largest by magnitude are found no more exactly.
FLOOR = 1e-2


@dataclasses.dataclass(frozen=True, eq=False)
class SpectralNorm:
    """The largest eigenvalue by magnitude; ``float(...)`` is the norm.

    Attributes:
        value: the spectral norm.
        eigenvalue: the dominant eigenvalue, with its sign.
        eigenvector: a tree like the point, of norm 1.
        residual: the norm of ``H v - eigenvalue v``.
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
    r"""The spectral norm of a curvature matrix, by power iteration.

    Stops when the norm of the product, which never falls, grows by less than
    `tolerance` of itself: that is no bound of the error, which the residual gives.
    Where two eigenvalues differ in their sign alone, neither is found but a mixture.

    Args:
        objective: an objective, or a function of a point.
        point: where the matrix is taken.
        key: a PRNG key, for a random start.
        start: a tree like the point to start from instead: during training, the last
            eigenvector.
        tolerance: the relative growth at which it stops.
        max_products: at most so many products.
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
    check_tolerance(tolerance)
    check_count("max_products", max_products)
    operator = Operator(objective, point, kind=kind, mask=mask, reuse=reuse)
    if key is not None:
        vector = jax.random.normal(key, (operator.size,)).astype(operator.dtype)
    else:
        tree.check_alike({"point": point, "start": start})
        vector = operator.to_vector(start)
    largest = float(jnp.abs(vector).max())
    if not np.isfinite(largest):
        raise InputError("start is not finite")
    if not largest > 0:
        raise InputError("start has norm 0 where the mask lets it move")
    vector = vector / largest
    vector = vector / jnp.linalg.norm(vector)
    value, converged = 0.0, False
    for _ in range(max_products):
        image = operator(vector)
        before, value = value, float(jnp.linalg.norm(image))
        if not np.isfinite(value):
            raise ArithmeticError(
                f"the norm of a product overflows {operator.dtype}; scale the loss, or "
                "compute in double precision"
            )
        eigenvalue = float(vector @ image)
        residual = float(jnp.linalg.norm(image - eigenvalue * vector))
        converged = abs(value - before) <= tolerance * value
        if converged or value == 0.0:
            break
        last, vector = vector, image / value
    else:
        vector = last
    return SpectralNorm(
        value=value,
        eigenvalue=eigenvalue,
        eigenvector=operator.to_tree(vector),
        residual=residual,
        products=operator.count,
        converged=converged or value == 0.0,
    )


def check_tolerance(tolerance: Any) -> None:
    """Raises InputError unless a tolerance is a positive number."""
    if isinstance(tolerance, str) or not tolerance > 0:
        raise InputError(f"tolerance={tolerance!r} must be positive")


class Eigenpairs(NamedTuple):
    """Eigenvalues and eigenvectors.

    Attributes:
        eigenvalues: (k,).
        eigenvectors: a tree like the point with a leading axis k, orthonormal.
        residuals: (k,), the norm of ``H v - eigenvalue v`` of each; an eigenvalue lies
            within it of the one that is given.
    """

    eigenvalues: np.ndarray
    eigenvectors: Any
    residuals: np.ndarray


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

    By Lanczos' iteration, fully reorthogonalised, until every wanted pair's residual
    is below `tolerance` of the largest of these by magnitude, or of a hundredth of the
    largest of all where they are smaller still. From a single start,
    an eigenvalue that occurs several times (that of a null space) may be found once,
    and the next ones in place of its copies.

    Args:
        objective: an objective, or a function of a point.
        point: where the matrix is taken.
        k: how many.
        key: a PRNG key, for the start.
        which: ``'largest'``, the largest first, or ``'smallest'``, the smallest first;
            both by sign and not by magnitude.
        tolerance: None is 1e-4 in single precision, 1e-9 in double.
        max_products: at most so many products, and k more for the residuals; None is
            20 k + 100.
        mask: restricts the matrix to a block.
        kind: ``'hessian'``, ``'ggn'``, ``'second_moment'`` or ``'residual'``.
        reuse: see `lrscape.landscape.Operator`.

    Returns:
        Eigenvalues, eigenvectors and residuals. Where the products ran out, the
        residuals say how good they are.

    Raises:
        InputError: k larger than the matrix, or an unknown name.
        NonFiniteProductError: a product is not finite; names the batch.

    Example:
        >>> A = jnp.diag(jnp.array([1.0, -5.0, 2.0, 4.0]))
        >>> values, vectors, residuals = top_eigenpairs(
        ...     lambda w: w @ A @ w / 2, jnp.ones(4), 2, key=jax.random.key(0))
        >>> print(values.round(4), vectors.shape)
        [4. 2.] (2, 4)
    """
    if which not in ENDS:
        raise unknown_name("which", which, ENDS)
    check_count("k", k)
    if max_products is not None:
        check_count("max_products", max_products)
    if tolerance is not None:
        check_tolerance(tolerance)
    operator = Operator(objective, point, kind=kind, mask=mask, reuse=reuse)
    if k > operator.size:
        raise InputError(f"k={k} is more than the matrix has rows: {operator.size}")
    if tolerance is None:
        tolerance = 1e-9 if operator.dtype.itemsize > 4 else 1e-4
    limit = 20 * k + 100 if max_products is None else max(max_products, k)

    def wanted(values: np.ndarray) -> np.ndarray:
        order = np.argsort(values)
        return order[::-1][:k] if which == "largest" else order[:k]

    def good_enough(found: Tridiagonal) -> bool:
        if len(found.diagonal) < k or found.remainder == 0.0:
            # An invariant space may lack copies of an eigenvalue that occurs twice.
            return False
        if not found.off_diagonal.all():
            return False  # it did, and copies are being looked for
        if len(found.diagonal) % 5:
            return False  # not worth looking every time
        values, vectors = found.eigen()
        chosen = wanted(values)
        left = found.remainder * np.abs(vectors[-1, chosen])
        # Not of all of them: beside a huge one at the other end, what is wanted would
        # count as found before anything of it has been seen.
        size = max(np.abs(values[chosen]).max(), FLOOR * np.abs(values).max())
        return bool((left <= tolerance * size).all())

    start = jax.random.normal(key, (operator.size,)).astype(operator.dtype)
    found = tridiagonalize(
        operator, start, limit, stop=good_enough, key=jax.random.fold_in(key, 1)
    )
    values, vectors = found.eigen()
    chosen = wanted(values)
    rows = found.combined(vectors[:, chosen].T)
    rows = rows / jnp.linalg.norm(rows, axis=1, keepdims=True)
    residuals = np.array(
        [
            float(jnp.linalg.norm(operator(row) - float(value) * row))
            for row, value in zip(rows, values[chosen], strict=True)
        ]
    )
    trees = [operator.to_tree(row) for row in rows]
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)
    return Eigenpairs(values[chosen], stacked, residuals)


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
