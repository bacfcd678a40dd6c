"""Presets of paper 5's experiments."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from experiments.harness.lab import sizes_of
from experiments.harness.stand_ins import dataset_or_stand_in
from experiments.lipschitz_rate.methods import Method
from experiments.lipschitz_rate.networks import Network, NetworkConfig
from lrscape.errors import unknown_name
from lrscape.transforms.lipschitz import MAX_RATE

# What stands in for a data set that is not prepared, in this order; then digits.
STAND_INS = {"cifar100": ("cifar10",)}
AUGMENT = {"mnist": ("shift", "zoom", "rotation"), "digits": ()}
DATASETS = ("mnist", "cifar10", "cifar100", "digits")

# d of Keras' time decay, which the paper calls weight decay.
TIME_DECAY = {"mnist": 0.0, "cifar10": 1e-3, "cifar100": 1e-4}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
    """How a task is trained.

    Attributes:
        model: see `lrscape.models.create`.
        dataset: its own, see `DATASETS`.
        examples: trained on; None is all.
        validation: of those left over, how many choose the constant rate.
        test: test examples; None is all.
        batch_size: examples an update.
        epochs: passes over the training examples.
        seeds: networks that differ by their seed alone.
        weight_decay: lambda, of the constant and of an L2 term on all parameters.
        kernel_l2: of another L2 term in its place, see `Method.optimizer`.
        model_options: the model's other fields.
        feed: where K_z comes from, see `Method`.
        form: of the constant, ``'paper'`` or ``'bound'``.
        norm: what K_z is, see `Method`.
        max_rate: no rate is larger, see `Method`.
        rates: constant rates to choose among.
        augmented: whether images are augmented as the paper's.
        normalize: see `lrscape.data.NORMALIZATIONS`.
        pass_batches: batches of the passes that measure K_z; None is all.
        looked_at: epochs whose weights are kept, for the Hessian.
        curvature: examples of the Hessian, and in how many of the seeds.
        premise: updates over which the layers' gradients are compared.
    """

    model: str
    dataset: str
    examples: int | None = None
    validation: int = 0
    test: int | None = None
    batch_size: int
    epochs: int
    seeds: int
    weight_decay: float = 0.0
    kernel_l2: float | None = None
    model_options: dict[str, Any] = dataclasses.field(default_factory=dict)
    feed: str
    form: str = "paper"
    # The text calls K_z the largest activation; its own numbers, and its authors' code,
    # are of a batch's Frobenius norm.
    norm: str = "frobenius"
    # Ours: activations that are all zero would have an infinite rate. The authors'
    # notebooks show 1.9 to 3.0 on MNIST and at most 2.5 on CIFAR.
    max_rate: float = MAX_RATE
    rates: tuple[float, ...]
    augmented: bool = True
    normalize: str = "scale"
    pass_batches: int | None = None
    looked_at: tuple[int, ...] = ()
    curvature: tuple[int, int] = (512, 3)
    premise: int = 40


_RATES = (0.03, 0.1, 0.3, 1.0)
_EARLY = (0, 1, 2, 3, 4, 5, 10, 20)
_LATE = (*_EARLY, 50, 100, 150, 200, 250, 300)


# Batch norm of the authors' code; the text does not say.
_KERAS = {"norm_momentum": 0.99, "norm_epsilon": 1e-3}


def _paper(feed: str, **changes: Any) -> dict[str, Plan]:
    mnist = Plan(
        model="mnist_cnn", dataset="mnist", batch_size=256, epochs=20, seeds=3,
        feed=feed, rates=_RATES, looked_at=_EARLY, premise=4000,
    )  # fmt: skip
    cifar10 = Plan(
        model="resnet20", dataset="cifar10", batch_size=128, epochs=300, seeds=3,
        weight_decay=1e-3, feed=feed, rates=_RATES, looked_at=_LATE, premise=4000,
        model_options=_KERAS,
    )  # fmt: skip
    cifar100 = dataclasses.replace(
        cifar10, model="preresnet164", dataset="cifar100", weight_decay=1e-4
    )
    plans = {"mnist": mnist, "variants": mnist, "cifar10": cifar10,
             "cifar100": cifar100}  # fmt: skip
    return {n: dataclasses.replace(plan, **changes) for n, plan in plans.items()}


PRESETS: dict[str, dict[str, Plan]] = {
    "quick": {
        "mnist": Plan(
            model="mnist_cnn", dataset="mnist", examples=57_600, batch_size=128,
            epochs=3, seeds=1, feed="free", form="bound", rates=_RATES,
            augmented=False, pass_batches=10,
        ),
        "variants": Plan(
            model="mnist_cnn", dataset="mnist", examples=2560, validation=1000,
            test=2000, batch_size=128, epochs=4, seeds=5, feed="free", rates=_RATES,
            augmented=False, looked_at=(0, 1, 2, 3, 4), curvature=(512, 5),
        ),
        "cifar10": Plan(
            model="resnet20", dataset="cifar10", examples=1920, validation=500,
            test=1000, batch_size=128, epochs=4, seeds=5, weight_decay=1e-3,
            feed="free", rates=_RATES, looked_at=(0, 1, 2, 3, 4), curvature=(128, 5),
            premise=20,
        ),
        "cifar100": Plan(
            model="preresnet164", dataset="cifar100", examples=256, test=200,
            batch_size=128, epochs=2, seeds=1, weight_decay=1e-4, feed="free",
            rates=_RATES, looked_at=(0, 1, 2), curvature=(128, 1), premise=2,
        ),
    },
    # A pass at each epoch's start, divided by 255 alone: the text. That the pass is in
    # inference mode: the authors' code.
    "paper": _paper("inference"),
    "authors": _paper("inference"),
}  # fmt: skip

for _task, _plan in PRESETS["authors"].items():
    # Their code subtracts the mean image of CIFAR, and adds Keras' l2(1e-4) of kernels
    # of convolutions, whatever lambda is in the constant.
    if _plan.dataset != "mnist":
        PRESETS["authors"][_task] = dataclasses.replace(
            _plan, normalize="center_scale", kernel_l2=1e-4
        )


@dataclasses.dataclass(frozen=True)
class Lab:
    """What was asked for, and where it is kept.

    Attributes:
        preset: a name in `PRESETS`.
        plans: by task.
        root: the directory that all commands of a preset share.
        data_dir: the TFDS data directory, or None.
        dataset: replaces each task's own data set, or None.
        arms: those that were opened, by name.
    """

    preset: str
    plans: dict[str, Plan]
    root: Path
    data_dir: Path | None
    dataset: str | None
    arms: dict[str, Network] = dataclasses.field(default_factory=dict, repr=False)

    def dataset_of(self, task: str) -> str:
        """The task's data set, or what stands in for it where it is not prepared."""
        wanted = self.dataset or self.plans[task].dataset
        if wanted not in DATASETS:
            raise unknown_name("dataset", wanted, DATASETS)
        if self.dataset or self.preset != "quick":
            return wanted  # reading it says what is missing
        others = STAND_INS.get(wanted, ())
        return dataset_or_stand_in(wanted, self.data_dir, others)

    def datasets(self, tasks: Iterable[str]) -> dict[str, str]:
        """The tasks' own data sets, each with the one that is taken for it."""
        return {self.plans[task].dataset: self.dataset_of(task) for task in tasks}

    def arm(self, task: str, method: Method, seed: int) -> Network:
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
            data_dir=str(self.data_dir) if self.data_dir else None,
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
        if name not in self.arms:
            self.arms[name] = Network(config, self.root / name)
        return self.arms[name]

    def _changed(self, task: str) -> str:
        """What names a network besides, where flags change how it is trained."""
        plan, usual = self.plans[task], PRESETS[self.preset][task]
        return "".join(
            f"-{field}_{getattr(plan, field)}"
            for field in ("batch_size", "weight_decay", "kernel_l2", "norm", "max_rate")
            if getattr(plan, field) != getattr(usual, field)
        )

    def histories(self, task: str, method: Method) -> list[list[dict[str, Any]]]:
        """Of all seeds of a task."""
        return [
            self.arm(task, method, seed).history()
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
        before, row = self.arm(task, adaptive, seed).history()[:2]
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
        errors = {}
        for rate in self.plans[task].rates:
            arm = self.arm(task, self.constant(task, rate, **changes), 0)
            last = arm.history()[-1]
            measured = last.get("validation_error", last.get("test_error"))
            if measured is not None:
                errors[rate] = measured
        # Where all fail, the smallest has failed least.
        rates = errors or {min(self.plans[task].rates): 1.0}
        best = min(rates, key=lambda rate: rates[rate])
        return self.constant(task, best, **changes)

    def size_of(self, task: str) -> str:
        """How much data a task's networks see, in words."""
        data = self.arm(task, self.adaptive(task), 0).data
        return f"{len(data.train)} training and {len(data.test)} test examples"

    def chosen_on(self, task: str) -> str:
        """What `tuned` chooses on, in words."""
        if self.arm(task, self.adaptive(task), 0).data.validation is not None:
            return "validation examples"
        return "the test set, in the constant rate's favour"

    def about(self, task: str) -> dict[str, Any]:
        """A task's plan, as JSON holds it."""
        return {
            **dataclasses.asdict(self.plans[task]),
            "dataset": self.dataset_of(task),
        }
