"""Distances between networks: of what they compute, and of their weights."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from lrscape import checks
from lrscape.errors import InputError
from lrscape.landscape import tree
from lrscape.landscape.accumulate import mean_loss
from lrscape.landscape.objective import SampleObjective, mean_objective

BATCH_SIZE = 500


class Estimate(NamedTuple):
    """A mean over a sample.

    Attributes:
        value: the estimate.
        standard_error: what the sample's size implies.
    """

    value: jax.Array
    standard_error: jax.Array


class DistancesWithErrors(NamedTuple):
    """Two distances of points as functions, each with its standard error.

    Attributes:
        functional_distance: the root of the mean square of the outputs' differences.
        disagreement: the fraction of inputs with different labels.
    """

    functional_distance: Estimate
    disagreement: Estimate


def functional_distance(
    apply_fn: Callable[[Any, Any], jax.Array],
    a: Any,
    b: Any,
    inputs: Any,
    *,
    softmax: bool = False,
    batch_size: int = BATCH_SIZE,
) -> jax.Array:
    r"""The distance of two points as functions.

    .. math::

        \sqrt{\frac{1}{N} \sum_{i=1}^N \|F(x_i, a) - F(x_i, b)\|^2}

    Args:
        apply_fn: ``(point, inputs) -> (n, outputs)``, F. The paper's are probabilities:
            pass a function that gives them, or logits with `softmax`.
        a: one point.
        b: the other.
        inputs: (N, ...), or a pytree of arrays with a leading example axis.
        softmax: whether to make probabilities of what `apply_fn` gives.
        batch_size: examples a call; changes the result by rounding alone.

    Returns:
        A scalar; between probabilities at most the square root of 2.

    Raises:
        InputError: points of different structure or shapes, no inputs, or outputs that
            are not (n, outputs).

    Example:
        >>> print(functional_distance(
        ...     lambda w, x: x @ w, jnp.eye(2), -jnp.eye(2), jnp.ones((5, 2))).round(4))
        2.8284

    References:
        Im et al., `An empirical analysis of deep network loss surfaces
        <https://arxiv.org/abs/1612.04010>`_, 2016, Sec. 4.1
    """
    found = distances_with_errors(
        apply_fn, a, b, inputs, softmax=softmax, batch_size=batch_size
    )
    return found.functional_distance.value


def disagreement(
    apply_fn: Callable[[Any, Any], jax.Array],
    a: Any,
    b: Any,
    inputs: Any,
    *,
    batch_size: int = BATCH_SIZE,
) -> jax.Array:
    """The fraction of inputs that two points give different labels.

    Args:
        apply_fn: ``(point, inputs) -> (n, outputs)``; the label is the largest output.
        a: one point.
        b: the other.
        inputs: (N, ...), or a pytree of arrays with a leading example axis.
        batch_size: examples a call.

    Returns:
        A scalar between 0 and 1.

    Raises:
        InputError: points of different structure or shapes, no inputs, or outputs that
            are not (n, outputs).

    Example:
        >>> inputs = jnp.array([[1.0, 0.0], [0.0, 1.0], [3.0, 2.0], [2.0, 3.0]])
        >>> swap = jnp.array([[0.0, 1.0], [1.0, 0.0]])
        >>> print(disagreement(lambda w, x: x @ w, jnp.eye(2), swap, inputs))
        1.0

    References:
        Im et al., `An empirical analysis of deep network loss surfaces
        <https://arxiv.org/abs/1612.04010>`_, 2016, Sec. 4.1
    """
    found = distances_with_errors(apply_fn, a, b, inputs, batch_size=batch_size)
    return found.disagreement.value


def distances_with_errors(
    apply_fn: Callable[[Any, Any], jax.Array],
    a: Any,
    b: Any,
    inputs: Any,
    *,
    softmax: bool = False,
    batch_size: int = BATCH_SIZE,
) -> DistancesWithErrors:
    """The functional distance and the disagreement, each with its standard error.

    The square of the functional distance is a mean over examples; its standard error is
    carried over to the root to first order.

    Args:
        apply_fn: ``(point, inputs) -> (n, outputs)``; the label is the largest output.
        a: one point.
        b: the other.
        inputs: (N, ...), or a pytree of arrays with a leading example axis.
        softmax: whether to make probabilities of what `apply_fn` gives.
        batch_size: examples a call; changes the result by rounding alone.

    Returns:
        Both estimates, from the same outputs.

    Raises:
        InputError: points of different structure or shapes, no inputs, or outputs that
            are not (n, outputs).

    Example:
        >>> found = distances_with_errors(
        ...     lambda w, x: w * x, jnp.float32(0), jnp.float32(1),
        ...     jnp.array([[3.0], [5.0]]))
        >>> far = found.functional_distance
        >>> print(far.value.round(4), far.standard_error.round(4))
        4.1231 0.9701
    """
    tree.check_alike({"a": a, "b": b})
    objective = distance_objective(
        apply_fn, inputs, softmax=softmax, batch_size=batch_size
    )
    means = mean_loss(objective, (a, b))
    squared, share = means["loss"], means["disagreement"]
    # Of N examples; NaN for one, whose spread says nothing.
    others = objective.num_examples - 1
    variances = means["square"] - squared**2, share * (1 - share)
    errors = [jnp.sqrt(jnp.maximum(v, 0) / others) for v in variances]
    root = jnp.sqrt(squared)
    safe = jnp.where(root > 0, root, 1)
    return DistancesWithErrors(
        Estimate(root, jnp.where(root > 0, errors[0] / (2 * safe), errors[0])),
        Estimate(share, errors[1]),
    )


def parameter_distance(a: Any, b: Any) -> jax.Array:
    """The Euclidean distance between two points.

    Args:
        a: one point.
        b: the other.

    Returns:
        A scalar.

    Raises:
        InputError: points of different structure or shapes.

    Example:
        >>> print(parameter_distance({'w': jnp.zeros(2)}, {'w': jnp.array([3.0, 4.0])}))
        5.0
    """
    tree.check_alike({"a": a, "b": b})
    return tree.norm(tree.subtract(a, b))


def distance_objective(
    apply_fn: Callable[[Any, Any], jax.Array],
    inputs: Any,
    *,
    softmax: bool = False,
    batch_size: int = BATCH_SIZE,
) -> SampleObjective:
    """An objective of a pair of points: how far apart they are as functions.

    Lets distances be surveyed as losses are: over a line, a plane, on several devices.

    Args:
        apply_fn: ``(point, inputs) -> (n, outputs)``; the label is the largest output.
        inputs: (N, ...), or a pytree of arrays with a leading example axis.
        softmax: whether to make probabilities of what `apply_fn` gives.
        batch_size: examples a call; changes the result by rounding alone.

    Returns:
        An objective whose point is a pair ``(a, b)``. Its loss is a dict of means over
        the inputs: ``'loss'``, the squared distance; ``'square'``, its square, for the
        standard error; ``'disagreement'``.

    Raises:
        InputError: no inputs; when it is called, outputs that are not (n, outputs).

    Example:
        >>> from lrscape.landscape import evaluate
        >>> objective = distance_objective(lambda w, x: w * x, jnp.ones((3, 2)))
        >>> away = lambda t: (jnp.float32(0), t)
        >>> found = evaluate(objective, away, [0.0, 2.0])
        >>> print(found['loss'])
        [0. 8.]
    """
    checks.function("apply_fn", apply_fn, takes="(point, inputs)")
    checks.flag("softmax", softmax)

    def loss_fn(pair, batch):
        a, b = apply_fn(pair[0], batch), apply_fn(pair[1], batch)
        for outputs in (a, b):
            if outputs.ndim != 2:
                raise InputError(
                    f"apply_fn gives outputs of shape {outputs.shape}; it must give "
                    "(n, outputs)"
                )
        labels = jnp.argmax(a, axis=-1), jnp.argmax(b, axis=-1)
        differ = (labels[0] != labels[1]).astype(a.dtype)
        # The largest of outputs that are not numbers is no label.
        differ = jnp.where(jnp.isnan(a + b).any(axis=-1), jnp.nan, differ)
        if softmax:
            a, b = jax.nn.softmax(a), jax.nn.softmax(b)
        squared = jnp.sum((a - b) ** 2, axis=-1)
        return {
            "loss": jnp.mean(squared),
            "square": jnp.mean(squared**2),
            "disagreement": jnp.mean(differ),
        }

    return mean_objective(loss_fn, inputs, batch_size=batch_size)
