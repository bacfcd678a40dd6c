"""Local response normalisation, within maps or across channels."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax import lax


def local_response_norm(
    x: jax.Array,
    *,
    axes: Sequence[int] = (1, 2),
    size: int = 3,
    alpha: float = 5e-5,
    beta: float = 0.75,
    bias: float = 1.0,
) -> jax.Array:
    r"""Divides each value by a power of the mean square around it.

    .. math:: y = x \left(k + \frac{\alpha}{m} \sum x^2\right)^{-\beta}

    with the sum over a window around each value, cut off at borders, and :math:`m` the
    number of values in a window that is whole. Krizhevsky et al. (2012) write the sum
    without :math:`m`; their code and Caffe divide by it.

    Args:
        x: (n, height, width, channels).
        axes: those that the window extends over: ``(1, 2)`` within each map,
            ``(3,)`` across channels.
        size: the extent of the window along each of `axes`; odd.
        alpha: :math:`\alpha`.
        beta: :math:`\beta`.
        bias: :math:`k`.

    Returns:
        An array like `x`.

    Example:
        >>> x = jnp.ones((1, 1, 1, 4))
        >>> y = local_response_norm(x, axes=(3,), alpha=3.0, beta=1.0)
        >>> [round(float(value), 4) for value in y[0, 0, 0]]
        [0.3333, 0.25, 0.25, 0.3333]

    References:
        Krizhevsky et al., `ImageNet Classification with Deep Convolutional Neural
        Networks <https://doi.org/10.1145/3065386>`_, 2012, Sec. 3.3
    """
    # Sums of shifted slices, which run faster on CPU than a reduce_window.
    reach = size // 2
    total = jnp.square(x.astype(jnp.promote_types(x.dtype, jnp.float32)))
    for axis in axes:
        padding = [(0, 0)] * x.ndim
        padding[axis] = (reach, reach)
        padded, length = jnp.pad(total, padding), x.shape[axis]
        total = functools.reduce(
            jnp.add,
            [
                lax.slice_in_dim(padded, shift, shift + length, axis=axis)
                for shift in range(size)
            ],
        )
    scale = alpha / (bias * size ** len(axes))
    factor = bias**-beta * jnp.exp(-beta * jnp.log1p(scale * total))
    return x * factor.astype(x.dtype)
