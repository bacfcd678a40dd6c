"""Programs of training, compiled once for all calls that do the same.

Every call of `lrscape.training.fit` makes a step of its own. Whether two of them do the
same cannot be told from model, transformation and configuration: equal modules may read
a global that has changed since, and two equal transformations share no function. It can
be told from what JAX traces of a step, every operation and constant of it. Tracing
takes a small part of the time of compiling, so a step is traced at its first call, and
a program that was compiled for the same trace is used again.
"""

from __future__ import annotations

import collections
import hashlib
import threading
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.extend.core
import numpy as np

# The least recently used one goes beyond it. A network has one to initialise it, one to
# train and one to evaluate it.
MAX_PROGRAMS = 12
# Larger arrays on a device are told apart by which they are, not by their values.
_COMPARED_BYTES = 2**16


def reusing(
    function: Callable[..., Any],
    compile_function: Callable[[Callable[..., Any]], Callable[..., Any]],
    *,
    axis: tuple[str, int] | None = None,
    about: Any = None,
) -> Callable[..., Any]:
    """A compiled function whose program is an earlier one's, if they do the same.

    Args:
        function: of trees of arrays.
        compile_function: compiles it, such as `jax.jit`.
        axis: where it is mapped over the leading axis of its last argument alone: the
            mapped axis' name and size.
        about: what else a program depends on, hashable: devices, donated arguments.

    Returns:
        The compiled function; it is traced when it is called first.

    Example:
        >>> import jax.numpy as jnp
        >>> [float(reusing(lambda x: 2 * x, jax.jit)(jnp.ones([]))) for _ in range(2)]
        [2.0, 2.0]
    """
    programs: dict[Any, Callable[..., Any]] = {}

    def call(*args: Any) -> Any:
        leaves, structure = jax.tree.flatten(args)
        shapes = structure, tuple(map(_shape_of, leaves))
        if shapes not in programs:
            key = compile_function if axis is None else axis, about, *shapes
            jaxpr, found = _traced(function, axis, args)
            programs[shapes] = _program_of(jaxpr, found, compile_function, key)
        return programs[shapes](*args)

    return call


def forget_programs() -> None:
    """Lets go of all programs that are kept for steps to come."""
    with _lock:
        _kept.clear()


_kept: collections.OrderedDict[Any, Callable[..., Any]] = collections.OrderedDict()
_lock = threading.Lock()


def _traced(function, axis, args) -> tuple[Any, Any]:
    """What a function does to arguments of these shapes, and what comes out."""
    shapes = list(jax.tree.map(_described, args))
    if axis is not None:
        shapes[-1] = jax.tree.map(
            lambda leaf: leaf.update(shape=leaf.shape[1:]), shapes[-1]
        )
    # A function of its own: JAX keeps what it traced for as long as the function is.
    trace = jax.make_jaxpr(
        lambda *args: function(*args),
        axis_env=None if axis is None else [axis],
        return_shape=True,
    )
    return trace(*shapes)


def _program_of(jaxpr, shapes, compile_function, key) -> Callable[..., Any]:
    """A program of this trace: a kept one, or a new one."""
    structure = jax.tree.structure(shapes)
    text = hashlib.sha256(str(jaxpr).encode()).digest()
    key = (*key, structure, text, tuple(_unwritten(jaxpr)))
    with _lock:
        if key not in _kept:
            # Of the trace alone: model, data and transformation are not kept alive.
            apply = jax.extend.core.jaxpr_as_fun(jaxpr)

            def program(*args: Any) -> Any:
                return jax.tree.unflatten(structure, apply(*jax.tree.leaves(args)))

            _kept[key] = compile_function(program)
        _kept.move_to_end(key)
        while len(_kept) > MAX_PROGRAMS:
            _kept.popitem(last=False)
        return _kept[key]


def _shape_of(leaf: Any) -> Any:
    described = jax.typeof(leaf)
    return described.shape, described.dtype, described.weak_type


def _described(leaf: Any) -> jax.ShapeDtypeStruct:
    shape, dtype, weak_type = _shape_of(leaf)
    return jax.ShapeDtypeStruct(shape, dtype, weak_type=weak_type)


# A rule of differentiation says nothing of a program that is not differentiated.
_RULES = ("custom_jvp_call", "custom_vjp_call", "custom_lin")


def _unwritten(value: Any) -> Iterator[Any]:
    """What the text of a trace does not tell: constants, arrays and functions in it."""
    yield from map(_identity_of, getattr(value, "consts", ()))
    for equation in getattr(getattr(value, "jaxpr", value), "eqns", ()):
        named = equation.primitive.name in _RULES
        for parameter in jax.tree.leaves(
            list(equation.params.values()), is_leaf=lambda leaf: hasattr(leaf, "eqns")
        ):
            if hasattr(getattr(parameter, "jaxpr", parameter), "eqns"):
                yield from _unwritten(parameter)
            elif isinstance(parameter, np.ndarray | jax.Array):
                yield _identity_of(parameter)
            elif callable(parameter) and not named:
                yield id(parameter)  # such as a callback; a kept program keeps it


def _identity_of(constant: Any) -> Any:
    """Tells constants apart; a kept program keeps its own alive."""
    if isinstance(constant, jax.Array) and constant.nbytes > _COMPARED_BYTES:
        return id(constant)
    if jax.dtypes.issubdtype(constant.dtype, jax.dtypes.prng_key):
        constant = jax.random.key_data(constant)
    array = np.asarray(constant)
    return array.shape, array.dtype.str, array.tobytes()
