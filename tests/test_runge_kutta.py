"""Runge-Kutta gradients against Taylor series, and in training."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from lrscape import data, models, transforms
from lrscape.errors import InputError
from lrscape.training import Config, fit, initial_state
from lrscape.training.fit import epoch_order
from lrscape.training.state import DROPOUT
from lrscape.transforms.runge_kutta import METHODS


def rosenbrock(w):
    return (1 - w[0]) ** 2 + 100 * (w[1] - w[0] ** 2) ** 2


def step(method, rate, gradient_at, params):
    """One step of SGD behind it."""
    tx = transforms.runge_kutta(method, rate)
    updates, _ = tx.update(
        gradient_at(params), tx.init(params), params, grad_fn=gradient_at
    )
    return jax.tree.map(lambda p, u: p - rate * u, params, updates)


@pytest.mark.parametrize(
    ("method", "a1", "a2", "q1"),
    [
        ("midpoint", 0, 1, 1 / 2),
        ("heun", 1 / 2, 1 / 2, 1),
        ("ralston", 1 / 3, 2 / 3, 3 / 4),
    ],
)
def test_coefficients(method, a1, a2, q1):
    """Where the second gradient is taken, and what becomes of the two."""
    asked = []

    def gradient_at(params):
        asked.append(params)
        return {"w": jnp.array([100.0])}

    tx = transforms.runge_kutta(method, lambda count: 0.5 / (1.0 + count.astype(float)))
    params, k1 = {"w": jnp.array([7.0])}, {"w": jnp.array([3.0])}
    state = tx.init(params)
    for h in (0.5, 0.25):  # a schedule of the updates made
        updates, state = tx.update(k1, state, params, grad_fn=gradient_at)
        np.testing.assert_allclose(asked.pop()["w"], 7 - q1 * h * 3, rtol=1e-6)
        np.testing.assert_allclose(updates["w"], a1 * 3 + a2 * 100, rtol=1e-6)
    assert asked == [] and state.count == 2


@pytest.mark.parametrize("method", METHODS)
def test_closed_form_on_a_quadratic(method, x64):
    """The exponential of -hA up to its second power, whatever the method."""
    random = np.random.default_rng(0)
    root, b = random.normal(size=(5, 5)), random.normal(size=5)
    A, w, h = root @ root.T, random.normal(size=5), 0.07
    moved = step(method, h, lambda p: jnp.asarray(A) @ p + b, jnp.asarray(w))
    minimum = -np.linalg.solve(A, b)
    series = np.eye(5) - h * A + h**2 / 2 * A @ A
    np.testing.assert_allclose(moved, minimum + series @ (w - minimum), rtol=1e-10)


@pytest.mark.parametrize("method", METHODS)
def test_error_of_a_step_falls_with_the_cube_of_the_rate(method, x64):
    """On the gradient flow of w^4 / 4, w / sqrt(1 + 2 w^2 t), and SGD's with h^2."""
    w = jnp.array([1.0, -0.7, 1.6])

    def errors(step_to):
        rates = 0.01 / 2.0 ** np.arange(4)
        return np.array(
            [np.abs(step_to(h) - w / np.sqrt(1 + 2 * w**2 * h)) for h in rates]
        )

    ours = errors(lambda h: step(method, h, lambda p: p**3, w))
    np.testing.assert_allclose(ours[:-1] / ours[1:], 8, rtol=0.1)
    sgd = errors(lambda h: w - h * w**3)
    np.testing.assert_allclose(sgd[:-1] / sgd[1:], 4, rtol=0.1)


@pytest.mark.parametrize("method", METHODS)
def test_follows_the_gradient_flow_to_second_order(method, x64):
    """At a fixed time the error falls with the square of the rate."""

    def error(num_steps):
        h = 1 / num_steps
        move = jax.jit(lambda p: step(method, h, lambda q: q**3, p))
        p = jnp.array([1.0])
        for _ in range(num_steps):
            p = move(p)
        return abs(p.item() - 3**-0.5)

    np.testing.assert_allclose(error(20) / error(40), 4, rtol=0.1)
    # Where the gradient does not change, there is no error at all.
    constant = step(method, 0.5, lambda p: jnp.array([4.0]), jnp.array([1.0]))
    np.testing.assert_allclose(constant, -1, rtol=1e-15)


@pytest.mark.parametrize("optimizer", [optax.sgd, optax.adam])
@pytest.mark.parametrize("method", METHODS)
@jax.numpy_dtype_promotion("standard")  # Optax's Adam is not strict
def test_rosenbrock_inside_scan(optimizer, method):
    tx = optax.chain(transforms.runge_kutta(method, 1e-3), optimizer(1e-3))
    gradient_at = jax.grad(rosenbrock)

    def update(carry, _):
        params, state = carry
        updates, state = tx.update(
            gradient_at(params), state, params, grad_fn=gradient_at
        )
        return (optax.apply_updates(params, updates), state), None

    start = jnp.array([-1.2, 1.0])
    run = jax.jit(lambda p: jax.lax.scan(update, (p, tx.init(p)), None, length=30_000))
    (params, _), _ = run(start)
    np.testing.assert_allclose(params, 1, atol=2e-3)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("huen", 0.1), "method='huen' is unknown; did you mean 'heun'"),
        (("heun", 0.0), r"runge_kutta: learning_rate=0\.0 must be positive"),
        (("heun", "0.1"), "learning_rate='0.1' must be a number"),
        (("heun", float("inf")), "learning_rate=inf must be positive and finite"),
    ],
)
def test_bad_settings(arguments, words):
    with pytest.raises(InputError, match=words):
        transforms.runge_kutta(*arguments)


def test_what_an_update_needs():
    tx = optax.chain(transforms.runge_kutta("heun", 0.1), optax.sgd(0.1))
    w = jnp.ones(2)
    with pytest.raises(InputError, match=r"grad_fn=None; call update\(gradient, state"):
        tx.update(w, tx.init(w), w)
    with pytest.raises(InputError, match="params=None"):
        tx.update(w, tx.init(w), grad_fn=lambda p: p)


# In training.


@pytest.fixture(scope="module")
def digits():
    return data.load("digits", examples=96, test_examples=10)


TRACED = []


class Noisy(nn.Module):
    """A model whose gradient depends on all that must be the same twice."""

    @nn.compact
    def __call__(self, x, *, train):
        TRACED.append(train)
        x = nn.Dense(8)(x.reshape(x.shape[0], -1))
        x = nn.BatchNorm(use_running_average=not train)(x)
        # Batch statistics that a loss depends on, as only the first pass sees them.
        seen = self.get_variable("batch_stats", "BatchNorm_0")
        x = nn.relu(x + jax.lax.stop_gradient(seen["mean"] if seen else 0.0)[None])
        x = nn.Dropout(0.5, deterministic=not train)(x)
        return nn.Dense(10)(x)


def settings(**fields):
    fields = {"epochs": 1, "batch_size": 32, "num_devices": 1, **fields}
    return Config(sync_batch_norm=fields["num_devices"] == 1, **fields)


def heun(rate=0.3):
    return optax.chain(transforms.runge_kutta("heun", rate), optax.sgd(rate))


@pytest.mark.slow
def test_training_passes_the_gradient_of_the_same_update(digits):
    """Written out: the same images, dropout and batch statistics, twice."""
    model, config = Noisy(), settings()
    state = initial_state(model, digits, heun(), config.seed)
    order = epoch_order(state.key, 0, 96)
    mean, scale = digits.normalization("standardize")
    for n, trained in enumerate(fit(model, digits, heun(), config)):
        batch = order[32 * n : 32 * n + 32]
        x = jnp.asarray((digits.train.image[batch] - mean[None]) / scale[None])
        key = state.key
        for number in (DROPOUT, n, 0):  # the step, the device
            key = jax.random.fold_in(key, number)

        @jax.jit
        def gradient_at(params, x=x, y=digits.train.label[batch], key=key, s=state):
            def loss(p):
                logits, updated = model.apply(
                    {"params": p, "batch_stats": s.batch_stats}, x, train=True,
                    mutable=["batch_stats"], rngs={"dropout": key},
                )  # fmt: skip
                rows = jnp.arange(len(y))
                losses = jax.nn.logsumexp(logits, axis=1) - logits[rows, y]
                return losses.mean(), updated["batch_stats"]

            return jax.grad(loss, has_aux=True)(params)

        k1, batch_stats = gradient_at(state.params)
        ahead = jax.tree.map(lambda p, k: p - 0.3 * k, state.params, k1)
        k2, _ = gradient_at(ahead)
        expected = jax.tree.map(
            lambda p, x, y: p - 0.15 * x - 0.15 * y, state.params, k1, k2
        )
        for a, b in (
            (trained.params, expected),
            # Those of the first pass, at the parameters before the update.
            (trained.batch_stats, batch_stats),
        ):
            jax.tree.map(
                lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5),
                a, b,
            )  # fmt: skip
        state = trained
    assert int(state.step) == 3


@pytest.mark.parametrize("name", ["mlp", "cnn"])
def test_devices_change_nothing(digits, name):
    fields = {"features": (16,)} if name == "mlp" else {"features": (4,), "width": 8}
    model = models.create(name, num_classes=10, **fields)
    one, two = (
        list(fit(model, digits, heun(0.1), Config(
            epochs=1, batch_size=32, num_devices=n, augment=("crop",))))
        for n in (1, 2)
    )  # fmt: skip
    for a, b in zip(one, two, strict=True):
        for x, y in ((a.params, b.params), (a.batch_stats, b.batch_stats)):
            jax.tree.map(
                lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-3, atol=1e-4),
                x, y,
            )  # fmt: skip
    for leaf in jax.tree.leaves(two[-1].params):
        copies = [np.asarray(shard.data) for shard in leaf.addressable_shards]
        assert len(copies) == 2 and (copies[0] == copies[1]).all()


def test_costs_nothing_where_nobody_asks(digits):
    """The network is in the program once, and twice where it is called for."""
    for tx, times in ((optax.sgd(0.1), 1), (heun(), 2)):
        config = settings()
        start = initial_state(Noisy(), digits, tx, 0)
        TRACED.clear()
        list(fit(Noisy(), digits, tx, config, state=start))
        # In eval mode its outputs are looked at, which is no part of the program.
        assert TRACED.count(True) == times
