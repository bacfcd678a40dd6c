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

from lrscape.errors import InputError
from lrscape.landscape.tree import Point, is_concrete, leaf_names, map_named

Mask = Any  # None, a predicate on a leaf's path, or a tree of booleans like the point

# Names under which batch norm goes: BatchNorm_0, bn1, norm_2, batch_norm ...
_BATCH_NORM = re.compile(r"(?i)(.*batch_?norm.*|bn_?\d*|norm_?\d*)")


def as_mask(mask: Mask, point: Point) -> Any:
    """A mask as a tree of boolean arrays like the point; None where all may move.

    Args:
        mask: None; a function of a leaf's path (``'Dense_0/kernel'``) that says whether
            it may move; or a tree like the point of booleans or boolean arrays that
            broadcast against its leaves.
        point: what is masked. Of a point with the keys ``params`` and ``batch_stats``
            only the parameters move when nothing else is said.

    Raises:
        InputError: a mask of another structure, not boolean, or one that selects
            nothing.
    """
    if mask is None:
        if not _has_batch_stats(point):
            return None
        mask = _is_parameter
    if callable(mask):
        predicate = mask
        tree = map_named(lambda path, leaf: bool(predicate(path)), point)
    else:
        tree = mask
        if leaf_names(tree) != leaf_names(point):
            raise InputError(
                f"mask has another structure than the point: its leaves are "
                f"{', '.join(leaf_names(tree))}; the point's are "
                f"{', '.join(leaf_names(point))}"
            )

    def broadcast(path, leaf, selected):
        selected = jnp.asarray(selected)
        if selected.dtype != bool:
            raise InputError(f"mask: {path} has dtype {selected.dtype}, not bool")
        try:
            return jnp.broadcast_to(selected, jnp.shape(leaf))
        except ValueError as error:
            raise InputError(
                f"mask: {path} has shape {selected.shape}, which does not broadcast "
                f"against {jnp.shape(leaf)}"
            ) from error

    tree = map_named(broadcast, point, tree)
    if is_concrete(tree) and not any(map(jnp.any, jax.tree.leaves(tree))):
        raise InputError(
            f"mask selects nothing of the point, whose leaves are "
            f"{', '.join(leaf_names(point))}"
        )
    return tree


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

    Example:
        >>> [batch_norm_only(p) for p in ('BatchNorm_3/scale', 'Conv_0/kernel')]
        [True, False]
    """
    first, *_ = parts = path.split("/")[:-1] or [""]
    # Of a point that holds running averages too, those are neither.
    return first != "batch_stats" and any(map(_BATCH_NORM.fullmatch, parts))


def batch_norm_scales(path: str) -> bool:
    """A mask: the scales of batch norm without its biases.

    Example:
        >>> [batch_norm_scales(f'BatchNorm_0/{name}') for name in ('scale', 'bias')]
        [True, False]
    """
    return batch_norm_only(path) and path.rpartition("/")[2] == "scale"


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
    return lambda path: not mask(path)


def layer_only(name: str) -> Callable[[str], bool]:
    """A mask: one layer, by its path in the point.

    Example:
        >>> layer_only('Dense_1')('Dense_1/kernel')
        True
    """
    return lambda path: path == name or path.startswith(f"{name}/")


def first_layer(model: nn.Module, inputs: Any) -> Callable[[str], bool]:
    """A mask: the first layer with a kernel that a Linen model's input passes through.

    Trees of parameters are sorted by name, so the order is read from a call of the
    model, which is traced and not computed.

    Args:
        model: called as ``model(inputs, train=False)``, or without ``train``.
        inputs: one batch of inputs, or their shape as `jax.ShapeDtypeStruct`.

    Returns:
        A predicate on paths, for points that are the model's parameters.

    Raises:
        InputError: no layer of the model has a parameter named ``kernel``.

    Example:
        >>> from lrscape import models
        >>> model = models.create('mlp', num_classes=10)
        >>> select = first_layer(model, jnp.ones((1, 64)))
        >>> select('Dense_0/kernel'), select('Dense_1/kernel')
        (True, False)
    """
    found: list[str] = []

    def note(call, args, kwargs, context):
        result = call(*args, **kwargs)
        module = context.module
        if not found and "kernel" in module.variables.get("params", {}):
            found.append("/".join(module.path))
        return result

    def run(inputs):
        with nn.intercept_methods(note):
            return model.init(jax.random.key(0), inputs, **takes_train(model, False))

    jax.eval_shape(run, inputs)
    if not found:
        raise InputError(
            f"model={type(model).__name__} has no layer with a parameter named kernel; "
            "pass a predicate on paths as the mask"
        )
    return layer_only(found[0])


def takes_train(model: nn.Module, train: bool) -> dict[str, Any]:
    """The keyword ``train`` for a model that is called with it, else nothing."""
    parameters = inspect.signature(model.__call__).parameters
    return {"train": train} if "train" in parameters else {}


def _has_batch_stats(point: Point) -> bool:
    return isinstance(point, Mapping) and set(point) == {"params", "batch_stats"}


def _is_parameter(path: str) -> bool:
    return path.split("/")[0] == "params"
