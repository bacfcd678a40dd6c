"""Trains an LSTM on a text, and draws the line between optimizers' solutions.

    python -m experiments.language --schedule=gaussian
    python -m experiments.language line

Needs the TFDS set tiny_shakespeare (``python -m lrscape.data prepare
tiny_shakespeare``), a text file, or for the preset paper the Penn Treebank's three
files.

``line`` trains a network by each of several optimizers from the same initial weights
and draws the loss on the straight line between their solutions; see ``line --help``.
"""

import sys

from experiments.harness.arguments import Preset
from experiments.harness.train import main as train
from experiments.language import lines
from experiments.language.kind import TEXTS
from lrscape import console

KIND = TEXTS

PRESETS = {
    "quick": Preset(
        about="characters of Shakespeare, about a minute and a half on two CPU cores",
        fields={
            "dataset": "tiny_shakespeare",
            "level": "characters",
            "model": "lstm",
            "epochs": 2,
            "batch_size": 32,
            "window": 50,
            "schedule": "gaussian",
            "peak_lr": 0.01,
            "start_lr": 0.002,
            "optimizer": "adam",
            "clip_norm": 5.0,
            "log_every": 57,
            "eval_streams": 8,
        },
        model_options={"features": 128, "layers": 1},
    ),
    # The paper gives batch size, epochs, rates and dropout; of the LSTM nothing, so
    # that it is the small one of Zaremba et al. (2014) with its window and clipping.
    "paper": Preset(
        about="words of the Penn Treebank, 200 epochs of SGD; for a GPU",
        fields={
            "dataset": "ptb",
            "level": "words",
            "max_words": 10_000,
            "model": "lstm",
            "epochs": 200,
            "batch_size": 128,
            "window": 20,
            "schedule": "rational",
            "decay": 0.0,
            "peak_lr": 0.6,
            "start_lr": 0.2,
            "optimizer": "sgd",
            "clip_norm": 5.0,
            "eval_streams": 8,
        },
        model_options={"features": 200, "layers": 2, "dropout": 0.5},
    ),
}


def main(argv: list[str] | None = None) -> int:
    """Runs the command line; returns the exit status."""
    given = sys.argv[1:] if argv is None else argv
    if given[:1] == ["line"]:
        return lines.main(PRESETS, given[1:])
    return train("language", __doc__, PRESETS, argv, TEXTS)


if __name__ == "__main__":
    console.run(main)
