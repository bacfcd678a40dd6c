"""Draws each augmentation as a picture sheet, to be looked at.

    python -m experiments.augmentations --dataset=cifar10 --out=sheets

A sheet a name: the images in the first column, then each of them as it comes in eight
epochs. Seconds.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import jax
import jax.numpy as jnp

from experiments.paper import guarded
from lrscape import checks, console, data, figures
from lrscape.records import write_aside
from lrscape.training.state import AUGMENT

EPOCHS = 8


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


def main(argv: list[str] | None = None) -> int:
    """Runs the command; returns its exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dataset", default="digits")
    parser.add_argument("--data-dir", type=Path)
    parser.add_argument("--out", type=Path, default=Path("runs") / "augmentations")
    options = parser.parse_args(argv)
    return guarded(lambda: draw(options), debug=False)


def draw(options: argparse.Namespace) -> None:
    """Draws all sheets and says where they lie.

    Raises:
        InputError: data that are not there, or a directory that is none.
        OSError: a directory that cannot be written.
    """
    files = [options.out / f"{name}.png" for name in data.AUGMENTATIONS]
    for file in files:  # before data is read
        checks.path_to_write("out", file)
    dataset = data.load(options.dataset, data_dir=options.data_dir)
    for name, file in zip(data.AUGMENTATIONS, files, strict=True):
        with write_aside(file) as aside:
            sheet(dataset, name).savefig(aside, dpi=110)
        print(file)


if __name__ == "__main__":
    console.run(main)
