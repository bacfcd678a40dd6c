"""Data sets larger than memory: decoded as they are needed, by grain."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import os
import threading
import time
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from lrscape import checks
from lrscape.data.dataset import NORMALIZATIONS, Examples, choose, moments
from lrscape.data.encoded import Encoded, find
from lrscape.data.views import (
    MIN_AREA,
    middle_view,
    random_view,
    whole_view,
    window_view,
)
from lrscape.environment import available_cores
from lrscape.errors import InputError

CROPS = ("random_resized", "window", "none")
# Whose pixels stand for all where mean and deviation are asked for.
SAMPLE = 1000
# Of a view, in pixels.
LARGEST_SIDE = 4096
# Of images that are held at once.
MOST_BYTES = 4 * 2**30


class Batch(NamedTuple):
    """Examples on their way to a device.

    Attributes:
        image: (n, side, side, channels), uint8.
        label: (n,), int32.
        index: (n,), int32, positions in the part; -1 is no example.
    """

    image: Any
    label: Any
    index: Any


class Gauge:
    """The speed at which examples are read, and the time spent waiting for them.

    Attributes:
        decoded: examples that were read.
        seconds: that reading them took, added up over threads.
        waited: seconds in which whoever asked for a batch stood still. A device may
            have been at work for a part of them: no more than this was lost.
        threads: that read side by side.
    """

    def __init__(self, threads: int):
        self.threads = threads
        self.decoded, self.seconds, self.waited = 0, 0.0, 0.0
        self._lock = threading.Lock()

    def add(self, seconds: float) -> None:
        """Counts one example."""
        with self._lock:
            self.decoded += 1
            self.seconds += seconds

    @property
    def images_per_second(self) -> float | None:
        """Images a second that all threads together read."""
        return self.threads * self.decoded / self.seconds if self.seconds else None


@dataclasses.dataclass(frozen=True, eq=False)
class Stream:
    """A part of a data set that is read as it is needed.

    Attributes:
        encoded: its images as they lie on disk.
        at: the positions in `encoded` that belong to it.
        side: of every view, in pixels.
        channels: 3 or 1.
        num_classes: labels lie below it.
        crop: of `CROPS`, see `open_stream`; likewise `min_area`.
        min_area: the least share of an image that a random view shows.
        gauge: how fast it is read.
    """

    encoded: Encoded
    at: np.ndarray
    side: int
    channels: int
    num_classes: int
    crop: str
    min_area: float
    gauge: Gauge

    def __len__(self) -> int:
        return len(self.at)

    @functools.cached_property
    def fingerprint(self) -> str:
        """The same for the same examples in the same order, wherever they lie."""
        found = hashlib.sha256(self.encoded.fingerprint.encode())
        found.update(np.ascontiguousarray(self.at, np.int64).data)
        return found.hexdigest()

    def name_of(self, index: int) -> str:
        """The name of an example, which does not depend on the data directory."""
        return self.encoded.name_of(int(self.at[index]))

    def read(
        self, index: int, random: np.random.Generator | None = None
    ) -> tuple[np.ndarray, int]:
        """One example.

        Args:
            index: its position.
            random: draws a view to train on; None takes the view to measure on.

        Returns:
            (side, side, channels), uint8, and the label.

        Raises:
            InputError: a file that cannot be read or decoded, or a label that is none;
                names it.
        """
        started = time.perf_counter()
        index = checks.whole("index", index, most=len(self) - 1)
        where = int(self.at[index])
        name = f"{self.encoded.name_of(where)} in {self.encoded.root}"
        try:
            encoded, label = self.encoded[where]
        # Files, array_record and TFDS fail in ways of their own, and what is wanted in
        # any case is to know where.
        except Exception as error:
            raise InputError(f"{name} cannot be read: {error!r}") from error
        if not 0 <= label < self.num_classes:
            raise InputError(
                f"{name} has the label {label}, which is not one of "
                f"{self.num_classes} classes; a part without labels cannot be used"
            )
        try:
            if self.crop == "none":
                view = whole_view(encoded, self.side, self.channels)
            elif random is None:
                view = middle_view(encoded, self.side, self.channels)
            elif self.crop == "window":
                view = window_view(encoded, self.side, self.channels, random)
            else:
                view = random_view(
                    encoded, self.side, self.channels, random, self.min_area
                )
        # Pillow says what is wrong with a file in these ways.
        except (
            OSError, SyntaxError, ValueError, Image.DecompressionBombError,
        ) as error:  # fmt: skip
            raise InputError(
                f"{name} cannot be decoded ({error}); replace it, or take it out of "
                "the data set and start a new run"
            ) from error
        self.gauge.add(time.perf_counter() - started)
        return view, label

    def take(self, indices: np.ndarray) -> Examples:
        """The examples at `indices`, in that order, in the view to measure on.

        Raises:
            InputError: more than a few GB of them.
        """
        indices = checks.positions("indices", indices, len(self))
        size = len(indices) * self.side**2 * self.channels
        if size > MOST_BYTES:
            raise InputError(
                f"{len(indices)} images of {self.side} pixels would take "
                f"{size / 2**30:.1f} GB of memory at once; ask for fewer (num_examples)"
            )
        images = np.empty((len(indices), self.side, self.side, self.channels), np.uint8)
        labels = np.empty(len(indices), np.int32)

        def read(place: int) -> None:
            images[place], labels[place] = self.read(int(indices[place]))

        with ThreadPoolExecutor(self.gauge.threads) as pool:
            list(pool.map(read, range(len(indices))))
        return Examples(images, labels)

    def batches(
        self,
        indices_of: Callable[[int], np.ndarray],
        steps: range,
        *,
        random_of: Callable[[int, int], np.random.Generator] | None = None,
        put: Callable[[Batch], Any] = lambda batch: batch,
    ) -> Generator[Any]:
        """Batches one after another, read ahead in threads of their own.

        Args:
            indices_of: step -> (n,), the examples of its batch, the same number at
                each step; -1 is no example and gives zeros.
            steps: whose batches are wanted.
            random_of: (step, index) -> the source of randomness of a view to train
                on; None takes views to measure on.
            put: what is done with each batch before it is asked for, such as sending
                it to a device.

        Returns:
            What `put` makes of each `Batch`.

        Raises:
            InputError: while iterating, an example that cannot be decoded.
        """
        # Half a second of imports that only this needs.
        import grain

        size = len(indices_of(steps.start)) if len(steps) else 1
        rows = _Rows(indices_of, size)

        def read(position: int) -> tuple[np.ndarray, int, int]:
            step, index = rows(steps.start * size + position)
            if index < 0:
                empty = np.zeros((self.side, self.side, self.channels), np.uint8)
                return empty, 0, -1
            random = random_of(step, index) if random_of else None
            return *self.read(index, random), index

        ahead = grain.ReadOptions(
            num_threads=self.gauge.threads, prefetch_buffer_size=max(2 * size, 16)
        )
        pipeline = grain.MapDataset.range(len(steps) * size).map(read)
        batches = pipeline.to_iter_dataset(ahead).batch(size, batch_fn=_stack).map(put)
        batches = grain.experimental.ThreadPrefetchIterDataset(
            batches, prefetch_buffer_size=2
        )
        iterator = iter(batches)
        try:
            for _ in steps:
                started = time.perf_counter()
                batch = next(iterator)
                self.gauge.waited += time.perf_counter() - started
                yield batch
        finally:
            iterator.close()


class _Rows:
    """The example at a position of the whole stream; remembers the last few batches."""

    def __init__(self, indices_of: Callable[[int], np.ndarray], size: int):
        self._size = size
        self._indices_of = functools.lru_cache(maxsize=8)(indices_of)
        self._lock = threading.Lock()

    def __call__(self, position: int) -> tuple[int, int]:
        step, slot = divmod(position, self._size)
        # Or each thread would shuffle a new epoch for itself.
        with self._lock:
            return step, int(self._indices_of(step)[slot])


def _stack(rows: list[tuple[np.ndarray, int, int]]) -> Batch:
    images, labels, indices = zip(*rows, strict=True)
    return Batch(
        np.stack(images), np.array(labels, np.int32), np.array(indices, np.int32)
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class StreamedDataset:
    """A set of labelled images that is never held in memory.

    It stands where a `lrscape.data.Dataset` does: its parts have lengths, and are read
    by `Stream.batches` and `Stream.take`.

    Attributes:
        name: the name it was opened by.
        num_classes: labels lie below it.
        train: the examples to train on.
        test: the examples to report errors on.
        validation: examples held out of the training set, or None.
        max_value: the largest value of a pixel.
    """

    name: str
    num_classes: int
    train: Stream
    test: Stream
    validation: Stream | None = None
    max_value: int = 255

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(height, width, channels) of a view."""
        return (self.train.side, self.train.side, self.train.channels)

    @functools.cached_property
    def _moments(self) -> tuple[np.ndarray, np.ndarray]:
        """Mean and deviation of each channel, over a thousand training examples."""
        count = min(SAMPLE, len(self.train))
        at = np.linspace(0, len(self.train) - 1, count).round().astype(int)
        pieces = np.array_split(at, max(1, count // 50))
        return moments(self.train.take(piece).image for piece in pieces)

    def normalization(self, kind: str) -> tuple[np.ndarray, np.ndarray]:
        """The mean to subtract from pixels and the scale to divide by.

        Args:
            kind: as `lrscape.data.Dataset.normalization` has them, with one mean a
                channel rather than a mean image; estimated from a thousand training
                examples, evenly spaced. ``'whiten'`` is not offered.

        Returns:
            Two float32 arrays (1, 1, channels): mean and scale.

        Raises:
            InputError: another kind.
        """
        checks.one_of("normalize", kind, NORMALIZATIONS)
        if kind == "whiten":
            raise InputError(
                "normalize='whiten' is fitted to a whole data set in memory, and "
                f"dataset={self.name!r} is streamed; use 'standardize'"
            )
        zeros = np.zeros(self.train.channels)
        mean = zeros if kind == "scale" else self._moments[0]
        if kind == "standardize":
            deviation = self._moments[1]
            scale = np.where(deviation > 0, deviation, 1.0)
        else:
            scale = zeros + (1 if kind == "center" else self.max_value)
        return (
            mean.astype(np.float32).reshape(1, 1, -1),
            scale.astype(np.float32).reshape(1, 1, -1),
        )


def open_stream(
    name: str,
    *,
    image_size: int,
    data_dir: str | os.PathLike[str] | None = None,
    validation: int = 0,
    split_seed: int = 0,
    examples: int | None = None,
    test_examples: int | None = None,
    crop: str = "random_resized",
    min_area: float = MIN_AREA,
    threads: int | None = None,
) -> StreamedDataset:
    """Opens a data set of labelled images of any size, to be read as it is needed.

    Args:
        name: a prepared TFDS set with the features ``image`` (of any shape) and
            ``label``, such as ``'imagenet2012'``, written as array_record, as
            ``python -m lrscape.data prepare`` does; ``'folder'``; or ``'digits'``,
            which are embedded.
        image_size: the side of every view, in pixels.
        data_dir: the TFDS data directory (None is the environment variable
            ``TFDS_DATA_DIR``, or else ``~/tensorflow_datasets``); of ``'folder'`` the
            directory of ``train/CLASS/*`` and ``val/CLASS/*``, JPEG or PNG.
        validation: how many training examples to hold out.
        split_seed: of what is held out or left out.
        examples: how many training examples to keep, drawn at random; None is all.
        test_examples: likewise of the test part.
        crop: ``'random_resized'``: trains on a random patch of the image, scaled and
            mirrored, and measures on its middle, 224 / 256 of the shorter side;
            ``'window'``: trains on a window of that size at a random place of the
            middle square, mirrored, and measures on the middle likewise;
            ``'none'``: scales the whole image in either case.
        min_area: the least share of the image that a random patch takes.
        threads: that read and decode side by side; None is one a core. They share one
            interpreter, so that beyond a dozen more of them gain little.

    Returns:
        The data set; its test part is TFDS's ``test``, and ``validation`` of ImageNet,
        whose ``test`` has no labels, or where there is no other.

    Raises:
        MissingDatasetError: it is not there; says where it was looked for.
        InputError: a set of something else, or numbers that leave nothing to train on.

    Example:
        >>> digits = open_stream('digits', image_size=32)
        >>> digits.image_shape, len(digits.train)
        ((32, 32, 1), 1437)
        >>> digits.train.take(np.arange(5)).image.shape
        (5, 32, 32, 1)
    """
    image_size = checks.count("image_size", image_size, most=LARGEST_SIDE)
    checks.one_of("crop", crop, CROPS)
    if threads is not None:
        threads = checks.count("threads", threads)
    if not checks.fraction("min_area", min_area) > 0:
        raise InputError(f"min_area={min_area!r} must lie in (0, 1]")
    checks.whole("validation", validation)
    checks.seed("split_seed", split_seed)
    for field, value in (("examples", examples), ("test_examples", test_examples)):
        if value is not None:
            checks.count(field, value)
    directory = None if data_dir is None else checks.path("data_dir", data_dir)
    parts = find(name, directory)
    stay, held = choose(len(parts.train), validation, examples, split_seed)
    tested, _ = choose(
        len(parts.test), 0, test_examples, split_seed, field="test_examples"
    )

    def stream(encoded: Encoded, at: np.ndarray) -> Stream:
        return Stream(
            encoded, at, image_size, parts.channels, parts.num_classes, crop, min_area,
            Gauge(threads or available_cores()),
        )  # fmt: skip

    return StreamedDataset(
        name=name,
        num_classes=parts.num_classes,
        train=stream(parts.train, stay),
        test=stream(parts.test, tested),
        validation=stream(parts.train, held) if validation else None,
    )
