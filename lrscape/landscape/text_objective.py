"""A language model and windows of a text as an objective."""

from __future__ import annotations

import dataclasses
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from lrscape import checks, layers
from lrscape.errors import InputError
from lrscape.landscape import tree
from lrscape.landscape.model_objective import (
    check_weights,
    squared_weights,
    total_loss,
)
from lrscape.landscape.objective import SampleObjective, as_batches


@dataclasses.dataclass(frozen=True, eq=False)
class TextObjective(SampleObjective):
    """The mean loss of a language model over windows; see `text_objective`.

    Attributes:
        model: the Linen module.
        l2: half of it times the squared norm of the weights is added to the loss.
        error: whether the loss is a dict with the fraction of wrong tokens beside it.
        leaves: what each parameter is, in the order of ``jax.tree.leaves``; see
            `lrscape.layers.roles`.
    """

    model: Any = None
    l2: float = 0.0
    error: bool = False
    leaves: tuple[layers.Leaf, ...] = ()

    @property
    def settings(self) -> dict[str, Any]:
        """The settings that the numbers depend on, as JSON holds them."""
        inputs = self.whole[0]
        return {
            **super().settings,
            "objective": type(self.model).__name__,
            "window": inputs.shape[-1],
            "starts_from": "initial_carry",
            "loss": "cross_entropy",
            "l2": self.l2,
            "layers": layers.Table(self.leaves).settings,
            "dropout": "off",
        }

    def batch_loss(self, point: Any, batch: Any) -> Any:
        """The mean loss a token over one batch, with the L2 term."""
        outputs = self.outputs(point, batch)
        return total_loss(self, point, outputs, batch, batch[1].reshape(-1))

    def outputs(self, point: Any, batch: Any) -> jax.Array:
        """The logits that follow each token of a batch, (n * window, vocabulary)."""
        check_weights(point, self.leaves, "eval")
        logits = self.model.apply({"params": point}, batch[0], train=False)
        logits = logits.reshape(-1, logits.shape[-1])
        return logits.astype(tree.wide_dtype(logits.dtype))

    def output_loss(self, outputs: jax.Array, batch: Any) -> jax.Array:
        """The mean loss a token of outputs over one batch, without the L2 term."""
        targets = batch[1].reshape(-1)
        return jnp.mean(
            optax.softmax_cross_entropy_with_integer_labels(outputs, targets)
        )

    def with_float64_model(self) -> TextObjective:
        """With a model that computes in double precision, where it has a say."""
        from lrscape.landscape.precision import double_model

        return dataclasses.replace(self, model=double_model(self.model))

    @property
    def penalty(self) -> Any:
        """The L2 term as a function of the point; None without one."""
        if not self.l2:
            return None

        def term(point: Any) -> jax.Array:
            squares = squared_weights(point, self.leaves)
            return jnp.asarray(self.l2 / 2, squares.dtype) * squares

        return term


jax.tree_util.register_dataclass(
    TextObjective,
    data_fields=["whole", "tail"],
    meta_fields=["counts", "model", "l2", "error", "leaves"],
)


def text_objective(
    model: nn.Module,
    windows: Any,
    *,
    batch_size: int,
    l2: float = 0.0,
    error: bool = False,
    axes: Any = None,
) -> TextObjective:
    r"""Makes an objective of a language model and windows of a text.

    .. math::

        L(\theta) = \frac{1}{N T} \sum_{n=1}^N \sum_{t=1}^T
            -\log p_\theta(x_{n, t+1} \mid x_{n, 1}, \ldots, x_{n, t})
            + \frac{\lambda}{2} \sum_{w \in \text{weights}} w^2

    Every window starts from the model's initial state, whatever comes before it in the
    text, so that the sample is the same at every point; the loss is therefore a little
    higher than that of a model which reads on. Dropout is off.

    Args:
        model: called as ``model(tokens, train=False)``, which gives logits
            (n, time, vocabulary), such as `lrscape.models.LSTM`.
        windows: ``(inputs, targets)``, each (N, T) of whole numbers, as
            `lrscape.data.token_windows` cuts them.
        batch_size: windows a batch; changes results by rounding alone.
        l2: :math:`\lambda`, of kernels and embeddings: neither of biases nor of norm
            scales.
        error: the loss is then a dict, ``{'loss': ..., 'error': ...}``, with the
            fraction of tokens that were not the likeliest.
        axes: what parameters are, for the L2 term, where neither the model's modules
            nor their names tell; see `lrscape.layers.roles`.

    Returns:
        The objective; its points are trees like the model's parameters. An example of
        it is a window; it shows ``outputs`` and ``output_loss`` too.

    Raises:
        InputError: windows that are not pairs of whole numbers of one shape, or none;
            with `l2` a parameter that nothing identifies.

    Example:
        >>> from lrscape import data, models
        >>> windows = data.token_windows(np.arange(41) % 5, steps=8)
        >>> model = models.create('lstm', num_classes=5, features=4, layers=1)
        >>> params = model.init(
        ...     jax.random.key(0), windows.inputs[:1], train=False)['params']
        >>> objective = text_objective(model, windows, batch_size=2)
        >>> loss = objective(jax.tree.map(jnp.zeros_like, params))
        >>> print(f'{loss:.4f}')
        1.6094
    """
    checks.linen_module("model", model)
    l2 = checks.not_negative("l2", l2)
    checks.flag("error", error)
    inputs, targets = _pair(windows)
    whole, tail, counts = as_batches((inputs, targets), batch_size)
    model_axes, params = layers.trace(model, whole[0][0, :1])
    leaves = layers.settled(
        params, axes, model_axes, needed_by="the L2 term" if l2 else None
    )
    outputs, _ = jax.eval_shape(
        lambda x: model.init_with_output(jax.random.key(0), x, train=False),
        whole[0][0, :1],
    )
    if not isinstance(outputs, jax.ShapeDtypeStruct) or len(outputs.shape) != 3:
        raise InputError(
            f"model={type(model).__name__} must give logits, (n, time, vocabulary)"
        )
    for name, tokens in (("inputs", inputs), ("targets", targets)):
        checks.labels(f"windows: {name}", tokens, outputs.shape[-1])
    return TextObjective(
        whole=whole,
        tail=tail,
        counts=counts,
        model=model,
        l2=float(l2),
        error=bool(error),
        leaves=leaves,
    )


def _pair(windows: Any) -> tuple[Any, Any]:
    if not isinstance(windows, tuple | list) or len(tuple(windows)) != 2:
        raise InputError(
            f"windows={checks.shown(windows)}: pass (inputs, targets), as "
            "lrscape.data.token_windows cuts them"
        )
    inputs, targets = (
        x if isinstance(x, jax.Array) else np.asarray(x) for x in windows
    )
    whole = all(jnp.issubdtype(x.dtype, jnp.integer) for x in (inputs, targets))
    if inputs.ndim != 2 or inputs.shape != targets.shape or not whole:
        raise InputError(
            f"windows of shapes {inputs.shape} and {targets.shape} and types "
            f"{inputs.dtype} and {targets.dtype} must be whole numbers of one shape, "
            "(n, time); lrscape.data.token_windows cuts them"
        )
    return inputs, targets
