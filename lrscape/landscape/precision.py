"""Double precision on request."""

from __future__ import annotations

import dataclasses
import functools
import types
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from lrscape.errors import InputError
from lrscape.landscape.objective import MeanObjective
from lrscape.landscape.protocol import member


def in_double(value: Any) -> Any:
    """A point or an objective in double precision.

    Single precision carries about seven digits, of which a Hessian's small eigenvalues
    and residuals beside a large one need more. On CPU convolutions in double precision
    are many times slower.

    Args:
        value: a point, or an objective that is a pytree (`mean_objective`,
            `flax_objective`, `text_objective`): its sample, its batch statistics and
            the arrays that its loss function has captured are turned, and a model
            computes in double precision where it has a field ``dtype`` to say so.
            Arrays that a function reads as global variables are not.

    Returns:
        The same, its floating-point arrays as float64.

    Raises:
        InputError: double precision is not enabled, or something that is no pytree of
            arrays, such as a function.

    Example:
        >>> with jax.enable_x64(True):
        ...     point = in_double({'w': jnp.ones(3, jnp.float32)})
        >>> print(point['w'].dtype)
        float64
    """
    if jax.dtypes.canonicalize_dtype(np.float64) != np.float64:
        raise InputError(
            "double precision is not enabled: compute within "
            "`with jax.enable_x64(True):`, or set JAX_ENABLE_X64=1"
        )
    if (in_float64 := member(value, "with_float64_model")) is not None:
        value = in_float64()
    if isinstance(value, MeanObjective):
        function = _with_double_captured(value.loss_fn, ())
        value = dataclasses.replace(value, loss_fn=function)

    def double(leaf: Any) -> Any:
        if not hasattr(leaf, "dtype") and not isinstance(leaf, float | int | bool):
            raise InputError(
                f"value holds a {type(leaf).__name__}: only arrays, and objectives "
                "that are pytrees of them, can be turned into double precision"
            )
        dtype = leaf.dtype if hasattr(leaf, "dtype") else jnp.result_type(leaf)
        if jnp.issubdtype(dtype, jnp.floating):
            return jnp.asarray(leaf, jnp.float64)
        return leaf

    return jax.tree.map(double, value)


def double_model(model: Any) -> Any:
    """A Linen module that computes in double precision, where it has a field to say so.

    Modules that it holds as fields are turned as well. A ``dtype`` of None stays: Flax
    then computes in what parameters and inputs are.
    """
    import flax.linen as nn

    changes: dict[str, Any] = {}
    for name in model.__dataclass_fields__:
        field = getattr(model, name, None)
        if name in ("parent", "name"):
            continue
        if isinstance(field, nn.Module):
            changes[name] = double_model(field)
        elif name == "dtype" and field is not None:
            changes[name] = "float64" if isinstance(field, str) else jnp.float64
    return model.clone(**changes) if changes else model


def _with_double_captured(function: Any, outer: tuple[int, ...]) -> Any:
    """A function whose captured arrays are in double precision; itself without any."""
    if id(function) in outer:
        return function  # it calls itself
    outer = (*outer, id(function))

    def double(value: Any) -> Any:
        if isinstance(value, types.FunctionType | functools.partial):
            return _with_double_captured(value, outer)
        if isinstance(value, np.ndarray | jax.Array):
            single = jnp.issubdtype(value.dtype, jnp.floating)
            is_double = value.dtype == np.float64
            return (
                jnp.asarray(value, jnp.float64) if single and not is_double else value
            )
        if isinstance(value, dict | list | tuple):
            leaves, structure = jax.tree.flatten(value)
            turned = [double(leaf) for leaf in leaves]
            if any(a is not b for a, b in zip(leaves, turned, strict=True)):
                return jax.tree.unflatten(structure, turned)
        return value

    if isinstance(function, functools.partial):
        parts = (function.func, function.args, function.keywords)
        inner, args, keywords = turned = tuple(map(double, parts))
        if all(a is b for a, b in zip(parts, turned, strict=True)):
            return function
        return functools.partial(inner, *args, **keywords)
    if not isinstance(function, types.FunctionType):
        return function
    cells, is_changed = [], False
    for cell in function.__closure__ or ():
        try:
            value = cell.cell_contents
        except ValueError:  # nothing is assigned to it yet
            cells.append(cell)
            continue
        turned = double(value)
        is_changed |= turned is not value
        cells.append(types.CellType(turned) if turned is not value else cell)
    if not is_changed:
        return function
    copy = types.FunctionType(
        function.__code__, function.__globals__, function.__name__,
        function.__defaults__, tuple(cells),
    )  # fmt: skip
    copy.__kwdefaults__ = function.__kwdefaults__
    return functools.update_wrapper(copy, function)
