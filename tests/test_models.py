"""Networks against their published sizes, and layers against their formulas."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lrscape import models
from lrscape.errors import InputError
from lrscape.models.pooling import average_pool, max_pool
from lrscape.models.small import local_response_norm

# Published or counted by hand: name, input, classes, fields, parameters.
SIZES = [
    # 784-500-350-10: dense layers with biases, and two norms.
    ("mlp", (28, 28, 1), {}, 784 * 500 + 500 + 500 * 350 + 350 + 350 * 10 + 10 + 1700),
    # 3x3 convolutions without bias, a dense layer of 7 * 7 * 64 inputs, three norms.
    ("cnn", (28, 28, 1), {}, 9 * 32 + 9 * 32 * 64 + 3136 * 128 + 1290 + 2 * 224),
    # cuda-convnet's 18 % network, as its layer definitions count.
    ("small", (32, 32, 3), {}, 2_432 + 25_632 + 51_264 + 10_250),
]


@pytest.mark.parametrize(("name", "shape", "fields", "parameters"), SIZES)
def test_parameters_and_outputs(name, shape, fields, parameters):
    model = models.create(name, num_classes=10, **fields)
    images = jax.random.normal(jax.random.key(1), (2, *shape))
    init = jax.jit(functools.partial(model.init, train=False))
    variables = init(jax.random.key(0), images)
    count = sum(leaf.size for leaf in jax.tree.leaves(variables["params"]))
    assert count == parameters
    assert all(
        leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(variables["params"])
    )
    logits, sown = model.apply(
        variables, images, train=False, mutable=["intermediates"]
    )
    assert logits.shape == (2, 10)
    # The penultimate features are what the last dense layer is fed with.
    (features,) = sown["intermediates"]["penultimate"]
    last = variables["params"][max(k for k in variables["params"] if "Dense" in k)]
    np.testing.assert_allclose(
        features @ last["kernel"] + last["bias"][None], logits, rtol=1e-4, atol=1e-5
    )
    trained, updated = model.apply(
        variables, images, train=True, mutable=["batch_stats"]
    )
    assert trained.shape == (2, 10)
    assert ("batch_stats" in updated) == ("batch_stats" in variables)


def test_every_model_has_its_size_tested():
    assert {name for name, *_ in SIZES} == set(models.NAMES)


def windows(x, size):
    """Each output pixel's window of stride 2, cut off at the border."""
    length = -(-(x.shape[1] - size) // 2) + 1
    return [
        [x[:, 2 * i : 2 * i + size, 2 * j : 2 * j + size] for j in range(length)]
        for i in range(length)
    ]


@pytest.mark.parametrize("size", [2, 3])
@pytest.mark.parametrize("side", [7, 8, 32])
def test_pools_round_up_and_cut_off(side, size):
    x = np.asarray(jax.random.normal(jax.random.key(0), (2, side, side, 3)))
    for pool, reduce in ((max_pool, np.max), (average_pool, np.mean)):
        expected = np.array(
            [[reduce(w, axis=(1, 2)) for w in row] for row in windows(x, size)]
        )
        np.testing.assert_allclose(
            pool(jnp.asarray(x), size, 2),
            expected.transpose(2, 0, 1, 3),
            rtol=1e-5,
            atol=1e-6,
        )


def test_local_response_norm_is_within_a_map():
    x = 40 * np.asarray(jax.random.normal(jax.random.key(0), (1, 5, 6, 2)))
    expected = np.empty_like(x)
    for i in range(5):
        for j in range(6):
            window = x[0, max(i - 1, 0) : i + 2, max(j - 1, 0) : j + 2]
            total = np.square(window).sum(axis=(0, 1))
            expected[0, i, j] = x[0, i, j] * (1 + 5e-5 / 9 * total) ** -0.75
    np.testing.assert_allclose(local_response_norm(jnp.asarray(x)), expected, rtol=1e-5)


def test_published_initial_weights_of_small():
    model = models.create("small", num_classes=10)
    params = model.init(jax.random.key(0), jnp.ones((1, 32, 32, 3)), train=False)
    deviations = jax.tree.map(jnp.std, params["params"])
    np.testing.assert_allclose(deviations["Conv_0"]["kernel"], 1e-4, rtol=0.1)
    for layer in ("Conv_1", "Conv_2", "Dense_0"):
        np.testing.assert_allclose(deviations[layer]["kernel"], 0.01, rtol=0.1)


def test_bad_names_and_fields():
    with pytest.raises(
        InputError, match="model='smal' is unknown; did you mean 'small'"
    ):
        models.create("smal", num_classes=10)
    with pytest.raises(InputError, match="depth=3 is not a field of model='mlp'"):
        models.create("mlp", num_classes=10, depth=3)
    with pytest.raises(InputError, match="num_classes=0"):
        models.create("mlp", num_classes=0)
    with pytest.raises(InputError, match="initializer='hee'.*did you mean 'he'"):
        small = models.create("small", num_classes=10, initializer="hee")
        small.init(jax.random.key(0), jnp.ones((1, 32, 32, 3)), train=False)
