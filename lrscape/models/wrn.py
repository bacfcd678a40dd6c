"""Wide residual networks for CIFAR."""

from __future__ import annotations

import functools
from typing import Any

import flax.linen as nn
import jax

from lrscape.errors import InputError
from lrscape.models.resnet import Layers


class WideResNet(Layers):
    """The network of Zagoruyko and Komodakis (2016) for CIFAR.

    A 3x3 convolution to 16 channels, three stages of n blocks of two 3x3 convolutions
    with 16, 32 and 64 times `widen` channels, batch norm and ReLU before each, a last
    batch norm and ReLU, the mean over each map, and a dense layer: 6n + 4 layers, with
    the 1x1 convolutions that project where a block changes shape. As the authors
    defined it these project what the block has normalised, unlike those of
    `lrscape.models.PreActResNet`. 36.5 million parameters with 28 layers ten times
    as wide.

    Attributes:
        num_classes: the number of outputs.
        depth: 6n + 4: 10, 16, 22, 28, 40 ...
        dtype: what convolutions and norms compute in, ``'float32'``, ``'bfloat16'`` or
            ``'float64'``; parameters and statistics are made in float32 in any case.
        axis_name: the mapped axis to synchronise batch norm over, if any.
        weight_init: how weights are drawn, see `lrscape.models.layers`; theirs is
            ``'fan_out'``.
        widen: how many times as wide as a residual network each stage is.
        dropout: the rate between the two convolutions of a block; 0.3 in what they call
            "dropout", without which the rate is 0.

    References:
        Zagoruyko and Komodakis, `Wide Residual Networks
        <https://arxiv.org/abs/1605.07146>`_, 2016, Sec. 2, and their published code
    """

    depth: int = 28
    weight_init: str = "fan_out"
    widen: int = 10
    dropout: float = 0.0

    def __post_init__(self) -> None:
        """Refuses what no network has.

        Raises:
            InputError: a depth other than 6n + 4, no width, an unknown dtype.
        """
        if self.depth < 10 or (self.depth - 4) % 6:
            raise InputError(f"depth={self.depth} must be 6 n + 4: 10, 16, 22, 28 ...")
        if self.widen < 1:
            raise InputError(f"widen={self.widen} must be 1 or more")
        super().__post_init__()

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """Maps images (n, height, width, channels) to logits (n, num_classes)."""
        x = self.conv(16)(x)
        for stage, width in enumerate((16, 32, 64)):
            features = self.widen * width
            for block in range((self.depth - 4) // 6):
                stride = 2 if stage and not block else 1
                y = nn.relu(self.norm(train)(x))
                shortcut = x
                if x.shape[-1] != features or stride != 1:
                    shortcut = self.conv(features, 1, stride)(y)
                y = self.conv(features, stride=stride)(y)
                y = nn.relu(self.norm(train)(y))
                y = nn.Dropout(self.dropout, deterministic=not train)(y)
                x = shortcut + self.conv(features)(y)
        return self.classify(nn.relu(self.norm(train)(x)))


# With the dropout that paper and experiments give it.
FACTORIES: dict[str, Any] = {
    "wrn28_10": functools.partial(WideResNet, depth=28, widen=10, dropout=0.3)
}
