"""Trains a network on CIFAR-10.

    python -m experiments.cifar --schedule=gaussian

Needs the TFDS set cifar10: ``python -m lrscape.data prepare cifar10``.
"""

import sys

from experiments.arguments import Preset
from experiments.train import main

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
}

if __name__ == "__main__":
    sys.exit(main("cifar", __doc__, PRESETS))
