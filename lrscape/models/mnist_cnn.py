"""The convolutional network for MNIST of the paper on the Lipschitz rate."""

from __future__ import annotations

import flax.linen as nn
import jax

from lrscape.models.convolution import conv_general_dilated
from lrscape.models.pooling import max_pool


class MnistCNN(nn.Module):
    """Five 3x3 convolutions, two max-pools, a dense layer with batch norm, dropout.

    730,602 numbers on 28 x 28 images with one channel, batch norm's running averages
    among them: 730,346 parameters are trained. Batch norm and initial weights are those
    of Keras, in which the paper was made: Glorot's uniform, momentum 0.99, epsilon
    1e-3.

    Attributes:
        num_classes: the number of outputs.
        axis_name: the mapped axis to synchronise batch norm over, if any.

    References:
        Yedida and Saha, `A novel adaptive learning rate scheduler for deep neural
        networks <https://arxiv.org/abs/1902.07399>`_, 2019, Table 1
    """

    num_classes: int
    axis_name: str | None = None

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """Maps images (n, height, width, channels) to logits (n, num_classes)."""
        glorot = nn.initializers.glorot_uniform()

        def conv(x: jax.Array, features: int, padding: str) -> jax.Array:
            layer = nn.Conv(
                features, (3, 3), padding=padding, kernel_init=glorot,
                conv_general_dilated=conv_general_dilated,
            )  # fmt: skip
            return nn.relu(layer(x))

        def drop(x: jax.Array, rate: float) -> jax.Array:
            return nn.Dropout(rate, deterministic=not train)(x)

        x = conv(conv(x, 32, "VALID"), 32, "VALID")
        x = drop(max_pool(x, 2, 2), 0.2)
        x = conv(conv(x, 64, "SAME"), 64, "SAME")
        x = drop(max_pool(x, 2, 2), 0.25)
        x = drop(conv(x, 128, "SAME"), 0.25)
        x = x.reshape(x.shape[0], -1)
        x = nn.relu(nn.Dense(128, kernel_init=glorot)(x))
        x = nn.BatchNorm(
            use_running_average=not train, axis_name=self.axis_name, momentum=0.99,
            epsilon=1e-3,
        )(x)  # fmt: skip
        self.sow("intermediates", "penultimate", x)
        return nn.Dense(self.num_classes, kernel_init=glorot)(drop(x, 0.25))
