"""The data of an update: a whole set on the device, or batches that are streamed."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from lrscape.data import Batch, Dataset, Examples, Stream, StreamedDataset


class DeviceData(NamedTuple):
    """A whole set of examples on the device, and how to normalise it.

    Attributes:
        image: (n, height, width, channels), uint8; float32 if they are whitened.
        label: (n,), int32.
        mean: subtracted from pixels; broadcasts against an image.
        scale: divides them.
        max_value: the largest value of a pixel before it is normalised.
    """

    image: Any
    label: Any
    mean: Any
    scale: Any
    max_value: Any

    @classmethod
    def of(
        cls,
        data: Dataset | StreamedDataset,
        part: str,
        normalize: str,
        at: np.ndarray | None = None,
    ) -> DeviceData:
        """A part of a data set with its `lrscape.data.Dataset.normalization`.

        Args:
            data: the data set.
            part: ``'train'``, ``'validation'`` or ``'test'``.
            normalize: of `lrscape.data.NORMALIZATIONS`. With ``'whiten'`` the images
                are whitened here, and mean and scale are 0 and 1.
            at: the positions of the examples to take; None is all of them.

        Returns:
            The examples, still on the host.
        """
        examples: Examples | Stream = getattr(data, part)
        if at is not None or isinstance(examples, Stream):
            examples = examples.take(np.arange(len(examples)) if at is None else at)
        image = examples.image
        if normalize == "whiten" and isinstance(data, Dataset):
            image = data.whitening.apply(image)
            mean = np.zeros((1, 1, image.shape[-1]), np.float32)
            scale = np.ones_like(mean)
        else:
            mean, scale = data.normalization(normalize)
        return cls(image, examples.label, mean, scale, np.float32(data.max_value))

    def take(self, indices: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        """Images, labels and positions of the examples at `indices`."""
        return self.image[indices], self.label[indices], indices

    def normalize(self, images: jax.Array) -> jax.Array:
        """Turns pixels as they are held into the float32 that a model sees."""
        return _normalized(images, self.mean, self.scale)


class Passing(NamedTuple):
    """The normalisation of examples of a set that is streamed.

    Attributes:
        mean: subtracted from pixels; broadcasts against an image.
        scale: divides them.
        max_value: the largest value of a pixel before it is normalised.
    """

    mean: Any
    scale: Any
    max_value: Any

    @classmethod
    def of(cls, data: StreamedDataset, normalize: str) -> Passing:
        """A streamed set's `lrscape.data.StreamedDataset.normalization`."""
        mean, scale = data.normalization(normalize)
        return cls(mean, scale, np.float32(data.max_value))

    def take(self, batch: Batch) -> tuple[jax.Array, jax.Array, jax.Array]:
        """Images, labels and positions of a batch."""
        return batch.image, batch.label, batch.index

    def normalize(self, images: jax.Array) -> jax.Array:
        """Turns pixels into the float32 that a model sees."""
        return _normalized(images, self.mean, self.scale)


def _normalized(images: jax.Array, mean: Any, scale: Any) -> jax.Array:
    return (images.astype(jnp.float32) - mean[None]) / scale[None]
