"""Views of an encoded image: a random one to train on, the middle to measure on.

Pixels are taken as they are stored: a camera's note on how it was held is not heeded.
"""

from __future__ import annotations

import io
import math

import numpy as np
from PIL import Image

# Szegedy et al. (2014), Sec. 6: a patch takes 8 to 100 % of the image's area, at an
# aspect ratio between 3/4 and 4/3.
MIN_AREA = 0.08
ASPECTS = (3 / 4, 4 / 3)
# Images are scaled to this much more than the view before its middle is cut out, as
# 256 is to 224.
MARGIN = 256 / 224

Box = tuple[float, float, float, float]


def random_box(
    random: np.random.Generator, width: int, height: int, min_area: float = MIN_AREA
) -> Box:
    """A patch of random size, shape and place.

    Area and logarithm of the aspect ratio are uniform; a patch that does not fit is
    drawn again, and after ten times the largest one in the middle is taken.

    Args:
        random: the source of randomness.
        width: of the image, in pixels.
        height: of the image, in pixels.
        min_area: the least share of the image's area.

    Returns:
        Left, top, right and bottom, in pixels.

    References:
        Szegedy et al., `Going Deeper with Convolutions
        <https://arxiv.org/abs/1409.4842>`_, 2014, Sec. 6
    """
    low, high = ASPECTS
    for _ in range(10):
        area = width * height * random.uniform(min_area, 1.0)
        aspect = math.exp(random.uniform(math.log(low), math.log(high)))
        w, h = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < w <= width and 0 < h <= height:
            left = int(random.integers(width - w + 1))
            top = int(random.integers(height - h + 1))
            return left, top, left + w, top + h
    w = min(width, round(height * high))
    h = min(height, round(width / low))
    return ((width - w) / 2, (height - h) / 2, (width + w) / 2, (height + h) / 2)


def middle_box(width: int, height: int) -> Box:
    """The square in the middle, 224 / 256 of the shorter side.

    Example:
        >>> middle_box(512, 256)
        (144.0, 16.0, 368.0, 240.0)
    """
    side = min(width, height) / MARGIN
    return (
        (width - side) / 2, (height - side) / 2,
        (width + side) / 2, (height + side) / 2,
    )  # fmt: skip


def window_box(random: np.random.Generator, width: int, height: int, side: int) -> Box:
    """A square of the middle square, 224 / 256 of the shorter side, at random.

    What a window of `side` pixels shows of the image scaled to a shorter side of
    ``side * 256 / 224`` and cut to its middle square: it lies at whole pixels of that.

    Args:
        random: the source of randomness.
        width: of the image, in pixels.
        height: of the image, in pixels.
        side: of the view, in pixels.

    Returns:
        Left, top, right and bottom, in pixels.

    References:
        Krizhevsky et al., `ImageNet Classification with Deep Convolutional Neural
        Networks <https://doi.org/10.1145/3065386>`_, 2012, Sec. 2 and 4.1

    Example:
        >>> window_box(np.random.default_rng(0), 256, 300, 224)
        (28.0, 43.0, 252.0, 267.0)
    """
    square = min(width, height)
    room = round(side * MARGIN) - side
    pixel = square / (side + room)
    left, top = (pixel * int(random.integers(room + 1)) for _ in range(2))
    left, top = left + (width - square) / 2, top + (height - square) / 2
    return left, top, left + pixel * side, top + pixel * side


def window_view(
    encoded: bytes, side: int, channels: int, random: np.random.Generator
) -> np.ndarray:
    """`window_box`, scaled to (side, side, channels), mirrored half of the time."""
    image = Image.open(io.BytesIO(encoded))
    view = _scaled(image, window_box(random, *image.size, side), side, channels)
    return view[:, ::-1] if random.random() < 0.5 else view


def random_view(
    encoded: bytes,
    side: int,
    channels: int,
    random: np.random.Generator,
    min_area: float = MIN_AREA,
) -> np.ndarray:
    """A random patch, scaled to a square and mirrored half of the time.

    Args:
        encoded: a JPEG or PNG file.
        side: of the view, in pixels.
        channels: 3 for RGB, 1 for grey.
        random: the source of randomness.
        min_area: see `random_box`.

    Returns:
        (side, side, channels), uint8.
    """
    image = Image.open(io.BytesIO(encoded))
    box = random_box(random, *image.size, min_area)
    view = _scaled(image, box, side, channels)
    return view[:, ::-1] if random.random() < 0.5 else view


def middle_view(encoded: bytes, side: int, channels: int) -> np.ndarray:
    """The middle of the image, scaled to a square of (side, side, channels), uint8.

    The same as scaling the shorter side to ``side * 256 / 224`` and cutting out the
    middle, in one step.
    """
    image = Image.open(io.BytesIO(encoded))
    return _scaled(image, middle_box(*image.size), side, channels)


def whole_view(encoded: bytes, side: int, channels: int) -> np.ndarray:
    """The whole image, scaled to a square of (side, side, channels), uint8."""
    image = Image.open(io.BytesIO(encoded))
    return _scaled(image, (0, 0, *image.size), side, channels)


def _scaled(image: Image.Image, box: Box, side: int, channels: int) -> np.ndarray:
    mode = "RGB" if channels == 3 else "L"
    width, height = image.size
    # A JPEG is decoded at a half, a quarter or an eighth of its size where that is
    # still finer than the view: several times faster, and hardly seen.
    finest = min(box[2] - box[0], box[3] - box[1]) / side
    if image.format == "JPEG" and finest >= 2:
        share = 2 ** min(3, int(math.log2(finest)))
        image.draft(mode, (width // share, height // share))
    across, down = image.size[0] / width, image.size[1] / height
    # Rounding may not carry it beyond the edge.
    right, bottom = (
        min(box[2] * across, image.size[0]),
        min(box[3] * down, image.size[1]),
    )
    box = (box[0] * across, box[1] * down, right, bottom)
    image = image.convert(mode)
    # Pillow widens the filter where it scales down, so that nothing aliases.
    view = np.asarray(image.resize((side, side), Image.Resampling.BILINEAR, box=box))
    return view.reshape(side, side, channels)
