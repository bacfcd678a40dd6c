"""Pools that round up, as Caffe, cuda-convnet and Torch's ``ceil_mode`` do."""

from __future__ import annotations

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax


def max_pool(x: jax.Array, window: int, stride: int) -> jax.Array:
    """Max-pool over square windows; the last one is cut off where it does not fit.

    Args:
        x: (n, height, width, channels).
        window: the side of a window, in pixels.
        stride: pixels between windows.

    Returns:
        (n, ceil((height - window) / stride) + 1, ..., channels).
    """
    # Rows, then columns, as maxima of shifted slices: the gradient of `nn.max_pool`
    # has to search every window again, which makes a CPU training step of the small
    # model 1.16 times as long.
    for axis, (_, behind) in enumerate(_round_up(x, window, stride), start=1):
        padding = [(0, behind if i == axis else 0, 0) for i in range(x.ndim)]
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


def average_pool(x: jax.Array, window: int, stride: int) -> jax.Array:
    """Average-pool over square windows; what is cut off does not count.

    Args:
        x: (n, height, width, channels).
        window: the side of a window, in pixels.
        stride: pixels between windows.

    Returns:
        (n, ceil((height - window) / stride) + 1, ..., channels).
    """
    return nn.avg_pool(
        x,
        (window, window),
        strides=(stride, stride),
        padding=_round_up(x, window, stride),
        count_include_pad=False,
    )


def _round_up(x: jax.Array, window: int, stride: int) -> list[tuple[int, int]]:
    """The padding behind an image that lets the last, partial window count."""
    return [(0, (window - size) % stride) for size in x.shape[1:3]]
