"""Norms of a batch's activations, which training hands to transformations."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from lrscape import checks


def activation_norms(activations: Any, axis_name: str | None = None) -> dict[str, Any]:
    """Norms of a batch's activations, for `lrscape.transforms.scale_by_lipschitz`.

    Args:
        activations: (n, features), what enters the last layer.
        axis_name: the mapped axis that the batch is split over, if any.

    Returns:
        ``activation_norm``, the Frobenius norm of the whole batch's, and
        ``activation_max``, the largest by magnitude.

    Example:
        >>> found = activation_norms(jnp.array([[3.0, 0.0], [0.0, -4.0]]))
        >>> print(found['activation_norm'], found['activation_max'])
        5.0 4.0
    """
    activations = jnp.asarray(checks.numbers("activations", activations))
    activations = activations.astype(jnp.promote_types(activations.dtype, np.float32))
    squares, largest = jnp.sum(activations**2), jnp.max(jnp.abs(activations))
    if axis_name is not None:
        squares = jax.lax.psum(squares, axis_name)
        largest = jax.lax.pmax(largest, axis_name)
    return {"activation_norm": jnp.sqrt(squares), "activation_max": largest}
