"""Convolutions in the forms that XLA is fast at."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.custom_derivatives import SymbolicZero

# More would make a program that takes long to compile.
_MOST_GROUPS = 8
_MOST_SLICES = 8
# Examples whose gradient of a kernel CPU takes together, of maps of at least so many
# pixels: 128 at once take two to seven times as long.
_TOGETHER = 16
_LARGE = 16 * 16


def conv_general_dilated(
    lhs: jax.Array,
    rhs: jax.Array,
    window_strides: Any,
    padding: Any,
    **options: Any,
) -> jax.Array:
    """`jax.lax.conv_general_dilated`, in another form where XLA is slow at it.

    To be handed to `flax.linen.Conv` under the same name. On CPU XLA takes 1.7 s for a
    3x3 convolution of a hundred maps of 2 x 2 with 512 channels, 150 times as long as
    the product of its patches, and 100 times as long for its gradient. A convolution
    without padding takes three times as long there as a padded one that is cropped, and
    1x1 convolutions twice as long as products: a gradient of Network in Network 6.9 s
    against 3.4. Two groups of AlexNet's take six times as long for a gradient as two
    convolutions. The gradient of a kernel takes nine times as long as the convolution
    itself, unless it is made of a few examples at a time: 0.24 s against 0.03 for 128
    maps of 32 x 32 with 16 channels.

    Args:
        lhs: (n, height, width, channels).
        rhs: (rows, columns, channels, features).
        window_strides: as `jax.lax.conv_general_dilated` takes them; likewise `padding`
            and the `options`.
        padding: ``'SAME'`` of maps smaller than the kernel, and on CPU ``'VALID'``,
            1x1 kernels and a few groups, are what is handled here; all else is left to
            XLA.
        **options: dilations, groups, precision.

    Returns:
        (n, height, width, features).
    """
    on_cpu = jax.default_backend() == "cpu"
    groups = options.get("feature_group_count", 1)
    if on_cpu and 1 < groups <= _MOST_GROUPS:
        options = {**options, "feature_group_count": 1}
        return jnp.concatenate(
            [
                conv_general_dilated(x, kernel, window_strides, padding, **options)
                for x, kernel in zip(
                    jnp.split(lhs, groups, axis=-1),
                    jnp.split(rhs, groups, axis=-1),
                    strict=True,
                )
            ],
            axis=-1,
        )
    kernel = rhs.shape[:2]
    dilated = {*(options.get("lhs_dilation") or ()),
               *(options.get("rhs_dilation") or ())} - {1}  # fmt: skip
    unpadded = padding in (((0, 0), (0, 0)), [(0, 0), (0, 0)])
    if kernel == (1, 1) and unpadded and not dilated:
        padding = "SAME"
    plain = (
        padding in ("SAME", "VALID")
        and set(window_strides) == {1}
        and groups == 1
        and not dilated
    )
    if plain and kernel == (1, 1) and on_cpu:
        return _product(lhs, rhs, options)
    fits = min(lhs.shape[1:3]) >= max(kernel)
    if plain and padding == "VALID" and fits and on_cpu:
        same = _convolve(lhs, rhs, window_strides, "SAME", options)
        top, left = ((size - 1) // 2 for size in kernel)
        height, width = (
            have - size + 1 for have, size in zip(lhs.shape[1:3], kernel, strict=True)
        )
        return same[:, top : top + height, left : left + width]
    if not plain or padding == "VALID" or min(lhs.shape[1:3]) >= min(kernel):
        return _convolve(lhs, rhs, window_strides, padding, options)
    height, width = lhs.shape[1:3]
    before = [(size - 1) // 2 for size in kernel]
    around = [(b, size - 1 - b) for b, size in zip(before, kernel, strict=True)]
    padded = jnp.pad(lhs, ((0, 0), *around, (0, 0)))
    patches = jnp.concatenate(
        [
            padded[:, i : i + height, j : j + width]
            for i in range(kernel[0])
            for j in range(kernel[1])
        ],
        axis=-1,
    )
    return _product(patches, rhs, options)


def _convolve(
    lhs: jax.Array,
    rhs: jax.Array,
    window_strides: Any,
    padding: Any,
    options: dict[str, Any],
) -> jax.Array:
    """The convolution; on CPU its kernel's gradient adds up those of slices.

    Its derivative along a kernel is written slice by slice: what reverses it, and what
    is differentiated again, has them too.
    """

    def plain(lhs, rhs):
        return lax.conv_general_dilated(lhs, rhs, window_strides, padding, **options)

    examples, *sides, _ = lhs.shape
    if (
        jax.default_backend() != "cpu"
        or examples <= _TOGETHER
        or math.prod(sides) < _LARGE
    ):
        return plain(lhs, rhs)
    each = max(_TOGETHER, -(-examples // _MOST_SLICES))

    @jax.custom_jvp
    def convolve(lhs, rhs):
        return plain(lhs, rhs)

    def derivative(primals, tangents):
        lhs, rhs = primals
        moved, turned = tangents
        out = convolve(lhs, rhs)
        terms = []
        if not isinstance(moved, SymbolicZero):
            terms.append(convolve(moved, rhs))
        if not isinstance(turned, SymbolicZero):
            slices = [
                plain(lhs[start : start + each], turned)
                for start in range(0, examples, each)
            ]
            terms.append(jnp.concatenate(slices))
        return out, sum(terms[1:], terms[0]) if terms else jnp.zeros_like(out)

    convolve.defjvp(derivative, symbolic_zeros=True)
    return convolve(lhs, rhs)


def _product(patches: jax.Array, rhs: jax.Array, options: dict[str, Any]) -> jax.Array:
    """The convolution of what each output sees, already side by side."""
    return jnp.dot(
        patches,
        rhs.reshape(-1, rhs.shape[-1]),
        precision=options.get("precision"),
        preferred_element_type=options.get("preferred_element_type"),
    )
