"""Batches for the devices: indices into data that is there, or the data itself."""

from __future__ import annotations

import functools
from collections.abc import Callable, Generator, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from lrscape.data import Batch, Dataset, StreamedDataset
from lrscape.errors import InputError
from lrscape.training.device_data import DeviceData, Passing
from lrscape.training.devices import AXIS, replicate, split
from lrscape.training.state import ORDER


def epoch_order(key: jax.Array, epoch: int, num_examples: int) -> np.ndarray:
    """The order of the examples in an epoch, shuffled on the device.

    Args:
        key: the run's key, ``state.key``.
        epoch: counted from 0.
        num_examples: the size of the training set.

    Returns:
        (num_examples,), a permutation as int32.
    """
    return np.asarray(_permutation(key, np.uint32(epoch), num_examples), np.int32)


@functools.partial(jax.jit, static_argnames="num_examples")
def _permutation(key, epoch, num_examples):
    key = jax.random.fold_in(jax.random.fold_in(key, ORDER), epoch)
    return jax.random.permutation(key, num_examples)


def position(
    data: StreamedDataset, key: jax.Array, step: int, batch_size: int
) -> dict[str, Any]:
    """The position of a stream after so many updates, as JSON holds it.

    Args:
        data: that is trained on.
        key: the run's key, ``state.key``.
        step: updates made.
        batch_size: examples an update.

    Returns:
        ``epoch``, ``examples`` of it that have been seen, how many there are in
        ``all``, the ``next`` one's name, and the fingerprints of ``train`` and
        ``test``.
    """
    count = len(data.train)
    epoch, batch = divmod(step, count // batch_size)
    following = epoch_order(key, epoch, count)[batch * batch_size]
    return {
        "epoch": epoch,
        "examples": batch * batch_size,
        "all": count,
        "next": data.train.name_of(following),
        "train": data.train.fingerprint,
        "test": data.test.fingerprint,
    }


IndicesOf = Callable[[int], np.ndarray]


class Resident:
    """A part that lies on the devices whole; a batch is its indices.

    Attributes:
        dataset: what a mapped step takes for its data.
    """

    def __init__(
        self, data: Dataset, part: str, normalize: str, devices: Sequence[jax.Device]
    ):
        self.dataset = replicate(DeviceData.of(data, part, normalize), devices)
        self._devices = devices

    def batches(
        self, indices_of: IndicesOf, steps: range, key: jax.Array | None = None
    ) -> Generator[Any]:
        """The batch argument of the mapped step, at each of `steps`."""
        return (split(indices_of(n), self._devices) for n in steps)


class Streamed:
    """A part that is read from disk; a batch is itself, sent ahead of its update.

    Attributes:
        dataset: what a mapped step takes for its data: how to normalise.
    """

    def __init__(
        self,
        data: StreamedDataset,
        part: str,
        normalize: str,
        devices: Sequence[jax.Device],
        *,
        process_index: int | None = None,
        process_count: int | None = None,
    ):
        self.dataset = replicate(Passing.of(data, normalize), devices)
        self._stream = getattr(data, part)
        self._devices = devices
        self._rank = jax.process_index() if process_index is None else process_index
        self._processes = process_count or jax.process_count()
        self._sharding = NamedSharding(
            Mesh(np.array(devices), (AXIS,)), PartitionSpec(AXIS)
        )

    def batches(
        self, indices_of: IndicesOf, steps: range, key: jax.Array | None = None
    ) -> Generator[Batch]:
        """The batch argument of the mapped step, at each of `steps`.

        Args:
            indices_of: step -> the global batch, of which this process reads its share.
            steps: whose batches are wanted.
            key: of random views, each a function of it, the step and the example
                alone; None gives the views to measure on.
        """
        words = [] if key is None else np.asarray(jax.random.key_data(key)).tolist()

        def random_of(step: int, index: int) -> np.random.Generator:
            return np.random.default_rng([*words, step, index])

        return self._stream.batches(
            lambda n: self._share(indices_of(n)),
            steps,
            random_of=random_of if words else None,
            put=self._put,
        )

    def _share(self, indices: np.ndarray) -> np.ndarray:
        """What this process reads of a global batch."""
        if len(indices) % self._processes:
            raise InputError(
                f"batch_size={len(indices)} cannot be split evenly over "
                f"{self._processes} processes; choose a multiple"
            )
        return indices.reshape(self._processes, -1)[self._rank]

    def _put(self, batch: Batch) -> Batch:
        def shaped(array: np.ndarray) -> np.ndarray:
            return array.reshape(len(self._devices), -1, *array.shape[1:])

        shared = Batch(shaped(batch.image), shaped(batch.label), shaped(batch.index))
        return jax.device_put(shared, self._sharding)


def make_feed(
    data: Dataset | StreamedDataset,
    part: str,
    normalize: str,
    devices: Sequence[jax.Device],
) -> Resident | Streamed:
    """The way that a data set's batches take.

    Args:
        data: in memory, or streamed.
        part: ``'train'``, ``'validation'`` or ``'test'``.
        normalize: of `lrscape.data.NORMALIZATIONS`.
        devices: that batches are split over.
    """
    if isinstance(data, StreamedDataset):
        return Streamed(data, part, normalize, devices)
    return Resident(data, part, normalize, devices)
