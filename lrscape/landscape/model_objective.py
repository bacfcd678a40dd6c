"""A model and labelled examples as an objective, whichever library the model is of.

A *network* is a model as two pure functions of its weights. The batch-norm policies,
the loss, the error and the L2 term are the same for all of them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np
import optax

from lrscape import checks, layers
from lrscape.errors import InputError
from lrscape.landscape import tree
from lrscape.landscape.accumulate import accumulate
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


class Network(Protocol):
    """A model as functions of its weights, without dropout; a pytree."""

    @property
    def name(self) -> str:
        """The name of the model in settings."""
        ...

    @property
    def settings(self) -> dict[str, Any]:
        """Further settings that the outputs depend on."""
        ...

    def outputs(self, params: Any, batch_stats: Any, inputs: Any) -> jax.Array:
        """(n, outputs), batch norm normalising by `batch_stats`."""
        ...

    def train_outputs(self, params: Any, inputs: Any) -> tuple[jax.Array, Any]:
        """(n, outputs), batch norm normalising by the batch; and its statistics."""
        ...


@dataclasses.dataclass(frozen=True, eq=False)
class ModelObjective(SampleObjective):
    """The mean loss of a model over labelled examples.

    Attributes:
        network: the model as a function of its weights.
        batch_stats: the statistics that ``norm='eval'`` normalises by.
        calibration: inputs in batches, on which ``norm='recalibrate'`` estimates
            statistics; None is the sample itself.
        norm: the batch-norm policy.
        loss: a name of a loss, or ``(outputs, labels) -> (n,)``.
        l2: half of it times the squared norm of the weights is added to the loss.
        error: whether the loss is a dict with the fraction of wrong labels beside it.
        num_outputs: how many outputs the model has an example.
        leaves: what each trained array is, in the order of ``jax.tree.leaves``.
        point: the model's trained weights when the objective was made.
    """

    network: Any = None
    batch_stats: Any = None
    calibration: Any = None
    norm: str = "eval"
    loss: Any = "cross_entropy"
    l2: float = 0.0
    error: bool = False
    num_outputs: int = 0
    leaves: tuple[layers.Leaf, ...] = ()
    point: Any = None

    @property
    def settings(self) -> dict[str, Any]:
        """The settings that the numbers depend on, as JSON holds them."""
        loss = self.loss
        found = {
            **super().settings,
            "objective": self.network.name,
            "norm": self.norm,
            "loss": loss if isinstance(loss, str) else getattr(loss, "__name__", "?"),
            "l2": self.l2,
            "layers": layers.Table(self.leaves).settings,
            "dropout": "off",
            **self.network.settings,
        }
        if self.calibration is not None:
            found["calibration_examples"] = self.calibration.num_examples
        return found

    def batch_loss(self, point: Any, batch: Any) -> Any:
        """The mean loss over one batch, with the L2 term; a dict with `error`."""
        outputs = self.outputs(point, batch)
        return total_loss(self, point, outputs, batch, batch[1])

    def outputs(self, point: Any, batch: Any) -> jax.Array:
        """The model's outputs for a batch, (n, outputs), float32 at least."""
        check_weights(point, self.leaves, self.norm)
        if self.norm == "recalibrate":
            # Right for a single call; `at` does it once for all batches.
            return self.at(point).outputs(point, batch)
        if self.norm == "train":
            found, _ = self.network.train_outputs(point, batch[0])
        elif self.norm == "interpolate":
            found = self.network.outputs(
                point["params"], point["batch_stats"], batch[0]
            )
        else:
            found = self.network.outputs(point, self.batch_stats, batch[0])
        return found.astype(tree.wide_dtype(found.dtype))

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

    def at(self, point: Any) -> ModelObjective:
        """With ``norm='recalibrate'``: batch statistics estimated at the point.

        They are the averages over the sample's batches, or over those of `calibration`,
        each by its share of the examples, and are constants to whatever differentiates
        the loss.
        """
        if self.norm != "recalibrate":
            return self
        stats = jax.lax.stop_gradient(self._statistics(point))
        return dataclasses.replace(self, norm="eval", batch_stats=stats)

    def with_float64_model(self) -> ModelObjective:
        """With a model that computes in double precision, where it has a say."""
        turn = getattr(self.network, "with_float64_model", None)
        network, calibration = (
            self.network if turn is None else turn(),
            self.calibration,
        )
        if calibration is not None:
            calibration = calibration.with_float64_model()
        return dataclasses.replace(self, network=network, calibration=calibration)

    def along(self, point: Any, direction: Any) -> tuple[ModelObjective, Any, Any]:
        """Objective, point and direction whose slope is that of the loss on a line.

        With ``norm='recalibrate'`` the statistics, which `at` takes for constants, move
        with the point: they become part of it, and of the direction.
        """
        if self.norm != "recalibrate":
            return self, point, direction
        if not getattr(self.network, "differentiates_statistics", True):
            raise InputError(
                f"norm='recalibrate': the statistics of model={self.network.name} are "
                "not differentiated by its library, so that the slope of the loss is "
                "not known; choose norm='train' or 'eval'"
            )
        stats, moved = jax.jvp(self._statistics, (point,), (direction,))
        return (
            dataclasses.replace(self, norm="interpolate"),
            {"params": point, "batch_stats": stats},
            {"params": direction, "batch_stats": moved},
        )

    def _statistics(self, point: Any) -> Any:
        check_weights(point, self.leaves, "train")
        source = self.calibration
        if source is None:
            source = dataclasses.replace(self, norm="train")
        return accumulate(_batch_statistics, source, point)

    def relabelled(self, key: jax.Array) -> ModelObjective:
        """The same objective with a wrong label for every example, drawn at random.

        Going down it, as ``fooling_direction(..., towards=True)`` does, leads towards
        wrong classes.
        """
        key = checks.key("key", key)
        full, size, rest = self.counts
        labels = self.whole[1].reshape(full * size)
        if self.tail is not None:
            labels = jnp.concatenate([labels, self.tail[1]])
        count = self.num_outputs
        shift = jax.random.randint(key, labels.shape, 1, count, labels.dtype)
        wrong = (labels + shift) % jnp.asarray(count, labels.dtype)
        whole = (self.whole[0], wrong[: full * size].reshape(full, size))
        tail = (self.tail[0], wrong[full * size :]) if rest else None
        return dataclasses.replace(self, whole=whole, tail=tail)


# The point is what a user starts from, and no part of what is computed.
jax.tree_util.register_dataclass(
    ModelObjective,
    data_fields=["whole", "tail", "network", "batch_stats", "calibration"],
    meta_fields=["counts", "norm", "loss", "l2", "error", "num_outputs", "leaves"],
    drop_fields=["point"],
)


def model_objective(
    network: Network,
    data: Any,
    *,
    params: Any,
    batch_stats: Any,
    point: Any = None,
    norm: str,
    batch_size: int,
    loss: str | Callable[[jax.Array, jax.Array], jax.Array] = "cross_entropy",
    l2: float = 0.0,
    error: bool = False,
    calibration: Any = None,
    axes: Any = None,
    model_axes: dict[str, layers.Axes] | None = None,
    outputs: jax.ShapeDtypeStruct | None = None,
) -> ModelObjective:
    """Makes an objective of a network; checks what all libraries' models share.

    Args:
        network: the model as a function of its weights.
        data: ``(inputs, labels)``, or a mapping with ``'image'`` and ``'label'``.
        params: its trained weights, or their shapes.
        batch_stats: its running averages; None, or a tree without leaves, where it has
            no batch norm.
        point: the model's weights where they are known, what a user starts from.
        norm: the batch-norm policy.
        batch_size: examples a batch.
        loss: a name, or a function ``(outputs, labels) -> (n,)``.
        l2: the weight of the L2 term.
        error: whether the fraction of wrong labels is measured too.
        calibration: inputs (n, ...) for ``norm='recalibrate'``.
        axes: what its arrays are, where names do not tell; see `lrscape.layers.roles`.
        model_axes: what the model's own modules say of them.
        outputs: the shape of its outputs, where that is known.

    Returns:
        The objective.

    Raises:
        InputError: an unknown name, examples without labels, labels that the model has
            no output for, or outputs that are not (n, outputs).
    """
    check_settings(norm, loss, l2, error, calibration)
    tree.check_point("the model's weights", params)
    inputs, labels = labelled(data)
    whole, tail, counts = as_batches((inputs, labels), batch_size)
    if not jax.tree.leaves(batch_stats) and norm == "recalibrate":
        norm = "eval"  # there is nothing to estimate
    if outputs is None:
        outputs = jax.eval_shape(network.outputs, params, batch_stats, whole[0][0])
    if getattr(outputs, "ndim", None) != 2:
        raise InputError(
            f"model={network.name} gives {_what(outputs)} for a batch of examples; an "
            "objective of labelled examples needs one array (n, outputs): use "
            "mean_objective"
        )
    leaves = layers.settled(
        params, axes, model_axes or {}, needed_by="the L2 term" if l2 else None
    )
    check_labels(loss, labels, outputs.shape[1], error)
    source = None
    if calibration is not None:
        calibration = checks.numbers("calibration", calibration)
        if calibration.shape[1:] != inputs.shape[1:] or not len(calibration):
            raise InputError(
                f"calibration={checks.shown(calibration)} must be inputs such as those "
                f"of data, (n, {', '.join(map(str, inputs.shape[1:]))})"
            )
        if not jnp.issubdtype(calibration.dtype, jnp.floating):
            raise InputError(
                f"calibration={checks.shown(calibration)} must be floating-point, as "
                "the model is called: normalise them first"
            )
    if calibration is not None and norm == "recalibrate":
        any_labels = np.zeros(len(calibration), np.int32)  # no loss is taken
        source = ModelObjective(
            *as_batches((calibration, any_labels), batch_size),
            network=network,
            norm="train",
        )
    return ModelObjective(
        whole=whole,
        tail=tail,
        counts=counts,
        network=network,
        batch_stats=batch_stats if norm == "eval" else None,
        calibration=source,
        norm=norm,
        loss=loss,
        l2=float(l2),
        error=bool(error),
        num_outputs=outputs.shape[1],
        leaves=leaves,
        point=point,
    )


def total_loss(
    objective: Any, point: Any, outputs: jax.Array, batch: Any, labels: jax.Array
) -> Any:
    """The mean loss of outputs with the L2 term; a dict with the error, if wanted.

    Args:
        objective: with ``output_loss``, ``penalty`` and ``error``.
        point: where the L2 term is taken.
        outputs: (n, outputs).
        batch: what they are of.
        labels: (n,), the right index of each row of outputs.
    """
    loss = objective.output_loss(outputs, batch)
    if (penalty := objective.penalty) is not None:
        loss = loss + penalty(point).astype(loss.dtype)
    if not objective.error:
        return loss
    wrong = (jnp.argmax(outputs, axis=-1) != labels).astype(loss.dtype)
    # The largest of outputs that are not numbers is no label.
    wrong = jnp.where(jnp.isnan(outputs).any(axis=-1), jnp.nan, wrong)
    return {"loss": loss, "error": jnp.mean(wrong)}


def check_weights(
    point: Any, leaves: Sequence[layers.Leaf], norm: str, name: str = "point"
) -> None:
    """Raises InputError for a point that is not of an objective's model.

    Args:
        point: as the objective takes it.
        leaves: what each of the model's trained arrays is.
        norm: the batch-norm policy.
        name: what the message calls the point.
    """
    if norm == "interpolate":
        if not isinstance(point, Mapping) or set(point) != {"params", "batch_stats"}:
            raise InputError(
                f"{name}={checks.shown(point)}: by norm='interpolate' it is "
                "{'params': ..., 'batch_stats': ...}"
            )
        point = point["params"]
    found = dict(zip(tree.leaf_names(point), jax.tree.leaves(point), strict=True))
    for leaf in leaves:
        if leaf.path not in found:
            raise InputError(
                f"{name}={checks.shown(point)} lacks {leaf.path} of the model; it "
                f"holds {', '.join(found) or 'nothing'}"
            )
        if jnp.shape(found[leaf.path]) != leaf.shape:
            raise InputError(
                f"{name}: {leaf.path} has shape {jnp.shape(found[leaf.path])}; the "
                f"model's has {leaf.shape}"
            )


def own_point(params: Any, batch_stats: Any, norm: str) -> Any:
    """A model's weights as a policy's point: with its averages by ``'interpolate'``."""
    if norm == "interpolate":
        return {"params": params, "batch_stats": batch_stats}
    return params


def check_settings(norm: Any, loss: Any, l2: Any, error: Any, calibration: Any) -> None:
    """Raises InputError for what cannot be a setting of an objective of a model."""
    checks.one_of("norm", norm, NORMS)
    if not callable(loss):
        checks.one_of("loss", loss, LOSSES)
    checks.not_negative("l2", l2)
    checks.flag("error", error)
    if calibration is not None and norm != "recalibrate":
        raise InputError(
            f"calibration={checks.shown(calibration)} is what norm='recalibrate' "
            "estimates statistics on; "
            f"norm={norm!r} estimates none: leave it out"
        )


def _what(shape: Any) -> str:
    if hasattr(shape, "shape"):
        return f"outputs of shape {shape.shape}"
    return f"a {type(shape).__name__}"


def _batch_statistics(objective: ModelObjective, point: Any, batch: Any) -> Any:
    """The statistics of one batch at every batch norm."""
    return objective.network.train_outputs(point, batch[0])[1]


def squared_weights(params: Any, leaves: Sequence[layers.Leaf]) -> jax.Array:
    """The sum of squares of a tree's weights: its kernels and embeddings.

    Args:
        params: any pytree of arrays.
        leaves: what each of its arrays is.
    """
    pairs = zip(jax.tree.leaves(params), leaves, strict=True)
    weights = [array for array, leaf in pairs if leaf.is_weight]
    return tree.dot(weights, weights) if weights else jnp.zeros([])


def labelled(data: Any) -> tuple[Any, Any]:
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
            f"data={checks.shown(data)}: pass (inputs, labels), or a mapping "
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
    if not inputs.ndim or not len(inputs):
        raise InputError(
            f"data: inputs have shape {inputs.shape}; a sample needs one example or "
            "more, (n, ...)"
        )
    return inputs, labels


def check_labels(loss: Any, labels: Any, num_outputs: int, error: bool) -> None:
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
