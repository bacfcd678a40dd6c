"""What happens between two updates: metrics, snapshots, checkpoints, progress."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from tqdm import tqdm

from experiments.harness.kinds import Kind
from experiments.harness.tensorboard import EventWriter, open_events, write_line
from lrscape.data import StreamedDataset
from lrscape.processes import is_first
from lrscape.records import Records
from lrscape.run_fields import RunFields
from lrscape.runs import save_snapshot
from lrscape.training import (
    NonFiniteLossError,
    TrainState,
    averages,
    learning_rate,
    unstacked,
)
from lrscape.training.checkpoint import Checkpoints
from lrscape.training.feed import position
from lrscape.training.fit import raise_if_not_finite


class StorageError(OSError):
    """A run directory that can no longer be written."""


@dataclasses.dataclass
class Place:
    """Where a network's run is kept.

    Attributes:
        records: its directory.
        checkpoints: its checkpoints.
        name: what it is called where it is one of several; empty: it is alone.
        failed: the update at which one of several turned non-finite.
        saved_step: of the last checkpoint that was saved.
        events: TensorBoard's files, where they are wanted.
    """

    records: Records
    checkpoints: Checkpoints
    name: str = ""
    failed: int | None = None
    saved_step: int | None = None
    events: EventWriter | None = None

    @property
    def last_checkpoint(self) -> str:
        """Where the last good state lies, as a clause."""
        if not (steps := self.checkpoints.steps):
            return "there is no checkpoint yet"
        return (
            f"the last good checkpoint is {self.checkpoints.directory / str(steps[-1])}"
        )


class Loop:
    """What happens between updates: log, snapshot, checkpoint, progress.

    Of one network, or of several that are trained together, whose states come stacked
    and are kept each in its own place; one that turns non-finite is kept no further.
    """

    def __init__(
        self,
        *,
        places: Sequence[Place],
        root: Path,
        config: RunFields,
        evaluate: Callable[..., dict[str, float]],
        kind: Kind,
        parts: tuple[str, ...],
        data: Any,
        steps_per_epoch: int,
        total_steps: int,
        snapshot_steps: dict[int, list[str]],
        step: int,
        seconds: float,
        tensorboard: bool = False,
    ):
        self.places = places
        self.root = root
        self.batch_size = config.batch_size
        self.log_every = config.log_every or steps_per_epoch
        self.checkpoint_every = config.checkpoint_every or steps_per_epoch
        self.evaluate = evaluate
        self.kind = kind
        self.per_update = kind.per_update(config)
        self.parts = parts
        self.data = data
        self.gauge = data.train.gauge if isinstance(data, StreamedDataset) else None
        self.waited_before = 0.0
        self.steps_per_epoch = steps_per_epoch
        self.total_steps = total_steps
        self.snapshot_steps = snapshot_steps
        self.seconds_before = seconds
        self.started = self.resumed = time.monotonic()
        self.training_seconds, self.training_steps = 0.0, 0
        self.bar: tqdm | None = None
        self.step = step
        self.shown = 0.0
        for place in places if tensorboard else ():
            place.events = open_events(place.records.path, step)

    def __enter__(self) -> Loop:
        return self

    def __exit__(self, kind, error, trace) -> None:
        self.close()
        for place in self.places:
            if place.events is not None:
                place.events.close()
        # Nothing that is not finite is ever saved.
        if isinstance(error, NonFiniteLossError):
            error.args = (f"{error}; {self.places[0].last_checkpoint}",)
        elif isinstance(error, OSError):
            for place in self.places:  # one that is gone needs no room
                place.records.check_there()
            raise StorageError(
                f"{self.root} cannot be written: {error}; "
                f"{self.places[0].last_checkpoint}. Make room, then go on with "
                f"--resume --run-dir={self.root}"
            ) from error

    def close(self) -> None:
        """Takes the progress bar away."""
        if self.bar is not None:
            self.bar.close()

    @property
    def seconds(self) -> float:
        """Wall time of the run so far, over all of its stretches."""
        return self.seconds_before + time.monotonic() - self.started

    def _logs(self, step: int) -> bool:
        ends = (step % self.steps_per_epoch, step % self.log_every)
        return 0 in ends or step == self.total_steps

    def _saves(self, step: int) -> bool:
        return step % self.checkpoint_every == 0 or step == self.total_steps

    def is_due(self, step: int) -> bool:
        """Whether anything is done with the state after a step."""
        return self._logs(step) or self._saves(step) or step in self.snapshot_steps

    def after_update(self, step: int, state: TrainState) -> None:
        """Does what is due after update `step` (counted from 1)."""
        if self.bar is None:
            # Compiling is over: speed is measured from here.
            jax.block_until_ready(state)
            self.resumed = time.monotonic()
            self.bar = tqdm(
                total=self.total_steps, initial=step, unit="step",
                disable=None if is_first() else True, dynamic_ncols=True, leave=False,
                mininterval=0.5,
            )  # fmt: skip
        else:
            self.training_steps += step - self.step
            self.bar.update(step - self.step)
            self._show(state)
        self.step = step
        if not self.is_due(step):
            return
        # What follows waits for the device and is not training.
        jax.block_until_ready(state)
        self.training_seconds += time.monotonic() - self.resumed
        for place, own in self._each(state):
            if self._logs(step):
                evaluates = step % self.steps_per_epoch == 0
                self._log(place, step, own, evaluates=evaluates)
            self._keep(place, step, own)
            if self._saves(step):
                self._save(place, step, own)
        self.resumed = time.monotonic()

    def _each(self, state: TrainState) -> list[tuple[Place, TrainState]]:
        """Each place and its state, of those that are finite.

        Raises:
            NonFiniteLossError: there is none.
        """
        bad = np.asarray(state.first_bad_step)
        raise_if_not_finite(bad)
        if not bad.ndim:
            return [(self.places[0], state)]
        found = []
        for place, own, step in zip(self.places, unstacked(state), bad, strict=True):
            if step < 0:
                found.append((place, own))
            elif place.failed is None:
                place.failed = int(step)
                tqdm.write(
                    f"warning: {place.name}: {NonFiniteLossError(int(step))}; "
                    f"{place.last_checkpoint}. The others go on"
                )
        return found

    def _show(self, state: TrainState) -> None:
        """Rate and loss beside the progress bar, at most twice a second."""
        assert self.bar is not None
        if self.bar.disable or time.monotonic() - self.shown < 0.5:
            return
        self.shown = time.monotonic()
        if np.ndim(state.step):
            state = unstacked(state)[0]
        loss = averages(state)["loss"]
        self.bar.set_postfix(rate=f"{_rate(state):.3g}", loss=f"{loss:.4f}")

    def _log(
        self, place: Place, step: int, state: TrainState, *, evaluates: bool
    ) -> None:
        train = averages(state)
        line: dict[str, Any] = {
            "step": step,
            "epoch": step / self.steps_per_epoch,
            "learning_rate": _rate(state),
            "train_loss": train["loss"],
            "train_error": train["error"],
        }
        line.update(self.kind.added(line))
        if evaluates:
            for part in self.parts:
                for name, value in self.evaluate(state, part).items():
                    line[f"{part}_{name}"] = value
        line["gradient_norm"] = train["gradient_norm"]
        if self.gauge is not None:
            line["seconds_waited"] = round(self.gauge.waited - self.waited_before, 3)
            self.waited_before = self.gauge.waited
            line["images_per_second"] = self.per_second
            line["pipeline_images_per_second"] = self.gauge.images_per_second
        line["seconds"] = round(self.seconds, 3)
        place.records.append_metrics(line)
        if place.events is not None:
            write_line(place.events, line)
        if evaluates:
            measured = "  ".join(
                self.kind.measured(line, part) for part in ("train", *self.parts)
            )
            tqdm.write(
                (f"{place.name}  " if place.name else "")
                + f"epoch {step // self.steps_per_epoch:>3}  rate "
                f"{line['learning_rate']:.3g}  {measured}  {self.seconds:.1f} s"
                + self._speeds()
            )

    def _speeds(self) -> str:
        """Of a stream: images a second in training, and those that can be read."""
        if self.gauge is None or (trained := self.per_second) is None:
            return ""
        read = self.gauge.images_per_second or math.nan
        return f"  {trained:,.0f} images/s of {read:,.0f} read"

    def keep(self, step: int, state: TrainState) -> None:
        """Keeps the snapshots that are due at a step."""
        for place, own in self._each(state):
            self._keep(place, step, own)

    def _keep(self, place: Place, step: int, state: TrainState) -> None:
        for name in self.snapshot_steps.get(step, ()):
            save_snapshot(place.records, name, state)

    def save(self, step: int, state: TrainState) -> None:
        """Saves a checkpoint, once a step."""
        for place, own in self._each(state):
            self._save(place, step, own)

    def _save(self, place: Place, step: int, state: TrainState) -> None:
        if place.saved_step == step:
            return
        notes: dict[str, Any] = {
            "metrics_bytes": place.records.sync_metrics(),
            "seconds": self.seconds,
        }
        if isinstance(self.data, StreamedDataset):
            notes["stream"] = position(self.data, state.key, step, self.batch_size)
        place.checkpoints.save(state, notes)
        place.saved_step = step

    @property
    def pipeline(self) -> dict[str, float]:
        """Of a stream: what its threads could read a second, and how long it lacked.

        ``pipeline_images_per_second``, beside training, and at the most
        ``seconds_waited``, of this stretch of the run; nothing where data lies in
        memory.
        """
        if self.gauge is None or (rate := self.gauge.images_per_second) is None:
            return {}
        return {
            "pipeline_images_per_second": round(rate, 1),
            "seconds_waited": round(self.gauge.waited, 3),
        }

    @property
    def per_second(self) -> float | None:
        """Each network's images or tokens a second, compiling and measuring apart."""
        if not self.training_steps:
            return None
        return self.training_steps * self.per_update / self.training_seconds


def _rate(state: TrainState) -> float:
    rate = learning_rate(state.opt_state)
    # Of several rates no single one is logged.
    return math.nan if rate is None or isinstance(rate, dict) else float(rate)
