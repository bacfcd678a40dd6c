"""A Linen model and labelled examples as an objective, the batch-norm policy said."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import flax.errors
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from lrscape import checks, layers
from lrscape.errors import InputError
from lrscape.landscape import tree
from lrscape.landscape.accumulate import accumulate
from lrscape.landscape.mask import takes_train
from lrscape.landscape.objective import SampleObjective, as_batches

NORMS = ("train", "eval", "recalibrate", "interpolate")

LOSSES: dict[str, Callable[[jax.Array, jax.Array], jax.Array]] = {
    "cross_entropy": lambda outputs, labels: (
        optax.softmax_cross_entropy_with_integer_labels(outputs, labels)
    ),
    "squared_error": lambda outputs, labels: jnp.sum(
        (outputs - labels.astype(outputs.dtype).reshape(outputs.shape)) ** 2, axis=-1
    ),
}


@dataclasses.dataclass(frozen=True, eq=False)
class FlaxObjective(SampleObjective):
    """The mean loss of a Linen model over labelled examples; see `flax_objective`.

    Attributes:
        batch_stats: the running averages that ``norm='eval'`` normalises by.
        model: the Linen module.
        norm: the batch-norm policy.
        loss: a name in `LOSSES`, or ``(outputs, labels) -> (n,)``.
        l2: half of it times the squared norm of the weights is added to the loss.
        error: whether the loss is a dict with the fraction of wrong labels beside it.
        momenta: the momentum of each batch norm, by its path.
        num_outputs: how many outputs the model has an example.
        calibration: what ``norm='recalibrate'`` estimates statistics on; None is the
            sample itself.
        leaves: what each parameter is, in the order of ``jax.tree.leaves``; see
            `lrscape.layers.roles`.
        rngs: a key for each collection that the model draws random numbers from.
    """

    batch_stats: Any = None
    model: Any = None
    norm: str = "eval"
    loss: Any = "cross_entropy"
    l2: float = 0.0
    error: bool = False
    momenta: tuple[tuple[str, float], ...] = ()
    num_outputs: int = 0
    calibration: Any = None
    leaves: tuple[layers.Leaf, ...] = ()
    rngs: Any = None

    @property
    def settings(self) -> dict[str, Any]:
        """What the numbers depend on, as JSON holds it."""
        loss, apart = self.loss, {}
        if self.calibration is not None:
            apart["calibration_examples"] = self.calibration.num_examples
        if self.rngs:
            apart["rngs"] = ", ".join(sorted(self.rngs))
        return {
            **apart,
            "objective": type(self.model).__name__,
            "num_examples": self.num_examples,
            "batch_size": self.counts[1],
            "norm": self.norm,
            "loss": loss if isinstance(loss, str) else getattr(loss, "__name__", "?"),
            "l2": self.l2,
            "layers": layers.Table(self.leaves).settings,
            "dropout": "off",
        }

    def batch_loss(self, point: Any, batch: Any) -> Any:
        """The mean loss over one batch, with the L2 term; a dict with `error`."""
        outputs = self.outputs(point, batch)
        loss = self.output_loss(outputs, batch)
        if (penalty := self.penalty) is not None:
            loss = loss + penalty(point).astype(loss.dtype)
        if not self.error:
            return loss
        wrong = (jnp.argmax(outputs, axis=-1) != batch[1]).astype(loss.dtype)
        # The largest of outputs that are not numbers is no label.
        wrong = jnp.where(jnp.isnan(outputs).any(axis=-1), jnp.nan, wrong)
        return {"loss": loss, "error": jnp.mean(wrong)}

    def outputs(self, point: Any, batch: Any) -> jax.Array:
        """What the model makes of a batch's inputs, (n, outputs) as float32."""
        if self.norm == "recalibrate":
            # Right for a single call; `at` does it once for all batches.
            return self.at(point).outputs(point, batch)
        if self.norm == "interpolate":
            variables = dict(point)
        elif self.norm == "eval" and self.batch_stats is not None:
            # Of a point in double precision nothing is computed in single.
            stats = tree.at_least_as_wide(self.batch_stats, point)
            variables = {"params": point, "batch_stats": stats}
        else:
            variables = {"params": point}
        train = self.norm == "train"
        if train and self.momenta:
            # Flax would start averages that nobody reads in single precision.
            zeros = _zero_statistics(self.model, point, batch[0])
            variables["batch_stats"] = zeros
        with nn.intercept_methods(_without_dropout):
            outputs = self.model.apply(
                variables,
                batch[0],
                **takes_train(self.model, train),
                mutable=["batch_stats"] if train else False,
                rngs=self.rngs,
            )
        outputs = outputs[0] if train else outputs
        return outputs.astype(tree.wide_dtype(outputs.dtype))

    def output_loss(self, outputs: jax.Array, batch: Any) -> jax.Array:
        """The mean loss of outputs over one batch, without the L2 term."""
        return jnp.mean(self._each(outputs, batch))

    def example_losses(self, point: Any, batch: Any) -> jax.Array:
        """The loss of each example within its batch, (n,), without the L2 term."""
        return self._each(self.outputs(point, batch), batch)

    def _each(self, outputs: jax.Array, batch: Any) -> jax.Array:
        loss = LOSSES[self.loss] if isinstance(self.loss, str) else self.loss
        return loss(outputs, batch[1])

    @property
    def penalty(self) -> Callable[[Any], jax.Array] | None:
        """The L2 term as a function of the point; None without one."""
        if not self.l2:
            return None

        def term(point: Any) -> jax.Array:
            params = point["params"] if self.norm == "interpolate" else point
            squares = squared_weights(params, self.leaves)
            return jnp.asarray(self.l2 / 2, squares.dtype) * squares

        return term

    def at(self, point: Any) -> FlaxObjective:
        """With ``norm='recalibrate'``: batch statistics estimated at the point.

        They are the averages over the sample's batches, or over those of `calibration`,
        each by its share of the examples, and are constants to whatever differentiates
        the loss.
        """
        if self.norm != "recalibrate":
            return self
        stats = jax.lax.stop_gradient(self._statistics(point))
        return self._with(norm="eval", batch_stats=stats)

    def along(self, point: Any, direction: Any) -> tuple[FlaxObjective, Any, Any]:
        """Objective, point and direction whose slope is that of the loss on a line.

        With ``norm='recalibrate'`` the statistics, which `at` takes for constants, move
        with the point: they become part of it, and of the direction.
        """
        if self.norm != "recalibrate":
            return self, point, direction
        stats, moved = jax.jvp(self._statistics, (point,), (direction,))
        return (
            self._with(norm="interpolate"),
            {"params": point, "batch_stats": stats},
            {"params": direction, "batch_stats": moved},
        )

    def _statistics(self, point: Any) -> Any:
        source = self.calibration
        if source is None:
            source = self._with(norm="train")
        return accumulate(_batch_statistics, source, point)

    def relabelled(self, key: jax.Array) -> FlaxObjective:
        """The same objective with a wrong label for every example, drawn at random.

        Going down it, as ``fooling_direction(..., towards=True)`` does, leads towards
        wrong classes.
        """
        full, size, rest = self.counts
        labels = self.whole[1].reshape(full * size)
        if self.tail is not None:
            labels = jnp.concatenate([labels, self.tail[1]])
        count = self.num_outputs
        shift = jax.random.randint(key, labels.shape, 1, count, labels.dtype)
        wrong = (labels + shift) % jnp.asarray(count, labels.dtype)
        whole = (self.whole[0], wrong[: full * size].reshape(full, size))
        tail = (self.tail[0], wrong[full * size :]) if rest else None
        return self._with(whole=whole, tail=tail)

    def with_float64_model(self) -> FlaxObjective:
        """With a model that computes in double precision, where it has a say."""
        from lrscape.landscape.precision import double_model

        model, calibration = double_model(self.model), self.calibration
        if calibration is not None:
            calibration = calibration.with_float64_model()
        return self._with(model=_hashable(model), calibration=calibration)

    def _with(self, **changes: Any) -> FlaxObjective:
        return dataclasses.replace(self, **changes)


jax.tree_util.register_dataclass(
    FlaxObjective,
    data_fields=["whole", "tail", "batch_stats", "calibration", "rngs"],
    meta_fields=[
        "counts", "model", "norm", "loss", "l2", "error", "momenta", "num_outputs",
        "leaves",
    ],
)  # fmt: skip


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
) -> FlaxObjective:
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
    checks.one_of("norm", norm, NORMS)
    if not callable(loss):
        checks.one_of("loss", loss, LOSSES)
    l2 = checks.not_negative("l2", l2)
    checks.flag("error", error)
    rngs = _checked_rngs(rngs)
    if calibration is not None and norm != "recalibrate":
        raise InputError(
            f"calibration is what norm='recalibrate' estimates statistics on; "
            f"norm={norm!r} estimates none: leave it out"
        )
    inputs, labels = _labelled(data)
    whole, tail, counts = as_batches((inputs, labels), batch_size)
    trains = norm in ("train", "recalibrate")
    shapes, momenta, num_outputs, seen = _look_at(model, whole[0][0, :1], trains, rngs)
    params = shapes.get("params", {})
    leaves = layers.settled(
        params, axes, seen.axes(params), needed_by="the L2 term" if l2 else None
    )
    _check_labels(loss, labels, num_outputs, error)
    stats = shapes.get("batch_stats")
    if not stats:
        batch_stats = None
        if norm in ("recalibrate", "interpolate"):
            # Nothing to recalibrate; points of `interpolate` keep their two keys.
            norm = "eval" if norm == "recalibrate" else norm
    elif norm == "eval":
        if not jax.tree.leaves(batch_stats):
            raise InputError(
                "norm='eval' normalises by running averages: pass them as "
                "batch_stats=..., or choose norm='recalibrate' or 'train'"
            )
        tree.check_alike({"the model's batch_stats": stats, "batch_stats": batch_stats})
        batch_stats = jax.tree.map(tree.own, batch_stats)
    else:
        batch_stats = None
    if norm == "recalibrate":
        known = dict(momenta)
        for path in tree.leaf_names(stats):
            if known.get(path.rpartition("/")[0], 1.0) == 1.0:
                raise InputError(
                    f"norm='recalibrate': the batch statistics {path} belong to no "
                    "flax.linen.BatchNorm of a momentum below 1; choose norm='train' "
                    "or 'eval'"
                )
    source = None
    if calibration is not None and norm == "recalibrate":
        # Any labels do: no loss is taken.
        apart = (calibration, np.zeros(len(calibration), labels.dtype))
        source = flax_objective(
            model, apart, norm="train", batch_size=batch_size, loss=_no_loss, rngs=rngs
        )
    return FlaxObjective(
        whole=whole,
        tail=tail,
        counts=counts,
        batch_stats=batch_stats,
        model=_hashable(model),
        norm=norm,
        loss=loss,
        l2=float(l2),
        error=bool(error),
        momenta=momenta,
        num_outputs=num_outputs,
        calibration=source,
        leaves=leaves,
        rngs=rngs,
    )


def squared_weights(params: Any, leaves: Sequence[layers.Leaf]) -> jax.Array:
    """The sum of squares of a tree's weights: its kernels and embeddings.

    Args:
        params: any pytree of arrays.
        leaves: what each of its arrays is.
    """
    pairs = zip(jax.tree.leaves(params), leaves, strict=True)
    weights = [array for array, leaf in pairs if leaf.is_weight]
    return tree.dot(weights, weights) if weights else jnp.zeros([])


def _labelled(data: Any) -> tuple[Any, Any]:
    """Inputs and labels of a pair or a mapping."""
    if isinstance(data, Mapping):
        if not {"image", "label"} <= set(data):
            raise InputError(
                f"data has the keys {', '.join(map(repr, data))}; it needs 'image' and "
                "'label', or pass (inputs, labels)"
            )
        inputs, labels = data["image"], data["label"]
    elif isinstance(data, tuple | list) and tuple.__len__(tuple(data)) == 2:
        inputs, labels = data[0], data[1]
    else:
        raise InputError(
            f"data is a {type(data).__name__}; pass (inputs, labels), or a mapping "
            "with 'image' and 'label'"
        )
    for name, values in (("inputs", inputs), ("labels", labels)):
        if isinstance(values, Mapping | tuple | set | str):
            raise InputError(
                f"data: {name} are a {type(values).__name__}, not one array; of a "
                "model with several inputs make a mean_objective"
            )
    inputs, labels = (
        x if isinstance(x, jax.Array) else np.asarray(x) for x in (inputs, labels)
    )
    if not jnp.issubdtype(inputs.dtype, jnp.floating):
        raise InputError(
            f"data: inputs have dtype {inputs.dtype}; a model is measured on what it "
            "is called with, so normalise them first (of a run on disk: "
            "run.sample('train'))"
        )
    return inputs, labels


def _check_labels(loss: Any, labels: Any, num_outputs: int, error: bool) -> None:
    """Raises InputError for labels that would broadcast, or that no output is for."""
    if loss == "squared_error":
        single = labels.ndim == 1 and num_outputs == 1
        if labels.shape[1:] != (num_outputs,) and not single:
            raise InputError(
                f"data: labels have shape {labels.shape}; loss='squared_error' of a "
                f"model with {num_outputs} outputs needs (n, {num_outputs})"
            )
    elif loss == "cross_entropy":
        if labels.ndim != 1 or not jnp.issubdtype(labels.dtype, jnp.integer):
            raise InputError(
                f"data: labels have shape {labels.shape} and dtype {labels.dtype}; "
                "loss='cross_entropy' needs whole numbers, (n,)"
            )
        checks.labels("data", labels, num_outputs)
    if error and labels.ndim != 1:
        raise InputError(
            f"error=True counts wrong classes, and labels have shape {labels.shape}, "
            "not (n,); leave it out"
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
) -> tuple[dict, tuple, int, Any]:
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
    return dict(shapes), tuple(sorted(momenta.items())), outputs.shape[1], seen


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


def _batch_statistics(objective: FlaxObjective, point: Any, batch: Any) -> Any:
    """The mean and variance of one batch at every batch norm.

    Batch norm hands out ``m * old + (1 - m) * batch``; from an old value of zero the
    batch's own follow exactly.
    """
    zeros = _zero_statistics(objective.model, point, batch[0])
    with nn.intercept_methods(_without_dropout):
        _, updated = objective.model.apply(
            {"params": point, "batch_stats": zeros},
            batch[0],
            **takes_train(objective.model, True),
            mutable=["batch_stats"],
            rngs=objective.rngs,
        )
    momenta = dict(objective.momenta)
    return tree.map_named(
        lambda path, leaf: leaf / (1 - momenta[path.rpartition("/")[0]]),
        updated["batch_stats"],
    )


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


def _no_loss(outputs: jax.Array, labels: jax.Array) -> jax.Array:
    del labels
    return jnp.zeros(len(outputs), outputs.dtype)


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
