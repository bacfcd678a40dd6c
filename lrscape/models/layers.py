"""Layers that several networks share: pools, response normalisation, initial weights.

Pools round up, as Caffe, cuda-convnet and Torch's ``ceil_mode`` do, or keep the size,
as TensorFlow's ``SAME`` does, where that is asked for.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

from lrscape.errors import unknown_name


def max_pool(
    x: jax.Array, window: int, stride: int, *, same: bool = False
) -> jax.Array:
    """Max-pool over square windows; the last one is cut off where it does not fit.

    Args:
        x: (n, height, width, channels).
        window: the side of a window, in pixels.
        stride: pixels between windows.
        same: whether the first windows are cut off too, so that
            (n, ceil(height / stride), ..., channels) is returned.

    Returns:
        (n, ceil((height - window) / stride) + 1, ..., channels).
    """
    # Rows, then columns, as maxima of shifted slices: the gradient of `nn.max_pool`
    # has to search every window again, which makes a CPU training step of the small
    # model 1.16 times as long.
    for axis, around in enumerate(_padding(x, window, stride, same), start=1):
        padding = [(*(around if i == axis else (0, 0)), 0) for i in range(x.ndim)]
        padded = lax.pad(x, jnp.array(-jnp.inf, x.dtype), padding)
        last = padded.shape[axis] - window + 1
        x = functools.reduce(
            jnp.maximum,
            [
                lax.slice_in_dim(padded, shift, last + shift, stride=stride, axis=axis)
                for shift in range(window)
            ],
        )
    return x


def average_pool(
    x: jax.Array, window: int, stride: int, *, same: bool = False
) -> jax.Array:
    """Average-pool over square windows; what is cut off does not count.

    Args:
        x: (n, height, width, channels).
        window: the side of a window, in pixels.
        stride: pixels between windows.
        same: whether the first windows are cut off too, so that
            (n, ceil(height / stride), ..., channels) is returned.

    Returns:
        (n, ceil((height - window) / stride) + 1, ..., channels).
    """
    return nn.avg_pool(
        x,
        (window, window),
        strides=(stride, stride),
        padding=_padding(x, window, stride, same),
        count_include_pad=False,
    )


def _padding(
    x: jax.Array, window: int, stride: int, same: bool
) -> list[tuple[int, int]]:
    """The padding around an image that lets partial windows count."""
    sides = x.shape[1:3]
    if same:
        return lax.padtype_to_pads(sides, (window, window), (stride, stride), "SAME")
    return [(0, (window - side) % stride) for side in sides]


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


Initializer = Callable[..., object]

# Of convolutions, of dense layers, and of outputs where a network tells these apart.
# `fan_in` is He et al. (2015), Eq. 10; `fan_out` their Eq. 14 for convolutions, and
# for dense layers what PyTorch draws where nothing is asked for: uniform within
# 1 / sqrt(fan_in).
_DENSE = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")
_INITIALIZERS: dict[str, tuple[Initializer, Initializer, Initializer]] = {
    "fan_in": (
        nn.initializers.he_normal(),
        nn.initializers.he_normal(),
        nn.initializers.lecun_normal(),
    ),
    "fan_out": (
        nn.initializers.variance_scaling(2.0, "fan_out", "normal"),
        _DENSE,
        _DENSE,
    ),
}
INITS = tuple(_INITIALIZERS)


def initializers(weight_init: str) -> tuple[Initializer, Initializer, Initializer]:
    """The initializers of convolutions, of dense layers and of outputs.

    Args:
        weight_init: a name in `INITS`.

    Raises:
        InputError: another name.
    """
    if weight_init not in _INITIALIZERS:
        raise unknown_name("weight_init", weight_init, INITS)
    return _INITIALIZERS[weight_init]


DTYPES = ("float32", "bfloat16", "float64")


def check_dtype(dtype: str) -> None:
    """Refuses what is not in `DTYPES`.

    Raises:
        InputError: another name.
    """
    if dtype not in DTYPES:
        raise unknown_name("dtype", dtype, DTYPES)


def wide(x: jax.Array) -> jax.Array:
    """Converts to float32 at the least, the precision of a last layer."""
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))
