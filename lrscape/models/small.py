"""The small model of Seong et al. (2018): cuda-convnet's "18 %" CIFAR-10 network."""

from __future__ import annotations

import flax.linen as nn
import jax

from lrscape.errors import unknown_name
from lrscape.models.convolution import conv_general_dilated
from lrscape.models.pooling import average_pool, max_pool
from lrscape.models.response_norm import local_response_norm

INITIALIZERS = ("published", "he")


class Small(nn.Module):
    """Three 5x5 convolutions with pooling and within-map normalisation.

    conv 32, max-pool, ReLU, LRN; conv 32, ReLU, average-pool, LRN; conv 64, ReLU,
    average-pool; dense. Pools are 3x3 with stride 2 and round up. 89,578 parameters on
    CIFAR-10.

    Attributes:
        num_classes: the number of outputs.
        initializer: ``'published'`` draws weights with deviation 1e-4 (first layer) and
            0.01, meant for pixels on their scale of 0 to 255, from which the mean image
            is subtracted; ``'he'`` is for standardised pixels and few epochs.

    References:
        Krizhevsky et al., `ImageNet Classification with Deep Convolutional Neural
        Networks <https://doi.org/10.1145/3065386>`_, 2012, and the layer definitions
        published with cuda-convnet
    """

    num_classes: int
    initializer: str = "published"

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """Maps images (n, height, width, channels) to logits (n, num_classes)."""
        del train  # nothing here behaves otherwise in training
        if self.initializer not in INITIALIZERS:
            raise unknown_name("initializer", self.initializer, INITIALIZERS)

        def weights(deviation):
            if self.initializer == "he":
                return nn.initializers.he_normal()
            return nn.initializers.normal(deviation)

        def conv(features, deviation):
            return nn.Conv(
                features, (5, 5), kernel_init=weights(deviation),
                conv_general_dilated=conv_general_dilated,
            )  # fmt: skip

        x = nn.relu(max_pool(conv(32, 1e-4)(x), 3, 2))
        x = local_response_norm(x)
        x = average_pool(nn.relu(conv(32, 0.01)(x)), 3, 2)
        x = local_response_norm(x)
        x = average_pool(nn.relu(conv(64, 0.01)(x)), 3, 2)
        x = x.reshape(x.shape[0], -1)
        self.sow("intermediates", "penultimate", x)
        return nn.Dense(self.num_classes, kernel_init=weights(0.01))(x)
