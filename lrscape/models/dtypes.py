"""What layers may compute in, by name."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from lrscape.errors import unknown_name

DTYPES = ("float32", "bfloat16", "float64")


def check_dtype(dtype: str) -> None:
    """Refuses what is not in `DTYPES`.

    Raises:
        InputError: another name.
    """
    if dtype not in DTYPES:
        raise unknown_name("dtype", dtype, DTYPES)


def wide(x: jax.Array) -> jax.Array:
    """As float32 at the least: what a last layer computes in, whatever others do."""
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))
