"""Networks of paper 4: averaged while they are trained, and gone on from."""

from __future__ import annotations

import dataclasses
import functools
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments.harness import network
from experiments.harness.rates import scale_by_rates
from lrscape import landscape, training, transforms
from lrscape.data.augment import augment_batch
from lrscape.errors import InputError
from lrscape.landscape import masks
from lrscape.landscape.model_objective import ModelObjective
from lrscape.runs import RunConfig, Snapshot
from lrscape.training.device_data import DeviceData

AVERAGE = "average"
# Updates that the table of rates has room for, at the least.
SHARED = 256
# What is averaged: all entries, those of batch norm, or as many others.
ALL, NORMS, OTHERS = "all", "batch_norm", "others"


@dataclasses.dataclass(frozen=True, kw_only=True)
class NetworkConfig(RunConfig):
    """How a network is trained: a run's settings and these.

    Attributes:
        averaged_from: the epoch after which the first weights are averaged, then those
            after each epoch; None: none are.
        draws: sets of other entries, as many as batch norm has, that are averaged
            alone.
        parent: the directory's name of the network that this one goes on from; None:
            it starts anew.
        measured_every: epochs from one measurement of errors to the next.
        calibration: training examples that batch norm's statistics are estimated on.
    """

    averaged_from: int | None
    draws: int
    parent: str | None
    measured_every: int
    calibration: int | None


class Network(network.Network):
    """A network, whose history holds errors by statistics that are estimated anew.

    Of each epoch that is measured ``train_loss``, ``train_error``, ``test_loss`` and
    ``test_error``, and of averages the same under ``all_``, ``batch_norm_`` and
    ``others_N_``; all over whole parts of the data, not augmented. ``seen_loss`` and
    ``seen_error`` are those of the epoch's own updates.

    Attributes:
        start: weights that it goes on from, or None.
    """

    def __init__(self, config: NetworkConfig, path: Path, start: Any = None):
        super().__init__(config, path)
        self.start: Snapshot | None = start

    @functools.cached_property
    def tx(self) -> Any:
        """Its optimizer; weight averaging is chained last."""
        config, total = self.config, self.config.total_steps(self.data)
        rate = config.make_schedule(total, self.steps_per_epoch)
        rates = np.asarray(rate(jnp.arange(total)))
        # Runs of different lengths share one compiled program.
        rates = np.pad(rates, (0, max(0, SHARED - total)), "edge")
        tx = optax.chain(
            optax.add_decayed_weights(config.weight_decay),
            optax.trace(config.momentum),
            scale_by_rates(rates),
        )
        if config.averaged_from is None:
            return tx
        per_epoch = self.steps_per_epoch
        averaging = transforms.average_weights(
            config.averaged_from * per_epoch, every=per_epoch, total_steps=total
        )
        return optax.chain(tx, averaging)

    def initial_state(self) -> training.TrainState:
        """The state before the first update: a new one, or where another ended."""
        state = super().initial_state()
        if self.start is None:
            return state
        params = self.start.params
        return state.replace(
            params=params, batch_stats=self.start.batch_stats,
            opt_state=self.tx.init(params),
        )  # fmt: skip

    def masks(self, params: Any) -> dict[str, Any]:
        """What is averaged, by name: boolean trees, or None for everything.

        A network without batch norm has only the average of everything.
        """
        found: dict[str, Any] = {ALL: None}
        try:
            found[NORMS] = masks.as_mask(masks.batch_norm_only, params)
        except InputError:
            return found
        for draw in range(self.config.draws):
            key = jax.random.fold_in(jax.random.key(self.config.seed), draw)
            found[f"{OTHERS}_{draw}"] = masks.as_many_others(
                masks.batch_norm_only, params, key=key
            )
        return found

    def recalibrated(self, params: Any) -> Any:
        """Batch norm's statistics for these parameters, on training examples."""
        return self._statistics.at(params).batch_stats or {}

    @functools.cached_property
    def _statistics(self) -> Any:
        images, labels = self.examples("train", self.config.calibration)
        return landscape.flax_objective(
            self.model, (images, labels), norm="recalibrate",
            batch_size=self.config.batch_size,
        )  # fmt: skip

    @property
    def kept(self) -> dict[int, tuple[str, ...]]:
        """The updates after which weights are kept, and the names of those."""
        kept, last = super().kept, self.config.total_steps(self.data)
        if self.config.averaged_from is not None:
            kept[last] = (*kept[last], AVERAGE)
        return kept

    def snapshot(self, name: str, state: training.TrainState) -> training.TrainState:
        """The state whose weights a snapshot of a name holds."""
        if name != AVERAGE:
            return state
        params = transforms.averaged(state.opt_state, state.params)
        return state.replace(params=params, batch_stats=self.recalibrated(params))

    def measure(self, state: training.TrainState) -> network.Row:
        """Errors of the weights and of their averages, where they are measured."""
        config = self.config
        epoch = int(state.step) // self.steps_per_epoch
        if epoch % config.measured_every and epoch != config.epochs:
            return {}
        row = self._errors(state, state.params, "", "whole_train")
        first = config.averaged_from
        if first is None or epoch < max(1, first):
            return row
        means = transforms.averaged(state.opt_state, state.params)
        for name, mask in self._masks.items():
            params = means if mask is None else merged(mask, means, state.params)
            parts = ("all_train",) if mask is None else ()
            row |= self._errors(state, params, f"{name}_", *parts)
        return row

    @functools.cached_property
    def _masks(self) -> dict[str, Any]:
        return self.masks(self.initial_state().params)

    def _errors(self, state, params, prefix: str, *train: str) -> network.Row:
        """Errors on test examples, and on training examples under a name of theirs."""
        stats = self.recalibrated(params)
        state = state.replace(params=params, batch_stats=stats)
        named = {**dict.fromkeys(train, "train"), f"{prefix}test": "test"}
        return {
            f"{name}_{quantity}": value
            for name, part in named.items()
            for quantity, value in self.evaluate(state, part).items()
        }

    def row_of(self, line: network.Row) -> network.Row:
        """A line of the metrics, with whole parts of the data under the plain names."""
        row = {}
        for name, value in line.items():
            for old, new in (("train_", "seen_"), ("whole_train_", "train_")):
                if name.startswith(old):
                    name = name.replace(old, new, 1)
                    break
            row[name] = value
        return row

    def measured(self) -> list[network.Row]:
        """The rows of the history in which errors were measured."""
        return [row for row in self.history() if "test_error" in row]

    def objective(
        self, part: str, count: int | None, *, batch_size: int, augment: bool = False
    ) -> ModelObjective:
        """Loss and error over examples, batch norm's statistics estimated anew.

        At every point, on the training examples of the same number: for the loss on
        those themselves, where they are one batch, that is what ``norm='train'`` does.

        Args:
            part: ``'train'`` or ``'test'``.
            count: examples; None is all.
            batch_size: examples a batch.
            augment: whether statistics are those of augmented images, one draw of
                them.
        """
        images, labels = self.examples(part, count)
        own, _ = (images, labels) if part == "train" else self.examples("train", count)
        whole = len(labels) <= batch_size
        options: dict[str, Any] = {"norm": "recalibrate"}
        if augment and self.config.augment:
            options["calibration"] = self._augmented(len(own))
        elif part != "train":
            options["calibration"] = own
        elif whole:
            options["norm"] = "train"
        return landscape.flax_objective(
            self.model, (images, labels), batch_size=batch_size, error=True, **options
        )

    def _augmented(self, count: int) -> jax.Array:
        at = jnp.arange(count)
        placed = DeviceData.of(
            self.data, "train", self.config.normalize, np.arange(count)
        )
        images = augment_batch(
            jax.random.key(self.config.seed), jnp.int32(0), at,
            jnp.asarray(placed.image), self.config.augment, float(placed.max_value),
        )  # fmt: skip
        return placed.normalize(images)


def merged(mask: Any, means: Any, params: Any) -> Any:
    """Averages where a mask selects, the weights elsewhere.

    What `lrscape.transforms.averaged` gives of `average_weights` with that mask: all
    masks' averages come from one run, and from one sum.
    """
    return jax.tree.map(jnp.where, mask, means, params)
