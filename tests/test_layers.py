"""What leaves are: by layer and library, against what is written out here."""

import re

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from lrscape import layers
from lrscape.errors import InputError
from lrscape.landscape import gaussian_direction
from lrscape.landscape.curvature import layer_shares
from lrscape.landscape.direction import normalized
from lrscape.landscape.masks import (
    as_mask,
    batch_norm_only,
    batch_norm_scales,
    layer_only,
)
from lrscape.training.optimizers import weights_only
from tests import layouts

KEY = jax.random.key(0)


def drawn(shapes, seed=0):
    """Arrays whose slices along every axis have norms a thousandfold apart."""
    random = np.random.default_rng(seed)

    def one(leaf):
        array = random.normal(size=leaf.shape)
        for axis, size in enumerate(leaf.shape):
            factors = 10.0 ** random.uniform(-1.5, 1.5, size)
            array = array * np.expand_dims(
                factors, [a for a in range(len(leaf.shape)) if a != axis]
            )
        return jnp.asarray(array, jnp.float32)

    return jax.tree.map(one, shapes)


def unit_norms(array, unit_axes):
    """The norm of each slice that fixed indices on these axes leave, by hand."""
    array = np.asarray(array, np.float64)
    moved = np.moveaxis(array, unit_axes, range(len(unit_axes)))
    rows = moved.reshape(int(np.prod(moved.shape[: len(unit_axes)])), -1)
    return np.sqrt((rows**2).sum(axis=1))


def written(expected):
    """{path: (shape, role, outputs, stacked)} of lines as `layouts` has them."""
    found = {}
    for line in expected.strip().splitlines():
        path, shape, role, *axes = line.split()
        outputs, stacked = ([*axes, "-", "-"])[:2]
        found[path] = (
            tuple(int(n) for n in shape.split(",") if n),
            role,
            tuple(int(a) for a in outputs.split(",") if a != "-"),
            tuple(int(a) for a in stacked.split(",") if a != "-"),
        )
    return found


def as_read(point, axes=None):
    return {
        leaf.path: (
            leaf.shape,
            leaf.role,
            leaf.outputs if leaf.is_weight else (),
            leaf.stacked,
        )
        for leaf in layers.table(point, axes).leaves
    }


@pytest.mark.parametrize("library", layouts.WRITTEN)
def test_every_layer_has_its_role_and_its_axes(library):
    expected = written(layouts.WRITTEN[library])
    point = {path: np.zeros(shape) for path, (shape, *_) in expected.items()}
    assert as_read(point) == expected


@pytest.mark.parametrize("library", layouts.WRITTEN)
def test_filter_normalisation_is_per_unit_in_every_layout(library):
    expected = written(layouts.WRITTEN[library])
    shapes = {p: jax.ShapeDtypeStruct(e[0], jnp.float32) for p, e in expected.items()}
    point, raw = drawn(shapes), drawn(shapes, seed=1)
    scaled = jax.jit(lambda d, w: normalized(d, w, "filter"))(raw, point)
    for path, (_, role, outputs, stacked) in expected.items():
        if role in ("kernel", "embedding"):
            axes = [*stacked, *outputs]
            ratios = unit_norms(scaled[path], axes) / unit_norms(point[path], axes)
            np.testing.assert_allclose(ratios, 1, rtol=1e-5)
        else:
            np.testing.assert_array_equal(scaled[path], 0)


def test_layer_normalisation_takes_stacked_layers_apart():
    shapes = jax.eval_shape(layouts.scanned_transformer().init, KEY, layouts.TOKENS)
    point = drawn(shapes["params"])
    raw = drawn(shapes["params"], seed=1)
    scaled = jax.jit(
        lambda d, w: normalized(d, w, "layer", keep_vectors=True)
    )(raw, point)  # fmt: skip
    for leaf, d, w in zip(
        layers.table(point).leaves, jax.tree.leaves(scaled), jax.tree.leaves(point),
        strict=True,
    ):  # fmt: skip
        stacked = [0] if leaf.path.startswith("blocks/") else []
        assert list(leaf.stacked) == stacked
        np.testing.assert_allclose(
            unit_norms(d, stacked) / unit_norms(w, stacked), 1, rtol=1e-5
        )


# Modules make the shapes that are written out, and tell what names cannot.


@pytest.mark.parametrize("name", layouts.LINEN)
def test_linen_modules_and_their_names_agree(name):
    module, *inputs = layouts.LINEN[name]
    shapes = jax.eval_shape(module.init, KEY, *inputs)["params"]
    axes = layers.of_model(module, *inputs)
    read = as_read({name: shapes})
    expected = {
        path: line
        for path, line in written(layouts.WRITTEN["linen"]).items()
        if path.split("/")[0] == name
    }
    assert read == expected
    assert {f"{name}/{p}": v for p, v in as_read(shapes, axes).items()} == expected


@pytest.mark.parametrize("name", layouts.NNX)
def test_nnx_modules_and_their_names_agree(name):
    module = nnx.eval_shape(lambda: layouts.NNX[name](nnx.Rngs(0)))
    state = nnx.state(module, nnx.Param)
    expected = {
        path: line
        for path, line in written(layouts.WRITTEN["nnx"]).items()
        if path.split("/")[0] == name
    }
    assert as_read({name: state}) == expected
    axes = layers.of_model(module)
    assert {f"{name}/{p}": v for p, v in as_read(state, axes).items()} == expected


def test_what_names_cannot_tell_modules_do():
    square = nn.ConvTranspose(4, (3, 3), transpose_kernel=True)
    axes = layers.of_model(square, np.ones((1, 8, 8, 4)))
    assert axes["kernel"].outputs == (2,)
    options = {"transpose_kernel": True}
    square = nnx.eval_shape(
        lambda: nnx.ConvTranspose(4, 4, (3, 3), **options, rngs=nnx.Rngs(0))
    )
    assert layers.of_model(square)["kernel"].outputs == (2,)
    experts = nn.Einsum((4, 8, 6), "btd,edf->btef")
    assert layers.of_model(experts, np.ones((2, 3, 8)))["kernel"].outputs == (0, 2)

    class Along(nn.Module):
        @nn.compact
        def __call__(self, x):
            scan = nn.scan(
                layouts.Block, variable_axes={"params": 1},
                split_rngs={"params": True}, length=8,
            )  # fmt: skip
            return scan(heads=2, name="blocks")(x, None)[0]

    # Eight layers of width 8: no shape says which axis is which.
    inputs = np.ones((2, 5, 8))
    axes = layers.of_model(Along(), inputs)
    shapes = jax.eval_shape(Along().init, KEY, inputs)["params"]
    patterns = {leaf.path: leaf.pattern for leaf in layers.table(shapes, axes).leaves}
    assert patterns["blocks/attention/out/kernel"] == "kernel (in, stacked, in, out)"


def test_partitioned_axes_name_the_stack():
    init = nn.with_partitioning(nn.initializers.ones, ("embed", "mlp"))

    class Layer(nn.Module):
        @nn.compact
        def __call__(self, x, _):
            return nn.Dense(8, use_bias=False, kernel_init=init, name="up")(x), None

    class Stack(nn.Module):
        @nn.compact
        def __call__(self, x):
            scan = nn.scan(
                Layer, variable_axes={"params": 1}, split_rngs={"params": True},
                length=8, metadata_params={nn.PARTITION_NAME: "layers"},
            )  # fmt: skip
            return scan(name="inner")(x, None)[0]

    shapes = jax.eval_shape(Stack().init, KEY, np.ones((2, 8)))["params"]
    (leaf,) = layers.table(shapes).leaves
    assert leaf.path == "inner/up/kernel/value"
    assert (leaf.outputs, leaf.stacked) == ((2,), (1,))


def test_equinox_modules():
    eqx = pytest.importorskip("equinox")
    modules = layouts.equinox_modules(eqx)
    expected = written(layouts.WRITTEN["equinox"])
    read = as_read(eqx.filter(modules, eqx.is_inexact_array))
    told = {"Embed", "LayerNorm2d"}  # by their classes alone
    for path, line in expected.items():
        if path.split("/")[0] not in told:
            assert read.pop(path) == line
    assert read["Embed/weight"][1] == "embedding"
    assert read["LayerNorm2d/weight"] == ((4, 5), "scale", (), ())


def test_pytorch_modules():
    torch = pytest.importorskip("torch")
    modules = torch.nn.ModuleDict(layouts.torch_modules(torch.nn))
    state = {k: v.numpy() for k, v in modules.state_dict().items()}
    expected = written(layouts.WRITTEN["pytorch"])
    read = as_read(state)
    assert {path: read[path] for path in expected} == expected
    axes = layers.of_model(modules)
    assert axes["lookup.weight"].role == "embedding"
    assert axes["square_transposed.weight"].outputs == (1,)


# What a user says.


@pytest.mark.parametrize(
    "axes",
    [
        lambda path: 0 if path == "up/w" else None,
        lambda path, leaf: 0 if leaf.ndim == 2 else None,
        {"up/w": 0},
        {"*/w": (0,)},
        {"up": {"w": 0, "b": "bias"}},
        0,
        layers.Axes(outputs=0),
    ],
    ids=["path", "leaf", "exact", "pattern", "tree", "all", "record"],
)
def test_ways_to_say_what_a_leaf_is(axes):
    point = {"up": {"w": np.ones((5, 3)), "b": np.ones(5)}}
    found = layers.roles(point, axes)["up"]
    assert found["w"].pattern == "kernel (out, in)" and not found["b"].is_weight
    assert weights_only(point, axes) == {"up": {"w": True, "b": False}}


def test_meaning_is_asked_for_only_where_it_is_needed():
    point = {"w": jnp.ones((4, 2)), "v": jnp.ones((2, 4))}
    for normalize in ("global", "layer"):
        normalized(point, point, normalize)
    with pytest.raises(InputError, match=r"'filter' needs.*axes=\{'v': -1\}"):
        gaussian_direction(KEY, point, normalize="filter")
    with pytest.raises(InputError, match=r"weight decay needs.*axes="):
        weights_only(point)
    # What a mask holds still needs no meaning.
    d = gaussian_direction(
        KEY, point, normalize="filter", axes={"w": 1}, mask=lambda path: path == "w"
    )
    np.testing.assert_allclose(unit_norms(d["w"], [1]), 2, rtol=1e-5)
    assert not d["v"].any()


def test_what_could_be_read_in_two_ways_is_not_guessed():
    square = {"kernel": np.ones((8, 8, 8)), "bias": np.ones((8, 8))}
    (_, leaf) = layers.table(square).leaves
    assert leaf.role == "unknown" and "or" in leaf.source
    in_block = {"norm": {"scale": np.ones((8, 8))}, "up": square}
    found = layers.roles({"blocks": in_block})["blocks"]["up"]["kernel"]
    assert (found.stacked, found.outputs) == ((0,), (2,))
    (leaf,) = layers.table({"net": {"kernel": np.ones((3, 8, 8))}}).leaves
    assert leaf.role == "unknown"


@pytest.mark.parametrize(
    ("axes", "message"),
    [
        ({"*/w": 2}, "has no axis 2"),
        ({"nothing": 0}, "matches no leaf"),
        ({"up/*": 0, "*/w": 1}, "different things of up/w"),
        (lambda path: "kernal", "role='kernal' is unknown; did you mean 'kernel'"),
        (lambda path: 0.5, "it says 0.5"),
        ({"up": {"w": 0}}, "tree like the point"),
        (lambda path: layers.Axes(outputs=0, stacked=0), "named twice"),
        (lambda path: "kernel", "which axes count its units"),
    ],
)
def test_bad_axes(axes, message):
    point = {"up": {"w": np.ones((5, 3)), "b": np.ones((5, 1))}}
    with pytest.raises(InputError, match=message):
        layers.roles(point, axes)


# Masks and shares.


def test_masks_of_batch_norm_in_every_library():
    scales = [
        "BatchNorm_0/scale", "params/bn/scale", "bn/scale/value", "layers/1/bn/weight",
        "layer1.0.bn1.weight", "block/batch_norm/gamma",
    ]  # fmt: skip
    biases = ["BatchNorm_0/bias", "bn/bias/value", "layer1.0.bn1.bias"]
    others = [
        "Conv_0/kernel", "layer1.0.bn1.running_mean", "bn/mean/value",
        "batch_stats/BatchNorm_0/mean", "layer1.0.bn1.num_batches_tracked",
        "conv1.weight",
    ]  # fmt: skip
    assert all(map(batch_norm_scales, scales))
    assert not any(map(batch_norm_scales, biases + others))
    assert all(map(batch_norm_only, scales + biases))
    assert not any(map(batch_norm_only, others))
    model = nnx.Sequential(
        nnx.Linear(3, 4, rngs=nnx.Rngs(0)), nnx.BatchNorm(4, rngs=nnx.Rngs(0))
    )
    state = nnx.state({"bn": model.layers[1], "up": model.layers[0]}, nnx.Param)
    selected = as_mask(batch_norm_scales, state)
    chosen = [bool(np.any(leaf)) for leaf in jax.tree.leaves(selected)]
    assert chosen == [False, True, False, False]


def test_a_mask_may_ask_what_a_leaf_is():
    point = {"q": {"kernel": jnp.ones((8, 2, 4)), "bias": jnp.ones((2, 4))}}
    selected = as_mask(lambda path, leaf: leaf.role == "bias", point)
    assert selected["q"]["bias"].all() and not selected["q"]["kernel"].any()
    assert layer_only("a.b")("a.b.weight") and not layer_only("a.b")("a.bc.weight")


def test_shares_of_stacked_layers():
    kernel = np.zeros((2, 3, 4))
    kernel[0, 0, 0], kernel[1, 1, 1] = 3, 4
    shares = layer_shares({"Dense_0": {"kernel": kernel, "bias": np.zeros((2, 4))}})
    assert shares["Dense_0/kernel[0]"] == 0.36 and shares["Dense_0/kernel[1]"] == 0.64
    np.testing.assert_allclose(sum(shares.values()), 1)


def test_the_largest_norm_is_of_one_layer():
    stacked = {"kernel": jnp.ones((9, 2, 2)), "bias": jnp.full((9, 2), 0.1)}
    assert float(layers.largest_layer_norm({"Dense_0": stacked})) == 2.0


# One network in four layouts.


@pytest.mark.parametrize(
    "is_whole", [False, pytest.param(True, marks=pytest.mark.slow)]
)
def test_one_key_gives_one_direction_in_every_layout(is_whole):
    shapes = layouts.resnet20_shapes()
    if not is_whole:  # what draws a layer of each kind
        shapes = {k: shapes[k] for k in ("Conv_0", "BatchNorm_0", "Dense_0")}
    flax = drawn(shapes)
    scaled = {}
    for library, (convert, names, back) in layouts.RESNETS.items():
        d = gaussian_direction(KEY, convert(flax), normalize="filter", names=names)
        scaled[library] = back(d)
    # Of what all compare to, the norms are those of the weights, filter by filter.
    for path, value in layouts.by_path(flax).items():
        if path.endswith("kernel"):
            axes = [value.ndim - 1]
            norms = unit_norms(scaled["linen"][path], axes) / unit_norms(value, axes)
            np.testing.assert_allclose(norms, 1, rtol=1e-5)
    reference = scaled.pop("linen")
    for found in scaled.values():
        for name, value in reference.items():
            largest = np.abs(value).max() or 1.0
            np.testing.assert_allclose(found[name], value, atol=1e-6 * largest)


def test_names_must_be_distinct():
    with pytest.raises(InputError, match="several leaves are called 'same'"):
        gaussian_direction(
            KEY, {"a": jnp.ones(2), "b": jnp.ones(2)}, names=lambda path: "same"
        )


# A scanned transformer.


def test_decay_and_the_l2_term_leave_stacked_vectors_out():
    model = layouts.scanned_transformer()
    shapes = jax.eval_shape(model.init, KEY, layouts.TOKENS)["params"]
    mask = weights_only(shapes)
    for path, selected in zip(
        layers.paths_of(mask), jax.tree.leaves(mask), strict=True
    ):
        assert selected == path.endswith(("/kernel", "/embedding")), path


def test_a_table_says_what_was_taken_for_what():
    layer = {"kernel": np.ones((8, 2, 4)), "bias": np.ones((2, 4))}
    table = layers.table({"query": layer})
    assert table.settings == {"bias (out, out)": 1, "kernel (in, out, out)": 1}
    row = re.split(" {2,}", str(table).splitlines()[2])
    assert row[:6] == ["query/kernel", "(8, 2, 4)", "kernel", "-", "1, 2", "8"]
    assert layers.table({"query": layer}, axes=table).settings == table.settings
