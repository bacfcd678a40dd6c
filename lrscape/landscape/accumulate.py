"""The only loop over batches: losses, gradients and products added up over a sample.

Sums are compensated, so that a mean over many batches is as good as one over a few. A
sample that is on the device is walked through in one compiled loop; where that is slow
(a convolution's weight gradient on CPU) and for objectives that hand out their own
batches, in a call a batch.
"""

from __future__ import annotations

import contextlib
import functools
import weakref
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import Mesh, PartitionSpec

from lrscape import checks
from lrscape.errors import InputError
from lrscape.landscape.loops import loops_slowly
from lrscape.landscape.programs import jit_objectives, once_a_shape
from lrscape.landscape.protocol import (
    as_objective,
    check_traceable,
    checked_loss,
    filled_in,
    is_compilable,
    is_traceable,
    member,
    scalar_loss,
)
from lrscape.landscape.sums import added, nothing, total_of, weighted_sum
from lrscape.landscape.tree import check_point, is_concrete
from lrscape.matmul import with_precision

AXIS = "batches"


def batch_losses(objective: Any, point: Any) -> Any:
    """The mean loss over each batch of an objective's sample.

    Args:
        objective: an objective, or a function of a point.
        point: where it is measured.

    Returns:
        (num_batches,), or a dict of such arrays.

    Raises:
        InputError: the loss is not a scalar, nor a dict of scalars with ``'loss'``.

    Example:
        >>> from lrscape.landscape import mean_objective
        >>> objective = mean_objective(
        ...     lambda w, batch: jnp.mean(w * batch), jnp.arange(4.0), batch_size=2)
        >>> print(batch_losses(objective, jnp.float32(2.0)))
        [1. 5.]
    """
    objective = as_objective(objective)
    check_point("point", point)
    if is_compilable(objective):
        return _compiled_losses(objective, point)
    _check_concrete(objective, point)
    objective = filled_in(objective, point)
    compile_it = is_concrete(point) and is_traceable(objective)
    loss = jitted_batch_loss(objective) if compile_it else _loss_of(objective)
    losses = []
    for i in range(objective.num_batches):
        with _named(i, objective.num_batches):
            losses.append(loss(point, objective.batch(i)))
    return jax.tree.map(lambda *values: jnp.stack(values), *losses)


def mean_loss(objective: Any, point: Any) -> Any:
    """The mean loss over the whole sample, a scalar or a dict of scalars.

    Under ``jit``, ``grad`` and ``vmap`` too.
    """
    objective = as_objective(objective)
    if is_compilable(objective):
        return _compiled_mean(objective, point)
    return _mean(batch_losses(objective, point), objective.weights)


def accumulate(
    function: Callable[..., Any],
    objective: Any,
    point: Any,
    *args: Any,
    compiled: bool | None = None,
    devices: Sequence[jax.Device] | None = None,
) -> Any:
    """Adds up a function of a batch over an objective's sample.

    Args:
        function: ``function(objective, point, batch, *args) -> pytree`` of floating
            arrays: a mean over the batch. Compiled once for a function, so hand over
            one that is defined once, not a new lambda every time.
        objective: an objective, or a function of a point.
        point: handed to `function`.
        *args: handed to it too; pytrees of arrays.
        compiled: whether all batches run in one compiled loop, or one call each; None
            chooses the faster.
        devices: shares the batches among them; None is where the point is.

    Returns:
        The mean over the whole sample: each batch's value times its weight, added up
        with compensation for rounding.

    Raises:
        Exception: whatever a batch raises, with a note that names the batch.

    Example:
        >>> from lrscape.landscape import mean_objective
        >>> def gradient(objective, point, batch):
        ...     return jax.grad(objective.batch_loss)(point, batch)
        >>> objective = mean_objective(
        ...     lambda w, batch: jnp.mean((w - batch) ** 2), jnp.arange(4.0),
        ...     batch_size=3)
        >>> print(accumulate(gradient, objective, jnp.float32(0.0)))
        -3.0
    """
    checks.function("function", function, takes="(objective, point, batch, ...)")
    objective = as_objective(objective)
    if compiled is not None:
        checks.flag("compiled", compiled)
    devices = checks.devices("devices", devices)
    if not is_traceable(objective):
        _check_concrete(objective, (point, args))
        return _one_plain_call_each(function, objective, point, args)
    if not is_compilable(objective):
        return _one_call_each(function, objective, point, args)
    if not is_concrete((objective, point, args)):
        return _in_one_loop(function, objective, point, args)
    if devices is not None and len(devices) > 1 and objective.num_batches > 1:
        return _over_devices(function, objective, point, args, devices)
    if compiled is None:
        compiled = not loops_slowly(function, objective, point, args)
    if compiled:
        return _in_one_loop_jitted(function, objective, point, args)
    return _one_call_each(function, objective, point, args)


def each_batch(
    function: Callable[..., Any], objective: Any, point: Any, *args: Any
) -> Iterator[Any]:
    """A function's value of every batch in turn, as `accumulate` adds them up.

    For finding the batch that something is wrong with.
    """
    for i in range(objective.num_batches):
        with _named(i, objective.num_batches):
            value = function(objective, point, objective.batch(i), *args)
        yield value


def loss_gradient(objective: Any, point: Any, **options: Any) -> Any:
    """The gradient of the mean loss over the whole sample.

    Args:
        objective: an objective, or a function of a point.
        point: where it is taken.
        **options: ``compiled`` and ``devices`` of `accumulate`.

    Returns:
        A tree like the point.

    Example:
        >>> print(loss_gradient(lambda w: jnp.sum(w ** 2), jnp.array([1.0, 2.0])))
        [2. 4.]
    """
    check_point("point", point)
    return accumulate(batch_gradient, objective, point, **options)


def batch_gradient(objective: Any, point: Any, batch: Any) -> Any:
    """The gradient of one batch's mean loss."""
    if (own := member(objective, "batch_gradient")) is not None:
        return own(point, batch)
    check_traceable(objective, "gradient")

    def loss_at(p: Any) -> jax.Array:
        loss = objective.batch_loss(p, batch)
        value = scalar_loss(loss)
        dtype = jnp.result_type(loss["loss"] if isinstance(loss, dict) else loss)
        if not jnp.issubdtype(dtype, jnp.floating):
            raise InputError(f"the loss has dtype {dtype}, and so no gradient")
        return value

    return jax.grad(loss_at)(point)


def _check_concrete(objective: Any, values: Any) -> None:
    if not is_traceable(objective) and not is_concrete(values):
        raise InputError(
            f"objective={type(objective).__name__} is computed outside JAX and cannot "
            "be traced by jit, grad or vmap; call it with arrays, and take gradients "
            "and products by lrscape.landscape.loss_gradient, hvp and ggnvp"
        )


def _loss_of(objective: Any) -> Callable[[Any, Any], Any]:
    return lambda point, batch: checked_loss(objective.batch_loss(point, batch))


_jitted: weakref.WeakKeyDictionary[Any, Callable] = weakref.WeakKeyDictionary()


def jitted_batch_loss(objective: Any) -> Callable[[Any, Any], Any]:
    """A compiled ``(point, batch) -> loss``, the same one for the same objective."""
    try:
        if objective not in _jitted:
            # Holds the objective weakly, or the entry would keep its own key alive.
            reference = weakref.ref(objective)
            _jitted[objective] = jax.jit(
                with_precision(lambda point, batch: _loss_of(reference())(point, batch))
            )
        return _jitted[objective]
    except TypeError:  # neither hashable nor weakly referenced
        return jax.jit(with_precision(_loss_of(objective)))


# One compiled loop.


def sample_losses(objective: Any, point: Any) -> Any:
    """`batch_losses` to be traced: the loop that every compiled probe contains."""
    objective = filled_in(objective, point)
    loss = _loss_of(objective)
    if objective.num_batches == 1:
        one = loss(point, objective.batch(0))
        return jax.tree.map(lambda value: value[None], one)
    full = objective.counts[0]
    if full == 1:
        losses = jax.tree.map(lambda v: v[None], loss(point, objective.batch(0)))
    else:
        losses = lax.map(lambda batch: loss(point, batch), objective.whole)
    if objective.tail is None:
        return losses
    last = loss(point, objective.tail)
    return jax.tree.map(lambda a, b: jnp.append(a, b[None]), losses, last)


_compiled_losses = jit_objectives(sample_losses)


@jit_objectives
def _compiled_mean(objective: Any, point: Any) -> Any:
    return _mean(sample_losses(objective, point), objective.weights)


def _mean(losses: Any, weights: np.ndarray) -> Any:
    if len(weights) == 1:
        return jax.tree.map(lambda values: values[0], losses)
    return jax.tree.map(lambda values: weighted_sum(values, weights), losses)


_add_tree_jitted = jax.jit(added, donate_argnums=0)
# A call for all leaves, where an array each takes as long as a small product.
_nothing_jitted = jax.jit(nothing)


def _in_one_loop(function, objective, point, args):
    objective = filled_in(objective, point)
    if objective.num_batches == 1:
        return function(objective, point, objective.batch(0), *args)
    full, weights = objective.counts[0], objective.weights

    def value_of(batch):
        return function(objective, point, batch, *args)

    carry = nothing(jax.eval_shape(value_of, objective.batch(0)))
    if full == 1:
        carry = added(carry, weights[0], value_of(objective.batch(0)))
    else:
        carry, _ = lax.scan(
            lambda carry, batch: (added(carry, weights[0], value_of(batch)), None),
            carry,
            objective.whole,
        )
    if objective.tail is not None:
        carry = added(carry, weights[-1], value_of(objective.tail))
    return total_of(carry)


_in_one_loop_jitted = jit_objectives(_in_one_loop, static_argnums=(0,))


# A call a batch.


def _one_call_each(function, objective, point, args):
    count, weights = objective.num_batches, objective.weights
    if is_compilable(objective):
        objective = _filled_in(objective, point)

        def add(carry, weight, batch):
            return _add_batch(function, carry, weight, objective, point, batch, args)
    else:
        objective = filled_in(objective, point)

        add_batch = _jitted_add(function, objective)

        def add(carry, weight, batch):
            return add_batch(carry, weight, point, batch, args)

    carry: Any = None
    for i in range(count):
        with _named(i, count):
            batch = objective.batch(i)
            if carry is None:
                value_of = functools.partial(function, objective)
                carry = nothing(jax.eval_shape(value_of, point, batch, *args))
            carry = add(carry, np.float64(weights[i]), batch)
    return total_of(carry)


def _one_plain_call_each(function, objective, point, args):
    """Nothing compiled: of objectives that are computed outside JAX."""
    count, weights = objective.num_batches, objective.weights
    objective = filled_in(objective, point)
    carry: Any = None
    for i in range(count):
        with _named(i, count):
            value = function(objective, point, objective.batch(i), *args)
            value = jax.tree.map(jnp.asarray, value)
            carry = nothing(value) if carry is None else carry
            carry = _add_tree_jitted(carry, np.float64(weights[i]), value)
    return total_of(carry)


_jitted_adds: weakref.WeakKeyDictionary[Any, dict] = weakref.WeakKeyDictionary()


def _jitted_add(function: Callable[..., Any], objective: Any) -> Callable[..., Any]:
    """A compiled addition of a batch, the same one for the same objective."""

    def jitted(objective_of: Callable[[], Any]) -> Callable[..., Any]:
        def add_batch(carry, weight, point, batch, args):
            value = function(objective_of(), point, batch, *args)
            return added(carry, weight, value)

        return jax.jit(with_precision(add_batch), donate_argnums=0)

    try:
        known = _jitted_adds.setdefault(objective, {})
        if function not in known:
            # Weakly, or the entry would keep its own key alive.
            known[function] = jitted(weakref.ref(objective))
        return known[function]
    except TypeError:  # neither hashable nor weakly referenced
        return jitted(lambda: objective)


@jit_objectives(static_argnums=(0,), donate_argnums=(1,))
def _add_batch(function, carry, weight, objective, point, batch, args):
    return added(carry, weight, function(objective, point, batch, *args))


def fill_in(objective: Any, point: Any) -> Any:
    """The objective at a point, in a compiled program where it can be in one."""
    if is_compilable(objective):
        return _filled_in(objective, point)
    return filled_in(objective, point)


_filled_in = jit_objectives(filled_in)


@contextlib.contextmanager
def _named(i: int, count: int) -> Iterator[None]:
    """Notes the batch on whatever it raises."""
    try:
        yield
    except Exception as error:
        error.add_note(f"in batch {i} of {count} (counted from 0)")
        raise


# Linearisations that are kept.


def linearized(objective: Any, point: Any) -> list[Callable[[Any], Any]]:
    """Each batch's derivative of the gradient at a point, its forward pass done.

    Args:
        objective: one that holds its whole sample, `filled_in` at the point.
        point: where it is differentiated.

    Returns:
        What `accumulate_linear` takes: by it a product with the Hessian costs no
        forward pass, and every batch's activations stay in memory.
    """
    return [
        _linearized(objective, point, objective.batch(i))
        for i in range(objective.num_batches)
    ]


@jit_objectives
def _linearized(objective, point, batch):
    return jax.linearize(lambda p: batch_gradient(objective, p, batch), point)[1]


@once_a_shape
def linearized_bytes(objective, point) -> int:
    """Estimates the memory, in bytes, of the linearisation of one batch."""
    kept = jax.eval_shape(lambda o, p: _linearized(o, p, o.batch(0)), objective, point)
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(kept))


def accumulate_linear(
    functions: Sequence[Callable[[Any], Any]], weights: np.ndarray, vector: Any
) -> Any:
    """Adds up linearisations that were kept, one a batch, at a vector.

    Args:
        functions: linear functions of a tree, which give a tree like it, as pytrees
            (`jax.linearize` under ``jit`` gives them).
        weights: (batches,), each batch's share of the examples.
        vector: the tree.

    Returns:
        The mean over the whole sample, added up as `accumulate` does.

    Raises:
        Exception: whatever a batch raises, with a note that names the batch.

    Example:
        >>> halves = [jax.linearize(jnp.square, jnp.float32(p))[1] for p in (1, 2)]
        >>> print(accumulate_linear(halves, np.array([0.5, 0.5]), jnp.float32(1)))
        3.0
    """
    carry = _nothing_jitted(vector)
    for i, (function, weight) in enumerate(zip(functions, weights, strict=True)):
        with _named(i, len(weights)):
            carry = _add_linear(carry, np.float64(weight), function, vector)
    return total_of(carry)


@functools.partial(jax.jit, donate_argnums=0)
def _add_linear(carry, weight, function, vector):
    return added(carry, weight, function(vector))


# Several devices.


def _over_devices(function, objective, point, args, devices):
    """Each device walks through its own share of the batches."""
    mesh = Mesh(np.array(devices), (AXIS,))
    full = objective.counts[0]
    rows = -(-full // len(devices)) * len(devices)
    # Where the batches do not divide, the first one is repeated with no weight.
    indices = np.zeros(rows, np.int32)
    indices[:full] = np.arange(full)
    weights = np.zeros(rows)
    weights[:full] = objective.weights[:full]
    everywhere = jax.sharding.NamedSharding(mesh, PartitionSpec())
    objective, point, args = jax.device_put((objective, point, args), everywhere)
    return _sharded(function, mesh, objective, point, args, indices, weights)


@jit_objectives(static_argnums=(0, 1))
def _sharded(function, mesh, objective, point, args, indices, weights):
    filled = filled_in(objective, point)

    def share(filled, point, args, indices, weights):
        def value_of(batch):
            return function(filled, point, batch, *args)

        def add(carry, row):
            index, weight = row
            return added(carry, weight, value_of(filled.batch(index))), None

        carry = nothing(jax.eval_shape(value_of, filled.batch(0)))
        carry, _ = lax.scan(add, carry, (indices, weights))
        return jax.tree.map(lambda leaf: leaf[None], carry)

    split, whole = PartitionSpec(AXIS), PartitionSpec()
    shares = jax.shard_map(
        share,
        mesh=mesh,
        in_specs=(whole, whole, whole, split, split),
        out_specs=split,
        check_vma=False,
    )(filled, point, args, indices, weights)
    # The devices' sums, and what rounding took from each, are added up alike.
    parts = [jax.tree.map(lambda leaf, d=d: leaf[d], shares) for d in range(mesh.size)]
    carry = parts[0]
    for totals, lost in parts[1:]:
        carry = added(added(carry, 1.0, totals), 1.0, lost)
    if filled.tail is not None:
        value = function(filled, point, filled.tail, *args)
        carry = added(carry, filled.weights[-1], value)
    return total_of(carry)
