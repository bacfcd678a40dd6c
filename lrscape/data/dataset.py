"""A set of labelled images: its parts, and how its pixels are normalised."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from lrscape import checks
from lrscape.data.whitening import Whitening
from lrscape.errors import InputError

NORMALIZATIONS = ("standardize", "center", "scale", "center_scale", "whiten")


class Examples(NamedTuple):
    """Labelled images.

    Attributes:
        image: (n, height, width, channels), uint8.
        label: (n,), int32, counted from 0.
    """

    image: np.ndarray
    label: np.ndarray

    def __len__(self) -> int:  # the number of examples, not of fields
        return len(self.label)

    def take(self, indices: np.ndarray) -> Examples:
        """The examples at `indices`, in that order."""
        indices = checks.positions("indices", indices, len(self))
        return Examples(self.image[indices], self.label[indices])


@dataclasses.dataclass(frozen=True, kw_only=True)
class Dataset:
    """A set of labelled images, split into its parts.

    Attributes:
        name: the name it was loaded by.
        num_classes: labels lie below it.
        max_value: the largest value a pixel can take (255; 16 for digits).
        train: the examples to train on.
        test: the examples to report errors on.
        validation: examples held out of the training set, or None.
    """

    name: str
    num_classes: int
    max_value: int
    train: Examples
    test: Examples
    validation: Examples | None = None

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(height, width, channels)."""
        return self.train.image.shape[1:]

    @functools.cached_property
    def whitening(self) -> Whitening:
        """Contrast normalisation and ZCA whitening, fitted to the training examples.

        Half a minute for CIFAR-10 where the user's cache does not have it.
        """
        return Whitening.cached(self.train.image)

    def normalization(self, kind: str) -> tuple[np.ndarray, np.ndarray]:
        """The mean to subtract from pixels and the scale to divide by.

        Computed over the training examples alone.

        Args:
            kind: ``'standardize'`` to mean 0 and deviation 1 in each channel;
                ``'center'``: the mean image is subtracted and pixels keep their
                scale, as in Krizhevsky et al. (2012); ``'scale'``: to [0, 1];
                ``'center_scale'``: both, the mean image subtracted after it.
                ``'whiten'`` is no mean and scale: see `whitening`.

        Returns:
            Two float32 arrays that broadcast against an image: mean and scale.

        Raises:
            InputError: another kind, or ``'whiten'``.
        """
        checks.one_of("normalize", kind, NORMALIZATIONS)
        shape = (1, 1, self.image_shape[-1])
        if kind == "standardize":
            mean, deviation = moments([self.train.image])
            scale = np.where(deviation > 0, deviation, 1.0)
        elif kind in ("center", "center_scale"):
            mean = self.train.image.mean(axis=0, dtype=np.float64)
            divisor = self.max_value if kind == "center_scale" else 1
            return mean.astype(np.float32), np.full(shape, divisor, np.float32)
        elif kind == "scale":
            mean, scale = np.zeros(shape), np.full(shape, self.max_value)
        else:
            raise InputError(
                "normalize='whiten' maps whole images, which no mean and scale of "
                "pixels does; use data.whitening.apply(images)"
            )
        return (
            np.reshape(mean, shape).astype(np.float32),
            np.broadcast_to(scale, shape).astype(np.float32),
        )


def moments(chunks: Iterable[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """The mean and the standard deviation of each channel's pixels, exactly.

    Args:
        chunks: images (n, height, width, channels), uint8, in pieces.

    Returns:
        (channels,) each.

    Example:
        >>> images = [np.full((1, 1, 1, 2), p, np.uint8) for p in ([1, 7], [3, 7])]
        >>> mean, deviation = moments(images)
        >>> mean.tolist(), deviation.tolist()
        ([2.0, 7.0], [1.0, 0.0])
    """
    # Counting each value of uint8 needs no float copy.
    values = np.arange(256)
    counts = sum(
        np.stack([
            np.bincount(chunk[..., channel].ravel(), minlength=256)
            for channel in range(chunk.shape[-1])
        ])
        for chunk in chunks
    )  # fmt: skip
    counts = np.asarray(counts)
    pixels = counts.sum(axis=1)
    mean = counts @ values / pixels
    variance = counts @ values**2 / pixels - mean**2
    return mean, np.sqrt(np.maximum(variance, 0))


def choose(
    count: int,
    validation: int,
    examples: int | None,
    seed: int,
    *,
    field: str = "examples",
) -> tuple[np.ndarray, np.ndarray]:
    """Chooses examples to keep and to hold out, the same for the same seed.

    Args:
        count: how many there are.
        validation: how many to hold out.
        examples: how many of the others to keep; None is all of them.
        seed: of the draw; independent of a run's own seed, so that runs with different
            seeds report errors on the same examples.
        field: what an error calls `examples`.

    Returns:
        The positions of those that are kept and of those held out, each in order.

    Raises:
        InputError: nothing to keep, or more than there is.

    Example:
        >>> choose(6, 2, 3, seed=0)
        (array([0, 4, 5]), array([2, 3]))
    """
    if checks.whole("validation", validation) >= count:
        raise InputError(
            f"validation={validation!r} must leave examples on both sides; there are "
            f"{count}"
        )
    left = count - validation
    if examples is not None and checks.count(field, examples) > left:
        raise InputError(
            f"{field}={examples!r} must lie between 1 and the {left} that there are"
        )
    seed = checks.seed("split_seed", seed)
    order = np.random.default_rng(seed).permutation(count)
    kept = order[validation:][:examples]
    return np.sort(kept), np.sort(order[:validation])
