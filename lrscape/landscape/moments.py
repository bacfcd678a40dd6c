"""The first moments of a spectrum, from random products: trace and Frobenius norm."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from lrscape.landscape.lanczos import Matrix


class Estimated(NamedTuple):
    """A mean over random vectors.

    Attributes:
        mean: the estimate.
        standard_error: of the mean; NaN for one vector.
    """

    mean: float
    standard_error: float


class Moments(NamedTuple):
    """The first two moments of a spectrum, from the same products.

    Attributes:
        trace: the sum of the eigenvalues, unbiased.
        frobenius_norm: the root of the sum of their squares, its standard error to
            first order.
    """

    trace: Estimated
    frobenius_norm: Estimated


def hutchinson(operator: Matrix, key: jax.Array, count: int) -> Moments:
    """Estimates both moments from products with vectors of random signs.

    Args:
        operator: the matrix.
        key: a PRNG key.
        count: how many vectors, a product each.

    Returns:
        The means and their standard errors; NaN for one vector.
    """
    found = []
    for one in jax.random.split(key, count):
        z = jax.random.rademacher(one, (operator.size,), operator.dtype)
        image = operator(z)
        pair = jnp.stack([z, image])
        found.append(
            np.asarray(jnp.matmul(pair, image, precision="highest"), np.float64)
        )
    columns = np.array(found).T
    errors = columns.std(axis=1, ddof=1) / np.sqrt(count) if count > 1 else [np.nan] * 2
    means = columns.mean(axis=1)
    root = float(np.sqrt(means[1]))
    return Moments(
        Estimated(float(means[0]), float(errors[0])),
        Estimated(root, float(errors[1]) / (2 * root) if root > 0 else 0.0),
    )
