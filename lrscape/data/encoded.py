"""Images as they lie on disk, encoded and of any size: TFDS sets, folders of classes.

What reads them asks for one record at a time, by its position, and nothing is kept.
"""

from __future__ import annotations

import hashlib
import io
import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
from PIL import Image

from lrscape.data import tiny_imagenet
from lrscape.data.dataset import Examples
from lrscape.data.sources import (
    image_parts,
    load,
    prepared_builder,
    quiet_absl,
)
from lrscape.errors import InputError, MissingDatasetError

FOLDER = "folder"
DIGITS = "digits"
# Files that a process opens besides a data set's.
SPARE_FILES = 256
SUFFIXES = (".jpeg", ".jpg", ".png")
# The parts that errors are reported on, as folders are called.
_TEST_FOLDERS = ("val", "test", "validation")


class Encoded(Protocol):
    """A part of a data set: a sequence of encoded images with their labels."""

    def __len__(self) -> int:
        """How many images."""

    def __getitem__(self, index: int) -> tuple[bytes, int]:
        """The file's bytes and the label of one of them."""

    def name_of(self, index: int) -> str:
        """One of them by its name, wherever the data set lies."""

    @property
    def root(self) -> str:
        """The directory of the data set."""

    @property
    def fingerprint(self) -> str:
        """The same for the same images in the same order, wherever they lie."""


class Parts(NamedTuple):
    """A data set on disk.

    Attributes:
        train: the part to train on.
        test: the part to report errors on.
        num_classes: labels lie below it.
        channels: 3 for RGB, 1 for grey.
    """

    train: Encoded
    test: Encoded
    num_classes: int
    channels: int


def find(name: str, data_dir: Path | None) -> Parts:
    """A data set of encoded images, looked up and not read.

    Args:
        name: ``'folder'``, a prepared TFDS set of labelled images, or ``'digits'``.
        data_dir: the folder itself, or the TFDS data directory.

    Raises:
        MissingDatasetError: it is not there; says where it was looked for.
        InputError: it is not a set of labelled images, or cannot be read one record at
            a time.
    """
    if name == DIGITS:
        return _digits()
    if name == tiny_imagenet.NAME:
        raise InputError(
            f"dataset={name!r} is read into memory: leave --stream out, or stream its "
            "folder of classes as --dataset=folder"
        )
    if name == FOLDER:
        if data_dir is None:
            raise InputError(
                "dataset='folder' needs --data-dir, a directory that holds "
                "train/CLASS/*.jpeg and val/CLASS/*.jpeg"
            )
        return _folders(data_dir.expanduser())
    return _tfds(name, data_dir)


class _TfdsPart:
    """A part of a TFDS set; images stay encoded."""

    def __init__(self, source: Any, split: str, root: str, fingerprint: str):
        self._source, self._split, self.root = source, split, root
        self.fingerprint = fingerprint

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, index: int) -> tuple[bytes, int]:
        record = self._source[int(index)]
        return record["image"], int(record["label"])

    def name_of(self, index: int) -> str:
        return f"record {index} of {self._split!r}"


def _tfds(name: str, data_dir: Path | None) -> Parts:
    with quiet_absl():
        builder = prepared_builder(name, data_dir)
        from tensorflow_datasets import decode

        parts, shards = [], 0
        for split in image_parts(name, builder, any_size=True):
            try:
                source = builder.as_data_source(
                    split, decoders={"image": decode.SkipDecoding()}
                )
            except NotImplementedError as error:
                raise InputError(
                    f"dataset={name!r} in {builder.data_path} cannot be read record by "
                    f"record: {error}; prepare it anew with `python -m lrscape.data "
                    f"prepare {name}`, which writes array_record"
                ) from error
            about = builder.info.splits[split]
            identity = [builder.info.full_name, split, about.shard_lengths,
                        about.num_bytes]  # fmt: skip
            fingerprint = _digest(map(str, identity))
            parts.append(_TfdsPart(source, split, str(builder.data_path), fingerprint))
            shards += len(about.shard_lengths)
        features = builder.info.features
    _allow_open_files(shards)
    channels = 1 if features["image"].shape[-1] == 1 else 3
    return Parts(parts[0], parts[1], features["label"].num_classes, channels)


def _allow_open_files(shards: int) -> None:
    """Raises the limit on open files: each shard that was read from stays open.

    Raises:
        InputError: it cannot be raised so far.
    """
    try:
        import resource
    except ImportError:  # Windows, which has no such limit
        return
    wanted = shards + SPARE_FILES
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    unlimited = resource.RLIM_INFINITY
    if soft == unlimited or soft >= wanted:
        return
    if hard != unlimited and hard < wanted:
        raise InputError(
            f"the data set has {shards} shards, each of which stays open, and this "
            f"process may open {hard} files: raise the limit, `ulimit -n {wanted}`"
        )
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _digest(words: Iterable[str]) -> str:
    found = hashlib.sha256()
    for word in words:
        found.update(word.encode())
        found.update(b"\0")
    return found.hexdigest()


class _Pngs:
    """Images in memory, encoded when they are asked for."""

    root = "memory"
    fingerprint = "digits"

    def __init__(self, examples: Examples, max_value: int):
        self._examples, self._max_value = examples, max_value

    def __len__(self) -> int:
        return len(self._examples)

    def __getitem__(self, index: int) -> tuple[bytes, int]:
        image = self._examples.image[index, ..., 0].astype(float)
        pixels = (image * 255 / self._max_value).round().astype(np.uint8)
        file = io.BytesIO()
        Image.fromarray(pixels).save(file, "png")
        return file.getvalue(), int(self._examples.label[index])

    def name_of(self, index: int) -> str:
        return f"digit {index}"


def _digits() -> Parts:
    digits = load(DIGITS)
    train, test = (_Pngs(p, digits.max_value) for p in (digits.train, digits.test))
    return Parts(train, test, digits.num_classes, 1)


class _Files:
    """Image files and their labels; paths start at the root."""

    def __init__(
        self, root: str, paths: Sequence[str], labels: Sequence[int], sizes: list[int]
    ):
        self.root, self._paths, self._labels = root, paths, labels
        self.fingerprint = _digest(map(str, zip(paths, sizes, strict=True)))

    def __len__(self) -> int:
        return len(self._paths)

    def __getitem__(self, index: int) -> tuple[bytes, int]:
        encoded = Path(self.root, self._paths[index]).read_bytes()
        return encoded, self._labels[index]

    def name_of(self, index: int) -> str:
        return self._paths[index]


def _folders(root: Path) -> Parts:
    """``train/CLASS/*`` and ``val/CLASS/*``; classes are ordered by their names."""
    test = next((n for n in _TEST_FOLDERS if (root / n).is_dir()), None)
    if not (root / "train").is_dir() or test is None:
        raise MissingDatasetError(
            f"dataset='folder': {root} lacks train/ or val/ (or test/, validation/); "
            "each is to hold a folder of images for every class"
        )
    classes = sorted(
        child.name for child in (root / "train").iterdir() if child.is_dir()
    )
    label_of = {name: label for label, name in enumerate(classes)}
    found = {}
    for part in ("train", test):
        paths: list[str] = []
        labels: list[int] = []
        sizes: list[int] = []
        for folder in sorted((root / part).iterdir()):
            if not folder.is_dir():
                continue
            if folder.name not in label_of:
                raise InputError(
                    f"dataset='folder': {folder} is a class that {root / 'train'} "
                    "lacks; add it there, or take it out"
                )
            # Numbers in names are ordered as numbers.
            files = {
                entry.name: entry.stat().st_size
                for entry in os.scandir(folder)
                if _is_image(entry.name)
            }
            names = sorted(files, key=lambda name: (_natural(name), name))
            paths += [f"{part}/{folder.name}/{name}" for name in names]
            labels += [label_of[folder.name]] * len(names)
            sizes += [files[name] for name in names]
        if not paths:
            raise InputError(
                f"dataset='folder': {root / part} holds no image; its folders are to "
                f"hold files that end in {', '.join(SUFFIXES)}"
            )
        found[part] = _Files(str(root), paths, labels, sizes)
    return Parts(found["train"], found[test], len(classes), 3)


def _is_image(name: str) -> bool:
    return name.lower().endswith(SUFFIXES) and not name.startswith(".")


def _natural(name: str) -> list[tuple[int, str]]:
    """A key that sorts ``a_2`` before ``a_10``.

    Example:
        >>> sorted(['a_10.jpeg', 'a_2.jpeg'], key=_natural)
        ['a_2.jpeg', 'a_10.jpeg']
    """
    parts = re.split(r"(\d+)", name)
    return [(int(p), "") if p.isdecimal() else (-1, p) for p in parts]
