"""Stochastic weight averaging: the mean of the weights that training passes through."""

from __future__ import annotations

import contextlib
import contextvars
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from lrscape import checks
from lrscape.errors import InputError

_records: contextvars.ContextVar[list[tuple[int, int]] | None] = contextvars.ContextVar(
    "records", default=None
)


class AverageWeightsState(NamedTuple):
    """State of `average_weights`; read it with `averaged`.

    Attributes:
        count: updates made so far.
        num_averaged: weights that were added up so far.
        start: the first update after which they are.
        total: their sum, in float32 at the least; a tree like the parameters.
        lost: what rounding took from it.
        selected: which entries are averaged, booleans; None for all.
    """

    count: jax.Array  # type: ignore[assignment]
    num_averaged: jax.Array
    start: jax.Array
    total: optax.Params
    lost: optax.Params
    selected: Any


def average_weights(
    start: int,
    *,
    every: int = 1,
    mask: Any = None,
    total_steps: int | None = None,
) -> optax.GradientTransformationExtraArgs:
    r"""Passes updates through, and averages the weights that they lead to.

    .. math:: \bar w = \frac{1}{|T|} \sum_{n \in T} w_n, \qquad
        T = \{\text{start}, \text{start} + \text{every}, \ldots\}

    with :math:`w_n` the weights after n updates, so that n is the ``step`` of
    `lrscape.training.TrainState`: ``average_weights(126 * k, every=k)``, for epochs of
    k updates, begins with the weights after epoch 126 and takes those after every
    epoch. The initial weights, which no update made, are never among them.

    Training itself is the same with it or without. The mean is as exact as single
    precision holds it, however many weights go into it, for which two copies of the
    parameters are kept.

    Args:
        start: the number of updates after which the first weights are taken, 1 or more;
            0 is the same as `every`.
        every: updates from one to the next.
        mask: which entries are averaged: a tree of booleans or boolean arrays like the
            parameters, or like the upper part of their tree; or a function that makes
            one of the parameters, by their structure and shapes alone, such as
            ``lambda params: masks.as_mask(masks.batch_norm_only, params)``.
            None averages all. The others `averaged` leaves as they are.
        total_steps: updates in all, to be told at once of a start beyond them.

    Returns:
        The transformation, to be chained last: what is added to the weights must have
        its final size when it comes here. Its update needs ``params``.

    Raises:
        InputError: a start that is negative or beyond `total_steps`, no updates between
            two weights; by ``init``, a mask that does not fit or that selects nothing.

    Example:
        >>> tx = optax.chain(optax.sgd(1.0), average_weights(2))
        >>> w = jnp.zeros(())
        >>> state = tx.init(w)
        >>> for gradient in (-1.0, -1.0, -2.0, -3.0):  # w: 1, 2, 4, 7
        ...     updates, state = tx.update(jnp.float32(gradient), state, w)
        ...     w = optax.apply_updates(w, updates)
        >>> print(w, averaged(state, w).round(4))
        7.0 4.3333

    References:
        Izmailov et al., `Averaging Weights Leads to Wider Optima and Better
        Generalization <https://arxiv.org/abs/1803.05407>`_, 2018; He et al.,
        `Asymmetric Valleys <https://arxiv.org/abs/1902.00744>`_, 2019, Sec. 5 and 7
        (averaging of batch norm alone)
    """
    # They are compared with a 32-bit count of updates.
    start = checks.whole("start", start)
    every = checks.count("every", every)
    if total_steps is not None:
        total_steps = checks.steps("total_steps", total_steps)
    if total_steps is not None and (start or every) > total_steps:
        raise InputError(
            f"start={start!r}: averaging would begin after {start or every} updates, "
            f"and there are only total_steps={total_steps}"
        )

    def init_fn(params: optax.Params) -> AverageWeightsState:
        if (records := _records.get()) is not None:
            records.append((start, every))
        selected = None if mask is None else _as_arrays(mask, params)
        _check_leaves(params, selected)
        zeros = jax.tree.map(lambda p: jnp.zeros(jnp.shape(p), _wide(p)), params)
        return AverageWeightsState(
            count=jnp.zeros([], jnp.int32),
            num_averaged=jnp.zeros([], jnp.int32),
            start=jnp.asarray(start or every, jnp.int32),
            total=zeros,
            lost=jax.tree.map(jnp.zeros_like, zeros),
            selected=selected,
        )

    def update_fn(
        updates: optax.Updates,
        state: AverageWeightsState,
        params: optax.Params | None = None,
        **extra_args: Any,
    ) -> tuple[optax.Updates, AverageWeightsState]:
        del extra_args
        if params is None:
            raise InputError(
                "params=None: average_weights averages the weights that an update "
                "leads to: call tx.update(updates, state, params)"
            )
        count = optax.safe_increment(state.count)
        after = count - start
        due = (after >= 0) & (after % every == 0)
        moved = optax.apply_updates(params, updates)
        pairs = jax.tree.map(
            lambda total, lost, weight: _add(due, total, lost, weight),
            state.total, state.lost, moved,
        )  # fmt: skip
        total, lost = jax.tree.transpose(
            jax.tree.structure(moved), jax.tree.structure((0, 0)), pairs
        )
        taken = state.num_averaged + due.astype(jnp.int32)
        return updates, state._replace(
            count=count, num_averaged=taken, total=total, lost=lost
        )

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)


def averaged(opt_state: Any, params: optax.Params, *, which: int | None = None) -> Any:
    """The averaged weights, read from an optimizer's state.

    Batch norm's running averages belong to the raw weights: estimate them anew, with
    `lrscape.landscape.recalibrate`.

    Args:
        opt_state: a state that holds one of `average_weights`, wherever it is chained.
        params: the raw weights, which entries outside the mask follow.
        which: of several `average_weights`, which one, counted from 0 in the order of
            the chain.

    Returns:
        A tree like `params`, in its dtypes.

    Raises:
        InputError: no `average_weights` in the state, or several and nothing said;
            averaging has not begun; parameters of another structure; a call under
            ``jit``, where this cannot be known.

    Example:
        >>> tx = optax.chain(optax.sgd(1.0), average_weights(100))
        >>> state = tx.init(jnp.zeros(2))
        >>> averaged(state, jnp.zeros(2))
        Traceback (most recent call last):
        ...
        lrscape.errors.InputError: no weights are averaged yet: averaging begins after
        update 100, and 0 are made; train longer, or start it earlier
    """
    state = _the_state(opt_state, which)
    if isinstance(state.num_averaged, jax.core.Tracer):
        raise InputError(
            "averaged was called under jit, where it cannot be known whether averaging "
            "has begun: call it outside"
        )
    if not int(state.num_averaged):
        raise InputError(
            f"no weights are averaged yet: averaging begins after update "
            f"{int(state.start)}, and {int(state.count)} are made; train longer, or "
            "start it earlier"
        )
    kinds: list[Any] = [jax.tree.structure(tree) for tree in (params, state.total)]
    if kinds[0] != kinds[1]:
        raise InputError(
            f"params has another structure than the weights that were averaged: "
            f"{kinds[0]} and {kinds[1]}"
        )

    shapes = [list(map(jnp.shape, jax.tree.leaves(t))) for t in (params, state.total)]
    if shapes[0] != shapes[1]:
        raise InputError(
            f"params has other shapes than the weights that were averaged: "
            f"{shapes[0]} and {shapes[1]}"
        )

    def mean(raw: Any, total: jax.Array, lost: jax.Array) -> jax.Array:
        found = (total + lost) / state.num_averaged.astype(total.dtype)
        return found.astype(jnp.result_type(raw))

    means = jax.tree.map(mean, params, state.total, state.lost)
    if state.selected is None:
        return means
    return jax.tree.map(jnp.where, state.selected, means, params)


@contextlib.contextmanager
def recorded_averages() -> Iterator[list[tuple[int, int]]]:
    """Collects ``(start, every)`` of each `average_weights` whose ``init`` runs."""
    records: list[tuple[int, int]] = []
    token = _records.set(records)
    try:
        yield records
    finally:
        _records.reset(token)


def averages_in(opt_state: Any) -> list[AverageWeightsState]:
    """Finds every state of `average_weights` in an optimizer's, in chain order."""

    def is_one(node: Any) -> bool:
        return isinstance(node, AverageWeightsState)

    return [s for s in jax.tree.leaves(opt_state, is_leaf=is_one) if is_one(s)]


def _the_state(opt_state: Any, which: int | None) -> AverageWeightsState:
    found = averages_in(opt_state)
    if not found:
        raise InputError(
            f"opt_state={checks.shown(opt_state)} holds no averaged weights: chain "
            "average_weights last, optax.chain(..., average_weights(start))"
        )
    if which is None and len(found) > 1:
        raise InputError(
            f"opt_state holds {len(found)} averages: say which, 0 to {len(found) - 1} "
            "in the order of the chain"
        )
    if which is None:
        return found[0]
    return found[checks.whole("which", which, most=len(found) - 1)]


def _add(due: Any, total: Any, lost: Any, weight: Any) -> tuple[Any, Any]:
    """Neumaier's summation: adds a term where it is due, keeps what rounding takes."""
    term = weight.astype(total.dtype)
    new = total + term
    larger = jnp.abs(total) >= jnp.abs(term)
    error = jnp.where(larger, (total - new) + term, (term - new) + total)
    return jnp.where(due, new, total), jnp.where(due, lost + error, lost)


def _wide(leaf: Any) -> Any:
    """What weights are added up in: float32 at the least."""
    dtype = jnp.result_type(leaf)
    if not jnp.issubdtype(dtype, jnp.inexact):
        return jnp.dtype(jnp.float32)  # outside the mask, see `_check_leaves`
    return dtype if jnp.finfo(dtype).bits >= 32 else jnp.dtype(jnp.float32)


def _check_leaves(params: Any, selected: Any) -> None:
    """Raises InputError for whole numbers, which have no mean, within the mask."""
    for number, (path, leaf) in enumerate(jax.tree_util.tree_leaves_with_path(params)):
        if jnp.issubdtype(jnp.result_type(leaf), jnp.inexact):
            continue
        if selected is None or bool(jax.tree.leaves(selected)[number].any()):
            name = jax.tree_util.keystr(path, simple=True, separator="/")
            raise InputError(
                f"params: {name} has dtype {jnp.result_type(leaf)}, and whole numbers "
                "are not averaged; leave it out with mask="
            )


def _as_arrays(mask: Callable[[Any], Any] | Any, params: Any) -> Any:
    """A mask as boolean arrays like the parameters.

    Raises:
        InputError: it does not fit, holds no booleans, or selects nothing.
    """
    with jax.ensure_compile_time_eval():  # a mask has values under `jit` too
        tree = mask(params) if callable(mask) else mask
        try:
            tree = jax.tree.broadcast(tree, params)
        except ValueError as error:
            raise InputError(
                "mask has another structure than the parameters: "
                f"{jax.tree.structure(tree)} and {jax.tree.structure(params)}"
            ) from error

        def array(path: Any, selected: Any, leaf: Any) -> np.ndarray:
            name = jax.tree_util.keystr(path, simple=True, separator="/")
            return checks.mask_leaf(name, np.asarray(selected), jnp.shape(leaf))

        tree = jax.tree_util.tree_map_with_path(array, tree, params)
    if not any(leaf.any() for leaf in jax.tree.leaves(tree)):
        raise InputError("mask selects no entry of the parameters: nothing to average")
    return jax.tree.map(jnp.asarray, tree)
