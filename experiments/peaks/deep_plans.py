"""Presets of tables 3 and 4: the deep networks."""

from __future__ import annotations

import dataclasses
from typing import Any

from experiments.peaks.plans import Plan

# Fractions of the run: He et al.'s and Huang et al.'s halves and three quarters, and
# Zagoruyko and Komodakis' 60, 120 and 160 of 200 epochs.
_HALVES = (0.5, 0.75)
_WIDE_STEPS = (0.3, 0.6, 0.8)
# AlexNet's three ten-fold falls; when is not published but as "once it stops
# improving". The same is taken of the other two, whose own rules are slower.
_IMAGENET_STEPS = (20 / 90, 40 / 90, 60 / 90)
# 2 * 0.08^2: what the paper takes on MNIST, CIFAR and in ImageNet's naive version.
_NAIVE = 0.0128
_TURNED = ("crop", "flip")


def _on_both(name: str, plan: Plan) -> dict[str, Plan]:
    """A plan for CIFAR-10 and the same for CIFAR-100."""
    return {
        f"{name}_cifar10": plan,
        f"{name}_cifar100": dataclasses.replace(plan, dataset="cifar100"),
    }


_RESNET = Plan(
    # Basic blocks, of 1.7 million parameters: what the paper cites reports for 110.
    model="preresnet110", model_options={"block": "basic"}, epochs=270, seeds=3,
    start=0.1, peak=0.3, variance=_NAIVE, milestones=_HALVES, weight_decay=1e-4,
    augment=(*_TURNED, "jitter"), keeps_peak=False,
)  # fmt: skip
_DENSENET = Plan(
    model="densenet100", dataset="cifar100", batch_size=64, epochs=300, seeds=3,
    start=0.1, peak=0.3, variance=_NAIVE, milestones=_HALVES, weight_decay=1e-4,
    augment=_TURNED, keeps_peak=False,
)  # fmt: skip
_ALEXNET = Plan(
    model="alexnet", dataset="imagenet2012", image_size=224, top5=True, epochs=90,
    seeds=3, start=0.01, peak=0.03, milestones=_IMAGENET_STEPS,
    weight_decay=5e-4, normalize="center", keeps_peak=False,
)  # fmt: skip

PAPER: dict[str, Plan] = {
    "nin_cifar10": Plan(
        model="nin", model_options={"final_relu": False}, epochs=720, seeds=3,
        start=0.1, peak=0.3, variance=_NAIVE, milestones=_HALVES, weight_decay=5e-4,
        normalize="whiten", augment=_TURNED, keeps_peak=False,
    ),
    **_on_both("resnet110", _RESNET),
    "densenet100_cifar100": _DENSENET,
    "densenet190_cifar100": dataclasses.replace(_DENSENET, model="densenet190"),
    "wrn28_10_cifar100": Plan(
        model="wrn28_10", dataset="cifar100", model_options={"dropout": 0.3},
        epochs=200, seeds=3, start=0.1, peak=0.2, milestones=_WIDE_STEPS,
        weight_decay=5e-4, augment=_TURNED, keeps_peak=False,
    ),
    "alexnet": _ALEXNET,
    "alexnet_180": dataclasses.replace(_ALEXNET, epochs=180),
    "alexnet_naive": dataclasses.replace(_ALEXNET, epochs=270, variance=_NAIVE),
    "googlenet": dataclasses.replace(
        _ALEXNET, model="googlenet", epochs=80, batch_size=256, weight_decay=2e-4
    ),
    "bn_inception": dataclasses.replace(
        _ALEXNET, model="bn_inception", epochs=80, batch_size=256,
        normalize="standardize",
    ),
}  # fmt: skip


def _quick(plan: Plan, **changes: Any) -> Plan:
    """A few epochs on a few images, for two CPU cores."""
    quick: dict[str, Any] = {
        "examples": 256, "test": 500, "batch_size": 32, "epochs": 4,
        "variance": None, **changes,
    }  # fmt: skip
    return dataclasses.replace(plan, **quick)


QUICK: dict[str, Plan] = {
    # Without whitening, which takes the rate that images as they are do not bear.
    "nin_cifar10": _quick(
        PAPER["nin_cifar10"], start=0.01, peak=0.03, normalize="standardize",
        model_options={"final_relu": False, "initializer": "he"},
    ),
    # The published blocks, fewer or narrower.
    "resnet110_cifar10": _quick(
        _RESNET, model_options={"block": "basic", "depth": 20}, examples=512
    ),
    "densenet100_cifar100": _quick(_DENSENET, model_options={"depth": 22}),
    "wrn28_10_cifar100": _quick(
        PAPER["wrn28_10_cifar100"],
        model_options={"dropout": 0.3, "depth": 10, "widen": 2},
    ),
    "alexnet": _quick(_ALEXNET, image_size=67, epochs=3),
    "googlenet": _quick(PAPER["googlenet"], image_size=64, epochs=3),
    "bn_inception": _quick(PAPER["bn_inception"], image_size=64, epochs=3),
}  # fmt: skip


def fields_of(plan: Plan) -> dict[str, Any]:
    """A plan by the Gaussian as the flags of an experiment that trains one network."""
    fields = {
        "dataset": plan.dataset,
        "model": plan.model,
        "epochs": plan.epochs,
        "batch_size": plan.batch_size,
        "augment": plan.augment,
        "normalize": plan.normalize,
        "schedule": "gaussian",
        "peak_lr": plan.peak,
        "start_lr": plan.start,
        "variance": plan.variance,
        "momentum": plan.momentum,
        "weight_decay": plan.weight_decay,
    }
    if plan.image_size is not None:
        fields |= {"stream": True, "image_size": plan.image_size, "top5": plan.top5}
    return {name: value for name, value in fields.items() if value is not None}
