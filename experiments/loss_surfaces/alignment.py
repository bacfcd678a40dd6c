"""Hidden units put in the order of another network's, by matching weights."""

from __future__ import annotations

import itertools
import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from scipy.optimize import linear_sum_assignment

from lrscape.errors import InputError
from lrscape.layers import Leaf, roles

# Passes over the layers, at the most; it stops where nothing changes.
PASSES = 20


def aligned(params: Any, to: Any) -> Any:
    """A network's parameters, its hidden units in the order nearest to another's.

    The network computes what it did before: a layer's units are permuted along with the
    next layer's inputs. Layer after layer, the permutation that brings the weights
    nearest is found exactly while the others are held (coordinate descent).

    Args:
        params: of a chain of ``Dense`` and ``Conv`` layers, as Flax names them, with
            ``BatchNorm`` after each or after none of the hidden ones.
        to: likewise.

    Returns:
        A tree like `params`.

    Raises:
        InputError: other modules, or a layer that does not take the one before it unit
            by unit. Branches cannot be seen in parameters: it is for the caller to
            know that the layers are a chain, in the order of their numbers.

    Example:
        >>> one = {'Dense_0': {'kernel': jnp.eye(3), 'bias': jnp.arange(3.0)},
        ...        'Dense_1': {'kernel': jnp.arange(6.0).reshape(3, 2),
        ...                    'bias': jnp.zeros(2)}}
        >>> order = jnp.array([2, 0, 1])
        >>> other = {'Dense_0': {'kernel': jnp.eye(3)[:, order],
        ...                      'bias': jnp.arange(3.0)[order]},
        ...          'Dense_1': {'kernel': one['Dense_1']['kernel'][order],
        ...                      'bias': jnp.zeros(2)}}
        >>> print(aligned(other, one)['Dense_0']['bias'])
        [0. 1. 2.]

    References:
        Ainsworth et al., `Git Re-Basin: Merging Models modulo Permutation Symmetries
        <https://arxiv.org/abs/2209.04836>`_, 2022, Sec. 3.2
    """
    layers = chain(params)
    moved = _own(params)
    target = _own(to)
    for _ in range(PASSES):
        changed = False
        for n in range(len(layers) - 1):
            similar = _similarity(moved, target, layers, n)
            _, order = linear_sum_assignment(similar, maximize=True)
            if (order != np.arange(len(order))).any():
                changed = True
                _permute(moved, layers, n, order)
        if not changed:
            break
    return jax.tree.map(
        lambda new, old: jnp.asarray(new, old.dtype), moved, _plain(params)
    )


def chain(params: Any) -> list[str]:
    """The layers' names from input to output.

    Raises:
        InputError: see `aligned`.
    """
    layers = [
        name
        for kind in ("Conv", "Dense")
        for name in sorted((n for n in params if n.startswith(f"{kind}_")), key=_number)
    ]
    norms = [name for name in params if name.startswith("BatchNorm_")]
    known = len(layers) + len(norms) == len(params)
    if not known or len(norms) not in (0, len(layers) - 1, len(layers)):
        raise InputError(
            f"params have the modules {', '.join(params)}; units can be matched in a "
            "chain of Conv and Dense layers with batch norm after each"
        )
    for leaf in jax.tree.leaves(roles(params)):
        if leaf.stacked or (leaf.role == "kernel" and leaf.outputs != (_last(leaf),)):
            raise InputError(
                f"{leaf.path} of shape {leaf.shape} is {leaf.pattern}: units can be "
                "matched where each layer has an array of its own, outputs last"
            )
    for one, after in itertools.pairwise(layers):
        width = params[one]["kernel"].shape[-1]
        if params[after]["kernel"].shape[-2] != width:
            raise InputError(
                f"{after} takes {params[after]['kernel'].shape[-2]} inputs and {one} "
                f"gives {width}: units can be matched where each is one input"
            )
    return layers


def _last(leaf: Leaf) -> int:
    return len(leaf.shape) - 1


def _number(name: str) -> int:
    return int(re.sub(r"\D", "", name))


def _plain(tree: Any) -> dict[str, dict[str, Any]]:
    return {name: dict(module) for name, module in tree.items()}


def _own(tree: Any) -> dict[str, dict[str, np.ndarray]]:
    return {
        name: {k: np.array(v, np.float64) for k, v in module.items()}
        for name, module in tree.items()
    }


def _units(params: Any, layers: list[str], n: int) -> list[dict[str, np.ndarray]]:
    """What belongs to a layer's units: the layer itself, and its batch norm."""
    norm = f"BatchNorm_{n}"
    return [params[layers[n]], *([params[norm]] if norm in params else [])]


def _similarity(moved: Any, target: Any, layers: list[str], n: int) -> np.ndarray:
    """(units of the target, units of the moved), inner products of their weights."""
    total: Any = 0.0
    for ours, theirs in zip(
        _units(moved, layers, n), _units(target, layers, n), strict=True
    ):
        for name, mine in ours.items():
            width = mine.shape[-1]
            total = total + theirs[name].reshape(-1, width).T @ mine.reshape(-1, width)
    # What comes next reads them by its inputs, the axis before the last.
    after = (params[layers[n + 1]]["kernel"] for params in (target, moved))
    wanted, have = (np.moveaxis(k, -2, 0).reshape(k.shape[-2], -1) for k in after)
    return total + wanted @ have.T


def _permute(params: Any, layers: list[str], n: int, order: np.ndarray) -> None:
    for module in _units(params, layers, n):
        for name in module:
            module[name] = module[name][..., order]
    after = params[layers[n + 1]]
    after["kernel"] = after["kernel"][..., order, :]
