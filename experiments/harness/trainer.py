"""Trains one network, or several seeds of it in one program, in run directories.

From wherever a run is to its end: signals, checkpoints, metrics, snapshots, progress.
The command line of training and the papers' networks share this one loop.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import numpy as np
import optax
from tqdm import tqdm

from experiments.harness.kinds import Kind
from experiments.harness.progress import Progress
from experiments.harness.signals import noted_signals
from experiments.harness.tensorboard import EventWriter, open_events, write_line
from lrscape.data import Dataset, StreamedDataset
from lrscape.environment import describe, differences
from lrscape.errors import InputError
from lrscape.processes import from_first, is_first, wait_for_all
from lrscape.records import Records
from lrscape.run_fields import RunFields
from lrscape.runs import config_of, peak_step, save_snapshot
from lrscape.training import (
    NonFiniteLossError,
    TrainState,
    averages,
    fit_seeds,
    learning_rate,
    stacked,
    unstacked,
)
from lrscape.training.checkpoint import Checkpoints, CorruptCheckpointError
from lrscape.training.devices import choose_devices, replicate
from lrscape.training.feed import position
from lrscape.training.fit import raise_if_not_finite

# The result that says at which update seeds turned non-finite.
FAILED = "failed"

Line = dict[str, Any]


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


def _nothing(state: TrainState, line: Line) -> TrainState | None:
    return None


def _as_it_is(name: str, state: TrainState) -> TrainState:
    return state


def rate_of(state: TrainState) -> float:
    """The rate of a state's last update; NaN where there is none, or several."""
    rate = learning_rate(state.opt_state)
    return math.nan if rate is None or isinstance(rate, dict) else float(rate)


@dataclasses.dataclass(frozen=True)
class Training:
    """What a run trains, with what, and what is measured of it; for all of its seeds.

    Attributes:
        config: the run's settings.
        kind: of its data.
        data: what is trained on.
        devices: of this process.
        model: its Linen module.
        schedule: its learning rate.
        tx: its optimizer.
        initial: ``seed -> state``, before the first update.
        measure: ``state -> numbers`` by name, after an epoch.
        snapshots: the names of the snapshots that are due at each step.
        steps_per_epoch: updates an epoch.
        total_steps: updates in the whole run.
        checkpoint_every: updates between checkpoints.
        from_start: whether the initial state is measured too, and the first update
            logged.
        adapt: ``(state, line) -> state`` to go on from after an epoch, changed by what
            was logged; None: as it is.
        snapshot: ``(name, state) -> state``, what a snapshot of that name holds.
        rate: the rate of a state's last update.
        quiet: whether epochs are logged without being printed.
        donates: whether an update may reuse the memory of the state before it.
    """

    config: Any
    kind: Kind
    data: Any
    devices: list[jax.Device]
    model: nn.Module
    schedule: optax.Schedule
    tx: optax.GradientTransformation
    initial: Callable[[int], TrainState]
    measure: Callable[[TrainState], dict[str, float]]
    snapshots: Mapping[int, Sequence[str]]
    steps_per_epoch: int
    total_steps: int
    checkpoint_every: int
    from_start: bool = False
    adapt: Callable[[TrainState, Line], TrainState | None] = _nothing
    snapshot: Callable[[str, TrainState], TrainState] = _as_it_is
    rate: Callable[[TrainState], float] = rate_of
    quiet: bool = False
    donates: bool = True

    @classmethod
    def of(cls, config: Any, kind: Kind) -> Training:
        """Reads the data and makes the rest; raises InputError where that fails."""
        print(f"reading {config.dataset}")
        data = config.load_data()
        config.steps_per_epoch(data)  # a batch that is too large is seen first
        model = config.make_model(data.num_classes)
        parts, evaluate = kind.parts(data), kind.evaluate(model, data, config)

        def measure(state: TrainState) -> dict[str, float]:
            return {
                f"{part}_{name}": value
                for part in parts
                for name, value in evaluate(state, part).items()
            }

        kind.prepare(data, config)
        return cls.made_of(config, kind, data, model=model, measure=measure)

    @classmethod
    def made_of(cls, config: Any, kind: Kind, data: Any, **others: Any) -> Training:
        """All that follows from settings and data, unless it is given."""
        steps_per_epoch = config.steps_per_epoch(data)
        total_steps = config.total_steps(data)
        schedule = config.make_schedule(total_steps, steps_per_epoch)
        tx = others.pop("tx", None) or config.make_optimizer(schedule)
        found: dict[str, Any] = {
            "devices": choose_devices(config.num_devices, config.batch_size),
            "schedule": schedule,
            "tx": tx,
            "initial": kind.make_initial_state(others["model"], data, tx, config),
            "snapshots": snapshot_steps(config, steps_per_epoch, total_steps, schedule),
            "checkpoint_every": config.checkpoint_every or steps_per_epoch,
            **others,
        }
        return cls(
            config=config, kind=kind, data=data, steps_per_epoch=steps_per_epoch,
            total_steps=total_steps, **found,
        )  # fmt: skip

    def with_config(self, config: Any) -> Training:
        """The same for a run of another length."""
        total_steps = config.total_steps(self.data)
        schedule = config.make_schedule(total_steps, self.steps_per_epoch)
        tx = config.make_optimizer(schedule)
        return dataclasses.replace(
            self, config=config, schedule=schedule, total_steps=total_steps, tx=tx,
            initial=self.kind.make_initial_state(self.model, self.data, tx, config),
            snapshots=snapshot_steps(
                config, self.steps_per_epoch, total_steps, schedule
            ),
        )  # fmt: skip

    def initial_states(self, seeds: Sequence[int]) -> list[TrainState]:
        """The states before the first update, on the devices."""
        return [replicate(self.initial(seed), self.devices) for seed in seeds]


def snapshot_steps(
    config: RunFields, steps_per_epoch: int, total_steps: int, schedule: optax.Schedule
) -> dict[int, list[str]]:
    """The names of the snapshots that are due at each step."""
    due: dict[int, list[str]] = {}
    peak = peak_step(schedule, total_steps)
    named = {"initial": 0, "peak": peak, "final": total_steps}
    named.update({f"epoch_{e}": e * steps_per_epoch for e in config.snapshot_epochs})
    for name, step in named.items():
        due.setdefault(step, []).append(name)
    return due


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
        finish: Callable[[Trainer, Place], None] | None = None,
    ):
        config, data = training.config, training.data
        self.training, self.runs, self.root = training, list(runs), root
        self._given, self._together, self._tensorboard = given, together, tensorboard
        self._finish = finish
        self.places: list[Place] = []
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
            state, seconds = _restore_all(
                self.places, initial, seeds, self._together, data, config.batch_size,
                devices,
            )  # fmt: skip
            self._done = int(np.max(state.step)) or -1
        else:
            told = () if self.training.quiet else devices
            state, seconds = _restore(
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
            "yield_every": t.kind.stride(t.config, t.devices), "yield_at": due,
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
        stride = self.training.kind.stride(self.training.config, self.training.devices)
        return self.step + 1 if stride == 1 else int(np.max(state.step))

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


def _restore_all(
    places: list[Place],
    initial: list[TrainState],
    seeds: list[int],
    root: Records,
    data: Any,
    batch_size: int,
    devices: list[jax.Device],
) -> tuple[TrainState, float]:
    """Several seeds' states after the last update that all have saved, stacked.

    Raises:
        CorruptCheckpointError: there is no such update any more.
    """
    failed = failures(root)
    going = [n for n, seed in enumerate(seeds) if seed not in failed]
    last = min(max(places[n].checkpoints.steps, default=0) for n in going)
    states, seconds, found = list(initial), 0.0, set[int]()
    # Again where a damaged checkpoint takes one back further than the others.
    while len(found) != 1:
        for n in going:
            if (steps := places[n].checkpoints.steps) and min(steps) > last:
                raise CorruptCheckpointError(
                    f"{root.path}: its seeds have no checkpoints after the same "
                    "update any more; start another run"
                )
        for n in going:
            told = devices if n == going[0] else ()
            states[n], seconds = _restore(
                places[n], initial[n], data, batch_size, told, last
            )
        found = {int(states[n].step) for n in going}
        last = min(found)
    for n, seed in enumerate(seeds):
        if seed in failed:
            # It keeps its place, so that the program and the others stay the same.
            places[n].failed = failed[seed]
            states[n] = initial[n].replace(
                step=states[going[0]].step,
                first_bad_step=replicate(np.int32(failed[seed]), devices),
            )
    return stacked(states), seconds


def _restore(
    place: Place,
    state: TrainState,
    data: Any,
    batch_size: int,
    devices: Sequence[jax.Device],
    last: int | None = None,
) -> tuple[TrainState, float]:
    """The last good state and the seconds it took, or the initial one and none.

    Args:
        place: where it lies.
        state: the initial one.
        data: that is trained on.
        batch_size: examples an update.
        devices: that a warning is given of, where they are not those of before.
        last: the last update to go on from; None: any.

    Raises:
        InputError: a stream that would not go on at the example that comes next.
        CorruptCheckpointError: there was a checkpoint, and none is left.
    """
    records = place.records
    restored = place.checkpoints.restore(
        state, last=last, problem_of=_problem_of(records)
    )
    if restored is None:
        # The first checkpoint is saved before any update is logged.
        if records.metrics_length():
            if any(line.get("step") for line in records.metrics()):
                raise no_checkpoint(records)
            records.truncate_metrics(0)
        return state, 0.0
    state, notes, problems = restored
    for problem in problems:
        print(f"warning: {problem}; fell back to an older checkpoint")
    if isinstance(data, StreamedDataset):
        before = notes.get("stream")
        now = position(data, state.key, int(state.step), batch_size)
        if before != now:
            raise InputError(
                f"dataset={data.name!r} is not what {records.path} was trained on: the "
                f"next example was {before}, and would be {now}; bring the data back "
                "as it was, or start another run"
            )
    records.truncate_metrics(notes["metrics_bytes"])
    for difference in differences(records.config(), devices) if devices else ():
        print(
            f"warning: {difference}: the run goes on, but not bit for bit as it would "
            "have"
        )
    if devices:
        print(f"resuming {records.path} at step {int(state.step)}")
    return state, notes["seconds"]


def newest_whole(
    training: Training, records: Records, config: Any
) -> tuple[TrainState, dict[str, Any], list[str]] | None:
    """A run's newest checkpoint that is whole, see `Checkpoints.restore`."""
    (template,) = training.initial_states([config.seed])
    with Checkpoints(records.path / "checkpoints") as checkpoints:
        return checkpoints.restore(template, problem_of=_problem_of(records))


def _problem_of(records: Records) -> Callable[[int, dict[str, Any]], str | None]:
    """What says whether a run's metrics fit the notes of a checkpoint."""

    def problem_of(step: int, notes: dict[str, Any]) -> str | None:
        # The first process says it to all, so that they load the same one.
        found = records.metrics_problem(notes["metrics_bytes"]) if is_first() else None
        fits = bool(from_first(np.array([found is None]))[0])
        return None if fits else found or "the first process says so"

    return problem_of


def no_checkpoint(records: Records) -> CorruptCheckpointError:
    """The error for a run that was trained and has no checkpoint any more."""
    return CorruptCheckpointError(
        f"run_dir={str(records.path)!r} has metrics and no checkpoint to go on from: "
        f"bring {str(records.path / 'checkpoints')!r} back from a copy, or start "
        "another run in another directory"
    )


def check_length(records: Records, config: Any) -> None:
    """Raises InputError where a run is not, or no longer, what was found of it."""
    found = config_of(records.config())
    if (found.epochs, found.extended) != (config.epochs, config.extended):
        raise InputError(
            f"run_dir={str(records.path)!r} was made longer by another process, to "
            f"{found.epochs} epochs; give the same command again"
        )


def failures(root: Records) -> dict[int, int]:
    """The updates at which seeds turned non-finite, so far."""
    noted = root.load_result_summary(FAILED) or {}
    return {int(seed): step for seed, step in noted.items()}


def note_failures(root: Records, found: Mapping[int, int]) -> None:
    """Writes down which seeds turned non-finite."""
    root.save_result_summary(FAILED, {str(s): step for s, step in found.items()})
