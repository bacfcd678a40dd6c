"""Trains a network on ImageNet, or any set of its layout, without holding it in memory.

    python -m experiments.imagenet --preset=paper --data-dir=~/tensorflow_datasets

Needs the TFDS set imagenet2012 (``python -m lrscape.data prepare imagenet2012``, once
its archives are downloaded by hand), or ``--dataset=folder --data-dir=DIR`` with
DIR/train/CLASS/*.jpeg and DIR/val/CLASS/*.jpeg. The preset quick streams a part of
CIFAR-10, enlarged: minutes on two CPU cores.
"""

import sys

from experiments.arguments import Preset
from experiments.train import main

# Paper 1, table 4: the same rates for all three networks.
_PAPER = {
    "dataset": "imagenet2012",
    "stream": True,
    "image_size": 224,
    "top5": True,
    "schedule": "gaussian",
    "peak_lr": 0.03,
    "start_lr": 0.01,
    "momentum": 0.9,
    "log_every": 100,
    "checkpoint_every": 1000,
}
_ALEXNET = {
    **_PAPER,
    "model": "alexnet",
    "epochs": 90,
    "batch_size": 128,
    "weight_decay": 5e-4,
    # Its weights start small for pixels from 0 to 255.
    "normalize": "center",
}

PRESETS = {
    "quick": Preset(
        about="AlexNet on 1,280 images of CIFAR-10 streamed at 67 pixels: two minutes",
        fields={
            **_ALEXNET,
            "dataset": "cifar10",
            "examples": 1280,
            "test_examples": 500,
            "image_size": 67,
            "epochs": 5,
            "batch_size": 64,
            "eval_batch_size": 100,
            "checkpoint_every": 20,
            "log_every": 10,
        },
    ),
    "paper": Preset(
        about="AlexNet, 90 epochs: 19.67 % top-5 error in paper 1, 19.81 % by steps",
        fields=_ALEXNET,
    ),
    "naive": Preset(
        about="AlexNet, 270 epochs without a slow start: 18.89 % in paper 1",
        fields={**_ALEXNET, "epochs": 270, "variance": 0.0128},
    ),
    "googlenet": Preset(
        about="80 epochs: 10.39 % in paper 1, 10.82 % by steps",
        fields={
            **_PAPER,
            "model": "googlenet",
            "epochs": 80,
            "batch_size": 256,
            "weight_decay": 2e-4,
            "normalize": "center",
        },
    ),
    "bn_inception": Preset(
        about="80 epochs: 8.68 % in paper 1, 9.05 % by steps",
        fields={
            **_PAPER,
            "model": "bn_inception",
            "epochs": 80,
            "batch_size": 256,
            "weight_decay": 5e-4,
        },
    ),
}

if __name__ == "__main__":
    sys.exit(main("imagenet", __doc__, PRESETS))
