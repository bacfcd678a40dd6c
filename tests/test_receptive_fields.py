"""How much of an image the last maps of the deep networks see."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lrscape import models
from lrscape.models import alexnet, bn_inception, googlenet
from lrscape.models.layers import average_pool


def averages_instead_of_maxima(monkeypatch):
    """So that every pixel of a window counts, as it may."""
    monkeypatch.setattr(alexnet, "max_pool", average_pool)
    monkeypatch.setattr(googlenet, "max_pool", average_pool)
    monkeypatch.setattr(bn_inception, "max_pool", average_pool)
    monkeypatch.setitem(bn_inception.POOLS, "max", average_pool)


def receptive_field(model, shape, layers, behind=lambda x: x):
    """How many rows of an image one pixel depends on, by the gradient's support.

    Weights are positive and so is the image: no ReLU stops anything, nothing cancels.
    """

    def fill(path, leaf):
        kind = path[-1].key
        if kind in ("kernel", "depthwise", "pointwise"):
            rows, channels = leaf.shape[0], leaf.shape[-2]
            return jnp.full(leaf.shape, 1 / (rows * channels))
        return jnp.full(leaf.shape, 1.0 if kind in ("scale", "var") else 0.0)

    init = functools.partial(model.init, train=False)
    variables = jax.eval_shape(init, jax.random.key(0), jnp.ones(shape))
    variables = jax.tree_util.tree_map_with_path(fill, variables)

    @jax.jit
    @jax.grad
    def gradient(image):
        _, seen = model.apply(
            variables, image, train=False, mutable=["intermediates"],
            capture_intermediates=lambda module, _: module.name in layers,
        )  # fmt: skip
        maps = [behind(seen["intermediates"][name]["__call__"][0]) for name in layers]
        _, height, width, _ = maps[0].shape
        return sum(x[0, height // 2, width // 2].sum() for x in maps)

    (rows,) = np.nonzero(np.abs(gradient(jnp.ones(shape))).sum(axis=(0, 2, 3)))
    assert rows[0] > 0 and rows[-1] < shape[1] - 1, "the image is too small to tell"
    return rows[-1] - rows[0] + 1


def test_receptive_field_of_alexnet(monkeypatch):
    averages_instead_of_maxima(monkeypatch)
    # Araujo et al. (2019), "Computing Receptive Fields": 195 behind the last pool.
    pool = functools.partial(average_pool, window=3, stride=2)
    net = models.create("alexnet", num_classes=10, dense=(8, 8))
    assert receptive_field(net, (1, 259, 36, 3), ["Conv_4"], pool) == 195


@pytest.mark.parametrize(
    ("name", "height", "layers", "expected"),
    [
        # Layer by layer: 7 + 2 * 2 + 2 * 4 + 2 * 4, two 5x5 of 8 pixels' stride, a
        # pool, five of 16, a pool, and two of 32.
        (
            "googlenet", 800, ("3x3", "5x5"),
            27 + 2 * 4 * 8 + 2 * 8 + 5 * 4 * 16 + 2 * 16 + 2 * 4 * 32,
        ),
        # Araujo et al. (2019), "Computing Receptive Fields": Inception v2.
        ("bn_inception", 800, ("3x3", "double_2"), 699),
    ],
)  # fmt: skip
@pytest.mark.slow
def test_receptive_fields_of_inception(monkeypatch, name, height, layers, expected):
    averages_instead_of_maxima(monkeypatch)
    net = models.create(name, num_classes=10)
    layers = [f"inception_5b_{layer}" for layer in layers]
    # One pixel wide: rows behave as in whole images.
    assert receptive_field(net, (1, height, 1, 3), layers) == expected


def test_receptive_field_of_the_wide_network():
    """3x3 convolutions: the first, eight of stride 1, and twice one and seven more."""
    net = models.create("wrn28_10", num_classes=10, widen=1)
    field = receptive_field(net, (1, 160, 1, 3), ["Conv_26"])
    assert field == 3 + 8 * 2 + (2 + 7 * 4) + (4 + 7 * 8)
