"""Global contrast normalisation and ZCA whitening, as networks of 2013 were fed."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator

import numpy as np

from lrscape import checks
from lrscape.data.cache import digest, load_or_make
from lrscape.errors import InputError

# Of pylearn2's recipe for CIFAR-10, which Goodfellow et al. (2013) made and Lin et al.
# (2013) and Springenberg et al. (2014) took over.
CONTRAST = 55.0  # an image's norm: a deviation near 1 for 3,072 values
BIAS = 0.1  # added to every variance

# Below it an image is taken for constant.
MIN_NORM = 1e-8
# Images in double precision at once: 25 MB at CIFAR's size.
CHUNK = 1000
# To be raised with any change of what is computed, so that no older file is read.
VERSION = 1


def global_contrast_normalize(
    images: np.ndarray, *, scale: float = CONTRAST, sqrt_bias: float = 0.0
) -> np.ndarray:
    r"""Brings every image to mean 0 and one norm, over all its pixels and channels.

    .. math:: y = s \, \frac{x - \bar x}{\sqrt{b + \|x - \bar x\|^2}}

    Args:
        images: (n, ...), of any dtype.
        scale: :math:`s`, the norm afterwards if `sqrt_bias` is 0.
        sqrt_bias: :math:`b`.

    Returns:
        (n, ...), float64. An image that is constant becomes 0.

    Raises:
        InputError: a scale that is not positive, a bias that is negative.

    Example:
        >>> global_contrast_normalize(np.array([[1, 2, 3], [7, 7, 7]]), scale=2**0.5)
        array([[-1., 0., 1.], [ 0., 0., 0.]])

    References:
        Goodfellow et al., `Maxout Networks <https://arxiv.org/abs/1302.4389>`_, 2013,
        and the function of this name in pylearn2
    """
    checks.positive("scale", scale)
    checks.not_negative("sqrt_bias", sqrt_bias)
    images = np.asarray(checks.numbers("images", images))
    if not images.ndim:
        raise InputError(f"images={checks.shown(images)} must be (n, ...)")
    flat = images.reshape(len(images), -1).astype(np.float64)
    flat -= flat.mean(axis=1, keepdims=True)
    norm = np.sqrt(sqrt_bias + np.square(flat).sum(axis=1, keepdims=True))
    # Rounding leaves something of a constant image's mean; it is not its contrast.
    flat *= scale / np.where(norm < MIN_NORM, np.inf, norm)
    return flat.reshape(images.shape)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Whitening:
    r"""Contrast normalisation and then whitening that stays close to the image (ZCA).

    With the mean :math:`m` and the covariance :math:`V \Lambda V^T` of the
    contrast-normalised images :math:`x` that it was fitted on, and the bias :math:`b`,

    .. math:: y = V (\Lambda + b)^{-1/2} V^T (x - m),

    whose covariance over them is :math:`V \Lambda (\Lambda + b)^{-1} V^T`.

    Attributes:
        mean: (d,), float32; d is height times width times channels.
        matrix: (d, d), float32, symmetric.
        contrast: the norm of every image before it is whitened.
    """

    mean: np.ndarray
    matrix: np.ndarray
    contrast: float = CONTRAST

    @classmethod
    def fit(
        cls, images: np.ndarray, *, contrast: float = CONTRAST, bias: float = BIAS
    ) -> Whitening:
        """Fits to images, in double precision.

        It takes d² n operations and six arrays of d² doubles, 450 MB at CIFAR's size,
        7 GB at 64 x 64 pixels in colour.

        Args:
            images: (n, height, width, channels), those trained on and no others.
            contrast: the norm to bring each to first.
            bias: :math:`b`; more of it leaves more of the image, and less enlarges
                noise.

        Returns:
            The transformation.

        Raises:
            InputError: no images, a contrast or a bias that is not positive.

        Example:
            >>> images = np.random.default_rng(0).integers(0, 256, (50, 4, 4, 3))
            >>> y = Whitening.fit(images, bias=1e-6).apply(images)
            >>> covariance = np.cov(y.reshape(50, -1).T, bias=True)
            >>> np.linalg.eigvalsh(covariance).round(2)[[0, 1, -1]].tolist()
            [0.0, 1.0, 1.0]
        """
        if not bias > 0:
            raise InputError(
                f"bias={bias!r} must be positive, such as {BIAS}: pixels that never "
                "change have no variance of their own to divide by"
            )
        if not len(images):
            raise InputError("images is empty; whitening is fitted to one or more")
        count, size = len(images), images[0].size
        total, products = np.zeros(size), np.zeros((size, size))
        for chunk in _normalized(images, contrast):
            total += chunk.sum(axis=0)
            products += chunk.T @ chunk
        mean = total / count
        products /= count
        products -= np.outer(mean, mean)
        variances, vectors = np.linalg.eigh(products)
        # Rounding takes a variance of 0 below it.
        vectors *= (np.maximum(variances, 0) + bias) ** -0.25
        return cls(
            mean=mean.astype(np.float32),
            matrix=(vectors @ vectors.T).astype(np.float32),
            contrast=contrast,
        )

    @classmethod
    def cached(cls, images: np.ndarray) -> Whitening:
        """`fit` to images by the published settings, from the user's cache if there.

        The file lies in ``$XDG_CACHE_HOME/lrscape`` or ``~/.cache/lrscape`` (38 MB for
        CIFAR-10), is named by a SHA-256 of the images and the settings, and may be
        deleted at any time. See `lrscape.data.cache.load_or_make`.
        """
        settings = {"version": VERSION, "contrast": CONTRAST, "bias": BIAS}
        key = digest({"images": images, json.dumps(settings): np.empty(0)})

        def make() -> dict[str, np.ndarray]:
            fitted = cls.fit(images, contrast=CONTRAST, bias=BIAS)
            return {"mean": fitted.mean, "matrix": fitted.matrix}

        arrays = load_or_make(f"whitening-{key}", make)
        return cls(mean=arrays["mean"], matrix=arrays["matrix"], contrast=CONTRAST)

    def apply(self, images: np.ndarray) -> np.ndarray:
        """Whitens images.

        Args:
            images: (n, height, width, channels), on the scale of those fitted on.

        Returns:
            (n, height, width, channels), float32.

        Raises:
            InputError: images of another size.
        """
        if np.prod(images.shape[1:]) != self.mean.size:
            raise InputError(
                f"images of shape {images.shape[1:]} are not of the size whitened "
                f"here, {self.mean.size} values an image"
            )
        whitened = np.empty(images.shape, np.float32)
        flat, start = whitened.reshape(len(images), -1), 0
        for chunk in _normalized(images, self.contrast):
            chunk -= self.mean
            stop = start + len(chunk)
            np.matmul(chunk.astype(np.float32), self.matrix, out=flat[start:stop])
            start = stop
        return whitened


def _normalized(images: np.ndarray, contrast: float) -> Iterator[np.ndarray]:
    """Contrast-normalised images (count, d), a chunk at a time."""
    for start in range(0, len(images), CHUNK):
        chunk = images[start : start + CHUNK]
        yield global_contrast_normalize(chunk, scale=contrast).reshape(len(chunk), -1)
