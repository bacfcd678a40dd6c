"""Networks against their published sizes, and layers against their formulas."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lrscape import models
from lrscape.errors import InputError
from lrscape.models.convolution import conv_general_dilated
from lrscape.models.layers import average_pool, local_response_norm, max_pool

# Published or counted by hand: name, input, classes, fields, parameters.
SIZES = [
    # 784-500-350-10: dense layers with biases, and two norms.
    ("mlp", (28, 28, 1), {}, 784 * 500 + 500 + 500 * 350 + 350 + 350 * 10 + 10 + 1700),
    # 3x3 convolutions without bias, a dense layer of 7 * 7 * 64 inputs, three norms.
    ("cnn", (28, 28, 1), {}, 9 * 32 + 9 * 32 * 64 + 3136 * 128 + 1290 + 2 * 224),
    # Yedida and Saha (2019), Table 1: 730,602 with the running averages, 256.
    ("mnist_cnn", (28, 28, 1), {}, 730_346),
    # cuda-convnet's 18 % network, as its layer definitions count.
    ("small", (32, 32, 3), {}, 2_432 + 25_632 + 51_264 + 10_250),
    # Springenberg et al. (2014): about 1.4 million; nine convolutions.
    (
        "large",
        (32, 32, 3),
        {},
        (27 * 96 + 96)
        + 2 * (864 * 96 + 96)
        + (864 * 192 + 192)
        + 3 * (1728 * 192 + 192)
        + (192 * 192 + 192)
        + (192 * 10 + 10),
    ),
    # Lin et al. (2013): the layer definitions for CIFAR-10, stage by stage.
    (
        "nin",
        (32, 32, 3),
        {},
        (75 * 192 + 192)
        + (192 * 160 + 160)
        + (160 * 96 + 96)
        + (2400 * 192 + 192)
        + 2 * (192 * 192 + 192)
        + (1728 * 192 + 192)
        + (192 * 192 + 192)
        + (192 * 10 + 10),
    ),
    # And those for MNIST.
    (
        "nin_mnist",
        (28, 28, 1),
        {},
        (25 * 96 + 96)
        + (96 * 64 + 64)
        + (64 * 48 + 48)
        + (1200 * 128 + 128)
        + (128 * 96 + 96)
        + (96 * 48 + 48)
        + (1200 * 128 + 128)
        + (128 * 96 + 96)
        + (96 * 10 + 10),
    ),
    # The same layers, and two numbers for each of their channels in a norm.
    ("nin_bn", (32, 32, 3), {}, 966_986 + 2 * (4 * 192 + 160 + 96 + 2 * 192 + 10)),
    ("nin_bn", (32, 32, 3), {"batch_norm": False}, 966_986),
    # Configuration A: eight convolutions and dense layers of 512, 512 and 10.
    ("vgg11", (32, 32, 3), {}, 9_220_480 + 2 * 2_752 + 2 * 262_656 + 5_130),
    # Configuration D: thirteen, and dense layers of 512 and 10, with and without norms.
    (
        "vgg",
        (32, 32, 3),
        {},
        14_714_688
        + (512 * 512 + 512)
        + (512 * 10 + 10)
        + 2 * (2 * 64 + 2 * 128 + 3 * 256 + 6 * 512 + 512),
    ),
    ("vgg", (32, 32, 3), {"batch_norm": False}, 14_714_688 + 262_656 + 5_130),
    # He et al. (2019), Sec. 7: two numbers a channel of each norm, or one bias.
    ("resnet8", (32, 32, 3), {}, 74_810 + 2 * 240),
    ("resnet8", (32, 32, 3), {"batch_norm": False}, 74_810 + 240),
    # He et al. (2015), Table 6: 0.27, 0.46, 0.66, 0.85 and 1.7 million.
    ("resnet20", (32, 32, 3), {}, 269_722),
    ("resnet20", (32, 32, 3), {"shortcut": "B"}, 272_474),
    ("resnet32", (32, 32, 3), {}, 464_154),
    ("resnet44", (32, 32, 3), {}, 658_586),
    ("resnet56", (32, 32, 3), {}, 853_018),
    ("resnet110", (32, 32, 3), {}, 1_727_962),
    # He et al. (2016): 1.7 million for 110 basic layers and for 164 with bottlenecks.
    ("preresnet20", (32, 32, 3), {}, 272_282),
    ("preresnet32", (32, 32, 3), {}, 466_714),
    ("preresnet44", (32, 32, 3), {}, 661_146),
    ("preresnet56", (32, 32, 3), {}, 855_578),
    ("preresnet110", (32, 32, 3), {"block": "basic"}, 1_730_522),
    # He et al. (2019), Sec. 7: 16,160 of these belong to batch norm, 1.41 %.
    ("preresnet110", (32, 32, 3), {}, 1_146_842),
    ("preresnet164", (32, 32, 3), {}, 1_703_258),
    # Huang et al. (2017), Table 2: 1.0, 0.8 and 25.6 million.
    ("densenet40", (32, 32, 3), {}, 1_019_722),
    ("densenet100", (32, 32, 3), {}, 769_162),
    ("densenet190", (32, 32, 3), {}, 25_624_430),
    # Zagoruyko and Komodakis (2016): 36.5 million.
    ("wrn28_10", (32, 32, 3), {}, 36_479_194),
    # As published for 1000 classes (see `test_deep_models`), less 990 of these.
    ("alexnet", (224, 224, 3), {}, 60_965_224 - 990 * 4097),
    ("googlenet", (224, 224, 3), {}, 13_378_280 - 990 * 3 * 1025),
    ("bn_inception", (224, 224, 3), {}, 11_188_288 - 990 * 1025),
]

# Deep networks are counted without being compiled.
SHALLOW = ("mlp", "cnn", "mnist_cnn", "small", "resnet20", "preresnet20")


@pytest.mark.parametrize(("name", "shape", "fields", "parameters"), SIZES)
def test_parameters(name, shape, fields, parameters):
    model = models.create(name, num_classes=10, **fields)
    init = functools.partial(model.init, train=False)
    variables = jax.eval_shape(init, jax.random.key(0), jnp.ones((1, *shape)))
    assert sum(leaf.size for leaf in jax.tree.leaves(variables["params"])) == parameters
    kinds = {leaf.dtype for leaf in jax.tree.leaves(variables)}
    assert kinds == {jnp.dtype("float32")}
    outputs, _ = jax.eval_shape(
        lambda v: model.apply(
            v,
            jnp.ones((3, *shape)),
            train=True,
            mutable=["batch_stats"],
            rngs={"dropout": jax.random.key(0)},
        ),
        variables,
    )
    assert outputs.shape == (3, 10)


@pytest.mark.parametrize(
    ("name", "shape", "fields"),
    [size[:3] for size in SIZES if size[0] in SHALLOW]
    + [("preresnet20", (32, 32, 3), {"block": "bottleneck"})]
    + [("vgg", (4, 4, 1), {"stages": ((4, 6),), "dropout": (0.3,), "dense": 8})],
)
def test_outputs_and_features(name, shape, fields):
    model = models.create(name, num_classes=10, **fields)
    images = jax.random.normal(jax.random.key(1), (2, *shape))
    init = jax.jit(functools.partial(model.init, train=False))
    variables = init(jax.random.key(0), images)
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
        variables, images, train=True, mutable=["batch_stats"],
        rngs={"dropout": jax.random.key(2)},
    )  # fmt: skip
    assert trained.shape == (2, 10)
    assert ("batch_stats" in updated) == ("batch_stats" in variables)


# Networks whose last layer is a 1x1 convolution, and the maps that enter it.
MAPS = [
    ("large", (32, 32, 3), (6, 6, 192)),
    ("large", (28, 28, 1), (5, 5, 192)),
    ("large", (8, 8, 1), (2, 2, 192)),
    ("nin", (32, 32, 3), (8, 8, 192)),
    ("nin_mnist", (28, 28, 1), (7, 7, 96)),
    ("nin_mnist", (8, 8, 1), (2, 2, 96)),
]


@pytest.mark.parametrize(("name", "shape", "maps"), MAPS)
def test_maps_that_enter_a_last_convolution(name, shape, maps):
    model = models.create(name, num_classes=10)
    images = jax.random.normal(jax.random.key(1), (2, *shape))
    init = jax.jit(functools.partial(model.init, train=False))
    variables = init(jax.random.key(0), images)
    # With biases, so that where they are added shows.
    params = jax.tree.map(lambda x: x + 0.01 if x.ndim == 1 else x, variables["params"])
    apply = jax.jit(
        functools.partial(model.apply, mutable=["intermediates"]),
        static_argnames="train",
    )
    logits, sown = apply({"params": params}, images, train=False)
    (features,) = sown["intermediates"]["penultimate"]
    assert features.shape == (2, *maps)
    last = params["Conv_8"]
    assert "Conv_9" not in params
    each = features @ last["kernel"][0, 0] + last["bias"][None, None, None]
    expected = np.maximum(each, 0).mean(axis=(1, 2))
    np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=1e-5)
    if shape == (8, 8, 1):
        plain = model.clone(final_relu=False).apply(
            {"params": params}, images, train=False
        )
        np.testing.assert_allclose(plain, each.mean(axis=(1, 2)), rtol=1e-4, atol=1e-5)
    # Dropout takes values at random, and only in training.
    keys = jax.random.split(jax.random.key(2))
    one, two = (
        apply({"params": params}, images, train=True, rngs={"dropout": key})[0]
        for key in keys
    )
    assert (one != two).any() and (one != logits).any()


def layers_of(model):
    """What a training pass goes through, in order, and the sides of its maps."""
    seen = []

    def note(call, args, kwargs, context):
        module, size = context.module, args[0].shape[1]
        kind, fields = type(module).__name__, ()
        if kind == "Conv":
            fields = (module.kernel_size[0], module.features, size)
        elif kind == "Dense":
            fields = (module.features, size)
        elif kind == "Dropout":
            fields = (module.rate, size)
        elif kind == "BatchNorm":
            fields = (module.epsilon,)
        if fields:
            seen.append((kind, *fields))
        return call(*args, **kwargs)

    rngs = {"params": jax.random.key(0), "dropout": jax.random.key(1)}
    with nn.intercept_methods(note):
        jax.eval_shape(
            lambda: model.init_with_output(rngs, jnp.ones((2, 32, 32, 3)), train=True)
        )
    return seen


@pytest.mark.parametrize("batch_norm", [True, False])
def test_layers_of_the_networks_of_cifar_torch(batch_norm):
    """Im et al. (2016), Sec. 3.4: convolutions are (side, channels, input's side)."""

    def block(*layer):
        return [layer, ("BatchNorm", 1e-3)] if batch_norm else [layer]

    def conv(*fields):
        return block("Conv", *fields)

    def nin_stage(size, side, *widths):
        sizes = [size, 1, 1]
        return [
            layer
            for size, width in zip(sizes, widths, strict=True)
            for layer in conv(size, width, side)
        ]

    nin = models.create("nin_bn", num_classes=10, batch_norm=batch_norm)
    assert layers_of(nin) == [
        *nin_stage(5, 32, 192, 160, 96), ("Dropout", 0.5, 16),
        *nin_stage(5, 16, 192, 192, 192), ("Dropout", 0.5, 8),
        *nin_stage(3, 8, 192, 192, 10),
    ]  # fmt: skip

    def vgg_stage(channels, count, side, rate):
        drop = [("Dropout", rate, side)]
        one = conv(3, channels, side)
        return one + (count - 1) * (drop + one)

    vgg = models.create("vgg", num_classes=10, batch_norm=batch_norm)
    assert layers_of(vgg) == [
        *vgg_stage(64, 2, 32, 0.3), *vgg_stage(128, 2, 16, 0.4),
        *vgg_stage(256, 3, 8, 0.4), *vgg_stage(512, 3, 4, 0.4),
        *vgg_stage(512, 3, 2, 0.4), ("Dropout", 0.5, 512),
        *block("Dense", 512, 512), ("Dropout", 0.5, 512), ("Dense", 10, 512),
    ]  # fmt: skip


@pytest.mark.slow
def test_last_block_of_nin_with_batch_norm():
    """Convolution, norm, ReLU, mean: logits are not negative."""
    stages = ((3, (4,)), (3, (6,)))
    model = models.create("nin_bn", num_classes=10, stages=stages)
    images = jax.random.normal(jax.random.key(1), (4, 8, 8, 3))
    variables = jax.jit(functools.partial(model.init, train=False))(
        jax.random.key(0), images
    )
    apply = jax.jit(
        functools.partial(model.apply, mutable=["intermediates", "batch_stats"]),
        static_argnames="train",
    )
    logits, updated = apply(
        variables, images, train=True, rngs={"dropout": jax.random.key(2)}
    )
    (features,) = updated["intermediates"]["penultimate"]
    last = variables["params"]["Conv_2"]
    each = np.asarray(features @ last["kernel"][0, 0] + last["bias"][None, None, None])
    mean, variance = each.mean(axis=(0, 1, 2)), each.var(axis=(0, 1, 2))
    expected = np.maximum((each - mean) / np.sqrt(variance + 1e-3), 0)
    np.testing.assert_allclose(logits, expected.mean(axis=(1, 2)), rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(
        updated["batch_stats"]["BatchNorm_2"]["mean"], 0.1 * mean, rtol=1e-3, atol=1e-5
    )


def test_initial_weights_of_the_networks_of_cifar_torch():
    """N(0, 2 / (9 out)) in VGG; its dense layers uniform within 1 / sqrt(in)."""
    model = models.create("vgg", num_classes=10, stages=((64, 128),), dropout=(0.3,))
    init = jax.jit(functools.partial(model.init, train=False))
    params = init(jax.random.key(0), jnp.ones((1, 4, 4, 3)))["params"]
    for name, layer in params.items():
        if name.startswith("Conv"):
            outputs = layer["kernel"].shape[-1]
            np.testing.assert_allclose(
                layer["kernel"].std(), np.sqrt(2 / (9 * outputs)), rtol=0.06
            )
        if name.startswith("Dense"):
            largest = np.abs(layer["kernel"]).max()
            np.testing.assert_allclose(largest, 1 / np.sqrt(512), rtol=0.01)


def test_input_dropout_of_all_cnn():
    model = models.create("large", num_classes=10)
    images = jnp.ones((1, 32, 32, 3))
    variables = model.init(jax.random.key(0), images, train=False)
    _, seen = model.apply(
        variables,
        images,
        train=True,
        rngs={"dropout": jax.random.key(2)},
        capture_intermediates=lambda module, _: isinstance(module, nn.Dropout),
        mutable=["intermediates"],
    )
    kept = [
        np.asarray(seen["intermediates"][f"Dropout_{n}"]["__call__"][0])
        for n in range(3)
    ]
    np.testing.assert_allclose((kept[0] > 0).mean(), 0.8, atol=0.03)
    np.testing.assert_allclose(kept[0].max(), 1.25)
    assert [x.shape[1:] for x in kept[1:]] == [(16, 16, 96), (8, 8, 192)]


@pytest.mark.slow
def test_the_second_pool_of_nin():
    """On maps that fall off to the right an average is below a maximum."""
    images = jnp.broadcast_to(jnp.linspace(1, 0, 32)[None, None, :, None],
                              (1, 32, 32, 3))  # fmt: skip
    pooled = {}
    for pool in ("max", "average"):
        model = models.create("nin", num_classes=10, second_pool=pool)
        variables = model.init(jax.random.key(0), images, train=False)
        # Each layer hands on the first channel's middle, so that pools show alone.
        params = jax.tree.map(jnp.zeros_like, variables["params"])
        for layer in params.values():
            middle = layer["kernel"].shape[0] // 2
            layer["kernel"] = layer["kernel"].at[middle, middle, 0, 0].set(1.0)
        logits = model.apply({"params": params}, images, train=False)
        pooled[pool] = float(logits[0, 0])
    rows = np.asarray(images[0, :, :, :1])
    once = max_pool(jnp.asarray(rows[None]), 3, 2)
    np.testing.assert_allclose(pooled["max"], max_pool(once, 3, 2).mean(), rtol=1e-5)
    np.testing.assert_allclose(
        pooled["average"], average_pool(once, 3, 2).mean(), rtol=1e-5
    )
    assert pooled["average"] < pooled["max"]


def test_every_model_has_its_size_tested():
    # The LSTM reads tokens: tests/test_language.py.
    assert {name for name, *_ in SIZES} | {"lstm"} == set(models.NAMES)


def test_batch_norm_of_the_bottleneck_network():
    model = models.create("preresnet110", num_classes=10)
    shapes = jax.eval_shape(
        lambda: model.init(jax.random.key(0), jnp.ones((1, 32, 32, 3)), train=False)
    )
    norms = [v for k, v in _flat(shapes["params"]) if "BatchNorm" in k]
    assert sum(leaf.size for leaf in norms) == 16_160


def _flat(tree):
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return [(jax.tree_util.keystr(path), leaf) for path, leaf in leaves]


def test_shortcut_a_takes_every_other_pixel_and_pads_with_zeros():
    model = models.create("resnet20", num_classes=10)
    x = jax.random.normal(jax.random.key(0), (2, 8, 8, 16))
    y = model._shortcut(x, 32, 2, train=False)
    assert y.shape == (2, 4, 4, 32)
    np.testing.assert_array_equal(y[..., :16], x[:, ::2, ::2])
    np.testing.assert_array_equal(y[..., 16:], 0)


def test_a_block_whose_convolutions_are_zero_passes_its_input():
    """What makes it a residual network: with zero weights a block is its shortcut."""
    model = models.create("resnet20", num_classes=10)
    images = jax.random.normal(jax.random.key(0), (2, 32, 32, 3))
    variables = jax.jit(functools.partial(model.init, train=False))(
        jax.random.key(1), images
    )
    params = {
        name: jax.tree.map(jnp.zeros_like, layer)
        if name.startswith("Conv_") and name != "Conv_0"
        else layer
        for name, layer in variables["params"].items()
    }
    _, sown = model.apply(
        {**variables, "params": params}, images, train=False, mutable=["intermediates"]
    )
    (features,) = sown["intermediates"]["penultimate"]
    # The first layer's channels, thinned twice; those that were padded stay zero.
    assert (np.asarray(features[:, :16]) > 0).any()
    np.testing.assert_array_equal(features[:, 16:], 0)


@jax.numpy_dtype_promotion("standard")  # Flax's own norm is not strict here
@pytest.mark.parametrize("name", ["resnet20", "preresnet20"])
def test_bfloat16_compute_keeps_float32_parameters(name):
    images = jax.random.normal(jax.random.key(0), (4, 32, 32, 3))
    full = models.create(name, num_classes=10)
    half = models.create(name, num_classes=10, dtype="bfloat16")
    variables = jax.jit(functools.partial(half.init, train=False))(
        jax.random.key(1), images
    )
    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {jnp.dtype("float32")}
    a = jax.jit(functools.partial(full.apply, train=False))(variables, images)
    b = jax.jit(functools.partial(half.apply, train=False))(variables, images)
    assert b.dtype == jnp.float32
    # Rounded to 8 bits on the way, and not the same to the last digit of float32.
    scale = np.abs(a).max()
    np.testing.assert_allclose(a, b, atol=0.05 * scale)
    assert np.abs(a - b).max() > 1e-4 * scale


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


@pytest.mark.slow
def test_published_initial_weights_of_small():
    model = models.create("small", num_classes=10)
    params = model.init(jax.random.key(0), jnp.ones((1, 32, 32, 3)), train=False)
    deviations = jax.tree.map(jnp.std, params["params"])
    np.testing.assert_allclose(deviations["Conv_0"]["kernel"], 1e-4, rtol=0.1)
    for layer in ("Conv_1", "Conv_2", "Dense_0"):
        np.testing.assert_allclose(deviations[layer]["kernel"], 0.01, rtol=0.1)


@pytest.mark.slow
def test_initial_weights_of_nin():
    shapes = jnp.ones((1, 32, 32, 3))
    published, he = (
        models.create("nin", num_classes=10, initializer=name).init(
            jax.random.key(0), shapes, train=False
        )["params"]
        for name in ("published", "he")
    )
    for name, layer in published.items():
        np.testing.assert_allclose(layer["kernel"].std(), 0.05, rtol=0.1)
        np.testing.assert_array_equal(layer["bias"], 0)
        inputs = np.prod(layer["kernel"].shape[:3])
        np.testing.assert_allclose(
            he[name]["kernel"].std(), np.sqrt(2 / inputs), rtol=0.1
        )


def test_bad_names_and_fields():
    with pytest.raises(
        InputError, match="model='smal' is unknown; did you mean 'small'"
    ):
        models.create("smal", num_classes=10)
    with pytest.raises(InputError, match="depth=3 is not a field of model='mlp'"):
        models.create("mlp", num_classes=10, depth=3)
    for depth, block in ((21, "basic"), (2, "basic"), (20, "bottlenek")):
        with pytest.raises(InputError, match=r"depth=|did you mean 'bottleneck'"):
            net = models.PreActResNet(num_classes=10, depth=depth, block=block)
            net.init(jax.random.key(0), jnp.ones((1, 32, 32, 3)), train=False)
    with pytest.raises(InputError, match="dtype='bf16' is unknown"):
        models.create("resnet20", num_classes=10, dtype="bf16")
    with pytest.raises(InputError, match="shortcut='C'"):
        net = models.create("resnet20", num_classes=10, shortcut="C")
        net.init(jax.random.key(0), jnp.ones((1, 32, 32, 3)), train=False)
    with pytest.raises(InputError, match="num_classes=0"):
        models.create("mlp", num_classes=0)
    with pytest.raises(InputError, match="initializer='hee'.*did you mean 'he'"):
        small = models.create("small", num_classes=10, initializer="hee")
        small.init(jax.random.key(0), jnp.ones((1, 32, 32, 3)), train=False)
    for name, fields, words in (
        ("nin", {"initializer": "publish"}, "did you mean 'published'"),
        ("nin", {"second_pool": "mean"}, "second_pool='mean' is unknown"),
        ("large", {"weight_init": "fan"}, "weight_init='fan' is unknown"),
        ("vgg", {"dropout": (0.3,)}, r"dropout=\(0\.3,\) must have a rate for each of"),
    ):
        with pytest.raises(InputError, match=words):
            net = models.create(name, num_classes=10, **fields)
            net.init(jax.random.key(0), jnp.ones((1, 32, 32, 3)), train=False)


@pytest.mark.parametrize(
    ("height", "width", "kernel", "padding"),
    [
        (1, 1, (3, 3), "SAME"), (2, 2, (3, 3), "SAME"), (2, 5, (3, 3), "SAME"),
        (4, 4, (3, 3), "SAME"), (6, 5, (3, 3), "VALID"), (3, 4, (3, 3), "VALID"),
        (6, 7, (4, 3), "VALID"), (5, 6, (1, 1), "SAME"), (5, 6, (1, 1), "VALID"),
    ],
)  # fmt: skip
def test_convolutions_in_other_forms_are_convolutions(height, width, kernel, padding):
    random = np.random.default_rng(0)
    x = jnp.asarray(random.normal(size=(3, height, width, 4)), jnp.float32)
    plain = nn.Conv(5, kernel, padding=padding)
    params = plain.init(jax.random.key(0), x)
    ours = plain.clone(conv_general_dilated=conv_general_dilated)

    def loss(model, params, x):
        return jnp.sum(jnp.sin(model.apply(params, x)))

    found = jax.jit(jax.value_and_grad(functools.partial(loss, ours), (0, 1)))
    expected = jax.jit(jax.value_and_grad(functools.partial(loss, plain), (0, 1)))
    for a, b in zip(
        jax.tree.leaves(found(params, x)),
        jax.tree.leaves(expected(params, x)),
        strict=True,
    ):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("options", [
    {"strides": 2}, {"padding": "VALID", "strides": 2}, {"kernel_dilation": 2},
])  # fmt: skip
def test_other_convolutions_are_left_alone(options):
    size = 4 if "padding" in options else 2
    x = jnp.ones((1, size, size, 3))
    plain = nn.Conv(2, (3, 3), **options)
    params = plain.init(jax.random.key(0), x)
    ours = nn.Conv(2, (3, 3), conv_general_dilated=conv_general_dilated, **options)
    np.testing.assert_allclose(ours.apply(params, x), plain.apply(params, x), rtol=1e-5)


def test_a_name_that_cannot_be_registered_is_refused():
    for name, words in (([], "must be a text"), ("mlp", "lrscape's own")):
        with pytest.raises(InputError, match=words):
            models.register(name, print)
    with pytest.raises(InputError, match="cannot be called"):
        models.register("mine:model", 3)
    with pytest.raises(InputError, match="did you mean"):
        models.fields_of("resnet21")
