"""Trains a network on scikit-learn's digits: embedded, so that it runs anywhere.

    python -m experiments.digits --schedule=gaussian

1,437 real 8x8 images to train on, 360 to test. On two CPU cores the preset quick takes
about 10 seconds.
"""

from experiments.harness.arguments import Preset
from experiments.harness.train import main
from lrscape import console

PRESETS = {
    "quick": Preset(
        about="seconds on two CPU cores",
        fields={
            "dataset": "digits",
            "model": "mlp",
            "epochs": 30,
            "batch_size": 64,
            "schedule": "gaussian",
            "peak_lr": 0.3,
            "start_lr": 0.1,
            "momentum": 0.9,
            "checkpoint_every": 220,
        },
    ),
}

if __name__ == "__main__":
    console.run(lambda: main("digits", __doc__, PRESETS))
