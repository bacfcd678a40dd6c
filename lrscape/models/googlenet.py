"""GoogLeNet: the Inception network of 2014, with its auxiliary classifiers."""

from __future__ import annotations

from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp

from lrscape.models.convolution import conv_general_dilated
from lrscape.models.layers import (
    average_pool,
    check_dtype,
    local_response_norm,
    max_pool,
    wide,
)

# Of each module the channels of its 1x1 convolution, of the 3x3 one's reduction and
# itself, of the 5x5 one's reduction and itself, and of the projection behind its pool.
Module = tuple[str, Sequence[int]]
MODULES: tuple[Module, ...] = (
    ("3a", (64, 96, 128, 16, 32, 32)),
    ("3b", (128, 128, 192, 32, 96, 64)),
    ("4a", (192, 96, 208, 16, 48, 64)),
    ("4b", (160, 112, 224, 24, 64, 64)),
    ("4c", (128, 128, 256, 24, 64, 64)),
    ("4d", (112, 144, 288, 32, 64, 64)),
    ("4e", (256, 160, 320, 32, 128, 128)),
    ("5a", (256, 160, 320, 32, 128, 128)),
    ("5b", (384, 192, 384, 48, 128, 128)),
)


class GoogLeNet(nn.Module):
    """The network of Szegedy et al. (2014).

    A 7x7 convolution with stride 2, a 1x1 and a 3x3 one, nine modules that set
    convolutions of 1x1, 3x3 and 5x5 and a pool side by side, the mean over each map,
    dropout of 0.4 and a dense layer; 3x3 pools with stride 2 behind the first and the
    third convolution and before the modules 4a and 5a; response normalisation across 5
    channels behind the first pool and before the second. Every side is halved with
    rounding up, so that images may have any size.

    In training two auxiliary classifiers see what leaves the modules 4a and 4d: 5x5
    average pools with stride 3 (over the whole map if that is smaller), a 1x1
    convolution to 128 channels, a dense layer of 1024, dropout of 0.7, and a dense
    layer, whose logits are sown as ``auxiliary``. `lrscape.training.fit` adds
    `auxiliary_weight` times the cross entropy of each to the loss that it minimises
    and logs. Evaluation and `lrscape.landscape` measure that of the logits alone.

    With 1000 classes 6,998,552 parameters, and 6,379,728 more in the auxiliary
    classifiers. The paper does not say how weights are drawn, nor the constants of the
    response normalisation: both are those of the definition published with Caffe.

    Attributes:
        num_classes: the number of outputs.
        modules: the name of each module and the channels of its layers.
        auxiliary_weight: how much an auxiliary classifier's loss counts.
        dtype: what hidden layers compute in, ``'float32'``, ``'bfloat16'`` or
            ``'float64'``; parameters are made in float32 in any case.

    References:
        Szegedy et al., `Going Deeper with Convolutions
        <https://arxiv.org/abs/1409.4842>`_, 2014, Table 1 and Sec. 5
    """

    num_classes: int
    modules: Sequence[Module] = MODULES
    auxiliary_weight: float = 0.3
    dtype: str = "float32"

    def __post_init__(self) -> None:
        check_dtype(self.dtype)
        super().__post_init__()

    def conv(
        self, x: jax.Array, features: int, size: int, name: str, stride: int = 1
    ) -> jax.Array:
        """A convolution with ReLU."""
        layer = nn.Conv(
            features, (size, size), strides=stride, name=name,
            kernel_init=nn.initializers.lecun_uniform(),
            bias_init=nn.initializers.constant(0.2),
            dtype=jnp.dtype(self.dtype), conv_general_dilated=conv_general_dilated,
        )  # fmt: skip
        return nn.relu(layer(x))

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """Maps images (n, height, width, channels) to logits (n, num_classes)."""
        x = max_pool(self.conv(x, 64, 7, "conv1", stride=2), 3, 2, same=True)
        x = _response_norm(x)
        x = self.conv(x, 64, 1, "conv2_reduce")
        x = _response_norm(self.conv(x, 192, 3, "conv2"))
        x = max_pool(x, 3, 2, same=True)
        for name, widths in self.modules:
            if name in ("4a", "5a"):
                x = max_pool(x, 3, 2, same=True)
            x = self._inception(x, name, widths)
            # Initialised in any case, so that a network has all its parameters.
            if name in ("4a", "4d") and (train or self.is_initializing()):
                logits = self._auxiliary(x, f"auxiliary_{name}", train)
                self.sow("intermediates", "auxiliary", logits)
        x = wide(x).mean(axis=(1, 2))
        self.sow("intermediates", "penultimate", x)
        x = nn.Dropout(0.4, deterministic=not train)(x)
        return self._classify(x, "classifier")

    def _inception(self, x: jax.Array, name: str, widths: Sequence[int]) -> jax.Array:
        one, reduced_3, three, reduced_5, five, projected = widths
        name = f"inception_{name}"
        return jnp.concatenate(
            [
                self.conv(x, one, 1, f"{name}_1x1"),
                self.conv(
                    self.conv(x, reduced_3, 1, f"{name}_3x3_reduce"),
                    three, 3, f"{name}_3x3",
                ),
                self.conv(
                    self.conv(x, reduced_5, 1, f"{name}_5x5_reduce"),
                    five, 5, f"{name}_5x5",
                ),
                self.conv(
                    max_pool(x, 3, 1, same=True), projected, 1, f"{name}_pool",
                ),
            ],
            axis=-1,
        )  # fmt: skip

    def _auxiliary(self, x: jax.Array, name: str, train: bool) -> jax.Array:
        x = average_pool(x, min(5, *x.shape[1:3]), 3)
        x = self.conv(x, 128, 1, f"{name}_conv")
        x = x.reshape(x.shape[0], -1)
        hidden = nn.Dense(
            1024, name=f"{name}_dense", kernel_init=nn.initializers.lecun_uniform(),
            bias_init=nn.initializers.constant(0.2), dtype=jnp.dtype(self.dtype),
        )  # fmt: skip
        x = nn.Dropout(0.7, deterministic=not train)(nn.relu(hidden(x)))
        return self._classify(wide(x), f"{name}_classifier")

    def _classify(self, x: jax.Array, name: str) -> jax.Array:
        init = nn.initializers.lecun_uniform()
        return nn.Dense(self.num_classes, kernel_init=init, name=name)(x)


def _response_norm(x: jax.Array) -> jax.Array:
    return local_response_norm(x, axes=(3,), size=5, alpha=1e-4)
