"""What a run trains and measures, made of its settings and its data."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import optax

from experiments.harness.kinds import Kind
from lrscape.run_fields import RunFields
from lrscape.runs import peak_step
from lrscape.training import (
    TrainState,
    learning_rate,
)
from lrscape.training.devices import choose_devices, replicate

Line = dict[str, Any]


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
