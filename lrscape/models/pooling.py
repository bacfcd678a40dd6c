"""Pools that round up, as Caffe, cuda-convnet and Torch's ``ceil_mode`` do.

Or that keep the size, as TensorFlow's ``SAME`` does, where that is asked for.
"""

from __future__ import annotations

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax


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
