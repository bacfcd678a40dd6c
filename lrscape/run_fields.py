"""The settings that runs on images and on texts share, as fields that JSON can hold."""

from __future__ import annotations

import dataclasses
import inspect
import reprlib
import types
from collections.abc import Mapping
from typing import Any, Self, get_args, get_origin, get_type_hints

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
import optax

from lrscape import checks, models, schedules
from lrscape.errors import InputError
from lrscape.extensions import EXACT, Extension, extended_schedule
from lrscape.training.config import LoopConfig
from lrscape.training.optimizers import create_optimizer

# Counts at which a schedule is looked at before data are read.
_COUNTS = 1000
# A rate that is 0 at more updates than the others trains nothing.
LEAST_MOVING = 0.01

# Cycles in a run, for a cyclical schedule that is told no length.
DEFAULT_CYCLES = 4


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunFields(LoopConfig):
    """The settings of a run, besides its data.

    Attributes:
        experiment: the name of the experiment that started it.
        preset: the preset that its fields came from.
        dataset: what it is trained on; see `load_data`.
        data_dir: where that lies; None is the usual place.
        model: see `lrscape.models.create`.
        model_options: the model's other fields.
        schedule: see `lrscape.schedules.create`.
        schedule_options: its arguments, all but ``total_steps``; a cyclical schedule
            without ``cycle_steps`` makes four cycles.
        per_epoch: whether the rate changes at epochs only.
        optimizer: see `lrscape.training.create_optimizer`; likewise `momentum`,
            `nesterov`, `weight_decay` and `decay_all`.
        checkpoint_every: updates between checkpoints; None is an epoch.
        snapshot_epochs: epochs after which a snapshot is kept for ever.
        recipe: how the experiment's own code makes the optimizer, in words, where the
            fields above do not say all of it; empty: they do.
        extended: how the run was made longer, in order, as the fields of
            `lrscape.extensions.Extension`; of those that change no rate, nothing.
    """

    experiment: str
    preset: str
    dataset: str
    data_dir: str | None = None
    model: str
    model_options: dict[str, Any] = dataclasses.field(default_factory=dict)
    schedule: str
    schedule_options: dict[str, Any] = dataclasses.field(default_factory=dict)
    per_epoch: bool = False
    optimizer: str = "sgd"
    momentum: float | None = None
    nesterov: bool = False
    weight_decay: float = 0.0
    decay_all: bool = False
    checkpoint_every: int | None = None
    snapshot_epochs: tuple[int, ...] = ()
    recipe: str = ""
    extended: tuple[dict[str, Any], ...] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.checkpoint_every is not None:
            checks.count("checkpoint_every", self.checkpoint_every)
        if self.momentum is not None:
            checks.fraction("momentum", self.momentum, below_one=True)
        checks.single(
            "weight_decay", checks.not_negative("weight_decay", self.weight_decay)
        )
        for epoch in self.snapshot_epochs:
            checks.whole("snapshot_epochs", epoch, least=-checks.LARGEST_COUNT)
            if not 1 <= epoch <= self.epochs:
                raise InputError(
                    f"snapshot_epochs: {epoch} must lie between 1 and "
                    f"epochs={self.epochs}"
                )
        # What can be wrong with these shows before any data is read.
        self._check_rates()
        if not self.recipe:
            self.make_optimizer(lambda count: 0.1)
        self.make_model(num_classes=10)

    def _check_rates(self) -> None:
        """Raises InputError for a schedule by which nothing would be trained."""
        schedule = self.make_schedule(total_steps=_COUNTS, steps_per_epoch=10)
        rates = np.asarray(schedule(jnp.arange(_COUNTS)))
        options = ", ".join(f"{k}={v!r}" for k, v in self.schedule_options.items())
        if not np.isfinite(rates).all():
            raise InputError(
                f"schedule={self.schedule!r} with {options}: its rate is not finite "
                f"at {np.argmin(np.isfinite(rates)) / _COUNTS:.1%} of the run"
            )
        if (moving := np.count_nonzero(rates)) < _COUNTS * LEAST_MOVING:
            raise InputError(
                f"schedule={self.schedule!r} with {options}: in single precision its "
                f"rate is 0 at all but {moving / _COUNTS:.1%} of the updates, so that "
                "nothing is learned; choose a wider one"
            )

    def to_dict(self) -> dict[str, Any]:
        """The fields, as JSON holds them."""
        return _lists(dataclasses.asdict(self))

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> Self:
        """The configuration that `to_dict` described.

        Args:
            fields: its fields; what else a ``config.json`` holds is passed over.

        Raises:
            InputError: a field that is lacking, or a value that cannot work.
        """
        try:
            kinds = get_type_hints(cls)
            given = {k: _tuples(v) for k, v in fields.items() if k in kinds}
            given["extended"] = _changing(given.get("extended", ()))
            for field, value in given.items():
                if not _is_a(value, kinds[field]):
                    raise InputError(
                        f"config: {field}={reprlib.repr(value)} is no {kinds[field]}"
                    )
            return cls(**given)
        except InputError:
            raise
        # A stranger's fields can be of any kind and depth.
        except (TypeError, ValueError, ArithmeticError, RecursionError) as error:
            raise InputError(f"config: {error}") from error

    def load_data(self) -> Any:
        """Reads the data."""
        raise NotImplementedError

    def make_model(self, num_classes: int) -> nn.Module:
        """Makes the model."""
        options = {k: _tuples(v) for k, v in self.model_options.items()}
        return models.create(self.model, num_classes=num_classes, **options)

    def make_schedule(self, total_steps: int, steps_per_epoch: int) -> optax.Schedule:
        """Makes the schedule for a run of so many updates."""
        schedule = extended_schedule(
            self._make_shape,
            [Extension.from_dict(fields) for fields in self.extended],
            total_steps,
            steps_per_epoch,
        )
        return (
            schedules.per_epoch(schedule, steps_per_epoch)
            if self.per_epoch
            else schedule
        )

    def _make_shape(self, total_steps: int) -> optax.Schedule:
        """Makes the schedule over so many updates."""
        options = {k: _tuples(v) for k, v in self.schedule_options.items()}
        taken: Mapping[str, Any] = {}
        if self.schedule in schedules.FACTORIES:
            taken = inspect.signature(schedules.FACTORIES[self.schedule]).parameters
        if "total_steps" in taken:
            options["total_steps"] = total_steps
        if "cycle_steps" in taken:
            options.setdefault("cycle_steps", max(1, total_steps // DEFAULT_CYCLES))
        return schedules.create(self.schedule, **options)

    def make_optimizer(self, schedule: optax.Schedule) -> optax.GradientTransformation:
        """Makes the optimizer around a schedule.

        Raises:
            InputError: the experiment's own code makes it.
        """
        if self.recipe:
            raise InputError(
                f"recipe={self.recipe!r}: the optimizer of this run is made by code "
                f"of experiments.{self.experiment}, not by its settings alone; "
                f"train it through python -m experiments.{self.experiment}"
            )
        return create_optimizer(
            self.optimizer,
            schedule,
            momentum=self.momentum,
            nesterov=self.nesterov,
            weight_decay=self.weight_decay,
            decay_all=self.decay_all,
        )


def _changing(extended: Any) -> Any:
    """The extensions that change a rate; what are none is left to be refused."""
    if not isinstance(extended, tuple):
        return extended
    return tuple(
        one
        for one in extended
        if not (isinstance(one, dict) and one.get("how") == EXACT)
    )


def _is_a(value: Any, kind: Any) -> bool:
    """Whether a value is of a field's type, as JSON has them."""
    if isinstance(kind, types.UnionType):
        return any(_is_a(value, option) for option in get_args(kind))
    origin = get_origin(kind) or kind
    if origin is tuple:
        return isinstance(value, tuple) and all(
            _is_a(item, get_args(kind)[0]) for item in value
        )
    if origin is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if origin is int and isinstance(value, bool):
        return False
    return isinstance(value, origin)


def _lists(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _lists(v) for k, v in value.items()}
    return [_lists(v) for v in value] if isinstance(value, tuple | list) else value


def _tuples(value: Any) -> Any:
    return tuple(map(_tuples, value)) if isinstance(value, list) else value
