"""The state of training: everything that a resumed run needs."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import optax

from lrscape import checks
from lrscape.data import Dataset, StreamedDataset, Text
from lrscape.errors import InputError
from lrscape.training.programs import reusing
from lrscape.transforms.switching import active_state

# What the run's key is folded with, so that no two uses share random numbers.
_INIT, ORDER, AUGMENT, DROPOUT, VIEW = range(5)


class TrainState(flax.struct.PyTreeNode):
    """One point of a run.

    Attributes:
        step: updates made so far, an int32 scalar.
        params: the model's parameters.
        batch_stats: batch norm's running averages; empty without batch norm.
        opt_state: the Optax state.
        key: the PRNG key that every random number is derived from; never changes.
        metrics: sums over the updates since the last multiple of ``log_every``; read
            them with `averages`.
        first_bad_step: the first update whose loss or gradient was not finite, or -1.
    """

    step: jax.Array
    params: Any
    batch_stats: Any
    opt_state: optax.OptState
    key: jax.Array
    metrics: dict[str, jax.Array]
    first_bad_step: jax.Array

    @property
    def variables(self) -> dict[str, Any]:
        """The variables that ``model.apply`` takes."""
        if jax.tree.leaves(self.batch_stats):
            return {"params": self.params, "batch_stats": self.batch_stats}
        return {"params": self.params}


class TextState(TrainState):
    """One point of a run on a text; see `TrainState`.

    Attributes:
        carry: where the network stands in each stream of the text, a tree of arrays
            (batch_size, ...).
    """

    carry: Any


def no_metrics() -> dict[str, jax.Array]:
    """Sums over no updates."""
    names = ("loss", "error", "gradient_norm", "count")
    return {name: jnp.zeros([], jnp.float32) for name in names}


def initial_state(
    model: nn.Module,
    data: Dataset | StreamedDataset | Text,
    tx: optax.GradientTransformation,
    seed: int,
    *,
    example: jax.Array | None = None,
) -> TrainState:
    """The state before the first update.

    Args:
        model: called as ``model(x, train=...)``.
        data: gives the shape of an image, or says that tokens go in.
        tx: the transformation to be trained with.
        seed: of the initial weights and of everything random that follows.
        example: what goes into the model, an array with a leading axis; None is what
            `data` says. Its values do not matter.

    Returns:
        The state, on the default device.

    Raises:
        InputError: a model with variables other than parameters and batch statistics.
    """
    return make_initial_state(model, data, tx, example)(seed)


def variables_of(state: Any) -> dict[str, Any]:
    """The variables that ``model.apply`` takes, from a state or a snapshot."""
    if not hasattr(state, "variables"):
        raise InputError(
            f"state={checks.shown(state)} has no variables: pass a state of training, "
            "or a snapshot"
        )
    return state.variables


def check_state(state: Any, name: str = "state") -> None:
    """Raises InputError for what is no state of training."""
    way_out = "made by initial_state, yielded by fit, or restored"
    checks.instance(name, state, TrainState, way_out=way_out)


def make_initial_state(
    model: nn.Module,
    data: Dataset | StreamedDataset | Text,
    tx: optax.GradientTransformation,
    example: jax.Array | None = None,
) -> Callable[[int], TrainState]:
    """Makes ``seed -> state``, see `initial_state`, compiled once for all seeds."""
    checks.linen_module("model", model)
    checks.transformation("tx", tx)
    if example is not None:
        example = jnp.asarray(checks.numbers("example", example))
        if not example.ndim:
            raise InputError(
                f"example={checks.shown(example)} needs a leading axis of examples"
            )
    else:
        way_out = "lrscape.data.load('digits'), say"
        checks.instance("data", data, (Dataset, StreamedDataset, Text), way_out=way_out)
        example = (
            jnp.zeros((1, 1), jnp.int32)
            if isinstance(data, Text)
            else jnp.zeros((1, *data.image_shape), jnp.float32)
        )
    # Compiled as one program: many times faster than layer by layer.
    init = reusing(lambda key, x: model.init(key, x, train=False), jax.jit)

    def state_of(seed: int) -> TrainState:
        key = jax.random.key(checks.seed("seed", seed))
        variables = dict(init(jax.random.fold_in(key, _INIT), example))
        params = variables.pop("params")
        batch_stats = variables.pop("batch_stats", {})
        if variables:
            raise InputError(
                f"model={type(model).__name__} has the collections "
                f"{sorted(variables)}; only 'params' and 'batch_stats' are trained"
            )
        return TrainState(
            step=jnp.zeros([], jnp.int32),
            params=params,
            batch_stats=batch_stats,
            opt_state=tx.init(params),
            key=key,
            metrics=no_metrics(),
            first_bad_step=jnp.full([], -1, jnp.int32),
        )

    return state_of


def averages(state: TrainState) -> dict[str, float]:
    """Training metrics since the last multiple of ``log_every``, an average an update.

    Returns:
        ``loss``, ``error`` (a fraction) and ``gradient_norm``; NaN before any update.
    """
    check_state(state)
    sums = {name: float(value) for name, value in state.metrics.items()}
    count = sums.pop("count")
    return {name: value / count if count else np.nan for name, value in sums.items()}


def learning_rate(
    opt_state: optax.OptState,
) -> jax.Array | dict[str, jax.Array] | None:
    """The rate that the last update used, read from the optimizer's state.

    Finds the scalars named ``learning_rate`` that `lrscape.transforms.scale_by_rate`
    and `optax.inject_hyperparams` keep, or else ``lipschitz_rate``; schedules of that
    name are passed over. Within `lrscape.transforms.switch` it is that of the optimizer
    that made the last update. An NNX optimizer's state will do.

    Args:
        opt_state: the state of any Optax transformation.

    Returns:
        A scalar array; of `optax.partition` (or ``multi_transform``) with a rate under
        several labels a dict of them, by label; None where the state holds no rate, as
        that of ``optax.adam(schedule)``, which holds a count alone.

    Raises:
        InputError: several rates that no label tells apart.

    Example:
        >>> import optax
        >>> from lrscape.transforms import scale_by_gaussian
        >>> tx = optax.chain(optax.scale_by_adam(), scale_by_gaussian(0.5, 10))
        >>> print(f'{learning_rate(tx.init(1.0)):.5f}')
        0.00005
        >>> learning_rate(optax.adam(0.1).init(1.0)) is None
        True
    """
    state = active_state(without_variables(opt_state))
    for name in ("learning_rate", "lipschitz_rate"):
        found = [
            (_label(path), jnp.asarray(value))
            for path, value in optax.tree.get_all_with_path(state, name)
            if isinstance(value, jax.Array | np.ndarray | np.generic | float)
            and np.ndim(value) == 0
        ]
        by_label = {label: value for label, value in found if label is not None}
        if len(found) > 1 and len(by_label) == len(found):
            return by_label
        if len(found) > 1:
            raise InputError(
                f"opt_state holds {len(found)} rates named {name!r}, which no label of "
                "optax.partition tells apart; read the one that is wanted with "
                f"optax.tree.get_all_with_path(opt_state, {name!r})"
            )
        if found:
            return found[0][1]
    return None


def without_variables(tree: Any) -> Any:
    """A tree in which each NNX variable is replaced by the array that it holds."""
    from flax import nnx

    if isinstance(tree, nnx.State):
        return nnx.to_pure_dict(tree)

    def is_variable(node: Any) -> bool:
        return isinstance(node, nnx.Variable)

    def value(node: Any) -> Any:
        return node.get_value() if is_variable(node) else node

    return jax.tree.map(value, tree, is_leaf=is_variable)


def _label(path: Any) -> str | None:
    """The label of `optax.partition` under which a path lies; None under none."""
    labels = [
        str(after.key)
        for before, after in itertools.pairwise(path)
        if "inner_states"
        in (getattr(before, "name", None), getattr(before, "key", None))
        and hasattr(after, "key")
    ]
    return "/".join(labels) or None
