"""A Linen model and labelled examples as an objective, the batch-norm policy said."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import flax.errors
import flax.linen as nn
import jax
import jax.numpy as jnp

from lrscape import checks, layers
from lrscape.errors import InputError
from lrscape.landscape import tree
from lrscape.landscape.masks import takes_train
from lrscape.landscape.model_objective import (
    ModelObjective,
    check_settings,
    labelled,
    model_objective,
)


@dataclasses.dataclass(frozen=True, eq=False)
class LinenNetwork:
    """A Linen model as a function of its parameters.

    Attributes:
        rngs: a key for each collection that the model draws random numbers from.
        model: the module.
        momenta: the momentum of each batch norm, by its path.
    """

    rngs: Any
    model: Any
    momenta: tuple[tuple[str, float], ...]

    @property
    def name(self) -> str:
        """The model's class."""
        return type(self.model).__name__

    @property
    def settings(self) -> dict[str, Any]:
        """The collections that random numbers are drawn from."""
        return {"rngs": ", ".join(sorted(self.rngs))} if self.rngs else {}

    def outputs(self, params: Any, batch_stats: Any, inputs: Any) -> jax.Array:
        """(n, outputs), batch norm normalising by `batch_stats`."""
        variables = {"params": params}
        if batch_stats is not None:
            # Of a point in double precision nothing is computed in single.
            variables["batch_stats"] = tree.at_least_as_wide(batch_stats, params)
        return self._apply(variables, inputs, train=False)

    def train_outputs(self, params: Any, inputs: Any) -> tuple[jax.Array, Any]:
        """(n, outputs), batch norm normalising by the batch; and its statistics.

        Batch norm hands out ``m * old + (1 - m) * batch``; from an old value of zero
        the batch's own follow exactly.
        """
        variables = {"params": params}
        if self.momenta:
            variables["batch_stats"] = _zero_statistics(self.model, params, inputs)
        outputs, updated = self._apply(variables, inputs, train=True)
        momenta = dict(self.momenta)
        return outputs, tree.map_named(
            lambda path, leaf: leaf / (1 - momenta.get(path.rpartition("/")[0], 0)),
            updated.get("batch_stats", {}),
        )

    def _apply(self, variables: Any, inputs: Any, *, train: bool) -> Any:
        with nn.intercept_methods(_without_dropout):
            return self.model.apply(
                variables,
                inputs,
                **takes_train(self.model, train),
                mutable=["batch_stats"] if train else False,
                rngs=self.rngs,
            )

    def with_float64_model(self) -> LinenNetwork:
        """With a module that computes in double precision, where it has a say."""
        from lrscape.landscape.precision import double_model

        return dataclasses.replace(self, model=_hashable(double_model(self.model)))


jax.tree_util.register_dataclass(
    LinenNetwork, data_fields=["rngs"], meta_fields=["model", "momenta"]
)


def flax_objective(
    model: nn.Module,
    data: Any,
    *,
    norm: str,
    batch_size: int,
    batch_stats: Any = None,
    loss: str | Callable[[jax.Array, jax.Array], jax.Array] = "cross_entropy",
    l2: float = 0.0,
    error: bool = False,
    calibration: Any = None,
    axes: Any = None,
    rngs: Mapping[str, Any] | None = None,
) -> ModelObjective:
    r"""Makes an objective of a Linen model and labelled examples.

    .. math::

        L(\theta) = \frac{1}{N} \sum_n \ell(f(x_n, \theta), y_n)
            + \frac{\lambda}{2} \sum_{w \in \text{weights}} w^2

    Dropout is off, whatever the policy, that of attention included: a probe sees the
    same network at every point. Random numbers that a module of one's own draws come
    from `rngs`, the same at every point and for every batch.

    Args:
        model: called as ``model(x, train=...)``, or as ``model(x)``.
        data: ``(inputs, labels)``, or a mapping with ``'image'`` and ``'label'``;
            inputs are what the model is called with: already normalised.
        norm: how batch norm normalises:

            - ``'train'``: by each batch's own statistics;
            - ``'eval'``: by `batch_stats`, the same at every point;
            - ``'recalibrate'``: by statistics estimated at every point, the cumulative
              average over the sample's batches;
            - ``'interpolate'``: by statistics that are part of the point, which is then
              ``{'params': ..., 'batch_stats': ...}``.

            For a model without batch norm all four are the same.
        batch_size: examples a batch. By ``'train'`` it is a setting of the loss itself;
            otherwise it changes rounding only.
        batch_stats: the running averages for ``'eval'``.
        loss: ``'cross_entropy'`` with integer labels, in nats; ``'squared_error'``,
            summed over outputs; or a function ``(outputs, labels) -> (n,)``.
        l2: :math:`\lambda`: adds half of it times the squared norm of the weights:
            of kernels and embeddings, neither of biases nor of norm scales.
        error: the loss is then a dict, ``{'loss': ..., 'error': ...}``, with the
            fraction of wrong labels beside it, measured in the same pass.
        calibration: inputs (n, ...) that ``'recalibrate'`` estimates statistics on
            instead, in batches of the same size: training inputs, where the loss is
            that of a test set.
        axes: what parameters are, for the L2 term, where neither the model's modules
            nor their names tell; see `lrscape.layers.roles`.
        rngs: a PRNG key for each collection that the model draws random numbers from
            (``self.make_rng('noise')``) under this policy; it becomes part of the loss.

    Returns:
        The objective; its points are trees like the model's parameters, except by
        ``'interpolate'``. It shows ``outputs`` and ``output_loss`` too.

    Raises:
        InputError: an unknown policy or loss, ``'eval'`` without `batch_stats`, inputs
            that are not floating-point, examples without labels, or none at all; a
            label that the model has no output for; a model that is not Linen's, whose
            outputs are no array, or that draws random numbers for which there is no
            key; `calibration` by another policy; with `l2` a parameter that nothing
            identifies.

    Example:
        >>> from lrscape import data, models
        >>> digits = data.load('digits').train
        >>> model = models.create('mlp', num_classes=10, features=(16,))
        >>> inputs = jnp.asarray(digits.image, jnp.float32) / 16
        >>> params = model.init(jax.random.key(0), inputs[:1], train=False)['params']
        >>> objective = flax_objective(
        ...     model, (inputs, digits.label), norm='train', batch_size=500)
        >>> bool(1.5 < objective(params) < 4.0)
        True
    """
    checks.linen_module("model", model)
    check_settings(norm, loss, l2, error, calibration)
    rngs = _checked_rngs(rngs)
    inputs, _ = labelled(data)
    checks.count("batch_size", batch_size)
    trains = norm in ("train", "recalibrate")
    shapes, momenta, outputs, seen = _look_at(model, inputs[:1], trains, rngs)
    stats = shapes.get("batch_stats")
    if not jax.tree.leaves(stats):
        batch_stats = None
    elif norm == "eval":
        if not jax.tree.leaves(batch_stats):
            raise InputError(
                f"batch_stats={checks.shown(batch_stats)}: norm='eval' normalises by "
                "running averages; pass the model's, or choose norm='recalibrate' or "
                "'train'"
            )
        tree.check_alike({"the model's batch_stats": stats, "batch_stats": batch_stats})
        batch_stats = jax.tree.map(tree.own, batch_stats)
    else:
        batch_stats = stats  # only that there are any
    if norm == "recalibrate":
        known = dict(momenta)
        for path in tree.leaf_names(stats):
            if known.get(path.rpartition("/")[0], 1.0) == 1.0:
                raise InputError(
                    f"norm='recalibrate': the batch statistics {path} belong to no "
                    "flax.linen.BatchNorm of a momentum below 1; choose norm='train' "
                    "or 'eval'"
                )
    params = shapes.get("params", {})
    return model_objective(
        LinenNetwork(rngs, _hashable(model), momenta),
        data,
        params=params,
        batch_stats=batch_stats,
        norm=norm,
        batch_size=batch_size,
        loss=loss,
        l2=l2,
        error=error,
        calibration=calibration,
        axes=axes,
        model_axes=seen.axes(params),
        outputs=outputs,
    )


def _checked_rngs(rngs: Any) -> dict[str, jax.Array] | None:
    if rngs is None:
        return None
    if not isinstance(rngs, Mapping):
        raise InputError(
            f"rngs={checks.shown(rngs)} must be a mapping of collections to PRNG keys"
        )
    return {str(k): checks.key(f"rngs[{k!r}]", v) for k, v in rngs.items()}


def _look_at(
    model: Any, inputs: jax.Array, train: bool, rngs: Any
) -> tuple[dict, tuple, Any, Any]:
    """A model's variables, each batch norm's momentum, its outputs and its layers.

    Raises:
        InputError: outputs that are not (n, outputs), or random numbers drawn without a
            key.
    """
    momenta: dict[str, float] = {}
    seen = layers.Linen()

    def note(call, args, kwargs, context):
        result = call(*args, **kwargs)
        seen.see(context.module)
        if isinstance(context.module, nn.BatchNorm):
            momenta["/".join(context.module.path)] = float(context.module.momentum)
        return result

    def run(inputs):
        with nn.intercept_methods(note):
            return model.init_with_output(
                jax.random.key(0), inputs, **takes_train(model, False)
            )

    def apply(variables, inputs):
        with nn.intercept_methods(_without_dropout):
            return model.apply(
                variables,
                inputs,
                **takes_train(model, train),
                mutable=["batch_stats"] if train else False,
                rngs=rngs,
            )

    # Parameters that `init` makes are float32 whatever the inputs; of mixed ones the
    # shapes alone are asked for.
    with jax.numpy_dtype_promotion("standard"):
        outputs, shapes = jax.eval_shape(run, inputs)
    if not isinstance(outputs, jax.ShapeDtypeStruct):
        raise InputError(
            f"model={type(model).__name__} gives a {type(outputs).__name__} and not an "
            "array; wrap it in a module that returns one output, or use mean_objective"
        )
    if len(outputs.shape) != 2:
        raise InputError(
            f"model={type(model).__name__} gives outputs of shape {outputs.shape} for "
            "one example; flax_objective needs (n, outputs): use mean_objective"
        )
    try:
        with jax.numpy_dtype_promotion("standard"):
            jax.eval_shape(apply, shapes, inputs)
    except flax.errors.InvalidRngError as error:
        raise InputError(
            f"model={type(model).__name__} draws random numbers of its own: "
            f"{str(error).partition(' (')[0]}; pass a key, the same at every point, by "
            "rngs={collection: jax.random.key(0)}, or let train=False turn them off "
            "and choose norm='eval'"
        ) from error
    return dict(shapes), tuple(sorted(momenta.items())), outputs, seen


def _without_dropout(call, args, kwargs, context):
    """Turns dropout off, in layers of that name and within attention."""
    module = context.module
    if context.method_name != "__call__":
        return call(*args, **kwargs)
    if isinstance(module, nn.Dropout):
        return args[0]
    if isinstance(module, nn.MultiHeadDotProductAttention):
        # A rate of zero draws nothing, whatever the call says of `deterministic`,
        # which may be said by the module's own field instead.
        rate = module.dropout_rate
        object.__setattr__(module, "dropout_rate", 0.0)
        try:
            return call(*args, **kwargs)
        finally:
            object.__setattr__(module, "dropout_rate", rate)
    return call(*args, **kwargs)


def _zero_statistics(model: Any, point: Any, inputs: jax.Array) -> Any:
    """Batch statistics of zero, in the precision of the point where that is wider."""
    with jax.numpy_dtype_promotion("standard"):
        shapes = jax.eval_shape(
            lambda x: model.init(jax.random.key(0), x[:1], **takes_train(model, False)),
            jax.ShapeDtypeStruct(inputs.shape, inputs.dtype),
        )
    zeros = jax.tree.map(
        lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes["batch_stats"]
    )
    return tree.at_least_as_wide(zeros, point)


class _ByIdentity:
    """A module that cannot be hashed, compared by what it is rather than by fields."""

    def __init__(self, model: nn.Module):
        self._model = model

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)


def _hashable(model: nn.Module) -> Any:
    try:
        hash(model)
    except TypeError:
        return _ByIdentity(model)
    return model
