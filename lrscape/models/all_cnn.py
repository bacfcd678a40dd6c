"""All-CNN-C for CIFAR: convolutions only, those of stride 2 in place of pools."""

from __future__ import annotations

import flax.linen as nn
import jax

from lrscape.models.convolution import conv_general_dilated
from lrscape.models.initializers import initializers


class AllCNN(nn.Module):
    """The network All-CNN-C of Springenberg et al. (2014).

    3x3 convolutions with 96, 96 and 96 channels, three with 192, the third of each
    with stride 2, then a 3x3 and a 1x1 convolution with 192 and a 1x1 one with
    `num_classes`, each with ReLU, and the mean over each map. Dropout takes 0.2 of the
    input and 0.5 after each stride. There is no batch norm. 1,369,738 parameters on
    CIFAR-10.

    The paper's mean is over 6 x 6 pixels, so the last 3x3 convolution is not padded and
    all others are; maps smaller than 3 x 3, from images below 9 x 9, are padded. The
    paper lists a ReLU after the last convolution too: logits are means of what is not
    negative. The penultimate features are therefore the maps (n, 6, 6, 192) that enter
    the last convolution; their means would not determine the logits.

    It was trained on images that were contrast-normalised and whitened
    (``normalize='whiten'``), by SGD with momentum 0.9 and weight decay 0.001, at the
    best of the rates 0.25, 0.1, 0.05 and 0.01, divided by ten after epochs 200, 250 and
    300 of 350. Batch size and initial weights are not published.

    Attributes:
        num_classes: the number of outputs.
        weight_init: how weights are drawn, see `lrscape.models.initializers`; the last
            layer too is drawn as a convolution.
        final_relu: whether the last layer has its ReLU, as published; it may shut off
            every output for good where rates are high.

    References:
        Springenberg et al., `Striving for Simplicity: The All Convolutional Net
        <https://arxiv.org/abs/1412.6806>`_, 2014, Tables 1 and 2
    """

    num_classes: int
    weight_init: str = "fan_in"
    final_relu: bool = True

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """Maps images (n, height, width, channels) to logits (n, num_classes)."""
        init = initializers(self.weight_init)[0]

        def conv(
            x: jax.Array, features: int, size: int = 3, stride: int = 1,
            padding: str = "SAME", relu: bool = True,
        ) -> jax.Array:  # fmt: skip
            # Symmetric, where SAME would pad a stride behind only.
            pixels = padding if stride == 1 else [(size // 2, size // 2)] * 2
            layer = nn.Conv(
                features, (size, size), strides=(stride, stride), padding=pixels,
                kernel_init=init, conv_general_dilated=conv_general_dilated,
            )  # fmt: skip
            return nn.relu(layer(x)) if relu else layer(x)

        def drop(x: jax.Array, rate: float) -> jax.Array:
            return nn.Dropout(rate, deterministic=not train)(x)

        x = drop(x, 0.2)
        for features in (96, 192):
            x = conv(conv(x, features), features)
            x = drop(conv(x, features, stride=2), 0.5)
        x = conv(x, 192, padding="VALID" if min(x.shape[1:3]) >= 3 else "SAME")
        x = conv(x, 192, size=1)
        self.sow("intermediates", "penultimate", x)
        x = conv(x, self.num_classes, size=1, relu=self.final_relu)
        return x.mean(axis=(1, 2))
