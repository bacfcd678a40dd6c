"""Presets of tables 3 and 4: the deep networks."""

from __future__ import annotations

import dataclasses
from typing import Any

from experiments import cifar, imagenet
from experiments.harness.arguments import Preset
from experiments.nonmonotonic.plans import Plan

# Fractions of the run: He et al.'s and Huang et al.'s halves and three quarters, and
# Zagoruyko and Komodakis' 60, 120 and 160 of 200 epochs.
_HALVES = (0.5, 0.75)
_WIDE_STEPS = (0.3, 0.6, 0.8)
# AlexNet's three ten-fold falls of Krizhevsky et al., Sec. 5, in 90 epochs; by hand,
# whenever errors stopped falling: every 20 epochs is ours. The paper says nothing of
# its baselines' rules. The same falls are taken of the other two: ours, for GoogLeNet's
# own rate falls by 4 % every 8 epochs, to two thirds in the paper's 80.
_IMAGENET_STEPS = (20 / 90, 40 / 90, 60 / 90)


def plan_of(preset: Preset, **others: Any) -> Plan:
    """The plan that trains as a preset of `cifar` or `imagenet` does.

    Args:
        preset: by the Gaussian.
        **others: fields of the plan that the preset has not, or in its place.
    """
    fields = dict(preset.fields)
    named = {"peak_lr": "peak", "start_lr": "start"}
    shared = {field.name for field in dataclasses.fields(Plan)} | set(named)
    kept = {
        named.get(name, name): value for name, value in fields.items() if name in shared
    }
    return Plan(
        **{**kept, "model_options": dict(preset.model_options), "seeds": 3,
           "keeps_peak": False, **others}
    )  # fmt: skip


def _on_both(name: str, plan: Plan) -> dict[str, Plan]:
    """A plan for CIFAR-10 and the same for CIFAR-100."""
    return {
        f"{name}_cifar10": plan,
        f"{name}_cifar100": dataclasses.replace(plan, dataset="cifar100"),
    }


_RESNET = plan_of(cifar.PRESETS["paper"], milestones=_HALVES)
_DENSENET = plan_of(cifar.PRESETS["densenet"], milestones=_HALVES)
_WIDE = plan_of(cifar.PRESETS["wrn"], milestones=_WIDE_STEPS)
_ALEXNET = plan_of(imagenet.PRESETS["paper"], milestones=_IMAGENET_STEPS)

PAPER: dict[str, Plan] = {
    "nin_cifar10": Plan(
        model="nin", model_options={"final_relu": False}, epochs=720, seeds=3,
        start=0.1, peak=0.3, variance=0.0128, milestones=_HALVES, weight_decay=5e-4,
        normalize="whiten", augment=("crop", "flip"), keeps_peak=False,
    ),
    **_on_both("resnet110", _RESNET),
    "densenet100_cifar100": _DENSENET,
    "densenet190_cifar100": dataclasses.replace(_DENSENET, model="densenet190"),
    "wrn28_10_cifar100": _WIDE,
    "alexnet": _ALEXNET,
    "alexnet_180": dataclasses.replace(_ALEXNET, epochs=180),
    "alexnet_naive": plan_of(imagenet.PRESETS["naive"], milestones=_IMAGENET_STEPS),
    "googlenet": plan_of(imagenet.PRESETS["googlenet"], milestones=_IMAGENET_STEPS),
    "bn_inception": plan_of(
        imagenet.PRESETS["bn_inception"], milestones=_IMAGENET_STEPS
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
        _WIDE,
        model_options={"dropout": 0.3, "depth": 10, "widen": 2},
    ),
    "alexnet": _quick(_ALEXNET, image_size=67, epochs=3),
    "googlenet": _quick(PAPER["googlenet"], image_size=64, epochs=3),
    "bn_inception": _quick(PAPER["bn_inception"], image_size=64, epochs=3),
}  # fmt: skip
