"""Networks of paper 3: walked over while they are trained, in stretches of updates.

A walk that is asked for behind the newest checkpoint goes through the training again,
which repeats bit for bit.
"""

from __future__ import annotations

import dataclasses
import functools
import time
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
import optax
import xarray as xr

from experiments.harness import network
from experiments.walk_with_sgd.redrawn import RedrawnLoss, RedrawnWalk
from lrscape import landscape, training, transforms
from lrscape.environment import describe
from lrscape.landscape import tree
from lrscape.runs import Run
from lrscape.training.device_data import DeviceData

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


class Network(network.Network):
    """A network whose ground is walked over.

    Its history holds, of each epoch, ``train_loss`` and ``train_error`` as it was
    trained, ``validation_error`` and ``test_error``.
    """

    @functools.cached_property
    def tx(self) -> optax.GradientTransformation:
        """Its optimizer, which keeps each update's gradient."""
        return optax.chain(transforms.keep_gradient(), super().tx)

    @functools.cached_property
    def _run(self) -> Run:
        run = Run(self.records.path)
        run.data = self.data
        return run

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
        missing = [s for s in stretches if not self.has_result(_name(s, sample))]
        if missing:
            self._walk(missing, sample)
        found = [self.records.load_result(_name(s, sample)) for s in stretches]
        return xr.concat(found, "step", combine_attrs="drop_conflicts")

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

    def curvatures(self, epochs: int, sample: Sample) -> list[dict]:
        """The Hessian's spectral norm after each epoch, beside the errors.

        Args:
            epochs: the last one; the first row is of the initial weights.
            sample: what curvature is measured on.

        Returns:
            The rows of `history_until` with ``norm_train`` and ``norm_eval``, by
            batch-norm mode, in nats, and whether they converged.
        """
        name = f"history-{_size(sample)}"
        norms: list = self.records.load_result_summary(name) or []
        per_epoch = self.steps_per_epoch
        if len(norms) <= epochs:
            for state in self.states(
                len(norms) * per_epoch, epochs * per_epoch, lambda n: n % per_epoch == 0
            ):
                norms.append(self._norms(state, sample))
                self.records.save_result_summary(name, norms)
        rows = self.history_until(epochs)
        return [{**row, **found} for row, found in zip(rows, norms, strict=False)]

    def history_until(self, epochs: int) -> list[dict]:
        """The rows of the history up to an epoch, trained so far if they are not."""
        if len(rows := self._rows()) <= epochs:
            last = epochs * self.steps_per_epoch
            for _ in self.states(None, last, lambda step: False):
                pass
            rows = self._rows()
        return rows[: epochs + 1]

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

    def initial_params(self) -> Any:
        """The weights before the first update."""
        return self._initial_state.params

    def initial_state(self) -> training.TrainState:
        """The state before the first update."""
        return self._initial_state

    @functools.cached_property
    def _initial_state(self) -> training.TrainState:
        return super().initial_state()

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
