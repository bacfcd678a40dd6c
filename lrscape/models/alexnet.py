"""AlexNet: the ImageNet network of 2012."""

from __future__ import annotations

from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp

from lrscape.errors import InputError
from lrscape.models.convolution import conv_general_dilated
from lrscape.models.layers import check_dtype, local_response_norm, max_pool, wide

# The shortest side of an image of which the pools leave a pixel.
LEAST_SIDE = 36


class AlexNet(nn.Module):
    """The network of Krizhevsky et al. (2012).

    Convolutions of 11x11 with stride 4 to 96 channels, 5x5 to 256, and 3x3 to 384, 384
    and 256; the second, fourth and fifth in two groups that do not see each other. ReLU
    everywhere; response normalisation across 5 channels behind the first two; 3x3 pools
    with stride 2 behind these and the fifth; two dense layers with dropout of 0.5, and
    the last. 60,965,224 parameters with 1000 classes.

    The first convolution rounds up like the pools, as their cuda-convnet does: the last
    window goes on beyond the border, into zeros. Images of 224 x 224 and of 227 x 227
    so give the 55 x 55 of the paper; smaller ones fewer inputs of the dense layers.

    Response normalisation is that of the paper's text, whose sum over channels is not
    divided by their number; Caffe divides it, and pools before it normalises. Weights
    are drawn with deviation 0.01; biases start at 1 in the second, fourth and fifth
    convolution and the hidden dense layers, at 0 elsewhere.

    Attributes:
        num_classes: the number of outputs.
        dense: the width of each hidden dense layer.
        dtype: what hidden layers compute in, ``'float32'``, ``'bfloat16'`` or
            ``'float64'``; parameters are made in float32 in any case.

    References:
        Krizhevsky et al., `ImageNet Classification with Deep Convolutional Neural
        Networks <https://doi.org/10.1145/3065386>`_, 2012, Sec. 3, 4.2 and 5
    """

    num_classes: int
    dense: Sequence[int] = (4096, 4096)
    dtype: str = "float32"

    def __post_init__(self) -> None:
        check_dtype(self.dtype)
        super().__post_init__()

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """Maps images (n, height, width, channels) to logits (n, num_classes).

        Raises:
            InputError: images with a side of less than 36 pixels.
        """
        height, breadth = x.shape[1:3]
        if min(height, breadth) < LEAST_SIDE:
            raise InputError(
                f"images of {height} x {breadth} are too small for AlexNet: its pools "
                f"leave a pixel of {LEAST_SIDE} x {LEAST_SIDE} or more; enlarge them, "
                "or take a network made for small images ('small', 'nin', 'vgg11')"
            )
        init = nn.initializers.normal(0.01)

        def conv(
            x: jax.Array, features: int, size: int, *, groups: int = 1, bias: float = 0
        ) -> jax.Array:
            first = size == 11
            layer = nn.Conv(
                features,
                (size, size),
                strides=4 if first else 1,
                padding=[(0, (size - side) % 4) for side in x.shape[1:3]]
                if first
                else "SAME",
                feature_group_count=groups,
                kernel_init=init,
                bias_init=nn.initializers.constant(bias),
                dtype=jnp.dtype(self.dtype),
                conv_general_dilated=conv_general_dilated,
            )
            return nn.relu(layer(x))

        def normalized(x: jax.Array) -> jax.Array:
            # alpha = 1e-4 times the number of channels that it is divided by.
            return local_response_norm(x, axes=(3,), size=5, alpha=5e-4, bias=2.0)

        x = max_pool(normalized(conv(x, 96, 11)), 3, 2)
        x = max_pool(normalized(conv(x, 256, 5, groups=2, bias=1)), 3, 2)
        x = conv(x, 384, 3)
        x = conv(x, 384, 3, groups=2, bias=1)
        x = max_pool(conv(x, 256, 3, groups=2, bias=1), 3, 2)
        features = x = wide(x.reshape(x.shape[0], -1))
        for width in self.dense:
            layer = nn.Dense(
                width, kernel_init=init, bias_init=nn.initializers.ones,
                dtype=jnp.dtype(self.dtype),
            )  # fmt: skip
            features = wide(nn.relu(layer(x)))
            x = nn.Dropout(0.5, deterministic=not train)(features)
        self.sow("intermediates", "penultimate", features)
        return nn.Dense(self.num_classes, kernel_init=init)(x)
