"""Products with curvature matrices over a whole sample, in any batch-norm mode.

None of them is ever formed: each is a function of a vector, added up batch by batch.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from lrscape.errors import InputError
from lrscape.landscape import tree
from lrscape.landscape.accumulate import accumulate, batch_gradient
from lrscape.landscape.masks import Mask, apply_mask, as_mask
from lrscape.landscape.protocol import (
    as_objective,
    check_traceable,
    is_traceable,
    member,
    scalar_loss,
)


def hvp(objective: Any, point: Any, vector: Any, *, mask: Mask = None) -> Any:
    r"""The product of the loss's Hessian and a vector.

    .. math:: \nabla^2 L(\theta)\, v

    by forward over reverse mode, over the whole sample; an L2 term that the objective
    has is part of the loss.

    Args:
        objective: an objective, or a function of a point.
        point: :math:`\theta`.
        vector: v, a tree like the point.
        mask: restricts the Hessian to the block of the entries that it selects.

    Returns:
        A tree like the point.

    Raises:
        InputError: a vector of another structure or shapes.

    Example:
        >>> A = jnp.array([[2.0, 1.0], [1.0, 3.0]])
        >>> print(hvp(lambda w: w @ A @ w / 2, jnp.ones(2), jnp.array([1.0, 0.0])))
        [2. 1.]

    References:
        Pearlmutter, `Fast Exact Multiplication by the Hessian
        <https://doi.org/10.1162/neco.1994.6.1.147>`_, 1994
    """
    return _product(_batch_hvp, objective, point, vector, mask)


def ggnvp(objective: Any, point: Any, vector: Any, *, mask: Mask = None) -> Any:
    r"""The product of the generalised Gauss-Newton matrix and a vector.

    .. math:: \frac{1}{N} \sum_n J_n^T\, \nabla^2_f \ell_n\, J_n\, v

    with :math:`J_n` the derivative of the n-th example's outputs. For softmax
    cross-entropy it is the Fisher matrix; for a linear model it is the Hessian. An L2
    term that the objective has is added.

    Args:
        objective: one that shows ``outputs`` and ``output_loss``, as
            `lrscape.landscape.flax_objective` does.
        point: :math:`\theta`.
        vector: v, a tree like the point.
        mask: restricts the matrix to the block of the entries that it selects.

    Returns:
        A tree like the point.

    Raises:
        InputError: an objective without outputs, or a vector of another structure.

    References:
        Schraudolph, `Fast Curvature Matrix-Vector Products for Second-Order Gradient
        Descent <https://doi.org/10.1162/08997660260028683>`_, 2002
    """
    objective = _with_outputs(objective)
    return _product(_batch_ggnvp, objective, point, vector, mask)


def second_moment_product(
    objective: Any,
    point: Any,
    vector: Any,
    *,
    centered: bool = False,
    mask: Mask = None,
) -> Any:
    r"""The product of the second moment of per-example gradients and a vector.

    .. math::

        \frac{1}{N} \sum_n g_n g_n^T v, \quad \text{centred:} \quad
        \frac{1}{N} \sum_n (g_n - \bar g) (g_n - \bar g)^T v

    With batch norm in train mode, :math:`g_n` is the gradient of the n-th example's
    loss within its batch.

    Args:
        objective: made by `lrscape.landscape.flax_objective`, or by `mean_objective`;
            a batch of the latter is taken apart into examples. An L2 term is left out.
        point: :math:`\theta`.
        vector: v, a tree like the point.
        centered: subtract the mean gradient: the covariance of SGD's noise.
        mask: restricts the matrix to the block of the entries that it selects.

    Returns:
        A tree like the point.

    Raises:
        InputError: a bare function, which has no examples, or a vector of another
            structure.

    Example:
        >>> from lrscape.landscape import mean_objective
        >>> objective = mean_objective(
        ...     lambda w, x: jnp.mean(w * x), jnp.array([1.0, 3.0]), batch_size=1)
        >>> v = jnp.float32(1)
        >>> print(second_moment_product(objective, v, v),
        ...     second_moment_product(objective, v, v, centered=True))
        5.0 1.0

    References:
        Xing et al., `A Walk with SGD <https://arxiv.org/abs/1802.08770>`_, 2018, Eq. 2
        (centred) and Eq. 3 (not centred)
    """
    objective = _with_examples(objective)
    product = _product(_batch_second_moment, objective, point, vector, mask)
    if not centered:
        return product
    selected = as_mask(mask, point)
    mean = apply_mask(selected, accumulate(_batch_mean_gradient, objective, point))
    along = tree.dot(mean, apply_mask(selected, vector))
    return tree.combine([1, -along], [product, mean])


def residual_product(objective: Any, point: Any, vector: Any, *, mask: Mask = None):
    r"""The product of what the second moment leaves of the Hessian, and a vector.

    .. math::

        \nabla^2 L = \frac{1}{N} \sum_n g_n g_n^T
            - \frac{1}{N} \sum_n \frac{\nabla^2 p_n}{p_n},
        \qquad \ell_n = -\log p_n

    This is the second term, computed by itself.

    Args:
        objective: as for `second_moment_product`, its loss a negative log-likelihood.
        point: :math:`\theta`.
        vector: v, a tree like the point.
        mask: restricts the matrix to the block of the entries that it selects.

    Returns:
        A tree like the point.

    Raises:
        InputError: as `second_moment_product`.

    References:
        Xing et al., `A Walk with SGD <https://arxiv.org/abs/1802.08770>`_, 2018, Eq. 3
    """
    objective = _with_examples(objective)
    return _product(_batch_residual, objective, point, vector, mask)


# Each batch's share.


def _own_or(kind: str, default: Callable[..., Any]) -> Callable[..., Any]:
    """A batch's share of a product: the objective's own way, or JAX's."""

    @functools.wraps(default)
    def share(objective, point, batch, vector):
        if (own := member(objective, "batch_product")) is not None:
            product = own(kind, point, batch, vector)
            if product is not NotImplemented:
                return product
        check_traceable(objective, f"product of kind {kind!r}")
        return default(objective, point, batch, vector)

    return share


def _hessian_share(objective, point, batch, vector):
    def slope(p):
        return batch_gradient(objective, p, batch)

    return jax.jvp(slope, (point,), (vector,))[1]


def _ggn_share(objective, point, batch, vector):
    def outputs_of(p):
        return objective.outputs(p, batch)

    def slope(outputs):
        return jax.grad(lambda o: objective.output_loss(o, batch))(outputs)

    outputs, pull = jax.vjp(outputs_of, point)
    moved = jax.jvp(outputs_of, (point,), (vector,))[1]
    (product,) = pull(jax.jvp(slope, (outputs,), (moved,))[1])
    if (penalty := member(objective, "penalty")) is None:
        return product
    added = jax.jvp(jax.grad(penalty), (point,), (vector,))[1]
    return jax.tree.map(jnp.add, product, added)


def _second_moment_share(objective, point, batch, vector):
    losses, pull = jax.vjp(lambda p: _example_losses(objective, p, batch), point)
    along = jax.jvp(lambda p: _example_losses(objective, p, batch), (point,), (vector,))
    (product,) = pull(along[1] / jnp.asarray(len(losses), losses.dtype))
    return product


def _batch_mean_gradient(objective, point, batch):
    if not is_traceable(objective):
        return batch_gradient(objective, point, batch)
    return jax.grad(lambda p: jnp.mean(_example_losses(objective, p, batch)))(point)


def _residual_share(objective, point, batch, vector):
    def ratio(p):
        losses = _example_losses(objective, p, batch)
        # p_n / p_n, of which the numerator alone is differentiated.
        return -jnp.mean(jnp.exp(jax.lax.stop_gradient(losses) - losses))

    return jax.jvp(jax.grad(ratio), (point,), (vector,))[1]


def _example_losses(objective, point, batch):
    """The loss of each example of a batch, (n,)."""
    if (losses_of := member(objective, "example_losses")) is not None:
        return losses_of(point, batch)

    def one(example):
        alone = jax.tree.map(lambda leaf: leaf[None], example)
        return scalar_loss(objective.batch_loss(point, alone))

    return jax.vmap(one)(batch)


_batch_hvp = _own_or("hessian", _hessian_share)
_batch_ggnvp = _own_or("ggn", _ggn_share)
_batch_second_moment = _own_or("second_moment", _second_moment_share)
_batch_residual = _own_or("residual", _residual_share)


# Checks.


def _product(function, objective, point, vector, mask):
    objective = as_objective(objective)
    tree.check_alike({"point": point, "vector": vector})
    # Vectors come in whatever precision, and from NumPy.
    vector = jax.tree.map(
        lambda leaf, p: jnp.asarray(leaf, tree.leaf_dtype(p)), vector, point
    )
    selected = as_mask(mask, point)
    product = accumulate(function, objective, point, apply_mask(selected, vector))
    return apply_mask(selected, product)


def _with_outputs(objective: Any) -> Any:
    objective = as_objective(objective)
    needed = ("outputs", "output_loss")
    if any(member(objective, name) is None for name in needed):
        raise InputError(
            "objective has no outputs, which the Gauss-Newton matrix is made of: pass "
            "one made by flax_objective, or an object with outputs(point, batch) and "
            "output_loss(outputs, batch)"
        )
    return objective


def _with_examples(objective: Any) -> Any:
    objective = as_objective(objective)
    batch = objective.batch(0)
    if not jax.tree.leaves(batch):
        raise InputError(
            "objective is a function without examples, so that there are no gradients "
            "of each: make it by mean_objective or flax_objective"
        )
    return objective


def _same(objective: Any) -> Any:
    return objective


KINDS: dict[str, tuple[Callable[..., Any], Callable[[Any], Any]]] = {
    "hessian": (_batch_hvp, _same),
    "ggn": (_batch_ggnvp, _with_outputs),
    "second_moment": (_batch_second_moment, _with_examples),
    "residual": (_batch_residual, _with_examples),
}
