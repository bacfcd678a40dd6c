"""Properties of a curvature matrix, of an objective and a point each.

Each function makes an `Operator` and asks it for one result. For several results at
one point make the operator once: they then share what it has prepared there.
"""

from __future__ import annotations

from typing import Any

import jax
import numpy as np

from lrscape import layers
from lrscape.errors import InputError
from lrscape.landscape import tree
from lrscape.landscape.density import SpectralDensity
from lrscape.landscape.eigenpairs import Eigenpairs, SpectralNorm
from lrscape.landscape.masks import Mask
from lrscape.landscape.moments import Estimated
from lrscape.landscape.operator import Operator


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
    """The largest eigenvalue by magnitude of a curvature matrix.

    By Lanczos' iteration, until the residual is small and an eigenvalue that is larger
    by more than `tolerance` has been missed with a probability of at most one in a
    thousand.

    Args:
        objective: an objective, or a function of a point.
        point: where the matrix is taken.
        key: a PRNG key, for a random start.
        start: a tree like the point to start from instead, such as an eigenvector of
            an earlier point; what it may have missed is then not known.
        tolerance: of the residual and of the eigenvalue, relative to the eigenvalue.
        max_products: at most so many products; as many vectors are kept.
        mask: restricts the matrix to the block of the entries that it selects.
        kind: the matrix: ``'hessian'``, ``'ggn'`` (generalised Gauss-Newton),
            ``'second_moment'`` (of the gradients of single examples) or ``'residual'``
            (the second moment without the Hessian).
        reuse: whether linearisations are kept in memory, so that a product with the
            Hessian costs no forward pass; None keeps up to 1 GiB of them.

    Returns:
        The norm, with the sign of the dominant eigenvalue, the eigenvector, the
        residual and the number of products.

    Raises:
        InputError: neither a key nor a start, or numbers that cannot work.
        NonFiniteProductError: a product is not finite; names the batch.

    Example:
        >>> import jax.numpy as jnp
        >>> A = jnp.diag(jnp.array([1.0, -5.0, 2.0]))
        >>> found = spectral_norm(
        ...     lambda w: w @ A @ w / 2, jnp.ones(3), key=jax.random.key(0))
        >>> print(f'{float(found):.2f} {found.eigenvalue:.2f}')
        5.00 -5.00
    """
    operator = Operator(objective, point, kind=kind, mask=mask, reuse=reuse)
    return operator.spectral_norm(
        key=key, start=start, tolerance=tolerance, max_products=max_products
    )


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

    By rounds of Lanczos' iteration, each without the eigenvectors that earlier ones
    have found, so that eigenvalues that occur several times are found as often.

    Args:
        objective: an objective, or a function of a point.
        point: where the matrix is taken.
        k: how many.
        key: a PRNG key, for the starts.
        which: ``'largest'``, the largest first, or ``'smallest'``, the smallest first;
            both by sign and not by magnitude.
        tolerance: of each residual, relative to its own eigenvalue; None is 1e-4 in
            single precision, 1e-9 in double. Rounding, about eps times the largest
            eigenvalue by magnitude, bounds the residual where that is more.
        max_products: at most so many products, and k more for the residuals; None is
            20 k + 100.
        mask: restricts the matrix to the block of the entries that it selects.
        kind: the matrix: ``'hessian'``, ``'ggn'`` (generalised Gauss-Newton),
            ``'second_moment'`` (of the gradients of single examples) or ``'residual'``
            (the second moment without the Hessian).
        reuse: whether linearisations are kept in memory, so that a product with the
            Hessian costs no forward pass; None keeps up to 1 GiB of them.

    Returns:
        Eigenvalues, eigenvectors and residuals, and whether they have converged. Where
        the products ran out they have not; the residuals say how near they are to some
        eigenvalues.

    Raises:
        InputError: k larger than the matrix, or an unknown name.
        NonFiniteProductError: a product is not finite; names the batch.

    Example:
        >>> import jax.numpy as jnp
        >>> A = jnp.diag(jnp.array([1.0, -5.0, 2.0, 4.0]))
        >>> values, vectors, residuals = top_eigenpairs(
        ...     lambda w: w @ A @ w / 2, jnp.ones(4), 2, key=jax.random.key(0))
        >>> print(values.round(4), vectors.shape)
        [4. 2.] (2, 4)
    """
    operator = Operator(objective, point, kind=kind, mask=mask, reuse=reuse)
    return operator.top_eigenpairs(
        k, key=key, which=which, tolerance=tolerance, max_products=max_products
    )


def trace(
    objective: Any,
    point: Any,
    *,
    key: jax.Array,
    num_samples: int,
    mask: Mask = None,
    kind: str = "hessian",
    reuse: bool | None = None,
) -> Estimated:
    r"""The trace of a curvature matrix, by Hutchinson's estimator.

    .. math:: E[z^T H z] = \operatorname{tr} H, \quad z_i = \pm 1

    Args:
        objective: an objective, or a function of a point.
        point: where the matrix is taken.
        key: a PRNG key.
        num_samples: random vectors, a product each.
        mask: restricts the matrix to the block of the entries that it selects.
        kind: the matrix: ``'hessian'``, ``'ggn'`` (generalised Gauss-Newton),
            ``'second_moment'`` (of the gradients of single examples) or ``'residual'``
            (the second moment without the Hessian).
        reuse: whether linearisations are kept in memory, so that a product with the
            Hessian costs no forward pass; None keeps up to 1 GiB of them.

    Returns:
        The mean, which is unbiased, and its standard error.

    Raises:
        InputError: no samples.
        NonFiniteProductError: a product is not finite; names the batch.

    Example:
        >>> import jax.numpy as jnp
        >>> A = jnp.diag(jnp.array([1.0, -5.0, 2.0]))
        >>> print(trace(lambda w: w @ A @ w / 2, jnp.ones(3),
        ...     key=jax.random.key(0), num_samples=3))
        Estimated(mean=-2.0, standard_error=0.0)
    """
    operator = Operator(objective, point, kind=kind, mask=mask, reuse=reuse)
    return operator.trace(key=key, num_samples=num_samples)


def frobenius_norm(
    objective: Any,
    point: Any,
    *,
    key: jax.Array,
    num_samples: int,
    mask: Mask = None,
    kind: str = "hessian",
    reuse: bool | None = None,
) -> Estimated:
    r"""The Frobenius norm of a curvature matrix, from the squares of random products.

    .. math:: E[\|H z\|^2] = \|H\|_F^2, \quad z_i = \pm 1

    Args:
        objective: an objective, or a function of a point.
        point: where the matrix is taken.
        key: a PRNG key.
        num_samples: random vectors, a product each.
        mask: restricts the matrix to the block of the entries that it selects.
        kind: the matrix: ``'hessian'``, ``'ggn'`` (generalised Gauss-Newton),
            ``'second_moment'`` (of the gradients of single examples) or ``'residual'``
            (the second moment without the Hessian).
        reuse: whether linearisations are kept in memory, so that a product with the
            Hessian costs no forward pass; None keeps up to 1 GiB of them.

    Returns:
        The norm, and its standard error to first order.

    Raises:
        InputError: no samples.
        NonFiniteProductError: a product is not finite; names the batch.

    Example:
        >>> import jax.numpy as jnp
        >>> found = frobenius_norm(lambda w: jnp.sum(w ** 2), jnp.ones(4),
        ...     key=jax.random.key(0), num_samples=2)
        >>> print(f'{found.mean:.3f}')
        4.000
    """
    operator = Operator(objective, point, kind=kind, mask=mask, reuse=reuse)
    return operator.frobenius_norm(key=key, num_samples=num_samples)


def spectral_density(
    objective: Any,
    point: Any,
    *,
    key: jax.Array,
    num_matvecs: int,
    num_samples: int,
    broadening: float | None = None,
    grid_size: int | None = None,
    mask: Mask = None,
    kind: str = "hessian",
    reuse: bool | None = None,
) -> SpectralDensity:
    """The density of a curvature matrix's eigenvalues.

    By stochastic Lanczos quadrature: the mean over random vectors of Gaussians around
    Ritz values.

    Args:
        objective: an objective, or a function of a point.
        point: where the matrix is taken.
        key: a PRNG key.
        num_matvecs: products for each random vector.
        num_samples: random vectors.
        broadening: the Gaussians' standard deviation, in units of eigenvalues; None is
            a hundredth of the range of the Ritz values.
        grid_size: points of the grid, which reaches five standard deviations beyond
            the Ritz values; None is four a standard deviation.
        mask: restricts the matrix to the block of the entries that it selects.
        kind: the matrix: ``'hessian'``, ``'ggn'`` (generalised Gauss-Newton),
            ``'second_moment'`` (of the gradients of single examples) or ``'residual'``
            (the second moment without the Hessian).
        reuse: whether linearisations are kept in memory, so that a product with the
            Hessian costs no forward pass; None keeps up to 1 GiB of them.

    Returns:
        The grid and the density on it, which integrates to 1.

    Raises:
        InputError: no products, no samples, or a broadening that is not positive.
        NonFiniteProductError: a product is not finite; names the batch.

    Example:
        >>> import jax.numpy as jnp
        >>> A = jnp.diag(jnp.array([1.0, -5.0, 2.0]))
        >>> grid, density = spectral_density(lambda w: w @ A @ w / 2, jnp.ones(3),
        ...     key=jax.random.key(0), num_matvecs=3, num_samples=2)
        >>> print(f'{np.trapezoid(density, grid):.3f}')
        1.000
    """
    operator = Operator(objective, point, kind=kind, mask=mask, reuse=reuse)
    return operator.spectral_density(
        key=key, num_matvecs=num_matvecs, num_samples=num_samples,
        broadening=broadening, grid_size=grid_size,
    )  # fmt: skip


def layer_shares(vector: Any, *, axes: Any = None) -> dict[str, float]:
    """The share of a vector's squared norm in each array of each layer.

    Args:
        vector: a tree, such as an eigenvector.
        axes: what leaves are where names do not tell; see `lrscape.layers.roles`.

    Returns:
        Path -> share; they sum to 1. The layers that one array stacks are
        ``'path[0]'``, ``'path[1]'`` ...

    Example:
        >>> import jax.numpy as jnp
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
    r"""The overlap of two spaces of eigenvectors.

    .. math:: \frac{1}{k} \| U^T V \|_F^2

    Args:
        first: k orthonormal vectors, a tree with a leading axis k.
        second: as many, of the same structure.

    Returns:
        Between 0, orthogonal, and 1, the same space.

    Raises:
        InputError: trees of different structure or shapes.

    Example:
        >>> import jax.numpy as jnp
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
