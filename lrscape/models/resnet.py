"""Residual networks for CIFAR: the first form, and the one with pre-activation."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from lrscape.errors import InputError, unknown_name
from lrscape.models.convolution import conv_general_dilated
from lrscape.models.layers import check_dtype, initializers

SHORTCUTS = ("A", "B")
BLOCKS = ("basic", "bottleneck")

# Layers a block of each kind, in each of three stages.
_LAYERS = {"basic": 2, "bottleneck": 3}


def blocks_per_stage(depth: int, block: str) -> int:
    """The number of blocks in each of the three stages.

    Raises:
        InputError: no whole number of blocks gives that depth.
    """
    if block not in BLOCKS:
        raise unknown_name("block", block, BLOCKS)
    period = 3 * _LAYERS[block]
    if depth < period + 2 or (depth - 2) % period:
        raise InputError(
            f"depth={depth} with block={block!r} must be {period} n + 2: "
            f"{period + 2}, {2 * period + 2}, {3 * period + 2} ..."
        )
    return (depth - 2) // period


class Layers(nn.Module):
    """The layers that residual networks share: convolutions and norms."""

    num_classes: int
    depth: int = 20
    dtype: str = "float32"
    axis_name: str | None = None
    weight_init: str = "fan_in"
    batch_norm: bool = True
    norm_momentum: float = 0.9
    norm_epsilon: float = 1e-5

    def __post_init__(self) -> None:
        check_dtype(self.dtype)
        super().__post_init__()

    def conv(self, features: int, size: int = 3, stride: int = 1) -> nn.Conv:
        """A convolution that keeps the sides, or divides them.

        It has a bias where no norm follows that would have one.
        """
        return nn.Conv(
            features,
            (size, size),
            strides=(stride, stride),
            padding=[(size // 2, size // 2)] * 2,
            use_bias=not self.batch_norm,
            kernel_init=initializers(self.weight_init)[0],
            dtype=jnp.dtype(self.dtype),
            conv_general_dilated=conv_general_dilated,
        )

    def norm(self, train: bool, name: str | None = None) -> Callable[[Any], Any]:
        """Batch norm by the batch in training, by running averages otherwise.

        Without batch norm it changes nothing.
        """
        if not self.batch_norm:
            return lambda x: x
        return nn.BatchNorm(
            use_running_average=not train,
            axis_name=self.axis_name,
            momentum=self.norm_momentum,
            epsilon=self.norm_epsilon,
            dtype=jnp.dtype(self.dtype),
            name=name,
        )

    def classify(self, x: jax.Array) -> jax.Array:
        """The mean over each map, and the dense layer."""
        x = x.mean(axis=(1, 2), dtype=jnp.promote_types(x.dtype, jnp.float32))
        self.sow("intermediates", "penultimate", x)
        # Logits are float32 at the least, whatever the convolutions compute in.
        output_init = initializers(self.weight_init)[2]
        return nn.Dense(self.num_classes, kernel_init=output_init)(x)


class ResNet(Layers):
    """The residual network of He et al. (2015) for CIFAR.

    A 3x3 convolution, three stages of n blocks of two 3x3 convolutions with 16, 32 and
    64 channels, the mean over each map, and a dense layer: 6n + 2 layers.

    Attributes:
        num_classes: the number of outputs.
        depth: 8, 20, 32, 44, 56, 110 ...
        dtype: what convolutions and norms compute in, ``'float32'``, ``'bfloat16'`` or
            ``'float64'``; parameters and statistics are made in float32 in any case.
        axis_name: the mapped axis to synchronise batch norm over, if any.
        weight_init: how weights are drawn, see `lrscape.models.layers`.
        batch_norm: whether there is any; without it convolutions have biases.
        norm_momentum: the share of batch norm's running averages that a batch leaves;
            Keras has 0.99.
        norm_epsilon: what batch norm adds to variances; Keras has 1e-3.
        shortcut: where a block changes shape: ``'A'`` takes every other pixel and pads
            channels with zeros, without parameters, as the paper does on CIFAR;
            ``'B'`` projects by a 1x1 convolution with batch norm.

    References:
        He et al., `Deep Residual Learning for Image Recognition
        <https://arxiv.org/abs/1512.03385>`_, 2015, Sec. 4.2
    """

    shortcut: str = "A"

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """Maps images (n, height, width, channels) to logits (n, num_classes)."""
        count = blocks_per_stage(self.depth, "basic")
        if self.shortcut not in SHORTCUTS:
            raise unknown_name("shortcut", self.shortcut, SHORTCUTS)
        x = nn.relu(self.norm(train)(self.conv(16)(x)))
        for stage, features in enumerate((16, 32, 64)):
            for block in range(count):
                stride = 2 if stage and not block else 1
                y = nn.relu(self.norm(train)(self.conv(features, stride=stride)(x)))
                y = self.norm(train)(self.conv(features)(y))
                x = nn.relu(y + self._shortcut(x, features, stride, train))
        return self.classify(x)

    def _shortcut(self, x, features, stride, train):
        if x.shape[-1] == features and stride == 1:
            return x
        if self.shortcut == "B":
            return self.norm(train)(self.conv(features, 1, stride)(x))
        x = x[:, ::stride, ::stride]
        return jnp.pad(x, ((0, 0), (0, 0), (0, 0), (0, features - x.shape[-1])))


class PreActResNet(Layers):
    """The residual network with pre-activation of He et al. (2016) for CIFAR.

    A 3x3 convolution, three stages of n blocks in which batch norm and ReLU come before
    each convolution, a last batch norm and ReLU, the mean over each map, and a dense
    layer. A block that changes shape projects its input by a 1x1 convolution.

    Attributes:
        num_classes: the number of outputs.
        depth: 6n + 2 with basic blocks, 9n + 2 with bottlenecks.
        dtype: what convolutions and norms compute in, ``'float32'``, ``'bfloat16'`` or
            ``'float64'``; parameters and statistics are made in float32 in any case.
        axis_name: the mapped axis to synchronise batch norm over, if any.
        weight_init: how weights are drawn, see `lrscape.models.layers`.
        batch_norm: whether there is any; without it convolutions have biases.
        norm_momentum: the share of batch norm's running averages that a batch leaves;
            Keras has 0.99.
        norm_epsilon: what batch norm adds to variances; Keras has 1e-3.
        block: ``'basic'``: two 3x3 convolutions with 16, 32, 64 channels;
            ``'bottleneck'``: 1x1, 3x3 and 1x1 with four times as many channels behind.

    References:
        He et al., `Identity Mappings in Deep Residual Networks
        <https://arxiv.org/abs/1603.05027>`_, 2016
    """

    block: str = "basic"

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """Maps images (n, height, width, channels) to logits (n, num_classes)."""
        count = blocks_per_stage(self.depth, self.block)
        widening = 4 if self.block == "bottleneck" else 1
        x = self.conv(16)(x)
        for stage, features in enumerate((16, 32, 64)):
            for block in range(count):
                stride = 2 if stage and not block else 1
                y = nn.relu(self.norm(train)(x))
                shortcut = x
                if x.shape[-1] != widening * features or stride != 1:
                    shortcut = self.conv(widening * features, 1, stride)(x)
                if self.block == "bottleneck":
                    y = self.conv(features, 1)(y)
                    y = nn.relu(self.norm(train)(y))
                y = self.conv(features, stride=stride)(y)
                y = nn.relu(self.norm(train)(y))
                last = 1 if self.block == "bottleneck" else 3
                y = self.conv(widening * features, last)(y)
                x = shortcut + y
        return self.classify(nn.relu(self.norm(train)(x)))


# The published depths by name. The two deepest with pre-activation have bottlenecks, as
# on CIFAR-10 and -100 in the field: 1.15 and 1.70 million parameters.
FACTORIES: dict[str, Any] = {
    **{
        f"resnet{depth}": functools.partial(ResNet, depth=depth)
        for depth in (8, 20, 32, 44, 56, 110)
    },
    **{
        f"preresnet{depth}": functools.partial(PreActResNet, depth=depth, block=block)
        for block, depths in {
            "basic": (20, 32, 44, 56),
            "bottleneck": (110, 164),
        }.items()
        for depth in depths
    },
}
