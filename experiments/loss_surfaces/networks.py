"""Networks of paper 2, each trained once by one method, and what is seen of them."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp

from experiments.harness import network
from experiments.loss_surfaces.methods import Method
from lrscape import landscape, training
from lrscape.landscape import tree
from lrscape.landscape.model_objective import ModelObjective
from lrscape.runs import RunConfig

# What a seed's key is folded with, beyond what training folds it with.
START = 100


@dataclasses.dataclass(frozen=True, kw_only=True)
class NetworkConfig(RunConfig):
    """How a network is trained: a run's settings and these.

    Attributes:
        method: how it is optimized.
        start: mean and deviation that all weights and biases are drawn by at first;
            None: as the model draws them.
        order: which order of the examples, and which dropout and augmentation; 0 is
            what the seed gives, and what all methods share.
        reordered: the epoch after which that order begins.
    """

    method: Method
    start: tuple[float, float] | None
    order: int
    reordered: int


class Network(network.Network):
    """A network that one method trains.

    Its history holds ``train_loss``, ``train_error``, ``test_loss``, ``test_error`` and
    where examples were held out ``validation_loss`` and ``validation_error``, in
    inference mode, and ``distance``, the norm of what the weights have moved by.
    """

    @functools.cached_property
    def tx(self) -> Any:
        """Its optimizer."""
        config = self.config
        return config.method.make(self.steps_per_epoch, config.weight_decay)

    def initial_state(self) -> training.TrainState:
        """The state before the first update."""
        state, config = super().initial_state(), self.config
        if config.start is not None:
            key = jax.random.fold_in(state.key, START)
            params = drawn(key, state.params, *config.start)
            state = state.replace(params=params, opt_state=self.tx.init(params))
        return state if config.reordered else self._ordered(state)

    def _ordered(self, state: training.TrainState) -> training.TrainState:
        """Another order, dropout and augmentation, of the same weights."""
        if not self.config.order:
            return state
        return state.replace(key=jax.random.fold_in(state.key, self.config.order))

    def adapt(self, state: training.TrainState, line: network.Row) -> Any:
        """The state with another order of the examples, where that begins."""
        reordered = self.config.reordered
        if reordered and int(state.step) == reordered * self.steps_per_epoch:
            return self._ordered(state)
        return None

    @functools.cached_property
    def initial(self) -> Any:
        """Its parameters before the first update."""
        return self.initial_state().params

    def measure(self, state: training.TrainState) -> network.Row:
        """Losses and errors of whole parts of the data, and the distance moved."""
        row = super().measure(state)
        for name, value in self.evaluate(state, "train").items():
            row[f"whole_train_{name}"] = value
        moved = landscape.parameter_distance(
            jax.device_get(state.params), jax.device_get(self.initial)
        )
        return {**row, "distance": float(moved)}

    def row_of(self, line: network.Row) -> network.Row:
        """A line of the metrics, with whole parts of the data in place of updates."""
        row = {k: v for k, v in line.items() if not k.startswith(("train_", "whole_"))}
        for name in ("loss", "error"):
            row[f"train_{name}"] = line[f"whole_train_{name}"]
        return row

    def objective(self, count: int, batch_size: int, **options: Any) -> ModelObjective:
        """The mean loss over training examples, dropout off.

        Batch norm normalises by each batch's own statistics, as it trains.
        """
        images, labels = self.examples("train", count)
        return landscape.flax_objective(
            self.model, (images, labels), norm="train",
            batch_size=min(batch_size, len(labels)), **options,
        )  # fmt: skip


def drawn(key: jax.Array, params: Any, mean: float, deviation: float) -> Any:
    """Weights and biases drawn anew; batch norm's scales and shifts stay.

    Args:
        key: a PRNG key.
        params: a tree of parameters.
        mean: of each entry.
        deviation: its standard deviation.

    Example:
        >>> params = {'Dense_0': {'bias': jnp.zeros(3)},
        ...           'BatchNorm_0': {'scale': jnp.ones(3)}}
        >>> made = drawn(jax.random.key(0), params, -10.0, 0.0)
        >>> print(made['Dense_0']['bias'], made['BatchNorm_0']['scale'])
        [-10. -10. -10.] [1. 1. 1.]
    """
    names = tree.leaf_names(params)
    keys = dict(zip(names, jax.random.split(key, len(names)), strict=True))

    def draw(name: str, leaf: Any) -> Any:
        if "BatchNorm" in name:
            return leaf
        noise = jax.random.normal(keys[name], leaf.shape, leaf.dtype)
        return jnp.asarray(mean, leaf.dtype) + jnp.asarray(deviation, leaf.dtype) * (
            noise
        )

    return tree.map_named(draw, params)
