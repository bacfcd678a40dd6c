"""Presets of paper 5's experiments."""

from __future__ import annotations

import dataclasses
from typing import Any

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
