"""Paper 4's theorems on functions of one variable and on random landscapes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.asymmetric_valleys import bias, toy
from experiments.asymmetric_valleys.one_dimensional import (
    VALLEYS,
    Valley,
    descend,
    interval,
    rounds,
)
from lrscape.landscape import asymmetry

KEY = jax.random.key(0)


def starts(n, scale=0.1):
    """Equally many on either side."""
    return scale * jnp.concatenate([jnp.ones(n // 2), -jnp.ones(n // 2)])


# One dimension.


def test_rounds_by_hand():
    # Ten steps down the flat side, one on the sharp side that leads back.
    valley = Valley(1.0, 1.0, 10.0, 10.0)
    path = descend(KEY, valley, jnp.array([0.5]), rate=1.0, noise=0.0, num_steps=40)
    found = rounds(path, 4)
    np.testing.assert_array_equal(found.lengths, [[11, 11, 11, 0]])
    np.testing.assert_allclose(found.means[0, :3], (50 - 0.5) / 11, rtol=1e-6)
    assert np.isnan(found.means[0, 3])
    # Several on the sharp side belong to the round that they end.
    path = jnp.array([[1.0, -1.0, -2.0, 3.0, 2.0, -1.0, -1.0, 0.0, 4.0, 1.0, -1.0]])
    found = rounds(path, 2)
    np.testing.assert_allclose(found.means[0, 0], 3 / 5)
    np.testing.assert_array_equal(found.lengths, [[5, 0]])


def test_what_theorem_2_asks_for():
    assert VALLEYS["asymmetric"].c == 20
    assert VALLEYS["asymmetric"].meets_theorem_2(1.0)
    assert not VALLEYS["asymmetric"].meets_theorem_2(1.1)  # more noise than slope
    assert not Valley(0.8, 1.0, 10.0, 24.0).meets_theorem_2(1.0)  # c too small
    assert not VALLEYS["asymmetric, smooth"].meets_theorem_2(1.0)
    assert not VALLEYS["symmetric, sharp"].meets_theorem_2(1.0)


def test_the_valleys_slopes():
    valley = VALLEYS["asymmetric"]
    w = jnp.array([-5.0, -0.5, 0.0, 0.5, 5.0])
    np.testing.assert_allclose(valley.slope(w), [-24, -22, -20, 0.9, 1], rtol=1e-6)

    def loss(w):  # the same as a function
        return jnp.where(w > 0, 0.8 * w + 0.1 * w**2, -20 * w + 2 * w**2)

    found = asymmetry(loss, jnp.float32(0), jnp.float32(1), r=1.0, zeta=0.0)
    np.testing.assert_allclose(found.c, valley.c, rtol=1e-5)


def test_rounds_on_an_asymmetric_valley_are_biased_to_the_flat_side():
    valley, noise = VALLEYS["asymmetric"], 1.0
    path = descend(KEY, valley, starts(1000), rate=0.01, noise=noise, num_steps=400)
    found = rounds(path, 5)
    assert np.isfinite(found.means).all()  # none is missing, so none is selected
    for k in range(5):
        mean, low, _ = interval(found.means[:, k])
        assert low > 0 and 0.02 < mean < 0.2
    # From the sharp side it is back after one step.
    sharp = np.asarray(path) <= 0
    assert not (sharp[:, :-1] & sharp[:, 1:]).any(axis=0)[20:].any()


def test_symmetric_valleys_have_no_bias_over_all():
    for name, noise in {"symmetric, sharp": 1.0, "symmetric, flat": 0.5}.items():
        path = descend(
            KEY, VALLEYS[name], starts(2000), rate=0.01, noise=noise, num_steps=150
        )
        _, low, high = interval(np.asarray(path[:, 20:], np.float64).mean(axis=1))
        assert low < 0 < high


def test_rounds_on_symmetric_valleys():
    def found(name, noise, spread):
        where = jax.random.uniform(KEY, (20_000,), minval=-spread, maxval=spread)
        path = descend(KEY, VALLEYS[name], where, rate=0.01, noise=noise, num_steps=200)
        means = rounds(path[:, 50:], 20).means
        assert np.isfinite(means).all()
        return interval(means.mean(axis=1))

    _, low, high = found("symmetric, sharp", 1.0, 0.2)
    assert low < 0 < high
    # Each begins on the same side, which is not quite forgotten at its end.
    mean, low, _ = found("symmetric, flat", 0.5, 0.01)
    assert low > 0 and mean < 1e-4


def test_without_oscillation_the_average_is_biased_too():
    path = descend(
        KEY, VALLEYS["asymmetric, smooth"], starts(500, 1.0), rate=0.01, noise=0.1,
        num_steps=300,
    )  # fmt: skip
    changes = (np.sign(path[:, 1:100]) != np.sign(path[:, :99])).any(axis=1)
    assert not changes[:250].any()
    _, low, _ = interval(np.asarray(path, np.float64).mean(axis=1))
    assert low > 0.1


# Theorem 1.


@pytest.mark.parametrize("num_directions", [1, 2, 5])
def test_the_gain_is_at_least_the_bound_wherever_the_theorem_holds(num_directions):
    random = np.random.default_rng(num_directions)
    for _ in range(200):
        landscape = bias.draw(random, num_directions)
        share = random.uniform(0, 0.999, num_directions)
        low, high = landscape.shortest, landscape.longest
        to_flat = high - share * (high - low)
        assert landscape.admits(to_flat)
        gain = bias.gain(landscape, to_flat)
        assert gain >= bias.bound(landscape, to_flat) * (1 - 1e-9) > 0
        # To the sharp side, or much too far, it is worse than none.
        too_far = 4 * landscape.c * landscape.r
        for other in (-to_flat, too_far):
            assert not landscape.admits(other)
            assert bias.gain(landscape, other) < 0


def test_drawn_landscapes_are_asymmetric():
    landscape = bias.draw(np.random.default_rng(0), 3)
    knots, heights = jnp.asarray(landscape.knots), jnp.asarray(landscape.heights)

    def loss(w):
        return sum(jnp.interp(w[i], knots, heights[i]) for i in range(3))

    for i, direction in enumerate(jnp.eye(3)):
        found = asymmetry(
            loss, jnp.zeros(3), direction, r=landscape.r, zeta=landscape.zeta
        )
        assert found.holds(p=landscape.p[i], c=landscape.c[i] * (1 - 1e-5))


def test_the_bound_is_sharp():
    # Slopes p and c p everywhere: nothing is given away but the k - 1 gaps too many.
    knots = np.array([-2.0, 0.0, 2.0])
    heights = np.array([[6.0, 0.0, 2.0], [10.0, 0.0, 2.0]])
    landscape = bias.Landscape(
        2.0, 0.1, np.ones(2), np.array([3.0, 5.0]), np.array([1.0, 1.2]), 0.01, knots,
        heights,
    )  # fmt: skip
    to_flat = np.array([0.5, 0.3])
    assert landscape.admits(to_flat)
    exact = (2 * 0.5 + 4 * 0.3) / 2
    np.testing.assert_allclose(bias.gain(landscape, to_flat), exact - 0.02)
    np.testing.assert_allclose(bias.bound(landscape, to_flat), exact - 0.04)


# The toy.


def test_the_toy_is_gradient_descent():
    found = toy.train(KEY, num_seeds=3, epochs=5, num_fresh=100)
    assert found.paths.shape == (3, 6, 2) and found.train_losses.shape == (3, 6)
    assert (np.diff(found.train_losses) < 0).all()
    np.testing.assert_allclose(
        found.average, found.paths[:, 1:].mean(axis=1), rtol=1e-5
    )
    np.testing.assert_allclose(found.losses[:, 0], found.train_losses[:, -1], rtol=1e-6)
    inputs, labels = toy.sample(jax.random.split(jax.random.split(KEY, 3)[0], 3)[0], 10)
    point = np.asarray(found.paths[0, 0], np.float64)
    for epoch in range(5):
        margin = labels * (point[0] * inputs + point[1])
        pull = -labels / (1 + np.exp(margin))
        point = point - 0.01 * np.array([np.mean(pull * inputs), np.mean(pull)])
        np.testing.assert_allclose(found.paths[0, epoch + 1], point, rtol=1e-5)
    assert abs(inputs[:10].mean() - 1) < 1 and abs(inputs[10:].mean() + 1) < 1
