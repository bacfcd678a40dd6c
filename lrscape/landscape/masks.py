"""Masks: which entries of a point a direction or a product may move."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from lrscape import checks, layers
from lrscape.checks import shown
from lrscape.errors import InputError
from lrscape.landscape.tree import Point, is_concrete, leaf_names, map_named
from lrscape.layers.names import parts_of

# None, a predicate on a leaf's path (and on what the leaf is), or a tree of booleans
# like the point.
Mask = Any

# Names under which batch norm goes: BatchNorm_0, bn1, norm_2, batch_norm ...
_BATCH_NORM = re.compile(r"(?i)(.*batch_?norm.*|bn_?\d*|norm_?\d*)")
# What batch norm calls its scale: Flax, Equinox and PyTorch, TensorFlow.
_SCALES = ("scale", "weight", "gamma")
# Running averages, which some libraries keep beside scale and bias.
_AVERAGES = re.compile(
    r"mean|var|running_mean|running_var|num_batches_tracked|init|\d+"
)


def as_mask(mask: Mask, point: Point, *, axes: Any = None) -> Any:
    """A mask as a tree of boolean arrays like the point; None where all may move.

    Args:
        mask: None; a function of a leaf's path (``'Dense_0/kernel'``) that says whether
            it may move; a function of the path and of what the leaf is, a
            `lrscape.layers.Leaf`: ``lambda path, leaf: leaf.role == 'bias'``; or a tree
            like the point of booleans or boolean arrays that broadcast against its
            leaves.
        point: what is masked. Of a point with the keys ``params`` and ``batch_stats``
            only the parameters move when nothing else is said.
        axes: what leaves are where names do not tell; see `lrscape.layers.roles`.

    Raises:
        InputError: a mask of another structure, not boolean, or one that selects
            nothing.
    """
    if not jax.tree.leaves(point) or isinstance(point, str):
        raise InputError(f"point={shown(point)} holds no arrays to be masked")
    if mask is None:
        if not _has_batch_stats(point):
            return None
        mask = _is_parameter
    if callable(mask):
        tree = _predicated(mask, point, axes)
    else:
        tree = mask
        if leaf_names(tree) != leaf_names(point):
            raise InputError(
                f"mask={shown(tree)} has another structure than the point: its leaves "
                f"are {', '.join(leaf_names(tree))}; the point's are "
                f"{', '.join(leaf_names(point))}"
            )

    def broadcast(path, leaf, selected):
        return checks.mask_leaf(path, jnp.asarray(selected), jnp.shape(leaf))

    tree = map_named(broadcast, point, tree)
    if is_concrete(tree) and not any(map(jnp.any, jax.tree.leaves(tree))):
        raise InputError(
            f"mask selects nothing of the point, whose leaves are "
            f"{', '.join(leaf_names(point))}"
        )
    return tree


def _predicated(predicate: Callable[..., Any], point: Point, axes: Any) -> Any:
    """A predicate's word on each leaf."""
    if layers.takes_leaf(predicate):
        return jax.tree.map(
            lambda leaf: bool(predicate(leaf.path, leaf)), layers.roles(point, axes)
        )
    return map_named(lambda path, leaf: bool(predicate(path)), point)


def apply_mask(mask: Any, tree: Any) -> Any:
    """Sets to zero what a mask from `as_mask` does not select."""
    if mask is None:
        return tree
    return jax.tree.map(
        lambda selected, leaf: jnp.where(selected, leaf, jnp.zeros_like(leaf)),
        mask,
        tree,
    )


def batch_norm_only(path: str) -> bool:
    """A mask: scales and biases of batch norm, known by their layers' names.

    Names are those of Linen (``BatchNorm_0``) and what layers are commonly called in
    NNX, Equinox and PyTorch: ``bn``, ``bn1``, ``norm_2``, ``batch_norm`` ...

    Example:
        >>> paths = ('BatchNorm_3/scale', 'bn/scale/value', 'layer1.0.bn1.weight')
        >>> [batch_norm_only(p) for p in (*paths, 'Conv_0/kernel')]
        [True, True, True, False]
    """
    # Of a point that holds running averages too, those are neither.
    if path.split("/")[0] == "batch_stats":
        return False
    *modules, name = parts_of(path)
    return any(map(_BATCH_NORM.fullmatch, modules)) and not _AVERAGES.fullmatch(name)


def batch_norm_scales(path: str) -> bool:
    """A mask: the scales of batch norm without its biases.

    Example:
        >>> [batch_norm_scales(f'BatchNorm_0/{name}') for name in ('scale', 'bias')]
        [True, False]
        >>> [batch_norm_scales(path) for path in ('bn/scale/value', 'bn1.weight')]
        [True, True]
    """
    return batch_norm_only(path) and parts_of(path)[-1] in _SCALES


def as_many_others(mask: Mask, point: Point, *, key: jax.Array) -> Any:
    """A mask: as many entries as another one selects, drawn from all that it leaves.

    Args:
        mask: the other one; see `as_mask`.
        point: what is masked.
        key: a PRNG key; another one draws others.

    Returns:
        A tree of boolean arrays like the point: single entries, wherever they lie.

    Raises:
        InputError: a mask that selects more than half of the entries, all included.

    Example:
        >>> point = {'bn': {'scale': jnp.ones(3)}, 'kernel': jnp.ones((4, 5))}
        >>> chosen = as_many_others(batch_norm_only, point, key=jax.random.key(0))
        >>> print(chosen['bn']['scale'], chosen['kernel'].sum())
        [False False False] 3
    """
    key = checks.key("key", key)
    selected = as_mask(mask, point)
    leaves, structure = jax.tree.flatten(point if selected is None else selected)
    sizes = [np.size(leaf) for leaf in leaves]
    if selected is None:
        flat = np.ones(sum(sizes), bool)
    else:
        flat = np.concatenate([np.ravel(leaf) for leaf in leaves])
    (others,) = np.nonzero(~flat)
    if not flat.sum() <= len(others):
        raise InputError(
            f"mask selects {flat.sum()} of {flat.size} entries, so that there are only "
            f"{len(others)} others"
        )
    order = np.asarray(jax.random.permutation(key, len(others)))
    chosen = np.zeros_like(flat)
    chosen[others[order[: flat.sum()]]] = True
    parts = np.split(chosen, np.cumsum(sizes)[:-1])
    shaped = [
        jnp.asarray(part.reshape(np.shape(leaf)))
        for part, leaf in zip(parts, leaves, strict=True)
    ]
    return jax.tree.unflatten(structure, shaped)


def all_but(mask: Callable[[str], bool]) -> Callable[[str], bool]:
    """A mask: everything that another predicate does not select.

    Example:
        >>> all_but(batch_norm_only)('Conv_0/kernel')
        True
    """
    checks.function("mask", mask, takes="a leaf's path")
    return lambda path: not mask(path)


def layer_only(name: str) -> Callable[[str], bool]:
    """A mask: one layer, by its path in the point.

    Example:
        >>> layer_only('Dense_1')('Dense_1/kernel')
        True
        >>> layer_only('layer1.0')('layer1.0.conv1.weight')
        True
    """
    if not checks.instance("name", name, str, way_out="a layer's path"):
        raise InputError("name='' is no layer's path; name one, such as 'Dense_0'")
    wanted = parts_of(name)

    def select(path: str) -> bool:
        if path.split("/")[0] == "batch_stats" and wanted[0] != "batch_stats":
            return False
        return parts_of(path)[: len(wanted)] == wanted

    return select


def first_layer(model: nn.Module, inputs: Any) -> Callable[[str], bool]:
    """A mask: the first layer with weights that a Linen model's input passes through.

    Trees of parameters are sorted by name, so the order is read from a call of the
    model, which is traced and not computed.

    Args:
        model: called as ``model(inputs, train=False)``, or without ``train``.
        inputs: one batch of inputs, or their shape as `jax.ShapeDtypeStruct`.

    Returns:
        A predicate on paths, for points that are the model's parameters.

    Raises:
        InputError: no Linen model, or no layer of it has a parameter named ``kernel``
            or ``embedding``.

    Example:
        >>> from lrscape import models
        >>> model = models.create('mlp', num_classes=10)
        >>> select = first_layer(model, jnp.ones((1, 64)))
        >>> select('Dense_0/kernel'), select('Dense_1/kernel')
        (True, False)
    """
    if not isinstance(model, nn.Module):
        raise InputError(
            f"model={shown(model)} is no Linen module, whose layers can be followed; "
            "name the layer: layer_only('conv1')"
        )
    found: list[str] = []

    def note(call, args, kwargs, context):
        result = call(*args, **kwargs)
        module = context.module
        if not found and {"kernel", "embedding"} & {
            *module.variables.get("params", {})
        }:
            found.append("/".join(module.path))
        return result

    if not isinstance(inputs, jax.ShapeDtypeStruct):
        inputs = checks.numbers("inputs", inputs)
    if not inputs.shape:
        raise InputError(f"inputs={shown(inputs)} must be a batch, (n, ...)")

    def run(inputs):
        with nn.intercept_methods(note):
            return model.init(jax.random.key(0), inputs, **takes_train(model, False))

    jax.eval_shape(run, inputs)
    if not found:
        raise InputError(
            f"model={type(model).__name__} has no layer with a parameter named kernel "
            "or embedding; pass a predicate on paths as the mask"
        )
    if not found[0]:
        return lambda path: True  # the model is that layer
    return layer_only(found[0])


def takes_train(model: nn.Module, train: bool) -> dict[str, Any]:
    """The keyword ``train`` for a model that is called with it, else nothing."""
    parameters = inspect.signature(model.__call__).parameters
    return {"train": train} if "train" in parameters else {}


def _has_batch_stats(point: Point) -> bool:
    return isinstance(point, Mapping) and set(point) == {"params", "batch_stats"}


def _is_parameter(path: str) -> bool:
    return path.split("/")[0] == "params"
