"""A model and labelled examples as an objective, whichever library the model is of.

A *network* is a model as two pure functions of its weights. The batch-norm policies,
the loss, the error and the L2 term are the same for all of them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from lrscape import checks, layers
from lrscape.errors import InputError
from lrscape.landscape import tree
from lrscape.landscape.accumulate import accumulate
from lrscape.landscape.flax_objective import (
    LOSSES,
    NORMS,
    _check_labels,
    _labelled,
    squared_weights,
)
from lrscape.landscape.objective import SampleObjective, as_batches


class Network(Protocol):
    """A model as functions of its weights, without dropout; a pytree."""

    @property
    def name(self) -> str:
        """What the model is called in settings."""
        ...

    @property
    def settings(self) -> dict[str, Any]:
        """What else the outputs depend on."""
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
        """What the numbers depend on, as JSON holds it."""
        loss = self.loss
        found = {
            "objective": self.network.name,
            "num_examples": self.num_examples,
            "batch_size": self.counts[1],
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
        """What the model makes of a batch's inputs, (n, outputs), float32 at least."""
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

    def along(self, point: Any, direction: Any) -> tuple[ModelObjective, Any, Any]:
        """Objective, point and direction whose slope is that of the loss on a line.

        With ``norm='recalibrate'`` the statistics, which `at` takes for constants, move
        with the point: they become part of it, and of the direction.
        """
        if self.norm != "recalibrate":
            return self, point, direction
        stats, moved = jax.jvp(self._statistics, (point,), (direction,))
        return (
            dataclasses.replace(self, norm="interpolate"),
            {"params": point, "batch_stats": stats},
            {"params": direction, "batch_stats": moved},
        )

    def _statistics(self, point: Any) -> Any:
        source = self.calibration
        if source is None:
            source = dataclasses.replace(self, norm="train")
        return accumulate(_batch_statistics, source, point)

    def relabelled(self, key: jax.Array) -> ModelObjective:
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
    params: Any,
    batch_stats: Any,
    data: Any,
    *,
    norm: str,
    batch_size: int,
    loss: str | Callable[[jax.Array, jax.Array], jax.Array] = "cross_entropy",
    l2: float = 0.0,
    error: bool = False,
    calibration: Any = None,
    axes: Any = None,
) -> ModelObjective:
    """Makes an objective of a network; checks what all libraries' models share.

    Args:
        network: the model as a function of its weights.
        params: its trained weights.
        batch_stats: its running averages; a tree without leaves where it has no batch
            norm.
        data: ``(inputs, labels)``, or a mapping with ``'image'`` and ``'label'``.
        norm: the batch-norm policy.
        batch_size: examples a batch.
        loss: a name, or a function ``(outputs, labels) -> (n,)``.
        l2: the weight of the L2 term.
        error: whether the fraction of wrong labels is measured too.
        calibration: inputs (n, ...) for ``norm='recalibrate'``.
        axes: what its arrays are, where names do not tell; see `lrscape.layers.roles`.

    Returns:
        The objective.

    Raises:
        InputError: an unknown name, examples without labels, labels that the model has
            no output for, or outputs that are not (n, outputs).
    """
    checks.one_of("norm", norm, NORMS)
    if isinstance(loss, str):
        checks.one_of("loss", loss, LOSSES)
    l2 = checks.not_negative("l2", l2)
    if calibration is not None and norm != "recalibrate":
        raise InputError(
            f"calibration is what norm='recalibrate' estimates statistics on; "
            f"norm={norm!r} estimates none: leave it out"
        )
    tree.check_point("the model's weights", params)
    inputs, labels = _labelled(data)
    whole, tail, counts = as_batches((inputs, labels), batch_size)
    params, batch_stats, network = jax.tree.map(
        tree.own, (params, batch_stats, network)
    )
    has_stats = bool(jax.tree.leaves(batch_stats))
    if not has_stats and norm == "recalibrate":
        norm = "eval"  # there is nothing to estimate
    if has_stats:
        shape = jax.eval_shape(network.outputs, params, batch_stats, whole[0][0])
    else:
        shape, _ = jax.eval_shape(network.train_outputs, params, whole[0][0])
    if getattr(shape, "ndim", None) != 2:
        raise InputError(
            f"model={network.name} gives {_what(shape)} for a batch of examples; an "
            "objective of labelled examples needs one array (n, outputs): use "
            "mean_objective"
        )
    leaves = layers.settled(params, axes, {}, needed_by="the L2 term" if l2 else None)
    _check_labels(loss, labels, shape.shape[1], error)
    source = None
    if calibration is not None and norm == "recalibrate":
        any_labels = np.zeros(len(calibration), np.int32)
        source = ModelObjective(
            *as_batches((calibration, any_labels), batch_size),
            network=network,
            norm="train",
        )
    point = params
    if norm == "interpolate":
        point = {"params": params, "batch_stats": batch_stats}
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
        error=checks.flag("error", error),
        num_outputs=shape.shape[1],
        leaves=leaves,
        point=point,
    )


def _what(shape: Any) -> str:
    if hasattr(shape, "shape"):
        return f"outputs of shape {shape.shape}"
    return f"a {type(shape).__name__}"


def _batch_statistics(objective: ModelObjective, point: Any, batch: Any) -> Any:
    """The statistics of one batch at every batch norm."""
    return objective.network.train_outputs(point, batch[0])[1]
