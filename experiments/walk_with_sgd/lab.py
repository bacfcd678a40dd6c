"""What was asked for of paper 3, and the networks that it needs."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from experiments.harness.lab import Laboratory
from experiments.walk_with_sgd.networks import Network, Sample
from experiments.walk_with_sgd.presets import (
    AUGMENT,
    BATCH_SIZE,
    DATASETS,
    PRESETS,
    QUICK_ITEMS,
    QUICK_MODELS,
    RATE,
    RATES,
    SMALLER,
    TOTAL,
    TRAIN_EXAMPLES,
    WITHOUT_DATA,
    Plan,
)
from lrscape import models as models_
from lrscape.data import tiny_imagenet
from lrscape.data.sources import data_directory
from lrscape.runs import RunConfig


@dataclasses.dataclass(frozen=True)
class Lab(Laboratory):
    """What was asked for, and where it is kept.

    Attributes:
        preset: a name in `PRESETS`.
        models: the networks that were asked for; empty: what the preset has.
        plans: by network.
        root: the directory that all commands of a preset share.
        data_dir: the TFDS data directory, or None.
        dataset: replaces each network's own data set, or None.
        rate: replaces the usual rate and those of `RATES`, or None.
        networks: those that were opened, by name.
    """

    preset: str
    models: tuple[str, ...]
    plans: dict[str, Plan]
    root: Path
    data_dir: Path | None
    dataset: str | None
    rate: float | None = None
    networks: dict[str, Network] = dataclasses.field(default_factory=dict, repr=False)

    DATASETS = tuple(AUGMENT)

    def dataset_of(self, model: str) -> str:
        """The network's data set; digits where quick's is not prepared."""
        return self.taken_for(own_dataset(model))

    def datasets(self, item: str) -> dict[str, str]:
        """An item's own data sets, each with the one that is taken for it."""
        if item in WITHOUT_DATA:
            return {}
        models = self.models_of(item)
        return {own_dataset(model): self.dataset_of(model) for model in models}

    def rates(self, model: str, item: str = "") -> tuple[float, float]:
        """The rate that an item trains a network at, and the smaller one of Table 2.

        Args:
            model: one of its networks.
            item: a table or figure; empty: the usual rate.
        """
        large = self.rate or RATES.get((model, item), RATE)
        return large, SMALLER * large

    def sizes_of(self, dataset: str) -> tuple[int, int]:
        """How many examples are trained on, and held out."""
        if dataset == "tiny_imagenet":  # all of it, or a subset of its classes
            total = tiny_imagenet.count(data_directory(self.data_dir))
            return total - total // 10, total // 10
        trained = TRAIN_EXAMPLES[dataset]
        return trained, TOTAL[dataset] - trained

    def plan(self, model: str) -> Plan:
        """A network's plan, with no more examples than there are."""
        plan = self.plans[model]
        most, _ = self.sizes_of(self.dataset_of(model))

        def at_most(sample: Sample) -> Sample:
            if sample.examples is None or sample.examples < most:
                return sample
            return dataclasses.replace(sample, examples=None)

        return dataclasses.replace(
            plan, sample=at_most(plan.sample), curvature=at_most(plan.curvature)
        )

    @property
    def authors(self) -> bool:
        """Whether to do as the authors' code does, rather than their text."""
        return self.preset == "authors"

    def architecture(self, model: str) -> str:
        """The network that is made; the authors' ResNet-56 has pre-activation."""
        return "preresnet56" if self.authors and model == "resnet56" else model

    def models_of(self, item: str) -> tuple[str, ...]:
        """The networks of a command."""
        if self.models:
            return self.models
        if self.preset == "quick" and item not in QUICK_ITEMS:
            return QUICK_MODELS
        return tuple(DATASETS)

    def network(
        self,
        model: str,
        *,
        rate: float,
        seed: int,
        batch_size: int | None = None,
        epochs: int | None = None,
        schedule: str | None = None,
        schedule_options: dict[str, Any] | None = None,
    ) -> Network:
        """A network, trained as far as it is asked for.

        Args:
            model: a name in `lrscape.models.NAMES`, or one that was registered.
            rate: constant, unless a schedule is named; part of the network's name.
            seed: of everything random.
            batch_size: examples an update; None is the plan's.
            epochs: that a schedule spans; None is as many as anything needs.
            schedule: a name in `lrscape.schedules.FACTORIES`.
            schedule_options: its arguments.
        """
        dataset = self.dataset_of(model)
        plan, (trained, held_out) = self.plan(model), self.sizes_of(dataset)
        batch_size = batch_size or plan.batch_size
        if epochs is None:
            shown = -(-plan.angles // max(1, trained // batch_size))
            epochs = max(
                *plan.epochs, *plan.drawn, *plan.counted, plan.trained, shown
            )  # fmt: skip
        architecture, options = self.architecture(model), {}
        if "weight_init" in models_.fields_of(architecture):
            options = {"weight_init": plan.weight_init}
        config = RunConfig(
            experiment="walk_with_sgd",
            preset=self.preset,
            dataset=dataset,
            data_dir=self.data_path,
            validation=held_out,
            model=architecture,
            model_options=options,
            epochs=epochs,
            batch_size=batch_size,
            seed=seed,
            augment=AUGMENT[dataset],
            schedule=schedule or "rational",
            schedule_options=schedule_options or {"init_value": rate, "decay": 0.0},
            weight_decay=plan.weight_decay,
            decay_all=True,
            num_devices=1,
        )
        named = [model, dataset, f"rate_{rate:g}", f"epochs_{config.epochs}"]
        named += [schedule] if schedule else []
        named += [f"batch_{batch_size}"] if batch_size != BATCH_SIZE else []
        named += _otherwise(plan)
        name = "-".join([*named, f"seed_{seed}"])
        # Opened once: a table asks for the same network at every epoch.
        return self.opened(name, lambda path: Network(config, path))

    def about(self, model: str) -> dict[str, Any]:
        """A network's plan, as JSON holds it."""
        return {
            **dataclasses.asdict(self.plan(model)),
            "dataset": self.dataset_of(model),
        }


def own_dataset(model: str) -> str:
    """What a network is trained on by default; one that the paper lacks, on CIFAR-10.

    Example:
        >>> own_dataset('mlp'), own_dataset('small')
        ('mnist', 'cifar10')
    """
    return DATASETS.get(model, "cifar10")


def plan_of(preset: str, model: str) -> Plan:
    """A preset's plan for a network; another than the paper's has VGG-11's.

    Example:
        >>> plan_of('paper', 'small').epochs
        (1, 10, 25, 100)
    """
    plans = PRESETS[preset]
    return plans.get(model) or dataclasses.replace(plans["vgg11"], counted=())


def _otherwise(plan: Plan) -> list[str]:
    """What names a network besides, where it is not trained as the presets have it."""
    named = []
    for field, name in (("weight_decay", "decay"), ("weight_init", "init")):
        value = getattr(plan, field)
        if value != Plan.__dataclass_fields__[field].default:
            named.append(f"{name}_{value}")
    return named
