"""What was asked for of paper 2, and the networks that it needs."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from experiments.harness.lab import Laboratory, errors_of, sizes_of
from experiments.loss_surfaces.methods import METHODS, Method
from experiments.loss_surfaces.networks import Network, NetworkConfig
from experiments.loss_surfaces.presets import DATASETS, PRESETS, Plan
from lrscape import models
from lrscape.errors import InputError


@dataclasses.dataclass(frozen=True)
class Lab(Laboratory):
    """What was asked for, and where it is kept.

    Attributes:
        preset: quick or paper.
        model: mlp, nin or vgg; None: each item's own.
        plans: by model.
        root: the directory that all commands of a preset share.
        data_dir: the TFDS data directory, or None.
        dataset: replaces the plan's, or None.
        networks: those that were opened, by name.
        shared: what is made once for many probes, by name.
    """

    preset: str
    model: str | None
    plans: dict[str, Plan]
    root: Path
    data_dir: Path | None
    dataset: str | None
    networks: dict[str, Network] = dataclasses.field(default_factory=dict, repr=False)
    shared: dict[str, Any] = dataclasses.field(default_factory=dict, repr=False)

    DATASETS = DATASETS

    def of(self, own: str | None = None) -> Lab:
        """For an item that the paper made with a network of its own.

        Args:
            own: the model that the paper preset makes it with.
        """
        model = self.model or (own if self.preset == "paper" else None)
        return dataclasses.replace(self, model=model)

    def each(self) -> list[Lab]:
        """For an item that the paper made with both of its networks for images."""
        if self.model is not None or self.preset != "paper":
            return [self]
        return [self.of("nin"), self.of("vgg")]

    @property
    def plan(self) -> Plan:
        """How networks are trained."""
        return self.plans[self.model or next(iter(self.plans))]

    @property
    def seeds(self) -> range:
        """Starts."""
        return range(self.plan.seeds)

    @property
    def data_name(self) -> str:
        """The data set; digits where quick's is not prepared."""
        return self.taken_for(self.plan.dataset)

    def datasets(self) -> dict[str, str]:
        """Its networks' own data set, with the one that is taken for it."""
        lab = self.of("nin")
        return {lab.plan.dataset: lab.data_name}

    @property
    def what(self) -> str:
        """Network and data, in words."""
        return f"{self.plan.model} on {self.data_name}"

    def network(
        self,
        method: Method,
        seed: int,
        *,
        batch_norm: bool = True,
        order: int = 0,
        reordered: int = 0,
        start: tuple[float, float] | None = None,
        decay: float = 0.0,
    ) -> Network:
        """A network, opened once.

        Args:
            method: how it is optimized.
            seed: of its start, and of all else that is random.
            batch_norm: whether it has batch norm.
            order: of the examples, see `NetworkConfig`.
            reordered: the epoch after which that order begins.
            start: how its weights are drawn instead, see `NetworkConfig`.
            decay: an L2 term.
        """
        plan, dataset = self.plan, self.data_name
        normed = {"batch_norm": batch_norm}
        if "batch_norm" not in models.fields_of(plan.model):
            if not batch_norm:
                raise InputError(
                    f"model={plan.model!r} has no field batch_norm, and this is about "
                    "networks with and without it; choose another, or another item"
                )
            normed = {}
        sizes = sizes_of(dataset, plan.examples, plan.validation, plan.test)
        config = NetworkConfig(
            experiment="loss_surfaces", preset=self.preset, dataset=dataset,
            data_dir=self.data_path, **sizes,
            model=plan.model, model_options={
                **plan.options, **({} if batch_norm else plan.plain),
                **normed,
            },
            epochs=plan.epochs, seed=seed,
            batch_size=min(plan.batch_size, 64) if dataset == "digits" else (
                plan.batch_size
            ),
            # Digits are not the same when they are mirrored.
            augment=() if dataset in ("digits", "mnist") else plan.augment,
            scan_steps=plan.scan_steps, schedule="rational",
            schedule_options={"init_value": method.rate, "decay": 0.0},
            weight_decay=decay, recipe=method.name, method=method, start=start,
            order=order, reordered=reordered,
        )  # fmt: skip
        parts = [
            plan.model, dataset, f"epochs_{plan.epochs}",
            *self.batch_in_names(plan),
            *([] if batch_norm else ["plain"]),
            method.name,
            *([f"decay_{decay:g}"] if decay else []),
            *([f"start_{start[0]:g}_{start[1]:g}"] if start else []),
            *([f"order_{order}_{reordered}"] if order else []),
            f"seed_{seed}",
        ]  # fmt: skip
        name = "-".join(parts)

        def make(path: Path) -> Network:
            network = Network(config, path)
            network.checkpoint_every = plan.checkpoint_every
            return network

        return self.opened(name, make)

    def batch_in_names(self, plan: Plan) -> list[str]:
        """The batch size, in networks' names, where it is not the preset's own."""
        own = PRESETS[self.preset].get(self.model or next(iter(self.plans)), plan)
        changed = plan.batch_size != own.batch_size
        return [f"batch_size_{plan.batch_size}"] if changed else []

    def method(self, name: str, *, batch_norm: bool = True) -> Method:
        """One of table 1's methods, at its rate.

        Runge-Kutta's rates are twice the optimizer's own, as the paper's.
        """
        optimizer, runge_kutta = METHODS[name]
        method = self.tuned(optimizer, batch_norm=batch_norm)
        if not runge_kutta:
            return method
        return dataclasses.replace(
            method, runge_kutta=runge_kutta, rate=2 * method.rate
        )

    def tuned(
        self, optimizer: str, runge_kutta: str = "", *, batch_norm: bool = True
    ) -> Method:
        """A method at the rate with the fewest errors after the last epoch, seed 0.

        On validation examples; where there are none, on the training examples.
        Runge-Kutta methods choose among twice the rates.
        """
        rates = self.plan.rates[optimizer]
        factor = 2 if runge_kutta else 1
        methods = [
            Method(optimizer=optimizer, rate=factor * rate, runge_kutta=runge_kutta)
            for rate in rates
        ]
        if len(methods) == 1:
            return methods[0]

        def errors(method: Method) -> tuple[float, float]:
            network = self.network(method, 0, batch_norm=batch_norm)
            return errors_of(network.history()[-1], otherwise="train")

        return min(methods, key=errors)

    def trained(
        self, name: str, seed: int, *, batch_norm: bool = True, **changes: Any
    ) -> Network:
        """A network by one of table 1's methods, trained."""
        method = self.method(name, batch_norm=batch_norm)
        network = self.network(method, seed, batch_norm=batch_norm, **changes)
        network.history()
        return network

    def all_trained(self, name: str, **changes: Any) -> list[Network]:
        """Of all seeds."""
        return [self.trained(name, seed, **changes) for seed in self.seeds]

    def tuned_note(self, names: Sequence[str], *, batch_norm: bool = True) -> str:
        """The rates, in words."""
        rates = ", ".join(
            f"{name} {self.method(name, batch_norm=batch_norm).rate:g}"
            for name in names
        )  # fmt: skip
        chosen = any(len(r) > 1 for r in self.plan.rates.values())
        on = "validation" if self.plan.validation else "training"
        how = f", chosen on seed 0 by {on} errors" if chosen else ", not tuned"
        return f"rates: {rates}{how}; Runge-Kutta's are doubled, as the paper's"

    def plain_note(self) -> str:
        """What a network without batch norm has of its own, in words."""
        said = ", ".join(f"{name} {value}" for name, value in self.plan.plain.items())
        return (
            f"without batch norm: {said}, which is ours: as published three of its ten "
            "outputs were shut off within 60 updates at the rate 0.2"
        )

    def note(self) -> str:
        """How much data the networks see, in words."""
        data = self.network(self.method("sgd"), 0).data
        return (
            f"{self.what}, {len(data.train)} training and {len(data.test)} test "
            f"examples, {self.plan.epochs} epochs; losses over "
            f"{min(self.plan.sample, len(data.train))} training examples (surfaces "
            f"{min(self.plan.surface_sample, len(data.train))}), dropout off, batch "
            f"norm by batches of {self.plan.batch}; last epoch"
        )

    def about(self) -> dict[str, Any]:
        """The plan, as JSON holds it."""
        return {**dataclasses.asdict(self.plan), "dataset": self.data_name}
