"""Between consecutive iterates: barriers, floors and heights whose values are known."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from lrscape import data, models, training, transforms
from lrscape.errors import InputError
from lrscape.landscape import (
    Walk,
    barrier_height,
    crosses_barrier,
    flax_objective,
    has_floor,
    height,
    mean_objective,
    segment_losses,
    valley_floor,
)
from tests.points import double_well, linear_point, regression


def test_a_double_well_has_one_barrier_and_a_bowl_none():
    # 11 interior points: the middle one is the top.
    losses = segment_losses(
        double_well, jnp.array([-1.0]), jnp.array([1.0]), num_points=11
    )
    assert losses.shape == (13,)
    np.testing.assert_allclose(losses[::6], [0, 1, 0], atol=1e-6)
    assert crosses_barrier(losses) and not has_floor(losses)
    np.testing.assert_allclose(barrier_height(losses), 1, rtol=1e-6)

    bowl = segment_losses(
        lambda w: jnp.sum(w**2), jnp.array([-1.0]), jnp.array([2.0]), num_points=2
    )
    np.testing.assert_allclose(bowl, [1, 0, 1, 4], atol=1e-6)
    assert not crosses_barrier(bowl) and has_floor(bowl)
    np.testing.assert_allclose(barrier_height(bowl), -3, rtol=1e-6)
    np.testing.assert_allclose(valley_floor(bowl), 0, atol=1e-6)
    np.testing.assert_allclose(height(bowl), 2.5, rtol=1e-6)


losses_of_segments = hnp.arrays(
    np.float32, (2, 5, 4),
    elements=st.floats(-10, 10, width=32),
)  # fmt: skip


@given(losses_of_segments)
def test_definitions_segment_by_segment(losses):
    flat = losses.reshape(-1, losses.shape[-1])
    for name, function, by_hand in (
        ("crosses", crosses_barrier, lambda s: max(s[1:-1]) > max(s[0], s[-1])),
        ("barrier", barrier_height, lambda s: max(s[1:-1]) - max(s[0], s[-1])),
        ("has floor", has_floor, lambda s: min(s[1:-1]) < min(s[0], s[-1])),
        ("floor", valley_floor, min),
        ("height", height, lambda s: (s[0] + s[-1] - 2 * min(s)) / 2),
    ):
        found = np.asarray(function(losses))
        assert found.shape == losses.shape[:-1]
        expected = [by_hand(segment) for segment in flat]
        np.testing.assert_allclose(
            found.ravel(), expected, rtol=1e-5, atol=1e-5, err_msg=name
        )


def test_what_is_not_finite_stays():
    losses = jnp.array([[0.0, jnp.nan, 1.0], [0.0, jnp.inf, 1.0]])
    assert np.isnan(barrier_height(losses)[0]) and barrier_height(losses)[1] == np.inf
    assert crosses_barrier(losses).tolist() == [False, True]
    assert np.isnan(height(losses)[0])


def test_segments_under_jit_and_of_samples():
    objective, _, _ = regression()
    a, b = linear_point(0), linear_point(1)
    plain = segment_losses(objective, a, b)
    assert plain.shape == (12,)
    jitted = jax.jit(lambda a, b: segment_losses(objective, a, b))(a, b)
    np.testing.assert_allclose(jitted, plain, rtol=1e-6)
    np.testing.assert_allclose(plain[0], objective(a), rtol=1e-6)
    np.testing.assert_allclose(plain[-1], objective(b), rtol=1e-6)


def descent(walk, rate=0.9, steps=4, gradients=False):
    """Gradient descent on a bowl with curvatures 1 and 2."""
    curvature = jnp.array([1.0, 2.0])
    w = jnp.array([1.0, 1.0])
    walk.record(0, w)
    for step in range(1, steps + 1):
        gradient = curvature * w
        w = w - rate * gradient
        walk.record(step, w, **({"gradient": gradient} if gradients else {}))
    return curvature


def bowl(w):
    return jnp.sum(jnp.array([1.0, 2.0]) * w**2) / 2


@pytest.mark.parametrize("gradients", [False, True])
def test_the_walk_of_gradient_descent(gradients):
    walk = Walk(bowl, windows=[(0, 4)])
    curvature = np.asarray(descent(walk, gradients=gradients))
    found = walk.to_dataset()
    path = np.array([(1 - 0.9 * curvature) ** n for n in range(5)])
    alphas = np.arange(12) / 11
    np.testing.assert_allclose(found["alpha"], alphas)
    np.testing.assert_array_equal(found["step"], range(4))
    for n in range(4):
        points = np.outer(1 - alphas, path[n]) + np.outer(alphas, path[n + 1])
        losses = (points**2) @ curvature / 2
        np.testing.assert_allclose(found["loss"][n], losses, rtol=1e-5)
        np.testing.assert_allclose(
            found["height"][n], (losses[0] + losses[-1]) / 2 - losses.min(), rtol=1e-4
        )
        assert not found["crosses_barrier"][n]
        gradient, before = curvature * path[n], curvature * path[n - 1]
        cosine = gradient @ before / np.linalg.norm(gradient) / np.linalg.norm(before)
        np.testing.assert_allclose(
            found["cosine"][n], cosine if n else np.nan, rtol=1e-4
        )
    np.testing.assert_allclose(
        found["distance"], np.linalg.norm(path[1:] - path[0], axis=1), rtol=1e-5
    )
    np.testing.assert_allclose(
        found["step_length"], np.linalg.norm(np.diff(path, axis=0), axis=1), rtol=1e-5
    )
    assert found["cosine"].attrs["of"] == ("gradients" if gradients else "moves")


def test_a_walk_that_is_taken_up_again_knows_the_gradient_before():
    gradients = [jnp.array([1.0, 0.0]), jnp.array([1.0, 1.0])]
    walk = Walk(bowl, windows=[(5, 6)])
    for step, gradient in enumerate(gradients, start=5):
        walk.record(step, jnp.full(2, float(step)), gradient=gradient)
    np.testing.assert_allclose(walk.to_dataset()["cosine"], [0.5**0.5], rtol=1e-6)


def test_a_shared_end_is_measured_once():
    calls = []

    class Counted:
        num_batches = 1
        weights = np.ones(1)

        def batch(self, i):
            calls.append(i)
            return ()

        def batch_loss(self, point, batch):
            return jnp.sum(point**2)

    walk = Walk(Counted(), windows=[(0, 3)], num_points=10)
    for step in range(4):
        before = len(calls)
        walk.record(step, jnp.full(2, float(step)))
        assert len(calls) - before == (0, 12, 11, 11)[step]


def test_windows_are_kept_apart():
    walk = Walk(bowl, windows=[(2, 3), (5, 7)])
    assert [step for step in range(9) if walk.wants(step)] == [2, 3, 5, 6, 7]
    descent(walk, steps=8)
    found = walk.to_dataset()
    assert found["step"].values.tolist() == [2, 5, 6]
    # The first segment of a window has none before it.
    assert np.isnan(found["cosine"]).values.tolist() == [True, True, False]


def test_a_window_that_was_not_passed_step_by_step():
    walk = Walk(bowl, windows=[(0, 9)])
    for step in (0, 1, 4, 5):
        walk.record(step, jnp.full(2, step + 1.0))
    assert walk.to_dataset()["step"].values.tolist() == [0, 4]


def test_several_devices_give_the_same_walk():
    objective, _, _ = regression(10, 4)
    found = []
    for count in (1, 4):
        walk = Walk(objective, windows=[(0, 2)], devices=jax.local_devices()[:count])
        for step in range(3):
            walk.record(step, linear_point(step))
        found.append(walk.to_dataset())
    for name in found[0]:
        np.testing.assert_allclose(found[0][name], found[1][name], rtol=1e-5)


def test_a_barrier_of_the_samples_noise_is_seen_through():
    """A barrier that a few examples make has a large error, and another sample none."""
    random = np.random.default_rng(0)

    def bumps(heights):
        # Every example adds its own bump between two equal ends.
        return mean_objective(
            lambda w, h: jnp.mean(h * (1 - jnp.sum(w**2))), heights, batch_size=5
        )

    noise = random.normal(size=100).astype(np.float32)
    first, second = noise - noise.mean() + 0.02, noise - noise.mean() - 0.02
    walk = Walk(
        bumps(first), windows=[(0, 1)], second=bumps(second), num_points=1
    )  # fmt: skip
    walk.record(0, jnp.array([-1.0]))
    walk.record(1, jnp.array([1.0]))
    found = walk.to_dataset()
    assert found["crosses_barrier"] and not found["second_crosses_barrier"]
    np.testing.assert_allclose(found["barrier_height"], 0.02, rtol=1e-3)
    error = noise.reshape(20, 5).mean(axis=1).std(ddof=1) / np.sqrt(20)
    np.testing.assert_allclose(found["barrier_error"], error, rtol=1e-3)
    assert found["barrier_error"] > found["barrier_height"]


def test_a_walk_during_training_leaves_training_as_it_is():
    digits = data.load("digits")
    model = models.create("mlp", num_classes=10, features=(16,))
    config = training.Config(epochs=1, batch_size=200, num_devices=1)
    rate = transforms.scale_by_rate(lambda count: 0.5)
    tx = optax.chain(transforms.keep_gradient(), rate)
    images = digits.train.image[:300].astype(np.float32) / 16
    objective = flax_objective(
        model, (images, digits.train.label[:300]), norm="train", batch_size=100
    )
    walk = Walk(objective, windows=[(0, 3), (5, 6)], num_points=3)
    state = training.initial_state(model, digits, tx, config.seed)
    walk.record(0, state.params)
    seen = []
    states = training.fit(
        model, digits, tx, config, yield_every=1000, yield_at=walk.wants, state=state
    )
    for state in states:
        seen.append(int(state.step))
        gradient = optax.tree.get(state.opt_state, "gradient")
        walk.record(state.step, state.params, gradient=gradient)
    assert seen == [1, 2, 3, 5, 6, 7]
    found = walk.to_dataset()
    assert found["step"].values.tolist() == [0, 1, 2, 5]
    # For plain SGD a move is the gradient, turned and scaled.
    other = Walk(objective, windows=[(0, 3), (5, 6)], num_points=3)
    start = training.initial_state(model, digits, tx, config.seed)
    other.record(0, start.params)
    last = None
    for last in training.fit(model, digits, tx, config, state=start):
        other.record(last.step, last.params)
    jax.tree.map(np.testing.assert_array_equal, last.params, state.params)
    moves, gradients = other.to_dataset()["cosine"], found["cosine"]
    np.testing.assert_allclose(moves[:3], gradients[:3], atol=1e-4)
    # A window's first gradient is handed over, its first move is not.
    assert np.isnan(moves[3]) and np.isfinite(gradients[3])
    np.testing.assert_array_equal(other.to_dataset()["loss"], found["loss"])


BAD = {
    "no interior": (
        lambda: segment_losses(bowl, jnp.ones(2), jnp.ones(2), num_points=0),
        "num_points=0",
    ),
    "structure": (
        lambda: segment_losses(bowl, {"w": jnp.ones(2)}, {"v": jnp.ones(2)}), "first"
    ),
    "short": (lambda: height(jnp.ones(2)), "both ends"),
    "scalar": (lambda: has_floor(1.0), "both ends"),
    "no window": (lambda: Walk(bowl, windows=[]), "at least one"),
    "empty window": (lambda: Walk(bowl, windows=[(3, 3)]), "no segment"),
    "overlap": (lambda: Walk(bowl, windows=[(0, 3), (2, 5)]), "overlap"),
    "nothing": (lambda: Walk(bowl, windows=[(0, 3)]).to_dataset(), "no segment"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_bad_input(name):
    call, message = BAD[name]
    with pytest.raises(InputError, match=message):
        call()


def test_gradients_at_some_steps_only():
    walk = Walk(bowl, windows=[(0, 3)])
    walk.record(0, jnp.ones(2))
    walk.record(1, jnp.zeros(2), gradient=jnp.ones(2))
    with pytest.raises(InputError, match="gradients"):
        walk.record(2, jnp.ones(2))


def test_windows_that_meet_share_no_step_and_lose_none():
    walk = Walk(bowl, windows=[(0, 2), (2, 4)])
    descent(walk)
    assert walk.to_dataset()["step"].values.tolist() == [0, 1, 2, 3]


def test_points_that_change_in_place():
    walk = Walk(bowl, windows=[(0, 2)])
    w = np.ones(2, np.float32)
    for step in range(3):
        walk.record(step, w)
        w -= 0.5
    np.testing.assert_allclose(
        walk.to_dataset()["step_length"], np.sqrt(0.5), rtol=1e-5
    )
    with pytest.raises(InputError, match="reference"):
        Walk(bowl, windows=[(0, 2)], reference={"w": w}).record(0, w)
