"""The spectral density of a curvature matrix, by stochastic Lanczos quadrature."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from lrscape import checks
from lrscape.landscape.flat import product
from lrscape.landscape.lanczos import Matrix, tridiagonalize
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


def lanczos_quadrature(
    operator: Matrix,
    num_matvecs: int,
    num_samples: int,
    key: jax.Array,
    in_one_program: Callable[[jax.Array], jax.Array] | None,
) -> Quadrature:
    """The Ritz values and weights of Lanczos' iteration from random vectors.

    Args:
        operator: the matrix.
        num_matvecs: m, products for each random vector, at most the matrix's rows.
        num_samples: random vectors.
        key: a PRNG key.
        in_one_program: gives of a start the tridiagonal matrix (m, m) by a compiled
            iteration; what is not finite is computed again by separate products. None
            computes all by separate products.

    Returns:
        Nodes and weights.
    """
    shape = num_samples, num_matvecs
    nodes, weights = np.zeros(shape), np.zeros(shape)
    eps = float(np.finfo(operator.dtype).eps)
    for row, one in enumerate(jax.random.split(key, num_samples)):
        start = jax.random.normal(one, (operator.size,)).astype(operator.dtype)
        matrix = None
        if in_one_program is not None:
            found = np.asarray(in_one_program(start), np.float64)
            matrix = _invariant_part(found, eps)
        if matrix is not None and np.isfinite(matrix).all():
            values, vectors = np.linalg.eigh(matrix)
        else:
            values, vectors = tridiagonalize(operator, start, num_matvecs).eigen()
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


@jit_objectives(static_argnums=(0, 1))
def tridiagonal_in_one_program(function, num_matvecs, objective, point, entries, start):
    """The tridiagonal matrix of an iteration that is compiled as a whole.

    Args:
        function: a batch's share of a product.
        num_matvecs: m.
        objective: the objective.
        point: the point.
        entries: the entries of the mask.
        start: (size,), the first vector.

    Returns:
        (m, m); beyond an invariant space it holds rounding errors.
    """

    def one_more(carry: Any, n: jax.Array) -> tuple[Any, Any]:
        basis, vector = carry
        basis = basis.at[n].set(vector)
        image = product(function, objective, point, entries, vector)
        coefficient = jnp.vdot(vector, image)
        rest = image
        for _ in range(2):  # twice is enough (Kahan and Parlett)
            rest = rest - (basis @ rest) @ basis
        left = jnp.linalg.norm(rest)
        vector = rest / jnp.where(left > 0, left, jnp.ones_like(left))
        return (basis, vector), (coefficient, left)

    basis = jnp.zeros((num_matvecs, start.size), start.dtype)
    first = start / jnp.linalg.norm(start)
    counts = jnp.arange(num_matvecs)
    found: Any = lax.scan(one_more, (basis, first), counts)[1]
    diagonal, off = found
    return jnp.diag(diagonal) + jnp.diag(off[:-1], 1) + jnp.diag(off[:-1], -1)


def check_broadening(broadening: float | None, grid_size: int | None) -> None:
    """Raises InputError unless both are None or can work."""
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
        quadrature: the nodes and their weights.
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
    check_broadening(broadening, grid_size)
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
