"""The spectral density of a curvature matrix, by stochastic Lanczos quadrature."""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import jax
import numpy as np

from lrscape import checks
from lrscape.landscape.lanczos import tridiagonalize
from lrscape.landscape.mask import Mask
from lrscape.landscape.operator import Operator, product
from lrscape.landscape.programs import jit_objectives
from lrscape.landscape.tree import check_count

# Of nodes that weigh less than rounding.
_NEGLIGIBLE = 1e-12


class Quadrature(NamedTuple):
    """A spectrum as a few points with weights, for each of some random vectors.

    Attributes:
        nodes: (samples, m), Ritz values.
        weights: (samples, m), which sum to 1 in each row; where an iteration ended
            early, the rest weigh nothing.
    """

    nodes: np.ndarray
    weights: np.ndarray


class SpectralDensity(NamedTuple):
    """A density over eigenvalues.

    Attributes:
        grid: (n,), eigenvalues.
        density: (n,), which integrates to 1.
    """

    grid: np.ndarray
    density: np.ndarray


def spectral_quadrature(
    objective: Any,
    point: Any,
    *,
    key: jax.Array,
    num_matvecs: int,
    num_samples: int,
    mask: Mask = None,
    kind: str = "hessian",
    reuse: bool | None = None,
    compiled: bool | None = None,
) -> Quadrature:
    """The spectrum as Ritz values and their weights.

    Args:
        objective: an objective, or a function of a point.
        point: where the matrix is taken.
        key: a PRNG key.
        num_matvecs: m, products for each random vector.
        num_samples: random vectors.
        mask: restricts the matrix to a block.
        kind: ``'hessian'``, ``'ggn'``, ``'second_moment'`` or ``'residual'``.
        reuse: see `lrscape.landscape.Operator`.
        compiled: whether the whole iteration is one program (matfree's) or a loop of
            separate products; None chooses the faster.

    Returns:
        Nodes and weights; ``(weights * f(nodes)).sum(axis=1)`` estimates the mean of
        f over the eigenvalues.

    Raises:
        InputError: no products or no samples.
        NonFiniteProductError: a product is not finite; names the batch.

    Example:
        >>> import jax.numpy as jnp
        >>> A = jnp.diag(jnp.array([1.0, -5.0, 2.0]))
        >>> found = spectral_quadrature(lambda w: w @ A @ w / 2, jnp.ones(3),
        ...     key=jax.random.key(0), num_matvecs=3, num_samples=1)
        >>> print(found.nodes.round(3), f'{found.weights.sum():.3f}')
        [[-5.  1.  2.]] 1.000

    References:
        Ghorbani et al., `An Investigation into Neural Net Optimization via Hessian
        Eigenvalue Density <https://arxiv.org/abs/1901.10159>`_, 2019, Sec. 2
    """
    key = checks.key("key", key)
    if reuse is not None:
        checks.flag("reuse", reuse)
    check_count("num_matvecs", num_matvecs)
    count = check_count("num_samples", num_samples)
    operator = Operator(objective, point, kind=kind, mask=mask, reuse=False)
    m = min(int(num_matvecs), operator.size)
    if compiled is None:
        compiled = not operator.runs_apart()
    if not compiled and reuse is not False:
        operator = Operator(objective, point, kind=kind, mask=mask, reuse=reuse)
    nodes, weights = np.zeros((count, m)), np.zeros((count, m))
    for row, one in enumerate(jax.random.split(key, count)):
        start = jax.random.normal(one, (operator.size,)).astype(operator.dtype)
        matrix = _in_one_program(operator, m, start) if compiled else None
        if matrix is not None and np.isfinite(matrix).all():
            values, vectors = np.linalg.eigh(matrix)
        else:
            values, vectors = tridiagonalize(operator, start, m).eigen()
        nodes[row, : len(values)] = values
        weights[row, : len(values)] = vectors[0] ** 2
    return Quadrature(nodes, weights)


def _invariant_part(matrix: np.ndarray, eps: float) -> np.ndarray:
    """A tridiagonal matrix up to where its Krylov space ends.

    Beyond a vanishing off-diagonal, a compiled iteration goes on with rounding errors.
    """
    small = 10 * eps * np.maximum.accumulate(np.abs(matrix).sum(axis=1))[:-1]
    ends = np.flatnonzero(~(np.abs(np.diag(matrix, 1)) > small))
    return matrix[: ends[0] + 1, : ends[0] + 1] if len(ends) else matrix


def _in_one_program(operator: Operator, num_matvecs: int, start: Any) -> np.ndarray:
    function, *arrays = operator.parts
    # matfree mixes dtypes, which not every configuration of JAX lets pass.
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        found = _tridiagonal(function, num_matvecs, *arrays, start)
    matrix = np.asarray(found, np.float64)
    return _invariant_part(matrix, float(np.finfo(operator.dtype).eps))


@jit_objectives(static_argnums=(0, 1))
def _tridiagonal(function, num_matvecs, objective, point, entries, start):
    from matfree import decomp

    iterate = decomp.tridiag_sym(num_matvecs, materialize=True, reortho="full")
    return iterate(
        functools.partial(product, function, objective, point, entries), start
    ).J_small


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
    r"""The density of a curvature matrix's eigenvalues.

    .. math::

        \phi(t) = \frac{1}{S} \sum_{s,i} w_{si}\,
            \mathcal{N}(t; \theta_{si}, \sigma^2)

    with the nodes :math:`\theta` and weights w of `spectral_quadrature`.

    Args:
        objective: an objective, or a function of a point.
        point: where the matrix is taken.
        key: a PRNG key.
        num_matvecs: products for each random vector.
        num_samples: S, random vectors.
        broadening: :math:`\sigma`, in units of eigenvalues. None is a hundredth of the
            range of the nodes. It widens the density's second moment by its square.
        grid_size: points of the grid, which reaches five :math:`\sigma` beyond the
            nodes. None is as many as show each Gaussian, four a :math:`\sigma`.
        mask: restricts the matrix to a block.
        kind: ``'hessian'``, ``'ggn'``, ``'second_moment'`` or ``'residual'``.
        reuse: see `lrscape.landscape.Operator`.

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

    References:
        Ghorbani et al., 2019, Sec. 2
    """
    _check_broadening(broadening, grid_size)
    found = spectral_quadrature(
        objective,
        point,
        key=key,
        num_matvecs=num_matvecs,
        num_samples=num_samples,
        mask=mask,
        kind=kind,
        reuse=reuse,
    )
    return broadened(found, broadening=broadening, grid_size=grid_size)


def _check_broadening(broadening: float | None, grid_size: int | None) -> None:
    if broadening is not None:
        checks.positive("broadening", broadening)
    if grid_size is not None:
        check_count("grid_size", grid_size)


def default_broadening(quadrature: Quadrature) -> float:
    """A hundredth of the range of the nodes; of their size where they are all equal."""
    nodes = quadrature.nodes[quadrature.weights > _NEGLIGIBLE]
    width = float(np.ptp(nodes)) or float(np.abs(nodes).max()) or 1.0
    return width / 100


def broadened(
    quadrature: Quadrature,
    *,
    broadening: float | None = None,
    grid_size: int | None = None,
) -> SpectralDensity:
    """A quadrature as a density, each node a Gaussian.

    Args:
        quadrature: of `spectral_quadrature`.
        broadening: the Gaussians' deviation; None is `default_broadening`.
        grid_size: points of the grid; None is four a deviation.

    Returns:
        The grid and the density on it.

    Example:
        >>> grid, density = broadened(
        ...     Quadrature(np.array([[0.0, 1.0]]), np.array([[0.5, 0.5]])))
        >>> print(f'{np.trapezoid(grid * density, grid):.3f}')
        0.500
    """
    checks.instance("quadrature", quadrature, Quadrature, way_out="spectral_quadrature")
    _check_broadening(broadening, grid_size)
    sigma = default_broadening(quadrature) if broadening is None else broadening
    nodes = quadrature.nodes[quadrature.weights > _NEGLIGIBLE]
    if grid_size is None:
        grid_size = int(np.clip(4 * np.ptp(nodes) / sigma + 41, 2001, 1_000_001))
    grid = np.linspace(nodes.min() - 5 * sigma, nodes.max() + 5 * sigma, grid_size)
    density = np.zeros(grid_size)
    for theta, weight in zip(
        quadrature.nodes.ravel(), quadrature.weights.ravel(), strict=True
    ):
        if weight > _NEGLIGIBLE:
            density += weight * np.exp(-((grid - theta) ** 2) / (2 * sigma**2))
    density /= len(quadrature.nodes) * sigma * np.sqrt(2 * np.pi)
    return SpectralDensity(grid, density)
