"""What was asked for of paper 5, and the networks that it needs."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from experiments.harness.lab import Laboratory, errors_of, sizes_of
from experiments.lipschitz_rate.methods import Method
from experiments.lipschitz_rate.networks import Network, NetworkConfig
from experiments.lipschitz_rate.presets import (
    AUGMENT,
    DATASETS,
    PRESETS,
    STAND_INS,
    TIME_DECAY,
    Plan,
)

# Settings that name a network where they are not the preset's.
_SHOWN = ("model", "batch_size", "weight_decay", "kernel_l2", "norm", "max_rate")


@dataclasses.dataclass(frozen=True)
class Lab(Laboratory):
    """What was asked for, and where it is kept.

    Attributes:
        preset: a name in `PRESETS`.
        plans: by task.
        root: the directory that all commands of a preset share.
        data_dir: the TFDS data directory, or None.
        dataset: replaces each task's own data set, or None.
        networks: those that were opened, by name.
    """

    preset: str
    plans: dict[str, Plan]
    root: Path
    data_dir: Path | None
    dataset: str | None
    networks: dict[str, Network] = dataclasses.field(default_factory=dict, repr=False)

    DATASETS = DATASETS
    STAND_INS = STAND_INS

    def dataset_of(self, task: str) -> str:
        """The task's data set, or what stands in for it where it is not prepared."""
        return self.taken_for(self.plans[task].dataset)

    def datasets(self, tasks: Iterable[str]) -> dict[str, str]:
        """The tasks' own data sets, each with the one that is taken for it."""
        return {self.plans[task].dataset: self.dataset_of(task) for task in tasks}

    def network(self, task: str, method: Method, seed: int) -> Network:
        """A network, opened once."""
        plan, dataset = self.plans[task], self.dataset_of(task)
        sizes = sizes_of(dataset, plan.examples, plan.validation, plan.test)
        batch_size = plan.batch_size
        if dataset == "digits":
            batch_size = min(batch_size, 64)
        augment = AUGMENT.get(dataset, ("crop", "flip")) if plan.augmented else ()
        config = NetworkConfig(
            experiment="lipschitz_rate",
            preset=self.preset,
            dataset=dataset,
            data_dir=self.data_path,
            **sizes,
            model=plan.model,
            epochs=plan.epochs,
            batch_size=batch_size,
            seed=seed,
            augment=augment,
            normalize=plan.normalize,
            schedule="rational",
            schedule_options={"init_value": method.rate or 1.0, "decay": 0.0},
            weight_decay=plan.weight_decay,
            model_options=plan.model_options,
            decay_all=True,
            snapshot_epochs=tuple(e for e in plan.looked_at if 0 < e < plan.epochs),
            recipe=f"{method.name}, K_z from {method.feed}, by {method.variant}",
            kernel_l2=plan.kernel_l2,
            method=method,
            pass_batches=plan.pass_batches,
        )
        named = method.name if method.form == "paper" else f"{method.name}_bound"
        changed = self._changed(task)
        name = f"{task}-{dataset}-epochs_{plan.epochs}-{named}{changed}-seed_{seed}"
        return self.opened(name, lambda path: Network(config, path))

    def _changed(self, task: str) -> str:
        """What names a network besides, where flags change how it is trained."""
        plan, usual = self.plans[task], PRESETS[self.preset][task]
        return "".join(
            f"-{field}_{getattr(plan, field)}"
            for field in _SHOWN
            if getattr(plan, field) != getattr(usual, field)
        )

    def histories(self, task: str, method: Method) -> list[list[dict[str, Any]]]:
        """Of all seeds of a task."""
        return [
            self.network(task, method, seed).history()
            for seed in range(self.plans[task].seeds)
        ]

    def adaptive(self, task: str) -> Method:
        """The rate that follows K_z, by the preset's way of feeding it."""
        plan = self.plans[task]
        decay = TIME_DECAY[plan.dataset] if self.preset == "authors" else 0.0
        return Method(
            name="adaptive", feed=plan.feed, form=plan.form, norm=plan.norm,
            max_rate=plan.max_rate, time_decay=decay,
        )  # fmt: skip

    def inference(self, task: str) -> Method:
        """The adaptive rate, fed by passes in inference mode in any preset."""
        adaptive = self.adaptive(task)
        if adaptive.feed == "inference":
            return adaptive
        return dataclasses.replace(adaptive, name="inference", feed="inference")

    def fed_otherwise(self, task: str) -> Method | None:
        """The adaptive rate, fed by passes in the other mode; none beside the authors'.

        Where the preset feeds it in inference mode, in train mode, and else in that.
        """
        adaptive = self.adaptive(task)
        if adaptive.feed != "inference":
            return self.inference(task)
        if self.preset == "authors":
            return None
        return dataclasses.replace(adaptive, name="train_mode", feed="train")

    def free(self, task: str) -> Method:
        """The adaptive rate, fed by the updates' own forward passes in any preset."""
        adaptive = self.adaptive(task)
        if adaptive.feed == "free":
            return adaptive
        return dataclasses.replace(adaptive, name="free", feed="free")

    def decayed_otherwise(self, task: str) -> Method:
        """The adaptive rate with the time decay that the preset lacks, or without."""
        adaptive = self.adaptive(task)
        if adaptive.time_decay:
            return dataclasses.replace(adaptive, name="adaptive_steady", time_decay=0.0)
        decay = TIME_DECAY[self.plans[task].dataset]
        return dataclasses.replace(adaptive, name="adaptive_decay", time_decay=decay)

    def fixed(self, task: str, seed: int, adaptive: Method | None = None) -> Method:
        """The rate from the K_z of one epoch, the adaptive one's first.

        K_z and the largest norm among the weights, with which the rate is made, are
        those at that epoch's end.
        """
        adaptive = adaptive or self.adaptive(task)
        before, row = self.network(task, adaptive, seed).history()[:2]
        own, by_pass = "activation_norm", adaptive.measured_as(adaptive.feed)
        if adaptive.feed != "free":
            own = by_pass
        mode = "_all" if adaptive.feed == "inference" else ""
        # Of a first epoch that failed: what a pass before it measured.
        if "diverged" in row:
            row, own = before, by_pass.replace("free", "train")
        return dataclasses.replace(
            adaptive, name=adaptive.name.replace("adaptive", "fixed"), feed="fixed",
            weight_norm=row[f"weight_norm{mode}"],
            activation_norm=row[own],
        )  # fmt: skip

    def constant(self, task: str, rate: float, **changes: Any) -> Method:
        """A constant rate."""
        name = "-".join([f"rate_{rate:g}", *(f"{k}_{v:g}" for k, v in changes.items())])
        return Method(name=name, feed="none", rate=rate, **changes)

    def tuned(self, task: str, **changes: Any) -> Method:
        """The constant rate with the fewest errors after the last epoch, seed 0.

        On the validation examples; where there are none, on the test set, in favour of
        the constant rate.
        """

        def errors(method: Method) -> tuple[float, float]:
            return errors_of(self.network(task, method, 0).history()[-1])

        # Where all fail, the smallest has failed least.
        rates = sorted(self.plans[task].rates)
        return min((self.constant(task, r, **changes) for r in rates), key=errors)

    def size_of(self, task: str) -> str:
        """How much data a task's networks see, in words."""
        data = self.network(task, self.adaptive(task), 0).data
        return f"{len(data.train)} training and {len(data.test)} test examples"

    def chosen_on(self, task: str) -> str:
        """What `tuned` chooses on, in words."""
        if self.network(task, self.adaptive(task), 0).data.validation is not None:
            return "validation examples"
        return "the test set, in the constant rate's favour"

    def about(self, task: str) -> dict[str, Any]:
        """A task's plan, as JSON holds it."""
        return {
            **dataclasses.asdict(self.plans[task]),
            "dataset": self.dataset_of(task),
        }
