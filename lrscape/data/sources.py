"""Sources of data sets: embedded digits, prepared TFDS images, folders."""

from __future__ import annotations

import dataclasses
import json
import logging
import os
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from lrscape import checks
from lrscape.data import tiny_imagenet
from lrscape.data.dataset import Dataset, Examples, choose
from lrscape.errors import InputError, MissingDatasetError

# What TFDS itself takes when neither an argument nor TFDS_DATA_DIR says otherwise.
DEFAULT_DATA_DIR = Path("~/tensorflow_datasets")

# Comes with scikit-learn.
EMBEDDED = "digits"
# Of a data set: a name of a directory, and within it one of a configuration.
_LONGEST_NAME = 200

# scikit-learn's digits come in no parts of their own.
DIGITS_TEST_EXAMPLES = 360


def load(
    name: str,
    *,
    data_dir: str | os.PathLike[str] | None = None,
    validation: int = 0,
    split_seed: int = 0,
    examples: int | None = None,
    test_examples: int | None = None,
) -> Dataset:
    """Reads a data set of labelled images into memory.

    Args:
        name: ``'digits'`` (1,797 real 8x8 images, embedded in scikit-learn),
            ``'tiny_imagenet'`` (64x64 images in colour, from the published folder
            ``tiny-imagenet-200``; a label is a position in its ``wnids.txt``), or the
            name of a prepared TFDS set with the features ``image`` (of one fixed
            shape) and ``label``, such as ``'mnist'``, ``'cifar10'``, ``'cifar100'``;
            a configuration is given as ``'NAME/CONFIG'``.
        data_dir: the TFDS data directory; None is the environment variable
            ``TFDS_DATA_DIR``, or else ``~/tensorflow_datasets``. It holds the folder
            ``tiny-imagenet-200``, or is that folder.
        validation: how many training examples to hold out.
        split_seed: of what is held out or left out, and of the test set of digits.
        examples: how many training examples to keep, drawn at random; None is all.
        test_examples: likewise of the test part.

    Returns:
        The data set; its test part is TFDS's ``test`` (``validation`` where there is
        no such part), and Tiny ImageNet's ``val``, whose ``test`` has no labels.

    Raises:
        MissingDatasetError: the set is not prepared; says where it was looked for and
            the command that prepares it, or where to download it.
        InputError: features other than images with labels, files of Tiny ImageNet that
            are missing or cannot be read, nothing left to train on, or more examples
            than there are.

    Example:
        >>> digits = load('digits', validation=100)
        >>> assert digits.validation is not None
        >>> len(digits.train), len(digits.validation), len(digits.test)
        (1337, 100, 360)
        >>> digits.image_shape, digits.num_classes
        ((8, 8, 1), 10)
    """
    directory = None if data_dir is None else checks.path("data_dir", data_dir)
    checks.whole("validation", validation)
    split_seed = checks.seed("split_seed", split_seed)
    for field, value in (("examples", examples), ("test_examples", test_examples)):
        if value is not None:
            checks.count(field, value)
    if name == EMBEDDED:
        dataset = _digits(split_seed)
    elif name == "folder":
        raise InputError(
            "dataset='folder' is streamed: add --stream=True and --image-size, or use "
            "lrscape.data.open_stream"
        )
    elif name == tiny_imagenet.NAME:
        dataset = tiny_imagenet.read(data_directory(directory))
    else:
        dataset = _tfds_images(name, directory)
    parts: dict[str, Any] = {}
    if validation or examples is not None:
        stay, held = choose(len(dataset.train), validation, examples, split_seed)
        parts["train"] = dataset.train.take(stay)
        if validation:
            parts["validation"] = dataset.train.take(held)
    if test_examples is not None:
        kept, _ = choose(
            len(dataset.test), 0, test_examples, split_seed, field="test_examples"
        )
        parts["test"] = dataset.test.take(kept)
    return dataclasses.replace(dataset, **parts) if parts else dataset


def _digits(split_seed: int) -> Dataset:
    from sklearn.datasets import load_digits

    bunch = load_digits()
    examples = Examples(
        bunch.images[..., None].astype(np.uint8), bunch.target.astype(np.int32)
    )
    train, test = choose(len(examples), DIGITS_TEST_EXAMPLES, None, split_seed)
    return Dataset(
        name="digits",
        num_classes=10,
        max_value=16,
        train=examples.take(train),
        test=examples.take(test),
    )


def data_directory(data_dir: Path | None = None) -> Path:
    """The TFDS data directory in force."""
    if data_dir is None:
        data_dir = Path(os.environ.get("TFDS_DATA_DIR") or DEFAULT_DATA_DIR)
    return data_dir.expanduser()


def check_name(name: str) -> None:
    """Raises InputError for what cannot be TFDS's name of a data set."""
    pattern = r"[a-z][a-z0-9_]*(/[A-Za-z0-9_.\-]+)?"
    plain = isinstance(name, str) and re.fullmatch(pattern, name)
    if not plain or ".." in name or len(name) > _LONGEST_NAME:
        raise InputError(
            f"dataset={checks.shown(name)} is not a name of a data set; use 'digits', "
            "'tiny_imagenet', or a TFDS name such as 'cifar10', or 'NAME/CONFIG'"
        )


def prepared_builder(name: str, data_dir: Path | None) -> Any:
    """TFDS's builder of a data set's newest version, read without its code.

    Args:
        name: ``'NAME'`` or ``'NAME/CONFIG'``.
        data_dir: see `load`.

    Raises:
        InputError: what cannot be a name.
        MissingDatasetError: the set is not prepared.
    """
    check_name(name)
    root = data_directory(data_dir)
    directory = _newest_version(root / name)
    if directory is None:
        prepare = f"python -m lrscape.data prepare {name}"
        if data_dir is not None:
            prepare += f" --data-dir {data_dir}"
        raise MissingDatasetError(
            f"dataset={name!r} is not prepared: no version of it was found in "
            f"{root / name}. Prepare it with `{prepare}` (which downloads it and needs "
            "`pip install 'lrscape[prepare]'`), or set TFDS_DATA_DIR or --data-dir to "
            "where it is."
        )
    _check_classes(directory / "features.json")
    # Three seconds of imports that only this needs.
    import tensorflow_datasets as tfds

    return tfds.builder_from_directory(str(directory))


def _check_classes(file: Path) -> None:
    """Raises InputError for a set that names classes other than TFDS's own.

    TFDS imports whatever module is named there, so that a directory from a stranger
    could have code run.
    """
    if not file.is_file():
        return
    try:
        nodes = [json.loads(file.read_text("utf-8"))]
    except (ValueError, RecursionError) as error:
        raise InputError(f"{file} is damaged: {error}") from error
    own = "tensorflow_datasets."
    while nodes:
        node = nodes.pop()
        if isinstance(node, dict):
            for name in (node.get("pythonClassName"), node.get("type")):
                if isinstance(name, str) and not name.startswith(own):
                    raise InputError(
                        f"{file} names the class {name!r}, which is not one of TFDS's "
                        "own; such a data set is not read"
                    )
            nodes.extend(node.values())
        elif isinstance(node, list):
            nodes.extend(node)


def image_parts(name: str, builder: Any, *, any_size: bool = False) -> tuple[str, str]:
    """The names of a set's parts to train on and to report errors on.

    Args:
        name: of the set.
        builder: TFDS's.
        any_size: whether images may differ in size.

    Raises:
        InputError: a set other than of images with labels, or without such parts.
    """
    _check_features(name, builder.info.features, any_size)
    splits = builder.info.splits
    # ImageNet's test set, as published, has no labels.
    hidden = name.partition("/")[0].startswith("imagenet") and "validation" in splits
    test = "test" if "test" in splits and not hidden else "validation"
    for split in ("train", test):
        if split not in splits:
            raise InputError(
                f"dataset={name!r} in {builder.data_path} has no part {split!r}; "
                f"it has {', '.join(sorted(splits))}"
            )
    return "train", test


def _tfds_images(name: str, data_dir: Path | None) -> Dataset:
    with quiet_absl():
        builder = prepared_builder(name, data_dir)
        train, test = image_parts(name, builder)
        return Dataset(
            name=name,
            num_classes=builder.info.features["label"].num_classes,
            max_value=255,
            train=_read(builder, train),
            test=_read(builder, test),
        )


def _newest_version(directory: Path) -> Path | None:
    """The folder of the highest version below a data set's or configuration's."""
    if not directory.is_dir():
        return None
    found = [
        (tuple(map(int, child.name.split("."))), child)
        for child in directory.iterdir()
        if re.fullmatch(r"\d+\.\d+\.\d+", child.name)
        and (child / "dataset_info.json").is_file()
    ]
    return max(found)[1] if found else None


def _check_features(name: str, features: Any, any_size: bool) -> None:
    kinds = {key: type(feature).__name__ for key, feature in features.items()}
    if kinds.get("image") != "Image" or kinds.get("label") != "ClassLabel":
        raise InputError(
            f"dataset={name!r} holds {kinds}, not the features image (Image) and label "
            "(ClassLabel) of an image classification set"
        )
    if None in features["image"].shape and not any_size:
        raise InputError(
            f"dataset={name!r} holds images of different sizes, "
            f"{features['image'].shape}; only sets of one size are read into memory: "
            "stream it, with --stream=True or lrscape.data.open_stream"
        )


def _read(builder, split: str) -> Examples:
    source = builder.as_data_source(split=split)
    count, chunk = len(source), 1000
    images = np.empty((count, *builder.info.features["image"].shape), np.uint8)
    labels = np.empty(count, np.int32)

    def read(start: int) -> None:
        indices = range(start, min(start + chunk, count))
        for i, record in zip(indices, source.__getitems__(indices), strict=True):
            images[i], labels[i] = record["image"], record["label"]

    # Decoding releases the interpreter's lock.
    with ThreadPoolExecutor() as pool:
        list(pool.map(read, range(0, count, chunk)))
    return Examples(images, labels)


class quiet_absl:  # noqa: N801
    """TFDS recommends OpenCV by a warning at every start; Pillow does."""

    def __enter__(self) -> None:
        self.logger = logging.getLogger("absl")
        self.level = self.logger.level
        self.logger.setLevel(logging.ERROR)

    def __exit__(self, *error: object) -> None:
        self.logger.setLevel(self.level)


def prepared(root: Path) -> Iterator[str]:
    """The names of the data sets that are prepared below a data directory."""
    if root.is_dir():
        found = {child.name for child in root.iterdir() if _newest_version(child)}
        # The name is its folder's, whatever TFDS may have prepared under it.
        found.discard(tiny_imagenet.NAME)
        if tiny_imagenet.is_present(root):
            found.add(tiny_imagenet.NAME)
        yield from sorted(found)
