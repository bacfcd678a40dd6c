"""Flatness and distances: closed forms, and the papers' own definitions."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lrscape import models
from lrscape.errors import InputError
from lrscape.landscape import (
    average_slope,
    disagreement,
    evaluate,
    flax_objective,
    fooling_direction,
    functional_distance,
    line,
    parameter_distance,
    perturbation_losses,
)
from lrscape.landscape.distance import distance_objective, distances_with_errors
from lrscape.landscape.inputs import (
    equivalent_weight_perturbation,
    input_losses,
    neighbor_moves,
    noise_moves,
)
from lrscape.landscape.masks import first_layer
from tests.points import quadratic, regression


def bowl(w):
    return sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(w))


def test_the_average_slope_is_rise_over_distance():
    minimum = {"a": jnp.zeros(2), "b": jnp.zeros(1)}
    entrance = {"a": jnp.array([2.0, 3.0]), "b": jnp.array([6.0])}
    np.testing.assert_allclose(average_slope(bowl, minimum, entrance), 49 / 7)
    slope = jax.jit(lambda a, b: average_slope(bowl, a, b))(minimum, entrance)
    np.testing.assert_allclose(slope, 7)
    with pytest.raises(InputError, match="same point"):
        average_slope(bowl, minimum, minimum)


def test_random_perturbations_of_a_bowl():
    point = {"w": jnp.zeros((30, 20)), "b": jnp.zeros(20)}
    curves = perturbation_losses(
        bowl, point, [0.0, 0.5, 2.0], key=jax.random.key(0), num_directions=4
    )
    # Along any direction of norm 1 it rises as the square.
    np.testing.assert_allclose(curves.losses, [[0, 0.25, 4.0]] * 4, rtol=1e-5)
    np.testing.assert_allclose(curves.spread, 0, atol=1e-5)
    only_b = perturbation_losses(
        lambda p: jnp.sum(p["w"] ** 2), point, [1.0], key=jax.random.key(0),
        num_directions=2, mask=lambda path: path == "b",
    )  # fmt: skip
    np.testing.assert_array_equal(only_b.losses, 0)


def test_the_fooling_direction_is_worse_than_random_ones():
    _, _, loss = quadratic()
    w = jnp.ones(6)
    random = perturbation_losses(loss, w, [1.0], key=jax.random.key(0))
    fooling = fooling_direction(loss, w, method="gradient")
    worst = perturbation_losses(loss, w, [1.0], directions=[fooling])
    assert worst.losses[0, 0] > random.losses.max()
    assert np.isnan(worst.spread).all() and np.isnan(worst.standard_errors).all()


@pytest.fixture(scope="module")
def network():
    model = models.create("cnn", num_classes=3, features=(4,), width=8)
    random = np.random.default_rng(0)
    x = random.normal(size=(30, 6, 6, 1)).astype(np.float32)
    y = random.integers(0, 3, 30).astype(np.int32)
    variables = model.init(jax.random.key(0), x, train=False)
    return model, variables, x, y


@pytest.mark.parametrize("norm", ["train", "eval", "recalibrate"])
def test_moved_inputs_by_hand(network, norm):
    model, variables, x, y = network
    make = {"norm": norm, "batch_size": 12, "batch_stats": variables["batch_stats"]}
    objective = flax_objective(model, (x, y), **make)
    moves = noise_moves(jax.random.key(1), x, num_directions=2)
    lengths = np.linalg.norm(moves.reshape(2, 30, -1), axis=-1)
    np.testing.assert_allclose(lengths, 1, rtol=1e-5)
    curves = input_losses(objective, variables["params"], moves, [0.0, 0.7])
    assert curves.losses.shape == (2, 2)
    unmoved = objective.at(variables["params"])
    for i in range(2):
        for alpha, found in zip((0.0, 0.7), curves.losses[i], strict=True):
            moved = flax_objective(model, (x + alpha * np.asarray(moves[i]), y), **make)
            if norm == "recalibrate":
                # Statistics stay those of the inputs where they are.
                expected = sum(
                    weight * unmoved.batch_loss(variables["params"], moved.batch(k))
                    for k, weight in enumerate(moved.weights)
                )
            else:
                expected = moved(variables["params"])
            np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_the_way_to_a_neighbour_ends_there():
    random = np.random.default_rng(0)
    inputs = random.normal(size=(8, 3, 2)).astype(np.float32)
    candidates = random.normal(size=(40, 3, 2)).astype(np.float32)
    moves = neighbor_moves(
        jax.random.key(0), inputs, candidates, num_neighbors=10, num_directions=50
    )
    flat = candidates.reshape(40, -1)
    for n, x in enumerate(inputs):
        order = np.argsort(np.linalg.norm(flat - x.ravel(), axis=1))
        ends = (x + moves[:, n]).reshape(50, -1)
        chosen = {int(np.argmin(np.linalg.norm(flat - end, axis=1))) for end in ends}
        assert chosen <= set(order[:10].tolist()) and len(chosen) > 5


# Lemma 1.


def test_lemma_1_is_exact_for_one_input_of_a_dense_layer():
    random = np.random.default_rng(0)
    kernel, x, dx = (
        jnp.asarray(random.normal(size=s), jnp.float32) for s in ((7, 5), (7,), (7,))
    )
    found = equivalent_weight_perturbation(kernel, x, dx)
    W = np.asarray(kernel).T
    eq2 = np.outer(W @ np.asarray(dx), x) / np.sum(np.square(x))
    np.testing.assert_allclose(found.kernel.T, eq2, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(
        x @ (kernel + found.kernel), (x + dx) @ kernel, rtol=1e-4
    )
    assert found.residual < 1e-5


def test_lemma_1_where_no_exact_answer_exists():
    random = np.random.default_rng(0)
    images, moves = random.normal(size=(2, 4, 9, 9, 3)).astype(np.float32)
    kernel = random.normal(size=(3, 3, 3, 4)).astype(np.float32)
    conv = nn.Conv(4, (3, 3), strides=(2, 2), use_bias=False, padding="SAME")
    found = equivalent_weight_perturbation(kernel, images, moves, strides=(2, 2))

    def response(kernel, x):
        return conv.apply({"params": {"kernel": kernel}}, x)

    wanted = response(kernel, moves)
    missed = np.linalg.norm(response(found.kernel, images) - wanted)
    np.testing.assert_allclose(
        found.residual, missed / np.linalg.norm(wanted), rtol=1e-3
    )
    # Nothing else comes nearer: the gradient of the missed square is zero there.
    gradient = jax.grad(
        lambda k: jnp.sum((response(k, images) - wanted) ** 2)
    )(found.kernel)  # fmt: skip
    assert jnp.abs(gradient).max() < 1e-2 * jnp.abs(wanted).sum() / 100
    assert found.residual > 0.1
    several = equivalent_weight_perturbation(
        kernel[0, 0], images.reshape(-1, 3), moves.reshape(-1, 3)
    )
    assert several.residual > 0.1


# Distances.


def test_functional_distance_by_hand():
    random = np.random.default_rng(0)
    a, b = random.normal(size=(2, 4, 3)).astype(np.float32)
    x = random.normal(size=(23, 4)).astype(np.float32)

    def apply_fn(w, x):
        return x @ w

    squares = ((x @ a - x @ b) ** 2).sum(axis=1)
    exact = np.sqrt(squares.mean())
    for batch_size in (5, 23, 500):
        np.testing.assert_allclose(
            functional_distance(apply_fn, a, b, x, batch_size=batch_size), exact,
            rtol=1e-5,
        )  # fmt: skip
    estimates = distances_with_errors(apply_fn, a, b, x)
    error = squares.std(ddof=1) / np.sqrt(23) / (2 * exact)
    np.testing.assert_allclose(
        estimates.functional_distance.standard_error, error, rtol=1e-4
    )

    def softmax(z):
        e = np.exp(z - z.max(axis=1, keepdims=True))
        return e / e.sum(axis=1, keepdims=True)

    differences = softmax(x @ a) - softmax(x @ b)
    np.testing.assert_allclose(
        functional_distance(apply_fn, a, b, x, softmax=True),
        np.sqrt((differences**2).sum(axis=1).mean()), rtol=1e-5,
    )  # fmt: skip
    assert functional_distance(apply_fn, a, a, x) == 0

    share = np.mean(np.argmax(x @ a, axis=1) != np.argmax(x @ b, axis=1))
    assert 0 < share < 1
    np.testing.assert_allclose(disagreement(apply_fn, a, b, x), share, rtol=1e-6)
    error = np.sqrt(share * (1 - share) / 22)
    np.testing.assert_allclose(estimates.disagreement.standard_error, error, rtol=1e-4)

    # Along a line, as any other objective.
    objective = distance_objective(apply_fn, x, batch_size=7)
    way = line(a, b)
    found = evaluate(objective, lambda t: (jnp.asarray(a), way(t)), [0.0, 0.5, 1.0])
    np.testing.assert_allclose(
        np.sqrt(found["loss"]), [0, exact / 2, exact], rtol=1e-4, atol=1e-6
    )


def test_parameter_distance():
    a = {"w": jnp.zeros((2, 2)), "b": jnp.zeros(1)}
    b = {"w": jnp.full((2, 2), 2.0), "b": jnp.full(1, 3.0)}
    np.testing.assert_allclose(parameter_distance(a, b), 5)


def test_the_first_layer_is_moved_alone(network):
    model, variables, x, y = network
    objective = flax_objective(model, (x, y), norm="train", batch_size=30)
    mask = first_layer(model, x[:1])
    curves = perturbation_losses(
        objective, variables["params"], [0.0, 1.0], key=jax.random.key(0),
        num_directions=2, mask=mask,
    )  # fmt: skip
    np.testing.assert_allclose(
        curves.losses[:, 0], objective(variables["params"]), 1e-5
    )
    assert (curves.losses[:, 1] != curves.losses[:, 0]).all()


LEMMA = equivalent_weight_perturbation
OBJECTIVE, X, _ = regression()
BAD = {
    "moves": (
        lambda: input_losses(OBJECTIVE, {}, np.zeros((3, 3)), [0.0]), "moves have shape"
    ),
    "no pair": (lambda: input_losses(bowl, {}, X, [0.0]), "must hold"),
    "scales": (
        lambda: perturbation_losses(bowl, jnp.ones(2), 1.0, key=jax.random.key(0)),
        "scales",
    ),
    "both": (lambda: perturbation_losses(bowl, jnp.ones(2), [1.0]), "either key"),
    "no directions": (
        lambda: perturbation_losses(bowl, jnp.ones(2), [1.0], directions=[]),
        r"directions=\[\] holds no direction",
    ),
    "neighbours": (
        lambda: neighbor_moves(jax.random.key(0), X, X, num_neighbors=11), "10"
    ),
    "zero input": (
        lambda: LEMMA(jnp.ones((2, 3)), jnp.zeros(2), jnp.ones(2)),
        "all zero",
    ),
    "kernel": (
        lambda: LEMMA(jnp.ones((2, 3)), jnp.ones(3), jnp.ones(3)),
        "do not fit",
    ),
    "outputs": (
        lambda: functional_distance(lambda w, x: x[:, 0], X, X, X), r"\(n, outputs\)"
    ),
    "empty": (lambda: functional_distance(lambda w, x: x, X, X, X[:0]), "empty"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_bad_input(name):
    call, message = BAD[name]
    with pytest.raises(InputError, match=message):
        call()
