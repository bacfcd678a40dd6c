"""Networks of paper 2, each trained once by one method, and what is seen of them."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from experiments.harness import arms
from experiments.loss_surfaces.methods import Method
from lrscape import landscape, models, training
from lrscape.errors import InputError
from lrscape.landscape import tree
from lrscape.landscape.model_objective import ModelObjective
from lrscape.runs import Snapshot

FINAL = "final"
# What a seed's key is folded with, beyond what training folds it with.
START = 100


@dataclasses.dataclass(frozen=True, kw_only=True)
class ArmConfig(arms.ArmConfig):
    """How a network is trained.

    Attributes:
        model_options: the model's own fields.
        method: how it is optimized.
        weight_decay: of an L2 term on weights.
        start: mean and deviation that all weights and biases are drawn by at first;
            None: as the model draws them.
        order: which order of the examples, and which dropout and augmentation; 0 is
            what the seed gives, and what all methods share.
        reordered: the epoch after which that order begins.
    """

    model_options: dict[str, Any]
    method: Method
    weight_decay: float
    start: tuple[float, float] | None
    order: int
    reordered: int

    def make_model(self, num_classes: int) -> nn.Module:
        """The Linen module."""
        return models.create(
            self.model, num_classes=num_classes, **self.model_options
        )  # fmt: skip


class Arm(arms.Arm):
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

    @property
    def kept(self) -> Mapping[int, tuple[str, ...]]:
        """The last update's weights."""
        return {self.config.total_steps(self.data): (FINAL,)}

    def initial_state(self) -> training.TrainState:
        """The state before the first update."""
        state, config = super().initial_state(), self.config
        if config.start is not None:
            key = jax.random.fold_in(state.key, START)
            params = drawn(key, state.params, *config.start)
            state = state.replace(params=params, opt_state=self.tx.init(params))
        if config.order and not config.reordered:
            # Another order, dropout and augmentation, of the same initial weights.
            state = state.replace(key=jax.random.fold_in(state.key, config.order))
        return state

    @functools.cached_property
    def initial(self) -> Any:
        """Its parameters before the first update."""
        return self.initial_state().params

    @functools.cached_property
    def final(self) -> Snapshot:
        """After the last update; trains what is missing.

        Raises:
            InputError: the run failed before.
        """
        self.history()
        if FINAL not in self.snapshots:
            raise InputError(
                f"{str(self.records.path)!r} has no last weights: its loss stopped "
                "being finite; lower its rates, or look at other seeds"
            )
        return self.snapshots[FINAL]

    def watch(self) -> arms.Watch:
        """Losses, errors and the distance from the start."""
        return _Watch(self)

    def objective(self, count: int, batch_size: int, **options: Any) -> ModelObjective:
        """The mean loss over training examples, dropout off.

        Batch norm normalises by each batch's own statistics, as it trains.
        """
        images, labels = self.examples("train", count)
        return landscape.flax_objective(
            self.model, (images, labels), norm="train",
            batch_size=min(batch_size, len(labels)), **options,
        )  # fmt: skip

    def _train(self, rows, checkpoints, signals):
        if self.config.reordered and not checkpoints.steps:
            try:
                rows = self._until_reordered(checkpoints)
            except training.NonFiniteLossError as error:
                return self._failed([{"epoch": 0}], error.step)
        return super()._train(rows, checkpoints, signals)

    def _until_reordered(self, checkpoints) -> list[arms.Row]:
        """Trains by the seed's own order, and leaves the state with another one."""
        watch, state = self.watch(), self.initial_state()
        rows = [{"epoch": 0, **watch.start(state)}]
        states = training.fit(
            self.model, self.data, self.tx, self.config,
            yield_every=self.steps_per_epoch, state=state,
        )  # fmt: skip
        for epoch in range(1, self.config.reordered + 1):
            state = next(states)
            rows.append(
                {"epoch": epoch, "rate": self.rate(state), **watch.epoch(state)}
            )
        rows[0]["rate"] = rows[-1]["rate"]
        self._save(rows)
        key = jax.random.fold_in(state.key, self.config.order)
        checkpoints.save(state.replace(key=key), {"seconds": 0.0})
        return rows


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


class _Watch:
    """Measures a network at one point of its training."""

    def __init__(self, arm: Arm):
        self._arm = arm
        self._evaluate = training.make_evaluate(arm.model, arm.data, arm.config)

    def start(self, state: training.TrainState) -> arms.Row:
        """What can be measured before any update too."""
        parts = ["train", "test"]
        if self._arm.data.validation is not None:
            parts.append("validation")
        row = {
            f"{part}_{name}": value
            for part in parts
            for name, value in self._evaluate(state, part).items()
        }
        moved = landscape.parameter_distance(
            jax.device_get(state.params), jax.device_get(self._arm.initial)
        )
        return {**row, "distance": float(moved)}

    def epoch(self, state: training.TrainState) -> arms.Row:
        """What is measured after an epoch."""
        return self.start(state)
