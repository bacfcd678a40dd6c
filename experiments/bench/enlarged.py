"""A small real set in ImageNet's layout: enlarged, as JPEG files of many sizes."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from lrscape import data

# ImageNet's images are 500 x 375 and 110 kB in the middle.
SIDES = (300, 500)
QUALITY = 90
# What a sensor adds: without it an enlarged image is smooth, and decodes too fast.
GRAIN = 10.0  # of 255


def encoded(
    examples: data.Examples, max_value: int, sides: tuple[int, int] = SIDES
) -> Iterator[tuple[bytes, int]]:
    """Each image as a JPEG file of some width and height, with its label.

    Args:
        examples: what to enlarge.
        max_value: the largest value of their pixels.
        sides: the least and the largest width and height, in pixels.
    """
    random = np.random.default_rng(0)
    for image, label in zip(examples.image, examples.label, strict=True):
        pixels = (image.astype(float) * 255 / max_value).round().astype(np.uint8)
        if pixels.shape[-1] == 1:
            pixels = pixels.repeat(3, axis=-1)
        size = tuple(random.integers(sides[0], sides[1] + 1, 2).tolist())
        enlarged = Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC)
        grain = random.normal(0, GRAIN, (size[1], size[0], 1))
        grainy = np.clip(np.asarray(enlarged) + grain, 0, 255).astype(np.uint8)
        large = Image.fromarray(grainy)
        file = io.BytesIO()
        large.save(file, "jpeg", quality=QUALITY)
        yield file.getvalue(), int(label)


def write_folders(
    root: Path, dataset: data.Dataset, sides: tuple[int, int] = SIDES
) -> None:
    """Writes ``train/CLASS/N.jpeg`` and ``val/CLASS/N.jpeg``."""
    for part, examples in (("train", dataset.train), ("val", dataset.test)):
        for label in range(dataset.num_classes):
            (root / part / f"class_{label}").mkdir(parents=True)
        files = encoded(examples, dataset.max_value, sides)
        for i, (file, label) in enumerate(files):
            (root / part / f"class_{label}" / f"{i}.jpeg").write_bytes(file)


def write_tfds(
    root: Path, dataset: data.Dataset, sides: tuple[int, int] = SIDES
) -> str:
    """Writes it as TFDS writes ``imagenet2012``; returns the name to open it by."""
    import tensorflow_datasets as tfds

    class Enlarged(tfds.core.GeneratorBasedBuilder):
        VERSION = tfds.core.Version("1.0.0")

        def _info(self) -> Any:
            features = {
                "image": tfds.features.Image(
                    shape=(None, None, 3), encoding_format="jpeg"
                ),
                "label": tfds.features.ClassLabel(num_classes=dataset.num_classes),
            }
            return tfds.core.DatasetInfo(
                builder=self, features=tfds.features.FeaturesDict(features)
            )

        def _split_generators(self, dl_manager: Any) -> dict[str, Any]:
            return {
                "train": self._generate_examples(dataset.train),
                "validation": self._generate_examples(dataset.test),
            }

        def _generate_examples(self, examples: data.Examples) -> Iterator[Any]:
            files = encoded(examples, dataset.max_value, sides)
            for i, (file, label) in enumerate(files):
                yield i, {"image": io.BytesIO(file), "label": label}

    builder = Enlarged(
        data_dir=str(root), file_format=tfds.core.FileFormat.ARRAY_RECORD
    )
    builder.download_and_prepare()
    return builder.name
