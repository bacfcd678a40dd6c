"""Networks that a paper's experiments train once, epoch by epoch, and look at.

Each lies in a directory of its own, with its history, checkpoints, kept weights and
what was measured of them. What is there is not made again, and what was stopped goes on
where it was.
"""

from __future__ import annotations

import abc
import dataclasses
import functools
import json
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

from experiments.harness.mappings import few_mappings
from experiments.harness.signals import Signals
from lrscape import data as data_
from lrscape import models, training
from lrscape.environment import describe, differences
from lrscape.errors import InputError
from lrscape.records import Records
from lrscape.runs import Snapshots, save_snapshot
from lrscape.training.checkpoint import Checkpoints
from lrscape.training.device_data import DeviceData

HISTORY = "history"

Row = dict[str, Any]


@dataclasses.dataclass(frozen=True, kw_only=True)
class ArmConfig(training.Config):
    """How a network is trained.

    Attributes:
        task: which of the paper's experiments.
        dataset: see `lrscape.data.load`.
        examples: trained on; None is all of the training set.
        validation: of those that are left over, how many are held out to choose by.
        test: test examples that errors are measured on; None is all.
        model: see `lrscape.models.create`.
        looked_at: epochs whose weights are kept.
        image_size: the side of a view, of data that is streamed; None: it is held in
            memory.
        crop: of data that is streamed, see `lrscape.data.open_stream`; None is its
            default.
        top5: whether labels beyond the five largest logits are counted too.
    """

    task: str
    dataset: str
    examples: int | None
    validation: int
    test: int | None
    model: str
    looked_at: tuple[int, ...]
    image_size: int | None = None
    crop: str | None = None
    top5: bool | None = None

    def to_dict(self) -> dict[str, Any]:
        """The fields, as JSON holds them."""
        return json.loads(json.dumps(dataclasses.asdict(self)))

    def make_model(self, num_classes: int) -> nn.Module:
        """The Linen module."""
        return models.create(self.model, num_classes=num_classes)


class Watch(Protocol):
    """What is measured of a network between its updates."""

    def start(self, state: training.TrainState) -> Row:
        """Before any update."""

    def epoch(self, state: training.TrainState) -> Row:
        """After an epoch."""


class Arm(abc.ABC):
    """A network, made as far as its configuration says.

    Attributes:
        config: how it is trained.
        records: its directory.
        data: what it is trained on.
        model: its Linen module.
        checkpoint_every: epochs between checkpoints; where one is small, saving it
            takes longer than an epoch.
    """

    checkpoint_every = 1

    def __init__(self, config: Any, path: Path, data_dir: str | None):
        self.config, self.records = config, Records(path)
        self.data = _load(
            config.dataset, data_dir, config.examples, config.validation, config.test,
            config.image_size, config.crop,
        )  # fmt: skip
        self.model: nn.Module = config.make_model(self.data.num_classes)
        devices = jax.local_devices()
        settings = config.to_dict()
        if isinstance(self.data, data_.StreamedDataset):
            # A folder's name says nothing of what is in it.
            settings["data"] = [self.data.train.fingerprint, self.data.test.fingerprint]
        if not self.records.exists():
            with self.records.lock():  # in which another process may have been faster
                if not self.records.exists():
                    Records.create(path, {**settings, **describe(devices)})
        kept = self.records.config()
        if {name: kept.get(name) for name in settings} != settings:
            raise InputError(
                f"{str(path)!r} holds a network that was trained otherwise; remove it, "
                "or choose another --run-dir"
            )
        for difference in differences(kept, devices):
            print(f"warning: {path.name}: {difference}: the rest of it may differ")

    @functools.cached_property
    @abc.abstractmethod
    def tx(self) -> Any:
        """Its optimizer."""

    @abc.abstractmethod
    def watch(self) -> Watch:
        """What is measured of it."""

    def told(self, state: training.TrainState, row: Row) -> Any:
        """The state to go on from, changed by what was measured; None: as it is."""
        del state, row
        return None

    def rate(self, state: training.TrainState) -> float:
        """The rate of the last update."""
        rate = training.learning_rate(state.opt_state)
        assert rate is not None and not isinstance(rate, dict)
        return float(rate)

    @property
    def steps_per_epoch(self) -> int:
        """Updates an epoch."""
        return self.config.steps_per_epoch(self.data)

    @property
    def kept(self) -> Mapping[int, tuple[str, ...]]:
        """The updates after which weights are kept, and the names of those."""
        per_epoch = self.steps_per_epoch
        return {e * per_epoch: (f"epoch_{e}",) for e in self.config.looked_at}

    @property
    def snapshots(self) -> Snapshots:
        """Weights that were kept, by name."""
        return Snapshots(self.records.path / "snapshots")

    def initial_state(self) -> training.TrainState:
        """The state before the first update."""
        return training.initial_state(self.model, self.data, self.tx, self.config.seed)

    def numbers(self, name: str, make: Callable[[], Row]) -> Row:
        """A few numbers that are measured once."""
        if (found := self.records.load_result_summary(name)) is None:
            few_mappings()
            self.records.save_result_summary(name, make())
            found = self.records.load_result_summary(name)
        return found

    def history(self) -> list[Row]:
        """What was seen after each epoch, trained to the end if it was not.

        Returns:
            A row an epoch, the first before any update: ``epoch``, ``rate`` of the last
            update (in the first row: of the first one), ``seconds`` of its updates, and
            what the arm's `watch` measures. A run that failed ends with a row that says
            ``diverged``.
        """
        rows = self._rows()
        if len(rows) > self.config.epochs or (rows and "diverged" in rows[-1]):
            return rows
        few_mappings()
        with (
            self.records.lock(),
            Checkpoints(self.records.path / "checkpoints") as checkpoints,
            Signals() as signals,
        ):
            # Another process may have trained it since.
            return self._train(self._rows(), checkpoints, signals)

    def failed(self) -> bool:
        """Whether its loss stopped being finite; trains it if it was not."""
        return "diverged" in self.history()[-1]

    def examples(self, part: str, count: int | None, start: int = 0):
        """Images as the model sees them, not augmented, and labels.

        Args:
            part: ``'train'``, ``'validation'`` or ``'test'``.
            count: how many, or fewer where there are no more; None is all.
            start: how many to pass over.
        """
        held = len(getattr(self.data, part))
        at = np.arange(start, held if count is None else min(start + count, held))
        placed = DeviceData.of(self.data, part, self.config.normalize, at)
        images = placed.normalize(jnp.asarray(placed.image))
        return images, jnp.asarray(placed.label)

    def _rows(self) -> list[Row]:
        return self.records.load_result_summary(HISTORY) or []

    def _train(self, rows, checkpoints, signals) -> list[Row]:
        config, per_epoch = self.config, self.steps_per_epoch
        watch, kept = self.watch(), self.kept
        state, spent = self.initial_state(), 0.0
        restored = checkpoints.restore(
            state, problem_of=lambda step, notes: self._problem(rows, step)
        )
        if restored is not None:
            state, notes, problems = restored
            for problem in problems:
                print(f"warning: {problem}; fell back to an older checkpoint")
            epochs, spent = int(state.step) // per_epoch, notes["seconds"]
            rows = rows[: epochs + 1]
        elif len(rows) > 1:
            raise InputError(
                f"{str(self.records.path)!r} has a history of {len(rows) - 1} epochs "
                "and no checkpoint; bring its checkpoints back from a copy, or remove "
                "the directory, and it is trained again"
            )
        else:
            rows = [{"epoch": 0, **watch.start(state)}]
            told = self.told(state, rows[-1])
            state = state if told is None else told
            self._keep(kept, state)
            self._save(rows)
            checkpoints.save(state, {"seconds": 0.0})
        states = training.fit(
            self.model, self.data, self.tx, config, yield_every=per_epoch,
            yield_at=lambda step: (
                step == 1 or step in kept or signals.received is not None
            ),
            state=state,
        )  # fmt: skip
        total, name = config.epochs * per_epoch, self.records.path.name
        told = None
        with tqdm(total=total, unit="step", desc=name, leave=False) as bar:
            while True:
                started = time.monotonic()
                try:
                    state = jax.block_until_ready(states.send(told))
                except StopIteration:
                    return rows
                except training.NonFiniteLossError as error:
                    return self._failed(rows, error.step)
                # The call that was just made may be the one that went wrong.
                if int(state.first_bad_step) >= 0:
                    return self._failed(rows, int(state.first_bad_step))
                spent, step, told = spent + time.monotonic() - started, state.step, None
                bar.update(int(step) - bar.n)
                self._keep(kept, state)
                if step == 1:
                    rows[0]["rate"] = self.rate(state)
                if step % per_epoch == 0:
                    row = {"epoch": int(step) // per_epoch, "rate": self.rate(state)}
                    rows.append({**row, **watch.epoch(state), "seconds": spent})
                    spent, told = 0.0, self.told(state, rows[-1])
                    state = state if told is None else told
                ended = int(step) % per_epoch == 0 and (
                    int(step) == total
                    or int(step) // per_epoch % self.checkpoint_every == 0
                )
                if ended or signals.received:
                    # Going on from a checkpoint cuts the history to its length.
                    self._save(rows)
                    checkpoints.save(state, {"seconds": spent})
                if signals.received:
                    raise KeyboardInterrupt

    def _problem(self, rows: list[Row], step: int) -> str | None:
        """What keeps the history from going on from a checkpoint; None: nothing."""
        if len(rows) > (epochs := step // self.steps_per_epoch):
            return None
        return f"it was saved after {epochs} epochs, and the history has {len(rows)}"

    def _failed(self, rows: list[Row], step: int) -> list[Row]:
        rows.append({"epoch": len(rows), "diverged": step})
        self._save(rows)
        return rows

    def _keep(
        self, kept: Mapping[int, tuple[str, ...]], state: training.TrainState
    ) -> None:
        for name in kept.get(int(state.step), ()):
            save_snapshot(self.records, name, state)

    def _save(self, rows: list[Row]) -> None:
        self.records.save_result_summary(HISTORY, rows)


def column(
    histories: Sequence[list[Row]], name: str, *, worst: float = np.nan
) -> np.ndarray:
    """What rows hold of several networks, side by side.

    Args:
        histories: see `Arm.history`.
        name: of a value in their rows.
        worst: stands for it from where a run failed on.

    Returns:
        (networks, rows); NaN where a row lacks it.
    """
    length = max(map(len, histories))
    filled = np.full((len(histories), length), worst)
    for values, history in zip(filled, histories, strict=True):
        for i, row in enumerate(history):
            values[i] = row.get(name, worst if "diverged" in row else np.nan)
    return filled


@functools.lru_cache(maxsize=4)
def _load(
    name: str,
    data_dir: str | None,
    examples: int | None,
    validation: int,
    test: int | None,
    image_size: int | None,
    crop: str | None,
) -> data_.Dataset | data_.StreamedDataset:
    """A data set, or a part of it drawn at random."""
    if image_size is not None:
        options: dict[str, Any] = {"image_size": image_size, "data_dir": data_dir}
        options["validation"] = validation
        options |= {} if crop is None else {"crop": crop}
        whole = data_.open_stream(name, **options)
        if examples is None and test is None:
            return whole
        return data_.open_stream(
            name, examples=examples and min(examples, len(whole.train)),
            test_examples=test and min(test, len(whole.test)), **options,
        )  # fmt: skip
    data = data_.load(name, data_dir=data_dir)
    if examples is not None and examples < len(data.train):
        left_over = len(data.train) - examples
        data = data_.load(name, data_dir=data_dir, validation=left_over)
        held_out = data.validation
        assert held_out is not None
        kept = data_.Examples(*(part[:validation] for part in held_out))
        data = dataclasses.replace(data, validation=kept if validation else None)
    tested = data_.Examples(*(part[:test] for part in data.test))
    return dataclasses.replace(data, test=tested)
