"""Presets of paper 3's experiments, and what each table and figure trains."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from experiments.harness.stand_ins import dataset_or_stand_in
from experiments.walk_with_sgd.networks import Network, Sample
from lrscape import models as models_
from lrscape.data import tiny_imagenet
from lrscape.data.sources import data_directory
from lrscape.errors import unknown_name
from lrscape.runs import RunConfig

# The paper's networks; 45,000 examples make its 450 updates of 100 an epoch.
DATASETS = {"mlp": "mnist", "vgg11": "cifar10", "resnet56": "cifar10"}
AUGMENT = {
    "mnist": (),
    "digits": (),
    "cifar10": ("crop", "flip"),
    "tiny_imagenet": ("crop", "flip"),
}
TRAIN_EXAMPLES = {"mnist": 45_000, "cifar10": 45_000, "digits": 1_300}
TOTAL = {"mnist": 60_000, "cifar10": 50_000, "digits": 1_437}
# The usual rate: Sec. 3 for VGG-11, Appendix A for all experiments with ResNet-56,
# Sec. 4 for all three.
RATE = 0.1
# What has a rate of its own: Table 2's caption and figure 7's.
RATES = {("resnet56", "table2"): 0.3, ("resnet56", "fig3"): 0.3}
# Table 2's smaller rate beside the larger one: VGG-11's is the text's; the row of
# ResNet-56 is lost, and MLP has none: ours, in the same proportion.
SMALLER = 0.5
BATCH_SIZE = 100


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
    """How much of a network's training is looked at.

    Attributes:
        epochs: those that tables walk over, counted from 1.
        drawn: those whose first updates figure 2 draws; none: those of tables.
        counted: those whose barriers figure 8 counts; none: those of tables.
        updates: how many of an epoch; None is all of them.
        seeds: networks that differ by their seed alone.
        sample: what losses are measured on.
        trained: epochs of figure 3 and of the schedules of figure 6.
        angles: updates of figure 4, and its batch sizes and rates.
        batch_sizes: see `angles`.
        rates: see `angles`.
        noise: updates of figure 5, and of each attempt to free what is stuck.
        shares: of the largest variance of the gradient at the start, which are the
            isotropic noises of figure 5, the largest first.
        peaks: largest rates that figure 6 chooses among, the first of them; see
            `experiments.walk_with_sgd.rates`.
        curvature: the sample of figure 3's spectral norms and of Eq. 3.
        batch_size: examples an update, where figure 4 does not change it.
        weight_decay: of an L2 term on all parameters.
        weight_init: how weights are drawn, see `lrscape.models.layers`.
    """

    epochs: tuple[int, ...]
    drawn: tuple[int, ...] = ()
    counted: tuple[int, ...] = ()
    updates: int | None
    seeds: int
    sample: Sample
    trained: int
    angles: int
    batch_sizes: tuple[int, ...] = (25, 100, 400)
    rates: tuple[float, ...] = (0.025, 0.1, 0.4)
    noise: tuple[int, int]
    shares: tuple[float, ...] = (0.1, 0.05)  # Sec. 4
    peaks: tuple[float, ...]
    curvature: Sample
    batch_size: int = BATCH_SIZE
    weight_decay: float = 1e-4  # the authors' code; the text names none
    # The authors' code: variance 2 / fan-out for convolutions, and PyTorch's default
    # for dense layers. The text says nothing.
    weight_init: str = "fan_out"


def _sample(examples: int | None, batch_size: int, **options: Any) -> Sample:
    return Sample(examples=examples, batch_size=batch_size, **options)


def _quick(**changes: Any) -> Plan:
    """A convolutional network on two CPU cores."""
    plan = Plan(
        epochs=(1,), updates=10, seeds=1, sample=_sample(100, 100), trained=1,
        angles=10, noise=(10, 5), peaks=(0.1,), curvature=_sample(100, 100),
    )  # fmt: skip
    return dataclasses.replace(plan, **changes)


def _paper(**changes: Any) -> Plan:
    plan = Plan(
        epochs=(1, 10, 25, 100), drawn=(1, 2, 25, 100), updates=None, seeds=3,
        sample=_sample(None, 500), trained=100, angles=4000, noise=(1500, 500),
        peaks=(0.05, 0.1, 0.2, 0.4),
        curvature=_sample(25_000, 500),
    )  # fmt: skip
    return dataclasses.replace(plan, **changes)


# Table 1; figures 18 and 19; Sec. 3.1, "trained for 40 epochs".
_MLP: dict[str, Any] = {"epochs": (1, 10, 25), "drawn": (1, 2), "trained": 40}
# Figure 8 counts every epoch of the first 40, of VGG-11 alone.
_VGG: dict[str, Any] = {"counted": tuple(range(1, 41))}
PRESETS: dict[str, dict[str, Plan]] = {
    "quick": {
        "mlp": Plan(
            epochs=(1, 2, 4), counted=(1, 2, 3, 4), updates=50, seeds=5,
            sample=_sample(1000, 250), trained=6, angles=200, noise=(200, 100),
            peaks=(0.2, 0.8, 3.2), curvature=_sample(1000, 250),
        ),
        "vgg11": _quick(),
        "resnet56": _quick(updates=5),
    },
    "paper": {
        "mlp": _paper(**_MLP), "vgg11": _paper(**_VGG), "resnet56": _paper(),
    },
    "authors": {
        model: _paper(sample=_sample(None, 500, redrawn=True),
                      curvature=_sample(25_000, 500, redrawn=True), **changes)
        for model, changes in {"mlp": _MLP, "vgg11": _VGG, "resnet56": {}}.items()
    },
}  # fmt: skip

# Two CPU cores take minutes for these on a convolutional network, unless asked.
QUICK_MODELS = ("mlp",)
WITHOUT_DATA = ("fig28",)
QUICK_ITEMS = ("table1", "table2", "fig1", "fig2", "fig8")


@dataclasses.dataclass(frozen=True)
class Lab:
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

    def dataset_of(self, model: str) -> str:
        """The network's data set; digits where quick's is not prepared."""
        wanted = self.dataset or own_dataset(model)
        if wanted not in AUGMENT:
            raise unknown_name("dataset", wanted, AUGMENT)
        if self.dataset or self.preset != "quick":
            return wanted  # reading it says what is missing
        return dataset_or_stand_in(wanted, self.data_dir)

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
            data_dir=str(self.data_dir) if self.data_dir else None,
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
        name = "-".join([*named, f"seed_{seed}"]).replace(":", "_")
        # Opened once: a table asks for the same network at every epoch.
        if name not in self.networks:
            self.networks[name] = Network(config, self.root / name)
        return self.networks[name]

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
