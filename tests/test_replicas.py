"""Several seeds in one program: each as `fit` alone would have trained it."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from experiments.digits import PRESETS
from experiments.harness.arguments import resolve
from lrscape import data, models, training, transforms
from lrscape.errors import InputError
from lrscape.training import (
    Config,
    NonFiniteLossError,
    averages,
    fit,
    fit_seeds,
    replicas,
    stacked,
    unstacked,
)
from lrscape.transforms import scale_by_gaussian

SEEDS = (3, 0)


@pytest.fixture(scope="module")
def digits():
    """A tenth of the digits, so that an epoch is a few updates."""
    whole = data.load("digits")
    return data.Dataset(
        name="digits", num_classes=10, max_value=16,
        train=whole.train.take(np.arange(150)), test=whole.test.take(np.arange(100)),
    )  # fmt: skip


class Dropping(nn.Module):
    """Everything that a seed decides, and batch norm."""

    axis_name: str | None = None

    @nn.compact
    def __call__(self, x, *, train):
        x = nn.Dense(24)(x.reshape(len(x), -1))
        x = nn.BatchNorm(use_running_average=not train, axis_name=self.axis_name)(x)
        x = nn.Dropout(0.3, deterministic=not train)(nn.relu(x))
        return nn.Dense(10)(x)


def config(**changes):
    return Config(**{"epochs": 2, "batch_size": 32, "num_devices": 1, **changes})


def tx_for(settings, digits):
    steps = settings.total_steps(digits)
    return optax.chain(optax.trace(0.9), scale_by_gaussian(0.3, steps, start_value=0.1))


def numbers(state):
    return state.replace(key=jax.random.key_data(state.key))


def assert_close(a, b, rtol=2e-4, atol=2e-5):
    jax.tree.map(
        lambda x, y: np.testing.assert_allclose(x, y, rtol=rtol, atol=atol),
        numbers(a), numbers(b),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("num_devices", "scan"),
    [
        (1, 1),
        (2, 3),
        pytest.param(2, 1, marks=pytest.mark.slow),
        pytest.param(1, 100, marks=pytest.mark.slow),
    ],
)
def test_each_is_as_it_would_be_alone(digits, num_devices, scan):
    """Weights, order, augmentation, dropout and batch norm, over two epochs."""
    settings = config(
        num_devices=num_devices, scan_steps=scan, augment=("crop", "flip"),
        log_every=3,
    )  # fmt: skip
    tx = tx_for(settings, digits)
    options = {"yield_every": 3, "yield_at": lambda step: step == 5}
    together = [
        unstacked(state)
        for state in fit_seeds(Dropping(), digits, tx, settings, SEEDS, **options)
    ]
    assert [int(states[0].step) for states in together] == [3, 5, 6, 8]
    for n, seed in enumerate(SEEDS):
        alone = config(**{**vars(settings), "seed": seed})
        for states, state in zip(
            together, fit(Dropping(), digits, tx, alone, **options), strict=True
        ):
            assert_close(states[n], state)
    losses = {averages(state)["loss"] for state in together[-1]}
    assert len(losses) == len(SEEDS)


def test_they_start_as_alone_to_the_last_bit(digits):
    tx = tx_for(config(), digits)
    states = unstacked(training.initial_states(Dropping(), digits, tx, SEEDS))
    for seed, state in zip(SEEDS, states, strict=True):
        alone = training.initial_state(Dropping(), digits, tx, seed)
        jax.tree.map(np.testing.assert_array_equal, numbers(state), numbers(alone))


def test_goes_on_from_any_states_and_donates(digits):
    settings, tx = config(), tx_for(config(), digits)
    whole = list(fit_seeds(Dropping(), digits, tx, settings, SEEDS))
    middle = stacked(unstacked(whole[4]))
    resumed = list(
        fit_seeds(
            Dropping(), digits, tx, settings, SEEDS, state=middle, donate=True,
            yield_every=100,
        )
    )  # fmt: skip
    assert len(resumed) == 1
    jax.tree.map(np.testing.assert_array_equal, numbers(resumed[0]), numbers(whole[-1]))
    assert not any(leaf.is_deleted() for leaf in jax.tree.leaves(numbers(middle)))


def spoiled(digits, tx, seeds, which):
    """States of which some have weights that are not finite."""
    states = unstacked(training.initial_states(Dropping(), digits, tx, seeds))
    for n in which:
        params = jax.tree.map(lambda leaf: leaf * jnp.nan, states[n].params)
        states[n] = states[n].replace(params=params)
    return stacked(states)


@pytest.mark.parametrize("scan", [1, pytest.param(100, marks=pytest.mark.slow)])
def test_one_that_fails_disturbs_no_other(digits, scan):
    settings = config(scan_steps=scan)
    tx = tx_for(settings, digits)
    state = spoiled(digits, tx, SEEDS, [1])
    found = list(
        fit_seeds(Dropping(), digits, tx, settings, SEEDS, state=state, yield_every=8)
    )[-1]
    undisturbed = list(
        fit_seeds(Dropping(), digits, tx, settings, SEEDS, yield_every=8)
    )[-1]
    assert found.first_bad_step.tolist() == [-1, 0]
    jax.tree.map(
        np.testing.assert_array_equal,
        numbers(unstacked(found)[0]), numbers(unstacked(undisturbed)[0]),
    )  # fmt: skip
    everyone = spoiled(digits, tx, SEEDS, [0, 1])
    with pytest.raises(NonFiniteLossError, match="at step 0"):
        list(fit_seeds(Dropping(), digits, tx, settings, SEEDS, state=everyone))


@pytest.mark.slow
def test_optimizers_that_branch(digits):
    """What a transformation chooses by its count is chosen for each network."""
    settings = config()
    tx = transforms.switch([optax.sgd(0.01), optax.sgd(0.1, momentum=0.9)], [3])
    model = models.create("mlp", num_classes=10, features=(8,))
    *_, last = fit_seeds(model, digits, tx, settings, SEEDS)
    for seed, state in zip(SEEDS, unstacked(last), strict=True):
        *_, alone = fit(model, digits, tx, config(seed=seed))
        assert_close(state, alone)


def test_convolutions_are_not_stacked_on_cpu(digits, monkeypatch):
    settings, model = config(), models.create("cnn", num_classes=10, features=(4,))
    tx = tx_for(settings, digits)
    with pytest.raises(InputError, match="CNN has convolutions, which on CPU"):
        fit_seeds(model, digits, tx, settings, SEEDS)
    choice = replicas.choose_together(model, digits, tx, settings, SEEDS)
    assert (choice.together, choice.ratio) == (False, None)
    assert "convolutions" in choice.why
    # Elsewhere they may be, and are the same networks.
    monkeypatch.setattr(replicas, "_convolves_on_cpu", lambda *a: False)
    state = next(fit_seeds(model, digits, tx, settings, SEEDS))
    for seed, own in zip(SEEDS, unstacked(state), strict=True):
        assert_close(own, next(fit(model, digits, tx, config(seed=seed))))


@pytest.mark.parametrize(
    ("seconds", "together"), [((1.0, 1.5), True), ((1.0, 2.5), False)]
)
def test_the_choice_follows_the_measurement(digits, monkeypatch, seconds, together):
    monkeypatch.setattr(replicas, "_timed", lambda *runs: list(seconds))
    arguments = Dropping(), digits, tx_for(config(), digits), config()
    choice = replicas.choose_together(*arguments, SEEDS)
    assert choice.together == together
    assert choice.ratio == pytest.approx(seconds[1] / 2)
    assert f"{choice.ratio:.2f}" in choice.why
    assert not replicas.choose_together(*arguments, [5]).together
    # A run's settings hold what does not go with as few epochs as are timed.
    run = resolve(
        "digits", PRESETS, "quick", {"snapshot_epochs": [20], "num_devices": 1}, None
    )
    assert replicas.choose_together(*arguments[:3], run, SEEDS).together == together

    def out_of_memory(*runs):
        raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: out of memory")

    monkeypatch.setattr(replicas, "_timed", out_of_memory)
    choice = replicas.choose_together(*arguments, SEEDS)
    assert not choice.together and "memory" in choice.why

    def not_finite(*runs):
        raise NonFiniteLossError(3)

    monkeypatch.setattr(replicas, "_timed", not_finite)
    choice = replicas.choose_together(*arguments, SEEDS)
    assert not choice.together and "non-finite" in choice.why


def test_the_choice_is_measured(digits):
    """Even of a run that is shorter than what is timed."""
    settings = config(epochs=1)
    choice = replicas.choose_together(
        Dropping(), digits, tx_for(settings, digits), settings, SEEDS
    )
    assert choice.together == (choice.ratio < 1)


@pytest.mark.parametrize(
    ("seeds", "words"),
    [
        ((), "names no network"),
        ((1, 2, 1), r"seeds=\[1, 2, 1\] has equal ones"),
        ((0, -1), "seed=-1"),
        ((0, 1.5), "seed=1.5"),
    ],
)
def test_bad_seeds(digits, seeds, words):
    with pytest.raises(InputError, match=words):
        fit_seeds(Dropping(), digits, optax.sgd(0.1), config(), seeds)


def test_bad_states(digits):
    tx = optax.sgd(0.1)
    state = training.initial_states(Dropping(), digits, tx, SEEDS)
    with pytest.raises(InputError, match=r"state.step=\[0, 0\].*3 seeds"):
        fit_seeds(Dropping(), digits, tx, config(), (0, 1, 2), state=state)
    uneven = state.replace(step=jnp.array([0, 1]))
    with pytest.raises(InputError, match=r"state.step=\[0, 1\]"):
        fit_seeds(Dropping(), digits, tx, config(), SEEDS, state=uneven)
    with pytest.raises(InputError, match="opt_state is not of this tx"):
        fit_seeds(Dropping(), digits, optax.adam(0.1), config(), SEEDS, state=state)
