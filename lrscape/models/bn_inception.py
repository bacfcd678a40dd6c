"""The Inception network with batch norm of 2015."""

from __future__ import annotations

from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp

from lrscape.models.convolution import conv_general_dilated
from lrscape.models.layers import average_pool, check_dtype, max_pool, wide

# Of each module the channels of its 1x1 convolution, of the 3x3 one's reduction and
# itself, of the double 3x3 one's reduction and each of the two, its pool, and the
# channels of the projection behind that. Without a projection the pool is passed
# through and all branches have stride 2.
Module = tuple[str, Sequence[int], str, int]
MODULES: tuple[Module, ...] = (
    ("3a", (64, 64, 64, 64, 96), "average", 32),
    ("3b", (64, 64, 96, 64, 96), "average", 64),
    ("3c", (0, 128, 160, 64, 96), "max", 0),
    ("4a", (224, 64, 96, 96, 128), "average", 128),
    ("4b", (192, 96, 128, 96, 128), "average", 128),
    ("4c", (160, 128, 160, 128, 160), "average", 96),
    ("4d", (96, 128, 192, 160, 192), "average", 96),
    ("4e", (0, 128, 192, 192, 256), "max", 0),
    ("5a", (352, 192, 320, 160, 224), "average", 128),
    ("5b", (352, 192, 320, 192, 224), "max", 128),
)
POOLS = {"max": max_pool, "average": average_pool}


class BNInception(nn.Module):
    """The network of Ioffe and Szegedy (2015).

    A 7x7 convolution with stride 2, a 1x1 and a 3x3 one, the first and the last with a
    3x3 pool with stride 2 behind them, and ten modules that set a 1x1 convolution, a
    3x3 one, two 3x3 ones and a pool side by side; two of the modules halve the sides.
    Then the mean over each map and a dense layer. Batch norm comes before every ReLU,
    convolutions have no bias, and there is neither dropout nor response normalisation.
    Every side is halved with rounding up, so that images may have any size.

    The first convolution is separable: 8 filters for each of the image's channels, then
    a 1x1 convolution, without anything between them. It is computed as the one 7x7
    convolution that the two amount to, which is the faster form on CPU.

    11,188,288 parameters with 1000 classes; the paper's text counts 13.6 million, which
    its own table does not add up to. Ports in other frameworks
    have a plain first convolution (`separable` False), and some 128 channels rather
    than 96 behind the pools of 4c and 4d. How weights are drawn was not published: here
    as He et al. (2015) do.

    Attributes:
        num_classes: the number of outputs.
        modules: the name of each module, the channels of its layers, its pool and the
            channels of its pool's projection.
        separable: whether the first convolution is.
        axis_name: the mapped axis to synchronise batch norm over, if any.
        dtype: what convolutions and norms compute in, ``'float32'``, ``'bfloat16'`` or
            ``'float64'``; parameters and statistics are made in float32 in any case.

    References:
        Ioffe and Szegedy, `Batch Normalization: Accelerating Deep Network Training by
        Reducing Internal Covariate Shift <https://arxiv.org/abs/1502.03167>`_, 2015,
        Fig. 5 and Sec. 4.2
    """

    num_classes: int
    modules: Sequence[Module] = MODULES
    separable: bool = True
    axis_name: str | None = None
    dtype: str = "float32"

    def __post_init__(self) -> None:
        check_dtype(self.dtype)
        super().__post_init__()

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """Maps images (n, height, width, channels) to logits (n, num_classes)."""
        dtype = jnp.dtype(self.dtype)

        def norm_relu(x: jax.Array, name: str) -> jax.Array:
            norm = nn.BatchNorm(
                use_running_average=not train, axis_name=self.axis_name, momentum=0.9,
                epsilon=1e-5, dtype=dtype, name=f"{name}_norm",
            )  # fmt: skip
            return nn.relu(norm(x))

        def conv(
            x: jax.Array, features: int, size: int, name: str, stride: int = 1
        ) -> jax.Array:
            layer = nn.Conv(
                features, (size, size), strides=stride, use_bias=False, name=name,
                kernel_init=nn.initializers.he_normal(), dtype=dtype,
                conv_general_dilated=conv_general_dilated,
            )  # fmt: skip
            return norm_relu(layer(x), name)

        def inception(
            x: jax.Array, name: str, widths: Sequence[int], pool: str, projected: int
        ) -> jax.Array:
            one, reduced, three, reduced_twice, double = widths
            name = f"inception_{name}"
            stride = 1 if projected else 2
            y = conv(x, reduced, 1, f"{name}_3x3_reduce")
            z = conv(x, reduced_twice, 1, f"{name}_double_reduce")
            z = conv(z, double, 3, f"{name}_double_1")
            pooled = POOLS[pool](x, 3, stride, same=True)
            branches = [
                conv(y, three, 3, f"{name}_3x3", stride),
                conv(z, double, 3, f"{name}_double_2", stride),
                conv(pooled, projected, 1, f"{name}_pool") if projected else pooled,
            ]
            if one:
                branches.insert(0, conv(x, one, 1, f"{name}_1x1"))
            return jnp.concatenate(branches, axis=-1)

        if self.separable:
            x = norm_relu(Separable(64, dtype=self.dtype, name="conv1")(x), "conv1")
        else:
            x = conv(x, 64, 7, "conv1", 2)
        x = conv(max_pool(x, 3, 2, same=True), 64, 1, "conv2_reduce")
        x = max_pool(conv(x, 192, 3, "conv2"), 3, 2, same=True)
        for name, widths, pool, projected in self.modules:
            x = inception(x, name, widths, pool, projected)
        x = wide(x).mean(axis=(1, 2))
        self.sow("intermediates", "penultimate", x)
        return nn.Dense(self.num_classes, name="classifier")(x)


class Separable(nn.Module):
    """A 7x7 convolution with stride 2 of each channel, then a 1x1 one, without bias.

    Attributes:
        features: the number of maps that leave it.
        multiplier: how many filters each channel has.
        dtype: what it computes in.
    """

    features: int
    multiplier: int = 8
    dtype: str = "float32"

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps (n, height, width, channels) to (n, height / 2, ..., features)."""
        channels = x.shape[-1]
        depthwise = self.param(
            "depthwise",
            nn.initializers.lecun_normal((0, 1), 3, batch_axis=2),
            (7, 7, channels, self.multiplier),
        )
        pointwise = self.param(
            "pointwise",
            nn.initializers.he_normal((0, 1), 2),
            (channels, self.multiplier, self.features),
        )
        # Both are linear and nothing stands between them: one kernel does the same.
        kernel = jnp.einsum("hwcm,cmf->hwcf", depthwise, pointwise)
        dtype = jnp.dtype(self.dtype)
        return jax.lax.conv_general_dilated(
            x.astype(dtype),
            kernel.astype(dtype),
            (2, 2),
            "SAME",
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )
