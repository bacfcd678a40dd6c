"""Curvature beside the rate, over training; moments together; double precision."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from lrscape import data, models, training, transforms
from lrscape.errors import InputError
from lrscape.landscape import (
    CurvatureTrack,
    Operator,
    flax_objective,
    frobenius_norm,
    hvp,
    in_double,
    mean_objective,
    spectral_norm,
    trace,
)
from lrscape.training import Config


def bowl(w):
    """Curvature grows along the first axis with the place."""
    return w[0] ** 4 / 12 + jnp.sum(w[1:] ** 2) / 2


def test_the_track_follows_the_dominant_eigenvalue():
    track = CurvatureTrack(bowl, key=jax.random.key(0), tolerance=1e-6)
    rates = [0.1, 0.2, None]
    for step, (first, rate) in enumerate(zip([3.0, 2.0, 1.5], rates, strict=True)):
        track.record(10 * step, jnp.array([first, 1.0, 1.0]), learning_rate=rate)
    found = track.to_dataset()
    np.testing.assert_array_equal(found["step"], [0, 10, 20])
    np.testing.assert_allclose(found["eigenvalue"], [9, 4, 2.25], rtol=1e-4)
    np.testing.assert_allclose(found["spectral_norm"], found["eigenvalue"], rtol=1e-4)
    np.testing.assert_allclose(found["limit"], [20, 10, np.nan], rtol=1e-6)
    assert np.isnan(found["alignment"].values[0])
    np.testing.assert_allclose(found["alignment"].values[1:], 1, atol=1e-3)
    assert track.settings["kind"] == "hessian"


def test_the_last_eigenvector_saves_products():
    random = np.random.default_rng(0)
    root = jnp.asarray(random.normal(size=(60, 60)) / 60**0.5, jnp.float32)
    track = CurvatureTrack(lambda w: jnp.sum((root @ w) ** 4), key=jax.random.key(0))
    for step in range(4):
        track.record(step, 1 + 0.02 * step * jnp.arange(60.0) / 60)
    products = track.to_dataset()["products"].values
    assert products[0] > 5 and (products[1:] <= products[0]).all()
    assert track.to_dataset()["converged"].all()


@pytest.mark.parametrize("ratio", [1.5, 4, 20])
@pytest.mark.parametrize("size", [3, 100, 20_000])
def test_an_eigenvector_that_overtakes_is_found(size, ratio):
    """The last one is an exact eigenvector still, and no longer the dominant one."""

    def loss(w):
        bulk = jnp.linspace(0, 0.2, size - 2)
        return w[0] ** 4 / 12 + ratio * w[1] ** 2 / 2 + jnp.sum(bulk * w[2:] ** 2) / 2

    track = CurvatureTrack(loss, key=jax.random.key(0))
    first, second = (jnp.ones(size).at[0].set(at) for at in (10.0, 1.0))
    np.testing.assert_allclose(track.record(0, first).eigenvalue, 100, rtol=0.02)
    found = track.record(1, second)
    np.testing.assert_allclose(found.eigenvalue, ratio, rtol=0.02)
    assert found.converged and found.products < 30
    assert track.to_dataset()["alignment"].values[1] < 0.3


def test_a_block_is_tracked_like_a_whole():
    def loss(p):
        bulk = jnp.sum(jnp.linspace(0, 0.2, 18) * p["a"][2:] ** 2) / 2
        return p["a"][0] ** 4 / 12 + 2 * p["a"][1] ** 2 + bulk + jnp.sum(p["b"] ** 2)

    track = CurvatureTrack(loss, key=jax.random.key(0), mask=lambda path: path == "a")
    for step, (at, expected) in enumerate([(10.0, 100), (1.0, 4)]):
        point = {"a": jnp.ones(20).at[0].set(at), "b": jnp.ones(10_000)}
        found = track.record(step, point)
        np.testing.assert_allclose(found.eigenvalue, expected, rtol=0.02)
        assert not found.eigenvector["b"].any()


@pytest.mark.slow
def test_during_training_and_like_measuring_apart():
    """Beside the rate that the optimizer used, for any state that `fit` yields."""
    digits = data.load("digits")
    model = models.create("mlp", num_classes=10, features=(8,))
    inputs = jnp.asarray(digits.train.image[:64], jnp.float32) / 16
    objective = flax_objective(
        model, (inputs, digits.train.label[:64]), norm="train", batch_size=32
    )
    tx = optax.chain(transforms.scale_by_gaussian(0.3, 24))
    config = Config(epochs=1, batch_size=128, num_devices=1)
    track = CurvatureTrack(objective, key=jax.random.key(0), tolerance=1e-3)
    kept = []
    for state in training.fit(model, digits, tx, config, yield_every=4):
        rate = float(training.learning_rate(state.opt_state))
        track.record(int(state.step), state.params, learning_rate=rate)
        kept.append((state.params, rate))
    found = track.to_dataset()
    assert len(kept) == len(found["step"]) >= 3
    np.testing.assert_allclose(found["limit"], [2 / rate for _, rate in kept])
    apart = spectral_norm(
        objective, kept[-1][0], key=jax.random.key(1), tolerance=1e-5,
        max_products=500,
    )  # fmt: skip
    np.testing.assert_allclose(found["spectral_norm"][-1], float(apart), rtol=0.02)


def test_what_a_track_refuses():
    track = CurvatureTrack(bowl, key=jax.random.key(0))
    with pytest.raises(InputError, match="empty"):
        track.to_dataset()
    track.record(5, jnp.ones(3))
    with pytest.raises(InputError, match="step=5 was recorded after step 5"):
        track.record(5, jnp.ones(3))
    with pytest.raises(InputError, match="shapes"):
        track.record(6, jnp.ones(4))


def test_moments_come_from_the_same_products():
    random = np.random.default_rng(0)
    A = jnp.asarray(random.normal(size=(12, 12)), jnp.float32)

    def loss(w):
        return w @ (A + A.T) @ w / 2

    options = {"key": jax.random.key(0), "num_samples": 5}
    found = Operator(loss, jnp.ones(12)).spectral_moments(**options)
    assert found.trace == trace(loss, jnp.ones(12), **options)
    assert found.frobenius_norm == frobenius_norm(loss, jnp.ones(12), **options)
    exact = float(np.trace(A + A.T))
    assert abs(found.trace.mean - exact) < 5 * found.trace.standard_error


# Double precision.


@pytest.mark.slow
@pytest.mark.parametrize("norm", ["train", "eval", "recalibrate"])
def test_double_precision_on_request(x64, norm):
    """Products of a model of single precision, against differences of gradients."""
    model = models.create("mlp", num_classes=3, features=(4,))
    random = np.random.default_rng(0)
    x = random.normal(size=(10, 5)).astype(np.float32)
    y = random.integers(0, 3, 10).astype(np.int32)
    with jax.numpy_dtype_promotion("standard"):
        variables = model.init(jax.random.key(0), x, train=False)
        single = flax_objective(
            model, (x, y), norm=norm, batch_size=4, l2=0.1,
            batch_stats=variables["batch_stats"],
        )  # fmt: skip
        objective, point = in_double(single), in_double(variables["params"])
        assert objective(point).dtype == jnp.float64
        np.testing.assert_allclose(
            objective(point), single(variables["params"]), rtol=1e-5
        )
        # Recalibrated statistics are constants to the Hessian.
        fixed = objective.at(point)
        v = jax.tree.map(lambda leaf: jnp.asarray(random.normal(size=leaf.shape)),
                         point)  # fmt: skip
        product = hvp(fixed, point, v)

        def slope(h):
            moved = jax.tree.map(lambda p, d: p + h * d, point, v)
            return jax.grad(fixed)(moved)

        h = 1e-5
        expected = jax.tree.map(lambda a, b: (a - b) / (2 * h), slope(h), slope(-h))
    for a, b in zip(jax.tree.leaves(product), jax.tree.leaves(expected), strict=True):
        assert a.dtype == jnp.float64
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7)


def test_models_that_say_what_they_compute_in(x64):
    model = models.create("resnet20", num_classes=3)
    x = np.ones((2, 8, 8, 3), np.float32)
    objective = flax_objective(
        model, (x, np.zeros(2, np.int32)), norm="train", batch_size=2
    )
    double = in_double(objective)
    assert double.network.model.dtype == "float64"
    assert objective.network.model.dtype == "float32"
    with jax.numpy_dtype_promotion("standard"):
        shapes = jax.eval_shape(lambda: model.init(jax.random.key(0), x, train=False))
        point = jax.tree.map(lambda s: jnp.zeros(s.shape), shapes["params"])
        found = jax.eval_shape(double.outputs, point, double.batch(0))
    assert found.dtype == jnp.float64
    any_loss = in_double(
        mean_objective(lambda w, b: jnp.mean(w * b), np.ones(4, np.float32),
                       batch_size=2)
    )  # fmt: skip
    assert any_loss(in_double(jnp.float32(1.0))).dtype == jnp.float64


def test_double_precision_must_be_enabled():
    with pytest.raises(InputError, match="enable_x64"):
        in_double(jnp.ones(3))
