"""Trains a network on MNIST.

    python -m experiments.mnist --schedule=gaussian

Needs the TFDS set mnist: ``python -m lrscape.data prepare mnist``.
"""

from experiments.harness.arguments import Preset
from experiments.harness.train import main
from lrscape import console

PRESETS = {
    "quick": Preset(
        about="a CNN with batch norm, minutes on two CPU cores",
        fields={
            "dataset": "mnist",
            "model": "cnn",
            "epochs": 4,
            "batch_size": 128,
            "schedule": "gaussian",
            "peak_lr": 0.1,
            "start_lr": 0.03,
            "momentum": 0.9,
            "log_every": 39,
        },
    ),
}

if __name__ == "__main__":
    console.run(lambda: main("mnist", __doc__, PRESETS))
