"""One update and one evaluation, as seen by one device."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, TypeVar

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax

from lrscape.activations import activation_norms
from lrscape.data import augment_batch
from lrscape.errors import InputError
from lrscape.training.config import Config
from lrscape.training.device_data import DeviceData, Passing
from lrscape.training.devices import AXIS
from lrscape.training.state import AUGMENT, DROPOUT, TrainState

State = TypeVar("State", bound=TrainState)


def dropout_key(state: TrainState) -> jax.Array:
    """The key of this update's dropout on this device."""
    key = jax.random.fold_in(jax.random.fold_in(state.key, DROPOUT), state.step)
    return jax.random.fold_in(key, lax.axis_index(AXIS))


def synchronized(model: nn.Module, config: Config, num_devices: int) -> nn.Module:
    """The model with its batch norm synchronised over the mapped axis, if asked for.

    Raises:
        InputError: synchronisation over several devices of a model that has no field
            ``axis_name``; raised only where it has batch norm, by the caller.
    """
    if not config.sync_batch_norm:
        return model
    if hasattr(model, "axis_name"):
        return model.clone(axis_name=AXIS)
    if num_devices > 1:
        raise InputError(
            f"sync_batch_norm=True, but model={type(model).__name__} has batch "
            "statistics and no field axis_name to hand to its nn.BatchNorm; add the "
            "field, or set sync_batch_norm=False"
        )
    return model


def make_step(
    model: nn.Module,
    tx: optax.GradientTransformation,
    config: Config,
    steps_per_epoch: int,
) -> Callable[
    [TrainState, DeviceData | Passing, Any], tuple[TrainState, dict[str, Any]]
]:
    """Makes the update ``step(state, dataset, batch) -> (state, metrics)``.

    It runs on each device with that device's share of the batch, as the dataset's
    ``take`` has it, and averages over all of them what must be the same on each.
    """
    extended_tx = optax.with_extra_args_support(tx)
    log_every = config.log_every or steps_per_epoch

    def step(state: TrainState, dataset: DeviceData | Passing, batch: Any):
        images, labels, indices = dataset.take(batch)
        images = augment_batch(
            jax.random.fold_in(state.key, AUGMENT),
            state.step // steps_per_epoch,
            indices,
            images,
            config.augment,
            dataset.max_value,
        )
        inputs = dataset.normalize(images)
        dropout = dropout_key(state)

        def loss_fn(params):
            logits, updated = model.apply(
                {**state.variables, "params": params},
                inputs,
                train=True,
                mutable=["batch_stats", "intermediates"],
                rngs={"dropout": dropout},
            )
            intermediates = updated.get("intermediates", {})

            def cross_entropy(logits):
                return optax.softmax_cross_entropy_with_integer_labels(
                    logits.astype(jnp.float32), labels
                ).mean()

            loss = cross_entropy(logits)
            # Another model may sow what it likes under that name.
            if (weight := getattr(model, "auxiliary_weight", 0)) != 0:
                for auxiliary in sown(intermediates, "auxiliary"):
                    loss += weight * cross_entropy(auxiliary)
            error = jnp.mean(jnp.argmax(logits, axis=-1) != labels)
            batch_stats = updated.get("batch_stats", state.batch_stats)
            return loss, (error, penultimate(intermediates), batch_stats)

        state, metrics, batch_stats = descend(state, loss_fn, extended_tx, log_every)
        return state.replace(batch_stats=lax.pmean(batch_stats, AXIS)), metrics

    return step


def descend(
    state: State,
    loss_fn: Callable[[Any], tuple[jax.Array, tuple[jax.Array, Any, Any]]],
    tx: optax.GradientTransformationExtraArgs,
    log_every: int,
) -> tuple[State, dict[str, jax.Array], Any]:
    """Makes an update down the gradient of a loss, which it averages over devices.

    Args:
        state: to start from.
        loss_fn: ``params -> (loss, (error, features, rest))`` of this device's share of
            the batch: the fraction of wrong labels, what enters the last layer or None,
            and what else the forward pass gave.
        tx: the transformation; it is handed ``value=``, ``grad_fn=`` and, where there
            are features, their norms.
        log_every: updates over which metrics are summed up.

    Returns:
        The state after it, the update's metrics, and `rest` as this device has it.
    """
    (loss, (error, features, rest)), gradient = jax.value_and_grad(
        loss_fn, has_aux=True
    )(state.params)
    gradient = lax.pmean(gradient, AXIS)
    loss, error = lax.pmean((loss, error), AXIS)

    def gradient_at(params, *ignored):
        """This update's gradient at other parameters, as `runge_kutta` needs it.

        Optax's `sam` hands over the number of its own step too.
        """
        return lax.pmean(jax.grad(loss_fn, has_aux=True)(params)[0], AXIS)

    def value_at(params, grad_fn=None, activation_norm=None, activation_max=None):
        """This update's loss at other parameters, as a line search needs it.

        Optax's line search refuses what its function does not take by name.
        """
        del grad_fn, activation_norm, activation_max
        return lax.pmean(loss_fn(params)[0], AXIS)

    # Costs nothing where the transformation does not look at them.
    norms = {} if features is None else activation_norms(features, AXIS)
    offered = {
        "value": loss,
        "grad": gradient,
        "value_fn": value_at,
        "grad_fn": gradient_at,
        **norms,
    }
    updates, opt_state = tx.update(
        gradient, state.opt_state, state.params, **_taken(tx.update, offered)
    )
    metrics = {
        "loss": loss,
        "error": error,
        "gradient_norm": optax.tree.norm(gradient),
    }
    # Sums live in the state, so that a run resumed within an epoch logs the same.
    first = state.step % log_every == 0
    sums = {
        name: jnp.where(first, 0.0, total) + metrics.get(name, 1.0)
        for name, total in state.metrics.items()
    }
    finite = jnp.isfinite(loss) & jnp.isfinite(metrics["gradient_norm"])
    bad = (state.first_bad_step < 0) & ~finite
    first_bad_step = jnp.where(bad, state.step, state.first_bad_step)
    state = state.replace(
        step=state.step + 1,
        params=optax.apply_updates(state.params, updates),
        opt_state=opt_state,
        metrics=sums,
        first_bad_step=first_bad_step,
    )
    # Given out beside the state too, whose own copy may be donated.
    return state, {**metrics, "first_bad_step": first_bad_step}, rest


def _taken(function: Callable[..., Any], offered: dict[str, Any]) -> dict[str, Any]:
    """The keyword arguments that a function's signature takes."""
    parameters = inspect.signature(function).parameters.values()
    if any(p.kind is p.VAR_KEYWORD for p in parameters):
        return offered
    names = {p.name for p in parameters}
    return {name: value for name, value in offered.items() if name in names}


def sown(intermediates: Any, name: str) -> list[jax.Array]:
    """The values that a model, or a module of it, sowed under `name`."""
    return [
        leaf
        for path, leaf in jax.tree_util.tree_leaves_with_path(intermediates)
        if any(getattr(key, "key", None) == name for key in path)
    ]


def penultimate(intermediates: Any) -> jax.Array | None:
    """The value that a model sowed as ``penultimate``, the last if several; or None."""
    found = sown(intermediates, "penultimate")
    return found[-1] if found else None


def make_loop(step):
    """Makes many updates one program: ``loop(state, dataset, indices)``.

    `indices` has shape (updates, ..., examples a device). Rows of -1 at its end are no
    updates, so that a shorter stretch needs no program of its own.
    """

    def loop(state: TrainState, dataset: DeviceData, indices: jax.Array):
        count = jnp.sum(indices.reshape(len(indices), -1)[:, 0] >= 0)

        def update(n, state):
            return step(state, dataset, indices[n])[0]

        state = lax.fori_loop(0, count, update, state)
        return state, {"first_bad_step": state.first_bad_step}

    return loop


def make_evaluation_step(model: nn.Module, *, top5: bool = False):
    """Makes ``step(variables, dataset, batch) -> (sums, None)``.

    An index of -1 stands for no example, so that a ragged last batch is exact. With
    `top5` the sums count labels that are not among the five largest logits too.
    """

    def step(variables: dict[str, Any], dataset: DeviceData | Passing, batch: Any):
        images, labels, indices = dataset.take(batch)
        present = indices >= 0
        inputs = dataset.normalize(images)
        logits = jnp.asarray(model.apply(variables, inputs, train=False), jnp.float32)
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
        wrong = jnp.argmax(logits, axis=-1) != labels
        sums = {
            # Selected, not multiplied: a padded example may be NaN.
            "loss": jnp.where(present, losses, 0.0).sum(),
            "error": jnp.where(present, wrong, False).sum(),
        }
        if top5:
            missed = ~in_top(5, logits, labels)
            sums["top5_error"] = jnp.where(present, missed, False).sum()
        return lax.psum(sums, AXIS), None

    return step


def in_top(k: int, logits: jax.Array, labels: jax.Array) -> jax.Array:
    """Whether each label is among the k largest logits.

    Of equal logits the earlier class comes first; where the label's own is not a
    number, it is not among them.

    Args:
        k: how many count.
        logits: (n, num_classes).
        labels: (n,).

    Returns:
        (n,), booleans.

    Example:
        >>> logits = jnp.array([[3.0, 1.0, 2.0], [1.0, 1.0, 1.0]])
        >>> in_top(2, logits, jnp.array([2, 2])).tolist()
        [True, False]
    """
    own = jnp.take_along_axis(logits, labels[:, None], axis=1)
    earlier = jnp.arange(logits.shape[-1])[None] < labels[:, None]
    before = (logits > own) | ((logits == own) & earlier)
    return (before.sum(axis=-1) < k) & ~jnp.isnan(own[:, 0])


def batches_of(count: int, batch_size: int) -> list[np.ndarray]:
    """Indices 0 ... count - 1 in batches, the last one filled up with -1."""
    indices = np.arange(-(-count // batch_size) * batch_size, dtype=np.int32)
    indices[count:] = -1
    return list(indices.reshape(-1, batch_size))
