"""A Flax NNX model and labelled examples as an objective."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from lrscape import checks
from lrscape.errors import InputError
from lrscape.landscape import tree
from lrscape.landscape.model_objective import ModelObjective, model_objective, own_point


@dataclasses.dataclass(frozen=True, eq=False)
class NNXNetwork:
    """An NNX model as a function of its weights.

    Attributes:
        rest: variables that are neither trained nor batch statistics, such as the
            states of random streams.
        stats: the running averages' shapes, as arrays.
        graphs: how the model is put together in eval mode, and with batch norm in
            train mode.
        momenta: the momentum of each batch norm, by its path.
        axes: what the arrays are, where their names do not tell, for the L2 term and
            for directions; see `lrscape.layers.roles`.
        call: ``(model, inputs) -> outputs``.
    """

    rest: Any
    stats: Any
    graphs: tuple[Any, Any]
    momenta: tuple[tuple[str, float], ...]
    call: Callable[[Any, Any], Any]

    # NNX stops the gradient of what it adds to its running averages.
    differentiates_statistics = False

    @property
    def name(self) -> str:
        """The model's class."""
        return self.graphs[0].nodes[0].type.__name__

    @property
    def settings(self) -> dict[str, Any]:
        """Whether random streams are part of the model."""
        if not jax.tree.leaves(self.rest):
            return {}
        return {"random_streams": "restarted at every call"}

    def outputs(self, params: Any, batch_stats: Any, inputs: Any) -> jax.Array:
        """(n, outputs), batch norm normalising by `batch_stats`."""
        model = nnx.merge(self.graphs[0], params, batch_stats, self.rest, copy=True)
        return self.call(model, inputs)

    def train_outputs(self, params: Any, inputs: Any) -> tuple[jax.Array, Any]:
        """(n, outputs), batch norm normalising by the batch; and its statistics.

        Batch norm keeps ``m * old + (1 - m) * batch``; from an old value of zero the
        batch's own follow exactly.
        """
        zeros = jax.tree.map(jnp.zeros_like, self.stats)
        model = nnx.merge(self.graphs[1], params, zeros, self.rest, copy=True)
        outputs = self.call(model, inputs)
        momenta = dict(self.momenta)

        def own(path: str, leaf: Any) -> Any:
            layer = next(p for p in momenta if path.startswith(f"{p}/"))
            return leaf / (1 - momenta[layer])

        updated = nnx.state(model, nnx.BatchStat)
        return outputs, tree.map_named(own, updated) if momenta else updated


jax.tree_util.register_dataclass(
    NNXNetwork,
    data_fields=["rest", "stats"],
    meta_fields=["graphs", "momenta", "call"],
)


def nnx_objective(
    model: nnx.Module,
    data: Any,
    *,
    norm: str,
    batch_size: int,
    wrt: Any = nnx.Param,
    loss: str | Callable[[jax.Array, jax.Array], jax.Array] = "cross_entropy",
    l2: float = 0.0,
    error: bool = False,
    calibration: Any = None,
    axes: Any = None,
    call: Callable[[Any, Any], Any] | None = None,
) -> ModelObjective:
    r"""Makes an objective of a Flax NNX model and labelled examples.

    .. math::

        L(\theta) = \frac{1}{N} \sum_n \ell(f(x_n, \theta), y_n)
            + \frac{\lambda}{2} \sum_{w \in \text{weights}} w^2

    The model is taken as it is now and is not changed. Dropout is off, that of
    attention too (every submodule with an attribute ``deterministic``). Noise that a
    module draws from its own ``nnx.Rngs`` is the same at every point, since its
    streams start from where they are now at every call.

    Args:
        model: called as ``model(inputs)``.
        data: ``(inputs, labels)``, or a mapping with ``'image'`` and ``'label'``;
            inputs are what the model is called with.
        norm: how batch norm normalises: ``'train'``, by each batch's own statistics;
            ``'eval'``, by the model's running averages; ``'recalibrate'``, by
            statistics estimated at every point over the sample's batches;
            ``'interpolate'``, by statistics that are part of the point, which is then
            ``{'params': ..., 'batch_stats': ...}``. For a model without batch norm all
            four are the same. By ``'recalibrate'`` slopes along a direction are
            refused, since NNX does not differentiate its statistics.
        batch_size: examples a batch. By ``'train'`` it is a setting of the loss itself.
        wrt: an NNX filter: the variables that are trained, as of `nnx.Optimizer`. All
            others stay as they are.
        loss: ``'cross_entropy'`` with integer labels, in nats; ``'squared_error'``,
            summed over outputs; or a function ``(outputs, labels) -> (n,)``.
        l2: :math:`\lambda`: adds half of it times the squared norm of the weights.
        error: the loss is then a dict, ``{'loss': ..., 'error': ...}``, with the
            fraction of wrong labels beside it.
        calibration: inputs (n, ...) that ``'recalibrate'`` estimates statistics on
            instead.
        axes: what the arrays are, where their names do not tell, for the L2 term and
            for directions; see `lrscape.layers.roles`.
        call: ``(model, inputs) -> outputs`` of shape (n, outputs), for models that are
            called otherwise.

    Returns:
        The objective; ``objective.point`` is the model's trained weights, an
        ``nnx.State`` as `nnx.state` gives it.

    Raises:
        InputError: no NNX model, nothing that is trained, an unknown name, or examples
            that do not fit.

    Example:
        >>> from flax import nnx
        >>> model = nnx.Linear(2, 3, rngs=nnx.Rngs(0))
        >>> data = jnp.eye(2), jnp.array([0, 1])
        >>> objective = nnx_objective(model, data, norm='eval', batch_size=2)
        >>> objective.point['kernel'].shape, objective(objective.point).shape
        ((2, 3), ())
    """
    if not isinstance(model, nnx.Module):
        raise InputError(
            f"model={checks.shown(model)} must be an nnx.Module; for a Linen module "
            "use flax_objective"
        )
    call = (
        _call
        if call is None
        else checks.function("call", call, takes="(model, inputs)")
    )
    model = nnx.clone(model)
    model.eval()
    parts: Any = nnx.split(model, wrt, nnx.BatchStat, ...)
    graph, params, stats, rest = parts
    if not jax.tree.leaves(params):
        raise InputError(
            f"wrt={checks.shown(wrt)} selects no variable of the model: pass the type "
            "of those that are trained, such as nnx.Param"
        )
    momenta = {}
    for path, layer in nnx.iter_modules(model):
        if isinstance(layer, nnx.BatchNorm):
            layer.use_running_average = False
            momenta["/".join(map(str, path))] = float(layer.momentum)
    for name in tree.leaf_names(stats):
        if not any(name.startswith(f"{p}/") and m < 1 for p, m in momenta.items()):
            raise InputError(
                f"model: the batch statistics {name} belong to no nnx.BatchNorm of a "
                "momentum below 1; store them as another type of variable than "
                "nnx.BatchStat"
            )
    train_graph = nnx.split(model, wrt, nnx.BatchStat, ...)[0]
    network = NNXNetwork(
        rest, stats, (graph, train_graph), tuple(sorted(momenta.items())), call
    )
    network, params, stats = jax.tree.map(tree.own, (network, params, stats))
    return model_objective(
        network, data, params=params, batch_stats=stats,
        point=own_point(params, stats, norm), norm=norm, batch_size=batch_size,
        loss=loss, l2=l2, error=error, calibration=calibration, axes=axes,
    )  # fmt: skip


def _call(model: Any, inputs: Any) -> Any:
    return model(inputs)
