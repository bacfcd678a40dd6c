"""A multilayer perceptron with batch norm."""

from __future__ import annotations

from collections.abc import Sequence

import flax.linen as nn
import jax

from lrscape.models.initializers import initializers


class MLP(nn.Module):
    """Dense layers, each with batch norm and ReLU, and a dense output.

    The default widths are those of Xing et al. (2018): 784-500-350-10 on MNIST.

    Attributes:
        num_classes: the number of outputs.
        features: the width of each hidden layer.
        batch_norm: whether batch norm follows each hidden layer.
        axis_name: the mapped axis to synchronise batch norm over, if any.
        weight_init: how weights are drawn, see `lrscape.models.initializers`.

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
