"""Products with curvature matrices over a whole sample, in any batch-norm mode.

None of them is ever formed: each is a function of a vector, added up batch by batch.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from lrscape.errors import InputError, unknown_name
from lrscape.landscape import tree
from lrscape.landscape.accumulate import (
    accumulate,
    is_compilable,
    scalar_loss,
    sums_over_examples,
)
from lrscape.landscape.mask import Mask, apply_mask, as_mask
from lrscape.landscape.objective import as_objective


class NonFiniteProductError(ArithmeticError):
    """A product with a curvature matrix that is not finite.

    Attributes:
        batch: the first batch whose share is not finite, counted from 0; None where
            every share is finite and their sum is not.
    """

    def __init__(self, batch: int | None, count: int):
        where = "only in the sum" if batch is None else f"first in batch {batch}"
        super().__init__(
            f"the product is not finite, {where} of {count}; look at that batch's loss "
            "at the point, or compute in double precision"
        )
        self.batch = batch


def hvp(objective: Any, point: Any, vector: Any, *, mask: Mask = None) -> Any:
    r"""The product of the loss's Hessian and a vector.

    .. math:: \nabla^2 L(\theta)\, v

    by forward over reverse mode, over the whole sample; an L2 term that the objective
    has is part of the loss.

    Args:
        objective: an objective, or a function of a point.
        point: :math:`\theta`.
        vector: v, a tree like the point.
        mask: restricts the Hessian to a block; see `lrscape.landscape.as_mask`.

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
        mask: restricts the matrix to a block.

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
        mask: restricts the matrix to a block.

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
        mask: restricts the matrix to a block.

    Returns:
        A tree like the point.

    Raises:
        InputError: as `second_moment_product`.

    References:
        Xing et al., `A Walk with SGD <https://arxiv.org/abs/1802.08770>`_, 2018, Eq. 3
    """
    objective = _with_examples(objective)
    return _product(_batch_residual, objective, point, vector, mask)


class Operator:
    """A symmetric matrix as a function of flat vectors, for many products at a point.

    Attributes:
        size: rows, after the mask.
        dtype: of its vectors.
        count: products made so far.
    """

    def __init__(
        self,
        objective: Any,
        point: Any,
        *,
        kind: str = "hessian",
        mask: Mask = None,
        reuse: bool | None = None,
    ):
        """Gets ready; the products are compiled by the first one.

        Args:
            objective: an objective, or a function of a point.
            point: where the matrix is taken.
            kind: a name in `KINDS`.
            mask: restricts the matrix to a block: vectors hold its entries alone.
            reuse: keep each batch's linearisation, so that a product costs no forward
                pass: on CPU two thirds of the time for a convolutional network, for
                0.6 to 0.9 GB for 128 images of ResNet-20. None: where the sample is a
                single batch and the matrix is the Hessian.

        Raises:
            InputError: an unknown kind, or a mask that selects nothing.
        """
        if kind not in KINDS:
            raise unknown_name("kind", kind, KINDS)
        tree.check_point("point", point)
        self._objective = KINDS[kind][1](as_objective(objective))
        self._function = KINDS[kind][0]
        self._point = jax.tree.map(jnp.asarray, point)
        selected = as_mask(mask, self._point)
        leaves = jax.tree.leaves(self._point)
        self._shapes = [leaf.shape for leaf in leaves]
        self._structure: Any = jax.tree.structure(self._point)
        self._dtypes = [leaf.dtype for leaf in leaves]
        self.dtype = max(self._dtypes, key=lambda d: d.itemsize)
        total = sum(leaf.size for leaf in leaves)
        self._entries = None
        if selected is not None:
            flat = np.concatenate(
                [np.ravel(leaf) for leaf in jax.tree.leaves(selected)]
            )
            self._entries = jnp.asarray(np.flatnonzero(flat))
        self.size = total if self._entries is None else len(self._entries)
        self._total = total
        compilable = is_compilable(self._objective)
        if reuse is None:
            reuse = compilable and self._objective.num_batches == 1
        self._linear = None
        if reuse and kind == "hessian" and compilable:
            self._linear = _linearized(self._objective, self._point)
        self.count = 0

    def to_tree(self, vector: jax.Array) -> Any:
        """A flat vector as a tree like the point; zero where the mask is."""
        if self._entries is not None:
            full = jnp.zeros(self._total, vector.dtype)
            vector = full.at[self._entries].set(vector)
        leaves, start = [], 0
        for shape, dtype in zip(self._shapes, self._dtypes, strict=True):
            size = int(np.prod(shape))
            leaves.append(vector[start : start + size].reshape(shape).astype(dtype))
            start += size
        return jax.tree.unflatten(self._structure, leaves)

    def to_vector(self, point: Any) -> jax.Array:
        """A tree like the point as a flat vector."""
        leaves = [leaf.ravel().astype(self.dtype) for leaf in jax.tree.leaves(point)]
        flat = jnp.concatenate(leaves)
        return flat if self._entries is None else flat[self._entries]

    def __call__(self, vector: jax.Array) -> jax.Array:
        """The product with a flat vector, (size,).

        Raises:
            NonFiniteProductError: the product is not finite.
        """
        self.count += 1
        direction = self.to_tree(vector)
        product = self._apply(direction)
        flat = self.to_vector(product)
        if tree.is_concrete(flat) and not bool(jnp.isfinite(flat).all()):
            raise NonFiniteProductError(
                self._bad_batch(direction), self._objective.num_batches
            )
        return flat

    def traced(self, vector: jax.Array) -> jax.Array:
        """The product as part of a compiled program, unchecked."""
        product = accumulate(
            self._function, self._objective, self._point, self.to_tree(vector)
        )
        return self.to_vector(product)

    def runs_apart(self) -> bool:
        """Whether products are faster one by one than within a compiled loop."""
        if not is_compilable(self._objective):
            return True
        direction = self.to_tree(jnp.zeros(self.size, self.dtype))
        return sums_over_examples(
            self._function, self._objective, self._point, (direction,)
        )

    def _apply(self, direction: Any) -> Any:
        if self._linear is None:
            return accumulate(self._function, self._objective, self._point, direction)
        total = None
        for weight, linear in zip(self._objective.weights, self._linear, strict=True):
            total = _add_linear(total, np.float64(weight), linear, direction)
        return total

    def _bad_batch(self, direction: Any) -> int | None:
        objective = self._objective.at(self._point)
        for i in range(objective.num_batches):
            share = self._function(
                objective, self._point, objective.batch(i), direction
            )
            if not all(bool(jnp.isfinite(x).all()) for x in jax.tree.leaves(share)):
                return i
        return None


# Each batch's share.


def _batch_hvp(objective, point, batch, vector):
    def slope(p):
        return jax.grad(lambda q: scalar_loss(objective.batch_loss(q, batch)))(p)

    return jax.jvp(slope, (point,), (vector,))[1]


def _batch_ggnvp(objective, point, batch, vector):
    def outputs_of(p):
        return objective.outputs(p, batch)

    def slope(outputs):
        return jax.grad(lambda o: objective.output_loss(o, batch))(outputs)

    outputs, pull = jax.vjp(outputs_of, point)
    moved = jax.jvp(outputs_of, (point,), (vector,))[1]
    (product,) = pull(jax.jvp(slope, (outputs,), (moved,))[1])
    penalty = getattr(objective, "penalty", None)
    if penalty is None:
        return product
    added = jax.jvp(jax.grad(penalty), (point,), (vector,))[1]
    return jax.tree.map(jnp.add, product, added)


def _batch_second_moment(objective, point, batch, vector):
    losses, pull = jax.vjp(lambda p: _example_losses(objective, p, batch), point)
    along = jax.jvp(lambda p: _example_losses(objective, p, batch), (point,), (vector,))
    (product,) = pull(along[1] / jnp.asarray(len(losses), losses.dtype))
    return product


def _batch_mean_gradient(objective, point, batch):
    return jax.grad(lambda p: jnp.mean(_example_losses(objective, p, batch)))(point)


def _batch_residual(objective, point, batch, vector):
    def ratio(p):
        losses = _example_losses(objective, p, batch)
        # p_n / p_n, of which the numerator alone is differentiated.
        return -jnp.mean(jnp.exp(jax.lax.stop_gradient(losses) - losses))

    return jax.jvp(jax.grad(ratio), (point,), (vector,))[1]


def _example_losses(objective, point, batch):
    """The loss of each example of a batch, (n,)."""
    if hasattr(objective, "example_losses"):
        return objective.example_losses(point, batch)

    def one(example):
        alone = jax.tree.map(lambda leaf: leaf[None], example)
        return scalar_loss(objective.batch_loss(point, alone))

    return jax.vmap(one)(batch)


# Checks.


def _product(function, objective, point, vector, mask):
    objective = as_objective(objective)
    tree.check_alike({"point": point, "vector": vector})
    selected = as_mask(mask, point)
    product = accumulate(function, objective, point, apply_mask(selected, vector))
    return apply_mask(selected, product)


def _with_outputs(objective: Any) -> Any:
    objective = as_objective(objective)
    if not (hasattr(objective, "outputs") and hasattr(objective, "output_loss")):
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


# Linearisations that are kept.


def _linearized(objective: Any, point: Any) -> list[Any]:
    """Each batch's derivative of the gradient, its forward pass done."""
    objective = objective.at(point)
    return [
        _linearize(objective, point, objective.batch(i))
        for i in range(objective.num_batches)
    ]


@jax.jit
def _linearize(objective, point, batch):
    def slope(p):
        return jax.grad(lambda q: scalar_loss(objective.batch_loss(q, batch)))(p)

    return jax.linearize(slope, point)[1]


@jax.jit
def _add_linear(total, weight, linear, direction):
    share = jax.tree.map(
        lambda leaf: leaf * jnp.asarray(weight, leaf.dtype), linear(direction)
    )
    return share if total is None else jax.tree.map(jnp.add, total, share)
