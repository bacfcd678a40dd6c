"""What was asked for of paper 1, and the networks that it needs."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from experiments.harness.lab import Laboratory, errors_of, sizes_of
from experiments.nonmonotonic.networks import Network, NetworkConfig
from experiments.nonmonotonic.plans import Plan, Settings
from experiments.nonmonotonic.presets import (
    DATASETS,
    DECAYS,
    PRESETS,
    SHARES,
    SHOWN,
    STAND_INS,
)
from experiments.nonmonotonic.rules import Rule
from lrscape.errors import InputError


@dataclasses.dataclass(frozen=True)
class Lab(Laboratory):
    """What was asked for, and where it is kept.

    Attributes:
        preset: a name in `PRESETS`.
        settings: the preset's.
        root: the directory that all commands of a preset share.
        data_dir: the TFDS data directory, or None.
        dataset: replaces each task's own data set, or None.
        rows: of tables 3 and 4, by their tasks' names; empty: all of them.
        networks: those that were opened, by name.
    """

    preset: str
    settings: Settings
    root: Path
    data_dir: Path | None
    dataset: str | None
    rows: tuple[str, ...] = ()
    networks: dict[str, Network] = dataclasses.field(default_factory=dict, repr=False)

    DATASETS = DATASETS
    STAND_INS = STAND_INS

    @property
    def plans(self) -> dict[str, Plan]:
        """By task."""
        return self.settings.plans

    def dataset_of(self, task: str) -> str:
        """The task's data set; digits where quick's is not prepared."""
        return self.taken_for(self.plans[task].dataset)

    def datasets(self, tasks: Iterable[str]) -> dict[str, str]:
        """The tasks' own data sets, each with the one that is taken for it."""
        mine = [task for task in tasks if task in self.plans]
        return {self.plans[task].dataset: self.dataset_of(task) for task in mine}

    def rule(self, task: str, name: str) -> Rule:
        """A rule with the task's rates.

        Args:
            task: whose.
            name: ``'gaussian'``, or what the plan has in its place; ``'laplacian'``;
                ``'constant'``, at the peak; or one of `BASELINES`, of these the first
                that is tried.
        """
        plan = self.plans[task]
        if name == "gaussian":
            name = plan.rule
        if name == "gaussian":
            return Rule(
                schedule=name, start=plan.start, peak=plan.peak, variance=plan.variance
            )
        if name == "laplacian":
            return Rule(schedule=name, start=plan.start, peak=plan.peak)
        if name == "constant":
            return Rule(schedule=name, start=plan.peak)
        if name == "step":
            return Rule(schedule=name, start=plan.start, milestones=plan.milestones)
        return self.tried(task, name)[0]

    def tried(self, task: str, name: str) -> list[Rule]:
        """The rules that a baseline is tuned over: as many for each of them."""
        plan, rates = self.plans[task], self.rates_of(task)
        if name == "step":
            return [
                Rule(schedule="step", start=rate, milestones=plan.milestones)
                for rate in rates
            ]
        if name == "rational":
            return [
                Rule(schedule=name, start=plan.start, decay=decay)
                for decay in DECAYS[: len(rates)]
            ]
        return [
            Rule(schedule="constant", start=plan.start * share, optimizer=name)
            for share in SHARES[: len(rates)]
        ]

    def network(self, task: str, rule: Rule, seed: int, **changes: Any) -> Network:
        """A network, opened once.

        Args:
            task: whose plan it follows.
            rule: how its rate goes.
            seed: of everything random in it.
            **changes: of the plan's fields: a short run, of which the last epoch alone
                is looked at.
        """
        plan, dataset = self.plans[task], self.dataset_of(task)
        plan = dataclasses.replace(
            plan, **{k: v for k, v in changes.items() if v is not None}
        )
        short = bool(changes)
        sizes = sizes_of(dataset, plan.examples, plan.validation, plan.test)
        batch_size = min(plan.batch_size, sizes.get("examples") or plan.batch_size)
        if task == "descent":
            batch_size = self.descent_batch(sizes["examples"])
        epochs = () if short else plan.looked_at
        views: dict[str, Any] = {}
        if plan.image_size is not None:
            views = {"stream": True, "image_size": plan.image_size, "crop": plan.crop}
        plain = (
            rule.optimizer == "sgd" and plan.bias_rate == 1 and plan.dense_decay is None
        )
        config = NetworkConfig(
            experiment="nonmonotonic", preset=self.preset, dataset=dataset,
            data_dir=self.data_path, **sizes,
            model=plan.model, model_options=plan.model_options, epochs=plan.epochs,
            batch_size=batch_size, seed=seed, augment=plan.augment,
            normalize=plan.normalize, **rule.fields,
            momentum=plan.momentum if rule.optimizer == "sgd" else None,
            weight_decay=plan.weight_decay, dense_decay=plan.dense_decay,
            bias_rate=plan.bias_rate,
            recipe="" if plain else (
                f"{rule.optimizer}, biases at {plan.bias_rate:g} times the rate, "
                f"dense layers' decay {plan.dense_decay or plan.weight_decay:g}"
            ),
            snapshot_epochs=tuple(e for e in epochs if 0 < e < plan.epochs),
            peak_of=(
                None if short or not plan.keeps_peak else self.rule(task, "gaussian")
            ),
            gradient_examples=0 if short else plan.gradient_examples,
            each_epoch=not short, top5=plan.top5, **views,
        )  # fmt: skip
        kind = f"{task}-short_{sizes['examples'] or 'all'}" if short else task
        own = PRESETS[self.preset].plans.get(task, plan)
        told = "".join(
            f"-{field}_{value if isinstance(value, str) else f'{value:g}'}"
            for field in SHOWN
            if (value := getattr(plan, field)) != getattr(own, field)
        )
        name = f"{kind}-{dataset}-epochs_{plan.epochs}{told}-{rule.name}-seed_{seed}"
        return self.opened(name, lambda path: Network(config, path))

    def descent_batch(self, examples: int | None) -> int:
        """All examples in one batch."""
        if examples is None:
            raise InputError(
                "examples=0: full-batch descent holds a batch's activations at once; "
                "name a number of examples"
            )
        return examples

    def seeds(self, task: str) -> range:
        """Of a task's networks."""
        return range(self.plans[task].seeds)

    def all_of(self, task: str, rule: Rule, count: int | None = None) -> list[Network]:
        """The networks of a rule, one a seed, trained."""
        seeds = self.seeds(task) if count is None else range(count)
        found = [self.network(task, rule, seed) for seed in seeds]
        for network in found:
            network.history()
        return found

    def tuned(self, task: str, name: str) -> Rule:
        """Of a baseline's rules the one with the fewest errors, last epoch, seed 0.

        On validation examples; where there are none, on the test set, in favour of the
        baseline. One that fails in any seed is passed over.
        """

        def errors(rule: Rule) -> tuple[float, float]:
            return errors_of(self.network(task, rule, 0).history()[-1])

        rules = self.tried(task, name)
        for rule in sorted(rules, key=errors):
            if not any(network.failed() for network in self.all_of(task, rule)):
                return rule
        return min(rules, key=lambda rule: (rule.start, -rule.decay))

    def rates_of(self, task: str) -> list[float]:
        """Starts that the step rule's is tuned over, its own among them."""
        plan = self.plans[task]
        return sorted({plan.start, *plan.rates})

    def size_of(self, task: str) -> str:
        """How much data a task's networks see, in words."""
        data = self.network(task, self.rule(task, "gaussian"), 0).data
        return f"{len(data.train)} training and {len(data.test)} test examples"

    def sampled(self, task: str, count: int) -> int:
        """So many of a task's training examples, or all where there are fewer."""
        data = self.network(task, self.rule(task, "gaussian"), 0).data
        return min(count, len(data.train))

    def chosen_on(self, task: str) -> str:
        """What `tuned` chooses on, in words."""
        network = self.network(task, self.rule(task, "step"), 0)
        if network.data.validation is not None:
            return "validation examples"
        return "the test set, in the baselines' favour"

    def about(self, task: str) -> dict[str, Any]:
        """A task's plan, as JSON holds it."""
        plan = dataclasses.asdict(self.plans[task])
        return {**plan, "dataset": self.dataset_of(task)}
