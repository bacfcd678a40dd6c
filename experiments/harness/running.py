"""A run, or several of it that differ by their seed, from where it is to its end."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import numpy as np
import optax

from experiments.harness.finish import finish
from experiments.harness.flags import CommonArguments
from experiments.harness.kinds import Evaluate, Kind
from experiments.harness.loop import Loop, Place
from experiments.harness.signals import noted_signals
from lrscape.data import Dataset, StreamedDataset
from lrscape.environment import describe, differences
from lrscape.errors import InputError
from lrscape.processes import from_first, is_first, wait_for_all
from lrscape.records import Records
from lrscape.run_fields import RunFields
from lrscape.runs import config_of, peak_step
from lrscape.training import TrainState, fit_seeds, stacked
from lrscape.training.checkpoint import Checkpoints, CorruptCheckpointError
from lrscape.training.devices import choose_devices, replicate
from lrscape.training.feed import position

# What says at which update seeds turned non-finite.
FAILED = "failed"


@dataclasses.dataclass(frozen=True)
class Parts:
    """What a run is made of, the same for all of its seeds."""

    config: Any
    kind: Kind
    data: Any
    devices: list[jax.Device]
    model: nn.Module
    schedule: optax.Schedule
    tx: optax.GradientTransformation
    evaluate: Evaluate
    steps_per_epoch: int
    total_steps: int

    @classmethod
    def of(cls, config: Any, kind: Kind) -> Parts:
        """Reads the data and makes the rest; raises InputError where that fails."""
        print(f"reading {config.dataset}")
        data = config.load_data()
        steps_per_epoch = config.steps_per_epoch(data)
        total_steps = config.total_steps(data)
        devices = choose_devices(config.num_devices, config.batch_size)
        model = config.make_model(data.num_classes)
        schedule = config.make_schedule(total_steps, steps_per_epoch)
        tx = config.make_optimizer(schedule)
        evaluate = kind.evaluate(model, data, config)
        kind.prepare(data, config)
        return cls(
            config, kind, data, devices, model, schedule, tx, evaluate, steps_per_epoch,
            total_steps,
        )  # fmt: skip

    def with_config(self, config: Any) -> Parts:
        """The same for a run of another length."""
        total_steps = config.total_steps(self.data)
        schedule = config.make_schedule(total_steps, self.steps_per_epoch)
        return dataclasses.replace(
            self, config=config, schedule=schedule, total_steps=total_steps,
            tx=config.make_optimizer(schedule),
        )  # fmt: skip

    def initial_states(self, seeds: Sequence[int]) -> list[TrainState]:
        """The states before the first update, on the devices."""
        state_of = self.kind.make_initial_state(
            self.model, self.data, self.tx, self.config
        )
        return [replicate(state_of(seed), self.devices) for seed in seeds]


def train_in(
    parts: Parts,
    root: Path,
    runs: list[tuple[Any, Records]],
    arguments: CommonArguments,
    new: Sequence[bool],
    together: Records | None = None,
) -> int:
    """Trains a run to its end, or several together, from where they are.

    Args:
        parts: what they are made of.
        root: the directory to resume.
        runs: settings and directories; one, or those of seeds that train together.
        arguments: of the command line.
        new: of each run, whether it is to be made.
        together: the directory of the seeds, where they train together.

    Returns:
        The exit status.

    Raises:
        InputError: another process has made, extended or removed a run meanwhile.
    """
    config, kind = parts.config, parts.kind
    data, devices = parts.data, parts.devices
    given = arguments.given()
    # What a model is not made for shows here, before there is a run.
    seeds = [own.seed for own, _ in runs]
    initial = parts.initial_states(seeds)
    with contextlib.ExitStack() as stack:
        places = []
        for (own, records), is_new in zip(runs, new, strict=True):
            # What was found before the lock may no longer hold.
            stack.enter_context(records.lock())
            if not is_new:
                check_length(records, own)
            elif is_first():
                flags = given if own == config else {**given, "seed": own.seed}
                environment = describe(devices)
                Records.create(
                    records.path, {**own.to_dict(), "given": flags, **environment}
                )
                if together is None:
                    print(f"run directory: {records.path}")
        wait_for_all("the run is made")
        for _, records in runs:
            checkpoints = Checkpoints(records.path / "checkpoints")
            name = "" if together is None else records.path.name
            places.append(Place(records, stack.enter_context(checkpoints), name))
        if together is None:
            state, seconds = _restore(
                places[0], initial[0], data, config.batch_size, devices
            )
        else:
            state, seconds = _restore_all(
                places, initial, seeds, together, data, config.batch_size, devices
            )
        loop = Loop(
            places=places,
            root=root,
            config=config,
            evaluate=parts.evaluate,
            kind=kind,
            parts=kind.parts(data),
            data=data,
            steps_per_epoch=parts.steps_per_epoch,
            total_steps=parts.total_steps,
            snapshot_steps=_snapshot_steps(
                config, parts.steps_per_epoch, parts.total_steps, parts.schedule
            ),
            step=int(np.max(state.step)),
            seconds=seconds,
            tensorboard=bool(arguments.tensorboard) and is_first(),
        )
        with noted_signals() as signals, loop:
            # A longer run may keep what this step was not kept for.
            loop.keep(loop.step, state)
            if loop.step == 0:
                loop.save(0, state)
            stride = kind.stride(config, devices)
            options: dict[str, Any] = {
                "yield_every": stride, "yield_at": loop.is_due, "donate": True,
                "state": state,
            }  # fmt: skip
            if together is None:
                # One of several that train apart has a seed of its own.
                states = kind.fit(parts.model, data, parts.tx, runs[0][0], **options)
            else:
                assert isinstance(data, Dataset)
                states = fit_seeds(
                    parts.model, data, parts.tx, config, seeds, **options
                )
            for state in states:
                # Reading state.step would wait for the device at every update.
                step = loop.step + 1 if stride == 1 else int(np.max(state.step))
                loop.after_update(step, state)
                if together is not None:
                    _note_failed(together, seeds, places)
                stop = signals.asked()
                if stop and step < parts.total_steps:
                    loop.save(step, state)
                    loop.close()
                    print(
                        f"stopped by {stop.name} at step {step}; saved. Go on "
                        f"with --resume --run-dir={root}"
                    )
                    return 128 + stop
            loop.close()
            parameters = sum(leaf.size for leaf in jax.tree.leaves(initial[0].params))
            for place in places:
                left = place.failed is None and place.records.summary() is None
                if is_first() and left:
                    finish(loop, place, parameters)
            wait_for_all("the run is finished")
    return 0


def _note_failed(root: Records, seeds: Sequence[int], places: Sequence[Place]) -> None:
    """Writes down the seeds that turned non-finite, once each."""
    found = {
        seed: place.failed
        for seed, place in zip(seeds, places, strict=True)
        if place.failed is not None
    }
    if found and found.keys() - (noted := failures(root)).keys():
        note_failures(root, {**noted, **found})


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
        # The first checkpoint is saved before anything is logged.
        if records.metrics_length():
            raise no_checkpoint(records)
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
    print(f"resuming {records.path} at step {int(state.step)}")
    return state, notes["seconds"]


def newest_whole(
    parts: Parts, records: Records, config: Any
) -> tuple[TrainState, dict[str, Any], list[str]] | None:
    """A run's newest checkpoint that is whole, see `Checkpoints.restore`."""
    (template,) = parts.initial_states([config.seed])
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


def _snapshot_steps(
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


def failures(root: Records) -> dict[int, int]:
    """The updates at which seeds turned non-finite, so far."""
    noted = root.load_result_summary(FAILED) or {}
    return {int(seed): step for seed, step in noted.items()}


def note_failures(root: Records, found: Mapping[int, int]) -> None:
    """Writes down which seeds turned non-finite."""
    root.save_result_summary(FAILED, {str(s): step for s, step in found.items()})
