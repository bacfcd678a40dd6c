"""The ImageNet networks and the wide one, against their published tables."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from lrscape import data, models
from lrscape.errors import InputError
from lrscape.models.bn_inception import Separable
from lrscape.training import Config, averages, fit, initial_state, make_evaluate
from lrscape.training.fit import epoch_order
from lrscape.training.state import DROPOUT

# Szegedy et al. (2014), Table 1: what leaves a module (side, channels), and its 1x1,
# 3x3 reduction, 3x3, 5x5 reduction, 5x5 and pool projection.
GOOGLENET = {
    "3a": (28, 256, 64, 96, 128, 16, 32, 32),
    "3b": (28, 480, 128, 128, 192, 32, 96, 64),
    "4a": (14, 512, 192, 96, 208, 16, 48, 64),
    "4b": (14, 512, 160, 112, 224, 24, 64, 64),
    "4c": (14, 512, 128, 128, 256, 24, 64, 64),
    "4d": (14, 528, 112, 144, 288, 32, 64, 64),
    "4e": (14, 832, 256, 160, 320, 32, 128, 128),
    "5a": (7, 832, 256, 160, 320, 32, 128, 128),
    "5b": (7, 1024, 384, 192, 384, 48, 128, 128),
}
# Ioffe and Szegedy (2015), Fig. 5: what leaves a module, and its 1x1, 3x3 reduction,
# 3x3, double 3x3 reduction, double 3x3 and pool projection (0: passed through).
BN_INCEPTION = {
    "3a": (28, 256, 64, 64, 64, 64, 96, 32),
    "3b": (28, 320, 64, 64, 96, 64, 96, 64),
    "3c": (14, 576, 0, 128, 160, 64, 96, 0),
    "4a": (14, 576, 224, 64, 96, 96, 128, 128),
    "4b": (14, 576, 192, 96, 128, 96, 128, 128),
    "4c": (14, 576, 160, 128, 160, 128, 160, 96),
    "4d": (14, 576, 96, 128, 192, 160, 192, 96),
    "4e": (7, 1024, 0, 128, 192, 192, 256, 0),
    "5a": (7, 1024, 352, 192, 320, 160, 224, 128),
    "5b": (7, 1024, 352, 192, 320, 192, 224, 128),
}

# Small relatives that compile within seconds.
SMALL = {
    "wrn28_10": {"depth": 10, "widen": 1},
    "alexnet": {"dense": (8, 8)},
    "googlenet": {"modules": (("4a", (3, 2, 3, 2, 3, 3)), ("4d", (3,) * 6))},
    "bn_inception": {
        "modules": (
            ("3c", (0, 2, 3, 2, 3), "max", 0),
            ("4a", (3, 2, 3, 2, 3), "average", 3),
        )
    },
}


def small(name, **fields):
    return models.create(name, num_classes=10, **SMALL[name], **fields)


def shapes_of(model, side, **options):
    """The variables' shapes, and those of what each convolution gives."""
    images = jnp.ones((1, side, side, 3))
    variables = jax.eval_shape(
        functools.partial(model.init, train=False), jax.random.key(0), images
    )

    def apply(variables):
        return model.apply(
            variables,
            images,
            train=True,
            mutable=["batch_stats", "intermediates"],
            rngs={"dropout": jax.random.key(1)},
            capture_intermediates=lambda m, _: isinstance(m, nn.Conv | Separable),
        )

    logits, updated = jax.eval_shape(apply, variables)
    return variables, logits, updated["intermediates"]


def size(tree):
    return sum(leaf.size for leaf in jax.tree.leaves(tree))


def conv(inputs, outputs, side, bias=1):
    """Parameters of a convolution; batch norm has `bias` of 2 a channel instead."""
    return inputs * outputs * side**2 + bias * outputs


def googlenet_parameters(num_classes):
    main = conv(3, 64, 7) + conv(64, 64, 1) + conv(64, 192, 3)
    inputs, heads = 192, 0
    for name, (_, depth, one, r3, three, r5, five, pool) in GOOGLENET.items():
        main += sum(conv(inputs, width, 1) for width in (one, r3, r5, pool))
        main += conv(r3, three, 3) + conv(r5, five, 5)
        if name in ("4a", "4d"):
            # 5x5 windows with stride 3 leave 4x4 maps of 14x14.
            heads += conv(depth, 128, 1) + 16 * 128 * 1024 + 1024
            heads += 1025 * num_classes
        inputs = depth
    return main + 1025 * num_classes, heads


def bn_inception_parameters(num_classes, *, port=False):
    """`port`: with biases, a plain first convolution and wider pools in 4c and 4d."""
    bias = 3 if port else 2
    first = conv(3, 64, 7, bias) if port else 3 * 8 * 49 + conv(24, 64, 1, bias)
    total = first + conv(64, 64, 1, bias) + conv(64, 192, 3, bias)
    inputs = 192
    for name, (_, _, one, r3, three, rd, double, pool) in BN_INCEPTION.items():
        pool = 128 if port and name in ("4c", "4d") else pool
        total += sum(conv(inputs, w, 1, bias) for w in (one, r3, rd, pool) if w)
        total += conv(r3, three, 3, bias) + conv(rd, double, 3, bias)
        total += conv(double, double, 3, bias)
        inputs = one + three + double + (pool or inputs)
    return total + (inputs + 1) * num_classes


def test_parameters_of_the_tables():
    # The sums that are known of Caffe's definition and of ports of the other.
    assert googlenet_parameters(1000) == (6_998_552, 6_379_728)
    assert bn_inception_parameters(1000, port=True) == 11_295_240
    for num_classes in (1000, 10):
        net = models.create("googlenet", num_classes=num_classes)
        params = shapes_of(net, 224)[0]["params"]
        heads = {k: v for k, v in params.items() if k.startswith("auxiliary")}
        found = size(params) - size(heads), size(heads)
        assert found == googlenet_parameters(num_classes)
        net = models.create("bn_inception", num_classes=num_classes)
        params = shapes_of(net, 224)[0]["params"]
        assert size(params) == bn_inception_parameters(num_classes)
    assert bn_inception_parameters(1000) == 11_188_288


@pytest.mark.parametrize(
    ("name", "num_classes", "side", "expected"),
    [
        # Zagoruyko and Komodakis (2016), Table 4: 36.5 million.
        ("wrn28_10", 100, 32, 36_536_884),
        # Krizhevsky et al. (2012): 60 million.
        ("alexnet", 1000, 224, 60_965_224),
        ("alexnet", 1000, 227, 60_965_224),
    ],
)
def test_published_parameters(name, num_classes, side, expected):
    net = models.create(name, num_classes=num_classes)
    variables, logits, _ = shapes_of(net, side)
    assert size(variables["params"]) == expected
    assert logits.shape == (1, num_classes)


@pytest.mark.parametrize("depth", [10, 16, 40])
@pytest.mark.parametrize("widen", [1, 4])
def test_parameters_of_other_wide_networks(depth, widen):
    net = models.WideResNet(num_classes=10, depth=depth, widen=widen)
    total, inputs = conv(3, 16, 3, bias=0), 16
    for width in (16 * widen, 32 * widen, 64 * widen):
        for _ in range((depth - 4) // 6):
            total += 2 * inputs + conv(inputs, width, 3, bias=2)
            total += conv(width, width, 3, bias=0)
            total += conv(inputs, width, 1, bias=0) if inputs != width else 0
            inputs = width
    total += 2 * inputs + (inputs + 1) * 10
    assert size(shapes_of(net, 32)[0]["params"]) == total


@pytest.mark.parametrize(
    ("name", "table"), [("googlenet", GOOGLENET), ("bn_inception", BN_INCEPTION)]
)
def test_maps_of_the_tables(name, table):
    net = models.create(name, num_classes=10)
    variables, _, seen = shapes_of(net, 224)

    def maps(layer):
        return seen[layer]["__call__"][0].shape[1:]

    assert maps("conv1") == (112, 112, 64)
    assert maps("conv2_reduce") == (56, 56, 64)
    assert maps("conv2") == (56, 56, 192)
    modules = list(table)
    for module, following in zip(modules, [*modules[1:], None], strict=True):
        side, depth, *_ = table[module]
        assert maps(f"inception_{module}_3x3")[:2] == (side, side)
        # As many channels as enter the next layer.
        layer = f"inception_{following}_3x3_reduce" if following else "classifier"
        assert variables["params"][layer]["kernel"].shape[-2] == depth
    assert seen["penultimate"][0].shape == (1, 1024)
    if name == "googlenet":
        # 4x4 maps of 128 channels enter the auxiliary classifiers.
        for module in ("4a", "4d"):
            assert maps(f"auxiliary_{module}_conv") == (4, 4, 128)
        assert [logits.shape for logits in seen["auxiliary"]] == [(1, 10), (1, 10)]


@pytest.mark.parametrize("side", [224, 227])
def test_maps_of_alexnet(side):
    """Krizhevsky et al. (2012), Fig. 2, and what each kernel sees."""
    variables, _, seen = shapes_of(models.create("alexnet", num_classes=1000), side)
    found = [seen[f"Conv_{n}"]["__call__"][0].shape[1:] for n in range(5)]
    assert found == [
        (55, 55, 96), (27, 27, 256), (13, 13, 384), (13, 13, 384), (13, 13, 256)
    ]  # fmt: skip
    kernels = [variables["params"][f"Conv_{n}"]["kernel"].shape for n in range(5)]
    assert kernels == [
        (11, 11, 3, 96), (5, 5, 48, 256), (3, 3, 256, 384), (3, 3, 192, 384),
        (3, 3, 192, 256),
    ]  # fmt: skip
    assert variables["params"]["Dense_0"]["kernel"].shape == (6 * 6 * 256, 4096)


def noise():
    """Four images of the least size that all four networks take with a margin."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (4, 40, 40, 3), dtype=np.uint8)
    examples = data.Examples(images, np.arange(4, dtype=np.int32))
    return data.Dataset(
        name="noise", num_classes=10, max_value=255, train=examples, test=examples,
        validation=examples.take(np.arange(0)),
    )  # fmt: skip


SETTINGS = Config(epochs=1, batch_size=4, num_devices=1)
# An update of the rate's size wherever the gradient is not zero.
SIGNS = optax.sign_sgd(0.01)


@functools.cache
def start_of(name):
    """A small network with its state before any update."""
    net = small(name)
    return net, initial_state(net, noise(), SIGNS, seed=0)


def assert_every_leaf_moved(start, state):
    for (path, before), after in zip(
        jax.tree_util.tree_leaves_with_path(start.variables),
        jax.tree.leaves(state.variables),
        strict=True,
    ):
        assert (np.asarray(before) != after).any(), jax.tree_util.keystr(path)


@pytest.mark.parametrize(
    "name",
    [
        "wrn28_10",
        pytest.param("alexnet", marks=pytest.mark.slow),
        pytest.param("bn_inception", marks=pytest.mark.slow),
    ],
)
def test_an_update_moves_every_parameter(name):
    net, start = start_of(name)
    state = next(fit(net, noise(), SIGNS, SETTINGS, state=start))
    assert_every_leaf_moved(start, state)
    assert np.isfinite(averages(state)["loss"])


@pytest.mark.slow
@pytest.mark.parametrize("name", ["alexnet", "googlenet"])
def test_an_update_of_a_whole_network(name):
    net = models.create(name, num_classes=10)
    start = initial_state(net, noise(), SIGNS, seed=0)
    state = next(fit(net, noise(), SIGNS, SETTINGS, state=start))
    assert_every_leaf_moved(start, state)
    measured = make_evaluate(net, noise(), SETTINGS)(start)
    assert np.isfinite(measured["loss"]) and measured["error"] <= 1


@pytest.mark.slow
def test_auxiliary_losses_are_trained_with():
    net, start = start_of("googlenet")
    images = noise()
    state = next(fit(net, images, SIGNS, SETTINGS, state=start))
    assert_every_leaf_moved(start, state)
    # The same batch in the same order, which matters to dropout.
    order = np.asarray(epoch_order(start.key, 0, 4))
    mean, scale = images.normalization(SETTINGS.normalize)
    inputs = jnp.asarray((images.train.image[order] - mean[None]) / scale[None])
    labels = images.train.label[order]
    key = start.key
    for number in (DROPOUT, 0, 0):  # the use, the step, the device
        key = jax.random.fold_in(key, number)

    @jax.jit
    def losses(params):
        logits, updated = net.apply(
            {"params": params}, inputs, train=True, mutable=["intermediates"],
            rngs={"dropout": key},
        )  # fmt: skip
        return [
            -jax.nn.log_softmax(x)[np.arange(4), labels].mean()
            for x in (logits, *updated["intermediates"]["auxiliary"])
        ]

    main, first, second = map(float, losses(start.params))
    assert min(main, first, second) > 1 and len({main, first, second}) == 3
    np.testing.assert_allclose(
        averages(state)["loss"], main + 0.3 * (first + second), rtol=1e-6
    )


def test_auxiliary_classifiers_are_there_for_training_alone():
    net = small("googlenet")
    images = jnp.ones((2, 32, 32, 3))
    variables = jax.eval_shape(lambda: net.init(jax.random.key(0), images, train=False))
    assert set(variables) == {"params"}
    calls = []

    def record(call, args, kwargs, context):
        calls.append(context.module.name)
        return call(*args, **kwargs)

    for train in (False, True):
        with nn.intercept_methods(record):
            jax.eval_shape(
                lambda v, train=train: net.apply(
                    v, images, train=train, rngs={"dropout": jax.random.key(0)}
                ),
                variables,
            )
        heads = {name for name in calls if name and name.startswith("auxiliary")}
        assert len(heads) == (6 if train else 0)


@pytest.mark.slow
def test_rates_of_dropout_and_where_norms_synchronise():
    for name, rates in (
        ("wrn28_10", [0.3] * 12),
        ("alexnet", [0.5] * 2),
        ("googlenet", [0.7, 0.7, 0.4]),
        ("bn_inception", []),
    ):
        net = models.create(name, num_classes=10)
        images = jnp.ones((1, 64, 64, 3))
        found, axes = [], set()

        def record(call, args, kwargs, context, found=found, axes=axes):
            module = context.module
            if isinstance(module, nn.Dropout):
                assert not module.deterministic
                found.append(module.rate)
            if isinstance(module, nn.BatchNorm):
                assert not module.use_running_average
                axes.add(module.axis_name)
            return call(*args, **kwargs)

        variables = shapes_of(net, 64)[0]
        if hasattr(net, "axis_name"):
            net = net.clone(axis_name="batch")

        def apply(x, variables=variables, net=net):
            return net.apply(
                jax.tree.map(lambda leaf: jnp.zeros(leaf.shape), variables), x,
                train=True, mutable=["batch_stats"],
                rngs={"dropout": jax.random.key(0)},
            )  # fmt: skip

        with nn.intercept_methods(record):
            jax.eval_shape(jax.vmap(apply, axis_name="batch"), images[None])
        assert found == rates
        assert axes == ({"batch"} if "norm" in str(variables).lower() else set())


@pytest.mark.parametrize("name", SMALL)
def test_penultimate_features_enter_the_last_layer(name):
    net, start = start_of(name)
    apply = functools.partial(net.apply, train=False, mutable=["intermediates"])
    images = jax.random.normal(jax.random.key(1), (1, 40, 40, 3))
    logits, sown = jax.jit(apply)(start.variables, images)
    (features,) = sown["intermediates"]["penultimate"]
    params = start.params
    last = params.get("classifier") or params[max(k for k in params if "Dense" in k)]
    np.testing.assert_allclose(
        features @ last["kernel"] + last["bias"][None], logits, rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize("name", SMALL)
def test_half_precision_within_and_float32_outside(name):
    net = small(name, dtype="bfloat16")
    with jax.numpy_dtype_promotion("standard"):  # Flax's own norm is not strict here
        variables, logits, seen = shapes_of(net, 64)
    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {jnp.dtype("float32")}
    assert logits.dtype == jnp.float32
    assert seen["penultimate"][0].dtype == jnp.float32
    layers = [v["__call__"][0].dtype for v in seen.values() if isinstance(v, dict)]
    assert layers and set(layers) == {jnp.dtype("bfloat16")}
    with pytest.raises(InputError, match="dtype='half' is unknown"):
        small(name, dtype="half")


def test_published_initial_weights():
    for name, layer in start_of("alexnet")[1].params.items():
        one = name in ("Conv_1", "Conv_3", "Conv_4", "Dense_0", "Dense_1")
        np.testing.assert_array_equal(layer["bias"], float(one))
        if layer["kernel"].size > 1000:
            np.testing.assert_allclose(layer["kernel"].std(), 0.01, rtol=0.1)
    for name, layer in start_of("googlenet")[1].params.items():
        bound = np.sqrt(3 / np.prod(layer["kernel"].shape[:-1]))
        largest = np.abs(layer["kernel"]).max()
        assert largest <= bound
        if layer["kernel"].size > 1000:
            assert largest > 0.98 * bound
        bias = 0.0 if "classifier" in name else 0.2
        np.testing.assert_array_equal(layer["bias"], np.float32(bias))
    for name, layer in start_of("wrn28_10")[1].params.items():
        if name.startswith("Conv") and layer["kernel"].size > 1000:
            outputs = np.prod(np.delete(layer["kernel"].shape, 2))
            found = layer["kernel"].std()
            np.testing.assert_allclose(found, np.sqrt(2 / outputs), rtol=0.1)


def test_a_wide_block_projects_what_it_normalised():
    """Where a block changes shape, nothing of its raw input passes it by."""
    net, start = start_of("wrn28_10")
    image = jax.random.normal(jax.random.key(0), (1, 8, 8, 3))
    images = jnp.concatenate([image, -image])
    params = dict(start.params)
    apply = jax.jit(functools.partial(net.apply, train=False))
    a, b = apply({**start.variables, "params": params}, images)
    assert (a != b).any()
    # The norm that the second block begins with lets nothing through.
    params["BatchNorm_2"] = jax.tree.map(jnp.zeros_like, params["BatchNorm_2"])
    a, b = apply({**start.variables, "params": params}, images)
    np.testing.assert_array_equal(a, b)


def test_images_too_small_for_alexnet():
    net = models.create("alexnet", num_classes=10)
    assert shapes_of(net, 36)[1].shape == (1, 10)
    assert shapes_of(net, 64)[0]["params"]["Dense_0"]["kernel"].shape == (256, 4096)
    with pytest.raises(InputError, match="35 x 35 are too small .* 36 x 36"):
        shapes_of(net, 35)


@pytest.mark.parametrize("side", [1, 2, 33])
def test_inception_takes_images_of_any_size(side):
    for name in ("googlenet", "bn_inception"):
        net = models.create(name, num_classes=10)
        assert shapes_of(net, side)[1].shape == (1, 10)


def test_wide_networks_that_do_not_exist():
    for fields, words in (
        ({"depth": 27}, "depth=27 must be 6 n \\+ 4"),
        ({"depth": 4}, "depth=4"),
        ({"widen": 0}, "widen=0"),
    ):
        with pytest.raises(InputError, match=words):
            models.create("wrn28_10", num_classes=10, **fields)
