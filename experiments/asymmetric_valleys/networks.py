"""Networks of paper 4: averaged while they are trained, and gone on from."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments.harness import arms
from experiments.harness.rates import scale_by_rates
from lrscape import landscape, models, schedules, training, transforms
from lrscape.data.augment import augment_batch
from lrscape.errors import InputError
from lrscape.landscape import masks
from lrscape.landscape.model_objective import ModelObjective
from lrscape.runs import Snapshot, save_snapshot
from lrscape.training.device_data import DeviceData

AVERAGE = "average"
# Updates that the table of rates has room for, at the least.
SHARED = 256
# What is averaged: all entries, those of batch norm, or as many others.
ALL, NORMS, OTHERS = "all", "batch_norm", "others"


@dataclasses.dataclass(frozen=True, kw_only=True)
class NetworkConfig(arms.ArmConfig):
    """How a network is trained.

    Attributes:
        model_options: the model's own fields.
        rate: the first one.
        last_rate: of the end.
        falls: the rate goes from one to the other between these fractions of the run.
        momentum: of SGD.
        weight_decay: of an L2 term on all parameters, batch norm's too.
        averaged_from: the epoch after which the first weights are averaged, then those
            after each epoch; None: none are.
        draws: sets of other entries, as many as batch norm has, that are averaged
            alone.
        parent: the directory's name of the network that this one goes on from; None:
            it starts anew.
        measured_every: epochs from one measurement of errors to the next.
        calibration: training examples that batch norm's statistics are estimated on.
    """

    model_options: dict[str, Any]
    rate: float
    last_rate: float
    falls: tuple[float, float]
    momentum: float
    weight_decay: float
    averaged_from: int | None
    draws: int
    parent: str | None
    measured_every: int
    calibration: int | None

    def make_model(self, num_classes: int) -> nn.Module:
        """The Linen module."""
        return models.create(self.model, num_classes=num_classes, **self.model_options)


class Network(arms.Arm):
    """A network, whose history holds errors by statistics that are estimated anew.

    Of each epoch that is measured ``train_loss``, ``train_error``, ``test_loss`` and
    ``test_error``, and of averages the same under ``all_``, ``batch_norm_`` and
    ``others_N_``; all over whole parts of the data, not augmented. ``seen_loss`` and
    ``seen_error`` are those of the epoch's own updates.

    Attributes:
        start: weights that it goes on from, or None.
    """

    def __init__(
        self, config: NetworkConfig, path: Any, data_dir: str | None, start: Any = None
    ):
        super().__init__(config, path, data_dir)
        self.start: Snapshot | None = start

    @functools.cached_property
    def tx(self) -> Any:
        """Its optimizer; weight averaging is chained last."""
        config, total = self.config, self.config.total_steps(self.data)
        first, last = config.falls
        rate = schedules.swa(
            config.rate, total, swa_value=config.last_rate, start=first, end=last
        )
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

    def watch(self) -> arms.Watch:
        """Errors of the weights and of their averages."""
        return _Watch(self)

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

    def _keep(
        self, kept: Mapping[int, tuple[str, ...]], state: training.TrainState
    ) -> None:
        super()._keep(kept, state)
        last = int(state.step) == self.config.total_steps(self.data)
        if last and self.config.averaged_from is not None:
            params = transforms.averaged(state.opt_state, state.params)
            stats = self.recalibrated(params)
            save_snapshot(
                self.records, AVERAGE, state.replace(params=params, batch_stats=stats)
            )

    def at(self, name: str) -> Snapshot:
        """Weights that were kept, ``epoch_N`` or `AVERAGE`; trains what is missing.

        Raises:
            InputError: the run failed before.
        """
        self.history()
        if name not in self.snapshots:
            raise InputError(
                f"{str(self.records.path)!r} has no {name!r}: its loss stopped being "
                "finite before; lower its rates, or look at other seeds"
            )
        return self.snapshots[name]

    @property
    def final(self) -> Snapshot:
        """After the last epoch; trains what is missing."""
        return self.at(f"epoch_{self.config.epochs}")

    def measured(self) -> list[arms.Row]:
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


class _Watch:
    """Measures a network at one point of its training."""

    def __init__(self, network: Network):
        self._network = network
        self._evaluate = training.make_evaluate(
            network.model, network.data, network.config
        )
        self._masks: dict[str, Any] | None = None

    def start(self, state: training.TrainState) -> arms.Row:
        """What can be measured before any update too."""
        config = self._network.config
        epoch = int(state.step) // self._network.steps_per_epoch
        if epoch % config.measured_every and epoch != config.epochs:
            return {}
        row = self._errors(state, state.params, "")
        first = config.averaged_from
        if first is None or epoch < max(1, first):
            return row
        means = transforms.averaged(state.opt_state, state.params)
        if self._masks is None:
            self._masks = self._network.masks(state.params)
        for name, mask in self._masks.items():
            params = means if mask is None else merged(mask, means, state.params)
            row |= self._errors(state, params, f"{name}_", train=mask is None)
        return row

    def epoch(self, state: training.TrainState) -> arms.Row:
        """What is measured after an epoch."""
        seen = training.averages(state)
        row = {"seen_loss": seen["loss"], "seen_error": seen["error"]}
        return {**row, **self.start(state)}

    def _errors(self, state, params, prefix, *, train=True) -> arms.Row:
        stats = self._network.recalibrated(params)
        state = state.replace(params=params, batch_stats=stats)
        return {
            f"{prefix}{part}_{name}": value
            for part in (("train", "test") if train else ("test",))
            for name, value in self._evaluate(state, part).items()
        }


def merged(mask: Any, means: Any, params: Any) -> Any:
    """Averages where a mask selects, the weights elsewhere.

    What `lrscape.transforms.averaged` gives of `average_weights` with that mask: all
    masks' averages come from one run, and from one sum.
    """
    return jax.tree.map(jnp.where, mask, means, params)
