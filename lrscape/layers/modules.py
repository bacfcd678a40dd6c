"""Reads the roles of leaves off the modules that hold them."""

from __future__ import annotations

import inspect
import itertools
import re
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np

from lrscape.errors import InputError
from lrscape.layers.leaf import Axes

_STACKED_NAME = re.compile(r"layers?|scan.*|stack.*|blocks?", re.IGNORECASE)


def of_model(model: Any, inputs: Any = None, *args: Any, **kwargs: Any) -> dict:
    """Reads a model's modules for the roles of its leaves, to pass as ``axes=``.

    Modules tell exactly what names and shapes cannot: how many axes a `DenseGeneral`
    has inputs, that a convolution is a transposed one, over which axis `nn.scan` stacks
    layers. Leaves of modules that are not the library's own are left to the names.

    Args:
        model: a Linen or NNX module, an Equinox module, or a PyTorch one.
        inputs: of a Linen model: one batch of inputs, or its shape; the model is traced
            with it and not computed.
        *args: what else a Linen model is called with.
        **kwargs: likewise, such as ``train=False``, which is passed to a model that
            takes it if nothing else is said.

    Returns:
        Path of a leaf -> `Axes`.

    Raises:
        InputError: a Linen model without inputs, or something that is no model.

    Example:
        >>> import flax.linen as nn
        >>> of_model(nn.Dense(3), np.ones((1, 2)))
        {'bias': Axes(outputs=(), stacked=(), role='bias'), \
'kernel': Axes(outputs=(1,), stacked=(), role='kernel')}
    """
    origins = {base.__module__.split(".")[0] for base in type(model).__mro__}
    if "torch" in origins:
        return dict(_of_torch(model))
    if "equinox" in origins:
        seen, _ = in_point(model)
        paths = jax.tree_util.tree_leaves_with_path(model)
        return {
            jax.tree_util.keystr(paths[i][0], simple=True, separator="/"): axes
            for i, axes in seen.items()
        }
    if "flax" in origins:
        from flax import linen as nn
        from flax import nnx

        if isinstance(model, nnx.Module):
            return dict(_of_nnx(model))
        if isinstance(model, nn.Module):
            if inputs is None:
                raise InputError(
                    "inputs=None: a Linen model's layers are known once it is called; "
                    "pass one batch of inputs, or its shape as jax.ShapeDtypeStruct"
                )
            return trace(model, inputs, *args, **kwargs)[0]
    raise InputError(
        f"model is a {type(model).__name__}; pass a Linen, NNX, Equinox or PyTorch "
        "module, or say what leaves are by axes="
    )


# Linen.


class Linen:
    """Notes the layers of a Linen model while it is traced.

    Example:
        >>> import flax.linen as nn
        >>> layers, model = Linen(), nn.Dense(3)
        >>> def init(x):
        ...     with nn.intercept_methods(layers.note):
        ...         return model.init(jax.random.key(0), x)
        >>> shapes = jax.eval_shape(init, np.ones((1, 2)))['params']
        >>> layers.axes(shapes)['kernel'].outputs
        (1,)
    """

    def __init__(self) -> None:
        self._seen: dict[str, tuple[Any, str, tuple[int, ...]]] = {}

    def note(self, call: Any, args: Any, kwargs: Any, context: Any) -> Any:
        """An interceptor for `flax.linen.intercept_methods`."""
        result = call(*args, **kwargs)
        self.see(context.module)
        return result

    def see(self, module: Any) -> None:
        """Notes a module that was called, and the shapes of one of its layers."""
        for name, value in module.variables.get("params", {}).items():
            shapes = [np.shape(leaf) for leaf in jax.tree.leaves(value)]
            if len(shapes) == 1 and not isinstance(value, dict):
                path = "/".join((*module.path, name))
                self._seen[path] = (module, name, shapes[0])

    def axes(self, params: Any) -> dict[str, Axes]:
        """Path -> axes, from the whole parameters, whose stacked axes are the rest."""
        found = {}
        for path, leaf in _named(params):
            if path in self._seen:
                module, name, inner = self._seen[path]
                stacked = _stacked(np.shape(leaf), inner)
                spec = _flax_axes(module, name, len(inner))
                if spec is not None and stacked is not None:
                    found[path] = _widened(*spec, stacked, len(np.shape(leaf)))
        return found


def trace(
    model: Any, inputs: Any, *args: Any, **kwargs: Any
) -> tuple[dict[str, Axes], Any]:
    """Traces a Linen model: the roles of its parameters, and their shapes.

    Args:
        model: a Linen module.
        inputs: one batch of inputs, or its shape.
        *args: what else it is called with.
        **kwargs: likewise; ``train=False`` is added for a model that takes it.
    """
    from flax import linen as nn

    layers = Linen()
    parameters = inspect.signature(model.__call__).parameters
    if "train" in parameters and "train" not in kwargs:
        kwargs = {**kwargs, "train": False}

    def init(inputs):
        with nn.intercept_methods(layers.note):
            return model.init(jax.random.key(0), inputs, *args, **kwargs)

    params = jax.eval_shape(init, inputs).get("params", {})
    return layers.axes(params), params


def _named(tree: Any) -> Iterator[tuple[str, Any]]:
    """Leaves by path; of a box (`nn.Partitioned`) what it holds, by the box's."""
    from lrscape.layers.names import parts_of

    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        yield "/".join(parts_of(name)), leaf


def _stacked(whole: Any, inner: Any) -> tuple[int, ...] | None:
    """Which axes of an array are not those of one layer: the first ones that fit."""
    for axes in itertools.combinations(range(len(whole)), len(whole) - len(inner)):
        if tuple(n for i, n in enumerate(whole) if i not in axes) == tuple(inner):
            return axes
    return None


def _widened(outputs: Any, role: str, stacked: Any, ndim: int) -> Axes:
    """Axes of one layer as axes of the whole array."""
    kept = [axis for axis in range(ndim) if axis not in stacked]
    return Axes(tuple(kept[axis] for axis in outputs), tuple(stacked), role)


def _flax_axes(module: Any, name: str, ndim: int) -> tuple[Any, str] | None:
    """(output axes, role) of one layer's leaf; None if its module is not Flax's."""
    if not any(base.__module__.startswith("flax.") for base in type(module).__mro__):
        return None
    kind = {base.__name__ for base in type(module).__mro__}
    if kind & {"Embed"} and name == "embedding":
        return (0,), "embedding"
    if name in ("lora_a", "lora_b"):
        return (1,), "kernel"
    if name in ("bias", "scale"):
        return (), name
    if name != "kernel":
        return None
    last = ndim - 1
    if kind & {"ConvTranspose"}:
        return (last - 1 if module.transpose_kernel else last,), "kernel"
    if kind & {"ConvLocal"}:
        return (*range(ndim - 2), last), "kernel"
    if kind & {"DenseGeneral", "LinearGeneral"}:
        features = getattr(module, "features", None)
        if features is None:
            features = module.out_features
        count = len(features) if isinstance(features, tuple | list) else 1
        batched: Any = getattr(module, "batch_dims", None)
        if batched is None:
            batched = getattr(module, "batch_axis", None) or ()
        batch = 1 if isinstance(batched, int) else len(batched)
        return (*range(batch), *range(ndim - count, ndim)), "kernel"
    if kind & {"Einsum"}:
        return _einsum_outputs(module, ndim)
    if kind & {"Dense", "DenseParams", "Linear", "Conv"}:
        return (last,), "kernel"
    return None


def _einsum_outputs(module: Any, ndim: int) -> tuple[Any, str] | None:
    """The kernel's axes that are in the result: each index of these is a unit."""
    equation = getattr(module, "einsum_str", None)
    if not equation:
        return None
    operands, _, result = equation.replace(" ", "").partition("->")
    kernel = operands.split(",")[-1]
    outputs = tuple(i for i, index in enumerate(kernel) if index in result)
    if len(kernel) != ndim or "." in kernel or not 0 < len(outputs) < ndim:
        return None
    return outputs, "kernel"


# NNX.


def _of_nnx(model: Any) -> Iterator[tuple[str, Axes]]:
    from flax import nnx

    for path, module in nnx.iter_graph(model):
        if not isinstance(module, nnx.Module):
            continue
        rank = _nnx_rank(module)
        kernel = getattr(module, "kernel", None)
        for name, value in vars(module).items():
            if not isinstance(value, nnx.Param) or not hasattr(value, "shape"):
                continue
            ndim = len(value.shape)
            if name in ("kernel", "embedding", "lora_a", "lora_b"):
                stacked = None if rank is None else ndim - rank
            elif kernel is not None and rank is not None:
                stacked = len(kernel.shape) - rank  # of the bias beside it
            else:
                stacked = ndim - 1  # a norm layer's
            if stacked is None or not 0 <= stacked <= ndim:
                continue
            spec = _flax_axes(module, name, ndim - stacked)
            if spec is not None:
                text = "/".join(map(str, (*path, name)))
                yield text, _widened(*spec, range(stacked), ndim)


def _nnx_rank(module: Any) -> int | None:
    """How many axes the kernel of one layer of NNX has."""

    def count(value: Any) -> int:
        return 1 if isinstance(value, int) else len(value or ())

    for base in type(module).__mro__:
        if not base.__module__.startswith("flax."):
            continue
        kind = base.__name__
        if kind in ("Linear", "Embed", "LoRA", "LoRALinear"):
            return 2
        if kind in ("Conv", "ConvTranspose"):
            return count(module.kernel_size) + 2
        if kind == "Einsum":
            return len(module.kernel_shape)
        if kind == "LinearGeneral":
            ends = count(module.in_features) + count(module.out_features)
            return ends + count(module.batch_axis)
    return None


# Equinox, whose modules are part of the point, and boxes that name axes.


def in_point(point: Any) -> tuple[dict[int, Axes], dict[int, tuple[int, ...]]]:
    """The roles that modules and boxes within a point give, by the number of the leaf.

    Returns:
        Axes of the leaves of Equinox's layers; the stacked axes of leaves whose axes
        are named, by `nn.with_partitioning` or the metadata of an NNX variable.
    """

    def known(node: Any) -> bool:
        return _equinox_kind(node) is not None or _names(node) is not None

    seen: dict[int, Axes] = {}
    stacks: dict[int, tuple[int, ...]] = {}
    start = 0
    for node in jax.tree.leaves(point, is_leaf=known):
        kind = _equinox_kind(node)
        if kind is not None:
            for offset, (path, leaf) in enumerate(
                jax.tree_util.tree_leaves_with_path(node)
            ):
                # Of layers within layers each is asked by itself.
                axes = _equinox_axes(node, kind, path, np.shape(leaf))
                if axes is not None:
                    seen[start + offset] = axes
            start += len(jax.tree.leaves(node))
            continue
        if (axis_names := _names(node)) is not None:
            named = tuple(
                i for i, name in enumerate(axis_names)
                if isinstance(name, str) and _STACKED_NAME.fullmatch(name)
            )  # fmt: skip
            # Names that say nothing of stacks leave it open.
            if named:
                stacks[start] = named
            start += len(jax.tree.leaves(node))
            continue
        start += 1
    return seen, stacks


def _names(node: Any) -> tuple[Any, ...] | None:
    """The names of an array's axes, of a box that has them."""
    if not type(node).__module__.startswith("flax."):
        return None
    names = getattr(node, "names", None)
    if names is None and hasattr(node, "get_metadata"):
        metadata = node.get_metadata()
        names = next(
            (
                metadata[key]
                for key in ("out_sharding", "sharding_names", "sharding")
                if metadata.get(key) is not None
            ),
            None,
        )
    try:
        return None if names is None else tuple(names)
    except TypeError:
        return None


_EQUINOX = {
    # One layer's rank, its output axis and role, by class and attribute.
    ("Linear", "weight"): (2, "kernel"),
    ("Embedding", "weight"): (2, "embedding"),
    ("LSTMCell", "weight_ih"): (2, "kernel"),
    ("LSTMCell", "weight_hh"): (2, "kernel"),
    ("GRUCell", "weight_ih"): (2, "kernel"),
    ("GRUCell", "weight_hh"): (2, "kernel"),
}


def _equinox_kind(node: Any) -> str | None:
    """The name of a layer of Equinox that holds arrays itself."""
    for base in type(node).__mro__:
        if base.__module__.startswith("equinox.nn"):
            name = base.__name__
            owns = {cls for cls, _ in _EQUINOX}
            if name in owns or name.startswith("Conv") or name.endswith("Norm"):
                return None if name in ("WeightNorm", "SpectralNorm") else name
    return None


def _equinox_axes(node: Any, kind: str, path: Any, shape: Any) -> Axes | None:
    name = jax.tree_util.keystr(path, simple=True, separator="/")
    ndim = len(shape)
    if kind.endswith("Norm"):
        rank = len(getattr(node, "shape", (0,)))  # of a LayerNorm's own features
        stacked = tuple(range(max(ndim - rank, 0)))
        roles = {"weight": "scale", "bias": "bias"}
        return Axes((), stacked, roles.get(name, "other"))
    window = getattr(node, "num_spatial_dims", 0) if kind.startswith("Conv") else 0
    if name.startswith("bias"):
        return Axes((), tuple(range(max(ndim - 1 - window, 0))), "bias")
    rank, role = _EQUINOX.get((kind, name), (2 + window, "kernel"))
    if name.startswith("weight") and ndim >= rank:
        stacked = tuple(range(ndim - rank))
        return Axes((ndim - rank,), stacked, role)
    return None


# PyTorch.


def _of_torch(model: Any) -> Iterator[tuple[str, Axes]]:
    """By the classes of a module's layers, which is all that is asked of PyTorch."""
    for prefix, module in model.named_modules():
        kinds = {base.__name__ for base in type(module).__mro__}
        tensors = [
            *module.named_parameters(recurse=False),
            *module.named_buffers(recurse=False),
        ]
        for name, tensor in tensors:
            path = f"{prefix}.{name}" if prefix else name
            ndim = len(tensor.shape)
            is_norm = any("Norm" in kind for kind in kinds)
            if name.startswith(("running_", "num_batches")):
                yield path, Axes((), (), "other")
            elif "bias" in name:
                yield path, Axes((), (), "bias")
            elif "weight" in name and is_norm:
                yield path, Axes((), (), "scale")
            elif "weight" in name and kinds & {"PReLU"}:
                yield path, Axes((), (), "other")
            elif "weight" in name and kinds & {"Embedding", "EmbeddingBag"}:
                yield path, Axes((0,), (), "embedding")
            elif "weight" in name and "_ConvTransposeNd" in kinds:
                if module.groups == 1:
                    yield path, Axes((1,), (), "kernel")
            elif "weight" in name and ndim > 1 and _is_pytorch(module):
                yield path, Axes((0,), (), "kernel")


def _is_pytorch(module: Any) -> bool:
    """Whether a module is a layer of PyTorch's own, not just of its base class."""
    own = {base.__module__ for base in type(module).__mro__}
    own.discard("torch.nn.modules.module")
    return any(name.startswith("torch.nn.") for name in own)
