"""Presets of paper 1's experiments."""

from __future__ import annotations

import dataclasses

from experiments.nonmonotonic import deep_plans
from experiments.nonmonotonic.plans import Plan, Settings, Survey, Sweep

DATASETS = ("cifar10", "cifar100", "mnist", "imagenet2012", "folder", "digits")
# What takes a set's place in quick where it is not prepared; after them digits do.
STAND_INS = {"cifar100": ("cifar10",), "imagenet2012": ("cifar10",)}

# Fractions of the run at which the published rates fall ten-fold: cuda-convnet's after
# 120 and 10 more of 140 epochs, All-CNN-C's at 200, 250 and 300 of 350.
SMALL_STEPS = (120 / 140, 130 / 140)
LARGE_STEPS = (200 / 350, 250 / 350, 300 / 350)
# NIN's: two ten-fold falls as it stops improving; no epochs are published.
NIN_STEPS = (0.5, 0.75)

# Ours, of what the paper compares with and names no values of: by how much the rational
# rate falls over a run, and RMSprop's rate as a share of SGD's. Each is tuned over as
# many of them, from the left, as the step rule has starts; the rational rate's first
# ends at a hundredth of its start, as two ten-fold falls do.
DECAYS = (99.0, 9.0, 1.0, 4.0, 49.0)
SHARES = (0.1, 0.03, 0.3, 0.01, 1.0)
# What the Gaussian is compared with.
BASELINES = ("step", "rational", "rmsprop")


# Ours: the published ReLU on the logits shuts off every output for good at such rates.
# Of the large network, whitened CIFAR-10, nine of ten outputs were 0 for all of 500
# images after 20 updates at the paper's 0.05, and the loss stayed at that of guessing.
# Without it no output was off, and 60 updates of 32 images had not left that loss
# either: whether it trains at this rate is not known before a whole run.
_ALIVE = {"final_relu": False}

_QUICK_SMALL = Plan(
    model="small", model_options={"initializer": "he"}, examples=2560,
    validation=1000, test=2000, batch_size=64, epochs=8, seeds=5, start=0.01,
    peak=0.03, rates=(0.01, 0.03, 0.1), milestones=SMALL_STEPS,
    gradient_examples=1000, looked_at=(1, 2, 4, 6),
)  # fmt: skip
# At one rate throughout: does the curvature stay below 2 / rate?
_QUICK_DESCENT = dataclasses.replace(
    _QUICK_SMALL, examples=256, epochs=48, seeds=5, peak=0.2, momentum=0.0,
    gradient_examples=0, looked_at=(6, 12, 18, 24, 30, 36, 40, 44),
)  # fmt: skip

PRESETS: dict[str, Settings] = {
    "quick": Settings(
        plans={
            "small": _QUICK_SMALL,
            "large": Plan(
                model="large", model_options=_ALIVE, examples=256, validation=200,
                test=500, batch_size=32, epochs=5, seeds=1, start=0.01, peak=0.03,
                rates=(0.003, 0.01, 0.03), milestones=LARGE_STEPS, weight_decay=0.001,
                gradient_examples=128,
            ),
            "nin": Plan(
                model="nin_mnist", dataset="mnist",
                model_options={**_ALIVE, "initializer": "he"}, examples=512, test=500,
                batch_size=32, epochs=4, seeds=3, start=0.01, peak=0.03,
                milestones=NIN_STEPS, weight_decay=5e-4,
            ),
            "descent": _QUICK_DESCENT,
            **deep_plans.QUICK,
        },
        survey=Survey(
            examples=512, points=7, directions=5, noise=20.0, weights=1.0, relative=0.3,
            fooling=4, curvature=128,
        ),
        sweep=Sweep(
            examples=512, seeds=5, totals=(2, 3, 4, 6), starts=(1e-4, 1e-3, 0.01),
            peaks=(0.03, 0.06, 0.1), epochs=4, random=6,
        ),
        ensemble=10, draws=10_000,
    ),
    # The small model's published rates are for pixels from 0 to 255.
    "paper": Settings(
        plans={
            "small": Plan(
                model="small", epochs=360, seeds=5, start=0.001, peak=0.01,
                rates=(0.001, 0.002, 0.004, 0.008, 0.015), milestones=SMALL_STEPS,
                weight_decay=0.004, dense_decay=1.0, bias_rate=2.0, normalize="center",
                gradient_examples=5000, looked_at=(1, 2, 5, 10, 20, 50, 100, 200, 300),
            ),
            "large": Plan(
                model="large", model_options=_ALIVE, epochs=350, seeds=5, start=0.05,
                peak=0.15,
                rates=(0.01, 0.05, 0.1, 0.25), milestones=LARGE_STEPS,
                weight_decay=0.001, normalize="whiten", gradient_examples=5000,
            ),
            "nin": Plan(
                model="nin_mnist", dataset="mnist", model_options=_ALIVE, epochs=167,
                seeds=3, start=0.1, peak=0.3, variance=0.0128, milestones=NIN_STEPS,
                weight_decay=5e-4,
            ),
            "descent": dataclasses.replace(
                _QUICK_DESCENT, examples=5000, epochs=1000, seeds=3,
                looked_at=tuple(range(100, 1000, 100)),
            ),
            **deep_plans.PAPER,
        },
        survey=Survey(
            examples=10_000, points=21, directions=20, noise=2000.0, weights=1.0,
            relative=1.0, fooling=20, curvature=5000,
        ),
        sweep=Sweep(
            examples=None, seeds=3, totals=(30, 60, 120, 240, 360),
            starts=(1e-5, 1e-4, 1e-3), peaks=(0.002, 0.004, 0.008, 0.015), epochs=120,
            random=20,
        ),
        ensemble=10, draws=100_000,
    ),
}  # fmt: skip

# Rules that can stand in the Gaussian's place; a constant one is at its peak.
INSTEAD = ("gaussian", "laplacian", "constant")
# Fields of a plan that names of networks show where they are not the preset's own.
SHOWN = ("model", "batch_size", "momentum", "weight_decay", "rule")
