"""An Equinox model and labelled examples as an objective."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from lrscape import checks
from lrscape.errors import InputError
from lrscape.landscape import tree
from lrscape.landscape.model_objective import ModelObjective, model_objective, own_point


@dataclasses.dataclass(frozen=True, eq=False)
class EquinoxNetwork:
    """An Equinox model as a function of its weights.

    Attributes:
        frozen: its arrays that are not trained, a tree like the model.
        state: its `equinox.nn.State`; None where it has none.
        static: what is left of it in inference mode, and with batch norm in training
            mode; each compared by identity.
        call: ``(model, example[, state]) -> output[, state]``.
    """

    frozen: Any
    state: Any
    static: tuple[Any, Any]
    call: Callable[..., Any]

    @property
    def name(self) -> str:
        """The model's class."""
        return type(self.static[0].value).__name__

    @property
    def settings(self) -> dict[str, Any]:
        """Empty: an Equinox model has no settings besides its leaves."""
        return {}

    def outputs(self, params: Any, batch_stats: Any, inputs: Any) -> jax.Array:
        """(n, outputs), batch norm normalising by `batch_stats`."""
        return self._run(0, params, batch_stats, inputs)[0]

    def train_outputs(self, params: Any, inputs: Any) -> tuple[jax.Array, Any]:
        """(n, outputs), batch norm normalising by the batch; and its statistics."""
        return self._run(1, params, None, inputs)

    def _run(self, mode: int, params: Any, stats: Any, inputs: Any) -> Any:
        import equinox as eqx

        model = eqx.combine(params, self.frozen, self.static[mode].value)
        layers = _batch_norms(model)
        axis = next((layer.axis_name for layer in layers.values()), "batch")
        if self.state is None:
            return jax.vmap(lambda x: self.call(model, x), axis_name=axis)(inputs), {}
        # A copy: Equinox refuses a state that was set before.
        state = jax.tree.map(lambda leaf: leaf, self.state)
        for name, layer in layers.items():
            state = _with_statistics(layer, state, None if mode else stats[name])
        outputs, state = jax.vmap(
            lambda x: self.call(model, x, state),
            axis_name=axis,
            out_axes=(0, None),
        )(inputs)
        found = {n: _statistics_of(layer, state) for n, layer in layers.items()}
        return outputs, found


@dataclasses.dataclass(frozen=True)
class _ByIdentity:
    """Something that cannot be compared by its contents."""

    value: Any

    def __hash__(self) -> int:
        return id(self.value)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _ByIdentity) and self.value is other.value


jax.tree_util.register_dataclass(
    EquinoxNetwork, data_fields=["frozen", "state"], meta_fields=["static", "call"]
)


def equinox_objective(
    model: Any,
    data: Any,
    *,
    batch_size: int,
    norm: str = "eval",
    state: Any = None,
    trained: Any = None,
    loss: str | Callable[[jax.Array, jax.Array], jax.Array] = "cross_entropy",
    l2: float = 0.0,
    error: bool = False,
    calibration: Any = None,
    axes: Any = None,
    call: Callable[..., Any] | None = None,
) -> ModelObjective:
    r"""Makes an objective of an Equinox model and labelled examples.

    .. math::

        L(\theta) = \frac{1}{N} \sum_n \ell(f(x_n, \theta), y_n)
            + \frac{\lambda}{2} \sum_{w \in \text{weights}} w^2

    The model is that of a single example, as Equinox has it, and is mapped over the
    batch. Dropout is off (`equinox.nn.inference_mode`). A module that takes a ``key``
    is handed the same one at every point.

    Args:
        model: an `equinox.Module`, called as ``model(example)``, or as
            ``model(example, state)`` where there is a state.
        data: ``(inputs, labels)``, or a mapping with ``'image'`` and ``'label'``.
        batch_size: examples a batch. By ``norm='train'`` it is a setting of the loss
            itself.
        norm: how `equinox.nn.BatchNorm` normalises: ``'eval'``, by the state's running
            averages; ``'train'``, by each batch's own statistics; ``'recalibrate'``, by
            statistics estimated at every point over the sample's batches;
            ``'interpolate'``, by statistics that are part of the point, which is then
            ``{'params': ..., 'batch_stats': ...}``.
        state: the `equinox.nn.State` that `equinox.nn.make_with_state` gives beside
            the model; needed where it has batch norm.
        trained: a tree of booleans like the model, or a function of a leaf: which
            arrays are trained. None is all floating-point arrays.
        loss: ``'cross_entropy'`` with integer labels, in nats; ``'squared_error'``,
            summed over outputs; or a function ``(outputs, labels) -> (n,)``.
        l2: :math:`\lambda`: adds half of it times the squared norm of the weights.
        error: the loss is then a dict, ``{'loss': ..., 'error': ...}``.
        calibration: inputs (n, ...) that ``'recalibrate'`` estimates statistics on
            instead.
        axes: what the arrays are, where their names do not tell, for the L2 term and
            for directions; see `lrscape.layers.roles`.
        call: for models that are called otherwise: ``(model, example) -> output``, or
            ``(model, example, state) -> (output, state)``.

    Returns:
        The objective; ``objective.point`` is the model's trained weights, a model whose
        other leaves are None.

    Raises:
        InputError: no Equinox module, batch norm without a state, an unknown name,
            examples that do not fit, or Equinox is not installed.

    Example:
        >>> import pytest
        >>> eqx = pytest.importorskip('equinox')
        >>> model = eqx.nn.Linear(2, 3, key=jax.random.key(0))
        >>> data = jnp.eye(2), jnp.array([0, 1])
        >>> objective = equinox_objective(model, data, batch_size=2)
        >>> objective.point.weight.shape, objective(objective.point).shape
        ((3, 2), ())
    """
    try:
        import equinox as eqx
    except ImportError as missing:
        raise InputError(
            "equinox_objective needs Equinox, which is not installed: pip install "
            "equinox"
        ) from missing
    if not isinstance(model, eqx.Module):
        raise InputError(
            f"model={checks.shown(model)} must be an equinox.Module; with a state, "
            "pass it as state="
        )
    if state is None and _batch_norms(model):
        raise InputError(
            "state=None: the model has batch norm, whose running averages are in the "
            "state that equinox.nn.make_with_state gives beside it: pass state=..."
        )
    if state is not None and not isinstance(state, eqx.nn.State):
        raise InputError(f"state={checks.shown(state)} must be an equinox.nn.State")
    if call is None:
        call = _call_with_key if _takes_key(model) else _call
    checks.function("call", call, takes="(model, example) or (model, example, state)")
    wanted = eqx.is_inexact_array if trained is None else trained
    quiet = eqx.nn.inference_mode(model, True)
    params, others = eqx.partition(quiet, wanted)
    frozen, static = eqx.partition(others, eqx.is_array)
    with_batches = eqx.tree_at(
        lambda tree: [layer.inference for layer in _batch_norms(tree).values()],
        quiet,
        [False for _ in _batch_norms(quiet)],
    )
    train_static = eqx.filter(with_batches, lambda leaf: not eqx.is_array(leaf))
    network = EquinoxNetwork(
        frozen, state, (_ByIdentity(static), _ByIdentity(train_static)), call
    )
    stats = {n: _statistics_of(b, state) for n, b in _batch_norms(quiet).items()}
    if not jax.tree.leaves(params):
        raise InputError("trained selects no array of the model")
    network, params, stats = jax.tree.map(tree.own, (network, params, stats))
    return model_objective(
        network, data, params=params, batch_stats=stats,
        point=own_point(params, stats, norm), norm=norm, batch_size=batch_size,
        loss=loss, l2=l2, error=error, calibration=calibration, axes=axes,
    )  # fmt: skip


def _call(model: Any, example: Any, *state: Any) -> Any:
    return model(example, *state)


def _call_with_key(model: Any, example: Any, *state: Any) -> Any:
    return model(example, *state, key=jax.random.key(0))


def _takes_key(model: Any) -> bool:
    return "key" in inspect.signature(type(model).__call__).parameters


def _batch_norms(model: Any) -> dict[str, Any]:
    """Every batch norm of a model, by its path."""
    import equinox as eqx

    def is_batch_norm(node: Any) -> bool:
        return isinstance(node, eqx.nn.BatchNorm)

    found = jax.tree_util.tree_leaves_with_path(model, is_leaf=is_batch_norm)
    return {
        jax.tree_util.keystr(path, simple=True, separator="/"): node
        for path, node in found
        if is_batch_norm(node)
    }


def _with_statistics(layer: Any, state: Any, stats: Any) -> Any:
    """A state by whose mean and variance a layer normalises; None starts afresh."""
    if layer.mode == "ema":
        first, index = layer.ema_first_time_index, layer.ema_state_index
        if stats is None:  # the first batch's own statistics count in full
            return state.set(first, jnp.array(True))
        return state.set(index, (stats["mean"], stats["var"]))
    counter, index = layer.batch_counter, layer.batch_state_index
    state = state.set(counter, jnp.zeros_like(state.get(counter)))
    if stats is None:
        zeros = tree.scale(0, state.get(index))
        return state.set(index, zeros)
    return state.set(index, (stats["mean"], stats["var"]))


def _statistics_of(layer: Any, state: Any) -> dict[str, Any]:
    """The mean and variance that a layer in inference mode normalises by."""
    if layer.mode == "ema":
        mean, var = state.get(layer.ema_state_index)
        return {"mean": mean, "var": var}
    mean, var = state.get(layer.batch_state_index)
    count = state.get(layer.batch_counter)
    seen = 1 - jnp.asarray(layer.momentum, mean.dtype) ** count.astype(mean.dtype)
    scale = jnp.where(count == 0, jnp.ones_like(seen), seen)
    return {"mean": mean / scale, "var": var / scale}
