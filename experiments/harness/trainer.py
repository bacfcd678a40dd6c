"""Trains one network, or several seeds of it in one program, in run directories.

From wherever a run is to its end: signals, checkpoints, metrics, snapshots, progress.
The command line of training and the papers' networks share this one loop.
"""

from __future__ import annotations

import contextlib
import math
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from tqdm import tqdm

from experiments.harness.progress import Progress
from experiments.harness.restoring import (
    Place,
    check_length,
    failures,
    note_failures,
    restore,
    restore_all,
)
from experiments.harness.signals import noted_signals
from experiments.harness.tensorboard import open_events, write_line
from experiments.harness.training import Line, Training
from lrscape.data import Dataset, StreamedDataset
from lrscape.environment import describe
from lrscape.processes import is_first, wait_for_all
from lrscape.records import Records
from lrscape.runs import save_snapshot
from lrscape.training import (
    NonFiniteLossError,
    TrainState,
    averages,
    fit_seeds,
    unstacked,
)
from lrscape.training.checkpoint import Checkpoints
from lrscape.training.devices import replicate
from lrscape.training.feed import position
from lrscape.training.fit import raise_if_not_finite


class StorageError(OSError):
    """A run directory that can no longer be written."""


class Stopped(KeyboardInterrupt):
    """A signal that asked training to stop, after everything was saved.

    Attributes:
        signal: which one.
        step: updates that are saved.
    """

    def __init__(self, number: signal.Signals, step: int):
        super().__init__(f"stopped by {number.name} at step {step}; saved")
        self.signal, self.step = number, step


def _never(step: int) -> bool:
    return False


class Trainer:
    """Trains a run, or those of several seeds together, from where they are.

    Args:
        training: what is trained and measured.
        runs: settings and directory of each; several are trained in one program, whose
            states come stacked and are kept each in its own place; one that turns
            non-finite is kept no further.
        root: the directory to resume.
        given: the flags of a run that has still to be made, which is made under its
            lock; None: it is there.
        together: the directory of the seeds, where they train together.
        tensorboard: whether TensorBoard's files are written too.
        finish: called for each run that has come to its end and has no summary yet,
            under its lock.
    """

    def __init__(
        self,
        training: Training,
        runs: Sequence[tuple[Any, Records]],
        root: Path,
        *,
        given: Sequence[Mapping[str, Any] | None] = (None,),
        together: Records | None = None,
        tensorboard: bool = False,
        finish: Callable[[Trainer, Place], Any] | None = None,
    ):
        config, data = training.config, training.data
        self.training, self.runs, self.root = training, list(runs), root
        self._given, self._together, self._tensorboard = given, together, tensorboard
        self._finish = finish
        self.places: list[Place] = []
        self._stride = training.kind.stride(config, training.devices)
        self._log_every = config.log_every or training.steps_per_epoch
        self._gauge = data.train.gauge if isinstance(data, StreamedDataset) else None
        self._waited_before = 0.0
        self._seconds_before = 0.0
        self._started = self._resumed = time.monotonic()
        self._since_epoch = 0.0
        self._training_seconds, self._training_steps = 0.0, 0
        self._progress: Progress | None = None
        self.step = self.parameters = 0
        self._last = training.total_steps
        self._done = -1  # the last update whose metrics and snapshots are kept
        self._logged: dict[int, Line] = {}  # of a run that is gone through again

    def states(
        self,
        last: int | None = None,
        *,
        since: int | None = None,
        wants: Callable[[int], bool] = _never,
        keeps: Callable[[int], bool] = _never,
    ) -> Iterator[TrainState]:
        """Trains, and yields the states after those updates that are wanted.

        What is logged and kept already is not logged again: training repeats bit for
        bit, so that a run may be gone through again for states that were not looked at
        before.

        Args:
            last: the last update; None is the run's.
            since: what lies before is not wanted: the run goes on from its newest
                checkpoint if that lies no later, and else from its start; None: from
                its newest checkpoint in any case.
            wants: says of a step whether to yield the state after so many updates; 0
                is the initial state.
            keeps: says of a step whether to save a checkpoint, besides those that are
                due, once its state was dealt with.

        Raises:
            InputError: another process has made, extended or removed a run meanwhile.
            NonFiniteLossError: the loss or its gradient is not finite any more.
            StorageError: the directory cannot be written.
            Stopped: a signal asked to stop, after everything was saved.
        """
        total = self.training.total_steps
        self._last = last = total if last is None else min(last, total)
        # What a model is not made for shows here, before there is a run.
        initial = self.training.initial_states([own.seed for own, _ in self.runs])
        self.parameters = sum(leaf.size for leaf in jax.tree.leaves(initial[0].params))
        with contextlib.ExitStack() as stack:
            self._open(stack)
            state = self._restored(initial, since)
            self.step = int(np.max(state.step))
            self._open_events()
            with noted_signals() as signals, self._errors_explained():
                if wants(self.step):
                    yield state
                # A longer run may keep what this step was not kept for.
                state = self._begin(state)

                def due(step: int) -> bool:
                    return (
                        wants(step) or keeps(step) or step == last
                        or self._is_due(step) or signals.received is not None
                    )  # fmt: skip

                states, told = self._pass_through(state, due), None
                self._resumed = time.monotonic()
                while self.step < last:
                    state = states.send(told)
                    step = self._next_step(state)
                    if wants(step):
                        raise_if_not_finite(state.first_bad_step)
                        yield state
                    told = self._after_update(step, state, keeps(step))
                    if told is not None and _reordered(told, state):
                        states.close()
                        states, told = self._pass_through(told, due), None
                    self._note_failed()
                    stop = signals.asked()
                    if stop and step < total:
                        self._save_all(step, state)
                        raise Stopped(stop, step)
                self.close()
                if last == total:
                    self._end()

    def close(self) -> None:
        """Takes the progress away."""
        if self._progress is not None:
            self._progress.close()
            self._progress = None

    def _open(self, stack: contextlib.ExitStack) -> None:
        """Locks the runs, makes those that are new, and opens their checkpoints."""
        self.places = []
        for (own, records), given in zip(self.runs, self._given, strict=True):
            # What was found before the lock may no longer hold.
            stack.enter_context(records.lock())
            if given is None:
                check_length(records, own)
            elif is_first():
                environment = describe(self.training.devices)
                Records.create(
                    records.path, {**own.to_dict(), "given": given, **environment}
                )
                if self._together is None:
                    print(f"run directory: {records.path}")
        wait_for_all("the run is made")
        for _, records in self.runs:
            checkpoints = Checkpoints(records.path / "checkpoints")
            name = "" if self._together is None else records.path.name
            self.places.append(Place(records, stack.enter_context(checkpoints), name))

    def _open_events(self) -> None:
        if self._tensorboard and is_first():
            for place in self.places:
                place.events = open_events(place.records.path, self.step)

    def _restored(self, initial: list[TrainState], since: int | None) -> TrainState:
        """The state to go on from."""
        config, data, devices = (
            self.training.config, self.training.data, self.training.devices
        )  # fmt: skip
        if self._together is not None:
            seeds = [own.seed for own, _ in self.runs]
            state, seconds = restore_all(
                self.places, initial, seeds, self._together, data, config.batch_size,
                devices,
            )  # fmt: skip
            self._done = int(np.max(state.step)) or -1
        else:
            told = () if self.training.quiet else devices
            state, seconds = restore(
                self.places[0], initial[0], data, config.batch_size, told
            )
            restored = bool(self.places[0].checkpoints.steps)
            self._done = int(state.step) if restored else -1
            if since is not None and int(state.step) > since:
                state = initial[0]
                lines = self.places[0].records.metrics()
                self._logged = {line["step"]: line for line in lines}
        self._seconds_before = seconds
        self._started = time.monotonic()
        return state

    def _begin(self, state: TrainState) -> TrainState:
        """Keeps, logs and saves what is due at the state that is gone on from."""
        for place, own in self._each(state):
            self._keep(place, self.step, own)
        if self.step or self._done >= 0:
            told = self._adapted_before(self.step, state)
            return state if told is None else told
        told = None
        if self.training.from_start:
            line = {
                "step": 0,
                "epoch": 0.0,
                "learning_rate": self.training.rate(state),
                **self.training.measure(state),
                "seconds": round(self.seconds, 3),
            }
            self.places[0].records.append_metrics(line)
            told = self.training.adapt(state, line)
        state = state if told is None else replicate(told, self.training.devices)
        self._save_all(0, state)
        self._done = 0
        return state

    def _pass_through(self, state: TrainState, due: Callable[[int], bool]) -> Any:
        """The training loop, from a state on."""
        t = self.training
        options: dict[str, Any] = {
            "yield_every": self._stride, "yield_at": due,
            "donate": t.donates, "state": state,
        }  # fmt: skip
        if self._together is None:
            # One of several that train apart has a seed of its own.
            return t.kind.fit(t.model, t.data, t.tx, self.runs[0][0], **options)
        assert isinstance(t.data, Dataset)
        seeds = [own.seed for own, _ in self.runs]
        return fit_seeds(t.model, t.data, t.tx, t.config, seeds, **options)

    def _next_step(self, state: TrainState) -> int:
        # Reading state.step would wait for the device at every update.
        return self.step + 1 if self._stride == 1 else int(np.max(state.step))

    @contextlib.contextmanager
    def _errors_explained(self) -> Iterator[None]:
        try:
            yield
        # Nothing that is not finite is ever saved.
        except NonFiniteLossError as error:
            error.args = (f"{error}; {self.places[0].last_checkpoint}",)
            raise
        except OSError as error:
            for place in self.places:  # one that is gone needs no room
                place.records.check_there()
            again = (
                "give the same command again"
                if self.training.quiet
                else f"go on with --resume --run-dir={self.root}"
            )
            raise StorageError(
                f"{self.root} cannot be written: {error}; "
                f"{self.places[0].last_checkpoint}. Make room, then {again}"
            ) from error
        finally:
            self.close()
            for place in self.places:
                if place.events is not None:
                    place.events.close()

    @property
    def seconds(self) -> float:
        """Wall time of the run so far, over all of its stretches."""
        return self._seconds_before + time.monotonic() - self._started

    def _logs(self, step: int) -> bool:
        ends = (step % self.training.steps_per_epoch, step % self._log_every)
        if step == 1 and self.training.from_start:
            return True
        return 0 in ends or step == self.training.total_steps

    def _saves(self, step: int) -> bool:
        return (
            step % self.training.checkpoint_every == 0
            or step == self.training.total_steps
        )

    def _is_due(self, step: int) -> bool:
        """Whether anything is done with the state after a step."""
        if step <= self._done:
            return step in self._logged
        return self._logs(step) or self._saves(step) or step in self.training.snapshots

    def _after_update(
        self, step: int, state: TrainState, keeps: bool
    ) -> TrainState | None:
        """Does what is due after an update; the changed state to go on from, if any."""
        if self._progress is None:
            # Compiling is over: speed is measured from here.
            jax.block_until_ready(state)
            now = time.monotonic()
            self._since_epoch += now - self._resumed
            self._resumed = now
            alone = self._together is None and self.training.quiet
            self._progress = Progress(
                self._last, step, shown=is_first(),
                name=self.places[0].records.path.name if alone else "",
                lines=not self.training.quiet,
            )  # fmt: skip
        else:
            self._training_steps += step - self.step
            self._progress.update(step)
            if self._progress.due():
                one = unstacked(state)[0] if np.ndim(state.step) else state
                numbers = {
                    "loss": f"{averages(one)['loss']:.4f}",
                    "rate": f"{self.training.rate(one):.3g}",
                }
                self._progress.show(step, numbers)
        self.step = step
        if step <= self._done:
            return self._adapted_before(step, state)
        if not (self._is_due(step) or keeps):
            return None
        # What follows waits for the device and is not training.
        jax.block_until_ready(state)
        spent = time.monotonic() - self._resumed
        self._training_seconds += spent
        self._since_epoch += spent
        told = None
        for place, own in self._each(state):
            self._keep(place, step, own)
            line = self._log(place, step, own) if self._logs(step) else None
            if line is not None and step % self.training.steps_per_epoch == 0:
                told = self.training.adapt(own, line)
            if self._saves(step) or keeps:
                self._save(place, step, own if told is None else told)
        self._resumed = time.monotonic()
        return told

    def _adapted_before(self, step: int, state: TrainState) -> TrainState | None:
        """What a state was changed to, by what was logged when it was first made."""
        line = self._logged.get(step)
        if line is None or step % self.training.steps_per_epoch:
            return None
        return self.training.adapt(state, line)

    def _end(self) -> None:
        """Finishes the runs that have come to their end."""
        for place in self.places:
            left = place.failed is None and place.records.summary() is None
            if is_first() and left and self._finish is not None:
                self._finish(self, place)
        wait_for_all("the run is finished")

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

    def _log(self, place: Place, step: int, state: TrainState) -> Line:
        training = self.training
        at_end = step % training.steps_per_epoch == 0
        train = averages(state)
        line: Line = {
            "step": step,
            "epoch": step / training.steps_per_epoch,
            "learning_rate": training.rate(state),
            "train_loss": train["loss"],
            "train_error": train["error"],
        }
        line.update(training.kind.added(line))
        if at_end:
            line.update(training.measure(state))
        line["gradient_norm"] = train["gradient_norm"]
        if self._gauge is not None:
            line["seconds_waited"] = round(self._gauge.waited - self._waited_before, 3)
            self._waited_before = self._gauge.waited
            line["images_per_second"] = self.per_second
            line["pipeline_images_per_second"] = self._gauge.images_per_second
        if training.from_start:
            line["update_seconds"] = self._since_epoch
            self._since_epoch *= not at_end
        line["seconds"] = round(self.seconds, 3)
        place.records.append_metrics(line)
        if place.events is not None:
            write_line(place.events, line)
        if at_end and not training.quiet:
            parts = ("train", *training.kind.parts(training.data))
            measured = "  ".join(training.kind.measured(line, part) for part in parts)
            tqdm.write(
                (f"{place.name}  " if place.name else "")
                + f"epoch {step // training.steps_per_epoch:>3}  rate "
                f"{line['learning_rate']:.3g}  {measured}  {self.seconds:.1f} s"
                + self._speeds()
            )
        return line

    def _speeds(self) -> str:
        """Of a stream: images a second in training, and those that can be read."""
        if self._gauge is None or (trained := self.per_second) is None:
            return ""
        read = self._gauge.images_per_second or math.nan
        return f"  {trained:,.0f} images/s of {read:,.0f} read"

    def _keep(self, place: Place, step: int, state: TrainState) -> None:
        for name in self.training.snapshots.get(step, ()):
            save_snapshot(place.records, name, self.training.snapshot(name, state))

    def _save_all(self, step: int, state: TrainState) -> None:
        if step > self._done:
            for place, own in self._each(state):
                self._save(place, step, own)

    def _save(self, place: Place, step: int, state: TrainState) -> None:
        """Saves a checkpoint, once a step."""
        if place.saved_step == step:
            return
        notes: dict[str, Any] = {
            "metrics_bytes": place.records.sync_metrics(),
            "seconds": self.seconds,
        }
        data = self.training.data
        if isinstance(data, StreamedDataset):
            batch_size = self.training.config.batch_size
            notes["stream"] = position(data, state.key, step, batch_size)
        place.checkpoints.save(state, notes)
        place.saved_step = step

    def _note_failed(self) -> None:
        """Writes down the seeds that turned non-finite, once each."""
        if self._together is None:
            return
        found = {
            own.seed: place.failed
            for (own, _), place in zip(self.runs, self.places, strict=True)
            if place.failed is not None
        }
        if found and found.keys() - (noted := failures(self._together)).keys():
            note_failures(self._together, {**noted, **found})

    @property
    def pipeline(self) -> dict[str, float]:
        """Of a stream: what its threads could read a second, and how long it lacked.

        ``pipeline_images_per_second``, beside training, and at the most
        ``seconds_waited``, of this stretch of the run; nothing where data lies in
        memory.
        """
        if self._gauge is None or (rate := self._gauge.images_per_second) is None:
            return {}
        return {
            "pipeline_images_per_second": round(rate, 1),
            "seconds_waited": round(self._gauge.waited, 3),
        }

    @property
    def per_second(self) -> float | None:
        """Each network's images or tokens a second, compiling and measuring apart."""
        if not self._training_steps:
            return None
        seen = self._training_steps * self.training.kind.per_update(
            self.training.config
        )
        return seen / self._training_seconds


def _reordered(told: TrainState, state: TrainState) -> bool:
    """Whether the order of the examples, which follows the key, is another one."""
    new, old = (np.asarray(jax.random.key_data(one.key)) for one in (told, state))
    return not np.array_equal(new, old)
