"""Presets of paper 3's experiments, and what each table and figure trains."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from experiments.walking.networks import Network, Sample
from lrscape.data.sources import data_directory, prepared
from lrscape.errors import unknown_name
from lrscape.runs import RunConfig

# The paper's networks; 45,000 examples make its 450 updates of 100 an epoch.
DATASETS = {"mlp": "mnist", "vgg11": "cifar10", "resnet56": "cifar10"}
AUGMENT = {"mnist": (), "digits": (), "cifar10": ("crop", "flip")}
TRAIN_EXAMPLES = {"mnist": 45_000, "cifar10": 45_000, "digits": 1_300}
TOTAL = {"mnist": 60_000, "cifar10": 50_000, "digits": 1_437}
# ResNet-56's 0.3 is Table 2's; Appendix A says 0.1.
RATES = {"mlp": (0.1, 0.05), "vgg11": (0.1, 0.05), "resnet56": (0.3, 0.15)}
BATCH_SIZE = 100


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
    """How much of a network's training is walked over.

    Attributes:
        epochs: those that are walked over, counted from 1.
        updates: how many of an epoch; None is all of them.
        seeds: networks that differ by their seed alone.
        sample: what losses are measured on.
    """

    epochs: tuple[int, ...]
    updates: int | None
    seeds: int
    sample: Sample


PRESETS: dict[str, dict[str, Plan]] = {
    "quick": {
        "mlp": Plan(epochs=(1, 2, 4), updates=75, seeds=3,
                    sample=Sample(examples=1000, batch_size=250)),
        "vgg11": Plan(epochs=(1,), updates=10, seeds=1,
                      sample=Sample(examples=100, batch_size=100)),
        "resnet56": Plan(epochs=(1,), updates=10, seeds=1,
                         sample=Sample(examples=100, batch_size=100)),
    },
    "paper": {
        "mlp": Plan(epochs=(1, 10, 25), updates=None, seeds=3,
                    sample=Sample(examples=None, batch_size=500)),
        "vgg11": Plan(epochs=(1, 10, 25, 100), updates=None, seeds=3,
                      sample=Sample(examples=None, batch_size=500)),
        "resnet56": Plan(epochs=(1, 10, 25, 100), updates=None, seeds=3,
                         sample=Sample(examples=None, batch_size=500)),
    },
}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Lab:
    """What was asked for, and where it is kept.

    Attributes:
        preset: a name in `PRESETS`.
        models: the networks.
        plans: by network.
        root: the directory that all commands of a preset share.
        data_dir: the TFDS data directory, or None.
        dataset: replaces each network's own data set, or None.
    """

    preset: str
    models: tuple[str, ...]
    plans: dict[str, Plan]
    root: Path
    data_dir: Path | None
    dataset: str | None

    def dataset_of(self, model: str) -> str:
        """The network's data set; digits where it is not prepared."""
        wanted = self.dataset or DATASETS[model]
        if wanted not in TRAIN_EXAMPLES:
            raise unknown_name("dataset", wanted, TRAIN_EXAMPLES)
        if wanted == "digits" or wanted in prepared(data_directory(self.data_dir)):
            return wanted
        if self.dataset or self.preset == "paper":
            return wanted  # reading it says what is missing
        return "digits"

    def network(self, model: str, *, rate: float, seed: int) -> Network:
        """A network with a constant rate, as far as it is trained."""
        dataset = self.dataset_of(model)
        plan = self.plans[model]
        config = RunConfig(
            experiment="walk_with_sgd",
            preset=self.preset,
            dataset=dataset,
            data_dir=str(self.data_dir) if self.data_dir else None,
            validation=TOTAL[dataset] - TRAIN_EXAMPLES[dataset],
            model=model,
            epochs=max(plan.epochs),
            batch_size=BATCH_SIZE,
            seed=seed,
            augment=AUGMENT[dataset],
            schedule="rational",
            schedule_options={"init_value": rate, "decay": 0.0},
            weight_decay=1e-4,
            decay_all=True,
        )
        name = f"{model}-{dataset}-rate_{rate:g}-epochs_{config.epochs}-seed_{seed}"
        return Network(config, self.root / name)

    def about(self, model: str) -> dict[str, Any]:
        """A network's plan, as JSON holds it."""
        return {
            **dataclasses.asdict(self.plans[model]),
            "dataset": self.dataset_of(model),
        }
