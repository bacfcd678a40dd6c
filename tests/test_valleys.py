"""Asymmetric directions and shifts: functions whose answers are known."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lrscape import models
from lrscape.errors import InputError
from lrscape.jaxprs import convolutions
from lrscape.landscape import (
    asymmetry,
    find_asymmetric_direction,
    flax_objective,
    in_double,
    is_asymmetric,
    shift_gap,
    slope_profile,
    uniform_direction,
)
from lrscape.landscape.accumulate import sample_losses
from lrscape.landscape.direction import flipped_direction, ones_direction
from lrscape.landscape.masks import as_many_others, batch_norm_only, batch_norm_scales
from lrscape.landscape.shift import best_shift, shift_gap_search
from lrscape.landscape.slopes import slope_objective
from lrscape.landscape.valleys import nearby_asymmetry
from tests.points import linear_point, quadratic, regression

KEY = jax.random.key(0)
ZERO, ONE = jnp.float32(0), jnp.float32(1)
INTERVAL = {"r": 1.0, "zeta": 0.1}


def v_shaped(flat, sharp):
    """Slopes `flat` to the right and `sharp` to the left of 0."""
    return lambda w: jnp.where(w > 0, flat * w, -sharp * w)


def bowls(flat, sharp):
    """Curvatures `flat` to the right and `sharp` to the left of 0."""
    return lambda w: jnp.where(w > 0, flat, sharp) * w**2 / 2


# The definition.


@pytest.mark.parametrize("zeta", [0.0, 0.1, 0.9])
@pytest.mark.parametrize(("flat", "sharp"), [(1, 5), (0.25, 1), (4, 4), (8, 2)])
def test_a_v_shaped_valley(flat, sharp, zeta):
    loss = v_shaped(flat, sharp)
    found = asymmetry(loss, ZERO, 3 * ONE, r=1.0, zeta=zeta)
    assert found[:2] == (sharp / flat, flat)
    assert found.flat_slope == flat and found.sharp_slope == sharp
    np.testing.assert_allclose(found.flat_slopes, flat)
    np.testing.assert_allclose(found.sharp_slopes, sharp)
    assert found.reversed[:2] == (flat / sharp, sharp)
    opposite = asymmetry(loss, ZERO, -ONE, r=1.0, zeta=zeta)
    assert opposite[:4] == found.reversed[:4]
    np.testing.assert_allclose(opposite.distances, found.distances)


def test_both_inequalities_are_strict():
    at = {"objective": v_shaped(1, 4), "point": ZERO, "direction": ONE, **INTERVAL}
    assert is_asymmetric(**at, p=1.01, c=3.9)
    assert is_asymmetric(**at, p=1.9, c=2)
    assert not is_asymmetric(**at, p=1.0, c=3)  # the flat slope is not below p
    assert not is_asymmetric(**at, p=2.0, c=2)  # the sharp one not above c p
    assert not is_asymmetric(**at, p=3.0, c=2)
    assert not is_asymmetric(**{**at, "direction": -ONE}, p=4.1, c=1.1)


def test_slopes_that_vary_count_by_the_ends_of_the_interval():
    # The flat side is steepest at r, the sharp one is least steep at zeta.
    found = asymmetry(bowls(0.5, 20), ZERO, ONE, r=2.0, zeta=0.2)
    np.testing.assert_allclose(found.p, 0.5 * 2, rtol=1e-5)
    np.testing.assert_allclose(found.c, 20 * 0.2 / (0.5 * 2), rtol=3e-5)
    np.testing.assert_allclose(found.distances[[0, -1]], [0.2, 2], rtol=1e-5)
    assert (np.diff(found.distances) > 0).all() and len(found.distances) == 20
    np.testing.assert_allclose(found.sharp_slopes, 20 * found.distances, rtol=1e-5)
    np.testing.assert_allclose(found.flat_slopes, found.distances / 2, rtol=1e-5)

    # A bump between two distances of the grid is seen by a finer one alone.
    def bumpy(w):
        return w + 0.1 * jnp.exp(-(((w - 0.55) / 0.003) ** 2))

    grids = [asymmetry(bumpy, ZERO, ONE, **INTERVAL, num_points=n).p for n in (5, 901)]
    assert grids[0] == pytest.approx(1, abs=1e-3) and grids[1] > 10


@given(
    st.floats(0.01, 100), st.floats(0.01, 100), st.floats(0.01, 0.99),
    st.floats(0.1, 10),
)  # fmt: skip
def test_every_smaller_c_has_a_p_and_no_larger_one(flat, sharp, share, length):
    found = asymmetry(
        piecewise, jnp.array([0, flat, sharp], jnp.float32),
        jnp.array([length, 0, 0]), **INTERVAL,
    )  # fmt: skip
    np.testing.assert_allclose(found.c, sharp / flat, rtol=1e-5)
    smaller = share * found.c
    assert found.holds(c=smaller, p=found.admissible_p(smaller))
    for p in np.geomspace(1e-3, 1e3, 50):
        assert not found.holds(c=found.c * 1.001, p=p)


def piecewise(w):
    """A valley along the first entry, its slopes the other two: compiled once."""
    return jnp.where(w[0] > 0, w[1] * w[0], -w[2] * w[0])


def test_what_is_infinite_is_said():
    falling = asymmetry(lambda w: jnp.where(w > 0, -w, -5 * w), ZERO, ONE, **INTERVAL)
    assert falling.c == np.inf and falling.p == 0 and falling.flat_slope == -1
    assert falling.holds(p=1e-3, c=4000) and not falling.holds(p=1e-3, c=6000)
    assert falling.holds(p=falling.admissible_p(1e6), c=1e6)
    flat = asymmetry(v_shaped(0, 2), ZERO, ONE, **INTERVAL)
    assert flat.c == np.inf and flat.p == 0
    # A sharp side that does not rise is none.
    for loss in (lambda w: 2 * w, jnp.zeros_like, lambda w: jnp.abs(w) + 2 * w):
        assert asymmetry(loss, ZERO, ONE, **INTERVAL).c == 0


def test_what_is_not_a_number_stays_so():
    for side in (1, -1):
        found = asymmetry(
            lambda w, side=side: jnp.sqrt(0.5 - side * w), ZERO, ONE, **INTERVAL
        )
        assert np.isnan(found.c) and not found.holds(p=1.0, c=1.1)
        assert np.isnan(found.flat_slope) == (side > 0)
        assert 0 < np.isnan(found.profile.losses).sum() < 20
    searched = find_asymmetric_direction(
        KEY, lambda w: jnp.sqrt(w), ZERO, **INTERVAL, c=2.0, num_tries=3
    )
    assert np.isnan(searched.cs).all() and np.isnan(searched.c) and not searched.found


# Samples.


def test_slopes_equal_gradients_whatever_the_batches():
    point, direction = linear_point(0), linear_point(1)
    distances = np.array([-2.0, 0.3, 1.0])
    profiles = []
    for batch_size in (10, 4, 1):
        objective, x, y = regression(10, batch_size)
        profiles.append(slope_profile(objective, point, direction, distances))
    profiles.append(slope_profile(_Foreign(x, y), point, direction, distances))
    length = np.sqrt(sum(np.sum(np.square(leaf)) for leaf in direction.values()))
    unit = {k: np.asarray(v, np.float64) / length for k, v in direction.items()}
    for profile in profiles:
        for distance, loss, slope, _ in zip(*profile, strict=True):
            w, b = (np.asarray(point[k]) + distance * unit[k] for k in "wb")
            residual = x @ w + b - y
            np.testing.assert_allclose(loss, np.mean(residual**2), rtol=1e-5)
            exact = np.mean(2 * residual * (x @ unit["w"] + unit["b"]))
            np.testing.assert_allclose(slope, exact, rtol=1e-5, atol=1e-5)
    assert np.isnan(profiles[0].slope_errors).all()
    assert (profiles[1].slope_errors > 0).all()


class _Foreign:
    """A stranger's objective, whose batches come from anywhere."""

    num_batches = 2
    weights = np.array([0.5, 0.5])

    def __init__(self, x, y):
        self._data = x, y

    def batch(self, i):
        return tuple(part[5 * i : 5 * i + 5] for part in self._data)

    def batch_loss(self, point, batch):
        x, y = batch
        return {"loss": jnp.mean((x @ point["w"] + point["b"] - y) ** 2)}


@pytest.mark.slow
@jax.numpy_dtype_promotion("standard")  # Flax's batch norm is not strict
@pytest.mark.parametrize("norm", ["train", "eval", "recalibrate"])
def test_slopes_with_batch_norm_are_of_the_loss_that_is_drawn(norm, x64):
    random = np.random.default_rng(0)
    x = random.normal(size=(30, 4, 4, 1)).astype(np.float32)
    y = random.integers(0, 3, 30)
    model = models.create("cnn", num_classes=3, features=(2,), width=3)
    variables = model.init(jax.random.key(1), x, train=False)
    objective = flax_objective(
        model, (x, y), norm=norm, batch_size=12, l2=0.1,
        batch_stats=variables["batch_stats"],
    )  # fmt: skip
    objective, point = in_double(objective), in_double(variables["params"])
    direction = uniform_direction(jax.random.key(2), point, low=-1.0)
    at, step = np.array([-1.0, 0.0, 2.0]), 1e-5
    around = slope_profile(
        objective, point, direction, np.concatenate([at - step, at, at + step])
    )
    low, _, high = np.split(around.losses, 3)
    slopes = np.split(around.slopes, 3)[1]
    np.testing.assert_allclose(slopes, (high - low) / (2 * step), rtol=1e-6)
    if norm == "recalibrate":
        # Statistics that stood still would give another slope.
        frozen = slope_profile(objective.at(point), point, direction, at)
        assert abs(frozen.slopes[1] / slopes[1] - 1) > 1e-3
        np.testing.assert_allclose(frozen.losses[1], around.losses[4], rtol=1e-12)


def test_no_weight_gradient_of_a_convolution_is_taken():
    model = models.create("cnn", num_classes=2, features=(2,), width=3)
    x = np.zeros((5, 4, 4, 1), np.float32)
    params = model.init(KEY, x, train=False)["params"]
    objective = flax_objective(model, (x, np.zeros(5, int)), norm="train", batch_size=2)
    jaxpr = jax.make_jaxpr(sample_losses)(slope_objective(objective), (params, params))
    kinds = {
        equation.params["dimension_numbers"].lhs_spec[0]
        for equation in convolutions(jaxpr.jaxpr)
    }
    assert kinds == {0}


# The search.


def test_a_search_counts_what_passes():
    # Slopes -3 and 1 an entry: c is 3 for directions of one sign, 1 / 3 for others.
    def valley(w):
        return jnp.sum(jnp.maximum(w, -3 * w))

    def either_side(key, point):
        return jnp.where(jax.random.bernoulli(key), 1.0, -1.0) * jnp.ones(5)

    point = jnp.zeros(5)
    search = {"objective": valley, "point": point, **INTERVAL, "c": 2.0}
    found = find_asymmetric_direction(KEY, **search, num_tries=12, sampler=either_side)
    assert found.num_tried == 12 and 0 < found.num_passed < 12 and found.found
    np.testing.assert_allclose(found.cs, np.where(found.cs > 2, 3, 1 / 3), rtol=1e-5)
    assert found.num_passed == (found.cs > 2).sum() and found.c == found.cs.max()
    assert found.p == found.asymmetry.p and (found.direction == 1).all()
    early = find_asymmetric_direction(
        KEY, **search, num_tries=12, sampler=either_side, stop_early=True
    )
    first = int(np.argmax(found.cs > 2))
    assert early.num_tried == first + 1 and early.num_passed == 1
    np.testing.assert_array_equal(early.cs, found.cs[: first + 1])
    default = find_asymmetric_direction(KEY, **search, num_tries=3)
    assert default.num_passed == 3


def test_a_symmetric_bowl_has_no_asymmetric_direction():
    _, b, loss = quadratic()
    A = jax.hessian(loss)(jnp.zeros(6))
    minimum = -jnp.linalg.solve(A, jnp.asarray(b, jnp.float32))
    found = find_asymmetric_direction(
        KEY, loss, minimum, **INTERVAL, c=1.05, num_tries=5
    )
    assert found.num_passed == 0 and not found.found
    np.testing.assert_allclose(found.cs, 0.1, rtol=1e-2)  # zeta / r


def test_controls():
    point = {"bn_0": {"scale": jnp.ones(8), "bias": jnp.ones(8)}, "k": jnp.ones((9, 9))}
    ones = ones_direction(point)
    np.testing.assert_allclose(ones["k"], 1 / np.sqrt(97), rtol=1e-6)
    scales = ones_direction(point, mask=batch_norm_scales, normalize=None)
    assert (scales["bn_0"]["scale"] == 1).all()
    assert not scales["bn_0"]["bias"].any() and not scales["k"].any()
    uniform = uniform_direction(KEY, point, normalize=None)
    flipped = flipped_direction(jax.random.key(1), uniform)
    jax.tree.map(
        lambda a, b: np.testing.assert_array_equal(a, jnp.abs(b)), uniform, flipped
    )
    assert 20 < (flipped["k"] < 0).sum() < 61


def test_as_many_others():
    point = {"bn_0": {"scale": jnp.ones(8), "bias": jnp.ones(8)}, "k": jnp.ones((9, 9))}
    masks = [
        as_many_others(batch_norm_only, point, key=jax.random.key(seed))
        for seed in (0, 0, 1)
    ]
    for mask in masks:
        assert not mask["bn_0"]["scale"].any() and not mask["bn_0"]["bias"].any()
        assert mask["k"].sum() == 16 and mask["k"].shape == (9, 9)
    assert (masks[0]["k"] == masks[1]["k"]).all()
    assert (masks[0]["k"] != masks[2]["k"]).any()


# Neighbours.


def test_neighbours_are_moved_orthogonally():
    def valley(w):  # steeper the farther away, and as asymmetric
        along = jnp.maximum(w[0], -3 * w[0])
        return along * (1 + w[1]) + jnp.sum(w[1:] ** 2)

    size, radius = 40, 0.5
    direction = 2 * jnp.eye(size, dtype=jnp.float32)[0]
    found = nearby_asymmetry(
        KEY, valley, jnp.zeros(size), direction, **INTERVAL, radius=radius,
        num_neighbors=6,
    )  # fmt: skip
    np.testing.assert_allclose(found.cs, 3, rtol=1e-5)
    assert found.losses.shape == (6, 40) and found.distances[0] == -found.distances[-1]
    outward = np.maximum(found.distances, -3 * found.distances)
    moved = found.slopes[:, -1] - 1  # w[1]
    rest = found.losses - outward * (1 + moved[:, None])
    # The same at every distance: v without its part along u, its norm nearly R.
    np.testing.assert_allclose(rest, rest[:, :1] * np.ones(40), atol=1e-5)
    assert (rest <= radius**2 + 1e-5).all() and (rest > 0.7 * radius**2).all()
    np.testing.assert_allclose(found.mean, found.losses.mean(0))
    np.testing.assert_allclose(found.deviation, np.std(found.losses, 0, ddof=1))
    flat, sharp = 1 + moved.max(), 3 * (1 + moved.min())
    np.testing.assert_allclose(found.common, (sharp / flat, flat), rtol=1e-4)
    one = nearby_asymmetry(
        KEY, valley, jnp.zeros(size), direction, **INTERVAL, radius=1.0, num_neighbors=1
    )
    assert np.isnan(one.deviation).all()


# Shifts.


@pytest.mark.parametrize("radius", [0.1, 2.0])
@pytest.mark.parametrize("error", [0.0, 0.3, -1.5])
def test_the_gap_of_two_shifted_quadratics(error, radius):
    A, b, loss = quadratic(size=4)
    minimum = np.linalg.solve(A, -b)
    wanted = np.array([0.5, -1.0, 0.0, 0.25])
    e = error * np.array([1.0, 0.5, -2.0, 0.0])

    def test(w):
        return loss(w - jnp.asarray(wanted, jnp.float32)) + 7

    least = float(-b @ np.linalg.solve(A, b) / 2)
    found = shift_gap_search(
        loss, test, jnp.asarray(minimum, jnp.float32),
        jnp.asarray(wanted + e, jnp.float32), radius=radius, key=KEY,
        train_min=least, test_min=least + 7,
    )  # fmt: skip
    # (v + e) A (v + e) / 2 - v A v / 2 over the ball.
    exact = radius * np.linalg.norm(A @ e) + e @ A @ e / 2
    np.testing.assert_allclose(found.gap, exact, rtol=1e-4, atol=3e-5)
    assert found.drawn_gap <= found.gap
    assert np.linalg.norm(found.displacement) <= radius * (1 + 1e-5)
    if error == 0:
        # The minima are met where the shift is right.
        args = (loss, test, jnp.asarray(minimum, jnp.float32))
        by = jnp.asarray(wanted, jnp.float32)
        assert shift_gap(*args, by, radius=radius, key=KEY) < 3e-5
        assert shift_gap(*args, jnp.zeros(4), radius=radius, key=KEY) > 0.01


def test_the_gap_never_exceeds_the_maximum():
    def wavy(w):
        return jnp.sum(jnp.sin(7 * w)) / 7

    found = shift_gap_search(
        jnp.sum, lambda w: jnp.sum(w) + wavy(w), jnp.zeros(3), jnp.zeros(3), radius=3.0,
        key=KEY, num_draws=3, train_min=0.0, test_min=0.0,
    )  # fmt: skip
    assert found.drawn_gap < found.gap <= 3 / 7 + 1e-5
    assert found.gap > 0.95 * 3 / 7


def test_a_gap_that_is_not_a_number():
    gap = shift_gap(jnp.sqrt, jnp.square, ONE, ZERO, radius=2.0, key=KEY, num_draws=4)
    assert np.isnan(gap)


def test_the_best_shift_of_a_shifted_copy():
    def loss(w):
        return jnp.sum(jnp.where(w > 0, w**2, 5 * w**2))

    point, direction = jnp.zeros(3), jnp.array([0.0, 4.0, 0.0])

    def test(w):
        return loss(w - jnp.array([0.0, -0.4, 0.0])) + 2

    found = best_shift(
        loss, test, point, direction, radius=1.0, max_shift=0.7, num_points=10
    )
    assert found.shift == pytest.approx(-0.4) and found.ratio < 1e-5
    assert len(found.shifts) == len(found.gaps) == 15
    # Without a shift: largest at l = -1, where 5 (1 - 0.36).
    np.testing.assert_allclose(found.gaps[7], 5 * (1 - 0.36), rtol=1e-5)
    assert found.ratios[7] == 1 and found.ratios.argmin() == 3
    np.testing.assert_allclose(found.distances[[0, -1]], [-1.7, 1.7])
    np.testing.assert_allclose(found.train_losses.min(), 0, atol=1e-6)
    np.testing.assert_allclose(found.test_losses.min(), 2, atol=1e-6)
    # One that fits already is not shifted, and has no ratio; wherever its minimum is.
    downhill = best_shift(jnp.sum, jnp.sum, point, direction, radius=1.0, max_shift=0.5)
    assert downhill.shift == 0 and downhill.gaps[20] == 0
    same = best_shift(loss, loss, point, direction, radius=1.0, max_shift=0.5)
    assert same.shift == 0 and np.isnan(same.ratio)


def test_a_loss_that_is_not_a_number_has_no_best_shift():
    found = best_shift(
        jnp.square, jnp.sqrt, ONE, ONE, radius=1.0, max_shift=0.5, num_points=4
    )
    assert np.isnan(found.ratio) and np.isnan(found.gaps).all()


AT = {"objective": jnp.square, "point": ZERO, "direction": ONE}
SHIFT = {"point": ZERO, "shift": ONE, "key": KEY}
LINE = {"point": ZERO, "direction": ONE}
SEARCH = {"key": KEY, "objective": jnp.square, "point": ZERO, **INTERVAL}
BAD = {
    "zero": (
        lambda: asymmetry(jnp.square, ZERO, ZERO, **INTERVAL), "direction has norm 0"
    ),
    "structure": (
        lambda: asymmetry(jnp.square, ZERO, {"w": ONE}, **INTERVAL), "direction has"
    ),
    "zeta": (
        lambda: asymmetry(**AT, r=1.0, zeta=1.0), r"zeta=1\.0 must .* below r=1\.0"
    ),
    "negative zeta": (lambda: asymmetry(**AT, r=1.0, zeta=-0.1), r"zeta=-0\.1 must"),
    "r": (lambda: asymmetry(**AT, r=0.0, zeta=0.0), r"r=0\.0 must be positive"),
    "nan": (lambda: asymmetry(**AT, r=float("nan"), zeta=0.0), "r=nan"),
    "points": (lambda: asymmetry(**AT, **INTERVAL, num_points=1), "num_points=1"),
    "p": (lambda: is_asymmetric(**AT, **INTERVAL, p=0.0, c=2.0), r"p=0\.0"),
    "c": (lambda: is_asymmetric(**AT, **INTERVAL, p=1.0, c=1.0), r"c=1\.0 must be ab"),
    "search c": (
        lambda: find_asymmetric_direction(**SEARCH, c=0.5, num_tries=1), r"c=0\.5"
    ),
    "tries": (
        lambda: find_asymmetric_direction(**SEARCH, c=2, num_tries=0), "num_tries=0"
    ),
    "sampler": (
        lambda: find_asymmetric_direction(**SEARCH, c=2, num_tries=1, sampler="x"),
        "sampler='x' must be a function",
    ),
    "admissible": (
        lambda: asymmetry(**AT, **INTERVAL).admissible_p(0.5), r"below 0\.1"
    ),
    "neighbours": (
        lambda: nearby_asymmetry(KEY, *AT.values(), **INTERVAL, radius=0.0), "radius=0"
    ),
    "distances": (lambda: slope_profile(*AT.values(), [[0.0]]), "with 1 axis"),
    "others": (
        lambda: as_many_others(None, jnp.ones(3), key=KEY), "selects 3 of 3 entries"
    ),
    "radius": (
        lambda: shift_gap(jnp.sum, jnp.sum, **SHIFT, radius=-1.0), r"radius=-1\.0"
    ),
    "draws": (
        lambda: shift_gap(jnp.sum, jnp.sum, **SHIFT, radius=1.0, num_draws=0),
        "num_draws=0",
    ),
    "shift": (
        lambda: shift_gap(
            jnp.sum, jnp.sum, ZERO, jnp.ones(2), radius=1.0, key=KEY
        ), "shift does not have the shapes of point",
    ),
    "max_shift": (
        lambda: best_shift(jnp.sum, jnp.sum, **LINE, radius=1.0, max_shift=0.01),
        r"max_shift=0\.01 must be at least",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_bad_input(name):
    call, message = BAD[name]
    with pytest.raises(InputError, match=message):
        call()
