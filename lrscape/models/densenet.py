"""Densely connected networks for CIFAR, plain and with bottlenecks and compression."""

from __future__ import annotations

import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from lrscape.errors import InputError
from lrscape.models.convolution import conv_general_dilated
from lrscape.models.layers import average_pool

# A transition of the compressed form keeps this share of the channels.
COMPRESSION = 0.5


def layers_per_block(depth: int, bottleneck: bool) -> int:
    """The number of layers in each of the three blocks.

    Raises:
        InputError: no whole number of layers gives that depth.
    """
    period = 6 if bottleneck else 3
    if depth < period + 4 or (depth - 4) % period:
        raise InputError(
            f"depth={depth} with bottleneck={bottleneck} must be {period} n + 4: "
            f"{period + 4}, {2 * period + 4}, {3 * period + 4} ..."
        )
    return (depth - 4) // period


class DenseNet(nn.Module):
    """The network of Huang et al. (2017) for CIFAR.

    A 3x3 convolution, three blocks in which each layer adds `growth` channels to those
    of all layers before it, transitions with average pools between them, the mean over
    each map, and a dense layer. Batch norm and ReLU come before each convolution.

    Attributes:
        num_classes: the number of outputs.
        depth: 3n + 4, with bottlenecks 6n + 4: 40, 100, 190 ...
        growth: channels that a layer adds.
        bottleneck: DenseNet-BC: a 1x1 convolution to four times `growth` before each
            3x3 one, transitions that halve the channels, and twice `growth` channels at
            first rather than 16.
        dropout: the rate after each convolution but the first; 0.2 in the paper where
            images are not augmented.
        axis_name: the mapped axis to synchronise batch norm over, if any.

    References:
        Huang et al., `Densely Connected Convolutional Networks
        <https://arxiv.org/abs/1608.06993>`_, 2017, Sec. 3
    """

    num_classes: int
    depth: int = 40
    growth: int = 12
    bottleneck: bool = False
    dropout: float = 0.0
    axis_name: str | None = None

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """Maps images (n, height, width, channels) to logits (n, num_classes)."""
        count = layers_per_block(self.depth, self.bottleneck)

        def conv(x: jax.Array, features: int, size: int) -> jax.Array:
            return nn.Conv(
                features, (size, size), use_bias=False,
                kernel_init=nn.initializers.he_normal(),
                conv_general_dilated=conv_general_dilated,
            )(x)  # fmt: skip

        def norm_relu(x: jax.Array) -> jax.Array:
            norm = nn.BatchNorm(
                use_running_average=not train, axis_name=self.axis_name, momentum=0.9,
                epsilon=1e-5,
            )  # fmt: skip
            return nn.relu(norm(x))

        def dropped(x: jax.Array) -> jax.Array:
            return nn.Dropout(self.dropout, deterministic=not train)(x)

        x = conv(x, 2 * self.growth if self.bottleneck else 16, 3)
        for block in range(3):
            for _ in range(count):
                y = norm_relu(x)
                if self.bottleneck:
                    y = norm_relu(dropped(conv(y, 4 * self.growth, 1)))
                y = dropped(conv(y, self.growth, 3))
                x = jnp.concatenate([x, y], axis=-1)
            if block < 2:
                kept = x.shape[-1]
                kept = int(COMPRESSION * kept) if self.bottleneck else kept
                x = average_pool(dropped(conv(norm_relu(x), kept, 1)), 2, 2)
        x = norm_relu(x).mean(axis=(1, 2))
        self.sow("intermediates", "penultimate", x)
        return nn.Dense(self.num_classes)(x)


# The published ones: (40, 12), BC (100, 12) and BC (190, 40).
FACTORIES: dict[str, Any] = {
    "densenet40": functools.partial(DenseNet, depth=40, growth=12),
    "densenet100": functools.partial(DenseNet, depth=100, growth=12, bottleneck=True),
    "densenet190": functools.partial(DenseNet, depth=190, growth=40, bottleneck=True),
}
