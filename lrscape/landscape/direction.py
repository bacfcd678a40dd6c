"""Directions from a point: random, between points, fooling; normalised and masked."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from lrscape import checks, layers
from lrscape.errors import InputError
from lrscape.landscape.accumulate import loss_gradient
from lrscape.landscape.masks import Mask, apply_mask, as_mask
from lrscape.landscape.subspace import check_not_zero
from lrscape.landscape.tree import (
    Point,
    check_alike,
    check_point,
    is_concrete,
    leaf_dtype,
    lengths,
    norm,
    scale,
    subtract,
)

NORMALIZATIONS = (None, "filter", "layer", "global")
FOOLING = ("sign", "gradient")


def gaussian_direction(
    key: jax.Array,
    point: Point,
    *,
    normalize: str | None = None,
    mask: Mask = None,
    keep_vectors: bool = False,
    axes: Any = None,
    names: Callable[[str], str] | None = None,
) -> Point:
    """A direction whose entries are standard normal.

    Args:
        key: a PRNG key.
        point: what the direction starts from: gives structure, shapes, and the norms
            that ``'filter'`` and ``'layer'`` take over.
        normalize: see `normalized`.
        mask: what may move, as `lrscape.landscape.masks.as_mask` takes it. What may not
            is 0, and is left out of every norm.
        keep_vectors: see `normalized`.
        axes: what leaves are where names do not tell; see `lrscape.layers.roles`.
        names: gives a leaf's path a name that it has in every layout of the same
            network. Entries are then drawn by these names, and in the order of axes
            stacked, input, output, so that one key gives one direction whether the
            network is held as Flax, Equinox or PyTorch hold it.

    Returns:
        A tree like the point.

    Raises:
        InputError: an unknown normalisation, a mask that selects nothing, a
            direction that came out as zero; by ``'filter'`` or with `names` an array
            that nothing identifies; `names` that give two leaves one name.

    Example:
        >>> point = {'kernel': jnp.full((4, 2), 0.5), 'bias': jnp.zeros(2)}
        >>> d = gaussian_direction(jax.random.key(0), point, normalize='filter')
        >>> print(jnp.linalg.norm(d['kernel'], axis=0).round(4), d['bias'])
        [1. 1.] [0. 0.]

    References:
        Li et al., `Visualizing the Loss Landscape of Neural Nets
        <https://arxiv.org/abs/1712.09913>`_, 2018, Sec. 4
    """
    _check_options(normalize, keep_vectors)
    drawn = _drawn(key, point, jax.random.normal, axes, names)
    return _finished(drawn, point, normalize, mask, keep_vectors, axes)


def uniform_direction(
    key: jax.Array,
    point: Point,
    *,
    low: float = 0.0,
    high: float = 1.0,
    normalize: str | None = "global",
    mask: Mask = None,
    keep_vectors: bool = False,
    axes: Any = None,
    names: Callable[[str], str] | None = None,
) -> Point:
    """A direction whose entries are uniform between two values.

    Entries in (0, 1) all point the same way: such a direction has a cosine of 0.87 with
    that of ones, and two of them 0.75 with each other. Entries in (-1, 1) do not.

    Args:
        key: a PRNG key.
        point: gives structure and shapes, and the norms that ``'filter'`` and
            ``'layer'`` take over.
        low: the least value an entry can take.
        high: what every entry stays below.
        normalize: see `normalized`; by default the whole direction has norm 1.
        mask: what may move.
        keep_vectors: see `normalized`.
        axes: what leaves are where names do not tell; see `lrscape.layers.roles`.
        names: a leaf's name in every layout; see `gaussian_direction`.

    Returns:
        A tree like the point.

    Raises:
        InputError: `low` not below `high`, or as `gaussian_direction`.

    Example:
        >>> d = uniform_direction(jax.random.key(0), {'w': jnp.ones(1000)})
        >>> print(f"{jnp.linalg.norm(d['w']):.4f} {d['w'].min() >= 0}")
        1.0000 True

    References:
        He et al., `Asymmetric Valleys <https://arxiv.org/abs/1902.00744>`_, 2019,
        Sec. 3
    """
    _check_options(normalize, keep_vectors)
    low, high = checks.finite("low", low), checks.finite("high", high)
    if is_concrete((low, high)) and not low < high:
        raise InputError(f"low={low!r} must be below high={high!r}")

    def draw(key, shape, dtype):
        return jax.random.uniform(key, shape, dtype, low, high)

    drawn = _drawn(key, point, draw, axes, names)
    return _finished(drawn, point, normalize, mask, keep_vectors, axes)


def ones_direction(
    point: Point,
    *,
    normalize: str | None = "global",
    mask: Mask = None,
    axes: Any = None,
) -> Point:
    """The direction whose entries are all 1: what uniform ones in (0, 1) lie near.

    Args:
        point: gives structure and shapes.
        normalize: see `normalized`; by default the whole direction has norm 1.
        mask: what may move.
        axes: what leaves are where names do not tell; see `lrscape.layers.roles`.

    Returns:
        A tree like the point.

    Raises:
        InputError: as `gaussian_direction`.

    Example:
        >>> print(ones_direction(jnp.zeros(4)))
        [0.5 0.5 0.5 0.5]
    """
    check_point("point", point)
    ones = jax.tree.map(lambda leaf: jnp.ones(jnp.shape(leaf), leaf_dtype(leaf)), point)
    return _finished(ones, point, normalize, mask, True, axes)


def flipped_direction(key: jax.Array, direction: Point) -> Point:
    """A direction whose entries keep their sizes and have their signs drawn anew.

    What a direction shows because all its entries point the same way, this one does
    not show. Of uniform entries in (0, 1) it makes uniform ones in (-1, 1).

    Args:
        key: a PRNG key.
        direction: any direction.

    Returns:
        A tree like the direction, of the same norm.

    Example:
        >>> print(jnp.abs(flipped_direction(jax.random.key(0), jnp.arange(1.0, 4.0))))
        [1. 2. 3.]
    """
    key = checks.key("key", key)
    check_point("direction", direction)
    leaves, structure = jax.tree.flatten(direction)
    keys = jax.random.split(key, len(leaves))
    flipped = [
        jnp.abs(leaf) * jax.random.rademacher(k, jnp.shape(leaf), leaf_dtype(leaf))
        for k, leaf in zip(keys, leaves, strict=True)
    ]
    return jax.tree.unflatten(structure, flipped)


def direction_between(
    a: Point,
    b: Point,
    *,
    normalize: str | None = None,
    mask: Mask = None,
    axes: Any = None,
) -> Point:
    """The direction from one point to another, ``b - a``.

    Args:
        a: where it starts; its norms are what ``'filter'`` and ``'layer'`` take over.
        b: where it leads.
        normalize: see `normalized`; biases and other vectors are kept.
        mask: what may move.
        axes: what leaves are where names do not tell; see `lrscape.layers.roles`.

    Returns:
        A tree like the points.

    Raises:
        InputError: points of different structure, or equal where they may move.

    Example:
        >>> print(direction_between(
        ...     jnp.zeros(2), jnp.array([3.0, 4.0]), normalize='global'))
        [0.6 0.8]
    """
    check_alike({"a": a, "b": b})
    return _finished(subtract(b, a), a, normalize, mask, True, axes)


def fooling_direction(
    objective: Any,
    point: Point,
    *,
    mask: Mask = None,
    method: str = "sign",
    normalize: str | None = "global",
    towards: bool = False,
    axes: Any = None,
) -> Point:
    """The direction in which the objective grows fastest, or a wrong one shrinks.

    Args:
        objective: an objective, or a function of a point. With `towards` the one to be
            lowered, such as ``objective.relabelled(key)``, whose labels are wrong.
        point: where the gradient is taken, over the whole sample.
        mask: what may move.
        method: ``'sign'`` of the gradient, the steepest where every entry may change by
            the same amount; or the ``'gradient'`` itself.
        normalize: see `normalized`; by default the whole direction has norm 1.
        towards: go down the objective instead of up.
        axes: what leaves are where names do not tell; see `lrscape.layers.roles`.

    Returns:
        A tree like the point.

    Raises:
        InputError: a gradient of zero, an unknown method, or a mask that selects
            nothing.

    Example:
        >>> print(fooling_direction(lambda w: w[0] ** 2 - w[1], jnp.ones(2)))
        [ 0.70710677 -0.70710677]

    References:
        Szegedy et al., `Intriguing properties of neural networks
        <https://arxiv.org/abs/1312.6199>`_, 2013; Seong et al., `Towards Flatter Loss
        Surface via Nonmonotonic Learning Rate Scheduling
        <http://auai.org/uai2018/proceedings/papers/363.pdf>`_, 2018, Fig. 4c
    """
    checks.one_of("method", method, FOOLING)
    _check_options(normalize)
    checks.flag("towards", towards)
    check_point("point", point)
    mask = as_mask(mask, point, axes=axes)
    slope = loss_gradient(objective, point)
    if towards:
        slope = scale(-1, slope)
    if method == "sign":
        slope = jax.tree.map(jnp.sign, slope)
    return _finished(slope, point, normalize, mask, True, axes)


def normalized(
    direction: Point,
    point: Point,
    normalize: str | None,
    *,
    keep_vectors: bool = False,
    axes: Any = None,
) -> Point:
    """A direction rescaled.

    What an array is, and which of its axes count units and stacked layers, is read off
    its layer's name and the arrays beside it, or taken from `axes`;
    ``print(lrscape.layers.table(point))`` shows what was taken for what.

    Args:
        direction: what is rescaled.
        point: the norms that it takes over; a tree like it.
        normalize: ``None``: left as it is. ``'global'``: the whole has norm 1.
            ``'layer'``: each array takes over the norm of the point's; of one that
            holds several stacked layers, each layer does. ``'filter'``: each unit does,
            that is the weights along the input axes of a kernel, in each layer; a unit
            of an embedding is a row. ``'layer'`` takes an array that nothing identifies
            for one layer; ``'filter'`` refuses it.
        keep_vectors: by ``'layer'`` and ``'filter'``, biases, the scales of norm layers
            and what else is neither kernel nor embedding are set to 0, as in the code
            of Li et al. (``ignore='biasbn'``); with this they are kept, and each array
            of a layer takes over the norm of the point's as a whole.
        axes: what leaves are where names do not tell; see `lrscape.layers.roles`.

    Returns:
        A tree like the direction.

    Raises:
        InputError: an unknown normalisation, trees of different structure or shapes, a
            direction of norm 0 by ``'global'``, or by ``'filter'`` an array that
            nothing identifies and whose direction is not 0.

    Example:
        >>> kernel = jnp.array([[3.0, 0.0], [4.0, 2.0]])
        >>> d = normalized({'kernel': jnp.ones((2, 2))}, {'kernel': kernel}, 'filter')
        >>> print(jnp.linalg.norm(d['kernel'], axis=0).round(4))
        [5. 2.]
        >>> d = normalized(jnp.ones((2, 2)), kernel.T, 'filter', axes=0)
        >>> print(jnp.linalg.norm(d, axis=1).round(4))
        [5. 2.]

    References:
        Li et al., `Visualizing the Loss Landscape of Neural Nets
        <https://arxiv.org/abs/1712.09913>`_, 2018, Sec. 4
    """
    _check_options(normalize, keep_vectors)
    check_alike({"point": point, "direction": direction})
    if normalize is None:
        return direction
    if normalize == "global":
        return scale(1 / check_not_zero("direction", direction), direction)
    found = layers.roles(point, axes)
    if normalize == "filter":
        moved = [
            not is_concrete(leaf) or bool(np.any(np.asarray(leaf)))
            for leaf in jax.tree.leaves(direction)
        ]
        layers.check_known(jax.tree.leaves(found), "normalize='filter'", moved)

    def one(leaf, d, w):
        d, w = jnp.asarray(d), jnp.asarray(w)
        if leaf.is_weight and normalize == "filter":
            summed = leaf.inputs
        elif leaf.is_weight or leaf.role == "unknown" or keep_vectors:
            summed = leaf.layer_axes
        else:
            return jnp.zeros_like(d)
        length = lengths(d, summed)
        factor = jnp.where(length > 0, lengths(w, summed) / length, 0)
        return (d * factor.astype(d.dtype)).astype(d.dtype)

    return jax.tree.map(one, found, direction, point)


def _check_options(normalize, keep_vectors=False):
    checks.one_of("normalize", normalize, NORMALIZATIONS)
    checks.flag("keep_vectors", keep_vectors)


def _drawn(key, point, draw, axes, names):
    """A tree like the point whose entries are drawn."""
    key = checks.key("key", key)
    check_point("point", point)
    if names is not None:
        checks.function("names", names, takes="a leaf's path")
    leaves, structure = jax.tree.flatten(point)
    if names is None:
        keys = jax.random.split(key, len(leaves))
        drawn = [
            draw(k, jnp.shape(leaf), leaf_dtype(leaf))
            for k, leaf in zip(keys, leaves, strict=True)
        ]
        return jax.tree.unflatten(structure, drawn)
    found = jax.tree.leaves(layers.roles(point, axes))
    layers.check_known(found, "names=")
    called = [names(leaf.path) for leaf in found]
    if twice := sorted({name for name in called if called.count(name) > 1}):
        raise InputError(f"names: several leaves are called {twice[0]!r}")
    drawn = []
    for name, leaf, array in zip(called, found, leaves, strict=True):
        one = jax.random.fold_in(key, zlib.crc32(name.encode()))
        flat = draw(one, (np.size(array),), leaf_dtype(array))
        shape = [leaf.shape[axis] for axis in leaf.canonical]
        drawn.append(flat.reshape(shape).transpose(np.argsort(leaf.canonical)))
    return jax.tree.unflatten(structure, drawn)


def _finished(direction, point, normalize, mask, keep_vectors, axes):
    """Masks, then normalises what is left; refuses a direction of zero."""
    selected = as_mask(mask, point, axes=axes)
    direction = apply_mask(selected, direction)
    if normalize in ("filter", "layer"):
        point = apply_mask(selected, point)
    direction = normalized(
        direction, point, normalize, keep_vectors=keep_vectors, axes=axes
    )
    length = norm(direction)
    if is_concrete(length) and not 0 < float(length) < np.inf:
        raise InputError(
            f"direction has norm {float(length):g}: there is nothing to move along"
            + (
                "; 'filter' and 'layer' set biases and norm scales to 0 unless "
                "keep_vectors=True, and take over the point's own norms"
                if normalize in ("filter", "layer")
                else ""
            )
        )
    return direction
