"""Whether last weights are a minimum: the Hessian, less what batch norm hides.

A layer before batch norm computes the same at whatever scale its units' weights have,
and at whatever bias. Along the weights themselves the Hessian therefore is no measure
of a minimum: ``w^T H w = 0`` and ``H w = -g``, so that its least eigenvalue lies below
zero wherever the gradient does not vanish altogether. These directions are left out.
"""

from __future__ import annotations

import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.loss_surfaces.lab import Lab
from experiments.loss_surfaces.networks import Network
from lrscape import landscape
from lrscape.landscape import tree
from lrscape.landscape.eigenpairs import extreme_pairs

# A share of the largest eigenvalue, to which both ends are known; and the products that
# either may take.
TOLERANCE = 1e-3
PRODUCTS = 200


def before_batch_norm(params: Any) -> dict[str, str]:
    """Layers whose units batch norm normalises, each with its batch norm.

    Args:
        params: of a chain of ``Conv`` and then ``Dense`` layers as Flax names them, in
            which ``BatchNorm_n`` follows the layer n.

    Example:
        >>> before_batch_norm({'Conv_0': {}, 'Dense_0': {}, 'Dense_1': {},
        ...                    'BatchNorm_0': {}, 'BatchNorm_1': {}})
        {'Conv_0': 'BatchNorm_0', 'Dense_0': 'BatchNorm_1'}
    """

    def place(name: str) -> tuple[bool, int]:
        return name.startswith("Dense_"), int(re.sub(r"\D", "", name))

    layers = sorted((n for n in params if n.startswith(("Conv_", "Dense_"))), key=place)
    found = {name: f"BatchNorm_{n}" for n, name in enumerate(layers)}
    return {name: norm for name, norm in found.items() if norm in params}


def without_scales(params: Any, vector: Any) -> Any:
    """A vector less its parts along the scales and biases that batch norm hides.

    Args:
        params: where it starts from, see `before_batch_norm`.
        vector: a tree like `params`.

    Returns:
        A tree like `params`: at right angles to each unit's own weights, and without
        the biases of these layers.

    Example:
        >>> params = {'Dense_0': {'kernel': jnp.array([[3.0], [4.0]])},
        ...           'BatchNorm_0': {'scale': jnp.ones(1)}}
        >>> moved = without_scales(params, jax.tree.map(jnp.ones_like, params))
        >>> print(moved['Dense_0']['kernel'].ravel().round(2), moved['BatchNorm_0'])
        [ 0.16 -0.12] {'scale': Array([1.], dtype=float32)}
    """
    made = {name: dict(module) for name, module in vector.items()}
    for name in before_batch_norm(params):
        kernel, part = params[name]["kernel"], made[name]["kernel"]
        axes = tuple(range(kernel.ndim - 1))  # units lie last
        along = jnp.sum(kernel * part, axes, keepdims=True)
        along = along / jnp.sum(kernel**2, axes, keepdims=True)
        made[name]["kernel"] = part - kernel * along
        if "bias" in made[name]:
            made[name]["bias"] = jnp.zeros_like(made[name]["bias"])
    return made


class _Projected:
    """``shift + factor P H P`` of flat vectors, P being `without_scales`."""

    def __init__(self, operator: Any, params: Any):
        self._operator = operator
        self.size, self.dtype, self.to_tree = (
            operator.size, operator.dtype, operator.to_tree,
        )  # fmt: skip
        self.count, self.shift, self.factor = 0, 0.0, 1.0

        @jax.jit
        def project(vector: Any) -> Any:
            return without_scales(params, vector)

        self._project = project

    def __call__(self, vector: jax.Array) -> jax.Array:
        self.count += 1
        moved = self._operator @ self._project(self.to_tree(vector))
        image = self._operator.to_vector(self._project(moved))
        return self.shift * vector + self.factor * image


def ends_of(objective: Any, params: Any) -> dict[str, float]:
    """The Hessian's largest and least eigenvalue, less what batch norm hides.

    The directions that are left out count as flat: the least one is never above zero.

    Args:
        objective: of a network as in `before_batch_norm`, batch norm by batches.
        params: the point.

    Returns:
        ``largest``, ``least``, and ``ratio``, the second over the first; ``residual``,
        by which the least one may be wrong, over the first too.
    """
    matrix = _Projected(landscape.Operator(objective, params), params)
    found = {}
    options: dict[str, Any] = {
        "which": "largest", "tolerance": TOLERANCE, "max_products": PRODUCTS,
    }  # fmt: skip
    top = extreme_pairs(matrix, 1, key=jax.random.key(0), **options)
    found["largest"] = largest = float(top.eigenvalues[0])
    # Shifted by it, the least eigenvalue is known to a share of the largest, whose own
    # size may be nought.
    matrix.shift, matrix.factor = largest, -1.0
    low = extreme_pairs(matrix, 1, key=jax.random.key(1), **options)
    found["least"] = largest - float(low.eigenvalues[0])
    found["ratio"] = found["least"] / largest
    found["residual"] = float(low.residuals[0]) / largest
    return found


def bottom_of(lab: Lab, network: Network) -> dict[str, float]:
    """At the last weights: `ends_of` the Hessian, and the gradient's norm."""
    count = min(lab.plan.curvature[0], len(network.data.train))
    if network.failed():
        return dict.fromkeys(("largest", "least", "ratio", "gradient_norm"), np.nan)

    def make() -> dict[str, float]:
        point = network.final.params
        objective = network.objective(count, lab.plan.batch)
        slope = landscape.loss_gradient(objective, point)
        return {**ends_of(objective, point), "gradient_norm": float(tree.norm(slope))}

    return network.numbers(f"ends-{count}_{lab.plan.batch}", make)
