"""Networks that are trained once, and the ground that their updates walked over.

Each lies in a run directory of its own, with its walks as results in stretches of a few
updates. What is there is not made again, and what was stopped goes on at the stretch it
was in: training repeats bit for bit.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
import optax
import xarray as xr
from tqdm import tqdm

from experiments.signals import Signals
from lrscape import data as data_
from lrscape import landscape, training, transforms
from lrscape.environment import describe
from lrscape.errors import InputError
from lrscape.records import Records
from lrscape.runs import Run, RunConfig, save_snapshot
from lrscape.training.checkpoint import Checkpoints

# Updates between two savings.
STRETCH = 25


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sample:
    """The examples that losses are measured on.

    Attributes:
        examples: how many of the training set; None is all of them.
        batch_size: examples a batch, by whose statistics batch norm normalises.
        second: whether to measure on as many other ones too: training examples that
            the first sample lacks, or the validation set where it has all.
    """

    examples: int | None
    batch_size: int
    second: bool = True


class Network:
    """One training run, made as far as it is asked for.

    Attributes:
        config: how it is trained.
        records: its directory.
    """

    def __init__(self, config: RunConfig, path: Path):
        self.config = config
        self.records = Records(path)
        if not self.records.exists():
            about = {**config.to_dict(), **describe(jax.local_devices())}
            Records.create(path, about)
        self._run = Run(path)
        if self._run.config.to_dict() != config.to_dict():
            raise InputError(
                f"{str(path)!r} holds a network that was trained otherwise; remove it, "
                "or choose another --run-dir"
            )
        # Several networks share a data set, which takes a while to be read.
        self._run.data = _load(
            config.dataset, config.data_dir, config.validation, config.split_seed
        )

    @property
    def steps_per_epoch(self) -> int:
        """Updates an epoch."""
        return self.config.steps_per_epoch(self._run.data)

    def span(self, epoch: int, updates: int | None) -> tuple[int, int]:
        """The first updates of an epoch, counted from 1; None is all of them."""
        first = (epoch - 1) * self.steps_per_epoch
        return first, first + min(updates or self.steps_per_epoch, self.steps_per_epoch)

    def walk(self, span: tuple[int, int], sample: Sample) -> xr.Dataset:
        """The ground under a span of updates, see `lrscape.landscape.Walk`."""
        stretches = [
            (first, min(first + STRETCH, span[1]))
            for first in range(span[0], span[1], STRETCH)
        ]
        missing = [s for s in stretches if not self._is_there(s, sample)]
        if missing:
            self._train(missing, sample)
        found = [self.records.load_result(_name(s, sample)) for s in stretches]
        return xr.concat(found, "step", combine_attrs="drop_conflicts")

    def objectives(self, sample: Sample) -> tuple[Any, Any]:
        """The loss over the sample in train mode, and over the second one or None."""
        size, count = len(self._run.data.train), sample.examples
        if count is not None and count > size:
            count = None
        parts = [("train", count, 0)]
        if sample.second and count is not None and 2 * count <= size:
            parts.append(("train", count, count))
        elif sample.second:
            parts.append(("validation", None, 0))
        objectives = [
            landscape.flax_objective(
                self._run.model, self._run.sample(part, n, start=start), norm="train",
                batch_size=sample.batch_size,
            )
            for part, n, start in parts
        ]  # fmt: skip
        return objectives[0], objectives[1] if len(objectives) > 1 else None

    def initial_params(self) -> Any:
        """The weights before the first update."""
        return self._initial(optax.identity()).params

    def _initial(self, tx: optax.GradientTransformation) -> training.TrainState:
        return training.initial_state(
            self._run.model, self._run.data, tx, self.config.seed
        )

    def _is_there(self, stretch: tuple[int, int], sample: Sample) -> bool:
        name = _name(stretch, sample)
        return (self.records.path / "results" / f"{name}.nc").exists()

    def _train(self, missing: Sequence[tuple[int, int]], sample: Sample) -> None:
        config, data = self.config, self._run.data
        total = config.total_steps(data)
        schedule = config.make_schedule(total, self.steps_per_epoch)
        tx = optax.chain(transforms.keep_gradient(), config.make_optimizer(schedule))
        start = self._initial(tx)
        objective, second = self.objectives(sample)
        recorder = landscape.Walk(
            objective, windows=missing, second=second, reference=start.params,
            chunk_size=None,
        )  # fmt: skip
        last = missing[-1][1]
        ends = {stretch[1]: stretch for stretch in missing}
        with (
            self.records.lock(),
            Checkpoints(self.records.path / "checkpoints") as checkpoints,
            Signals() as signals,
            tqdm(total=last, unit="step", desc=self.records.path.name,
                 leave=False) as bar,
        ):  # fmt: skip
            if "initial" not in self._run.snapshots:
                save_snapshot(self.records, "initial", start)
            newest = max(checkpoints.steps, default=-1)
            restored = checkpoints.restore(start) if newest >= 0 else None
            # What was left out before lies behind the newest: from the start again.
            if restored is not None and int(restored[0].step) <= missing[0][0]:
                start = restored[0]
            states = training.fit(
                self._run.model, data, tx,
                dataclasses.replace(config, num_devices=1),
                yield_every=self.steps_per_epoch, yield_at=recorder.wants, state=start,
            )  # fmt: skip
            for state in itertools.chain([start], states):
                step = int(state.step)
                gradient = optax.tree.get(state.opt_state, "gradient")
                recorder.record(step, state.params, gradient=gradient)
                if step in ends:
                    self._save(ends[step], sample, recorder)
                at_end = step in ends or step % self.steps_per_epoch == 0
                if at_end and step > newest:
                    checkpoints.save(state, {})
                bar.update(step - bar.n)
                if step >= last:
                    break
                if signals.received:
                    raise KeyboardInterrupt

    def _save(self, stretch, sample: Sample, recorder: landscape.Walk) -> None:
        first, last = stretch
        found = recorder.to_dataset()
        found = found.sel(step=(found["step"] >= first) & (found["step"] < last))
        self.records.save_result(_name(stretch, sample), found, recorder.settings)


def _name(stretch: tuple[int, int], sample: Sample) -> str:
    size = sample.examples or "all"
    both = "-second" if sample.second else ""
    return f"walk-{size}-{sample.batch_size}{both}-{stretch[0]}-{stretch[1]}"


@functools.lru_cache(maxsize=2)
def _load(name: str, data_dir: str | None, validation: int, split_seed: int) -> Any:
    return data_.load(
        name, data_dir=data_dir, validation=validation, split_seed=split_seed
    )


def descend(
    objective: Any, point: Any, tx: optax.GradientTransformation, num_steps: int
) -> Any:
    """Full-batch gradient descent, as a stream of points.

    The gradient is that of the mean loss over the whole sample, added up batch by
    batch; batch norm in train mode normalises by each batch's statistics, so that the
    batches are then a setting, and rounding otherwise.

    Args:
        objective: what is descended.
        point: where from.
        tx: the optimizer; its updates are handed the point.
        num_steps: updates.

    Yields:
        ``(step, point, gradient)``: the point after so many updates, and the gradient
        of the last one; zeros at step 0.
    """
    state = tx.init(point)
    yield 0, point, jax.tree.map(np.zeros_like, point)
    update = jax.jit(_updated, static_argnums=0)
    for step in range(1, num_steps + 1):
        slope = landscape.gradient(objective, point)
        point, state = update(tx, point, state, slope)
        yield step, point, slope


def _updated(tx, point, state, slope):
    updates, state = tx.update(slope, state, point)
    return optax.apply_updates(point, updates), state
