"""Networks that differ by their seed alone, trained together in one program."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Generator, Sequence
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from lrscape import checks
from lrscape.data import Dataset, StreamedDataset
from lrscape.errors import InputError
from lrscape.jaxprs import convolutions
from lrscape.training.config import Config
from lrscape.training.devices import choose_devices
from lrscape.training.fit import NonFiniteLossError, fit, pass_through, scan_steps
from lrscape.training.labels import check_images
from lrscape.training.state import TrainState, check_state, make_initial_state

# Timed calls of each program, after two that are not.
REPEATS = 5


def fit_seeds(
    model: nn.Module,
    data: Dataset,
    tx: optax.GradientTransformation,
    config: Config,
    seeds: Sequence[int],
    *,
    yield_every: int = 1,
    yield_at: Callable[[int], bool] = lambda step: False,
    donate: bool = False,
    state: TrainState | None = None,
) -> Generator[TrainState, TrainState | None]:
    """Trains a network for each seed, all in one program.

    Each has its own initial weights, order, augmentation and dropout: those of
    `lrscape.training.fit` with its seed, from which it differs by rounding. The updates
    of all are one call of the device, which pays where a single network leaves the
    device idle; `choose_together` measures whether it does.

    Args:
        model: see `lrscape.training.fit`; likewise all that is not below.
        data: held in memory.
        tx: theirs.
        config: theirs, all but ``seed``.
        seeds: one a network, no two alike.
        yield_every: yields the states after each multiple of so many updates.
        yield_at: says of a step whether to yield after it too.
        donate: lets an update reuse the memory of the states before it.
        state: goes on from these states, made by `initial_states` or `stacked`, all
            after the same number of updates; None starts anew.

    Returns:
        The states of all networks in one, each leaf with a leading axis of their
        number; `unstacked` takes them apart. A network whose loss or gradient turns
        non-finite disturbs no other: its ``first_bad_step`` says when it did.

    Raises:
        InputError: at once, before anything is compiled: no seeds, or equal ones; data
            that are streamed; a network with convolutions on CPU, where those of
            several networks together are many times slower than one after another; and
            whatever `lrscape.training.fit` refuses.
        NonFiniteLossError: while iterating, once every network has turned non-finite.

    Example:
        >>> import optax
        >>> from lrscape import data, models, transforms
        >>> digits = data.load('digits')
        >>> config = Config(epochs=1, batch_size=256)
        >>> tx = transforms.scale_by_gaussian(0.3, config.total_steps(digits))
        >>> model = models.create('mlp', num_classes=10, features=(32,))
        >>> for state in fit_seeds(
        ...     model, digits, tx, config, range(3), yield_every=5):
        ...     print(state.step.tolist(), state.first_bad_step.tolist())
        [5, 5, 5] [-1, -1, -1]
    """
    seeds = _checked(seeds)
    checks.linen_module("model", model)
    check_images(data)
    check_together(model, data)
    if state is not None:
        check_state(state)
        steps = np.asarray(state.step)
        if steps.shape != (len(seeds),) or (steps != steps[0]).any():
            raise InputError(
                f"state.step={steps.tolist()} must hold one number of updates for each "
                f"of the {len(seeds)} seeds, the same for all"
            )
    return pass_through(
        lambda: initial_states(model, data, tx, seeds) if state is None else state,
        model,
        data,
        tx,
        config,
        yield_every=yield_every,
        yield_at=yield_at,
        donate=donate,
    )


def check_together(model: nn.Module, data: Dataset | StreamedDataset) -> None:
    """Raises InputError where `fit_seeds` would not train these together."""
    if isinstance(data, StreamedDataset):
        raise InputError(
            f"dataset={data.name!r} is streamed, and each seed would read other "
            "examples; hold it in memory (lrscape.data.load), or train seed by seed"
        )
    if _convolves_on_cpu(model, data):
        raise InputError(
            f"model={type(model).__name__} has convolutions, which on CPU are many "
            "times slower for several networks together; train them one after another"
        )


def initial_states(
    model: nn.Module,
    data: Dataset,
    tx: optax.GradientTransformation,
    seeds: Sequence[int],
) -> TrainState:
    """The states of `lrscape.training.initial_state` for each seed, stacked."""
    seeds = _checked(seeds)
    state_of = make_initial_state(model, data, tx)
    return stacked([state_of(seed) for seed in seeds])


def stacked(states: Sequence[TrainState]) -> TrainState:
    """States as one, each leaf with a leading axis of their number."""
    given = checks.sequence("states", states)
    if not given:
        raise InputError("states=[] holds no state")
    for n, state in enumerate(given):
        check_state(state, f"states[{n}]")
    shapes = [jax.tree.map(lambda leaf: np.shape(leaf), state) for state in given]
    for n, other in enumerate(shapes):
        if other != shapes[0]:
            raise InputError(
                f"states[{n}] has another structure or other shapes than states[0]; "
                "states of one network are stacked"
            )
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *given)


def unstacked(state: TrainState) -> list[TrainState]:
    """The states that were `stacked`."""
    check_state(state)
    if np.ndim(state.step) != 1:
        raise InputError(
            f"state.step={checks.shown(state.step)}: this is the state of one network, "
            "and not of several that were stacked"
        )
    return [_row(state, n) for n in range(len(state.step))]


@jax.jit
def _row(state, n):
    return jax.tree.map(lambda leaf: leaf[n], state)


class Choice(NamedTuple):
    """Whether to train seeds together, and why.

    Attributes:
        together: in one program, rather than one after another.
        ratio: the time of an update of all together over that of as many updates one
            after another; None where it was not measured.
        why: a sentence.
    """

    together: bool
    ratio: float | None
    why: str


def choose_together(
    model: nn.Module,
    data: Dataset | StreamedDataset,
    tx: optax.GradientTransformation,
    config: Config,
    seeds: Sequence[int],
) -> Choice:
    """Chooses whether `fit_seeds` trains faster than `fit` seed by seed.

    Both programs are compiled and a few updates of each are timed, in turn; evaluation
    and logging, which are the same in both cases, are left out.

    Args:
        model: see `fit_seeds`; likewise all that follows.
        data: theirs.
        tx: theirs.
        config: theirs.
        seeds: one a network.

    Returns:
        The choice; one after another without a measurement where there is one seed, a
        stream, or a network with convolutions on CPU.

    Raises:
        InputError: see `fit_seeds`.
    """
    seeds = _checked(seeds)
    for apart, why in (
        (len(seeds) == 1, "there is one seed"),
        (isinstance(data, StreamedDataset), "the data are streamed"),
        (_convolves_on_cpu(model, data), "the network has convolutions, on CPU"),
    ):
        if apart:
            return Choice(False, None, f"one after another: {why}")
    assert isinstance(data, Dataset)
    length = scan_steps(config, choose_devices(config.num_devices, config.batch_size))
    updates = (2 + REPEATS) * length
    # What else a run's configuration holds may not go with so few epochs.
    own = {f.name: getattr(config, f.name) for f in dataclasses.fields(Config)}
    config = Config(**{**own, "epochs": -(-updates // config.steps_per_epoch(data))})
    one = dataclasses.replace(config, seed=seeds[0])
    try:
        apart_, together_ = _timed(
            fit(model, data, tx, one, yield_every=length, donate=True),
            fit_seeds(model, data, tx, config, seeds, yield_every=length, donate=True),
        )
    except NonFiniteLossError:
        return Choice(False, None, "one after another: a first seed turned non-finite")
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        return Choice(False, None, "one after another: together they need more memory")
    ratio = together_ / (len(seeds) * apart_)
    what = "in one program" if ratio < 1 else "one after another"
    why = f"{what}: an update of all together takes {ratio:.2f} of the time of as many"
    return Choice(ratio < 1, ratio, f"{why} one after another")


def _timed(*runs: Generator[TrainState, TrainState | None]) -> list[float]:
    """The median seconds of a call of each."""
    seconds: list[list[float]] = [[] for _ in runs]
    for _ in range(2 + REPEATS):
        for states, found in zip(runs, seconds, strict=True):
            started = time.perf_counter()
            jax.block_until_ready(next(states))
            found.append(time.perf_counter() - started)
    return [float(np.median(found[2:])) for found in seconds]


def _checked(seeds: Sequence[int]) -> list[int]:
    """The seeds as a list; raises InputError where they cannot be used."""
    seeds = [checks.seed("seed", seed) for seed in checks.sequence("seeds", seeds)]
    if not seeds:
        raise InputError("seeds=[] names no network to train; give one seed or more")
    if len(set(seeds)) < len(seeds):
        raise InputError(f"seeds={seeds} has equal ones, which give equal networks")
    return seeds


def _convolves_on_cpu(model: nn.Module, data: Dataset | StreamedDataset) -> bool:
    """Whether several networks together would be grouped convolutions on CPU."""
    if jax.default_backend() != "cpu":
        return False
    image = jax.ShapeDtypeStruct((1, *data.image_shape), jnp.float32)

    def applied(key, image):
        return model.init_with_output(key, image, train=False)

    jaxpr = jax.make_jaxpr(applied)(jax.random.key(0), image)
    return any(True for _ in convolutions(jaxpr.jaxpr))
