"""Trains a network on Tiny ImageNet: 200 classes, 100,000 images of 64x64.

    python -m experiments.tiny_imagenet --schedule=gaussian

Needs the published folder tiny-imagenet-200 in the data directory. An hour an epoch of
the preset paper's network on two CPU cores; minutes on a GPU.
"""

from experiments.harness.arguments import Preset
from experiments.harness.train import main
from lrscape import console

_SHARED = {
    "dataset": "tiny_imagenet",
    "top5": True,
    "augment": ("crop", "flip"),
    "schedule": "gaussian",
    "momentum": 0.9,
}

PRESETS = {
    "quick": Preset(
        about="ResNet-20 on 2,560 of the images for two epochs: minutes",
        fields={
            **_SHARED,
            "model": "resnet20",
            "examples": 2560,
            "test_examples": 500,
            "epochs": 2,
            "batch_size": 64,
            "peak_lr": 0.1,
            "start_lr": 0.03,
            "log_every": 10,
        },
    ),
    "paper": Preset(
        about="pre-activation ResNet-110 at paper 1's rates for ResNets, 270 epochs",
        fields={
            **_SHARED,
            "model": "preresnet110",
            "augment": ("crop", "flip", "jitter"),
            "epochs": 270,
            "batch_size": 128,
            "peak_lr": 0.3,
            "start_lr": 0.1,
            "weight_decay": 1e-4,
        },
        model_options={"block": "basic"},
    ),
}

if __name__ == "__main__":
    console.run(lambda: main("tiny_imagenet", __doc__, PRESETS))
