"""A multilayer perceptron, and plain stacks of convolutions."""

from __future__ import annotations

from collections.abc import Sequence

import flax.linen as nn
import jax

from lrscape.errors import unknown_name
from lrscape.models.convolution import conv_general_dilated
from lrscape.models.layers import (
    average_pool,
    initializers,
    local_response_norm,
    max_pool,
)


class MLP(nn.Module):
    """Dense layers, each with batch norm and ReLU, and a dense output.

    The default widths are those of Xing et al. (2018): 784-500-350-10 on MNIST.

    Attributes:
        num_classes: the number of outputs.
        features: the width of each hidden layer.
        batch_norm: whether batch norm follows each hidden layer.
        axis_name: the mapped axis to synchronise batch norm over, if any.
        weight_init: how weights are drawn, see `lrscape.models.layers`.

    References:
        Xing et al., `A Walk with SGD <https://arxiv.org/abs/1802.08770>`_, 2018
    """

    num_classes: int
    features: Sequence[int] = (500, 350)
    batch_norm: bool = True
    axis_name: str | None = None
    weight_init: str = "fan_in"

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """Maps inputs (n, ...) to logits (n, num_classes)."""
        _, dense_init, output_init = initializers(self.weight_init)
        x = x.reshape(x.shape[0], -1)
        for width in self.features:
            x = nn.Dense(width, kernel_init=dense_init)(x)
            if self.batch_norm:
                x = nn.BatchNorm(
                    use_running_average=not train,
                    axis_name=self.axis_name,
                    momentum=0.9,
                )(x)
            x = nn.relu(x)
        self.sow("intermediates", "penultimate", x)
        return nn.Dense(self.num_classes, kernel_init=output_init)(x)


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
        weight_init: how weights are drawn, see `lrscape.models.layers`; the last
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
