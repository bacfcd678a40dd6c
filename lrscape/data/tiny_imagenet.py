"""Tiny ImageNet, read from the folders that it is published in."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image

from lrscape.data.dataset import Dataset, Examples
from lrscape.errors import InputError, MissingDatasetError

NAME = "tiny_imagenet"
FOLDER = "tiny-imagenet-200"
URL = "http://cs231n.stanford.edu/tiny-imagenet-200.zip"
SIDE = 64  # pixels


def folder(root: Path) -> Path:
    """The folder of the data set in a data directory.

    Args:
        root: a data directory, or the data set's own folder: one that is named
            ``tiny-imagenet-200`` or holds ``wnids.txt``.

    Returns:
        The data set's own folder, whether it is there or not.
    """
    if root.name == FOLDER or (root / "wnids.txt").is_file():
        return root
    return root / FOLDER


def is_present(root: Path) -> bool:
    """Whether the data set is at `root` or below it."""
    return (folder(root) / "wnids.txt").is_file()


def count(root: Path) -> int:
    """The number of training images, without reading any.

    Raises:
        MissingDatasetError: it is not there.
        InputError: its list of classes is unusable.
    """
    directory = _present(root)
    classes = _classes(directory / "wnids.txt")
    return sum(len(_numbered(directory / "train" / c / "images", c)) for c in classes)


def how_to_get(root: Path) -> str:
    """Instructions for getting the data set, to end a message with."""
    return (
        f"Download {URL} and unpack it in {folder(root).parent}, or set TFDS_DATA_DIR "
        f"or --data-dir to where {FOLDER} is."
    )


def read(root: Path) -> Dataset:
    """Reads the data set into memory: 1.4 GB of pixels when it is whole.

    A class's label is its wnid's position in ``wnids.txt``, counted from 0 in the order
    listed. Training images are ordered by class, then by the number in the file's name;
    test images by that number. Grey images become RGB. Files in the folders of images
    that are not named ``<wnid>_<number>.JPEG`` or ``val_<number>.JPEG`` are left out,
    and so are classes that ``wnids.txt`` does not list.

    Args:
        root: see `folder`.

    Returns:
        The data set, images (n, 64, 64, 3). Its test part is the published ``val``:
        the published ``test`` has no labels and is not read.

    Raises:
        MissingDatasetError: no ``wnids.txt``; says where it was looked for and where
            the data set comes from.
        InputError: a class without images, images without labels or labels without
            images, a wnid that is not listed, a file that is no whole JPEG of 64x64;
            names the file.
    """
    directory = _present(root)
    classes = _classes(directory / "wnids.txt")
    train_paths: list[Path] = []
    train_labels: list[int] = []
    for wnid, label in classes.items():
        images = directory / "train" / wnid / "images"
        paths = _numbered(images, wnid)
        if not paths:
            raise _unusable(
                images,
                f"holds no image {wnid}_<number>.JPEG",
                f"or take {wnid} out of wnids.txt",
            )
        train_paths += paths
        train_labels += [label] * len(paths)
    test_paths, test_labels = _annotated(directory / "val", classes)
    return Dataset(
        name=NAME,
        num_classes=len(classes),
        max_value=255,
        train=_decode(train_paths, train_labels),
        test=_decode(test_paths, test_labels),
    )


def _present(root: Path) -> Path:
    directory = folder(root)
    if not is_present(root):
        raise MissingDatasetError(
            f"dataset={NAME!r} was not found: there is no {directory / 'wnids.txt'}. "
            f"{how_to_get(root)}"
        )
    return directory


def _unusable(path: Path, problem: str, way_out: str = "") -> InputError:
    return InputError(
        f"dataset={NAME!r} cannot be read: {path} {problem}; unpack {FOLDER}.zip again"
        + (f", {way_out}" if way_out else "")
    )


def _lines(path: Path) -> list[tuple[int, str]]:
    """The lines that are not blank, with their numbers from 1."""
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        raise _unusable(path, f"cannot be opened ({error.strerror})") from error
    return [
        (number, line.strip())
        for number, line in enumerate(text.splitlines(), start=1)
        if line.strip()
    ]


def _classes(path: Path) -> dict[str, int]:
    """The label of each wnid, in the order listed."""
    classes: dict[str, int] = {}
    for number, wnid in _lines(path):
        if not re.fullmatch(r"n[0-9]{8}", wnid):
            raise _unusable(path, f"line {number}: {wnid!r} is not a WordNet id")
        if wnid in classes:
            raise _unusable(
                path, f"line {number}: {wnid!r} is listed twice", "or list it once"
            )
        classes[wnid] = len(classes)
    if not classes:
        raise _unusable(path, "lists no class")
    return classes


def _numbered(directory: Path, prefix: str) -> list[Path]:
    """The images of a folder, by the number in their names."""
    if not directory.is_dir():
        return []
    name = re.compile(rf"{prefix}_([0-9]+)\.JPEG")
    found = [
        (int(match[1]), child)
        for child in directory.iterdir()
        if (match := name.fullmatch(child.name))
    ]
    return [child for _, child in sorted(found)]


def _annotated(
    directory: Path, classes: dict[str, int]
) -> tuple[list[Path], list[int]]:
    """The images of `val` and their labels."""
    path = directory / "val_annotations.txt"
    labels: dict[str, int] = {}
    for number, line in _lines(path):
        name, wnid, *_ = (*line.split("\t"), "")
        if wnid not in classes:
            raise _unusable(
                path,
                f"line {number}: {name!r} has the wnid {wnid!r}, which wnids.txt does "
                "not list",
                "or list it there, or leave out the line and its image",
            )
        if labels.setdefault(name, classes[wnid]) != classes[wnid]:
            raise _unusable(path, f"line {number}: {name!r} has two wnids")
    paths = _numbered(directory / "images", "val")
    for image in paths:
        if image.name not in labels:
            raise _unusable(
                image, f"has no line in {path.name}", "or leave the image out"
            )
    if not paths:
        raise _unusable(directory / "images", "holds no image val_<number>.JPEG")
    if absent := labels.keys() - {image.name for image in paths}:
        raise _unusable(
            directory / "images" / min(absent),
            f"is in {path.name} but not in the folder",
            "or leave its line out",
        )
    return paths, [labels[image.name] for image in paths]


def _decode(paths: Sequence[Path], labels: Sequence[int]) -> Examples:
    """Decodes images, in order, on as many threads as there are cores."""
    count, chunk = len(paths), 500
    images = np.empty((count, SIDE, SIDE, 3), np.uint8)

    def read(start: int) -> None:
        for i in range(start, min(start + chunk, count)):
            images[i] = _pixels(paths[i])

    # Decoding releases the interpreter's lock.
    with ThreadPoolExecutor() as pool:
        list(pool.map(read, range(0, count, chunk)))
    return Examples(images, np.asarray(labels, np.int32))


def _pixels(path: Path) -> np.ndarray:
    """The pixels of one file, (64, 64, 3), uint8."""
    try:
        encoded = path.read_bytes()
        with Image.open(io.BytesIO(encoded), formats=["JPEG"]) as image:
            size = image.size
            if size == (SIDE, SIDE):
                pixels = np.asarray(image.convert("RGB"))
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise _unusable(path, f"cannot be decoded as JPEG ({error})") from error
    if size != (SIDE, SIDE):
        raise _unusable(
            path,
            f"is {size[0]}x{size[1]} pixels, not {SIDE}x{SIDE}",
            f"or scale it to {SIDE}x{SIDE}",
        )
    # Pillow fills up truncated files where LOAD_TRUNCATED_IMAGES is set: look for the
    # end of the image (FF D9) after the start of its last scan (FF DA).
    if encoded.rfind(b"\xff\xd9") < encoded.rfind(b"\xff\xda"):
        raise _unusable(path, "is truncated: it has no end of image")
    return pixels
