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
from lrscape.landscape.objective import (
    SampleObjective,
    as_objective,
    check_traceable,
    filled_in,
    is_traceable,
    member,
)
from lrscape.landscape.programs import jit_objectives
from lrscape.landscape.tree import check_point, is_concrete, wide_dtype

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
    carry = _zeros(vector)
    for i, (function, weight) in enumerate(zip(functions, weights, strict=True)):
        with _named(i, len(weights)):
            carry = _add_linear(carry, np.float64(weight), function, vector)
    return _total(carry)


@functools.partial(jax.jit, donate_argnums=0)
def _add_linear(carry, weight, function, vector):
    return _add_tree(carry, weight, function(vector))


def gradient(objective: Any, point: Any, **options: Any) -> Any:
    """The gradient of the mean loss over the whole sample.

    Args:
        objective: an objective, or a function of a point.
        point: where it is taken.
        **options: ``compiled`` and ``devices`` of `accumulate`.

    Returns:
        A tree like the point.

    Example:
        >>> print(gradient(lambda w: jnp.sum(w ** 2), jnp.array([1.0, 2.0])))
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


# What a loss is.


def scalar_loss(loss: Any) -> jax.Array:
    """The loss itself, of a scalar or of a dict of scalars; checked."""
    loss = checked_loss(loss)
    return loss["loss"] if isinstance(loss, dict) else loss


def checked_loss(loss: Any) -> Any:
    """Raises InputError unless it is a scalar, or a dict of them with ``'loss'``."""
    if isinstance(loss, dict) and "loss" not in loss:
        raise InputError(
            "the loss is a dict without the key 'loss'; it has "
            f"{', '.join(map(repr, loss)) or 'none'}"
        )
    for name, value in (loss if isinstance(loss, dict) else {"loss": loss}).items():
        shape = getattr(value, "shape", () if isinstance(value, float | int) else None)
        if shape != ():
            what = f"has shape {shape}" if shape is not None else f"is {value!r}"
            raise InputError(
                f"the loss of a batch must be a scalar, the mean over its examples, or "
                f"a dict of scalars; {name!r} {what}"
            )
        if jnp.iscomplexobj(value):
            raise InputError(
                f"the loss of a batch must be real; {name!r} has dtype {value.dtype}"
            )
    return jax.tree.map(_as_float, loss)


def _as_float(value: Any) -> jax.Array:
    """A scalar as a float, so that counts have means too."""
    array = jnp.asarray(value)
    if jnp.issubdtype(array.dtype, jnp.floating):
        return array
    return array.astype(jnp.result_type(float))


def _check_concrete(objective: Any, values: Any) -> None:
    if not is_traceable(objective) and not is_concrete(values):
        raise InputError(
            f"objective={type(objective).__name__} is computed outside JAX and cannot "
            "be traced by jit, grad or vmap; call it with arrays, and take gradients "
            "and products by lrscape.landscape.gradient, hvp and ggnvp"
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
                lambda point, batch: _loss_of(reference())(point, batch)
            )
        return _jitted[objective]
    except TypeError:  # neither hashable nor weakly referenced
        return jax.jit(_loss_of(objective))


# One compiled loop.


def is_compilable(objective: Any) -> bool:
    """Whether an objective is a pytree that holds its whole sample on the device."""
    if jax.tree_util.all_leaves([objective]):
        return False
    return isinstance(objective, SampleObjective) or objective.num_batches == 1


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
    return jax.tree.map(lambda values: _weighted_sum(values, weights), losses)


def _weighted_sum(values: jax.Array, weights: np.ndarray) -> jax.Array:
    """Sum of weights times values, compensated; differentiable."""
    dtype = values.dtype
    values = values.astype(wide_dtype(dtype))
    # In units of the smallest batch: whole numbers, or nearly, which lose nothing.
    units = weights / weights[weights > 0].min()
    sizes = jnp.asarray(units, values.dtype)
    terms = jnp.append(values * sizes, jnp.zeros(1, values.dtype))

    def add(carry, term):
        total, lost = carry
        return _two_sum(total, lost, term), None

    zero = jnp.zeros([], values.dtype)
    (total, lost), _ = lax.scan(add, (zero, zero), terms)
    return ((total + lost) / jnp.asarray(units.sum(), values.dtype)).astype(dtype)


def _two_sum(total: jax.Array, lost: jax.Array, term: jax.Array):
    """Neumaier's summation: adds a term, and keeps what rounding took from it."""
    new = total + term
    larger = jnp.abs(total) >= jnp.abs(term)
    error = jnp.where(larger, (total - new) + term, (term - new) + total)
    # Beyond infinity there is nothing to keep, and inf - inf would be NaN.
    return new, lost + jnp.where(jnp.isfinite(error), error, jnp.zeros_like(error))


def _add_tree(carry: tuple[Any, Any], weight: Any, value: Any) -> tuple[Any, Any]:
    """Adds weight times value to a tree of totals and a tree of what they lost."""
    totals, structure = jax.tree.flatten(carry[0])
    pairs = [
        _two_sum(total, lost, term * jnp.asarray(weight, term.dtype))
        for total, lost, term in zip(
            totals, jax.tree.leaves(carry[1]), jax.tree.leaves(value), strict=True
        )
    ]
    return (
        jax.tree.unflatten(structure, [total for total, _ in pairs]),
        jax.tree.unflatten(structure, [lost for _, lost in pairs]),
    )


_add_tree_jitted = jax.jit(_add_tree, donate_argnums=0)


def _zeros(shapes: Any) -> tuple[Any, Any]:
    zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
    return zeros, jax.tree.map(jnp.zeros_like, zeros)


def _total(carry: tuple[Any, Any]) -> Any:
    return jax.tree.map(jnp.add, *carry)


def _in_one_loop(function, objective, point, args):
    objective = filled_in(objective, point)
    if objective.num_batches == 1:
        return function(objective, point, objective.batch(0), *args)
    full, weights = objective.counts[0], objective.weights

    def value_of(batch):
        return function(objective, point, batch, *args)

    carry = _zeros(jax.eval_shape(value_of, objective.batch(0)))
    if full == 1:
        carry = _add_tree(carry, weights[0], value_of(objective.batch(0)))
    else:
        carry, _ = lax.scan(
            lambda carry, batch: (_add_tree(carry, weights[0], value_of(batch)), None),
            carry,
            objective.whole,
        )
    if objective.tail is not None:
        carry = _add_tree(carry, weights[-1], value_of(objective.tail))
    return _total(carry)


_in_one_loop_jitted = jit_objectives(_in_one_loop, static_argnums=(0,))


# A call a batch.


def _one_call_each(function, objective, point, args):
    count, weights = objective.num_batches, objective.weights
    if is_compilable(objective):
        objective = _fill_in(objective, point)

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
                carry = _zeros(jax.eval_shape(value_of, point, batch, *args))
            carry = add(carry, np.float64(weights[i]), batch)
    return _total(carry)


def _one_plain_call_each(function, objective, point, args):
    """Nothing compiled: of objectives that are computed outside JAX."""
    count, weights = objective.num_batches, objective.weights
    objective = filled_in(objective, point)
    carry: Any = None
    for i in range(count):
        with _named(i, count):
            value = function(objective, point, objective.batch(i), *args)
            value = jax.tree.map(jnp.asarray, value)
            carry = _zeros(value) if carry is None else carry
            carry = _add_tree_jitted(carry, np.float64(weights[i]), value)
    return _total(carry)


_jitted_adds: weakref.WeakKeyDictionary[Any, dict] = weakref.WeakKeyDictionary()


def _jitted_add(function: Callable[..., Any], objective: Any) -> Callable[..., Any]:
    """A compiled addition of a batch, the same one for the same objective."""

    def jitted(objective_of: Callable[[], Any]) -> Callable[..., Any]:
        def add_batch(carry, weight, point, batch, args):
            value = function(objective_of(), point, batch, *args)
            return _add_tree(carry, weight, value)

        return jax.jit(add_batch, donate_argnums=0)

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
    return _add_tree(carry, weight, function(objective, point, batch, *args))


@jit_objectives
def _fill_in(objective, point):
    return filled_in(objective, point)


@contextlib.contextmanager
def _named(i: int, count: int) -> Iterator[None]:
    """Notes the batch on whatever it raises."""
    try:
        yield
    except Exception as error:
        error.add_note(f"in batch {i} of {count} (counted from 0)")
        raise


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
            return _add_tree(carry, weight, value_of(filled.batch(index))), None

        carry = _zeros(jax.eval_shape(value_of, filled.batch(0)))
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
        carry = _add_tree(_add_tree(carry, 1.0, totals), 1.0, lost)
    if filled.tail is not None:
        value = function(filled, point, filled.tail, *args)
        carry = _add_tree(carry, filled.weights[-1], value)
    return _total(carry)
