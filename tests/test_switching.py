"""A switch against its optimizers alone, and in training."""

from typing import NamedTuple

import jax
import jax.monitoring
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from lrscape import data, models, schedules, transforms
from lrscape.errors import InputError
from lrscape.training import Config, fit, initial_state, learning_rate
from lrscape.transforms import switch

PARAMS = {"a": jnp.array([1.0, -2.0]), "b": {"c": jnp.array(3.0)}}


def loss(params):
    return sum(jnp.sum(jnp.sin(leaf) + leaf**2) for leaf in jax.tree.leaves(params))


class PulledState(NamedTuple):
    start: optax.Params


def pulled(rate):
    """Back towards the parameters that it began at, which its state depends on."""

    def update(updates, state, params=None):
        updates = jax.tree.map(
            lambda g, p, s: -rate * (g + p - s), updates, params, state.start
        )
        return updates, state

    return optax.GradientTransformation(PulledState, update)


def scheduled():
    return optax.chain(optax.trace(0.9), transforms.scale_by_gaussian(0.1, 6))


# As its own boundary: none, and at once after the first update.
OPTIMIZERS = [
    (lambda: optax.adam(schedules.step(0.1, 4, milestones=(0.5,))), 3),
    (scheduled, 4),
    (lambda: pulled(0.1), 3),
    (scheduled, 5),
]


def assert_same(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)


def assert_close(a, b):
    jax.tree.map(
        lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-6, atol=1e-7), a, b
    )


@jax.numpy_dtype_promotion("standard")  # Optax's Adam is not strict
def test_each_optimizer_starts_fresh_at_its_switch():
    """As if each had been made there, and touched no more once it is over."""
    lengths = [length for _, length in OPTIMIZERS]
    tx = switch([make() for make, _ in OPTIMIZERS], np.cumsum(lengths[:-1]))
    update, gradient_at = jax.jit(tx.update), jax.jit(jax.grad(loss))
    params = alone = PARAMS
    state = tx.init(params)
    for i, (make, length) in enumerate(OPTIMIZERS):
        own = make()
        own_state, own_update = own.init(alone), jax.jit(own.update)
        before = state.states
        for _ in range(length):
            updates, state = update(gradient_at(params), state, params)
            params = optax.apply_updates(params, updates)
            updates, own_state = own_update(gradient_at(alone), own_state, alone)
            alone = optax.apply_updates(alone, updates)
            assert_close(params, alone)
            assert state.active == i
            for j, others in enumerate(state.states):
                if j != i:
                    assert_same(others, before[j])
        assert_close(state.states[i], own_state)
    assert state.count == sum(lengths)


@jax.numpy_dtype_promotion("standard")
def test_only_the_active_one_is_computed():
    computed = []

    def told(name):
        def update(updates, state, params=None):
            jax.debug.callback(lambda: computed.append(name))
            return updates, state

        return optax.GradientTransformation(lambda params: optax.EmptyState(), update)

    tx = switch([told("a"), told("b"), told("c")], [2, 3])
    update, state = jax.jit(tx.update), tx.init(PARAMS)
    for _ in range(5):
        _, state = update(PARAMS, state, PARAMS)
        jax.effects_barrier()
    assert computed == ["a", "a", "b", "c", "c"]


@jax.numpy_dtype_promotion("standard")
def test_one_program_before_and_after():
    """States of every kind, among them weakly typed ones and keys."""
    tx = switch(
        [
            optax.inject_hyperparams(optax.adam)(learning_rate=0.1),
            optax.add_noise(0.1, 0.5, key=jax.random.key(0)),
            optax.contrib.prodigy(0.1),
            optax.sgd(0.1, momentum=0.9, accumulator_dtype=jnp.bfloat16),
            optax.MultiSteps(optax.adadelta(1.0), 2).gradient_transformation(),
        ],
        [2, 4, 6, 8],
    )
    update, state = jax.jit(tx.update), tx.init(PARAMS)
    for n in range(10):
        kinds = jax.tree.map(jnp.result_type, state)
        updates, state = update(PARAMS, state, PARAMS)
        assert jax.tree.map(jnp.result_type, state) == kinds
        assert state.active == n // 2
        assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(updates))
    assert update._cache_size() == 1


@jax.numpy_dtype_promotion("standard")
def test_passes_extra_arguments_to_the_active_one():
    tx = switch(
        [
            transforms.scale_by_lipschitz(num_classes=2, batch_size=4),
            optax.chain(transforms.runge_kutta("midpoint", 0.5), optax.sgd(1.0)),
            optax.contrib.reduce_on_plateau(patience=1, factor=0.5),
        ],
        [1, 2],
    )
    state, seen = tx.init(PARAMS), []
    for _ in range(5):
        updates, state = tx.update(
            PARAMS, state, PARAMS,
            value=jnp.float32(2.0), activation_norm=16.0,
            grad_fn=lambda params: jax.tree.map(lambda p: 3 * p, params),
        )  # fmt: skip
        ratio = jax.tree.map(lambda u, p: u / p, updates, PARAMS)
        seen.append(ratio["b"]["c"].item())
    # 1 / K = 0.5; midpoint of a gradient 3 p half a step of p ahead; a plateau, which
    # its first update cannot know of.
    np.testing.assert_allclose(seen, [-0.5, -3 * 0.75, 1.0, 0.5, 0.25], rtol=1e-6)


def test_learning_rate_is_the_active_ones():
    inner = switch(
        [transforms.scale_by_step(0.5, 2, milestones=(0.5,)), optax.sgd(1.0)], [2]
    )
    last = transforms.scale_by_rate(lambda count: 0.25)
    tx = optax.chain(optax.trace(0.9), switch([optax.sgd(0.1), inner, last], [1, 4]))
    state, rates = tx.init(PARAMS), []
    assert learning_rate(state) is None
    for _ in range(5):
        _, state = tx.update(PARAMS, state, PARAMS)
        rates.append(learning_rate(state))
    # The first keeps no rate, nor does the last of the inner one.
    assert rates[0] is None and rates[3] is None
    np.testing.assert_allclose([*rates[1:3], rates[4]], [0.5, 0.05, 0.25], rtol=1e-6)


@pytest.mark.parametrize(
    ("count", "boundaries", "words"),
    [
        (2, [], r"boundaries=\[\] must be one fewer than the transforms, which are 2"),
        (2, [1, 2], "one fewer than the transforms"),
        (0, [], "which are 0"),
        (3, [4, 2], r"boundaries=\[4, 2\] must increase"),
        (3, [4, 4], "must increase"),
        (2, [0], "boundaries=0 must be at least 1 update"),
        (2, [-3], "boundaries=-3 must be at least 1"),
        (2, [1.5], r"boundaries=1\.5 must be a whole number"),
        (2, [True], "boundaries=True must be a whole number"),
    ],
)
def test_bad_boundaries(count, boundaries, words):
    with pytest.raises(InputError, match=words):
        switch([optax.sgd(0.1)] * count, boundaries)


def test_other_bad_input():
    with pytest.raises(InputError, match=r"transforms\[1\]=0\.1 must be an Optax"):
        switch([optax.sgd(0.1), 0.1], [3])
    tx = switch([optax.sgd(0.1), optax.sgd(0.2)], [3])
    with pytest.raises(InputError, match="switch: params=None"):
        tx.update(PARAMS, tx.init(PARAMS))
    # One optimizer needs no boundary, and a single boundary no list.
    switch([optax.sgd(0.1)], [])
    switch([optax.sgd(0.1), optax.sgd(0.2)], 3)


# In training.


@pytest.fixture(scope="module")
def digits():
    return data.load("digits", examples=96, test_examples=10)


def for_training():
    """Among them one whose second gradient is averaged over devices in its branch."""
    return switch(
        [
            transforms.scale_by_rate(lambda count: 0.1),
            optax.chain(
                transforms.runge_kutta("heun", 0.2),
                optax.trace(0.9),
                transforms.scale_by_rate(lambda count: 0.2),
            ),
        ],
        [2],
    )


def test_in_training_on_one_device_and_two(digits):
    """Compiled once, equal to rounding, and resumed across the switch bit for bit."""
    model = models.create("mlp", num_classes=10, features=(16,))
    ended = {}
    for num_devices in (1, 2):
        config = Config(epochs=2, batch_size=32, num_devices=num_devices)
        compiled = []

        def listen(event, duration, compiled=compiled, **details):
            if event == "/jax/core/compile/backend_compile_duration":
                compiled.append(details.get("fun_name"))

        start = initial_state(model, digits, for_training(), 0)
        states = fit(model, digits, for_training(), config, state=start)
        ended[num_devices] = [next(states)]
        jax.monitoring.register_event_duration_secs_listener(listen)
        try:
            ended[num_devices] += list(states)
        finally:
            jax.monitoring.unregister_event_duration_listener(listen)
        assert compiled == []
    for a, b in zip(*ended.values(), strict=True):
        jax.tree.map(
            lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-3, atol=1e-4),
            (a.params, a.batch_stats), (b.params, b.batch_stats),
        )  # fmt: skip
    rates = [float(learning_rate(state.opt_state)) for state in ended[2]]
    np.testing.assert_allclose(rates, [0.1, 0.1, 0.2, 0.2, 0.2, 0.2], rtol=1e-6)
    config = Config(epochs=2, batch_size=32, num_devices=1)
    again = list(fit(model, digits, for_training(), config, state=ended[1][0]))
    assert_same(again[-1].params, ended[1][-1].params)
    assert_same(again[-1].opt_state, ended[1][-1].opt_state)
