"""Training on a text: the network goes on in each stream where it stopped."""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax

from lrscape import checks
from lrscape.data import Text, perplexity
from lrscape.errors import InputError
from lrscape.training import origin
from lrscape.training.config import TextConfig, pad_to_multiple
from lrscape.training.devices import (
    AXIS,
    choose_devices,
    device_count,
    replicate,
    split_many,
)
from lrscape.training.fit import (
    advance,
    check_arguments,
    check_start,
    stretches_of,
)
from lrscape.training.labels import check_labels, check_model, check_params, check_text
from lrscape.training.mapping import map_over_devices
from lrscape.training.state import TextState, initial_state, variables_of
from lrscape.training.step import descend, dropout_key, make_loop, penultimate

# Updates in one compiled loop where nothing else is said, on every backend.
SCAN_STEPS = 100
PARTS = ("train", "validation", "test")


class DeviceText(NamedTuple):
    """A part of a text on the device.

    Attributes:
        tokens: (n,), int32.
    """

    tokens: Any

    def take(self, starts: jax.Array, steps: int) -> tuple[jax.Array, jax.Array]:
        """Pieces of so many tokens from each start on, and what follows each token.

        Beyond the end of the text it is its last token again.
        """
        index = starts[:, None] + jnp.arange(steps, dtype=starts.dtype)[None]
        inputs, targets = (
            self.tokens[jnp.minimum(index + k, len(self.tokens) - 1)] for k in (0, 1)
        )
        return inputs, targets


def initial_text_state(
    model: nn.Module,
    text: Text,
    tx: optax.GradientTransformation,
    config: TextConfig,
) -> TextState:
    """The state before the first update; see `lrscape.training.initial_state`.

    Args:
        model: as `fit_text` takes it.
        text: what it is trained on.
        tx: the transformation to be trained with.
        config: its seed, and how many streams there are.

    Returns:
        The state, on the default device.

    Raises:
        InputError: a model that keeps no state from piece to piece, or one with
            variables other than parameters.
    """
    _check_reads_text(model)
    check_text(text)
    TextConfig.check(config)
    state = initial_state(model, text, tx, config.seed)
    if jax.tree.leaves(state.batch_stats):
        raise InputError(
            f"model={type(model).__name__} has batch statistics; on a text only "
            "'params' are trained"
        )
    fields = {name: getattr(state, name) for name in state.__dataclass_fields__}
    return TextState(**fields, carry=model.initial_carry(config.batch_size))


def fit_text(
    model: nn.Module,
    text: Text,
    tx: optax.GradientTransformation,
    config: TextConfig,
    *,
    yield_every: int = 1,
    yield_at: Callable[[int], bool] = lambda step: False,
    donate: bool = False,
    state: TextState | None = None,
) -> Generator[TextState, TextState | None]:
    """Trains on a text, and yields the states that it passes through.

    Truncated backpropagation through time: every update sees the next piece of each of
    ``config.batch_size`` streams and goes on from the state in which the one before it
    left the network, as a constant; an epoch starts from ``model.initial_carry``. The
    streams are split over the devices.

    Args:
        model: called as ``model(tokens, train=True, carry=carry, return_carry=True)``,
            which gives logits and where it ended; with ``initial_carry(batch_size)``,
            such as `lrscape.models.LSTM`.
        text: trained on ``text.train``.
        tx: any Optax transformation, handed what `lrscape.training.fit` hands it. To
            clip gradients, chain ``optax.clip_by_global_norm`` before it; it sees the
            mean over all devices.
        config: how to train.
        yield_every: yields the state after each multiple of so many updates, and the
            last one. Many updates run in one compiled loop, so that what is not yielded
            costs nothing.
        yield_at: says of a step whether to yield after it too.
        donate: as of `fit`.
        state: goes on from this state, made by `initial_text_state` or restored; None
            starts anew.

    Returns:
        The states, ``state.step`` 1 ... total, as `fit` gives them; a state holds the
        network's place in every stream.

    Raises:
        InputError: at once: a text that is too short, streams that cannot be split over
            the devices, a state beyond the end, of another optimizer or of another
            number of streams.
        NonFiniteLossError: as of `fit`.

    Example:
        >>> from lrscape import data, models
        >>> tokens = np.tile(np.arange(5, dtype=np.int32), 60)
        >>> song = data.Text(name='song', level='words', vocabulary=tuple('abcde'),
        ...     train=tokens, validation=tokens[:50], test=tokens[:50])
        >>> model = models.create('lstm', num_classes=5, features=8, layers=1)
        >>> config = TextConfig(epochs=1, batch_size=4, window=10)
        >>> [int(state.step) for state in fit_text(
        ...     model, song, optax.sgd(0.1), config, yield_every=3)]
        [3, 6, 7]

    References:
        Zaremba et al., `Recurrent Neural Network Regularization
        <https://arxiv.org/abs/1409.2329>`_, 2014
    """
    check_arguments(TextConfig, config, tx, yield_every, yield_at, donate)
    check_text(text)
    _check_reads_text(model)
    variables = check_labels(model, text, "train")
    starts = config.starts(text)
    total_steps = config.total_steps(text)
    devices = choose_devices(config.num_devices, config.batch_size)
    if state is None:
        state = initial_text_state(model, text, tx, config)
    first = check_start(state, tx, total_steps)
    check_params(variables, state.params, stacked=False)
    _check_carry(state, model, config)
    settings = origin.settings_of(
        tx,
        state.params,
        batch_size=config.batch_size,
        window=config.window,
        offset=config.offset,
        steps_per_epoch=len(starts),
    )
    origin.check_same(state, settings)
    length = min(config.scan_steps or SCAN_STEPS, yield_every)
    mapped = map_over_devices(
        _with_own_streams(make_loop(make_text_step(model, tx, config, len(starts)))),
        devices,
        config.mapping,
        donate_argnums=(0,) if donate else (),
        precision=config.matmul_precision,
    )
    placed = replicate(state, devices)
    if donate:
        # The caller's own state is not ours to give away.
        placed = jax.tree.map(jnp.copy, placed)
    dataset = replicate(DeviceText(text.train), devices)

    def batch_of(steps: range) -> np.ndarray:
        batches = [starts[n % len(starts)] for n in steps]
        return split_many(batches, devices, length)

    def due(n: int) -> bool:
        return n % yield_every == 0 or n == total_steps or yield_at(n)

    stretches = stretches_of(first, total_steps, length, due)
    return advance(mapped, placed, dataset, batch_of, stretches, due, devices, settings)


def make_text_step(
    model: nn.Module,
    tx: optax.GradientTransformation,
    config: TextConfig,
    steps_per_epoch: int,
) -> Callable[
    [TextState, DeviceText, jax.Array], tuple[TextState, dict[str, jax.Array]]
]:
    """Makes the update ``step(state, dataset, starts) -> (state, metrics)``.

    It runs on each device with that device's streams: where their pieces start, and of
    the state's carry their rows alone.
    """
    extended_tx = optax.with_extra_args_support(tx)
    log_every = config.log_every or steps_per_epoch

    def step(state: TextState, dataset: DeviceText, starts: jax.Array):
        inputs, targets = dataset.take(starts, config.window)
        begins = state.step % steps_per_epoch == 0
        carry = jax.tree.map(
            lambda zero, leaf: jnp.where(begins, zero, leaf),
            model.initial_carry(len(starts)),
            state.carry,
        )
        dropout = dropout_key(state)

        def loss_fn(params):
            (logits, ended), sown = model.apply(
                {"params": params},
                inputs,
                train=True,
                carry=carry,
                return_carry=True,
                mutable=["intermediates"],
                rngs={"dropout": dropout},
            )
            logits = logits.astype(jnp.float32)
            loss = optax.softmax_cross_entropy_with_integer_labels(
                logits, targets
            ).mean()
            error = jnp.mean(jnp.argmax(logits, axis=-1) != targets)
            return loss, (error, penultimate(sown.get("intermediates", {})), ended)

        state, metrics, ended = descend(state, loss_fn, extended_tx, log_every)
        return state.replace(carry=ended), metrics

    return step


def _with_own_streams(loop):
    """Hands a loop this device's streams of the carry, and puts all together again.

    Between calls the carry is whole on every device, so that it is saved and restored
    as everything else is, on any number of devices.
    """

    def mapped(state: TextState, dataset: DeviceText, starts: jax.Array):
        rows = starts.shape[1]

        def own(leaf):
            return lax.dynamic_slice_in_dim(leaf, lax.axis_index(AXIS) * rows, rows)

        state = state.replace(carry=jax.tree.map(own, state.carry))
        state, metrics = loop(state, dataset, starts)
        carry = jax.tree.map(
            lambda leaf: lax.all_gather(leaf, AXIS, tiled=True), state.carry
        )
        return state.replace(carry=carry), metrics

    return mapped


def _check_reads_text(model: Any) -> None:
    check_model(model)
    if not hasattr(model, "initial_carry"):
        raise InputError(
            f"model={type(model).__name__} has no initial_carry(batch_size), where it "
            "starts in a text; use models.create('lstm', ...)"
        )


def _check_carry(state: TextState, model: nn.Module, config: TextConfig) -> None:
    """Raises InputError for a state of other streams, or of none."""
    expected = jax.eval_shape(lambda: model.initial_carry(config.batch_size))
    wanted = [leaf.shape for leaf in jax.tree.leaves(expected)]
    found = [jnp.shape(leaf) for leaf in jax.tree.leaves(getattr(state, "carry", ()))]
    if wanted != found:
        raise InputError(
            f"state.carry of shapes {found} is not that of batch_size="
            f"{config.batch_size} streams, {wanted}; make the state by "
            "initial_text_state(model, text, tx, config)"
        )


def make_evaluate_text(
    model: nn.Module,
    text: Text,
    config: TextConfig,
    *,
    streams: int = 1,
) -> Callable[..., dict[str, float]]:
    r"""Makes a function that measures a state on a part of a text.

    .. math::

        \text{perplexity} = \exp\Big(-\frac{1}{n - 1} \sum_{t=1}^{n-1}
            \log p(x_{t+1} \mid x_1, \ldots, x_t)\Big)

    The network reads the part from end to end without dropout, its state carried on:
    every token but the first is predicted once, and counts the same.

    Args:
        model: the model that is trained.
        text: its text.
        config: how it is trained; devices and window are taken from it. The window
            changes results by rounding alone.
        streams: into how many equal streams a part is cut, each read from
            ``initial_carry`` on. More are faster, and leave as many tokens with less
            before them to be predicted by: of a long text the perplexity is a little
            larger.

    Returns:
        ``evaluate(state, part='test')`` -> ``{'loss': ..., 'error': ...,
        'perplexity': ...}``: the mean cross-entropy in nats a token, the fraction of
        tokens that were not the likeliest, and the exponential of the loss; part is
        ``'train'``, ``'validation'`` or ``'test'``.

    Raises:
        InputError: no streams; when measuring, a part of fewer than two tokens or
            of fewer than the streams.

    Example:
        >>> from lrscape import data, models
        >>> tokens = np.tile(np.arange(5, dtype=np.int32), 20)
        >>> song = data.Text(name='song', level='words', vocabulary=tuple('abcde'),
        ...     train=tokens, validation=tokens, test=tokens)
        >>> model = models.create('lstm', num_classes=5, features=8, layers=1)
        >>> config = TextConfig(epochs=1, batch_size=4, window=10)
        >>> state = initial_text_state(model, song, optax.sgd(0.1), config)
        >>> zeros = state.replace(params=jax.tree.map(jnp.zeros_like, state.params))
        >>> measured = make_evaluate_text(model, song, config)(zeros)
        >>> print(f"{measured['perplexity']:.4f}")
        5.0000
    """
    check_text(text)
    TextConfig.check(config)
    checks.count("streams", streams)
    _check_reads_text(model)
    check_labels(model, text, "train", "validation", "test")
    devices = choose_devices(config.num_devices, config.batch_size)
    window = config.window
    rows = pad_to_multiple(streams, device_count(devices))

    def measure(variables: Any, dataset: DeviceText, starts: jax.Array):
        last = len(dataset.tokens) - 1
        length = -(-last // streams)

        def piece(carry, at):
            inputs, targets = dataset.take(at, window)
            logits, carry = model.apply(
                variables, inputs, train=False, carry=carry, return_carry=True
            )
            logits = logits.astype(jnp.float32)
            losses = optax.softmax_cross_entropy_with_integer_labels(logits, targets)
            wrong = jnp.argmax(logits, axis=-1) != targets
            ends = jnp.minimum((at // length + 1) * length, last)
            position = at[:, None] + jnp.arange(window, dtype=at.dtype)[None]
            present = position < ends[:, None]
            sums = {
                "loss": jnp.where(present, losses, 0.0).sum(),
                "error": jnp.where(present, wrong, False).sum(),
            }
            return carry, sums

        _, sums = lax.scan(piece, model.initial_carry(starts.shape[1]), starts)
        return lax.psum(sums, AXIS), None

    mapped = map_over_devices(measure, devices, config.mapping)
    datasets: dict[str, DeviceText] = {}

    def evaluate(state: Any, part: str = "test") -> dict[str, float]:
        variables = variables_of(state)
        checks.one_of("part", part, PARTS)
        tokens = getattr(text, part)
        count = len(tokens) - 1
        if count < streams:
            raise InputError(
                f"part={part!r} of text={text.name!r} has {count + 1} tokens; "
                f"streams={streams} take {streams + 1} or more"
            )
        if part not in datasets:
            datasets[part] = replicate(DeviceText(tokens), devices)
        length = -(-count // streams)
        pieces = np.arange(0, length, window, dtype=np.int32)
        starts = pieces[:, None] + np.arange(rows, dtype=np.int32) * length
        sums, _ = mapped(
            replicate(variables, devices),
            datasets[part],
            split_many(list(starts), devices, len(starts)),
        )
        # Added up in double precision on the host.
        means = {
            name: float(np.asarray(values, np.float64).sum()) / count
            for name, values in sums.items()
        }
        return {**means, "perplexity": float(perplexity(means["loss"]))}

    return evaluate
