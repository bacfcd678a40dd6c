"""Networks that a paper's experiments train once and look at: each is an ordinary run.

`lrscape.runs.open_run` opens one, `experiments.survey` and `experiments.report` read
it. What is there is not made again, and what was stopped goes on where it was.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import xarray as xr

from experiments.harness.finish import write_summary
from experiments.harness.kinds import IMAGES
from experiments.harness.mappings import few_mappings
from experiments.harness.restoring import failures, note_failures
from experiments.harness.trainer import Trainer
from experiments.harness.training import Training, rate_of
from lrscape import training
from lrscape.data import Dataset, StreamedDataset
from lrscape.environment import describe, differences
from lrscape.errors import InputError
from lrscape.records import Records
from lrscape.runs import STREAM_FIELDS, RunConfig, Snapshot, Snapshots
from lrscape.training.device_data import DeviceData

Row = dict[str, Any]

# The fields of a run's settings that say what it is trained on.
_DATA = (
    "dataset", "data_dir", "validation", "split_seed", "examples", "test_examples",
    "stream", *STREAM_FIELDS,
)  # fmt: skip


class Network:
    """One network, trained as far as it is asked for.

    Args:
        config: how it is trained; of a paper's own optimizer its `make_optimizer`
            makes it.
        path: its run directory, which is made at once.

    Raises:
        InputError: the directory holds a network that was trained otherwise.
    """

    # Epochs between checkpoints; where one is small, saving it takes longer than an
    # epoch.
    checkpoint_every = 1

    def __init__(self, config: RunConfig, path: Path):
        self.config: Any = config
        self.records = Records(path)
        self.data = shared_data(config)
        self.model: nn.Module = config.make_model(self.data.num_classes)
        self._history: list[Row] | None = None
        devices = jax.local_devices()
        settings = config.to_dict()
        if isinstance(self.data, StreamedDataset):
            # A folder's name says nothing of what is in it.
            settings["data"] = [self.data.train.fingerprint, self.data.test.fingerprint]
        if not self.records.exists():
            with self.records.lock():  # in which another process may have been faster
                if not self.records.exists():
                    Records.create(path, {**settings, **describe(devices)})
        kept = self.records.config()
        # Where the data lie may change.
        if {name: kept.get(name) for name in settings} != (
            {**settings, "data_dir": kept.get("data_dir")}
        ):
            raise InputError(
                f"run_dir={str(path)!r} holds a network that was trained otherwise; "
                "remove it, or choose another --run-dir"
            )
        for difference in differences(kept, devices):
            print(
                f"warning: {path.name}: {difference}: what is trained and measured now "
                "may differ from what was before; choose another --run-dir to repeat it"
            )

    @functools.cached_property
    def tx(self) -> optax.GradientTransformation:
        """Its optimizer."""
        total = self.config.total_steps(self.data)
        schedule = self.config.make_schedule(total, self.steps_per_epoch)
        return self.config.make_optimizer(schedule)

    def initial_state(self) -> training.TrainState:
        """The state before the first update."""
        return training.initial_state(self.model, self.data, self.tx, self.config.seed)

    def measure(self, state: training.TrainState) -> Row:
        """Numbers of a state before the first update or after an epoch, by name."""
        row = {}
        for part in ("validation", "test"):
            if getattr(self.data, part) is not None:
                for name, value in self.evaluate(state, part).items():
                    row[f"{part}_{name}"] = value
        return row

    @functools.cached_property
    def evaluate(self) -> Callable[..., dict[str, float]]:
        """``(state, part) -> numbers`` of a part of the data, in inference mode."""
        return training.make_evaluate(
            self.model, self.data, self.config, top5=self.config.top5,
            batch_size=self.config.eval_batch_size,
        )  # fmt: skip

    def adapt(self, state: training.TrainState, line: Row) -> Any:
        """The state to go on from, changed by what was logged; None: as it is."""
        del state, line

    def snapshot(self, name: str, state: training.TrainState) -> training.TrainState:
        """The state whose weights a snapshot of a name holds."""
        del name
        return state

    def rate(self, state: training.TrainState) -> float:
        """The rate of the last update."""
        return rate_of(state)

    def row_of(self, line: Row) -> Row:
        """A line of the metrics as a row of the history."""
        return line

    @property
    def kept(self) -> dict[int, tuple[str, ...]]:
        """The updates after which weights are kept, and the names of those."""
        per_epoch, epochs = self.steps_per_epoch, self.config.epochs
        wanted = (0, *self.config.snapshot_epochs, epochs)
        return {epoch * per_epoch: (self.name_of(epoch),) for epoch in wanted}

    @property
    def steps_per_epoch(self) -> int:
        """Updates an epoch."""
        return self.config.steps_per_epoch(self.data)

    @property
    def snapshots(self) -> Snapshots:
        """Weights that were kept, by name."""
        return Snapshots(self.records.path / "snapshots")

    def name_of(self, epoch: int) -> str:
        """The name of the snapshot after an epoch."""
        if epoch in (0, self.config.epochs):
            return "final" if epoch else "initial"
        return f"epoch_{epoch}"

    def epochs_kept(self) -> list[int]:
        """The epochs whose weights were kept; trains what is missing."""
        self.history()
        wanted = sorted({0, *self.config.snapshot_epochs, self.config.epochs})
        there = list(self.snapshots)
        return [epoch for epoch in wanted if self.name_of(epoch) in there]

    def at(self, kept: int | str) -> Snapshot:
        """Weights that were kept, after an epoch or by name; trains what is missing.

        Raises:
            InputError: the run failed before.
        """
        name = kept if isinstance(kept, str) else self.name_of(kept)
        self.history()
        if name not in self.snapshots:
            raise InputError(
                f"run_dir={str(self.records.path)!r} has no snapshot {name!r}: its "
                "loss stopped being finite before; lower its rates, or look at other "
                "seeds"
            )
        return self.snapshots[name]

    @functools.cached_property
    def final(self) -> Snapshot:
        """Weights after the last epoch; trains what is missing."""
        return self.at("final")

    def history(self) -> list[Row]:
        """Numbers after each epoch, trained to the end if it was not.

        Returns:
            A row an epoch, the first before any update: ``epoch``, ``rate`` of the last
            update (in the first row: of the first one), ``seconds`` of its updates, and
            what was logged and measured, see `row_of`. A run that failed ends with a
            row that says ``diverged``, the update.
        """
        if self._history is None:
            if self.records.summary() is None and not failures(self.records):
                self.train()
            self._history = self._rows()
        return self._history

    def failed(self) -> bool:
        """Whether its loss stopped being finite; trains it if it was not."""
        return "diverged" in self.history()[-1]

    def train(self) -> None:
        """Trains it to its end, from where it is."""
        few_mappings()
        try:
            for _ in self._trainer().states():
                pass
        except training.NonFiniteLossError as error:
            note_failures(self.records, {self.config.seed: error.step})

    def states(
        self,
        since: int | None,
        last: int,
        wants: Callable[[int], bool],
        *,
        keeps: Callable[[int], bool] = lambda step: False,
    ) -> Iterator[training.TrainState]:
        """Trains, and yields the states after those updates that are wanted.

        Args:
            since: what lies before is not wanted: it goes on from the newest
                checkpoint if that lies no later; None: from there in any case.
            last: the last update.
            wants: says of a step whether to yield the state after so many updates.
            keeps: says of a step whether to keep a checkpoint, besides epochs' ends,
                once its state was dealt with.
        """
        trainer = self._trainer()
        for state in trainer.states(last, since=since, wants=wants, keeps=keeps):
            if since is None or int(state.step) >= since:
                yield state

    def _trainer(self) -> Trainer:
        made = Training.made_of(
            self.config, IMAGES, self.data, model=self.model, tx=self.tx,
            initial=lambda seed: self.initial_state(), measure=self.measure,
            snapshots=self.kept, adapt=self.adapt, snapshot=self.snapshot,
            rate=self.rate, from_start=True, quiet=True, donates=False,
            checkpoint_every=self.checkpoint_every * self.steps_per_epoch,
        )  # fmt: skip
        runs = [(self.config, self.records)]
        return Trainer(made, runs, self.records.path, finish=write_summary)

    def _rows(self) -> list[Row]:
        rows: list[Row] = []
        for line in self.records.metrics():
            if line["step"] == 1 and rows:
                rows[0]["rate"] = line["learning_rate"]
            if line["step"] % self.steps_per_epoch:
                continue
            found = self.row_of(line)
            kept = {k: v for k, v in found.items() if k not in ("step", "epoch")}
            kept["rate"], kept["seconds"] = (
                kept.pop("learning_rate"), kept.pop("update_seconds", None)
            )  # fmt: skip
            rows.append({"epoch": round(line["epoch"]), **kept})
        if bad := list(failures(self.records).values()):
            rows.append({"epoch": len(rows), "diverged": bad[0]})
        return rows

    def numbers(self, name: str, make: Callable[[], Row]) -> Row:
        """A few numbers that are measured once."""
        if (found := self.records.load_result_summary(name)) is None:
            few_mappings()
            self.records.save_result_summary(name, make())
            found = self.records.load_result_summary(name)
        return found

    def once(
        self, name: str, settings: dict[str, Any], make: Callable[[], xr.Dataset]
    ) -> xr.Dataset:
        """A result that is made unless it is there, made with the same settings."""
        wanted = json.loads(json.dumps(settings))
        if self.has_result(name):
            found = self.records.load_result(name)
            if json.loads(found.attrs["settings"]) == wanted:
                return found
        made = make()
        self.records.save_result(name, made, settings)
        return made

    def has_numbers(self, name: str) -> bool:
        """Whether `numbers` has them."""
        return (self.records.path / "results" / f"{name}.json").exists()

    def has_result(self, name: str) -> bool:
        """Whether labelled arrays of a name are there."""
        return (self.records.path / "results" / f"{name}.nc").exists()

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


def column(
    histories: Sequence[list[Row]], name: str, *, worst: float = np.nan
) -> np.ndarray:
    """What rows hold of several networks, side by side.

    Args:
        histories: see `Network.history`.
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


def shared_data(config: RunConfig) -> Dataset | StreamedDataset:
    """A run's data; networks that are trained on the same share them."""
    fields = {name: getattr(config, name) for name in _DATA}
    return _load(tuple(fields.items()))


@functools.lru_cache(maxsize=4)
def _load(fields: tuple[tuple[str, Any], ...]) -> Any:
    plain = RunConfig(
        experiment="", preset="", model="mlp", schedule="rational", epochs=1,
        schedule_options={"init_value": 0.1, "decay": 0.0}, **dict(fields),
    )  # fmt: skip
    return plain.load_data()
