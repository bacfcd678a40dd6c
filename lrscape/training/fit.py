"""The training loop: a stream of states."""

from __future__ import annotations

import functools
from collections.abc import Iterator

import flax.linen as nn
import jax
import numpy as np
import optax

from lrscape.data import Dataset
from lrscape.errors import InputError
from lrscape.training.config import Config
from lrscape.training.devices import (
    choose_devices,
    map_over_devices,
    replicate,
    split,
)
from lrscape.training.state import ORDER, TrainState, initial_state
from lrscape.training.step import DeviceData, make_step, synchronized


class NonFiniteLossError(ArithmeticError):
    """Training met a loss or a gradient that is not finite.

    Attributes:
        step: the update that did, counted from 0.
    """

    def __init__(self, step: int):
        super().__init__(
            f"the loss or its gradient is not finite at step {step}; lower the "
            "learning rate, start it lower, or clip gradients"
        )
        self.step = step


def fit(
    model: nn.Module,
    data: Dataset,
    tx: optax.GradientTransformation,
    config: Config,
    *,
    yield_every: int = 1,
    donate: bool = False,
    state: TrainState | None = None,
) -> Iterator[TrainState]:
    """Trains, and yields the states that it passes through.

    Args:
        model: a Linen module called as ``model(x, train=...)``, x of shape (n, height,
            width, channels); with batch norm and more than one device it needs a field
            ``axis_name``.
        data: trained on ``data.train``, which is put on the devices once.
        tx: any Optax transformation; it is handed the loss as ``value=``.
        config: how to train.
        yield_every: yields the state after each multiple of so many updates, and the
            last one.
        donate: lets an update reuse the memory of the state before it. What was
            yielded must then be read before the next state is asked for.
        state: goes on from this state, made by `initial_state` or restored; None
            starts anew.

    Returns:
        The states, ``state.step`` 1 ... total (the initial state is not among them:
        make it with `initial_state` and pass it). Unless donated, they stay valid.

    Raises:
        InputError: at once, before anything is compiled: a batch that is larger than
            the data or cannot be split over the devices, a state beyond the end.
        NonFiniteLossError: while iterating, at the latest one update after the loss or
            its gradient was not finite.

    Example:
        >>> import optax
        >>> from lrscape import data, models, transforms
        >>> digits = data.load('digits')
        >>> config = Config(epochs=1, batch_size=256)
        >>> tx = transforms.scale_by_gaussian(0.3, config.total_steps(digits))
        >>> model = models.create('mlp', num_classes=10, features=(32,))
        >>> [int(state.step) for state in fit(
        ...     model, digits, tx, config, yield_every=2)]
        [2, 4, 5]
    """
    if isinstance(yield_every, bool) or yield_every < 1:
        raise InputError(f"yield_every={yield_every!r} must be 1 or more")
    steps_per_epoch = config.steps_per_epoch(data)
    total_steps = config.total_steps(data)
    devices = choose_devices(config.num_devices, config.batch_size)
    if state is None:
        state = initial_state(model, data, tx, config.seed)
    start = int(state.step)
    if start > total_steps:
        raise InputError(
            f"state.step={start} lies beyond the end of the run, {total_steps} steps; "
            "raise epochs"
        )
    if jax.tree.leaves(state.batch_stats):
        model = synchronized(model, config, len(devices))
    return _states(
        state=replicate(state, devices),
        dataset=replicate(
            DeviceData.of(data.train, data.normalization(config.normalize)), devices
        ),
        step=map_over_devices(
            make_step(model, tx, config, steps_per_epoch),
            devices,
            donate_argnums=(0,) if donate else (),
        ),
        devices=devices,
        batch_size=config.batch_size,
        steps=range(start, total_steps),
        steps_per_epoch=steps_per_epoch,
        yield_every=yield_every,
    )


def _states(
    *, state, dataset, step, devices, batch_size, steps, steps_per_epoch, yield_every
):
    num_examples = len(dataset.label)
    # On virtual CPU devices two programs in flight may wait for each other's threads.
    one_at_a_time = devices[0].platform == "cpu" and len(devices) > 1
    order = None
    running = state.first_bad_step
    for n in steps:
        epoch, position = divmod(n, steps_per_epoch)
        if order is None or position == 0:
            order = epoch_order(state.key, epoch, num_examples)
        batch = order[position * batch_size : (position + 1) * batch_size]
        finished = running if n > steps.start else int(running)
        state, metrics = step(state, dataset, split(batch, devices))
        running = metrics["first_bad_step"]
        if one_at_a_time:
            running.block_until_ready()
        # Looked at while the next update runs, so that nothing waits.
        raise_if_not_finite(finished)
        if (n + 1) % yield_every == 0 or n + 1 == steps.stop:
            yield state
    raise_if_not_finite(running)


def epoch_order(key: jax.Array, epoch: int, num_examples: int) -> np.ndarray:
    """The order of the examples in an epoch, shuffled on the device.

    Args:
        key: the run's key, ``state.key``.
        epoch: counted from 0.
        num_examples: the size of the training set.

    Returns:
        (num_examples,), a permutation as int32.
    """
    return np.asarray(_permutation(key, np.uint32(epoch), num_examples), np.int32)


@functools.partial(jax.jit, static_argnames="num_examples")
def _permutation(key, epoch, num_examples):
    key = jax.random.fold_in(jax.random.fold_in(key, ORDER), epoch)
    return jax.random.permutation(key, num_examples)


def raise_if_not_finite(first_bad_step: jax.Array | int) -> None:
    """Raises `NonFiniteLossError` if a step was bad."""
    if (bad := int(first_bad_step)) >= 0:
        raise NonFiniteLossError(bad)
