"""Trains a network on CIFAR-10.

    python -m experiments.cifar --schedule=gaussian

Needs the TFDS set cifar10: ``python -m lrscape.data prepare cifar10``.
"""

from experiments.arguments import Preset
from experiments.peaks.deep_plans import PAPER, fields_of
from experiments.train import main
from lrscape import console

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
        fields=fields_of(PAPER["resnet110_cifar10"]),
        model_options=PAPER["resnet110_cifar10"].model_options,
    ),
    "densenet": Preset(
        about="DenseNet-BC (100, 12) on CIFAR-100: 22.17 % in paper 1, on a GPU",
        fields=fields_of(PAPER["densenet100_cifar100"]),
    ),
    "wrn": Preset(
        about="WRN-28-10 with dropout on CIFAR-100: 18.03 % in paper 1, on a GPU",
        fields=fields_of(PAPER["wrn28_10_cifar100"]),
        model_options=PAPER["wrn28_10_cifar100"].model_options,
    ),
}

if __name__ == "__main__":
    console.run(lambda: main("cifar", __doc__, PRESETS))
