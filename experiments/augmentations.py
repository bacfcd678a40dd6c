"""Draws each augmentation as a picture sheet, to be looked at.

    python -m experiments.augmentations --dataset=cifar10 --out=sheets

A sheet a name: the images in the first column, then each of them as it comes in eight
epochs. Seconds.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

import jax
import jax.numpy as jnp

from experiments.harness.paper import command_line
from experiments.harness.values import DataDirectory, Directory
from lrscape import checks, console, data, figures
from lrscape.errors import InputError
from lrscape.records import write_aside
from lrscape.training.state import AUGMENT

EPOCHS = 8


@dataclasses.dataclass(frozen=True, kw_only=True)
class Arguments:
    """Flags.

    Attributes:
        dataset: any prepared TFDS set of labelled images, or digits.
        data_dir: the TFDS data directory; default: TFDS_DATA_DIR, or else
            ~/tensorflow_datasets.
        out: the directory of the sheets.
        debug: show a traceback with an error.
    """

    dataset: str = "digits"
    data_dir: DataDirectory | None = None
    out: Directory = Path("runs") / "augmentations"
    debug: bool = False


def sheet(dataset: data.Dataset, name: str, count: int = 6, seed: int = 0):
    """The first images, and what training under `seed` would see of them.

    Returns:
        The figure: a row an image, a column an epoch.
    """
    indices = jnp.arange(count)
    images = jnp.asarray(dataset.train.image[:count])
    key = jax.random.fold_in(jax.random.key(seed), AUGMENT)
    seen = [
        data.augment_batch(
            key, jnp.asarray(epoch), indices, images, (name,), dataset.max_value
        )
        for epoch in range(EPOCHS)
    ]
    columns = {"as it is": images} | {f"epoch {n}": x for n, x in enumerate(seen)}
    return figures.image_sheet(columns, max_value=dataset.max_value, title=name)


def run(arguments: Arguments) -> None:
    """Draws the sheets, and names their files.

    Raises:
        InputError: a data set that is not there, or a directory that cannot be made.
    """
    files = [arguments.out / f"{name}.png" for name in data.AUGMENTATIONS]
    for file in files:  # before data is read
        checks.path_to_write("out", file)
    dataset = data.load(arguments.dataset, data_dir=arguments.data_dir)
    for name, file in zip(data.AUGMENTATIONS, files, strict=True):
        try:
            with write_aside(file) as aside:
                sheet(dataset, name).savefig(aside, dpi=110)
        except OSError as error:
            raise InputError(
                f"out={str(arguments.out)!r} cannot be written: {error.strerror}; "
                "choose another directory"
            ) from error
        print(file)


def main(argv: list[str] | None = None) -> int:
    """Runs the command line; returns the exit status."""
    return command_line("augmentations", Arguments, __doc__ or "", run, argv)


if __name__ == "__main__":
    console.run(main)
