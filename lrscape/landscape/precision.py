"""Double precision on request."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from lrscape.errors import InputError
from lrscape.landscape.objective import member


def in_double(value: Any) -> Any:
    """A point or an objective in double precision.

    Single precision carries about seven digits, of which a Hessian's small eigenvalues
    and residuals beside a large one need more. On CPU convolutions in double precision
    are many times slower.

    Args:
        value: a point, or an objective that is a pytree (`mean_objective`,
            `flax_objective`), its sample included; the model of the latter computes in
            double precision too, where it has a field ``dtype`` to say so.

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
