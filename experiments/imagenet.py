"""Trains a network on ImageNet, or any set of its layout, without holding it in memory.

    python -m experiments.imagenet --preset=paper --data-dir=~/tensorflow_datasets

Needs the TFDS set imagenet2012 (``python -m lrscape.data prepare imagenet2012``, once
its archives, ILSVRC2012_img_train.tar and ILSVRC2012_img_val.tar, lie in
downloads/manual of the data directory), or ``--dataset=folder --data-dir=DIR`` with
DIR/train/CLASS/*.jpeg and DIR/val/CLASS/*.jpeg. The preset quick streams a part of
CIFAR-10, enlarged: minutes on two CPU cores.
"""

from experiments.harness.arguments import Preset
from experiments.harness.train import main
from lrscape import console

_ALEXNET = {
    "dataset": "imagenet2012",
    "model": "alexnet",
    "stream": True,
    "image_size": 224,
    # Krizhevsky et al., Sec. 4.1: windows of 224 pixels out of the middle 256 x 256 of
    # an image whose shorter side is 256, mirrored. Their change of colours, and their
    # mean over ten windows of a test image, are left out.
    "crop": "window",
    "top5": True,
    "epochs": 90,
    "batch_size": 128,
    "augment": (),
    "normalize": "center",
    "schedule": "gaussian",
    "peak_lr": 0.03,
    "start_lr": 0.01,
    "momentum": 0.9,
    "weight_decay": 5e-4,
    # Checkpoints come more often than epochs.
    "log_every": 100,
    "checkpoint_every": 1000,
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
        about="AlexNet, 270 epochs of an uncut Gaussian: 18.89 % in paper 1",
        fields={**_ALEXNET, "epochs": 270, "variance": 0.0128},  # 2 * 0.08^2
    ),
    "googlenet": Preset(
        about="80 epochs: 10.39 % in paper 1, 10.82 % by steps",
        fields={
            **_ALEXNET,
            "model": "googlenet",
            "crop": "random_resized",  # Szegedy et al., Sec. 6
            "epochs": 80,
            "batch_size": 256,
            "weight_decay": 2e-4,
        },
    ),
    "bn_inception": Preset(
        about="80 epochs: 8.68 % in paper 1, 9.05 % by steps",
        fields={
            **_ALEXNET,
            "model": "bn_inception",
            # Ioffe and Szegedy, Sec. 4.2.1: as Inception, and less changed in colour.
            "crop": "random_resized",
            "epochs": 80,
            "batch_size": 256,
            "normalize": "standardize",
        },
    ),
}

if __name__ == "__main__":
    console.run(lambda: main("imagenet", __doc__, PRESETS))
