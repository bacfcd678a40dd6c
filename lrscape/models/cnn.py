"""A small convolutional network with batch norm, for digits and MNIST."""

from __future__ import annotations

from collections.abc import Sequence

import flax.linen as nn
import jax

from lrscape.models.convolution import conv_general_dilated
from lrscape.models.pooling import max_pool


class CNN(nn.Module):
    """Blocks of 3x3 convolution, 2x2 max-pool, batch norm and ReLU; two dense layers.

    Attributes:
        num_classes: the number of outputs.
        features: the channels of each block; each halves height and width.
        width: the width of the hidden dense layer.
        axis_name: the mapped axis to synchronise batch norm over, if any.
    """

    num_classes: int
    features: Sequence[int] = (32, 64)
    width: int = 128
    axis_name: str | None = None

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """Maps images (n, height, width, channels) to logits (n, num_classes)."""

        def norm_relu(x):
            norm = nn.BatchNorm(
                use_running_average=not train, axis_name=self.axis_name, momentum=0.9
            )
            return nn.relu(norm(x))

        he_normal = nn.initializers.he_normal()
        for channels in self.features:
            # The norm that follows has a bias of its own.
            x = nn.Conv(
                channels, (3, 3), use_bias=False, kernel_init=he_normal,
                conv_general_dilated=conv_general_dilated,
            )(x)  # fmt: skip
            x = norm_relu(max_pool(x, 2, 2))
        x = x.reshape(x.shape[0], -1)
        x = nn.Dense(self.width, use_bias=False, kernel_init=he_normal)(x)
        x = norm_relu(x)
        self.sow("intermediates", "penultimate", x)
        return nn.Dense(self.num_classes)(x)
