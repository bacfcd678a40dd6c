"""Layers of the deep networks against their formulas and against Flax's own."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lrscape.models.bn_inception import Separable
from lrscape.models.convolution import conv_general_dilated
from lrscape.models.layers import average_pool, local_response_norm, max_pool


def test_response_norm_across_channels():
    """Krizhevsky et al. (2012), Sec. 3.3: k = 2, n = 5, alpha = 1e-4, beta = 0.75."""
    x = 100 * np.asarray(jax.random.normal(jax.random.key(0), (1, 2, 3, 9)))
    expected = np.empty_like(x)
    for channel in range(9):
        window = x[..., max(channel - 2, 0) : channel + 3]
        total = np.square(window).sum(axis=-1)
        expected[..., channel] = x[..., channel] / (2 + 1e-4 * total) ** 0.75
    # The text's alpha is not divided by the number of channels.
    found = local_response_norm(jnp.asarray(x), axes=(3,), size=5, alpha=5e-4, bias=2.0)
    np.testing.assert_allclose(found, expected, rtol=1e-5)


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("side", [1, 2, 7, 8])
def test_pools_that_keep_the_size(side, stride):
    x = np.asarray(jax.random.normal(jax.random.key(0), (2, side, side + 1, 3)))
    for pool, reference in (
        (max_pool, nn.max_pool),
        (average_pool, functools.partial(nn.avg_pool, count_include_pad=False)),
    ):
        expected = reference(x, (3, 3), strides=(stride, stride), padding="SAME")
        np.testing.assert_allclose(
            pool(jnp.asarray(x), 3, stride, same=True), expected, rtol=1e-5, atol=1e-6
        )


@pytest.mark.parametrize("groups", [2, 4, 16])
@pytest.mark.parametrize("strides", [1, 2])
def test_groups_are_convolved_apart(groups, strides):
    x = jax.random.normal(jax.random.key(0), (2, 6, 5, 16))
    plain = nn.Conv(32, (3, 3), strides=strides, feature_group_count=groups)
    params = plain.init(jax.random.key(1), x)
    ours = plain.clone(conv_general_dilated=conv_general_dilated)

    def loss(layer, params, x):
        return jnp.sum(jnp.sin(layer.apply(params, x)))

    found, expected = (
        jax.jit(jax.grad(functools.partial(loss, layer), (0, 1)))(params, x)
        for layer in (ours, plain)
    )
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4),
        found,
        expected,
    )


@pytest.mark.parametrize(
    ("strides", "padding"), [(1, "SAME"), (2, [(1, 1), (1, 1)]), (1, "VALID")]
)
def test_a_kernels_gradient_in_slices(strides, padding):
    """Of more examples than are taken together, the last slice a short one."""
    with jax.enable_x64(True):
        x = jax.random.normal(jax.random.key(0), (35, 16, 17, 2))
        plain = nn.Conv(
            3, (3, 3), strides=strides, padding=padding, param_dtype=jnp.float64
        )
        point = (plain.init(jax.random.key(1), x), x)
        ours = plain.clone(conv_general_dilated=conv_general_dilated)
        way = jax.tree.map(
            lambda leaf: jax.random.normal(jax.random.key(2), leaf.shape), point
        )

        def of(layer):
            def loss(point):
                return jnp.sum(jnp.sin(layer.apply(*point)))

            slope = jax.grad(loss)
            return (
                slope(point),
                jax.jvp(loss, (point,), (way,)),
                jax.jvp(slope, (point,), (way,))[1],
                jax.grad(lambda p: jnp.sum(jnp.sin(jax.tree.leaves(slope(p))[0])))(
                    point
                ),
                jax.vmap(slope)(jax.tree.map(lambda leaf: leaf[None], point)),
                jax.linearize(slope, point)[1](way),
            )

        kernel_only = jax.grad(lambda params: jnp.sum(jnp.sin(ours.apply(params, x))))(
            point[0]
        )
        found, expected = jax.jit(lambda: of(ours))(), jax.jit(lambda: of(plain))()
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-9),
            (found, kernel_only),
            (expected, expected[0][0]),
        )
        text = str(jax.make_jaxpr(jax.grad(lambda p: jnp.sum(ours.apply(p, x))))(
            point[0]
        ))  # fmt: skip
    # One of all examples, and three of slices; nothing of the data's gradient.
    assert text.count("conv_general_dilated[") == 4


def test_a_separable_convolution_is_two():
    channels = 3
    x = jax.random.normal(jax.random.key(0), (2, 11, 8, channels))
    layer = Separable(5)
    variables = layer.init(jax.random.key(1), x)
    weights = variables["params"]
    depthwise = nn.Conv(
        8 * channels, (7, 7), strides=2, feature_group_count=channels, use_bias=False
    )
    y = depthwise.apply(
        {"params": {"kernel": weights["depthwise"].reshape(7, 7, 1, -1)}}, x
    )
    expected = y @ weights["pointwise"].reshape(-1, 5)
    np.testing.assert_allclose(
        layer.apply(variables, x), expected, rtol=1e-4, atol=1e-5
    )
    # Each is drawn by the number of its own inputs.
    np.testing.assert_allclose(weights["depthwise"].std(), 1 / 7, rtol=0.15)
