"""Runs on images and texts as plain fields, and opened again from disk."""

from __future__ import annotations

import dataclasses
import functools
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from lrscape import checks, transforms
from lrscape import data as data_
from lrscape.errors import InputError, unknown_name
from lrscape.reading import Reader
from lrscape.records import NAME, Records
from lrscape.run_fields import RunFields
from lrscape.training.checkpoint import load_tree, save_tree
from lrscape.training.config import Config, TextConfig
from lrscape.training.device_data import DeviceData
from lrscape.training.state import TrainState, make_initial_state
from lrscape.training.stored import leaves_of

# Of data that is streamed alone, as `lrscape.data.open_stream` calls them.
STREAM_FIELDS = ("image_size", "crop", "min_area", "threads")


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunConfig(RunFields, Config):
    """Everything that makes a run on images, as fields that JSON can hold.

    Attributes:
        dataset: see `lrscape.data.load`; likewise `data_dir`, `validation` and
            `split_seed`, `examples` and `test_examples`.
        stream: whether it is read as it is needed, see `lrscape.data.open_stream`,
            rather than held in memory; likewise `image_size`, `crop`, `min_area` and
            `threads`.
        top5: whether the labels that are not among the five largest logits are counted
            beside those that are not the largest.
        eval_batch_size: examples a call of an evaluation.
    """

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
    eval_batch_size: int = 500

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.eval_batch_size < 1:
            raise InputError(
                f"eval_batch_size={self.eval_batch_size!r} must be 1 or more"
            )
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


@dataclasses.dataclass(frozen=True, kw_only=True)
class TextRunConfig(RunFields, TextConfig):
    """Everything that makes a run on a text, as fields that JSON can hold.

    Attributes:
        dataset: see `lrscape.data.load_text`; likewise `level`, `max_words`, `held_out`
            and `data_dir`.
        train_tokens: how much of the training text is kept, from its start; None is
            all of it.
        test_tokens: how much of the validation and the test text is kept, likewise.
        eval_streams: into how many streams a part is cut to be measured; see
            `lrscape.training.make_evaluate_text`.
        clip_norm: gradients of a larger norm are shortened to it; None clips nothing.
        runge_kutta: a method of `lrscape.transforms.runge_kutta`, at the optimizer's
            rate; None takes plain gradients.
    """

    batch_size: int = 32
    model: str = "lstm"
    level: str
    max_words: int | None = None
    held_out: float = 0.05
    train_tokens: int | None = None
    test_tokens: int | None = None
    eval_streams: int = 1
    clip_norm: float | None = None
    runge_kutta: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        checks.count("eval_streams", self.eval_streams)
        for field in ("train_tokens", "test_tokens"):
            if (value := getattr(self, field)) is not None:
                checks.whole(field, value, least=2)

    def load_data(self) -> data_.Text:
        """Reads the text."""
        text = data_.load_text(
            self.dataset,
            level=self.level,
            max_words=self.max_words,
            held_out=self.held_out,
            data_dir=self.data_dir,
        )
        return dataclasses.replace(
            text,
            train=text.train[: self.train_tokens],
            validation=text.validation[: self.test_tokens],
            test=text.test[: self.test_tokens],
        )

    def make_optimizer(self, schedule: optax.Schedule) -> optax.GradientTransformation:
        """Makes the optimizer around a schedule, Runge-Kutta and clipping before it."""
        before = []
        if self.runge_kutta is not None:
            if self.weight_decay:
                raise InputError(
                    f"weight_decay={self.weight_decay!r} is no part of the loss whose "
                    f"gradients runge_kutta={self.runge_kutta!r} takes: the second one "
                    "would lack it; leave one of them out"
                )
            before.append(transforms.runge_kutta(self.runge_kutta, schedule))
        if self.clip_norm is not None:
            checks.positive("clip_norm", self.clip_norm)
            before.append(optax.clip_by_global_norm(self.clip_norm))
        return optax.chain(*before, super().make_optimizer(schedule))


def peak_step(schedule: optax.Schedule, total_steps: int) -> int:
    """The last update of the largest rate.

    For a peak it is the peak, for a plateau its end.

    Example:
        >>> from lrscape import schedules
        >>> peak_step(schedules.gaussian(0.3, 100), 100)
        50
        >>> peak_step(schedules.step(0.3, 100, milestones=(0.5,)), 100)
        49
    """
    checks.function("schedule", schedule, takes="the update count")
    total_steps = checks.steps("total_steps", total_steps)
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
        """The variables that ``model.apply`` takes."""
        if self.batch_stats:
            return {"params": self.params, "batch_stats": self.batch_stats}
        return {"params": self.params}


def save_snapshot(records: Records, name: str, state: TrainState) -> None:
    """Keeps a state's parameters and batch statistics as ``snapshots/NAME``."""
    tree = state.variables
    records.check_there()
    records.check_links()
    save_tree(records.path / "snapshots" / name, tree, {"step": int(state.step)})


class Snapshots(Mapping[str, Snapshot]):
    """The snapshots of a run by name, loaded when asked for.

    Loading raises `lrscape.training.checkpoint.CorruptCheckpointError` if what is on
    disk is not what was saved.
    """

    def __init__(
        self,
        directory: Path,
        expected: Callable[[], Mapping[str, Any] | None] = lambda: None,
    ):
        """Looks at nothing yet.

        Args:
            directory: where they lie, of which the parent is the run directory.
            expected: gives the leaves that the run's model implies, see `load_tree`;
                None where they are not known.
        """
        self._directory, self._expected = directory, expected

    def __getitem__(self, name: str) -> Snapshot:
        if name not in self._names():
            raise KeyError(
                f"{name!r}: {self._directory} has the snapshots "
                f"{', '.join(self) or '(none)'}"
            )
        tree, notes = load_tree(
            self._directory / name, self._directory.parent, self._expected()
        )
        tree = jax.tree.map(jnp.asarray, tree)
        return Snapshot(notes["step"], tree["params"], tree.get("batch_stats", {}))

    def __iter__(self) -> Iterator[str]:
        return iter(self._names())

    def __len__(self) -> int:
        return len(self._names())

    def _names(self) -> list[str]:
        # Half-saved ones end in `.orbax-checkpoint-tmp`.
        return [
            child.name
            for child in Reader(self._directory.parent).entries(self._directory)
            if NAME.fullmatch(child.name) and ".orbax" not in child.name
        ]


class Run:
    """A run that is on disk.

    Attributes:
        path: its directory.
        config: how it was made.
        records: its metrics, summary and results.
        snapshots: the points that were kept, by name.
    """

    def __init__(self, path: str | os.PathLike[str]):
        self.records = Records(path)
        self.path = self.records.path
        fields = self.records.config()
        if seeds := fields.get("seeds"):
            raise InputError(
                f"run_dir={str(self.path)!r} holds {len(seeds)} runs, one a seed; open "
                f"one of them, such as {str(self.path / f'seed_{seeds[0]}')!r}"
            )
        self.config = self._config(fields)
        self.snapshots = Snapshots(self.path / "snapshots", self._expected)

    def _config(self, fields: Mapping[str, Any]) -> RunConfig:
        return RunConfig.from_dict(fields)

    def _expected(self) -> Mapping[str, Any] | None:
        """The leaves of a snapshot, once the data have been read that they depend on.

        Snapshots are for those too who lack the data.
        """
        if "data" not in self.__dict__:
            return None
        model, data = self.model, self.data
        state = make_initial_state(model, data, optax.identity())
        return leaves_of(jax.eval_shape(lambda: state(0).variables))

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
        examples = getattr(self.data, checked_part(part))
        if examples is None:
            raise InputError(
                f"part={part!r}: {self.config.dataset} was split without one; use "
                "'test', or a run with --validation"
            )
        where = f"part={part!r} of {self.config.dataset}"
        chosen = drawn(len(examples), num_examples, seed, start, where)
        held = DeviceData.of(self.data, part, self.config.normalize, chosen)
        return held.normalize(jnp.asarray(held.image)), jnp.asarray(held.label)

    @functools.cached_property
    def model(self) -> nn.Module:
        """Its model."""
        return self.config.make_model(self.data.num_classes)


class TextRun(Run):
    """A run on a text that is on disk; see `Run`.

    Attributes:
        config: how it was made.
    """

    config: TextRunConfig  # type: ignore[assignment]

    def _config(self, fields: Mapping[str, Any]) -> TextRunConfig:  # type: ignore[override]
        return TextRunConfig.from_dict(fields)

    @functools.cached_property
    def data(self) -> data_.Text:  # type: ignore[override]
        """Its text, read when first asked for."""
        return self.config.load_data()

    def sample(
        self,
        part: str = "train",
        num_examples: int | None = None,
        *,
        seed: int = 0,
        start: int = 0,
    ) -> tuple[jax.Array, jax.Array]:
        """Windows of the text, for a probe; see `Run.sample`.

        Args:
            part: ``'train'``, ``'test'`` or ``'validation'``.
            num_examples: how many windows, drawn at random without repeats from those
                that follow each other; None is all.
            seed: of the draw.
            start: how many of the same draw to pass over.

        Returns:
            Tokens and those that follow each, (n, window), int32.

        Raises:
            InputError: an unknown part, or more windows than it has.
        """
        window = self.config.window
        inputs, targets = data_.token_windows(
            getattr(self.data, checked_part(part)), window
        )
        where = f"part={part!r} of {self.config.dataset} in windows of {window} tokens"
        chosen = drawn(len(inputs), num_examples, seed, start, where)
        return jnp.asarray(inputs[chosen]), jnp.asarray(targets[chosen])


def checked_part(part: str) -> str:
    """The name of a part of the data; raises InputError for another."""
    if part not in ("train", "test", "validation"):
        raise unknown_name("part", part, ("train", "test", "validation"))
    return part


def drawn(
    size: int, count: int | None, seed: int, start: int, where: str
) -> np.ndarray:
    """Positions drawn at random without repeats; see `Run.sample`.

    Example:
        >>> sorted(drawn(4, None, 0, 0, 'here').tolist())
        [0, 1, 2, 3]
    """
    wanted = size - start if count is None else count
    if not 0 < wanted <= size - start or start < 0:
        raise InputError(
            f"num_examples={count!r} from start={start!r} on is more than {where} has: "
            f"{size}"
        )
    return np.random.default_rng(seed).permutation(size)[start : start + wanted]


def open_run(path: str | os.PathLike[str]) -> Run:
    """Opens a run directory.

    Everything is rebuilt from JSON fields and registries; nothing in the directory is
    executed.

    Args:
        path: the run directory.

    Returns:
        The run: ``config``, ``model``, ``data`` and ``snapshots``; of a text a
        `TextRun`.

    Raises:
        InputError: there is no run, or its fields cannot be understood.

    Example:
        >>> open_run('runs/none')
        Traceback (most recent call last):
        lrscape.errors.InputError: run_dir='runs/none' holds no run (no config.json)
    """
    return TextRun(path) if _is_of_text(Records(path).config()) else Run(path)


def config_of(fields: Mapping[str, Any]) -> RunConfig | TextRunConfig:
    """The configuration that a run's stored fields describe.

    Raises:
        InputError: a field that is lacking, or a value that cannot work.
    """
    checks.instance("fields", fields, Mapping, way_out="what config.json holds")
    return (TextRunConfig if _is_of_text(fields) else RunConfig).from_dict(fields)


def _is_of_text(fields: Mapping[str, Any]) -> bool:
    return "window" in fields
