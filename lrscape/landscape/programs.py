"""Compiled programs of objectives: reused while they may be, and then let go.

`jax.jit` keeps a program for as long as the function that was compiled. The functions
that are compiled here are this library's own, so they never go, and a loss function is
part of the *structure* of their arguments: with `jax.jit` alone every new loss function
would leave its programs behind for good, about 3 MB and some 40 memory mappings each,
until Linux refuses the process another mapping. `jit_objectives` keeps a program until
a loss function in its arguments is garbage, and no more than `MAX_PROGRAMS` of them.
"""

from __future__ import annotations

import collections
import copy
import functools
import threading
import types
import weakref
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from lrscape.matmul import with_precision

# Of all decorated functions together; beyond it the least recently used one goes.
MAX_PROGRAMS = 64


class HoldsFunctions:
    """Base of objectives: what has functions, such as a loss, among its attributes.

    `jit_objectives` holds those functions weakly.
    """


def jit_objectives(
    function: Callable[..., Any] | None = None,
    *,
    static_argnums: tuple[int, ...] = (),
    donate_argnums: tuple[int, ...] = (),
) -> Callable[..., Any]:
    """`jax.jit` for a function of objectives, whose programs do not pile up.

    A program is reused for arguments of the same structure, shapes and static values:
    for the same loss function on other examples, at other points. It is let go when a
    loss function that it was compiled for is garbage, or when `MAX_PROGRAMS` others
    have been used since.

    Args:
        function: called with positional arguments, any of which may be an objective,
            or a subspace that is a function as a ``jax.tree_util.Partial``.
        static_argnums: as of `jax.jit`; functions among them are held weakly too.
        donate_argnums: as of `jax.jit`.

    Returns:
        The compiled function, or without `function` a decorator. An objective that it
        returns holds its functions as usual.

    Example:
        >>> import jax.numpy as jnp
        >>> from lrscape.landscape import mean_objective
        >>> @jit_objectives
        ... def first_loss(objective, point):
        ...     return objective.batch_loss(point, objective.batch(0))
        >>> objective = mean_objective(
        ...     lambda w, x: w * x.sum(), jnp.arange(4.0), batch_size=2)
        >>> print(first_loss(objective, jnp.float32(2)))
        2.0
    """
    if function is None:
        return functools.partial(
            jit_objectives, static_argnums=static_argnums, donate_argnums=donate_argnums
        )
    owner = object()  # no two decorated functions share a program

    @functools.wraps(function)
    def call(*args: Any) -> Any:
        held: dict[_WeakFunction, Any] = {}
        args = tuple(_weakly(value, held) for value in args)
        static = tuple(args[i] for i in static_argnums)
        leaves, structure = jax.tree.flatten(
            [value for i, value in enumerate(args) if i not in static_argnums]
        )
        key = (owner, static, structure, tuple(map(_shape_of, leaves)))
        program = _programs.get(key)
        if program is None:
            program = _add(key, held, function, static_argnums, donate_argnums)
        found = program(*args)
        return _strongly(found, held) if isinstance(found, HoldsFunctions) else found

    return call


def once_a_shape(function: Callable[..., Any]) -> Callable[..., Any]:
    """Calls a function of shapes once for trees of the same structure and shapes.

    For what is learnt by tracing a model, which takes as long as a small batch.

    Args:
        function: of trees whose leaves are `jax.ShapeDtypeStruct`; gives something that
            does not change. Functions in the trees are not kept alive, see
            `jit_objectives`.
    """

    @functools.lru_cache(maxsize=64)
    def cached(structure: Any, shapes: tuple) -> Any:
        return function(*jax.tree.unflatten(structure, shapes))

    def call(*trees: Any) -> Any:
        held: dict[_WeakFunction, Any] = {}
        leaves, structure = jax.tree.flatten([_weakly(tree, held) for tree in trees])
        shapes = [
            jax.ShapeDtypeStruct(jnp.shape(x), jnp.result_type(x)) for x in leaves
        ]
        return cached(structure, tuple(shapes))

    return call


def num_programs() -> int:
    """The number of argument structures that have a compiled program now."""
    return len(_programs)


def _add(key, held, function, static_argnums, donate_argnums) -> Callable[..., Any]:
    """Compiles for a new structure, in place of the one not used for the longest."""

    # A function of its own for each structure: JAX's programs go with it.
    @functools.wraps(function)
    def own(*args: Any) -> Any:
        return function(*args)

    own = with_precision(own)
    program = jax.jit(own, static_argnums=static_argnums, donate_argnums=donate_argnums)
    _programs.add(key, program, [one.reference for one in held])
    return program


def _shape_of(leaf: Any) -> Any:
    if hasattr(leaf, "shape"):
        return leaf.shape, leaf.dtype
    return type(leaf)


class _Programs:
    """Programs by key, the most recently used last."""

    def __init__(self) -> None:
        self._entries: collections.OrderedDict[Any, Any] = collections.OrderedDict()
        # A garbage collection may call `discard` amid any other method.
        self._lock = threading.RLock()

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, key: Any) -> Callable[..., Any] | None:
        with self._lock:
            entry = self._entries.get(key)
            if entry is None:
                return None
            self._entries.move_to_end(key)
            return entry[0]

    def add(self, key: Any, program: Any, references: list[_Reference]) -> None:
        with self._lock:
            self._entries[key] = program, references
            for reference in references:
                reference.keys.add(key)
            while len(self._entries) > MAX_PROGRAMS:
                self.discard(next(iter(self._entries)))

    def discard(self, key: Any) -> None:
        with self._lock:
            _, references = self._entries.pop(key, (None, ()))
            for reference in references:
                reference.keys.discard(key)


_programs = _Programs()


# Functions that are held weakly.

# Compared by identity. What defines an equality of its own (a bound method, a Linen
# module) may be made anew for every call, and equal the one before: it is held until
# its programs are the least recently used ones.
_FUNCTIONS = (types.FunctionType, functools.partial, type(jax.jit(lambda: None)))


class _Reference(weakref.ref):
    """A weak reference to a function that knows the function's programs."""

    __slots__ = ("keys",)
    keys: set[Any]


# The programs as a default: at the interpreter's end a module's names go first.
def _let_go(reference: _Reference, programs: _Programs = _programs) -> None:
    """Drops the programs of a function that has just become garbage."""
    while reference.keys:
        programs.discard(reference.keys.pop())


class _WeakFunction:
    """Stands for a function without keeping it alive; equal to itself alone.

    It is called while a program is traced, when the caller holds the function.
    """

    def __init__(self, function: Callable[..., Any]):
        self.reference = _Reference(function, _let_go)
        self.reference.keys = set()

    @property
    def function(self) -> Callable[..., Any]:
        """The function itself.

        Raises:
            ReferenceError: it is garbage.
        """
        function = self.reference()
        if function is None:
            raise ReferenceError("the function that was compiled for is garbage")
        return function

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.function(*args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.function, name)


_weak_functions: weakref.WeakKeyDictionary[Any, _WeakFunction] = (
    weakref.WeakKeyDictionary()
)


def _weakly(value: Any, held: dict[_WeakFunction, Any]) -> Any:
    """A value that keeps no function alive that is compared by identity.

    Args:
        value: a function, an objective, or a Partial; anything else stays as it is:
            points come back as results, and are the caller's own.
        held: is added what stands for each function, and the function itself; None
            where it was held weakly before, by a program that is being traced.
    """
    if isinstance(value, _WeakFunction):
        held.setdefault(value, None)
    elif isinstance(value, HoldsFunctions):
        weak = {name: _weakly(field, held) for name, field in vars(value).items()}
        return _changed(value, weak)
    elif isinstance(value, jax.tree_util.Partial):
        function = _weakly(value.func, held)
        if function is not value.func:
            return jax.tree_util.Partial(function, *value.args, **value.keywords)
    elif isinstance(value, _FUNCTIONS):
        found = _weak_functions.get(value)
        if found is None:
            found = _weak_functions.setdefault(value, _WeakFunction(value))
        held[found] = value
        return found
    return value


def _strongly(
    objective: HoldsFunctions, held: dict[_WeakFunction, Any]
) -> HoldsFunctions:
    """An objective whose functions are held again, but for those that were weak."""

    def one(field: Any) -> Any:
        if isinstance(field, _WeakFunction):
            return held.get(field) or field
        return _strongly(field, held) if isinstance(field, HoldsFunctions) else field

    return _changed(
        objective, {name: one(field) for name, field in vars(objective).items()}
    )


def _changed(objective: HoldsFunctions, fields: dict[str, Any]) -> HoldsFunctions:
    if all(fields[name] is field for name, field in vars(objective).items()):
        return objective
    # Copied, not made anew: its class may check or convert what it is made of.
    objective = copy.copy(objective)
    for name, field in fields.items():
        object.__setattr__(objective, name, field)
    return objective
