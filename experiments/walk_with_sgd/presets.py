"""Presets of paper 3's experiments."""

from __future__ import annotations

import dataclasses
from typing import Any

from experiments.walk_with_sgd.networks import Sample

# The paper's networks; 45,000 examples make its 450 updates of 100 an epoch.
DATASETS = {"mlp": "mnist", "vgg11": "cifar10", "resnet56": "cifar10"}
# The authors' code; the text does not say.
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
    curvature: Sample  # the authors' code: 25,000 in batches of 500
    batch_size: int = BATCH_SIZE
    weight_decay: float = 1e-4  # the authors' code; the text names none
    # The authors' code: variance 2 / fan-out for convolutions, and PyTorch's default
    # for dense layers. The text says nothing.
    weight_init: str = "fan_out"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Training:
    """What is trained, and how fast: the same in all presets.

    Attributes:
        datasets: each network's own.
        examples: that CIFAR-10 and MNIST are trained on; the others are held out.
        augment: of CIFAR-10's images; MNIST's are not augmented.
        rate: the usual one.
        rate_table2: of ResNet-56 in Table 2.
        rate_fig3: of ResNet-56 in figure 7, which `fig3` makes.
        smaller: Table 2's smaller rate, as a share of the larger one.
    """

    datasets: dict[str, str]
    examples: int = TRAIN_EXAMPLES["cifar10"]
    augment: tuple[str, ...] = AUGMENT["cifar10"]
    rate: float
    rate_table2: float
    rate_fig3: float
    smaller: float = SMALLER


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
