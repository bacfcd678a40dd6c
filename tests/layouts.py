"""How libraries lay layers out: paths, shapes, roles and axes, written out by hand.

A line is ``path shape role [output axes [stacked axes]]``.
"""

import re

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from lrscape import models

WRITTEN = {
    "linen": """
dense/kernel 8,3 kernel 1
dense/bias 3 bias
heads/kernel 8,2,3 kernel 1,2
heads/bias 2,3 bias
merge/kernel 5,8,7 kernel 2
merge/bias 7 bias
einsum/kernel 8,2,3 kernel 1,2
einsum/bias 2,3 bias
conv/kernel 3,3,4,6 kernel 3
conv/bias 6 bias
grouped/kernel 3,3,2,6 kernel 3
grouped/bias 6 bias
depthwise/kernel 3,3,1,4 kernel 3
depthwise/bias 4 bias
conv1d/kernel 3,8,6 kernel 2
conv1d/bias 6 bias
transposed/kernel 3,3,4,6 kernel 3
transposed/bias 6 bias
turned/kernel 3,3,6,4 kernel 2
turned/bias 6 bias
embed/embedding 10,4 embedding 0
attention/query/kernel 8,2,4 kernel 1,2
attention/query/bias 2,4 bias
attention/key/kernel 8,2,4 kernel 1,2
attention/key/bias 2,4 bias
attention/value/kernel 8,2,4 kernel 1,2
attention/value/bias 2,4 bias
attention/out/kernel 2,4,8 kernel 2
attention/out/bias 8 bias
bare/query/kernel 8,2,4 kernel 1,2
bare/key/kernel 8,2,4 kernel 1,2
bare/value/kernel 8,2,4 kernel 1,2
bare/out/kernel 2,4,8 kernel 2
batch_norm/scale 8 scale
batch_norm/bias 8 bias
layer_norm/scale 8 scale
layer_norm/bias 8 bias
group_norm/scale 8 scale
group_norm/bias 8 bias
rms_norm/scale 8 scale
weight_norm/layer_instance/kernel 8,3 kernel 1
weight_norm/layer_instance/bias 3 bias
weight_norm/layer_instance/kernel/scale 3 scale
lstm/cell/ii/kernel 8,6 kernel 1
lstm/cell/if/kernel 8,6 kernel 1
lstm/cell/ig/kernel 8,6 kernel 1
lstm/cell/io/kernel 8,6 kernel 1
lstm/cell/hi/kernel 6,6 kernel 1
lstm/cell/hi/bias 6 bias
lstm/cell/hf/kernel 6,6 kernel 1
lstm/cell/hf/bias 6 bias
lstm/cell/hg/kernel 6,6 kernel 1
lstm/cell/hg/bias 6 bias
lstm/cell/ho/kernel 6,6 kernel 1
lstm/cell/ho/bias 6 bias
gru/cell/ir/kernel 8,6 kernel 1
gru/cell/ir/bias 6 bias
gru/cell/iz/kernel 8,6 kernel 1
gru/cell/iz/bias 6 bias
gru/cell/in/kernel 8,6 kernel 1
gru/cell/in/bias 6 bias
gru/cell/hr/kernel 6,6 kernel 1
gru/cell/hz/kernel 6,6 kernel 1
gru/cell/hn/kernel 6,6 kernel 1
gru/cell/hn/bias 6 bias
partitioned/kernel/value 8,3 kernel 1
partitioned/bias 3 bias
scanned/blocks/norm/scale 3,8 scale - 0
scanned/blocks/norm/bias 3,8 bias - 0
scanned/blocks/attention/query/kernel 3,8,2,4 kernel 2,3 0
scanned/blocks/attention/query/bias 3,2,4 bias - 0
scanned/blocks/attention/key/kernel 3,8,2,4 kernel 2,3 0
scanned/blocks/attention/key/bias 3,2,4 bias - 0
scanned/blocks/attention/value/kernel 3,8,2,4 kernel 2,3 0
scanned/blocks/attention/value/bias 3,2,4 bias - 0
scanned/blocks/attention/out/kernel 3,2,4,8 kernel 3 0
scanned/blocks/attention/out/bias 3,8 bias - 0
scanned/blocks/up/kernel 3,8,16 kernel 2 0
scanned/blocks/down/kernel 3,16,8 kernel 2 0
along/blocks/norm/scale 8,3 scale - 1
along/blocks/norm/bias 8,3 bias - 1
along/blocks/attention/query/kernel 8,3,2,4 kernel 2,3 1
along/blocks/attention/query/bias 2,3,4 bias - 1
along/blocks/attention/key/kernel 8,3,2,4 kernel 2,3 1
along/blocks/attention/key/bias 2,3,4 bias - 1
along/blocks/attention/value/kernel 8,3,2,4 kernel 2,3 1
along/blocks/attention/value/bias 2,3,4 bias - 1
along/blocks/attention/out/kernel 2,3,4,8 kernel 3 1
along/blocks/attention/out/bias 8,3 bias - 1
along/blocks/up/kernel 8,3,16 kernel 2 1
along/blocks/down/kernel 16,3,8 kernel 2 1
vmapped/VmapDense_0/kernel 4,8,3 kernel 2 0
vmapped/VmapDense_0/bias 4,3 bias - 0
""",
    "nnx": """
linear/kernel/value 4,3 kernel 1
linear/bias/value 3 bias
general/kernel/value 4,2,3 kernel 1,2
general/bias/value 2,3 bias
einsum/kernel/value 8,2,3 kernel 1,2
einsum/bias/value 2,3 bias
conv/kernel/value 3,3,2,6 kernel 3
conv/bias/value 6 bias
transposed/kernel/value 3,3,6,4 kernel 2
transposed/bias/value 6 bias
embed/embedding/value 10,4 embedding 0
bn/scale/value 4 scale
bn/bias/value 4 bias
norm/scale/value 4 scale
attention/query/kernel/value 8,2,4 kernel 1,2
attention/query/bias/value 2,4 bias
attention/key/kernel/value 8,2,4 kernel 1,2
attention/key/bias/value 2,4 bias
attention/value/kernel/value 8,2,4 kernel 1,2
attention/value/bias/value 2,4 bias
attention/out/kernel/value 2,4,8 kernel 2
attention/out/bias/value 8 bias
gru/dense_h/kernel/value 6,18 kernel 1
gru/dense_i/kernel/value 4,18 kernel 1
gru/dense_i/bias/value 18 bias
lora/kernel/value 4,3 kernel 1
lora/bias/value 3 bias
lora/lora/lora_a/value 4,2 kernel 1
lora/lora/lora_b/value 2,3 kernel 1
stacked/kernel/value 5,4,3 kernel 2 0
stacked/bias/value 5,3 bias - 0
""",
    "equinox": """
Linear/weight 3,4 kernel 0
Linear/bias 3 bias
Conv2d/weight 6,2,3,3 kernel 0
Conv2d/bias 6,1,1 bias
Conv1d/weight 6,4,3 kernel 0
Conv1d/bias 6,1 bias
ConvTranspose2d/weight 6,4,3,3 kernel 0
ConvTranspose2d/bias 6,1,1 bias
Embed/weight 10,4 embedding 0
LayerNorm/weight 4 scale
LayerNorm/bias 4 bias
LSTMCell/weight_ih 24,4 kernel 0
LSTMCell/weight_hh 24,6 kernel 0
LSTMCell/bias 24 bias
GRUCell/weight_ih 18,4 kernel 0
GRUCell/weight_hh 18,6 kernel 0
GRUCell/bias 18 bias
GRUCell/bias_n 6 bias
attention/query_proj/weight 8,8 kernel 0
attention/key_proj/weight 8,8 kernel 0
attention/value_proj/weight 8,8 kernel 0
attention/output_proj/weight 8,8 kernel 0
stacked/weight 5,3,4 kernel 1 0
stacked/bias 5,3 bias - 0
""",
    "pytorch": """
linear.weight 3,4 kernel 0
linear.bias 3 bias
conv.weight 6,2,3,3 kernel 0
conv.bias 6 bias
transposed.weight 4,6,3,3 kernel 1
transposed.bias 6 bias
wte.weight 10,4 embedding 0
bn1.weight 4 scale
bn1.bias 4 bias
bn1.running_mean 4 other
bn1.running_var 4 other
lstm.weight_ih_l0 24,4 kernel 0
lstm.weight_hh_l0 24,3 kernel 0
lstm.weight_hr_l0 3,6 kernel 0
lstm.bias_ih_l0 24 bias
lstm.bias_hh_l0 24 bias
attention.in_proj_weight 24,8 kernel 0
attention.in_proj_bias 24 bias
attention.out_proj.weight 8,8 kernel 0
attention.out_proj.bias 8 bias
""",
    "haiku": """
mlp/~/linear_0/w 8,3 kernel 1
mlp/~/linear_0/b 3 bias
conv2_d/w 3,3,4,6 kernel 3
conv2_d/b 6 bias
conv2_d_transpose/w 3,3,6,6 kernel 2
conv2_d_transpose/b 6 bias
layer_norm/scale 8 scale
layer_norm/offset 8 bias
""",
}


class Block(nn.Module):
    """A block of a transformer, as `nn.scan` takes it."""

    heads: int
    features: int = 16

    @nn.compact
    def __call__(self, x, _):
        attention = nn.MultiHeadDotProductAttention(self.heads, name="attention")
        x = x + attention(nn.LayerNorm(name="norm")(x))
        y = nn.gelu(nn.Dense(self.features, use_bias=False, name="up")(x))
        return x + nn.Dense(x.shape[-1], use_bias=False, name="down")(y), None


class Scanned(nn.Module):
    """Three blocks in one, stacked over the first axis or over another."""

    axis: int = 0

    @nn.compact
    def __call__(self, x):
        scan = nn.scan(
            Block, variable_axes={"params": self.axis}, split_rngs={"params": True},
            length=3,
        )  # fmt: skip
        return scan(heads=2, name="blocks")(x, None)[0]


class Transformer(nn.Module):
    """Scanned blocks between an embedding and the logits of the last token."""

    vocabulary: int = 11
    width: int = 8

    @nn.compact
    def __call__(self, tokens):
        x = nn.Embed(self.vocabulary, self.width, name="embed")(tokens)
        scan = nn.scan(
            Block, variable_axes={"params": 0}, split_rngs={"params": True}, length=3
        )
        x, _ = scan(heads=2, name="blocks")(x, None)
        x = nn.LayerNorm(name="norm")(x)
        return nn.Dense(self.vocabulary, name="logits")(x[:, -1])


class Vmapped(nn.Module):
    """Four dense layers in one."""

    @nn.compact
    def __call__(self, x):
        vmapped = nn.vmap(
            nn.Dense, variable_axes={"params": 0}, split_rngs={"params": True},
            in_axes=None, axis_size=4,
        )  # fmt: skip
        return vmapped(3)(x)


TOKENS = np.zeros((2, 5), np.int32)


def scanned_transformer():
    return Transformer()


_X = np.ones((2, 5, 8), np.float32)
_IMAGE = np.ones((2, 8, 8, 4), np.float32)
_INIT = nn.with_partitioning(nn.initializers.ones, ("in", "out"))

LINEN = {
    "dense": (nn.Dense(3), _X),
    "heads": (nn.DenseGeneral((2, 3)), _X),
    "merge": (nn.DenseGeneral(7, axis=(-2, -1)), _X),
    "einsum": (nn.Einsum((8, 2, 3), "btd,dhk->bthk"), _X),
    "conv": (nn.Conv(6, (3, 3)), _IMAGE),
    "grouped": (nn.Conv(6, (3, 3), feature_group_count=2), _IMAGE),
    "depthwise": (nn.Conv(4, (3, 3), feature_group_count=4), _IMAGE),
    "conv1d": (nn.Conv(6, (3,)), _X),
    "transposed": (nn.ConvTranspose(6, (3, 3)), _IMAGE),
    "turned": (nn.ConvTranspose(6, (3, 3), transpose_kernel=True), _IMAGE),
    "embed": (nn.Embed(10, 4), TOKENS),
    "attention": (nn.MultiHeadDotProductAttention(2), _X, _X),
    "bare": (nn.MultiHeadDotProductAttention(2, use_bias=False), _X, _X),
    "batch_norm": (nn.BatchNorm(use_running_average=True), _X),
    "layer_norm": (nn.LayerNorm(), _X),
    "group_norm": (nn.GroupNorm(2), _X),
    "rms_norm": (nn.RMSNorm(), _X),
    "weight_norm": (nn.WeightNorm(nn.Dense(3)), _X),
    "lstm": (nn.RNN(nn.LSTMCell(6)), _X),
    "gru": (nn.RNN(nn.GRUCell(6)), _X),
    "partitioned": (nn.Dense(3, kernel_init=_INIT), _X),
    "scanned": (Scanned(), _X),
    "along": (Scanned(axis=1), _X),
    "vmapped": (Vmapped(), _X),
}


def _stacked(rngs):
    @nnx.vmap
    def make(key):
        return nnx.Linear(4, 3, rngs=nnx.Rngs(key))

    return make(jax.random.split(rngs(), 5))


NNX = {
    "linear": lambda r: nnx.Linear(4, 3, rngs=r),
    "general": lambda r: nnx.LinearGeneral((4,), (2, 3), rngs=r),
    "einsum": lambda r: nnx.Einsum("btd,dhk->bthk", (8, 2, 3), (2, 3), rngs=r),
    "conv": lambda r: nnx.Conv(4, 6, (3, 3), feature_group_count=2, rngs=r),
    "transposed": lambda r: nnx.ConvTranspose(
        4, 6, (3, 3), transpose_kernel=True, rngs=r
    ),
    "embed": lambda r: nnx.Embed(10, 4, rngs=r),
    "bn": lambda r: nnx.BatchNorm(4, rngs=r),
    "norm": lambda r: nnx.RMSNorm(4, rngs=r),
    "attention": lambda r: nnx.MultiHeadAttention(2, 8, rngs=r),
    "gru": lambda r: nnx.GRUCell(4, 6, rngs=r),
    "lora": lambda r: nnx.LoRALinear(4, 3, lora_rank=2, rngs=r),
    "stacked": _stacked,
}


def equinox_modules(eqx):
    key, nn = jax.random.key(0), eqx.nn
    make = eqx.filter_vmap(lambda k: nn.Linear(4, 3, key=k))
    return {
        "Linear": nn.Linear(4, 3, key=key),
        "Conv2d": nn.Conv2d(4, 6, 3, groups=2, key=key),
        "Conv1d": nn.Conv1d(4, 6, 3, key=key),
        "ConvTranspose2d": nn.ConvTranspose2d(4, 6, 3, key=key),
        "Embed": nn.Embedding(10, 4, key=key),
        "LayerNorm": nn.LayerNorm(4),
        "LayerNorm2d": nn.LayerNorm((4, 5)),
        "LSTMCell": nn.LSTMCell(4, 6, key=key),
        "GRUCell": nn.GRUCell(4, 6, key=key),
        "attention": nn.MultiheadAttention(2, 8, key=key),
        "stacked": make(jax.random.split(key, 5)),
    }


def torch_modules(nn):
    return {
        "linear": nn.Linear(4, 3),
        "conv": nn.Conv2d(4, 6, 3, groups=2),
        "transposed": nn.ConvTranspose2d(4, 6, 3),
        "square_transposed": nn.ConvTranspose2d(6, 6, 3),
        "wte": nn.Embedding(10, 4),
        "lookup": nn.Embedding(10, 4),
        "bn1": nn.BatchNorm2d(4),
        "lstm": nn.LSTM(4, 6, proj_size=3),
        "attention": nn.MultiheadAttention(8, 2),
    }


# ResNet-20 in four layouts: how each calls and holds what Linen's parameters are.


def resnet20_shapes():
    model = models.create("resnet20", num_classes=10)
    shape = jax.ShapeDtypeStruct((1, 32, 32, 3), jnp.float32)
    return jax.eval_shape(
        lambda x: model.init(jax.random.key(0), x, train=False), shape
    )["params"]


def by_path(tree):
    return {
        jax.tree_util.keystr(path, simple=True, separator="/"): leaf
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
    }


def _to_nnx(params):
    return nnx.State(jax.tree.map(nnx.Param, params))


def _from_nnx(state):
    return {k.removesuffix("/value"): np.asarray(v) for k, v in by_path(state).items()}


def _lowered(path):
    """Linen's names as Equinox and PyTorch users call the same layers."""
    path = path.replace("BatchNorm_", "bn").replace("Conv_", "conv")
    return path.replace("Dense_", "fc").replace("/kernel", "/weight")


def _first(name, array):
    """Outputs first: (h, w, in, out) as (out, in, h, w)."""
    order = {4: (3, 2, 0, 1), 2: (1, 0)}.get(array.ndim, range(array.ndim))
    return jnp.transpose(array, tuple(order)) if name.endswith("kernel") else array


def _last(array):
    return np.transpose(array, {4: (2, 3, 1, 0), 2: (1, 0)}[array.ndim])


def _to_nested(params):
    tree = {}
    for path, leaf in by_path(params).items():
        *modules, name = _lowered(path).replace("/scale", "/weight").split("/")
        node = tree
        for module in modules:
            node = node.setdefault(module, {})
        node[name] = _first(path, leaf)
    return tree


def _to_dotted(params):
    return {k.replace("/", "."): v for k, v in by_path(_to_nested(params)).items()}


def _raised(name):
    """The name that Linen gives what Equinox and PyTorch call so."""
    name = name.replace(".", "/")
    kernel = "scale" if re.search(r"bn\d+/weight$", name) else "kernel"
    name = name.replace("weight", kernel)
    for mine, theirs in (("bn", "BatchNorm_"), ("conv", "Conv_"), ("fc", "Dense_")):
        name = re.sub(rf"\b{mine}(\d+)", rf"{theirs}\1", name)
    return name


def _from_first(tree):
    found = {_raised(k): np.asarray(v) for k, v in by_path(tree).items()}
    return {k: _last(v) if k.endswith("kernel") else v for k, v in found.items()}


def _from_linen(tree):
    return {k: np.asarray(v) for k, v in by_path(tree).items()}


RESNETS = {
    "linen": (lambda params: params, lambda path: path, _from_linen),
    "nnx": (_to_nnx, lambda path: path.removesuffix("/value"), _from_nnx),
    "equinox": (_to_nested, _raised, _from_first),
    "pytorch": (_to_dotted, _raised, _from_first),
}
