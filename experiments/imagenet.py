"""Trains a network on ImageNet, or any set of its layout, without holding it in memory.

    python -m experiments.imagenet --preset=paper --data-dir=~/tensorflow_datasets

Needs the TFDS set imagenet2012 (``python -m lrscape.data prepare imagenet2012``, once
its archives, ILSVRC2012_img_train.tar and ILSVRC2012_img_val.tar, lie in
downloads/manual of the data directory), or ``--dataset=folder --data-dir=DIR`` with
DIR/train/CLASS/*.jpeg and DIR/val/CLASS/*.jpeg. The preset quick streams a part of
CIFAR-10, enlarged: minutes on two CPU cores.
"""

from experiments.arguments import Preset
from experiments.peaks.deep_plans import PAPER, fields_of
from experiments.train import main
from lrscape import console

# Checkpoints come more often than epochs.
_OFTEN = {"log_every": 100, "checkpoint_every": 1000}
_ALEXNET = {**fields_of(PAPER["alexnet"]), **_OFTEN}

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
        fields={**fields_of(PAPER["alexnet_naive"]), **_OFTEN},
    ),
    "googlenet": Preset(
        about="80 epochs: 10.39 % in paper 1, 10.82 % by steps",
        fields={**fields_of(PAPER["googlenet"]), **_OFTEN},
    ),
    "bn_inception": Preset(
        about="80 epochs: 8.68 % in paper 1, 9.05 % by steps",
        fields={**fields_of(PAPER["bn_inception"]), **_OFTEN},
    ),
}

if __name__ == "__main__":
    console.run(lambda: main("imagenet", __doc__, PRESETS))
