"""Subspaces, masks and directions: exact coordinates, exact norms."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lrscape import models
from lrscape.errors import InputError
from lrscape.landscape import (
    barycentric,
    bilinear,
    direction_between,
    flax_objective,
    fooling_direction,
    gaussian_direction,
    grid_coordinates,
    line,
    pca_plane,
    plane,
    ray,
    span,
    uniform_direction,
)
from lrscape.landscape.direction import normalized
from lrscape.landscape.masks import (
    all_but,
    as_mask,
    batch_norm_only,
    first_layer,
    layer_only,
)
from tests.points import Weights, quadratic


def tree(seed):
    random = np.random.default_rng(seed)
    return {
        "kernel": jnp.asarray(random.normal(size=(3, 2)), jnp.float32),
        "bias": jnp.asarray(random.normal(size=2), jnp.float32),
    }


A, B, C, D = (tree(seed) for seed in range(4))


def same(found, expected, **options):
    options = {"rtol": 1e-6, "atol": 1e-6, **options}
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, **options), found, expected
    )


def test_ends_and_corners_are_exact():
    exactly = {"rtol": 0, "atol": 0}
    same(line(A, B)(0.0), A, **exactly)
    same(line(A, B)(1.0), B, **exactly)
    corners = {(1, 1): A, (0, 1): B, (1, 0): C, (0, 0): D}
    for corner, point in corners.items():
        same(bilinear(A, B, C, D)(jnp.array(corner, jnp.float32)), point, **exactly)
    triangle = barycentric(A, B, C)
    for corner, point in {(0, 0): A, (0, 1): A, (1, 1): B, (1, 0): C}.items():
        same(triangle(jnp.array(corner, jnp.float32)), point, **exactly)


@given(st.floats(-2, 3), st.floats(-2, 3))
def test_the_papers_equations(alpha, beta):
    """Eq. 2, 3 to 5 and 6 to 8 of Im et al., entry by entry."""
    a, b, c, d = (np.asarray(t["kernel"], np.float64) for t in (A, B, C, D))
    at = jnp.array([alpha, beta], jnp.float32)
    alpha, beta = np.asarray(at, np.float64)

    def close(found, expected):
        np.testing.assert_allclose(found["kernel"], expected, rtol=2e-5, atol=2e-5)

    close(line(A, B)(at[0]), (1 - alpha) * a + alpha * b)
    phi, psi = alpha * a + (1 - alpha) * b, alpha * c + (1 - alpha) * d
    close(bilinear(A, B, C, D)(at), beta * phi + (1 - beta) * psi)
    phi, psi = alpha * (b - a) + a, alpha * (c - a) + a
    close(barycentric(A, B, C)(at), beta * phi + (1 - beta) * psi)
    close(plane(A, B, C)(at), a + alpha * b + beta * c)
    close(span(A, B, C)(at), a + alpha * b + beta * c)


def test_a_ray_counts_in_directions_or_in_distance():
    same(ray(A, B)(2.0), jax.tree.map(lambda a, b: a + 2 * b, A, B))
    moved = direction_between(A, ray(A, B, absolute=True)(2.0))
    length = np.sqrt(sum(np.sum(np.square(leaf)) for leaf in jax.tree.leaves(moved)))
    np.testing.assert_allclose(length, 2, rtol=1e-5)


def test_half_precision_points_keep_their_dtype():
    a, b = (jax.tree.map(lambda x: x.astype(jnp.bfloat16), t) for t in (A, B))
    assert {x.dtype for x in jax.tree.leaves(line(a, b)(0.3))} == {
        jnp.dtype("bfloat16")
    }


def test_grids():
    assert grid_coordinates([1.0, 2.0]).shape == (2,)
    found = grid_coordinates([1.0, 2.0], [3.0, 4.0, 5.0])
    assert found.shape == (2, 3, 2)
    np.testing.assert_array_equal(found[1, 2], [2, 5])


@pytest.mark.parametrize("origin", ["mean", "last"])
def test_the_pca_plane_of_a_trajectory(origin):
    random = np.random.default_rng(0)
    rows = random.normal(size=(7, 20)) * np.linspace(3, 0.3, 20) + 5
    points = [
        {"a": jnp.asarray(row[:12].reshape(3, 4), jnp.float32),
         "b": jnp.asarray(row[12:], jnp.float32)}
        for row in rows
    ]  # fmt: skip
    found = pca_plane(points, origin=origin)
    zero = rows.mean(axis=0) if origin == "mean" else rows[-1]
    singular = np.linalg.svd(rows - zero, compute_uv=False)
    # What is off the plane is what the other components hold.
    np.testing.assert_allclose(
        (found.off_plane**2).sum(), (singular[2:] ** 2).sum(), rtol=1e-5
    )
    np.testing.assert_allclose(
        found.explained_variance_ratio, singular[:2] ** 2 / (singular**2).sum(),
        rtol=1e-5,
    )  # fmt: skip
    # The point of the plane that a snapshot falls on lies off it by that distance.
    for row, at, distance in zip(rows, found.coordinates, found.off_plane, strict=True):
        on = found(jnp.asarray(at, jnp.float32))
        on = np.concatenate([np.asarray(on["a"]).ravel(), np.asarray(on["b"])])
        np.testing.assert_allclose(np.linalg.norm(row - on), distance, atol=1e-4)
    flat = [np.concatenate([np.ravel(t["a"]), t["b"]]) for t in found.points[1:]]
    np.testing.assert_allclose(flat @ np.transpose(flat), np.eye(2), atol=1e-5)
    assert (found.coordinates[-1] >= -1e-5).all()


def test_a_path_on_a_plane_has_nothing_off_it():
    path = [plane(A, B, C)(jnp.array([t, t**2])) for t in (0.0, 1.0, 2.0, 3.0)]
    found = pca_plane(path)
    np.testing.assert_allclose(found.off_plane, 0, atol=1e-5)
    np.testing.assert_allclose(found.explained_variance_ratio.sum(), 1, rtol=1e-6)
    same(found(jnp.asarray(found.coordinates[1], jnp.float32)), path[1], atol=1e-5)


# Directions.

NETWORK = {
    "Conv_0": {"kernel": jnp.full((3, 3, 2, 4), 0.3), "bias": jnp.ones(4)},
    "BatchNorm_0": {"scale": jnp.ones(4), "bias": jnp.zeros(4)},
    "Dense_0": {"kernel": jnp.arange(8.0).reshape(4, 2) + 1, "bias": jnp.ones(2)},
}


def norms(leaf, axes):
    return np.sqrt(np.sum(np.square(np.asarray(leaf, np.float64)), axis=axes))


def test_filter_normalisation_is_per_output_unit():
    d = gaussian_direction(jax.random.key(0), NETWORK, normalize="filter")
    for name, axes in (("Conv_0", (0, 1, 2)), ("Dense_0", 0)):
        np.testing.assert_allclose(
            norms(d[name]["kernel"], axes), norms(NETWORK[name]["kernel"], axes),
            rtol=1e-5,
        )  # fmt: skip
    for leaf in (d["Conv_0"]["bias"], *d["BatchNorm_0"].values()):
        np.testing.assert_array_equal(leaf, 0)


def test_layer_and_global_normalisation():
    key = jax.random.key(1)
    d = gaussian_direction(key, NETWORK, normalize="layer", keep_vectors=True)
    jax.tree.map(
        lambda x, w: np.testing.assert_allclose(
            norms(x, None), norms(w, None), rtol=1e-5
        ),
        d,
        NETWORK,
    )
    for make in (gaussian_direction, uniform_direction):
        d = make(key, NETWORK, normalize="global")
        total = sum(norms(leaf, None) ** 2 for leaf in jax.tree.leaves(d))
        np.testing.assert_allclose(total, 1, rtol=1e-5)
    plain = gaussian_direction(key, NETWORK)
    values = np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(plain)])
    assert abs(values.mean()) < 0.3 and 0.7 < values.std() < 1.3


def test_uniform_entries_and_their_angle_with_ones():
    point = {"w": jnp.ones((200, 200))}
    one, other = (
        np.ravel(uniform_direction(jax.random.key(seed), point)["w"]) for seed in (0, 1)
    )
    assert (one >= 0).all()
    np.testing.assert_allclose(one.sum() / 200, np.sqrt(3) / 2, atol=0.01)
    np.testing.assert_allclose(one @ other, 0.75, atol=0.01)
    both = uniform_direction(
        jax.random.key(0), point, low=-1.0, high=1.0, normalize=None
    )["w"]
    assert both.min() < -0.9 and both.max() > 0.9


def test_masks_leave_the_rest_at_zero():
    key = jax.random.key(0)
    d = gaussian_direction(key, NETWORK, normalize="global", mask=batch_norm_only)
    np.testing.assert_array_equal(d["Conv_0"]["kernel"], 0)
    np.testing.assert_allclose(norms(jnp.stack([*d["BatchNorm_0"].values()]), None), 1)
    d = gaussian_direction(key, NETWORK, mask=all_but(batch_norm_only))
    np.testing.assert_array_equal(d["BatchNorm_0"]["scale"], 0)
    assert jnp.all(d["Dense_0"]["kernel"] != 0)
    rows = {"Dense_0": {"kernel": jnp.array([[True], [False], [True], [False]]),
                        "bias": False},
            "Conv_0": {"kernel": False, "bias": False},
            "BatchNorm_0": {"scale": False, "bias": False}}  # fmt: skip
    with jax.numpy_rank_promotion("allow"):
        d = gaussian_direction(key, NETWORK, mask=rows)
    np.testing.assert_array_equal(d["Dense_0"]["kernel"][1::2], 0)
    assert jnp.all(d["Dense_0"]["kernel"][::2] != 0)


def test_a_point_with_batch_statistics_moves_its_parameters_alone():
    point = {"params": NETWORK, "batch_stats": {"mean": jnp.ones(4)}}
    d = gaussian_direction(jax.random.key(0), point)
    np.testing.assert_array_equal(d["batch_stats"]["mean"], 0)
    assert jnp.all(d["params"]["Dense_0"]["kernel"] != 0)
    everything = gaussian_direction(jax.random.key(0), point, mask=lambda path: True)
    assert jnp.all(everything["batch_stats"]["mean"] != 0)


def test_the_first_layer_is_where_the_input_goes():
    model = models.create("resnet20", num_classes=10)
    assert first_layer(model, jax.ShapeDtypeStruct((1, 32, 32, 3), jnp.float32))(
        "Conv_0/kernel"
    )
    pre = models.create("cnn", num_classes=10)
    select = first_layer(pre, jnp.ones((1, 8, 8, 1)))
    assert select("Conv_0/kernel") and not select("Conv_1/kernel")
    assert not layer_only("Conv_1")("Conv_10/kernel")


def test_a_direction_is_one_however_the_point_is_held():
    kernel, bias = jnp.ones((3, 2)), jnp.ones(2)
    d = gaussian_direction(jax.random.key(0), Weights(kernel, bias), normalize="filter")
    assert isinstance(d, Weights)
    np.testing.assert_allclose(norms(d.kernel, 0), np.sqrt(3), rtol=1e-5)


@pytest.mark.parametrize("size", [1e-22, 1.0, 1e25])
@pytest.mark.parametrize("normalize", ["filter", "layer"])
def test_norms_of_any_size_are_taken_over(size, normalize):
    kernel = size * jax.random.normal(jax.random.key(1), (4, 3))
    d = gaussian_direction(
        jax.random.key(0), {"kernel": kernel}, normalize=normalize
    )["kernel"]  # fmt: skip
    axis = 0 if normalize == "filter" else None
    expected, found = (
        np.linalg.norm(np.asarray(x, np.float64), axis=axis) for x in (kernel, d)
    )
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    # As the length of what is rescaled, too.
    d = normalized({"kernel": kernel}, {"kernel": jnp.ones((4, 3))}, "filter")["kernel"]
    np.testing.assert_allclose(jnp.linalg.norm(d, axis=0), 2.0, rtol=1e-6)


def test_difference_and_normalized():
    same(direction_between(A, B), jax.tree.map(lambda a, b: b - a, A, B))
    d = direction_between(A, B, mask=lambda path: path == "bias")
    np.testing.assert_array_equal(d["kernel"], 0)
    zero_unit = jnp.array([[0.0, 1.0], [0.0, 2.0]])
    d = normalized(jnp.ones((2, 2)), zero_unit, "filter", axes=-1)
    np.testing.assert_allclose(norms(d, 0), [0, np.sqrt(5)], rtol=1e-6)
    d = normalized(zero_unit, jnp.ones((2, 2)), "filter", axes=1)  # no NaN
    np.testing.assert_allclose(norms(d, 0), [0, np.sqrt(2)], rtol=1e-6)


def test_fooling_directions():
    matrix, b, loss = quadratic()
    w = jnp.asarray(np.random.default_rng(3).normal(size=6), jnp.float32)
    slope = matrix @ np.asarray(w) + b
    np.testing.assert_allclose(
        fooling_direction(loss, w, method="gradient"),
        slope / np.linalg.norm(slope), rtol=1e-4, atol=1e-6,
    )  # fmt: skip
    sign = fooling_direction(loss, w, towards=True, normalize=None)
    np.testing.assert_array_equal(sign, -np.sign(slope))


def test_going_towards_wrong_labels_raises_the_loss():
    model = models.create("mlp", num_classes=3, features=(8,), batch_norm=False)
    random = np.random.default_rng(0)
    x = random.normal(size=(20, 4)).astype(np.float32)
    y = (np.abs(x[:, 0] * 10).astype(int) % 3).astype(np.int32)
    params = model.init(jax.random.key(0), x, train=False)["params"]
    right = flax_objective(model, (x, y), norm="eval", batch_size=8)
    wrong = right.relabelled(jax.random.key(1))
    labels = np.concatenate([np.asarray(wrong.batch(i)[1]) for i in range(3)])
    assert (labels != y).all() and set(labels) <= {0, 1, 2}
    d = fooling_direction(wrong, params, towards=True, method="gradient")
    moved = ray(params, d)(0.1)
    assert wrong(moved) < wrong(params)


ONES = {"w": jnp.ones((2, 2))}
BAD = {
    "first leaf": (
        lambda: line(A, {"kernel": A["kernel"], "offset": A["bias"]}),
        "first leaf that differs is kernel there and bias here",
    ),
    "missing": (lambda: line(A, {"bias": A["bias"]}), "kernel is in a alone"),
    "shape": (
        lambda: line(A, {"kernel": jnp.ones((3, 3)), "bias": A["bias"]}),
        r"kernel, \(3, 3\) there and \(3, 2\)",
    ),
    "kind": (lambda: line({"0": A}, [A]), "kind of tree"),
    "integers": (lambda: line({"n": jnp.arange(3)}, {"n": jnp.arange(3)}), "int32"),
    "key": (lambda: line(jax.random.key(0), jax.random.key(0)), "floating-point"),
    "nothing": (lambda: line({}, {}), "no arrays"),
    "a string": (lambda: line({"w": "x"}, {"w": "x"}), "is a str"),
    "zero": (lambda: ray(A, jax.tree.map(jnp.zeros_like, A)), "norm 0"),
    "infinite": (lambda: ray(jnp.ones(2), jnp.array([jnp.inf, 1])), "not finite"),
    "zero plane": (lambda: plane(A, B, jax.tree.map(jnp.zeros_like, A)), "v has norm"),
    "parallel": (lambda: plane(A, B, jax.tree.map(lambda x: -2 * x, B)), "parallel"),
    "span": (lambda: span(A, B, jax.tree.map(lambda x: 2 * x, B)), "parallel"),
    "one point": (lambda: barycentric(A, A, A), "all lie on one line"),
    "equal points": (lambda: direction_between(A, A), "nothing to move along"),
    "slope": (lambda: fooling_direction(lambda w: 0.0 * w, jnp.float32(1)), "norm 0"),
    "mask": (
        lambda: gaussian_direction(jax.random.key(0), A, mask=lambda path: False),
        "selects nothing",
    ),
    "mask tree": (lambda: as_mask({"w": True}, A), "another structure"),
    "mask dtype": (lambda: as_mask({"w": 1.0}, ONES), "not bool"),
    "mask shape": (
        lambda: as_mask({"w": jnp.ones((3, 1), bool)}, ONES), "does not broadcast"
    ),
    "normalise": (
        lambda: gaussian_direction(jax.random.key(0), A, normalize="filters"),
        "did you mean 'filter'",
    ),
    "low": (
        lambda: uniform_direction(jax.random.key(0), A, low=1.0, high=1.0), "below high"
    ),
    "rank": (lambda: line(A, B)(jnp.ones(2)), r"needs shape \(\)"),
    "plane rank": (lambda: plane(A, B, C)(1.0), r"needs shape \(2,\)"),
    "few points": (lambda: pca_plane([A, B]), "three or more"),
    "one line": (lambda: pca_plane([line(A, B)(t) for t in (0.0, 1.0, 2.0)]), "line"),
    "origin": (lambda: pca_plane([A, B, C], origin="first"), "origin='first'"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_bad_input(name):
    call, message = BAD[name]
    with pytest.raises(InputError, match=message):
        call()
