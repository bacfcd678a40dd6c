"""Networks of paper 5, each trained once by one method, and what is seen of them."""

from __future__ import annotations

import dataclasses
import functools
import json
import time
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import numpy as np
import optax
from tqdm import tqdm

from experiments.lipschitz.methods import Method
from experiments.signals import Signals
from lrscape import data as data_
from lrscape import models, training, transforms
from lrscape.environment import describe, differences
from lrscape.errors import InputError
from lrscape.records import Records
from lrscape.runs import Snapshots, save_snapshot
from lrscape.training.checkpoint import Checkpoints

HISTORY = "history"


@dataclasses.dataclass(frozen=True, kw_only=True)
class ArmConfig(training.Config):
    """How a network is trained.

    Attributes:
        task: which of the paper's experiments.
        dataset: see `lrscape.data.load`.
        examples: trained on; None is all of the training set.
        validation: of those that are left over, how many choose constant rates.
        test: test examples that errors are measured on; None is all.
        model: see `lrscape.models.create`.
        weight_decay: of an L2 term on all parameters.
        method: where the rate comes from.
        pass_batches: batches of the passes that measure K_z; None is all.
        looked_at: epochs whose weights are kept.
    """

    task: str
    dataset: str
    examples: int | None
    validation: int
    test: int | None
    model: str
    weight_decay: float
    method: Method
    pass_batches: int | None
    looked_at: tuple[int, ...]

    def to_dict(self) -> dict[str, Any]:
        """The fields, as JSON holds them."""
        return json.loads(json.dumps(dataclasses.asdict(self)))


class Arm:
    """A network that one method trains, made as far as its configuration says.

    Attributes:
        config: how it is trained.
        records: its directory.
        data: what it is trained on.
        model: its Linen module.
    """

    def __init__(self, config: ArmConfig, path: Path, data_dir: str | None):
        self.config, self.records = config, Records(path)
        self.data = _load(
            config.dataset, data_dir, config.examples, config.validation, config.test
        )
        self.model: nn.Module = models.create(
            config.model, num_classes=self.data.num_classes
        )
        devices = jax.local_devices()
        if not self.records.exists():
            Records.create(path, {**config.to_dict(), **describe(devices)})
        kept = self.records.config()
        if {name: kept.get(name) for name in config.to_dict()} != config.to_dict():
            raise InputError(
                f"{str(path)!r} holds a network that was trained otherwise; remove it, "
                "or choose another --run-dir"
            )
        for difference in differences(kept, devices):
            print(f"warning: {path.name}: {difference}: the rest of it may differ")

    @functools.cached_property
    def tx(self) -> Any:
        """Its optimizer."""
        return self.config.method.optimizer(
            num_classes=self.data.num_classes,
            batch_size=self.config.batch_size,
            weight_decay=self.config.weight_decay,
            steps_per_epoch=self.config.steps_per_epoch(self.data),
        )

    def initial_state(self) -> training.TrainState:
        """The state before the first update."""
        return training.initial_state(self.model, self.data, self.tx, self.config.seed)

    @property
    def snapshots(self) -> Snapshots:
        """Weights after the epochs that were to be looked at, ``epoch_0`` and on."""
        return Snapshots(self.records.path / "snapshots")

    def numbers(self, name: str, make: Any) -> dict[str, Any]:
        """A few numbers that are measured once."""
        file = self.records.path / "results" / f"{name}.json"
        if not file.exists():
            self.records.save_result_summary(name, make())
        return json.loads(file.read_text("utf-8"))

    def _rows(self) -> list[dict[str, Any]]:
        file = self.records.path / "results" / f"{HISTORY}.json"
        return json.loads(file.read_text("utf-8")) if file.exists() else []

    def history(self) -> list[dict[str, Any]]:
        """What was seen after each epoch, trained to the end if it was not.

        Returns:
            A row an epoch, the first before any update: ``rate`` of the last update (in
            the first row: of the first update), ``activation_norm`` it was made of,
            ``weight_norm`` and with batch norm's averages ``weight_norm_all``;
            ``train_norm``, ``train_max``, ``inference_norm`` and ``inference_max`` of
            the passes at that point, with their seconds; ``train_loss``,
            ``train_error`` (over the epoch, as it was trained), ``validation_error``,
            ``test_error``, ``seconds``. A run that failed ends with a row that says
            ``diverged``.
        """
        rows = self._rows()
        if len(rows) > self.config.epochs or (rows and "diverged" in rows[-1]):
            return rows
        with (
            self.records.lock(),
            Checkpoints(self.records.path / "checkpoints") as checkpoints,
            Signals() as signals,
        ):
            return self._train(rows, checkpoints, signals)

    def _train(self, rows, checkpoints, signals) -> list[dict[str, Any]]:
        config, per_epoch = self.config, self.config.steps_per_epoch(self.data)
        see = _Seer(self)
        state, spent = self.initial_state(), 0.0
        if checkpoints.steps:
            state, notes = checkpoints.restore(state)[:2]
            rows, spent = rows[: int(state.step) // per_epoch + 1], notes["seconds"]
        else:
            rows = [{"epoch": 0, **see.point(state)}]
            state = self._told(state, rows[-1])
            self._keep(rows, state)
            checkpoints.save(state, {"seconds": 0.0})
        states = training.fit(
            self.model, self.data, self.tx, config, yield_every=per_epoch,
            yield_at=lambda step: step == 1 or signals.received is not None,
            state=state,
        )  # fmt: skip
        total, name = config.epochs * per_epoch, self.records.path.name
        sent: Any = None
        with tqdm(total=total, unit="step", desc=name, leave=False) as bar:
            while True:
                started = time.monotonic()
                try:
                    state = jax.block_until_ready(states.send(sent))
                except StopIteration:
                    return rows
                except training.NonFiniteLossError as error:
                    rows.append({"epoch": len(rows), "diverged": error.step})
                    self.records.save_result_summary(HISTORY, rows)
                    return rows
                # The call that was just made may be the one that went wrong.
                if int(state.first_bad_step) >= 0:
                    bad = int(state.first_bad_step)
                    rows.append({"epoch": len(rows), "diverged": bad})
                    self.records.save_result_summary(HISTORY, rows)
                    return rows
                spent, step, sent = spent + time.monotonic() - started, state.step, None
                bar.update(int(step) - bar.n)
                if step == 1:
                    rows[0]["rate"] = self.rate(state)
                if step % per_epoch == 0:
                    row = {"epoch": int(step) // per_epoch, "rate": self.rate(state)}
                    rows.append({**row, **see.epoch(state), "seconds": spent})
                    state, spent = self._told(state, rows[-1]), 0.0
                    sent = state if config.method.held else None
                    self._keep(rows, state)
                if step % per_epoch == 0 or signals.received:
                    self.records.save_result_summary(HISTORY, rows)
                    checkpoints.save(state, {"seconds": spent})
                if signals.received:
                    raise KeyboardInterrupt

    def _keep(self, rows, state) -> None:
        # The history last: it says that all else is there.
        if rows[-1]["epoch"] in self.config.looked_at:
            save_snapshot(self.records, f"epoch_{rows[-1]['epoch']}", state)
        self.records.save_result_summary(HISTORY, rows)

    def _told(self, state: training.TrainState, row: dict[str, Any]):
        """The state with what a pass at this point measured, if that is the method."""
        method = self.config.method
        if method.feed not in ("train", "inference"):
            return state
        # As their authors do, batch norm's averages are among the weights.
        weights = row["weight_norm" if method.feed == "train" else "weight_norm_all"]
        return state.replace(
            opt_state=transforms.hold_norms(
                state.opt_state,
                activation_norm=row[f"{method.feed}_norm"],
                weight_norm=weights,
            )
        )

    def rate(self, state: training.TrainState) -> float:
        """The rate of the last update."""
        rate = training.learning_rate(state.opt_state)
        assert rate is not None
        return float(rate * self.config.method.decayed(state.step - 1))


class _Seer:
    """Measures a network at one point of its training."""

    def __init__(self, arm: Arm):
        self._arm, config = arm, arm.config
        self._evaluate = training.make_evaluate(arm.model, arm.data, config)
        self._passes = {}
        if config.method.measured:
            self._passes = {
                mode: training.make_largest_activations(
                    arm.model, arm.data, config, mode=mode,
                    num_batches=config.pass_batches,
                )
                for mode in ("train", "inference")
            }  # fmt: skip

    def point(self, state: training.TrainState) -> dict[str, Any]:
        """What can be measured before any update too."""
        row: dict[str, Any] = {
            "weight_norm": _largest_norm(state.params),
            "weight_norm_all": _largest_norm(state.variables),
            "test_error": self._evaluate(state, "test")["error"],
        }
        for mode, measure in self._passes.items():
            if int(state.step) == 0:
                measure(state)  # compiles, which is not the pass's time
            started = time.monotonic()
            found = measure(state)
            row[f"{mode}_seconds"] = time.monotonic() - started
            row[f"{mode}_norm"] = found["activation_norm"]
            row[f"{mode}_max"] = found["activation_max"]
        if self._arm.data.validation is not None:
            row["validation_error"] = self._evaluate(state, "validation")["error"]
        return row

    def epoch(self, state: training.TrainState) -> dict[str, Any]:
        """What is measured after an epoch."""
        train = training.averages(state)
        row = {"train_loss": train["loss"], "train_error": train["error"]}
        if self._arm.config.method.feed != "none":
            for name in ("activation_norm", "lipschitz_constant"):
                row[name] = float(optax.tree.get(state.opt_state, name))
        return {**row, **self.point(state)}


def _largest_norm(tree: Any) -> float:
    leaves = [np.asarray(leaf, np.float64) for leaf in jax.tree.leaves(tree)]
    return max(float(np.linalg.norm(leaf)) for leaf in leaves)


@functools.lru_cache(maxsize=4)
def _load(
    name: str,
    data_dir: str | None,
    examples: int | None,
    validation: int,
    test: int | None,
) -> data_.Dataset:
    """A data set, or a part of it drawn at random."""
    data = data_.load(name, data_dir=data_dir)
    if examples is not None and examples < len(data.train):
        left_over = len(data.train) - examples
        data = data_.load(name, data_dir=data_dir, validation=left_over)
        held_out = data.validation
        assert held_out is not None
        kept = data_.Examples(*(part[:validation] for part in held_out))
        data = dataclasses.replace(data, validation=kept if validation else None)
    tested = data_.Examples(*(part[:test] for part in data.test))
    return dataclasses.replace(data, test=tested)
