"""What was asked for of paper 4, and the networks that it needs."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from experiments.asymmetric_valleys.networks import AVERAGE, Network, NetworkConfig
from experiments.asymmetric_valleys.presets import (
    _TEN,
    AFTER,
    DATASETS,
    LARGE,
    PAPER_PAIRS,
    SGD,
    SMALL,
    STAND_INS,
    SWA,
    WITH,
    WITHOUT,
    WITHOUT_DATA,
    Pair,
    Plan,
    Settings,
    Survey,
)
from experiments.harness.lab import Laboratory, sizes_of
from lrscape.errors import InputError
from lrscape.runs import Snapshot


@dataclasses.dataclass(frozen=True)
class Lab(Laboratory):
    """What was asked for, and where it is kept.

    Attributes:
        preset: a name in `PRESETS`.
        settings: the preset's.
        root: the directory that all commands of a preset share.
        data_dir: the TFDS data directory, or None.
        dataset: replaces each figure's own data set, or None.
        models: replace each figure's own networks; empty: they do not.
        networks: those that were opened, by name.
    """

    preset: str
    settings: Settings
    root: Path
    data_dir: Path | None
    dataset: str | None
    models: tuple[str, ...] = ()
    networks: dict[str, Network] = dataclasses.field(default_factory=dict, repr=False)

    DATASETS = DATASETS
    STAND_INS = STAND_INS

    @property
    def plan(self) -> Plan:
        """How networks are trained."""
        return self.settings.plan

    @property
    def survey(self) -> Survey:
        """How the ground is looked at."""
        return self.settings.survey

    @property
    def seeds(self) -> range:
        """Of every network."""
        return range(self.plan.seeds)

    def pairs(self, item: str) -> list[Pair]:
        """The networks and data sets that a figure is of."""
        paper = PAPER_PAIRS.get(item, _TEN)
        names = self.models or self.settings.models
        if item == "fig14":  # the only ones that train without batch norm
            names = ("resnet8",)
        found: dict[Pair, None] = {}
        for model, dataset in paper:
            dataset = self.taken_for(dataset)
            for name in names or (model,):
                found[name, dataset] = None
        return list(found)

    def datasets(self, item: str) -> dict[str, str]:
        """An item's own data sets, each with the one that is taken for it."""
        if item in WITHOUT_DATA:
            return {}
        paper = PAPER_PAIRS.get(item, _TEN)
        return {dataset: self.taken_for(dataset) for _, dataset in paper}

    def judging_by(self, zeta: float) -> Lab:
        """The same with another of the survey's zetas, at which nothing is new."""
        survey = dataclasses.replace(self.survey, zeta=zeta)
        settings = dataclasses.replace(self.settings, survey=survey)
        return dataclasses.replace(self, settings=settings)

    def network(self, pair: Pair, kind: str, seed: int) -> Network:
        """A network, opened once; what it goes on from is trained at once.

        Args:
            pair: model and data set.
            kind: `SGD`, `SWA` and so on.
            seed: of everything random in it.
        """
        plan, (model, dataset) = self.plan, pair
        sizes = sizes_of(dataset, plan.examples, 0, plan.test)
        batch_size = plan.batch_size
        if dataset == "digits":
            batch_size = min(batch_size, 64)
        small = min(plan.small_batch, batch_size)
        if kind in (WITH, WITHOUT) and plan.eight_rate == plan.rate and kind == WITH:
            kind = SWA  # the same network
        parents = {AFTER: (SWA, AVERAGE), SMALL: (SGD, ""), LARGE: (SGD, "")}
        averages = kind in (SWA, WITH, WITHOUT)
        rate = {
            AFTER: plan.after_rate, SMALL: plan.small_rate, LARGE: plan.small_rate,
            WITH: plan.eight_rate, WITHOUT: plan.eight_rate,
        }.get(kind, plan.rate)  # fmt: skip
        last, falls, epochs = rate, (0.0, 0.0), 0
        if kind == SGD:
            last, falls, epochs = plan.sgd_last * rate, (0.5, 0.9), plan.sgd_epochs
        elif averages:
            share = plan.swa_from / plan.swa_epochs
            falls, epochs = (0.5 * share, 0.9 * share), plan.swa_epochs
            last = rate * plan.swa_rate / plan.rate
        elif kind == AFTER:
            epochs = plan.after_epochs
        else:  # as many updates by either batch
            epochs = plan.small_epochs
            if kind == LARGE:
                epochs *= batch_size // small
        every = {AFTER: plan.after_every, SGD: max(1, epochs // self.survey.epochs)}
        looked_at = range(0, epochs, every.get(kind, epochs))
        parent = parents.get(kind)
        name = "-".join([dataset, model, kind, f"seed_{seed}"])
        start: Snapshot | None = None
        if parent is not None:
            before = self.network(pair, parent[0], seed)
            start = before.at(parent[1]) if parent[1] else before.final
        config = NetworkConfig(
            experiment="asymmetric_valleys", preset=self.preset, dataset=dataset,
            data_dir=self.data_path, **sizes,
            model=model,
            model_options={"batch_norm": False} if kind == WITHOUT else {},
            epochs=epochs, seed=seed,
            batch_size=small if kind == SMALL else batch_size, augment=plan.augment,
            schedule="swa",
            schedule_options={
                "init_value": rate, "swa_value": last, "start": falls[0],
                "end": falls[1],
            },
            momentum=plan.momentum, weight_decay=plan.weight_decay, decay_all=True,
            snapshot_epochs=tuple(epoch for epoch in looked_at if epoch),
            recipe="" if parent is None else (
                f"from the weights of {parent[0]} {parent[1]}".strip()
            ),
            averaged_from=plan.swa_from if averages else None,
            draws=plan.draws if kind == SWA else 0,
            parent=None if parent is None else f"{parent[0]} {parent[1]}".strip(),
            measured_every=plan.after_every if kind == AFTER else plan.measured_every,
            calibration=plan.calibration,
        )  # fmt: skip
        return self.opened(name, lambda path: Network(config, path, start))

    def all_of(self, pair: Pair, kind: str) -> list[Network]:
        """The networks of a kind, one a seed."""
        return [self.network(pair, kind, seed) for seed in self.seeds]

    def objective(self, network: Network, part: str, *, line: bool = False) -> Any:
        """The survey's loss on a part of a network's data.

        Args:
            network: whose model and data.
            part: ``'train'`` or ``'test'``.
            line: whether it is for a line between solutions, where the authors'
                statistics are those of augmented images.
        """
        survey = self.survey
        return network.objective(
            part, survey.examples, batch_size=survey.batch_size,
            augment=line and self.settings.augmented,
        )  # fmt: skip

    def sloped(self, network: Network) -> Any:
        """The survey's training loss, as slopes are taken of it."""
        survey = self.survey
        return network.objective(
            "train", survey.sloped, batch_size=min(survey.batch_size, survey.sloped)
        )

    def about(self) -> dict[str, Any]:
        """The settings, as JSON holds them."""
        return dataclasses.asdict(self.settings)

    def notes(self, item: str) -> list[str]:
        """What was measured, in words, to be said beside a table."""
        pairs = self.pairs(item)
        network = self.network(pairs[0], WITHOUT if item == "fig14" else SWA, 0)
        data, survey = network.data, self.survey
        names = ", ".join(" on ".join(pair) for pair in pairs)
        statistics = "batch norm's statistics estimated anew at every point"
        if self.settings.augmented:
            statistics += ", along lines on augmented images"
        return [
            (
                f"{names}; {len(data.train)} training and {len(data.test)} test "
                f"examples, {self.plan.seeds} seeds; losses in nats over "
                f"{min(survey.examples, len(data.train))} examples, slopes over "
                f"{min(survey.sloped, len(data.train))}, {statistics}; weight decay, "
                "of all parameters, is no part of them"
            )
        ]


def check(settings: Settings) -> None:
    """Checks what the command line may have changed.

    Raises:
        InputError: averaging that begins after the run's end, or a batch that does not
            fit.
    """
    plan = settings.plan
    if plan.small_batch > plan.batch_size:
        raise InputError(
            f"small_batch={plan.small_batch} must be no larger than "
            f"batch_size={plan.batch_size}"
        )
    if not 1 <= plan.swa_from <= plan.swa_epochs:
        raise InputError(
            f"swa_from={plan.swa_from}: averaging would begin after that epoch, and "
            f"the run has {plan.swa_epochs}; choose 1 to {plan.swa_epochs}"
        )
    if plan.examples is not None and plan.examples < plan.batch_size:
        raise InputError(
            f"examples={plan.examples} must be at least one batch, {plan.batch_size}, "
            "or 0 for all"
        )
    if plan.batch_size % plan.small_batch:
        raise InputError(
            f"batch_size={plan.batch_size} must be a multiple of "
            f"small_batch={plan.small_batch}: both make as many updates"
        )
