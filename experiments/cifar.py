"""Trains a network on CIFAR-10.

    python -m experiments.cifar --schedule=gaussian

Needs the TFDS set cifar10: ``python -m lrscape.data prepare cifar10``.
"""

from experiments.harness.arguments import Preset
from experiments.harness.train import main
from lrscape import console

_PUBLISHED = {
    "augment": ("crop", "flip"),
    "normalize": "standardize",
    "schedule": "gaussian",
    "momentum": 0.9,
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
    # Table 3 of paper 1; ResNet-110's other half is --dataset=cifar100.
    "paper": Preset(
        about="pre-activation ResNet-110, 270 epochs: 5.34 % in paper 1, on a GPU",
        fields={
            **_PUBLISHED,
            "dataset": "cifar10",
            "model": "preresnet110",
            "epochs": 270,
            "batch_size": 128,
            "augment": ("crop", "flip", "jitter"),
            "peak_lr": 0.3,
            "start_lr": 0.1,
            "variance": 0.0128,  # 2 * 0.08^2
            "weight_decay": 1e-4,
        },
        # Basic blocks, of 1.7 million parameters: what the paper cites reports for 110.
        model_options={"block": "basic"},
    ),
    "densenet": Preset(
        about="DenseNet-BC (100, 12) on CIFAR-100: 22.17 % in paper 1, on a GPU",
        fields={
            **_PUBLISHED,
            "dataset": "cifar100",
            "model": "densenet100",
            "epochs": 300,
            "batch_size": 64,
            "peak_lr": 0.3,
            "start_lr": 0.1,
            "variance": 0.0128,
            "weight_decay": 1e-4,
        },
    ),
    "wrn": Preset(
        about="WRN-28-10 with dropout on CIFAR-100: 18.03 % in paper 1, on a GPU",
        fields={
            **_PUBLISHED,
            "dataset": "cifar100",
            "model": "wrn28_10",
            "epochs": 200,
            "batch_size": 128,
            "peak_lr": 0.2,
            "start_lr": 0.1,
            "variance": 0.0128,
            "weight_decay": 5e-4,
        },
        model_options={"dropout": 0.3},
    ),
}

if __name__ == "__main__":
    console.run(lambda: main("cifar", __doc__, PRESETS))
