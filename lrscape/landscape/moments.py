"""The first moments of a spectrum, from random products: trace and Frobenius norm."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from lrscape import checks
from lrscape.landscape.mask import Mask
from lrscape.landscape.operator import Operator
from lrscape.landscape.tree import check_count


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
        mask: restricts the matrix to a block.
        kind: ``'hessian'``, ``'ggn'``, ``'second_moment'`` or ``'residual'``.
        reuse: see `lrscape.landscape.Operator`.

    Returns:
        The mean, which is unbiased, and its standard error.

    Raises:
        InputError: no samples.
        NonFiniteProductError: a product is not finite; names the batch.

    Example:
        >>> A = jnp.diag(jnp.array([1.0, -5.0, 2.0]))
        >>> print(trace(lambda w: w @ A @ w / 2, jnp.ones(3),
        ...     key=jax.random.key(0), num_samples=3))
        Estimated(mean=-2.0, standard_error=0.0)

    References:
        Hutchinson, `A Stochastic Estimator of the Trace
        <https://doi.org/10.1080/03610918908812806>`_, 1989
    """
    return spectral_moments(
        objective, point, key=key, num_samples=num_samples, mask=mask, kind=kind,
        reuse=reuse,
    ).trace  # fmt: skip


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
        mask: restricts the matrix to a block.
        kind: ``'hessian'``, ``'ggn'``, ``'second_moment'`` or ``'residual'``.
        reuse: see `lrscape.landscape.Operator`.

    Returns:
        The norm, and its standard error to first order.

    Raises:
        InputError: no samples.
        NonFiniteProductError: a product is not finite; names the batch.

    Example:
        >>> found = frobenius_norm(lambda w: jnp.sum(w ** 2), jnp.ones(4),
        ...     key=jax.random.key(0), num_samples=2)
        >>> print(f'{found.mean:.3f}')
        4.000
    """
    return spectral_moments(
        objective, point, key=key, num_samples=num_samples, mask=mask, kind=kind,
        reuse=reuse,
    ).frobenius_norm  # fmt: skip


def spectral_moments(
    objective: Any,
    point: Any,
    *,
    key: jax.Array,
    num_samples: int,
    mask: Mask = None,
    kind: str = "hessian",
    reuse: bool | None = None,
) -> Moments:
    """The trace and the Frobenius norm of a curvature matrix, from the same products.

    Args:
        objective: as for `trace`, and so are all others.
        point: where the matrix is taken.
        key: a PRNG key.
        num_samples: random vectors, a product each.
        mask: restricts the matrix to a block.
        kind: ``'hessian'``, ``'ggn'``, ``'second_moment'`` or ``'residual'``.
        reuse: see `lrscape.landscape.Operator`.

    Returns:
        What `trace` and `frobenius_norm` give, for the price of one of them.

    Raises:
        InputError: no samples.
        NonFiniteProductError: a product is not finite; names the batch.

    Example:
        >>> found = spectral_moments(lambda w: jnp.sum(w ** 2), jnp.ones(4),
        ...     key=jax.random.key(0), num_samples=2)
        >>> print(f'{found.trace.mean:.3f} {found.frobenius_norm.mean:.3f}')
        8.000 4.000
    """
    key = checks.key("key", key)
    count = check_count("num_samples", num_samples)
    operator = Operator(objective, point, kind=kind, mask=mask, reuse=reuse)
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
