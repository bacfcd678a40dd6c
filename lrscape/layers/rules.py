"""The user's roles of leaves: ``axes=`` as a rule, as patterns or as a tree."""

from __future__ import annotations

import fnmatch
import inspect
from collections.abc import Callable, Mapping
from typing import Any

import jax

from lrscape.checks import shown
from lrscape.errors import InputError
from lrscape.layers.leaf import Leaf, is_spec
from lrscape.layers.names import parts_of

FORMS = (
    "an output axis such as -1, several such as (-2, -1), a role such as 'bias', or "
    "lrscape.layers.Axes(outputs=-1, stacked=0)"
)


def specs(axes: Any, point: Any, paths: list[str]) -> list[Any]:
    """The role that `axes` gives each leaf; None where it gives none.

    Args:
        axes: see `lrscape.layers.roles`.
        point: any pytree.
        paths: of its leaves.

    Raises:
        InputError: what cannot be read, a pattern that matches no leaf, two patterns
            that say different things of one, or a tree of another structure.
    """
    leaves = jax.tree.leaves(point)
    if axes is None:
        return [None] * len(paths)
    known = getattr(axes, "leaves", None)
    if isinstance(known, tuple) and all(isinstance(leaf, Leaf) for leaf in known):
        read = {parts_of(leaf.path): leaf.axes for leaf in known}
        return [read.get(parts_of(path)) for path in paths]
    if callable(axes):
        both = takes_leaf(axes)
        found = [
            axes(path, leaf) if both else axes(path)
            for path, leaf in zip(paths, leaves, strict=True)
        ]
    elif isinstance(axes, Mapping) and all(map(is_spec, axes.values())):
        return _matched(axes, paths)
    elif is_spec(axes):
        found = [axes] * len(paths)
    else:
        found = _from_tree(axes, point)
    for path, spec in zip(paths, found, strict=True):
        if not is_spec(spec):
            raise InputError(f"axes: of {path} it says {shown(spec)}; pass {FORMS}")
    return found


def takes_leaf(function: Callable[..., Any]) -> bool:
    """Whether a rule is one of a path and a leaf, not of a path alone."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return False
    needed = [
        p
        for p in parameters
        if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)
        and p.default is p.empty
    ]
    return len(needed) > 1


def _matched(axes: Mapping[str, Any], paths: list[str]) -> list[Any]:
    """What patterns of paths say; a path written out goes before all patterns."""
    found: list[Any] = []
    used: set[str] = set()
    for path in paths:
        plain = "/".join(parts_of(path))
        exact = [p for p in axes if p in (path, plain)]
        loose = [
            p
            for p in axes
            if any(
                fnmatch.fnmatchcase(name, form)
                for name in (path, plain)
                for form in (p, f"*/{p}")
            )
        ]
        used.update(loose, exact)
        chosen = exact or loose
        said = {repr(axes[p]) for p in chosen}
        if len(said) > 1:
            raise InputError(
                f"axes: the patterns {' and '.join(map(repr, chosen))} say different "
                f"things of {path}; name its whole path to decide"
            )
        found.append(axes[chosen[0]] if chosen else None)
    if idle := [p for p in axes if p not in used]:
        raise InputError(
            f"axes: {', '.join(map(repr, idle))} matches no leaf of the point, whose "
            f"leaves are {', '.join(paths)}"
        )
    return found


def _from_tree(axes: Any, point: Any) -> list[Any]:
    structure: Any = jax.tree.structure(point)
    try:
        return structure.flatten_up_to(axes)
    except (ValueError, TypeError, KeyError) as error:
        raise InputError(
            f"axes={shown(axes)} must be a function of a leaf's path, a mapping of "
            f"patterns of paths, or a tree like the point; of each leaf it says "
            f"{FORMS}"
        ) from error
