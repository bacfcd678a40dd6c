"""Batch norm's statistics estimated anew, for weights that no training step made."""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import numpy as np

from lrscape import checks
from lrscape.errors import InputError
from lrscape.landscape.flax_objective import flax_objective
from lrscape.landscape.model_objective import check_weights


def recalibrate(model: nn.Module, params: Any, inputs: Any, *, batch_size: int) -> Any:
    """The batch statistics that a model's batch norm has with given parameters.

    Averaged or interpolated weights need them: running averages belong to the weights
    of the last updates. They are the means over batches of each batch's mean and
    variance, each batch by its share of the examples, as
    ``flax_objective(norm='recalibrate')`` takes them. Dropout is off.

    Args:
        model: called as ``model(x, train=...)``.
        params: its parameters, such as `lrscape.transforms.averaged` gives.
        inputs: (n, ...), floating-point: what the model is called with, normalised; in
            random order, since a batch of one class varies less than the sample.
        batch_size: examples a batch, as in training.

    Returns:
        What ``model.apply`` takes as ``batch_stats``; empty without batch norm.

    Raises:
        InputError: no inputs, ones that are not floating-point, or statistics that do
            not belong to `flax.linen.BatchNorm`.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from lrscape import models
        >>> model = models.create('mlp', num_classes=10, features=(16,))
        >>> inputs = jax.random.normal(jax.random.key(0), (20, 8))
        >>> variables = model.init(jax.random.key(1), inputs, train=False)
        >>> stats = recalibrate(model, variables['params'], inputs, batch_size=10)
        >>> outputs = model.apply(
        ...     {'params': variables['params'], 'batch_stats': stats}, inputs,
        ...     train=False)
        >>> jnp.asarray(outputs).shape
        (20, 10)

    References:
        Izmailov et al., `Averaging Weights Leads to Wider Optima and Better
        Generalization <https://arxiv.org/abs/1803.05407>`_, 2018, Sec. 3.2
    """
    checks.linen_module("model", model)
    inputs = checks.numbers("inputs", inputs)
    if not inputs.ndim or not len(inputs):
        raise InputError(f"inputs={checks.shown(inputs)} must be examples, (n, ...)")
    # Any labels do: no loss is taken.
    labels = np.zeros(len(inputs), np.int32)
    objective = flax_objective(
        model, (inputs, labels), norm="recalibrate", batch_size=batch_size
    )
    check_weights(params, objective.leaves, "train", name="params")
    stats = objective.at(params).batch_stats
    return {} if stats is None else stats
