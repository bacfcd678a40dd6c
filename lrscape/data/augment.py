"""Augmentation on the device, each example's a pure function of its own key.

The key comes from (seed, epoch, example), so an example is augmented alike whatever
the batch it falls into, the batch size or the number of devices.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from jax.scipy.ndimage import map_coordinates

from lrscape import checks
from lrscape.errors import InputError

CROP_PADDING = 4  # pixels on each side
SHIFT = 0.1  # of height and width, at the most
ZOOM = 0.1  # the largest change of scale
ROTATION = 15.0  # degrees, at the most
JITTER = 0.4  # the largest change of brightness, contrast and saturation


# Of single images, pixel by pixel: (key, image, max_value) -> image.


def crop(key: jax.Array, image: jax.Array, max_value: float = 255) -> jax.Array:
    """Pads with zeros by 4 pixels on each side and cuts out a random window."""
    height, width, channels = image.shape
    padding = ((CROP_PADDING, CROP_PADDING), (CROP_PADDING, CROP_PADDING), (0, 0))
    corner = jax.random.randint(key, (2,), 0, 2 * CROP_PADDING + 1)
    return jax.lax.dynamic_slice(
        jnp.pad(image, padding),
        (corner[0], corner[1], jnp.zeros((), corner.dtype)),
        (height, width, channels),
    )


def flip(key: jax.Array, image: jax.Array, max_value: float = 255) -> jax.Array:
    """Mirrors left to right, half of the time."""
    return jnp.where(jax.random.bernoulli(key), image[:, ::-1], image)


def jitter(key: jax.Array, image: jax.Array, max_value: float = 255) -> jax.Array:
    """Changes brightness, contrast and saturation, each by up to 40 %, in that order.

    Pixels stay within 0 and the largest value; a grey image has no saturation.
    """
    image = image.astype(jnp.float32)
    brightness, contrast, saturation = jax.random.uniform(
        key, (3,), minval=1 - JITTER, maxval=1 + JITTER
    )

    def mixed(with_what, share):
        return jnp.clip(share * image + (1 - share) * with_what, 0, max_value)

    image = mixed(jnp.zeros_like(image), brightness)
    image = mixed(jnp.full_like(image, _grey(image).mean()), contrast)
    if image.shape[-1] == 3:
        image = mixed(jnp.broadcast_to(_grey(image), image.shape), saturation)
    return image


def _grey(image: jax.Array) -> jax.Array:
    """Luma by ITU-R 601, (height, width, 1)."""
    if image.shape[-1] != 3:
        return image.mean(axis=-1, keepdims=True)
    weights = jnp.array([0.299, 0.587, 0.114], image.dtype)
    return (image @ weights)[..., None]


# Of the plane: (key, (height, width)) -> a 3x3 matrix that takes a pixel of the result,
# as (row, column, 1) from the image's middle, to where its value comes from.


def shift(key: jax.Array, shape: tuple[int, int]) -> jax.Array:
    """Moves by up to a tenth of height and width; edges repeat."""
    limits = SHIFT * jnp.array(shape, jnp.float32)
    offset = jax.random.uniform(key, (2,), minval=-1.0, maxval=1.0) * limits
    return jnp.eye(3).at[:2, 2].set(offset)


def zoom(key: jax.Array, shape: tuple[int, int]) -> jax.Array:
    """Scales rows and columns alike, by 0.9 to 1.1; edges repeat."""
    scale = jax.random.uniform(key, (), minval=1 - ZOOM, maxval=1 + ZOOM)
    return jnp.diag(jnp.stack([scale, scale, jnp.ones_like(scale)]))


def rotation(key: jax.Array, shape: tuple[int, int]) -> jax.Array:
    """Turns about the middle by up to 15 degrees; edges repeat."""
    angle = jnp.deg2rad(jax.random.uniform(key, (), minval=-ROTATION, maxval=ROTATION))
    cos, sin, zero, one = jnp.cos(angle), jnp.sin(angle), jnp.zeros(()), jnp.ones(())
    return jnp.stack([cos, -sin, zero, sin, cos, zero, zero, zero, one]).reshape(3, 3)


PIXELS: dict[str, Callable[..., jax.Array]] = {
    "crop": crop,
    "flip": flip,
    "jitter": jitter,
}
PLANES: dict[str, Callable[..., jax.Array]] = {
    "shift": shift,
    "zoom": zoom,
    "rotation": rotation,
}

AUGMENTATIONS: tuple[str, ...] = (*PIXELS, *PLANES)

# Those that take pixels to lie between 0 and their largest value.
UNWHITENED = ("jitter",)


def warp(image: jax.Array, matrix: jax.Array) -> jax.Array:
    """Maps the plane of an image, with linear interpolation; edges repeat.

    Args:
        image: (height, width, channels).
        matrix: (3, 3), from the result's pixels to the image's, as (row, column, 1)
            from the middle.

    Returns:
        (height, width, channels), float32.
    """
    height, width, channels = image.shape
    middle = jnp.array([(height - 1) / 2, (width - 1) / 2], jnp.float32)
    rows, columns = jnp.mgrid[:height, :width].astype(jnp.float32)
    pixels = jnp.stack([rows - middle[0], columns - middle[1], jnp.ones_like(rows)])
    sources = jnp.einsum("ij,jhw->ihw", matrix, pixels)
    places = [sources[0] + middle[0], sources[1] + middle[1]]
    image = image.astype(jnp.float32)
    return jnp.stack(
        [
            map_coordinates(image[..., channel], places, order=1, mode="nearest")
            for channel in range(channels)
        ],
        axis=-1,
    )


def augment(
    key: jax.Array, image: jax.Array, names: Sequence[str], max_value: float = 255
) -> jax.Array:
    """Augments one image.

    Neighbours among shift, zoom and rotation are one map of the plane, so that pixels
    are interpolated once.

    Args:
        key: the example's PRNG key.
        image: (height, width, channels).
        names: of `AUGMENTATIONS`, in order.
        max_value: the largest value of a pixel.

    Returns:
        The image, of the same shape; float32 if it was interpolated or jittered.
    """
    matrix = None
    for number, name in enumerate(names):
        own_key = jax.random.fold_in(key, number)
        if name in PLANES:
            step = PLANES[name](own_key, image.shape[:2])
            matrix = step if matrix is None else matrix @ step
            continue
        if matrix is not None:
            image, matrix = warp(image, matrix), None
        image = PIXELS[name](own_key, image, max_value)
    return image if matrix is None else warp(image, matrix)


def check_names(names: Sequence[str], normalize: str | None = None) -> None:
    """Raises for a name that is not in `AUGMENTATIONS`, or not for whitened images."""
    for name in checks.sequence("augment", names):
        checks.one_of("augment", name, AUGMENTATIONS)
        if normalize == "whiten" and name in UNWHITENED:
            raise InputError(
                f"augment={name!r} needs pixels between 0 and their largest value, but "
                "normalize='whiten' whitens images before they are augmented; leave "
                f"{name!r} out, or use another normalize"
            )


def augment_batch(
    key: jax.Array,
    epoch: jax.Array | int,
    indices: jax.Array,
    images: jax.Array,
    names: Sequence[str],
    max_value: float = 255,
) -> jax.Array:
    """Augments a batch of images.

    Args:
        key: a PRNG key, made from the run's seed.
        epoch: the epoch, an integer scalar.
        indices: (batch,), the examples' positions in the training set.
        images: (batch, height, width, channels), of any dtype.
        names: of `AUGMENTATIONS`, applied in this order.
        max_value: the largest value of a pixel.

    Returns:
        The images, of the same shape; float32 if they were interpolated or jittered.

    Raises:
        InputError: an unknown name.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> images = jnp.arange(2 * 8 * 8, dtype=jnp.uint8).reshape(2, 8, 8, 1)
        >>> key = jax.random.key(0)
        >>> both = augment_batch(key, 3, jnp.array([5, 9]), images, ['crop', 'flip'])
        >>> last = augment_batch(key, 3, jnp.array([9]), images[1:], ['crop', 'flip'])
        >>> bool((both[1:] == last).all())
        True
    """
    check_names(names)
    key = checks.key("key", key)
    if checks.is_concrete(epoch):
        checks.whole("epoch", epoch)
    images = jnp.asarray(checks.numbers("images", images, axes=4))
    indices = jnp.asarray(checks.numbers("indices", indices, axes=1))
    if len(indices) != len(images):
        raise InputError(
            f"indices holds {len(indices)} positions, of {len(images)} images"
        )
    checks.positive("max_value", max_value)
    if not names:
        return images
    key = jax.random.fold_in(key, epoch)

    def one(index, image):
        return augment(jax.random.fold_in(key, index), image, names, max_value)

    return jax.vmap(one)(indices, images)
