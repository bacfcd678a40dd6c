"""The precision in which matrix products and convolutions are computed.

An accelerator may round their inputs to fewer digits than an array has: on recent GPUs
JAX takes TF32, of ten bits, for float32. A barrier is a difference of two losses that
agree in most of their digits, so what is measured takes every digit; what is trained
may take fewer.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar

import jax

Function = TypeVar("Function", bound=Callable[..., Any])

# Of everything that is measured: losses, barriers, gradients, curvature.
MEASURED = "float32"
# Those that may be asked for in training, as `jax.default_matmul_precision` names them.
PRECISIONS = ("bfloat16", "tensorfloat32", "float32")


def with_precision(function: Function, precision: str | None = MEASURED) -> Function:
    """A function whose products of float32 arrays are computed in a precision.

    Args:
        function: traced or called.
        precision: one of `PRECISIONS`; None: JAX's own choice on the device. Arrays in
            double or half precision are not touched by it.

    Example:
        >>> name = 'jax_default_matmul_precision'
        >>> with_precision(lambda: getattr(jax.config, name))()
        'float32'
    """
    if precision is None:
        return function

    @functools.wraps(function)
    def within(*args: Any, **kwargs: Any) -> Any:
        with jax.default_matmul_precision(precision):
            return function(*args, **kwargs)

    return within  # type: ignore[return-value]
