"""Trains a network on CIFAR-10.

    python -m experiments.cifar --schedule=gaussian

Needs the TFDS set cifar10: ``python -m lrscape.data prepare cifar10``.
"""

import sys

from experiments.arguments import Preset
from experiments.train import main

_DEEP = {
    "dataset": "cifar10",
    "batch_size": 128,
    "augment": ("crop", "flip"),
    "schedule": "gaussian",
    "peak_lr": 0.3,
    "start_lr": 0.1,
    "momentum": 0.9,
    "weight_decay": 1e-4,
}

PRESETS = {
    "quick": Preset(
        about="paper 1's small model for a few epochs, minutes on two CPU cores",
        fields={
            "dataset": "cifar10",
            "model": "small",
            "epochs": 5,
            "batch_size": 128,
            "augment": ("flip",),
            "schedule": "gaussian",
            "peak_lr": 0.03,
            "start_lr": 0.01,
            "momentum": 0.9,
            "log_every": 39,
        },
        model_options={"initializer": "he"},
    ),
    # Table 3 of paper 1; with --dataset=cifar100 its other half.
    "paper": Preset(
        about="pre-activation ResNet-110, 270 epochs: 5.34 % in paper 1, on a GPU",
        fields={
            **_DEEP,
            "model": "preresnet110",
            "epochs": 270,
            "augment": ("crop", "flip", "jitter"),
        },
        model_options={"block": "basic"},
    ),
    "densenet": Preset(
        about="DenseNet-BC (100, 12) on CIFAR-100: 22.17 % in paper 1, on a GPU",
        fields={
            **_DEEP,
            "dataset": "cifar100",
            "model": "densenet100",
            "epochs": 300,
            "batch_size": 64,
        },
    ),
    "wrn": Preset(
        about="WRN-28-10 with dropout on CIFAR-100: 18.03 % in paper 1, on a GPU",
        fields={
            **_DEEP,
            "dataset": "cifar100",
            "model": "wrn28_10",
            "epochs": 200,
            "peak_lr": 0.2,
            "weight_decay": 5e-4,
        },
        model_options={"dropout": 0.3},
    ),
}

if __name__ == "__main__":
    sys.exit(main("cifar", __doc__, PRESETS))
