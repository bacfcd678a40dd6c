"""Networks that are trained once, and what is measured while they are.

Each lies in a run directory of its own, with what was measured as results: its walks in
stretches of a few updates, its history epoch by epoch. What is there is not made again,
and what was stopped goes on where it was: training repeats bit for bit.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import json
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
import optax
import xarray as xr
from tqdm import tqdm

from experiments.harness.signals import Signals
from experiments.walk_with_sgd.redrawn import RedrawnLoss, RedrawnWalk
from lrscape import data as data_
from lrscape import landscape, training, transforms
from lrscape.environment import describe, differences
from lrscape.errors import InputError
from lrscape.landscape import tree
from lrscape.records import Records
from lrscape.runs import Run, RunConfig, save_snapshot
from lrscape.training.checkpoint import Checkpoints
from lrscape.training.device_data import DeviceData
from lrscape.training.fit import raise_if_not_finite

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
        redrawn: whether to measure beside it on examples that are shuffled and
            augmented anew at every point, as the paper's authors do.
    """

    examples: int | None
    batch_size: int
    second: bool = True
    redrawn: bool = False


class Network:
    """One training run, made as far as it is asked for.

    Attributes:
        config: how it is trained.
        records: its directory.
    """

    def __init__(self, config: RunConfig, path: Path):
        self.config = config
        # Several networks share a data set, which takes a while to be read.
        data = _load(
            config.dataset, config.data_dir, config.validation, config.split_seed
        )
        self.records, devices = Records(path), jax.local_devices()
        if not self.records.exists():
            with self.records.lock():  # in which another process may have been faster
                if not self.records.exists():
                    Records.create(path, {**config.to_dict(), **describe(devices)})
        self._run = Run(path)
        # Where the data lie may change.
        if {**self._run.config.to_dict(), "data_dir": config.data_dir} != (
            config.to_dict()
        ):
            raise InputError(
                f"{str(path)!r} holds a network that was trained otherwise; remove it, "
                "or choose another --run-dir"
            )
        self._run.data = data
        for difference in differences(self.records.config(), devices):
            print(
                f"warning: {path.name}: {difference}: what is measured now is not of "
                "quite the same network; choose another --run-dir for one of its own"
            )

    @property
    def steps_per_epoch(self) -> int:
        """Updates an epoch."""
        return self.config.steps_per_epoch(self._run.data)

    def span(self, epoch: int, updates: int | None) -> tuple[int, int]:
        """The first updates of an epoch, counted from 1; None is all of them."""
        first = (epoch - 1) * self.steps_per_epoch
        return first, first + min(updates or self.steps_per_epoch, self.steps_per_epoch)

    @property
    def model(self) -> Any:
        """Its Linen module."""
        return self._run.model

    def walk(self, span: tuple[int, int], sample: Sample) -> xr.Dataset:
        """The ground under a span of updates, see `lrscape.landscape.Walk`."""
        stretches = [
            (first, min(first + STRETCH, span[1]))
            for first in range(span[0], span[1], STRETCH)
        ]
        missing = [s for s in stretches if not self._is_there(_name(s, sample))]
        if missing:
            self._walk(missing, sample)
        found = [self.records.load_result(_name(s, sample)) for s in stretches]
        return xr.concat(found, "step", combine_attrs="drop_conflicts")

    def once(
        self, name: str, settings: dict[str, Any], make: Callable[[], xr.Dataset]
    ) -> xr.Dataset:
        """A result that is made unless it is there, made with the same settings."""
        wanted = json.loads(json.dumps(settings))
        if self._is_there(name):
            found = self.records.load_result(name)
            if json.loads(found.attrs["settings"]) == wanted:
                return found
        made = make()
        self.records.save_result(name, made, settings)
        return made

    def angles(self, updates: int) -> xr.Dataset:
        """Over the first updates: the cosine of consecutive gradients, and distance."""

        def make() -> xr.Dataset:
            rows, before, start = [], None, None
            for state in self.states(0, updates, lambda step: step <= updates):
                step, params = int(state.step), state.params
                if step == 0:
                    start = jax.tree.map(np.asarray, params)
                    continue
                gradient = optax.tree.get(state.opt_state, "gradient")
                cosine = np.nan if before is None else _cosine(before, gradient)
                rows.append((step, float(cosine), float(_distance(params, start))))
                before = gradient
            assert len(rows) == updates
            steps, cosines, distances = map(np.array, zip(*rows, strict=True))
            return xr.Dataset(
                {
                    "cosine": ("step", cosines, {"units": "1", "of": "gradients"}),
                    "distance": ("step", distances, {"units": "1"}),
                },
                {"step": ("step", steps, {"units": "update"})},
            )

        return self.once(f"angles-{updates}", {"updates": updates}, make)

    def history(self, epochs: int, sample: Sample | None = None) -> list[dict]:
        """Errors after each epoch, and with a sample the Hessian's spectral norm.

        Args:
            epochs: the last one; the first row is of the initial weights.
            sample: what curvature is measured on; None leaves it out.

        Returns:
            A row an epoch: ``train_loss`` (over the epoch, as it was trained),
            ``train_error``, ``validation_error``, ``test_error``, and
            ``norm_train`` and ``norm_eval``, by batch-norm mode, in nats.
        """
        name = "history" if sample is None else f"history-{_size(sample)}"
        rows: list = self.records.load_result_summary(name) or []
        if len(rows) > epochs:
            return rows[: epochs + 1]
        per_epoch = self.steps_per_epoch
        evaluate = training.make_evaluate(
            self._run.model, self._run.data,
            dataclasses.replace(self.config, num_devices=1),
            batch_size=self.config.eval_batch_size,
        )  # fmt: skip
        for state in self.states(
            len(rows) * per_epoch, epochs * per_epoch, lambda n: n % per_epoch == 0
        ):
            epoch = int(state.step) // per_epoch
            row: dict[str, Any] = {"epoch": epoch}
            if epoch:
                train = training.averages(state)
                row |= {"train_loss": train["loss"], "train_error": train["error"]}
            for part in ("validation", "test"):
                row[f"{part}_error"] = evaluate(state, part)["error"]
            if sample is not None:
                row |= self._norms(state, sample)
            rows.append(row)
            self.records.save_result_summary(name, rows)
        return rows

    def _norms(self, state: training.TrainState, sample: Sample) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for norm in ("train", "eval"):
            if sample.redrawn and norm == "train":
                key = jax.random.fold_in(jax.random.key(self.config.seed), state.step)
                found["norm_train"] = self.redrawn(sample).spectral_norm(
                    state.params, key
                )
                continue
            if norm == "eval" and not jax.tree.leaves(state.batch_stats):
                continue
            objective = landscape.flax_objective(
                self._run.model, self._run.sample("train", self._count(sample)),
                norm=norm,
                batch_size=sample.batch_size,
                batch_stats=state.batch_stats if norm == "eval" else None,
            )  # fmt: skip
            measured = landscape.spectral_norm(
                objective, state.params, key=jax.random.key(0), tolerance=1e-2
            )
            found[f"norm_{norm}"] = measured.value
            found[f"converged_{norm}"] = measured.converged
        return found

    def redrawn(self, sample: Sample) -> RedrawnLoss:
        """The loss on examples that are shuffled and augmented at every point."""
        data = self._run.data
        return RedrawnLoss(
            self._run.model,
            DeviceData.of(data, "train", self.config.normalize),
            num_examples=min(sample.examples or len(data.train), len(data.train)),
            batch_size=sample.batch_size,
            augment=self.config.augment,
        )

    def validation(self, batch_size: int, count: int) -> Any:
        """Loss and error on validation examples, batch norm in train mode.

        Args:
            batch_size: examples a batch.
            count: of them; no more than there are.
        """
        held_out = self._run.data.validation
        assert held_out is not None
        count = min(count, len(held_out))
        return landscape.flax_objective(
            self._run.model, self._run.sample("validation", count), norm="train",
            batch_size=min(batch_size, count), error=True,
        )  # fmt: skip

    def objectives(self, sample: Sample) -> tuple[Any, Any]:
        """The loss over the sample in train mode, and over the second one or None."""
        size, count = len(self._run.data.train), self._count(sample)
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

    def _count(self, sample: Sample) -> int | None:
        """The sample's examples; None for all, and where there are no more."""
        if sample.examples is None or sample.examples >= len(self._run.data.train):
            return None
        return sample.examples

    def training_objective(self, count: int, batch_size: int) -> Any:
        """The loss over so many training examples, batch norm in train mode."""
        return landscape.flax_objective(
            self._run.model, self._run.sample("train", count), norm="train",
            batch_size=batch_size,
        )  # fmt: skip

    @property
    def num_examples(self) -> int:
        """Of the training set."""
        return len(self._run.data.train)

    def has_numbers(self, name: str) -> bool:
        """Whether `numbers` has them."""
        return (self.records.path / "results" / f"{name}.json").exists()

    def numbers(self, name: str, make: Callable[[], dict]) -> dict[str, Any]:
        """A few numbers that are measured once."""
        if not self.has_numbers(name):
            self.records.save_result_summary(name, make())
        return self.records.load_result_summary(name)

    def initial_params(self) -> Any:
        """The weights before the first update."""
        return self._initial_state.params

    @functools.cached_property
    def _initial_state(self) -> training.TrainState:
        return training.initial_state(
            self._run.model, self._run.data, self._optimizer, self.config.seed
        )

    @functools.cached_property
    def _optimizer(self) -> optax.GradientTransformation:
        total = self.config.total_steps(self._run.data)
        schedule = self.config.make_schedule(total, self.steps_per_epoch)
        return optax.chain(
            transforms.keep_gradient(), self.config.make_optimizer(schedule)
        )

    def _is_there(self, name: str) -> bool:
        return (self.records.path / "results" / f"{name}.nc").exists()

    def states(
        self,
        since: int,
        last: int,
        wants: Callable[[int], bool],
        *,
        keeps: Callable[[int], bool] = lambda step: False,
    ) -> Iterator[training.TrainState]:
        """Trains, and yields the states after those updates that are wanted.

        Args:
            since: what lies before is not wanted: it goes on from the newest
                checkpoint if that lies no later.
            last: the last update.
            wants: says of a step whether to yield the state after so many updates.
            keeps: says of a step whether to keep a checkpoint, besides epochs' ends,
                once its state was dealt with.

        Raises:
            KeyboardInterrupt: a signal asked to stop, after a checkpoint.
        """
        config, data = self.config, self._run.data
        tx, start = self._optimizer, self._initial_state
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
            if restored is not None and int(restored[0].step) <= since:
                start = restored[0]
            states = training.fit(
                self._run.model, data, tx,
                dataclasses.replace(config, num_devices=1),
                yield_every=self.steps_per_epoch,
                yield_at=lambda step: (
                    wants(step) or keeps(step) or step == last
                    or signals.received is not None
                ),
                state=start,
            )  # fmt: skip
            for state in itertools.chain([start], states):
                step = int(state.step)
                raise_if_not_finite(state.first_bad_step)
                if wants(step) and step >= since:
                    yield state
                at_end = keeps(step) or step % self.steps_per_epoch == 0
                if at_end and step > newest:
                    checkpoints.save(state, {})
                bar.update(step - bar.n)
                if step >= last:
                    break
                if signals.received:
                    raise KeyboardInterrupt

    def _walk(self, missing: Sequence[tuple[int, int]], sample: Sample) -> None:
        objective, second = self.objectives(sample)
        recorder = landscape.Walk(
            objective, windows=missing, second=second, reference=self.initial_params(),
            chunk_size=chunk_size(), num_points=9 if sample.redrawn else 10,
        )  # fmt: skip
        redrawn = None
        if sample.redrawn:
            redrawn = RedrawnWalk(self.redrawn(sample), seed=self.config.seed)
        ends = {stretch[1]: stretch for stretch in missing}
        seconds: dict[int, float] = {}
        for state in self.states(
            missing[0][0], missing[-1][1], recorder.wants, keeps=ends.__contains__
        ):
            step = int(state.step)
            gradient = optax.tree.get(state.opt_state, "gradient")
            jax.block_until_ready(state)  # training is not part of the measuring
            started = time.monotonic()
            recorder.record(step, state.params, gradient=gradient)
            seconds[step - 1] = time.monotonic() - started
            if redrawn is not None:
                redrawn.record(step, state.params)
            if step in ends:
                self._save(ends[step], sample, recorder, redrawn, seconds)

    def _save(self, stretch, sample, recorder, redrawn, seconds) -> None:
        first, last = stretch
        found = recorder.to_dataset()
        if redrawn is not None:
            found = found.merge(redrawn.to_dataset())
        found = found.sel(step=(found["step"] >= first) & (found["step"] < last))
        spent = np.array([seconds[step] for step in found["step"].values])
        found["seconds"] = ("step", spent, {"units": "s"})
        settings = {**recorder.settings, **describe(jax.local_devices())}
        self.records.save_result(_name(stretch, sample), found, settings)


def chunk_size() -> int | None:
    """Points side by side: a choice by timing would change the last bits.

    On CPU one at a time is as fast; on an accelerator the fastest is chosen.
    """
    return 1 if jax.default_backend() == "cpu" else None


def _size(sample: Sample) -> str:
    redrawn = "-redrawn" if sample.redrawn else ""
    return f"{sample.examples or 'all'}-{sample.batch_size}{redrawn}"


def _name(stretch: tuple[int, int], sample: Sample) -> str:
    both = "-second" if sample.second else ""
    return f"walk-{_size(sample)}{both}-{stretch[0]}-{stretch[1]}"


_cosine = jax.jit(tree.cosine)


@jax.jit
def _distance(point, other):
    return tree.norm(tree.subtract(point, other))


@functools.lru_cache(maxsize=2)
def _load(name: str, data_dir: str | None, validation: int, split_seed: int) -> Any:
    return data_.load(
        name, data_dir=data_dir, validation=validation, split_seed=split_seed
    )
