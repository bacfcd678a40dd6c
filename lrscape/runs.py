"""A run as plain fields: its parts built from registries, and opened again."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import os
import reprlib
import types
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple, get_args, get_origin, get_type_hints

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from lrscape import data as data_
from lrscape import models, schedules
from lrscape.errors import InputError, unknown_name
from lrscape.records import NAME, Records
from lrscape.training.checkpoint import load_tree, save_tree
from lrscape.training.config import Config
from lrscape.training.device_data import DeviceData
from lrscape.training.optimizers import create_optimizer
from lrscape.training.state import TrainState

# Cycles in a run, for a cyclical schedule that is told no length.
DEFAULT_CYCLES = 4
# Of data that is streamed alone, as `lrscape.data.open_stream` calls them.
STREAM_FIELDS = ("image_size", "crop", "min_area", "threads")


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunConfig(Config):
    """Everything that makes a run, as fields that JSON can hold.

    Attributes:
        experiment: the name of the experiment that started it.
        preset: the preset that its fields came from.
        dataset: see `lrscape.data.load`; likewise `data_dir`, `validation` and
            `split_seed`, `examples` and `test_examples`.
        stream: whether it is read as it is needed, see `lrscape.data.open_stream`,
            rather than held in memory; likewise `image_size`, `crop`, `min_area` and
            `threads`.
        top5: whether the labels that are not among the five largest logits are counted
            beside those that are not the largest.
        model: see `lrscape.models.create`.
        model_options: the model's other fields.
        schedule: see `lrscape.schedules.create`.
        schedule_options: its arguments, all but ``total_steps``; a cyclical schedule
            without ``cycle_steps`` makes four cycles.
        per_epoch: whether the rate changes at epochs only.
        optimizer: see `lrscape.training.create_optimizer`; likewise `momentum`,
            `nesterov`, `weight_decay` and `decay_all`.
        eval_batch_size: examples a call of an evaluation.
        checkpoint_every: updates between checkpoints; None is an epoch.
        snapshot_epochs: epochs after which a snapshot is kept for ever.
    """

    experiment: str
    preset: str
    dataset: str
    data_dir: str | None = None
    validation: int = 0
    split_seed: int = 0
    examples: int | None = None
    test_examples: int | None = None
    stream: bool = False
    image_size: int | None = None
    crop: str | None = None
    min_area: float | None = None
    threads: int | None = None
    top5: bool = False
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
    eval_batch_size: int = 500
    checkpoint_every: int | None = None
    snapshot_epochs: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        for field in ("eval_batch_size", "checkpoint_every"):
            value = getattr(self, field)
            if value is not None and value < 1:
                raise InputError(f"{field}={value!r} must be 1 or more")
        for field in STREAM_FIELDS:
            if not self.stream and (value := getattr(self, field)) is not None:
                raise InputError(
                    f"{field}={value!r} is of data that is streamed; add "
                    "--stream=True, or leave it out"
                )
        if self.stream and self.image_size is None:
            raise InputError("stream=True needs image_size, the side of a view")
        if self.stream and self.normalize == "whiten":
            raise InputError(
                "normalize='whiten' is fitted to a whole data set in memory: leave "
                "stream out, or use normalize='standardize'"
            )
        if self.validation < 0:
            raise InputError(f"validation={self.validation!r} must not be negative")
        for epoch in self.snapshot_epochs:
            if not 1 <= epoch <= self.epochs:
                raise InputError(
                    f"snapshot_epochs: {epoch} must lie between 1 and "
                    f"epochs={self.epochs}"
                )
        # What can be wrong with these shows before any data is read.
        self.make_schedule(total_steps=1000, steps_per_epoch=10)
        self.make_optimizer(lambda count: 0.1)
        self.make_model(num_classes=10)

    def to_dict(self) -> dict[str, Any]:
        """The fields, as JSON holds them."""
        return _lists(dataclasses.asdict(self))

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> RunConfig:
        """The configuration that `to_dict` described.

        Args:
            fields: its fields; what else a ``config.json`` holds is passed over.

        Raises:
            InputError: a field that is lacking, or a value that cannot work.
        """
        try:
            kinds = get_type_hints(cls)
            given = {k: _tuples(v) for k, v in fields.items() if k in kinds}
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

    def load_data(self) -> data_.Dataset | data_.StreamedDataset:
        """Reads the data set, or opens it to be streamed."""
        parts: dict[str, Any] = {
            "data_dir": self.data_dir,
            "validation": self.validation,
            "split_seed": self.split_seed,
            "examples": self.examples,
            "test_examples": self.test_examples,
        }
        if not self.stream:
            return data_.load(self.dataset, **parts)
        views = {field: getattr(self, field) for field in STREAM_FIELDS}
        views = {name: value for name, value in views.items() if value is not None}
        return data_.open_stream(self.dataset, **views, **parts)

    def make_model(self, num_classes: int) -> nn.Module:
        """Makes the model."""
        options = {k: _tuples(v) for k, v in self.model_options.items()}
        return models.create(self.model, num_classes=num_classes, **options)

    def make_schedule(self, total_steps: int, steps_per_epoch: int) -> optax.Schedule:
        """Makes the schedule for a run of so many updates."""
        options = {k: _tuples(v) for k, v in self.schedule_options.items()}
        taken: Mapping[str, Any] = {}
        if self.schedule in schedules.FACTORIES:
            taken = inspect.signature(schedules.FACTORIES[self.schedule]).parameters
        if "total_steps" in taken:
            options["total_steps"] = total_steps
        if "cycle_steps" in taken:
            options.setdefault("cycle_steps", max(1, total_steps // DEFAULT_CYCLES))
        schedule = schedules.create(self.schedule, **options)
        return (
            schedules.per_epoch(schedule, steps_per_epoch)
            if self.per_epoch
            else schedule
        )

    def make_optimizer(self, schedule: optax.Schedule) -> optax.GradientTransformation:
        """Makes the optimizer around a schedule."""
        return create_optimizer(
            self.optimizer,
            schedule,
            momentum=self.momentum,
            nesterov=self.nesterov,
            weight_decay=self.weight_decay,
            decay_all=self.decay_all,
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


def peak_step(schedule: optax.Schedule, total_steps: int) -> int:
    """The last update of the largest rate.

    For a peak it is the peak, for a plateau its end.

    Example:
        >>> peak_step(schedules.gaussian(0.3, 100), 100)
        50
        >>> peak_step(schedules.step(0.3, 100, milestones=(0.5,)), 100)
        49
    """
    rates = np.asarray(schedule(jnp.arange(total_steps)))
    rates = np.broadcast_to(rates, (total_steps,))
    return total_steps - 1 - int(np.argmax(rates[::-1]))


class Snapshot(NamedTuple):
    """A point of a run that was kept.

    Attributes:
        step: updates made before it.
        params: the model's parameters.
        batch_stats: batch norm's running averages; empty without batch norm.
    """

    step: int
    params: Any
    batch_stats: Any

    @property
    def variables(self) -> dict[str, Any]:
        """What ``model.apply`` takes."""
        if self.batch_stats:
            return {"params": self.params, "batch_stats": self.batch_stats}
        return {"params": self.params}


def save_snapshot(records: Records, name: str, state: TrainState) -> None:
    """Keeps a state's parameters and batch statistics as ``snapshots/NAME``."""
    tree = state.variables
    records.check_links()
    save_tree(records.path / "snapshots" / name, tree, {"step": int(state.step)})


class Snapshots(Mapping[str, Snapshot]):
    """The snapshots of a run by name, loaded when asked for.

    Loading raises `lrscape.training.checkpoint.CorruptCheckpointError` if what is on
    disk is not what was saved.
    """

    def __init__(self, directory: Path):
        self._directory = directory

    def __getitem__(self, name: str) -> Snapshot:
        if name not in self._names():
            raise KeyError(
                f"{name!r}: {self._directory} has the snapshots "
                f"{', '.join(self) or '(none)'}"
            )
        tree, notes = load_tree(self._directory / name)
        tree = jax.tree.map(jnp.asarray, tree)
        return Snapshot(notes["step"], tree["params"], tree.get("batch_stats", {}))

    def __iter__(self) -> Iterator[str]:
        return iter(self._names())

    def __len__(self) -> int:
        return len(self._names())

    def _names(self) -> list[str]:
        if not self._directory.is_dir():
            return []
        # Half-saved ones end in `.orbax-checkpoint-tmp`.
        return sorted(
            child.name
            for child in self._directory.iterdir()
            if NAME.fullmatch(child.name) and ".orbax" not in child.name
        )


class Run:
    """A run that is on disk.

    Attributes:
        path: its directory.
        config: how it was made.
        records: its metrics, summary and results.
        snapshots: the points that were kept, by name.
    """

    def __init__(self, path: str | os.PathLike[str]):
        self.path = Path(path)
        self.records = Records(path)
        fields = self.records.config()
        if seeds := fields.get("seeds"):
            raise InputError(
                f"run_dir={str(self.path)!r} holds {len(seeds)} runs, one a seed; open "
                f"one of them, such as {str(self.path / f'seed_{seeds[0]}')!r}"
            )
        self.config = RunConfig.from_dict(fields)
        self.snapshots = Snapshots(self.path / "snapshots")

    @functools.cached_property
    def data(self) -> data_.Dataset | data_.StreamedDataset:
        """Its data, read when first asked for."""
        return self.config.load_data()

    def sample(
        self,
        part: str = "train",
        num_examples: int | None = None,
        *,
        seed: int = 0,
        start: int = 0,
    ) -> tuple[jax.Array, jax.Array]:
        """Examples as the model sees them, for a probe: normalised, not augmented.

        Args:
            part: ``'train'``, ``'test'`` or ``'validation'``.
            num_examples: how many, drawn at random without repeats; None is all.
            seed: of the draw.
            start: how many of the same draw to pass over; two samples of one seed share
                no example if their ranges do not overlap.

        Returns:
            Inputs (n, height, width, channels), float32, and labels (n,), int32.

        Raises:
            InputError: a part that the data lacks, or more examples than it has.
        """
        if part not in ("train", "test", "validation"):
            raise unknown_name("part", part, ("train", "test", "validation"))
        examples = getattr(self.data, part)
        if examples is None:
            raise InputError(
                f"part={part!r}: {self.config.dataset} was split without one; use "
                "'test', or a run with --validation"
            )
        count = len(examples) - start if num_examples is None else num_examples
        if not 0 < count <= len(examples) - start or start < 0:
            raise InputError(
                f"num_examples={num_examples!r} from start={start!r} on is more than "
                f"part={part!r} of {self.config.dataset} has: {len(examples)}"
            )
        order = np.random.default_rng(seed).permutation(len(examples))
        chosen = order[start : start + count]
        held = DeviceData.of(self.data, part, self.config.normalize, chosen)
        return held.normalize(jnp.asarray(held.image)), jnp.asarray(held.label)

    @functools.cached_property
    def model(self) -> nn.Module:
        """Its model."""
        return self.config.make_model(self.data.num_classes)


def open_run(path: str | os.PathLike[str]) -> Run:
    """Opens a run directory.

    Everything is rebuilt from JSON fields and registries; nothing in the directory is
    executed.

    Args:
        path: the run directory.

    Returns:
        The run: ``config``, ``model``, ``data`` and ``snapshots``.

    Raises:
        InputError: there is no run, or its fields cannot be understood.

    Example:
        >>> open_run('runs/none')
        Traceback (most recent call last):
        lrscape.errors.InputError: run_dir='runs/none' holds no run (no config.json)
    """
    return Run(path)
