"""VGG for small images: configuration A with batch norm, D with dropout as well."""

from __future__ import annotations

from collections.abc import Sequence

import flax.linen as nn
import jax

from lrscape.errors import InputError
from lrscape.models.convolution import conv_general_dilated
from lrscape.models.layers import initializers, max_pool

# Channels of each convolution, stage by stage; a maximum over 2x2 ends a stage.
A = ((64,), (128,), (256, 256), (512, 512), (512, 512))
D = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))


class VGG(nn.Module):
    """The network of Simonyan and Zisserman (2014), with batch norm.

    3x3 convolutions, each with batch norm and ReLU, in five stages, and dense layers of
    512, 512 and `num_classes`: what is customary for images of 32 x 32.

    Attributes:
        num_classes: the number of outputs.
        stages: the channels of each stage's convolutions.
        dense: the width of each hidden dense layer.
        axis_name: the mapped axis to synchronise batch norm over, if any.
        weight_init: how weights are drawn, see `lrscape.models.layers`.

    References:
        Simonyan and Zisserman, `Very Deep Convolutional Networks for Large-Scale Image
        Recognition <https://arxiv.org/abs/1409.1556>`_, 2014, Table 1, A
        Xing et al., `A Walk with SGD <https://arxiv.org/abs/1802.08770>`_, 2018
    """

    num_classes: int
    stages: Sequence[Sequence[int]] = A
    dense: Sequence[int] = (512, 512)
    axis_name: str | None = None
    weight_init: str = "fan_in"

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """Maps images (n, height, width, channels) to logits (n, num_classes)."""
        conv_init, dense_init, _ = initializers(self.weight_init)
        for channels in self.stages:
            for features in channels:
                x = nn.Conv(
                    features,
                    (3, 3),
                    kernel_init=conv_init,
                    conv_general_dilated=conv_general_dilated,
                )(x)
                x = nn.BatchNorm(
                    use_running_average=not train,
                    axis_name=self.axis_name,
                    momentum=0.9,
                    epsilon=1e-5,
                )(x)
                x = nn.relu(x)
            x = max_pool(x, 2, 2)
        x = x.reshape(x.shape[0], -1)
        for width in self.dense:
            x = nn.relu(nn.Dense(width, kernel_init=dense_init)(x))
        self.sow("intermediates", "penultimate", x)
        return nn.Dense(self.num_classes, kernel_init=dense_init)(x)


class DropoutVGG(nn.Module):
    """Configuration D with dropout between its convolutions, for 32 x 32.

    Thirteen 3x3 convolutions, each with batch norm and ReLU, in five stages, and after
    all but the last of a stage dropout; a hidden dense layer with batch norm and ReLU
    between two dropouts of 0.5. 14,991,946 parameters on CIFAR-10.

    Attributes:
        num_classes: the number of outputs.
        stages: the channels of each stage's convolutions.
        dropout: the rate within each stage.
        dense: the width of the hidden dense layer.
        batch_norm: False leaves it out everywhere.
        axis_name: the mapped axis to synchronise batch norm over, if any.
        weight_init: how weights are drawn, see `lrscape.models.layers`.

    References:
        Im, Tao and Branson, `An empirical analysis of deep network loss surfaces
        <https://arxiv.org/abs/1612.04010>`_, 2016, Sec. 3.4, after the networks of
        `cifar.torch <https://github.com/szagoruyko/cifar.torch>`_
    """

    num_classes: int
    stages: Sequence[Sequence[int]] = D
    dropout: Sequence[float] = (0.3, 0.4, 0.4, 0.4, 0.4)
    dense: int = 512
    batch_norm: bool = True
    axis_name: str | None = None
    weight_init: str = "fan_out"

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """Maps images (n, height, width, channels) to logits (n, num_classes)."""
        check_rates(self.dropout, self.stages)
        conv_init, dense_init, _ = initializers(self.weight_init)

        def dropout(x: jax.Array, rate: float) -> jax.Array:
            return nn.Dropout(rate, deterministic=not train)(x)

        def norm_relu(x: jax.Array) -> jax.Array:
            if self.batch_norm:
                x = nn.BatchNorm(
                    use_running_average=not train,
                    axis_name=self.axis_name,
                    momentum=0.9,
                    epsilon=1e-3,
                )(x)
            return nn.relu(x)

        for channels, rate in zip(self.stages, self.dropout, strict=True):
            for n, features in enumerate(channels):
                if n:
                    x = dropout(x, rate)
                x = nn.Conv(
                    features,
                    (3, 3),
                    kernel_init=conv_init,
                    conv_general_dilated=conv_general_dilated,
                )(x)
                x = norm_relu(x)
            x = max_pool(x, 2, 2)
        x = dropout(x.reshape(x.shape[0], -1), 0.5)
        x = norm_relu(nn.Dense(self.dense, kernel_init=dense_init)(x))
        self.sow("intermediates", "penultimate", x)
        x = dropout(x, 0.5)
        return nn.Dense(self.num_classes, kernel_init=dense_init)(x)


def check_rates(dropout: Sequence[float], stages: Sequence[Sequence[int]]) -> None:
    """Raises InputError unless there is a rate of dropout for each stage."""
    if len(dropout) != len(stages):
        raise InputError(
            f"dropout={tuple(dropout)} must have a rate for each of the {len(stages)} "
            "stages"
        )
