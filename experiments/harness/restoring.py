"""Runs gone on with: their last good states, and what failed before."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from experiments.harness.tensorboard import EventWriter
from experiments.harness.training import Training
from lrscape.data import StreamedDataset
from lrscape.environment import differences
from lrscape.errors import InputError
from lrscape.processes import from_first, is_first
from lrscape.records import Records
from lrscape.runs import config_of
from lrscape.training import (
    TrainState,
    stacked,
)
from lrscape.training.checkpoint import Checkpoints, CorruptCheckpointError
from lrscape.training.devices import replicate
from lrscape.training.feed import position

# The result that says at which update seeds turned non-finite.
FAILED = "failed"


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


def restore_all(
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
            states[n], seconds = restore(
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


def restore(
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
