"""The roles of a point's leaves: kernels with their units, biases, scales, embeddings.

A unit's weights, by which Li et al. rescale directions, lie along the input axes of its
layer's kernel. Which axes these are differs from layer to layer and from library to
library; `roles` reads it off names, shapes and modules, and takes what a user says by
``axes=``. `table` prints what was taken for what.
"""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from lrscape import checks
from lrscape.errors import InputError
from lrscape.layers import modules, names, rules
from lrscape.layers.leaf import ROLES as ROLES
from lrscape.layers.leaf import Axes as Axes
from lrscape.layers.leaf import Leaf as Leaf
from lrscape.layers.leaf import leaf_of
from lrscape.layers.modules import Linen as Linen
from lrscape.layers.modules import of_model as of_model
from lrscape.layers.modules import trace as trace
from lrscape.layers.rules import takes_leaf as takes_leaf


def paths_of(point: Any) -> list[str]:
    """The path of each leaf, in the order of ``jax.tree.leaves``.

    Example:
        >>> paths_of({'dense': {'kernel': 1.0, 'bias': 2.0}, 'scale': 3.0})
        ['dense/bias', 'dense/kernel', 'scale']
    """
    return [
        jax.tree_util.keystr(path, simple=True, separator="/") or "(the point itself)"
        for path, _ in jax.tree_util.tree_leaves_with_path(point)
    ]


def roles(point: Any, axes: Any = None) -> Any:
    """Tells the role and the axes of each leaf of a point.

    Names, shapes and modules are read in this order: what `axes` says; modules of
    Equinox that are part of the point; the names of partitioned axes; then the layer's
    names. ``kernel``, ``embedding`` and ``scale`` are Flax's (outputs last, ``w`` of
    Haiku's layers likewise), ``weight`` is that of Equinox and PyTorch (outputs first).
    How many axes are stacked or count outputs is told by the shape of the bias beside a
    kernel, which is stacked + outputs, or by the norm scales of the same block. What
    nothing tells is ``'unknown'``.

    Names cannot tell a square transposed convolution with ``transpose_kernel=True``, or
    PyTorch's under a name that does not say so, from others: `of_model` can.

    Args:
        point: any pytree of arrays, or of their shapes.
        axes: what a user says of leaves, which goes before all else. For each leaf one
            of: the axis that counts its units (``-1``), several (``(-2, -1)``), a role
            (``'bias'``), an `Axes`, or None to leave it to the names. Given as a
            function of the leaf's path, or of its path and the leaf; as a mapping from
            paths or patterns of them (``{'*/w': -1}``); as a tree like the point; as
            an objective or a `Table` whose leaves are known; or as one of these for
            all leaves that would be unknown. Bare axes say nothing of an array of
            fewer than two.

    Returns:
        A tree like the point, a `Leaf` in place of each array.

    Raises:
        InputError: `axes` that cannot be read or do not fit.

    Example:
        >>> kernel, bias = np.ones((3, 8, 8)), np.ones((3, 8))
        >>> roles({'Dense_0': {'kernel': kernel, 'bias': bias}})['Dense_0'][
        ...     'kernel'].pattern
        'kernel (stacked, in, out)'
        >>> roles({'w': np.ones((8, 2))}, axes=-1)['w'].pattern
        'kernel (in, out)'
    """
    leaves, structure = jax.tree.flatten(point)
    return jax.tree.unflatten(structure, _read(point, leaves, axes))


def settled(
    params: Any, axes: Any, model_axes: dict[str, Axes], *, needed_by: str | None
) -> tuple[Leaf, ...]:
    """The roles of a known model's leaves: a user's word first, then its modules.

    Args:
        params: the model's parameters, or their shapes.
        axes: see `roles`.
        model_axes: see `of_model`.
        needed_by: what needs every leaf's meaning, for the message; None: nothing.

    Raises:
        InputError: `axes` that do not fit, or a leaf that nothing identifies.
    """
    found = tuple(_read(params, jax.tree.leaves(params), axes, model_axes))
    if needed_by is not None:
        check_known(found, needed_by, axes_too=False)
    return found


def _read(
    point: Any, leaves: list[Any], axes: Any, model_axes: Any = None
) -> list[Leaf]:
    paths = paths_of(point)
    shapes = [tuple(int(n) for n in np.shape(leaf)) for leaf in leaves]
    said = rules.specs(axes, point, paths)
    seen, stacks = modules.in_point(point)
    found = names.read(paths, shapes, stacks)
    for i, path in enumerate(paths):
        own = (model_axes or {}).get("/".join(names.parts_of(path)))
        if (spec := seen.get(i, own)) is not None:
            found[i] = leaf_of(path, shapes[i], spec, "model")
    for i, (path, shape) in enumerate(zip(paths, shapes, strict=True)):
        is_bare = isinstance(said[i], int | tuple | list)
        if axes is said[i] and found[i].role != "unknown":
            continue
        if said[i] is not None and not (is_bare and len(shape) < 2):
            found[i] = leaf_of(path, shape, said[i], "axes=")
    return found


def check_known(
    leaves: Sequence[Leaf],
    needed_by: str,
    moved: Sequence[bool] | None = None,
    *,
    axes_too: bool = True,
) -> None:
    """Raises InputError where meaning is needed and nothing tells it.

    Args:
        leaves: what was read.
        needed_by: what needs it, for the message.
        moved: which leaves matter; None is all of them.
        axes_too: whether the axes of weights are needed, and not only which leaves
            are weights.
    """
    matter = [True] * len(leaves) if moved is None else moved
    unknown = [
        leaf
        for leaf, counts in zip(leaves, matter, strict=True)
        if counts and leaf.role == "unknown" and (axes_too or not leaf.is_weight)
    ]
    if not unknown:
        return
    first, more = unknown[0], len(unknown) - 1
    others = f" (and {more} more)" if more else ""
    key = "*" if first.path == "(the point itself)" else first.path
    raise InputError(
        f"{needed_by} needs to know which axes of {first.path}, of shape "
        f"{first.shape}{others}, count units: {first.source}. Say it by axes=, such as "
        f"axes={{{key!r}: -1}} where the last axis counts units, {{{key!r}: 'bias'}} "
        f"or {{{key!r}: lrscape.layers.Axes(outputs=-1, stacked=0)}}; or read it off "
        "the model: axes=lrscape.layers.of_model(model, inputs)"
    )


def weights_mask(params: Any, axes: Any = None, *, needed_by: str) -> Any:
    """Selects the weights: kernels and embeddings, not biases, not norm scales.

    Args:
        params: any pytree of arrays.
        axes: see `roles`.
        needed_by: what needs to know, for the message.

    Returns:
        A tree of booleans like the parameters.

    Raises:
        InputError: an array that nothing identifies.
    """
    leaves, structure = jax.tree.flatten(params)
    found = _read(params, leaves, axes)
    check_known(found, needed_by, axes_too=False)
    return jax.tree.unflatten(structure, [leaf.is_weight for leaf in found])


def largest_layer_norm(params: Any) -> jax.Array:
    """The largest Frobenius norm of a layer's array, stacked layers taken apart.

    Args:
        params: any pytree of arrays, with at least one.

    Example:
        >>> stacked = {'kernel': np.ones((3, 2, 2)), 'bias': np.ones((3, 2))}
        >>> print(largest_layer_norm({'Dense_0': stacked}))
        2.0
    """
    dtype = jnp.result_type(float)

    def one(leaf: Leaf, array: Any) -> jax.Array:
        wide = jnp.asarray(array).astype(dtype)
        return jnp.max(jnp.sqrt(jnp.sum(wide**2, axis=leaf.layer_axes)))

    norms = jax.tree.leaves(jax.tree.map(one, roles(params), params))
    return jnp.max(jnp.stack(norms))


def by_layer(tree: Any, axes: Any = None) -> dict[str, np.ndarray]:
    """The arrays of a tree by path; of one that holds stacked layers, each by itself.

    Args:
        tree: any pytree of arrays.
        axes: see `roles`.

    Returns:
        Path -> array; the layers of a stacked one are ``'path[0]'``, ``'path[1]'`` ...

    Example:
        >>> stacked = {'kernel': np.ones((2, 3, 3)), 'bias': np.ones((2, 3))}
        >>> [name for name in by_layer({'Dense_0': stacked})]
        ['Dense_0/bias[0]', 'Dense_0/bias[1]', 'Dense_0/kernel[0]', 'Dense_0/kernel[1]']
    """
    leaves = jax.tree.leaves(tree)
    arrays = {}
    for leaf, array in zip(_read(tree, leaves, axes), leaves, strict=True):
        if not leaf.stacked:
            arrays[leaf.path] = np.asarray(array)
            continue
        whole = np.moveaxis(np.asarray(array), leaf.stacked, range(len(leaf.stacked)))
        for index in np.ndindex(*(leaf.shape[axis] for axis in leaf.stacked)):
            name = f"{leaf.path}[{','.join(map(str, index))}]"
            arrays[name] = whole[index]
    return arrays


def of_role(role: str | Sequence[str]) -> Callable[[Any], Any]:
    """A mask for Optax: the leaves of one role, or of several.

    Example:
        >>> of_role('bias')({'kernel': np.ones((2, 3)), 'bias': np.ones(3)})
        {'bias': True, 'kernel': False}
    """
    given = [role] if isinstance(role, str) else checks.sequence("role", role)
    wanted = [checks.one_of("role", one, ROLES) for one in given]
    return lambda params: jax.tree.map(lambda leaf: leaf.role in wanted, roles(params))


@dataclasses.dataclass(frozen=True)
class Table:
    """The roles of a point's leaves; ``str(...)`` or ``print`` shows them.

    Attributes:
        leaves: in the order of ``jax.tree.leaves``.
    """

    leaves: tuple[Leaf, ...]

    @property
    def settings(self) -> dict[str, int]:
        """The number of arrays of each role and axes, as JSON holds it."""
        counts = collections.Counter(leaf.pattern for leaf in self.leaves)
        return dict(sorted(counts.items()))

    def __str__(self) -> str:
        head = ("path", "shape", "role", "stacked", "output axes", "units", "read from")
        rows = [
            (
                leaf.path,
                str(leaf.shape),
                leaf.role,
                _axes(leaf.stacked),
                _axes(leaf.outputs if leaf.is_weight else ()),
                str(leaf.units or "-"),
                leaf.source,
            )
            for leaf in self.leaves
        ]
        widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
        lines = [
            "  ".join(cell.ljust(n) for cell, n in zip(row, widths, strict=True))
            for row in (head, *rows)
        ]
        return "\n".join(line.rstrip() for line in lines)


def _axes(axes: tuple[int, ...]) -> str:
    return ", ".join(map(str, axes)) or "-"


def table(point: Any, axes: Any = None) -> Table:
    """Makes a table of each leaf's role, axes and units, to be printed.

    Args:
        point: any pytree of arrays.
        axes: see `roles`.

    Returns:
        Path, shape, role, stacked and output axes, number of units of each leaf, and
        what told it.

    Raises:
        InputError: `axes` that cannot be read or do not fit.

    Example:
        >>> layer = {'kernel': np.ones((3, 3, 2, 4)), 'bias': np.ones(4)}
        >>> print(table({'Conv_0': layer}))
        path           shape         role    stacked  output axes  units  read from
        Conv_0/bias    (4,)          bias    -        -            -      names
        Conv_0/kernel  (3, 3, 2, 4)  kernel  -        3            4      the bias beside it
    """  # noqa: E501
    return Table(tuple(_read(point, jax.tree.leaves(point), axes)))
