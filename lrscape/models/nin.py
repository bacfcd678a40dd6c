"""Network in Network for CIFAR and MNIST: convolutions followed by 1x1 ones."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax

from lrscape.errors import unknown_name
from lrscape.models.convolution import conv_general_dilated
from lrscape.models.layers import average_pool, max_pool

INITIALIZERS = ("published", "he")
POOLS = {"max": max_pool, "average": average_pool}

# Of each stage the side of its convolution, its channels, and those of the 1x1
# convolutions behind it; the last of all has as many as there are classes.
Stage = tuple[int, Sequence[int]]
CIFAR: tuple[Stage, ...] = ((5, (192, 160, 96)), (5, (192, 192, 192)), (3, (192, 192)))
MNIST: tuple[Stage, ...] = ((5, (96, 64, 48)), (5, (128, 96, 48)), (5, (128, 96)))


class NIN(nn.Module):
    """The network of Lin et al. (2013), as its authors defined it.

    Three stages of a convolution and two 1x1 convolutions, each with ReLU, the last one
    too, so that logits are not negative; after the first two stages a 3x3 pool with
    stride 2, which rounds up, and dropout of 0.5; at the end the mean over each map.
    There is no batch norm unless asked for, before each ReLU. 966,986 parameters on
    CIFAR-10 without it, and 349,674 with the smaller stages for MNIST.

    The penultimate features are the maps (n, 8, 8, 192) that enter the last
    convolution: its ReLU comes before the mean, so means of the maps would not
    determine the logits.

    On CIFAR it was trained on images that were contrast-normalised and whitened
    (``normalize='whiten'``), in batches of 128, by SGD with momentum 0.9, with ten-fold
    drops after 200 and 230 of 260 epochs. The authors' parameters
    for CIFAR-100 are a rate of 0.01 (biases 0.02) times a loss that counts twice, and
    weight decay 0.001 in every layer. Their later definition in Caffe averages in the
    second pool and takes the rate 0.1 (biases twice, last layer a tenth of it) and
    weight decay 0.0001 (biases none).

    Where the last layer trains as fast as the others, its ReLU may shut off every
    output for good: the loss is then the logarithm of the number of classes and the
    gradient 0. `final_relu` guards against it.

    ``nin_bn`` is the variant of Im et al.: batch norm, and an average in the second
    pool; without its batch norm it is their other one.

    Attributes:
        num_classes: the number of outputs.
        stages: the side of each stage's convolution and the channels of its layers; the
            last layer is not listed.
        second_pool: ``'max'`` as in the paper, or ``'average'`` as in Caffe.
        initializer: ``'published'`` draws weights with deviation 0.05; ``'he'`` by
            their number of inputs.
        final_relu: whether the last layer has its ReLU, as published.
        batch_norm: normalises each layer before its ReLU, the last one too.
        axis_name: the mapped axis to synchronise batch norm over, if any.

    References:
        Lin et al., `Network In Network <https://arxiv.org/abs/1312.4400>`_, 2013, and
        the layer definitions published with `the authors' cuda-convnet
        <https://github.com/mavenlin/cuda-convnet>`_
        Im, Tao and Branson, `An empirical analysis of deep network loss surfaces
        <https://arxiv.org/abs/1612.04010>`_, 2016, Sec. 3.4, after the networks of
        `cifar.torch <https://github.com/szagoruyko/cifar.torch>`_
    """

    num_classes: int
    stages: Sequence[Stage] = CIFAR
    second_pool: str = "max"
    initializer: str = "published"
    final_relu: bool = True
    batch_norm: bool = False
    axis_name: str | None = None

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """Maps images (n, height, width, channels) to logits (n, num_classes)."""
        if self.initializer not in INITIALIZERS:
            raise unknown_name("initializer", self.initializer, INITIALIZERS)
        if self.second_pool not in POOLS:
            raise unknown_name("second_pool", self.second_pool, POOLS)
        init = (
            nn.initializers.he_normal()
            if self.initializer == "he"
            else nn.initializers.normal(0.05)
        )

        def conv(x: jax.Array, features: int, size: int = 1) -> jax.Array:
            layer = nn.Conv(
                features, (size, size), kernel_init=init,
                conv_general_dilated=conv_general_dilated,
            )  # fmt: skip
            x = layer(x)
            if self.batch_norm:
                x = nn.BatchNorm(
                    use_running_average=not train,
                    axis_name=self.axis_name,
                    momentum=0.9,
                    epsilon=1e-3,
                )(x)
            return x

        for number, (size, (features, *widths)) in enumerate(self.stages):
            if number:
                pool = POOLS[self.second_pool] if number == 2 else max_pool
                x = nn.Dropout(0.5, deterministic=not train)(pool(x, 3, 2))
            x = nn.relu(conv(x, features, size))
            for width in widths:
                x = nn.relu(conv(x, width))
        self.sow("intermediates", "penultimate", x)
        x = conv(x, self.num_classes)
        return (nn.relu(x) if self.final_relu else x).mean(axis=(1, 2))


FACTORIES: dict[str, Any] = {
    "nin": NIN,
    "nin_mnist": functools.partial(NIN, stages=MNIST),
    "nin_bn": functools.partial(NIN, batch_norm=True, second_pool="average"),
}
