"""Augmentation on the device, each example's a pure function of its own key.

The key comes from (seed, epoch, example), so an example is augmented alike whatever
the batch it falls into, the batch size or the number of devices.
"""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from lrscape.errors import unknown_name

CROP_PADDING = 4


def crop(key: jax.Array, image: jax.Array) -> jax.Array:
    """Pads with zeros by 4 pixels on each side and cuts out a random window."""
    height, width, channels = image.shape
    padding = ((CROP_PADDING, CROP_PADDING), (CROP_PADDING, CROP_PADDING), (0, 0))
    corner = jax.random.randint(key, (2,), 0, 2 * CROP_PADDING + 1)
    return jax.lax.dynamic_slice(
        jnp.pad(image, padding),
        (corner[0], corner[1], jnp.zeros((), corner.dtype)),
        (height, width, channels),
    )


def flip(key: jax.Array, image: jax.Array) -> jax.Array:
    """Mirrors left to right, half of the time."""
    return jnp.where(jax.random.bernoulli(key), image[:, ::-1], image)


AUGMENTATIONS = {"crop": crop, "flip": flip}


def check_names(names: Sequence[str]) -> None:
    """Raises for a name that is not in `AUGMENTATIONS`."""
    for name in names:
        if name not in AUGMENTATIONS:
            raise unknown_name("augment", name, AUGMENTATIONS)


def augment_batch(
    key: jax.Array,
    epoch: jax.Array,
    indices: jax.Array,
    images: jax.Array,
    names: Sequence[str],
) -> jax.Array:
    """Augments a batch of images.

    Args:
        key: a PRNG key, made from the run's seed.
        epoch: the epoch, an integer scalar.
        indices: (batch,), the examples' positions in the training set.
        images: (batch, height, width, channels), of any dtype.
        names: of `AUGMENTATIONS`, applied in this order.

    Returns:
        The images, with shape and dtype unchanged.

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
    if not names:
        return images
    key = jax.random.fold_in(key, epoch)

    def augment(index, image):
        example_key = jax.random.fold_in(key, index)
        for number, name in enumerate(names):
            image = AUGMENTATIONS[name](jax.random.fold_in(example_key, number), image)
        return image

    return jax.vmap(augment)(indices, images)
