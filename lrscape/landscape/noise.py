"""Gradient noise: the variance of the gradients of batches."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np

from lrscape.errors import InputError
from lrscape.landscape import tree
from lrscape.landscape.accumulate import accumulate, batch_gradient
from lrscape.landscape.protocol import as_objective


def gradient_variance(objective: Any, point: Any) -> Any:
    r"""The variance of the batches' gradients, coordinate by coordinate.

    .. math::

        \frac{1}{1 - \sum_b w_b^2} \sum_b w_b\, (g_b - \bar g)^2

    with the gradient :math:`g_b` of batch b and its share :math:`w_b` of the examples.
    Without batch norm and over batches drawn at random it is the diagonal of the
    gradients' covariance over the batch size; the sum of its entries is the variance
    of mini-batch SGD's noise.

    Args:
        objective: made by `lrscape.landscape.flax_objective` or `mean_objective`, its
            batches those of SGD.
        point: where the gradients are taken.

    Returns:
        A tree like the point.

    Raises:
        InputError: an objective of a single batch.

    Example:
        >>> import jax.numpy as jnp
        >>> from lrscape.landscape import mean_objective
        >>> objective = mean_objective(
        ...     lambda w, x: jnp.mean(w * x), jnp.array([1.0, 3.0]), batch_size=1)
        >>> print(gradient_variance(objective, jnp.float32(0)))
        2.0

    References:
        Xing et al., `A Walk with SGD <https://arxiv.org/abs/1802.08770>`_, 2018, Eq. 2
    """
    objective = as_objective(objective)
    if objective.num_batches < 2:
        raise InputError(
            f"objective: its sample is {objective.num_batches} batch; a variance needs "
            "two or more: choose a smaller batch_size"
        )
    mean = accumulate(batch_gradient, objective, point)
    squares = accumulate(_squared_deviation, objective, point, mean)
    correction = 1 / (1 - float(np.sum(np.square(objective.weights))))
    return tree.scale(correction, squares)


def _squared_deviation(objective, point, batch, mean):
    gradient = batch_gradient(objective, point, batch)
    return jax.tree.map(lambda g, m: (g - m) ** 2, gradient, mean)
