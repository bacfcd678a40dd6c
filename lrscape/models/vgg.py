"""VGG-11 for small images: configuration A with batch norm."""

from __future__ import annotations

from collections.abc import Sequence

import flax.linen as nn
import jax

from lrscape.models.convolution import conv_general_dilated
from lrscape.models.initializers import initializers
from lrscape.models.pooling import max_pool

# Channels of each convolution, stage by stage; a maximum over 2x2 ends a stage.
A = ((64,), (128,), (256, 256), (512, 512), (512, 512))


class VGG(nn.Module):
    """The network of Simonyan and Zisserman (2014), with batch norm.

    3x3 convolutions, each with batch norm and ReLU, in five stages, and dense layers of
    512, 512 and `num_classes`: what is customary for images of 32 x 32.

    Attributes:
        num_classes: the number of outputs.
        stages: the channels of each stage's convolutions.
        dense: the width of each hidden dense layer.
        axis_name: the mapped axis to synchronise batch norm over, if any.
        weight_init: how weights are drawn, see `lrscape.models.initializers`.

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
