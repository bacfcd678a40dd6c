"""The training loop: a stream of states."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from lrscape import checks
from lrscape.data import Dataset, StreamedDataset
from lrscape.errors import InputError
from lrscape.training import origin
from lrscape.training.config import Config, LoopConfig
from lrscape.training.devices import (
    choose_devices,
    device_count,
    replicate,
    split_many,
)
from lrscape.training.feed import epoch_order, make_feed
from lrscape.training.labels import check_images, check_labels, check_params
from lrscape.training.mapping import map_over_devices
from lrscape.training.state import VIEW, TrainState, check_state, initial_state
from lrscape.training.step import State, make_loop, make_step, synchronized


class NonFiniteLossError(ArithmeticError):
    """Training met a loss or a gradient that is not finite.

    Attributes:
        step: the update that did, counted from 0.
        steps: of several networks, that of each.
    """

    def __init__(self, step: int, steps: Sequence[int] = ()):
        super().__init__(
            f"the loss or its gradient is not finite at step {step}; lower the "
            "learning rate, start it lower, or clip gradients"
        )
        self.step = step
        self.steps = tuple(steps)

    def __reduce__(self):
        # By its arguments: an exception's own are its message.
        return type(self), (self.step, self.steps)


def fit(
    model: nn.Module,
    data: Dataset | StreamedDataset,
    tx: optax.GradientTransformation,
    config: Config,
    *,
    yield_every: int = 1,
    yield_at: Callable[[int], bool] = lambda step: False,
    donate: bool = False,
    state: TrainState | None = None,
) -> Generator[TrainState, TrainState | None]:
    """Trains, and yields the states that it passes through.

    Args:
        model: a Linen module called as ``model(x, train=...)``, x of shape (n, height,
            width, channels); with batch norm and more than one device it needs a field
            ``axis_name``.
        data: trained on ``data.train``, which is put on the devices once, or streamed
            to them. What is streamed goes on at the same example from any state: the
            order and each random view are functions of the seed and the step.
        tx: any Optax transformation; it is handed what its signature takes of the loss
            as ``value=``, the gradient as ``grad=``, the update's loss and gradient at
            other parameters as ``value_fn=`` and ``grad_fn=`` (functions of params,
            not computed unless they are called), and of a model that sows
            ``penultimate`` the norms of those activations over the batch,
            ``activation_norm=`` and ``activation_max=``.
        config: how to train.
        yield_every: yields the state after each multiple of so many updates, and the
            last one. On an accelerator many updates run in one compiled loop, and what
            is not yielded costs nothing.
        yield_at: says of a step whether to yield after it too.
        donate: lets an update reuse the memory of the state before it. What was
            yielded must then be read before the next state is asked for.
        state: goes on from this state, made by `initial_state` or restored; None
            starts anew.

    Returns:
        The states, ``state.step`` 1 ... total (the initial state is not among them:
        make it with `initial_state` and pass it). Unless donated, they stay valid. A
        state that is sent back (``states.send(state)``, which returns the next one) is
        gone on from: the same one with something changed, such as a rate that the
        optimizer keeps.

    Raises:
        InputError: at once, before anything is compiled: a batch that is larger than
            the data or cannot be split over the devices, a label that the model has no
            output for, a state beyond the end, of another optimizer, or made with
            another batch size, epoch or `average_weights`.
        NonFiniteLossError: while iterating, at the latest one call of the device after
            the loss or its gradient was not finite.

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
    return pass_through(
        lambda: initial_state(model, data, tx, config.seed) if state is None else state,
        model,
        data,
        tx,
        config,
        yield_every=yield_every,
        yield_at=yield_at,
        donate=donate,
    )


def pass_through(
    make_state: Callable[[], TrainState],
    model: nn.Module,
    data: Dataset | StreamedDataset,
    tx: optax.GradientTransformation,
    config: Config,
    *,
    yield_every: int,
    yield_at: Callable[[int], bool],
    donate: bool,
) -> Generator[TrainState, TrainState | None]:
    """Passes through the data as `fit` does, for one network or several stacked ones.

    Args:
        make_state: the state to start from, or the states of several networks, stacked
            along a leading axis; called once the settings are known to work.
        model: see `fit`, likewise all that follows.
        data: not streamed where there are several networks.
        tx: theirs.
        config: theirs; each network's random numbers come from its own key.
        yield_every: see `fit`.
        yield_at: see `fit`.
        donate: see `fit`.

    Returns:
        The states, see `fit`; stacked as they were given. `NonFiniteLossError` is
        raised once there is no network left whose loss and gradient are finite.
    """
    check_arguments(Config, config, tx, yield_every, yield_at, donate)
    check_images(data)
    steps_per_epoch = config.steps_per_epoch(data)
    total_steps = config.total_steps(data)
    variables = check_labels(model, data, "train")
    devices = choose_devices(config.num_devices, config.batch_size)
    state = make_state()
    start = check_start(state, tx, total_steps)
    several = np.ndim(state.step) > 0
    check_params(variables, state.params, stacked=several)
    settings = origin.settings_of(
        tx,
        state.params,
        batch_size=config.batch_size,
        steps_per_epoch=steps_per_epoch,
    )
    origin.check_same(state, settings)
    if jax.tree.leaves(state.batch_stats):
        model = synchronized(model, config, device_count(devices))
    step = make_step(model, tx, config, steps_per_epoch)
    if several:
        # Within the compiled loop, whose count is the same for all.
        step = jax.vmap(step, in_axes=(0, None, 0))
    # What is streamed arrives a batch at a time.
    streamed = isinstance(data, StreamedDataset)
    length = 1 if streamed else min(scan_steps(config, devices), yield_every)
    mapped = map_over_devices(
        step if length == 1 else make_loop(step),
        devices,
        config.mapping,
        donate_argnums=(0,) if donate else (),
        precision=config.matmul_precision,
    )
    placed, key = replicate(state, devices), state.key
    if donate:
        # The caller's own state is not ours to give away.
        placed = jax.tree.map(jnp.copy, placed)
    feed = make_feed(data, "train", config.normalize, devices)

    @functools.lru_cache(maxsize=2)  # a stream is read beyond an epoch's end
    def order_of(epoch: int) -> np.ndarray:
        if several:
            return np.stack([epoch_order(k, epoch, len(data.train)) for k in key])
        return epoch_order(key, epoch, len(data.train))

    def batch_at(n: int) -> np.ndarray:
        epoch, position = divmod(n, steps_per_epoch)
        first = position * config.batch_size
        return order_of(epoch)[..., first : first + config.batch_size]

    def due(n: int) -> bool:
        return n % yield_every == 0 or n == total_steps or yield_at(n)

    def states(state: TrainState) -> Generator[TrainState, TrainState | None]:
        views = jax.random.fold_in(key, VIEW) if streamed else None
        with contextlib.closing(
            feed.batches(batch_at, range(start, total_steps), views)
        ) as upcoming:

            def batch_of(steps: range) -> Any:
                if length == 1:
                    return next(upcoming)
                return split_many([batch_at(n) for n in steps], devices, length)

            stretches = stretches_of(start, total_steps, length, due)
            yield from advance(
                mapped, state, feed.dataset, batch_of, stretches, due, devices, settings
            )

    return states(placed)


def advance(
    mapped: Callable[[State, Any, Any], tuple[State, dict[str, Any]]],
    state: State,
    dataset: Any,
    batch_of: Callable[[range], Any],
    stretches: Iterable[range],
    due: Callable[[int], bool],
    devices: Sequence[jax.Device],
    settings: dict[str, Any],
) -> Generator[State, State | None]:
    """Calls a mapped step, stretch by stretch, and yields the states that are due.

    Args:
        mapped: ``(state, dataset, batch) -> (state, metrics)``, see
            `lrscape.training.mapping.map_over_devices`.
        state: placed on the devices.
        dataset: likewise.
        batch_of: the updates of a call -> what it takes for its batch.
        stretches: the updates of each call.
        due: says of a step whether the state after it is yielded.
        devices: of this process.
        settings: what the states are made with, see `lrscape.training.origin`.

    Returns:
        The states; one that is sent back is gone on from.
    """
    # On virtual CPU devices two programs in flight may wait for each other.
    one_at_a_time = devices[0].platform == "cpu" and device_count(devices) > 1
    running: jax.Array | np.ndarray = np.asarray(state.first_bad_step)
    for steps in stretches:
        batch = batch_of(steps)
        finished = running
        state, metrics = mapped(state, dataset, batch)
        running = metrics["first_bad_step"]
        if one_at_a_time:
            jax.block_until_ready(running)
        # Looked at while the next call runs, so that nothing waits.
        raise_if_not_finite(finished)
        if due(steps.stop):
            origin.remember(state, settings)
            if (sent := (yield state)) is not None:
                state = replicate(sent, devices)
    raise_if_not_finite(running)


def stretches_of(
    start: int, total: int, length: int, due: Callable[[int], bool]
) -> Iterator[range]:
    """The updates of each call: `length` at the most, and never past one that is due.

    Example:
        >>> list(stretches_of(0, 8, 3, lambda n: n in (4, 8)))
        [range(0, 3), range(3, 4), range(4, 7), range(7, 8)]
    """
    while start < total:
        stop = start + 1
        while stop - start < length and not due(stop):
            stop += 1
        yield range(start, stop)
        start = stop


def check_arguments(
    kind: type[LoopConfig],
    config: Any,
    tx: Any,
    yield_every: Any,
    yield_at: Any,
    donate: Any,
) -> None:
    """Raises InputError for settings of a loop that are of another kind."""
    kind.check(config)
    checks.transformation("tx", tx)
    checks.count("yield_every", yield_every)
    checks.function("yield_at", yield_at, takes="a step")
    checks.flag("donate", donate)


def check_start(
    state: TrainState, tx: optax.GradientTransformation, total_steps: int
) -> int:
    """The updates that a state has behind it.

    Raises:
        InputError: the state of another optimizer, or one beyond the end of the run.
    """
    check_state(state)
    checks.count("config: the number of updates", total_steps)
    try:
        expected = jax.eval_shape(tx.init, state.params)
        jax.tree.map(lambda *leaves: None, expected, state.opt_state)
    except ValueError as error:
        raise InputError(
            "state.opt_state is not of this tx: make the state by "
            "initial_state(model, data, tx, seed) with the tx that is trained with"
        ) from error
    start = int(np.max(state.step))
    if start > total_steps:
        raise InputError(
            f"state.step={start} lies beyond the end of the run, {total_steps} steps; "
            "raise epochs"
        )
    return start


def scan_steps(config: Config, devices: Sequence[jax.Device]) -> int:
    """The largest number of updates in one compiled loop."""
    if config.scan_steps is not None:
        return config.scan_steps
    return 1 if devices[0].platform == "cpu" else 100


def raise_if_not_finite(first_bad_step: jax.Array | np.ndarray | int) -> None:
    """Raises `NonFiniteLossError` if a step was bad; of several networks, in each."""
    bad = np.asarray(first_bad_step)
    if (bad >= 0).all():
        raise NonFiniteLossError(int(bad.max()), bad.reshape(-1).tolist())
